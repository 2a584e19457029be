"""Node and edge scores for all baselines against paper, brute force and the study's numbers."""

import json
from collections.abc import Iterator
from itertools import pairwise
from typing import Any

import numpy as np
import open_clip
import pytest
import torch
from safetensors import safe_open
from torch import Tensor, nn

import circuitry
from circuitry import (
    AttributionGraph,
    Encoder,
    class_logit,
    edge_jaccard,
    left_rule,
    midpoint_rule,
    node_overlap,
    wl_kernel,
)
from circuitry.circuits import AttributionSettings, attribute_folds, chain_edges
from circuitry.circuits.edge_methods import fold_edges
from circuitry.encoder import AnyBaseline, Baseline, Counterfactual, Stage, Task
from circuitry.encoder.tensor_batches import bytes_per_image
from tests.conftest import shared
from tests.support.assert_same import assert_same
from tests.support.differences import assert_same_differences
from tests.support.oracles import brute_force_edges, brute_force_nodes, setting, worst
from tests.support.towers import TOWERS, make_tower
from tests.support.work import AS_STUDIED, QUIET


def attribute(
    encoder: Encoder, images: Any, weights: Tensor, baseline: Any = "zero", **more: Any
) -> AttributionGraph:
    settings = {"baseline": baseline, "progress": False, **AS_STUDIED, **more}
    return circuitry.attribute(encoder, images, class_logit(weights, 1), **settings)


def hand_worked_encoder() -> Encoder:
    """Input [B,3,1,2] -> doubled -> weighted sum of units and positions; every number fits on paper.

    doubled: units 2 x;  squared: units (u0 + u1)^2, u2 per position;  embedding: [sum of squared_0, sum of squared_1].
    """
    tower = nn.Linear(1, 1)

    def squared(x: Tensor) -> Tensor:
        return torch.stack([(x[:, 0] + x[:, 1]) ** 2, x[:, 2]], 1)

    stages = (
        Stage("doubled", lambda x: 2 * x, 1),
        Stage("squared", squared, 1),
        Stage("embedding", lambda x: x.sum((2, 3)), 1),
    )
    return Encoder(tower, stages, (1, 2))


def test_hand_worked_network() -> None:
    encoder = hand_worked_encoder()
    # One image: units x0 = (1, 0), x1 = (2, 1), x2 = (3, 1) over its two positions.
    image = torch.tensor([[[[1.0, 0]], [[2, 1]], [[3, 1]]]])
    graph = circuitry.attribute(
        encoder,
        image,
        lambda e: e[:, 0] + 10 * e[:, 1],
        1.0,
        "midpoint-2",
        progress=False,
        domain="paper",
        **AS_STUDIED,
    )
    assert graph.domain == "paper"
    # doubled = (2,0), (4,2), (6,2). m = (6^2 + 2^2) + 10 * 8 = 120.
    # On the path s * doubled the gradient by u0 and u1 is 2 s (6, 2), by u2 it is 10. The midpoint rule is exact for
    # linear integrands: the mean of 2 s is 1. Effects: u0: 2*6 + 0*2 = 12; u1: 4*6 + 2*2 = 28; u2: 80.
    assert graph.node_scores["doubled"].tolist() == [12, 28, 80]
    assert graph.node_scores["input"].tolist() == [12, 28, 80]
    assert graph.node_scores["squared"].tolist() == [40, 80]
    assert graph.node_scores["embedding"].tolist() == [40, 80]
    assert tuple(graph.completeness["doubled"]) == (120, 120)
    assert graph.kept_units["doubled"].tolist() == [2, 1, 0]
    assert graph.kept_units["squared"].tolist() == [1, 0]
    # Edges into squared_0: y(s) = s^2 (36, 4) per position, gap = mean over 2 positions of (y - (36, 4))^2.
    # d gap / d u_p = (2/2) (s^2 - 1) y_p * 2 s * root_p with roots (6, 2): = 2 (s^3 - s) * (36*6, 4*2).
    # Midpoints s = 3/4, 1/4: s^3 - s = -0.328125, -0.234375, mean -0.28125; x2: -0.5625 * (216, 8) = (-121.5, -4.5).
    # Times -u: u0 = (2,0): 243; u1 = (4,2): 486 + 9 = 495; u2 does not reach it: 0. Rows and columns in kept order.
    # Into squared_1: y = s (6, 2); d gap / d u2_p = (s - 1) y_p: mean of (s - 1) = -1/2: (-3, -1); times -(6, 2): 20.
    assert graph.edge_scores["doubled", "squared"].tolist() == [
        [20, 0, 0],
        [0, 495, 243],
    ]
    # Into embedding_0 from squared_0 = (36, 4): one position; gap' = 2 (s - 1) 40, mean -40; times -(36 + 4): 1600.
    # Into embedding_1 likewise 2 * (-1/2) * 8 * -8 = 64.
    assert graph.edge_scores["squared", "embedding"].tolist() == [[64, 0], [0, 1600]]
    edges = {
        (a, b): d["weight"]
        for a, b, d in graph.circuit(edges_per_node=1).graph.edges(data=True)
    }
    assert edges == {
        ("doubled/2", "squared/1"): 20,
        ("doubled/1", "squared/0"): 495,
        ("squared/1", "embedding/1"): 64,
        ("squared/0", "embedding/0"): 1600,
    }


