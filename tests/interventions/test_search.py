"""One question by every method: sizes, scores, notes and refusals; learned masks on networks with a known answer."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy import stats
from torch import nn

from circuitry import (
    Encoder,
    InputError,
    attribute,
    class_logit,
    class_margin,
    faithfulness_curve,
    in_feature_basis,
    left_rule,
    patch_effects,
)
from circuitry.circuits import QuadratureRule, image_path_effects, midpoint_rule
from circuitry.interventions import (
    AblationSettings,
    MaskSettings,
    SearchSettings,
    all_answers,
    class_answers,
    find_circuit,
    propose_circuits,
)
from circuitry.interventions.answers import default_answers
from circuitry.interventions.unit_scores import METHODS
from circuitry.models import Stage, Task
from circuitry.models.batches import ImageBatches
from circuitry.study import planted_convolution
from tests.models.test_feature_basis import make_sae
from tests.support.work import QUIET

SHORT = MaskSettings(steps=60, batch_size=8)
QUICK = SearchSettings(work=QUIET, masks=SHORT, random_draws=2)


def additive(seed: int = 0) -> Encoder:
    """Ten units whose sum, with weights of different size, is the metric: they do not interact."""
    generator = torch.Generator().manual_seed(seed)
    mix = torch.randn(10, 3, generator=generator)
    scale = torch.logspace(-2, 0, 10)[torch.randperm(10, generator=generator)]
    stages = (
        Stage("units", lambda x: scale * (x.flatten(1) @ mix.T).relu(), 1),
        Stage("sum", lambda u: u.sum(1, keepdim=True), 1),
    )
    return Encoder(nn.Linear(1, 1), stages, (1, 1))


def test_without_interaction_masks_and_rankings_agree() -> None:
    encoder, images = additive(), torch.rand(32, 3, 1, 1, generator=torch.Generator().manual_seed(1)) + 0.2
    settings = replace(QUICK, sites=["units"], masks=MaskSettings(steps=150, batch_size=32))
    found = {
        method: find_circuit(encoder, images, lambda e: e[:, 0], method=method, size=0.4, settings=settings)
        for method in METHODS
    }
    kept = {method: set(one.units["units"].tolist()) for method, one in found.items()}
    assert all(units == kept["patching"] for units in kept.values())


@pytest.mark.parametrize("method", METHODS)
def test_every_method_gives_a_circuit_that_the_rest_of_the_package_takes(resnet: nn.Module, method: str) -> None:
    encoder, images, others = Encoder.from_tower(resnet), torch.randn(3, 3, 64, 64), torch.randn(3, 3, 64, 64)
    metric = class_logit(nn.functional.normalize(torch.randn(4, 16), dim=-1), 1)
    settings = replace(QUICK, sites=["layer3.0", "layer4.0"], masks=MaskSettings(steps=6, batch_size=4))
    found = find_circuit(encoder, images, metric, method=method, size=0.25, others=others, settings=settings)
    n_units = sum(len(scores) for scores in found.graph.node_scores.values())
    assert found.size == pytest.approx(0.25, abs=2 / n_units)
    assert found.method == method
    assert found.graph.settings["scored_by"]
    assert set(found.table()["circuit"]) == {"kept", "complement", "random"}
    curve = faithfulness_curve(
        encoder, images, metric, found.graph, AblationSettings(fractions=(0.5,), random_draws=1), work=QUIET
    )
    assert curve.kept.shape == (1, 3)


def test_scores_along_the_image_are_those_of_full_runs_by_hand(resnet: nn.Module) -> None:
    encoder, images = Encoder.from_tower(resnet.double()), torch.randn(2, 3, 64, 64).double()
    metric = class_logit(nn.functional.normalize(torch.randn(4, 16), dim=-1).double(), 1)
    site, rule = "layer2.0", midpoint_rule(2)
    task = Task(encoder, ImageBatches(images, encoder, 1), metric, sites=("input", site), work=QUIET)
    with task.running(gradients=True):
        found = image_path_effects(task, rule)
    total = torch.zeros(())
    with encoder.frozen():
        clean = encoder(images, stop=site)
        for t, w in zip(rule.points, rule.weights, strict=True):
            x = encoder((1 - t) * images, stop=site).requires_grad_()
            total = total + w * torch.autograd.grad(metric(encoder(x, start=site)).sum(), x)[0]
    expected = (clean * total).sum((2, 3)).mean(0).detach().numpy()
    np.testing.assert_allclose(found.scores[site], expected, atol=1e-12)
    fine = QuadratureRule("fine", *(midpoint_rule(200).points, midpoint_rule(200).weights))
    with task.running(gradients=True):
        complete = image_path_effects(task, fine)
    assert complete.completeness["input"].gap == pytest.approx(
        0, abs=0.02 * abs(found.completeness["input"].metric_difference) + 1e-3
    )
    with task.running(gradients=True):
        one = image_path_effects(task, left_rule(1))
    graph = attribute(encoder, images, metric, rule=left_rule(1), sites=["input", site], progress=False)
    np.testing.assert_allclose(one.scores[site], graph.node_scores[site], rtol=1e-9)


def test_a_selectivity_is_reached_or_the_best_is_returned() -> None:
    planted = planted_convolution(noise=0.0)
    images, others = planted.images(8, 1) + torch.tensor([1.0, 0, 0])[:, None, None], planted.images(8, 2)
    found = find_circuit(
        planted.encoder, images, planted.metric, method="patching", selectivity=0.9, others=others, settings=QUICK
    )
    assert not found.note
    assert list(found.curve.fractions) == sorted(found.curve.fractions)
    reached = np.array(found.curve.fractions)[found.curve.selectivity >= 0.9]
    assert found.size == pytest.approx(reached.min())
    missed = find_circuit(
        planted.encoder,
        images,
        planted.metric,
        method="gradient",
        selectivity=1.5,
        others=others,
        settings=replace(QUICK, rounds=2),
    )
    assert "A selectivity of 1.5 was not reached at any of the 2 sizes" in missed.note
    assert missed.curve.selectivity.max() == pytest.approx(
        missed.table().query("measure == 'selectivity'")["value"].iloc[0]
    )


def test_refusals_and_notes(resnet: nn.Module) -> None:
    planted = planted_convolution()
    images = planted.images(4, 0)

    def find(**given: object) -> object:
        return find_circuit(planted.encoder, images, planted.metric, **{"settings": QUICK, **given})  # type: ignore[arg-type]

    with pytest.raises(InputError, match=r"Circuits are found by one of site-path, .* but 'magic' was asked for"):
        find(method="magic", size=0.5)
    with pytest.raises(InputError, match=r"give one of size= and selectivity="):
        find(size=0.5, selectivity=0.8)
    with pytest.raises(InputError, match=r"there are none: give others=, or a size= instead"):
        find(selectivity=0.8)
    for out_of_range in (80.0, 0.0, float("nan")):
        with pytest.raises(InputError, match=rf"in \(0, 1.5\], but {out_of_range} was given: write 0.8 for 80 %"):
            find(selectivity=out_of_range, others=images)
    with pytest.raises(InputError, match=r"it does not tell these images from the others; give images that it recog"):
        find(method="gradient", selectivity=0.8, others=images)
    with pytest.raises(InputError, match=r"found on images, but there were none"):
        find_circuit(planted.encoder, images[:0], planted.metric, size=0.5)
    with pytest.raises(InputError, match=r"size of a mask is a share of the units"):
        find(size=1.5)
    with pytest.raises(InputError, match=r"never ablated: leave out 'input'"):
        find(size=0.5, settings=replace(QUICK, sites=["input"]))
    assert "no images of other classes" in find(method="gradient", size=0.5).note  # type: ignore[attr-defined]
    with pytest.raises(InputError, match=r"Masks start from one of site-path"):
        SearchSettings(start="learned")
    with pytest.raises(InputError, match=r"Masks need at least one step"):
        MaskSettings(steps=0)
    elsewhere = find_circuit(
        planted_convolution(seed=1).encoder, images, planted.metric, size=0.5, method="gradient", settings=QUICK
    )
    with pytest.raises(InputError, match=r"The circuit is of the encoder with digest"):
        find(size=0.5, settings=replace(QUICK, start=elsewhere))
    same = images[:1].repeat(4, 1, 1, 1)
    with pytest.raises(InputError, match=r"the model's answers are the same for all of these"):
        find_circuit(planted.encoder, same, planted.metric, size=0.5, settings=QUICK)


def test_the_margin_keeps_what_the_logit_keeps() -> None:
    weights, embeddings = nn.functional.normalize(torch.randn(5, 8), dim=-1), torch.randn(6, 8)
    logit, margin = (default_answers(make(weights, 2))(embeddings) for make in (class_logit, class_margin))
    torch.testing.assert_close(margin, logit * 5 / 4)  # so that the share of the variance that is lost is the same


@pytest.mark.parametrize("method", ["gradient", "learned"])
def test_circuits_of_several_sizes_come_from_one_search_in_the_order_asked(method: str) -> None:
    planted = planted_convolution()
    settings = replace(QUICK, masks=MaskSettings(steps=6))
    sizes = [0.2, 0.8, 0.5]
    graphs = propose_circuits(
        planted.encoder, planted.images(4, 0), planted.metric, sizes, method=method, settings=settings
    )
    kept = [sum(map(len, graph.kept_units.values())) for graph in graphs]
    assert kept == ([4, 16, 10] if method == "learned" else [5, 18, 10])  # rankings round up at every site
    assert all(np.array_equal(graphs[0].node_scores["conv1"], graph.node_scores["conv1"]) for graph in graphs)
    with pytest.raises(InputError, match="Circuits are found by one of"):
        propose_circuits(planted.encoder, planted.images(4, 0), planted.metric, sizes, method="magic")


def test_answers_are_centred_logits() -> None:
    weights, embeddings = nn.functional.normalize(torch.randn(5, 8), dim=-1), torch.randn(3, 8)
    logits = nn.functional.normalize(embeddings, dim=-1) @ weights.T
    centred = logits - logits.mean(1, keepdim=True)
    torch.testing.assert_close(all_answers(weights)(embeddings), centred)
    torch.testing.assert_close(class_answers(weights, 2)(embeddings), torch.cat([centred[:, 2:3], centred / 5**0.5], 1))


def test_rankings_are_the_exact_ones_where_the_tail_is_linear() -> None:
    encoder, images = additive(3), torch.rand(6, 3, 1, 1)
    exact = patch_effects(encoder, images, lambda e: e[:, 0], sites=["units"], work=QUIET).scores["units"]
    settings = replace(QUICK, sites=["units"])
    for method in METHODS[:-1]:
        found = find_circuit(encoder, images, lambda e: e[:, 0], method=method, size=0.5, settings=settings)
        assert stats.spearmanr(found.graph.node_scores["units"], exact).statistic == pytest.approx(1)


@pytest.mark.parametrize("method", ["gradient", "patching", "learned"])
def test_latents_are_nodes_and_errors_are_told_apart(resnet: nn.Module, method: str) -> None:
    plain, images = Encoder.from_tower(resnet), torch.randn(4, 3, 64, 64)
    width = plain(images[:1], stop="layer3.0").shape[1]
    features = in_feature_basis(plain, {"layer3.0": make_sae(width, dtype=torch.float)})
    latents = features.error_units["layer3.0"].start
    metric = class_logit(nn.functional.normalize(torch.randn(4, 16), dim=-1), 1)
    settings = replace(QUICK, sites=["layer3.0"], keep_error=True, masks=MaskSettings(steps=5))
    found = find_circuit(features, images, metric, method=method, size=0.5, settings=settings)
    assert len(found.graph.node_scores["layer3.0"]) == latents
    assert len(found.graph.error_scores["layer3.0"]) == len(features.error_units["layer3.0"])
    assert len(found.units["layer3.0"]) == latents // 2
    assert found.units["layer3.0"].max() < latents
    with pytest.raises(InputError, match=r"The circuit is of the encoder with digest .* feature bases \{'layer3.0'"):
        find_circuit(plain, images, metric, size=0.5, settings=replace(settings, start=found))


def test_a_class_over_domains_and_a_whole_domain() -> None:
    planted = planted_convolution()
    bright, dark = planted.images(6, 1) + torch.tensor([1.0, 0, 0])[:, None, None], planted.images(6, 2)
    encoder, metric = planted.encoder, planted.metric
    over_domains = find_circuit(encoder, [bright[:4], dark], metric, size=0.5, others=bright[4:], settings=QUICK)
    as_one = find_circuit(encoder, torch.cat([bright[:4], dark]), metric, size=0.5, others=bright[4:], settings=QUICK)
    assert {s: u.tolist() for s, u in over_domains.units.items()} == {s: u.tolist() for s, u in as_one.units.items()}
    everything = replace(QUICK, answers=lambda embedding: embedding)
    whole = find_circuit(encoder, torch.cat([bright, dark]), metric, size=0.9, settings=everything)
    assert "no images of other classes" in whole.note
    alone = find_circuit(encoder, torch.cat([bright, dark]), metric, size=0.9, settings=QUICK)
    assert whole.graph.settings["lost"] != alone.graph.settings["lost"]  # other answers are kept
