"""Baselines that depend on the image: counterfactual images and one activation per image, against oracles."""

from collections.abc import Iterator
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
import torch
from captum.attr import LayerIntegratedGradients
from torch import Tensor

from circuitry import AttributionGraph, Encoder, class_logit, left_rule, midpoint_rule
from circuitry.circuits import AttributionSettings, attribute_parts, attribution, gauss_legendre_rule
from circuitry.encoder import AnyBaseline, Baseline, Counterfactual, Task
from tests.support.oracles import TailModule, brute_force_edges, brute_force_nodes, setting, worst
from tests.support.towers import TOWERS, make_tower
from tests.support.work import QUIET


def attribute(encoder: Encoder, images: Any, weights: Tensor, baseline: AnyBaseline, **more: Any) -> AttributionGraph:
    return attribution.attribute(encoder, images, class_logit(weights, 1), baseline=baseline, progress=False, **more)


def activations(encoder: Encoder, images: Tensor) -> dict[str, Tensor]:
    with torch.no_grad():
        return dict(encoder.run_with_cache(images)[1])


def random_activations(encoder: Encoder, images: Tensor) -> dict[str, Tensor]:
    return {site: torch.randn_like(a) for site, a in activations(encoder, images).items()}


def precise(tower: Any, n: int = 3) -> tuple[Encoder, Tensor, Tensor]:
    """Double precision: a random tower makes nearly the same of all images, and effects are small beside rounding."""
    encoder, images, weights = setting(tower.double(), n)
    return encoder, images.double(), weights.double()


KINDS = ("one per image", "one for all", "a tensor", "activations")
CASES = [("resnet", kind) for kind in KINDS] + [("vit", KINDS[0]), ("swin", KINDS[-1])]


@pytest.mark.parametrize(("tower", "kind"), [*((tower, "zero") for tower in TOWERS), *CASES])
def test_nodes_and_edges_equal_brute_force(tower: str, kind: str) -> None:
    encoder, images, weights = precise(make_tower(tower))
    others = torch.randn_like(images)
    ends = activations(encoder, others)
    baseline: AnyBaseline = Counterfactual(others)
    if kind == "one for all":
        baseline, ends = Counterfactual(others[:1]), {site: a[:1].expand_as(a) for site, a in ends.items()}
    elif kind == "a tensor":
        baseline = others
    elif kind == "activations":
        ends = random_activations(encoder, images)
        baseline = Baseline("random", ends)
    elif kind == "zero":
        baseline, ends = "zero", {site: torch.zeros_like(a) for site, a in ends.items()}
    graph = attribute(encoder, images, weights, baseline, rule=left_rule(3), node_fraction=0.1)
    nodes = {site: brute_force_nodes(encoder, images, weights, site, 3, ends[site]) for site in encoder.sites}
    assert worst(graph.node_scores, nodes) < 1e-8
    kept = graph.kept_units
    edges = {pair: brute_force_edges(encoder, images, pair, kept, 3, ends[pair[0]]) for pair in graph.edge_scores}
    assert worst(graph.edge_scores, edges) < 1e-8
    names = {"activations": "random", "zero": "zero"}
    assert graph.settings["baseline"] == names.get(kind, "counterfactual")
    assert list(graph.edge_scores) == list(pairwise(graph.inner_sites))


@pytest.mark.parametrize("kind", ["zero", "images"])
def test_nodes_equal_captum(resnet: Any, kind: str) -> None:
    encoder, images, weights = setting(resnet)
    clean, others = activations(encoder, images), torch.randn_like(images)
    zeros = {site: torch.zeros_like(a) for site, a in clean.items()}
    baseline, ends = ("zero", zeros) if kind == "zero" else (others, activations(encoder, others))
    graph = attribute(encoder, images, weights, baseline, rule=gauss_legendre_rule(7))
    for site in ("act2", "layer2.1", "layer4.0"):
        tail = TailModule(encoder, site, weights)
        effect = LayerIntegratedGradients(tail, tail.entry).attribute(
            clean[site], baselines=ends[site], n_steps=7, method="gausslegendre"
        )
        expected = effect.sum((2, 3)).mean(0).detach().numpy()
        assert expected == pytest.approx(graph.node_scores[site], rel=1e-3, abs=1e-6)