def test_edges_are_the_same_from_either_side(
    any_tower: nn.Module, monkeypatch: pytest.MonkeyPatch
) -> None:
    encoder, images, weights = setting(any_tower.double())
    images, weights = images.double(), weights.double()
    routes = ("_residuals_times_jacobian", "_jacobian_times_steps")
    found = []
    for route in routes:
        with monkeypatch.context() as patch:
            for other in routes:
                patch.setattr(chain_edges, other, getattr(chain_edges, route))
            graph = attribute(encoder, images, weights, rule=midpoint_rule(2), size=0.2)
        found.append(graph.edge_scores)
    assert worst(*found) < 1e-8
    assert torch.backends.mha.get_fastpath_enabled()


@pytest.mark.parametrize(
    "sites", [("layer1.0", "layer2.1", "attnpool"), ("input", "act2", "layer4.0")]
)
def test_edges_between_sites_further_apart(resnet: Any, sites: tuple[str, ...]) -> None:
    encoder, images, weights = setting(resnet)
    graph = attribute(
        encoder, images, weights, rule=left_rule(3), size=0.05, sites=sites
    )
    assert tuple(graph.node_scores) == sites
    expected = {
        pair: brute_force_edges(encoder, images, pair, graph.kept_units, 3)
        for pair in graph.edge_scores
    }
    assert len(expected) == (2 if "input" not in sites else 1)
    assert worst(graph.edge_scores, expected) < 1e-4