def test_the_metric_difference_is_that_of_each_image_to_its_own_baseline(resnet: Any) -> None:
    encoder, images, weights = setting(resnet)
    ends = random_activations(encoder, images)
    graph = attribute(encoder, images, weights, Baseline("random", ends), rule=midpoint_rule(60), node_fraction=0.01)
    metric = class_logit(weights, 1)
    for site in encoder.sites:
        with torch.no_grad():
            moved = encoder.run_with_hooks(images, fwd_hooks=[(site, lambda a, hook, site=site: ends[site])])
            expected = float((metric(encoder(images)) - metric(moved)).mean())
        assert graph.completeness[site].metric_difference == pytest.approx(expected, abs=1e-6)
        assert abs(graph.completeness[site].gap) < 0.02


@pytest.mark.parametrize("kind", ["zero", "images", "activations"])
def test_any_cut_into_batches_gives_the_same(resnet: Any, kind: str) -> None:
    encoder, images, weights = precise(resnet, n=5)
    others = torch.randn_like(images)
    given: dict[str, AnyBaseline] = {"zero": "zero", "images": others}
    baseline = given[kind] if kind in given else Baseline("random", random_activations(encoder, others))
    whole = attribute(encoder, images, weights, baseline, rule=midpoint_rule(2))

    def one_shot() -> Iterator[Tensor]:
        yield images[:1]
        yield images[1:]

    for cut, size in ((images, 2), ([images[:4], images[4:]], None), (one_shot(), 3)):
        parts = attribute(encoder, cut, weights, baseline, rule=midpoint_rule(2), batch_size=size)
        assert worst(parts.node_scores, whole.node_scores) < 1e-8
        assert worst(parts.edge_scores, whole.edge_scores) < 1e-8
        for site, expected in whole.completeness.items():
            assert parts.completeness[site] == pytest.approx(expected, abs=1e-10)


@pytest.mark.parametrize("kind", ["images", "activations"])
def test_parts_take_their_own_part_of_the_baseline(resnet: Any, kind: str) -> None:
    encoder, images, weights = precise(resnet, n=5)
    others = torch.randn_like(images)
    values = random_activations(encoder, others)
    baseline: AnyBaseline = others if kind == "images" else Baseline("random", values)
    task, settings = (
        Task(encoder, images, class_logit(weights, 1), baseline=baseline, work=QUIET),
        AttributionSettings(rule=left_rule(2)),
    )
    found = attribute_parts(task, settings, np.arange(5) % 2)
    chosen = (slice(None), slice(0, None, 2), slice(1, None, 2))
    for graph, part in zip((found.whole, *found.parts.values()), chosen, strict=True):
        own = others[part] if kind == "images" else Baseline("random", {s: v[part] for s, v in values.items()})
        direct = attribute(encoder, images[part], weights, own, rule=settings.rule)
        assert worst(graph.node_scores, direct.node_scores) < 1e-8
        assert worst(graph.edge_scores, direct.edge_scores) < 1e-8
        for site, expected in direct.completeness.items():
            assert graph.completeness[site] == pytest.approx(expected, abs=1e-10)


def test_counterfactual_images_run_without_hooks_and_in_evaluation_mode(resnet: Any) -> None:
    encoder, images, _ = setting(resnet)
    clean = activations(encoder, images)
    expected = activations(encoder, others := torch.randn_like(images))
    resnet.train()
    before = {name: value.clone() for name, value in resnet.state_dict().items()}
    with encoder.hooks(fwd_hooks=[("act1", lambda a, hook: 0 * a)]):
        found = Counterfactual(others).activations(encoder, clean)
    assert all(torch.equal(found[site], expected[site]) for site in encoder.sites)
    assert resnet.training
    assert all(torch.equal(value, before[name]) for name, value in resnet.state_dict().items())