def test_batches_are_cut_to_the_budget(
    resnet: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    encoder, images, weights = setting(resnet, n=6)
    seen = []
    run = encoder.stages[0].run

    def spy(x: Tensor) -> Tensor:
        seen.append(len(x))
        return run(x)

    encoder.stages = (Stage(encoder.stages[0].site, spy, 1), *encoder.stages[1:])
    attribute(
        encoder,
        images,
        weights,
        rule=left_rule(1),
        memory_gib=2.5 * bytes_per_image(encoder) / 2**30,
    )
    assert max(seen) == 2


def test_folds_know_the_edges_of_the_whole() -> None:
    encoder, images, weights = setting(make_tower("resnet").double(), n=4)
    images, weights = images.double(), weights.double()
    task = Task(encoder, images, class_logit(weights, 1), work=QUIET)
    found = attribute_folds(
        task,
        AttributionSettings(rule=left_rule(3), **AS_STUDIED),
        np.array([0, 1, 1, 0]),
    )
    for pair in (("act1", "act2"), ("layer1.0", "layer2.0")):
        for fold, chosen in enumerate((images[[0, 3]], images[1:3])):
            expected = brute_force_edges(
                encoder, chosen, pair, found.whole.kept_units, 3
            )
            np.testing.assert_allclose(
                found.edges[pair][fold], expected, rtol=1e-6, atol=1e-12
            )


def test_a_fold_without_units_at_a_site_has_no_edge_there() -> None:
    encoder, images, weights = setting(make_tower("resnet").double(), n=4)
    task = Task(
        encoder,
        images.double(),
        class_logit(weights.double(), 1),
        sites=("act1", "act2"),
        work=QUIET,
    )
    none, some = np.arange(0), np.arange(3)
    kept = {
        0: {"act1": some, "act2": none},
        1: {"act1": none, "act2": some},
        2: {"act1": some, "act2": some},
    }
    found = fold_edges(
        task, kept, AttributionSettings(edge_rule=left_rule(3)), np.array([0, 1, 2, 2])
    )
    assert [scores["act1", "act2"].shape for scores in found.values()] == [
        (0, 3),
        (3, 0),
        (3, 3),
    ]
    expected = brute_force_edges(
        encoder, images[2:].double(), ("act1", "act2"), kept[2], 3
    )
    np.testing.assert_allclose(
        found[2]["act1", "act2"], expected, rtol=1e-6, atol=1e-12
    )


def test_equal_to_the_study() -> None:
    with safe_open(shared("golden/rn_nano.safetensors"), "pt") as file:
        meta = file.metadata()
        data = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    tower = open_clip.model.CLIP(**json.loads(meta["model_config"])).visual.eval()
    tower.load_state_dict(
        {name[7:]: v for name, v in data.items() if name.startswith("visual.")}
    )
    encoder = Encoder.from_tower(tower)
    graphs, off, moved = {}, 0.0, 0.0
    for key, label in json.loads(meta["labels"]).items():
        metric = class_logit(data["text_weights"], label)
        rule = left_rule(10)
        images = data[f"images/{key}"]
        graph = graphs[key] = circuitry.attribute(
            encoder, images, metric, rule=rule, progress=False, **AS_STUDIED
        )
        n = graph.n_images  # the study's node scores are minus ours, its edge scores ours over the number of images
        nodes = {
            site: -1 * data[f"node_scores/{key}/{site}"].numpy()
            for site in encoder.sites
        }
        edges = {
            pair: n * data[f"edge_scores/{key}/{'->'.join(pair)}"].numpy()
            for pair in graph.edge_scores
        }
        off = max(off, worst(graph.node_scores, nodes))
        if key.endswith("umbrella"):  # three of six tell how far scores move
            near = images * (1 + 1e-5 * torch.randn_like(images))
            other = circuitry.attribute(
                encoder,
                near,
                metric,
                rule=rule,
                size=0.001,
                progress=False,
                **AS_STUDIED,
            )
            moved = max(moved, worst(other.node_scores, graph.node_scores))
        assert worst(graph.edge_scores, edges) < 1e-4
        for site in encoder.sites:
            assert (
                graph.kept_units[site].tolist()
                == data[f"kept_units/{key}/{site}"].tolist()
            )
    # A point of a path at a kink of a ReLU falls on one side or the other by rounding, which differs by processor: the
    # stored numbers are as near as those of images that differ in the fifth digit.
    assert off < moved < 1e-3
    for pair, expected in json.loads(meta["similarity"]).items():
        a, b = (graphs[key] for key in pair.split("|"))
        assert node_overlap(a, b) == pytest.approx(expected["node_jaccard"], abs=1e-6)
        circuits = (
            a.circuit(edges_per_node=3, any_sign=True),
            b.circuit(edges_per_node=3, any_sign=True),
        )
        assert edge_jaccard(*circuits) == pytest.approx(
            expected["edge_jaccard"], abs=1e-6
        )
        for depth in (1, 2, 3):
            assert wl_kernel(*circuits, depth=depth) == pytest.approx(
                expected[f"wl_h{depth}"], abs=1e-6
            )


def activations(encoder: Encoder, images: Tensor) -> dict[str, Tensor]:
    with torch.no_grad():
        return dict(encoder.run_with_cache(images)[1])


def random_activations(encoder: Encoder, images: Tensor) -> dict[str, Tensor]:
    return {
        site: torch.randn_like(a) for site, a in activations(encoder, images).items()
    }


def precise(tower: Any, n: int = 3) -> tuple[Encoder, Tensor, Tensor]:
    """Double precision: a random tower makes nearly the same of all images, and effects are small beside rounding."""
    encoder, images, weights = setting(tower.double(), n)
    return encoder, images.double(), weights.double()


KINDS = ("one per image", "one for all", "a tensor", "activations")
# What a baseline gives does not depend on the tower, and brute force takes longest on the ResNet.
CASES = [("vit", kind) for kind in KINDS] + [("resnet", KINDS[0]), ("swin", KINDS[-1])]


@pytest.mark.parametrize(
    ("tower", "kind"), [*((tower, "zero") for tower in TOWERS), *CASES]
)
def test_nodes_and_edges_equal_brute_force(tower: str, kind: str) -> None:
    encoder, images, weights = precise(make_tower(tower))
    others = torch.randn_like(images)
    ends = activations(encoder, others)
    baseline: AnyBaseline = Counterfactual(others)
    if kind == "one for all":
        baseline, ends = (
            Counterfactual(others[:1]),
            {site: a[:1].expand_as(a) for site, a in ends.items()},
        )
    elif kind == "a tensor":
        baseline = others
    elif kind == "activations":
        ends = random_activations(encoder, images)
        baseline = Baseline("random", ends)
    elif kind == "zero":
        baseline, ends = "zero", {site: torch.zeros_like(a) for site, a in ends.items()}
    graph = attribute(encoder, images, weights, baseline, rule=left_rule(3), size=0.1)
    nodes = {
        site: brute_force_nodes(encoder, images, weights, site, 3, ends[site])
        for site in encoder.sites
    }
    assert worst(graph.node_scores, nodes) < 1e-8
    kept = graph.kept_units
    edges = {
        pair: brute_force_edges(encoder, images, pair, kept, 3, ends[pair[0]])
        for pair in graph.edge_scores
    }
    assert worst(graph.edge_scores, edges) < 1e-8
    names = {"activations": "random", "zero": "zero"}
    assert graph.settings["baseline"] == names.get(kind, "counterfactual")
    assert list(graph.edge_scores) == list(pairwise(graph.inner_sites))


def test_the_metric_difference_is_that_of_each_image_to_its_own_baseline(
    resnet: Any,
) -> None:
    encoder, images, weights = setting(resnet)
    ends = random_activations(encoder, images)
    graph = attribute(
        encoder,
        images,
        weights,
        Baseline("random", ends),
        rule=midpoint_rule(60),
        size=0.01,
    )
    metric = class_logit(weights, 1)
    for site in encoder.sites:
        with torch.no_grad():
            moved = encoder.run_with_hooks(
                images, fwd_hooks=[(site, lambda a, hook, site=site: ends[site])]
            )
            clean, ablated = (
                float(metric(encoder(images)).mean()),
                float(metric(moved).mean()),
            )
        told = graph.completeness[site].metric_difference
        assert_same_differences(told, clean - ablated, of=[clean, ablated])
        assert abs(graph.completeness[site].gap) < 0.02


@pytest.mark.parametrize("kind", ["zero", "images", "activations"])
def test_any_cut_into_batches_gives_the_same(resnet: Any, kind: str) -> None:
    encoder, images, weights = precise(resnet, n=5)
    others = torch.randn_like(images)
    given: dict[str, AnyBaseline] = {"zero": "zero", "images": others}
    baseline = (
        given[kind]
        if kind in given
        else Baseline("random", random_activations(encoder, others))
    )
    whole = attribute(encoder, images, weights, baseline, rule=midpoint_rule(2))

    def one_shot() -> Iterator[Tensor]:
        yield images[:1]
        yield images[1:]

    for cut, size in ((images, 2), ([images[:4], images[4:]], None), (one_shot(), 3)):
        pieces = attribute(
            encoder, cut, weights, baseline, rule=midpoint_rule(2), batch_size=size
        )
        assert worst(pieces.node_scores, whole.node_scores) < 1e-8
        assert worst(pieces.edge_scores, whole.edge_scores) < 1e-8
        for site, expected in whole.completeness.items():
            assert pieces.completeness[site] == pytest.approx(expected, abs=1e-10)


@pytest.mark.parametrize(
    ("tower", "kind"),
    [
        *((tower, "zero") for tower in TOWERS),
        ("resnet", "images"),
        ("resnet", "activations"),
    ],
)
def test_folds_and_whole_are_what_attribute_says_of_their_images(
    tower: str, kind: str
) -> None:
    encoder, images, weights = precise(make_tower(tower), n=5)
    others, settings = (
        torch.randn_like(images),
        AttributionSettings(rule=left_rule(2), **AS_STUDIED),
    )
    values = random_activations(encoder, others)

    def baseline(of: list[int]) -> AnyBaseline:
        stored = Baseline("random", {site: value[of] for site, value in values.items()})
        given: dict[str, AnyBaseline] = {"zero": "zero", "images": others[of]}
        return given.get(kind, stored)

    task = Task(
        encoder,
        images,
        class_logit(weights, 1),
        baseline=baseline([*range(5)]),
        work=QUIET,
    )
    found = attribute_folds(task, settings, np.array([1, 0, 1, 1, 0]))
    assert list(found.folds) == [0, 1]
    chosen = ([*range(5)], [1, 4], [0, 2, 3])
    for graph, of in zip((found.whole, *found.folds.values()), chosen, strict=True):
        direct = attribute(
            encoder, images[of], weights, baseline(of), rule=settings.rule
        )
        assert graph.n_images == len(of)
        for site, units in direct.kept_units.items():
            assert graph.kept_units[site].tolist() == units.tolist()
        assert worst(graph.node_scores, direct.node_scores) < 1e-8
        assert worst(graph.edge_scores, direct.edge_scores) < 1e-8
        for site, expected in direct.completeness.items():
            assert graph.completeness[site] == pytest.approx(expected, abs=1e-10)


def test_counterfactual_images_run_without_hooks_and_in_evaluation_mode(
    resnet: Any,
) -> None:
    encoder, images, _ = setting(resnet)
    clean = activations(encoder, images)
    expected = activations(encoder, others := torch.randn_like(images))
    resnet.train()
    before = {name: value.clone() for name, value in resnet.state_dict().items()}
    with encoder.hooks(fwd_hooks=[("act1", lambda a, hook: 0 * a)]):
        found = Counterfactual(others).activations(encoder, clean)
    assert all(torch.equal(found[site], expected[site]) for site in encoder.sites)
    assert resnet.training
    assert all(
        torch.equal(value, before[name]) for name, value in resnet.state_dict().items()
    )


def test_each_fold_goes_with_all_others_and_their_baselines(resnet: Any) -> None:
    encoder, images, weights = precise(resnet, n=3)
    others, ends = torch.randn_like(images)[:2], torch.randn(5, 3, 64, 64).double()
    settings = AttributionSettings(rule=left_rule(1))
    task = Task(
        encoder,
        images,
        class_logit(weights, 1),
        baseline=ends,
        others=others,
        work=QUIET,
    )
    found = attribute_folds(task, settings, np.array([0, 1, 0])).folds[0]
    asked = {
        "method": settings.method,
        "budget": settings.budget,
        "rule": settings.rule,
        "others": others,
    }
    alone = attribute(encoder, images[[0, 2]], weights, ends[[0, 2, 3, 4]], **asked)
    for of in ("importance", "node_scores"):
        assert_same(getattr(found, of), getattr(alone, of), 1e-12, rtol=1e-9)
    for pair, scores in alone.edge_scores.items():
        np.testing.assert_allclose(
            found.edge_scores[pair], scores, rtol=1e-9, atol=1e-12
        )


def test_completeness_gap_vanishes_with_many_points(resnet: Any) -> None:
    encoder, images, weights = setting(resnet)
    coarse, fine = (
        attribute(encoder, images, weights, rule=midpoint_rule(n), size=0.01)
        for n in (2, 60)
    )
    assert fine.completeness["attnpool"].effect_sum == pytest.approx(
        0, abs=1e-5
    )  # the cosine ignores scale
    for site in encoder.sites[:-1]:
        with torch.no_grad():
            _, cache = encoder.run_with_cache(images)
            clean = class_logit(weights, 1)(encoder(images)).mean()
            gone = class_logit(weights, 1)(
                encoder(torch.zeros_like(cache[site]), start=site)
            ).mean()
        assert_same_differences(
            fine.completeness[site].metric_difference, clean - gone, of=[clean, gone]
        )
        assert abs(fine.completeness[site].gap) < 0.02
        assert (
            abs(fine.completeness[site].gap)
            <= abs(coarse.completeness[site].gap) + 1e-3
        )
