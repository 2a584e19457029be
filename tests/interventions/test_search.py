"""One question by every method: sizes, scores, notes and refusals; learned masks on networks with a known answer."""

from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from circuitry import Encoder, Task, class_logit, faithfulness_curve, in_components
from circuitry.circuits import METHODS
from circuitry.encoder import Stage
from circuitry.interventions import (
    AblationSettings,
    MaskSettings,
    counted_sites,
    find_circuit,
    measure_circuits,
    propose_circuits,
    site_roles,
)
from circuitry.judging import planted_convolution
from tests.support.assert_same import assert_same
from tests.support.towers import make_tower
from tests.support.work import QUIET

SHORT = MaskSettings(steps=60, batch_size=8)
QUICK = AblationSettings(random_draws=2)


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
    task = Task(encoder, images, lambda e: e[:, 0], sites=["units"], work=QUIET)
    masks = MaskSettings(steps=150, batch_size=32)
    found = {method: find_circuit(task, method=method, size=0.4, masks=masks) for method in METHODS}
    kept = {method: set(one.units["units"].tolist()) for method, one in found.items()}
    assert all(units == kept["patching"] for units in kept.values())


@pytest.mark.parametrize("method", METHODS)
def test_every_method_gives_a_circuit_that_the_rest_of_the_package_takes(resnet: nn.Module, method: str) -> None:
    encoder, images, others = Encoder.from_tower(resnet), torch.randn(3, 3, 64, 64), torch.randn(3, 3, 64, 64)
    metric = class_logit(nn.functional.normalize(torch.randn(4, 16), dim=-1), 1)
    task = Task(encoder, images, metric, others=others, sites=["layer3.0", "layer4.0"], work=QUIET)
    found = find_circuit(task, method=method, size=0.25, masks=MaskSettings(steps=6, batch_size=4))
    n_units = sum(len(scores) for scores in found.source.node_scores.values())
    assert found.size == pytest.approx(0.25, abs=2 / n_units)
    assert found.source.settings["method"] == method
    assert found.source.settings["scored_by"]
    assert {s: u.tolist() for s, u in found.units.items()} == {
        s: u.tolist() for s, u in found.source.kept_units.items()
    }
    assert found.source.settings | task.made_with == found.source.settings
    curve = faithfulness_curve(task, found.source, AblationSettings(fractions=(0.5,), random_draws=1))
    assert curve.kept.shape == (1, 6)


def test_a_selectivity_is_reached_or_the_best_is_returned() -> None:
    planted = planted_convolution(noise=0.0)
    images, others = planted.images(8, 1) + torch.tensor([1.0, 0, 0])[:, None, None], planted.images(8, 2)
    task = Task(planted.encoder, images, planted.metric, others=others, work=QUIET)
    found = find_circuit(task, method="patching", selectivity=0.9, settings=QUICK)
    assert "note" not in found.made_with
    reached = [size for size, selectivity in found.made_with["tried"] if selectivity >= 0.9]
    assert found.size == min(reached)
    missed = find_circuit(task, method="gradient", selectivity=1.5, settings=QUICK)
    assert "4 sizes" in missed.made_with["note"]
    assert "1.5" in missed.made_with["note"]
    sizes, selectivities = np.transpose(missed.made_with["tried"])
    assert sizes.tolist() == sorted(sizes)
    assert missed.size == sizes[selectivities.argmax()]
    assert measure_circuits(task, [missed], QUICK).selectivity == pytest.approx(selectivities.max())


@pytest.mark.parametrize("method", ["gradient", "learned"])
def test_circuits_of_several_sizes_come_from_one_search_in_the_order_asked(method: str) -> None:
    planted = planted_convolution()
    task = Task(planted.encoder, planted.images(4, 0), planted.metric, work=QUIET)
    circuits = propose_circuits(task, [0.2, 0.8, 0.5], method=method, masks=MaskSettings(steps=6))
    assert [one.count for one in circuits] == [4, 16, 10]  # of 20 units, in one cut over all sites
    assert len({one.source.node_scores["conv1"].tobytes() for one in circuits}) == 1


def test_fisher_scores_are_squared_changes_of_the_answers_of_both_sides() -> None:
    encoder, own, others = additive(3), torch.rand(6, 3, 1, 1), torch.rand(2, 3, 1, 1)
    task = Task(encoder, own, lambda e: e[:, 0], others=others, sites=["units"], work=QUIET)
    found = find_circuit(task, method="fisher", size=0.5)
    # Each unit's activation is what its gate changes; every image's answer has a random factor.
    changes = encoder(torch.cat([own, others]), stop="units").numpy().astype(float)
    factors = torch.randn(8, 1, generator=torch.Generator().manual_seed(0)).numpy()
    squares = (factors * changes) ** 2
    expected = (squares[:6].mean(0) + squares[6:].mean(0)) / 2
    assert_same(found.source.node_scores["units"], expected, at_least=1e-3)
    assert found.source.settings["scored_by"] == "squared change of the answers"


def test_a_budget_shares_out_the_size_of_every_method() -> None:
    planted = planted_convolution()
    task = Task(planted.encoder, planted.images(4, 0), planted.metric, work=QUIET)
    masks = MaskSettings(steps=6)
    (mask,) = propose_circuits(task, [0.5], masks=masks)
    counts = [len(units) for units in mask.units.values()]
    for method in ("gradient", "fisher"):
        by_budget = {
            budget: find_circuit(
                task, method=method, size=0.5, masks=masks, settings=AblationSettings(budget=budget, random_draws=1)
            )
            for budget in ("same-share", "global", "learned")
        }
        kept = {budget: [len(units) for units in found.units.values()] for budget, found in by_budget.items()}
        scores = by_budget["global"].source.node_scores
        n_units = [len(of_site) for of_site in scores.values()]
        assert kept["same-share"] == [-(-n // 2) for n in n_units]
        first = np.argsort(-np.abs(np.concatenate([*scores.values()])), kind="stable")[: sum(n_units) // 2]
        assert kept["global"] == np.histogram(first, np.cumsum([0, *n_units]))[0].tolist()
        assert kept["learned"] == counts
        assert {budget: found.source.settings["budget"] for budget, found in by_budget.items()} == {b: b for b in kept}


Run = Callable[[Tensor], Tensor]


def chain(*stages: tuple[str, Run]) -> Task:
    """A chain of stages on images [B, 3, 8, 8] with the channels as units."""
    encoder = Encoder(nn.Linear(1, 1), [Stage(site, run, 1) for site, run in stages], (8, 8))
    images = torch.randn(3, 3, 8, 8, generator=torch.Generator().manual_seed(1))
    return Task(encoder, images, lambda e: e[:, 0], work=QUIET)


def weights(*shape: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(sum(shape)))


def test_pooled_channels_repeat_and_a_linear_end_reads_out() -> None:
    first, second, last = weights(12, 3, 3, 3), weights(16, 12), weights(16, 20)
    task = chain(
        ("conv", lambda x: torch.conv2d(x, first).relu()),
        ("pool", lambda x: x.mean((2, 3))),
        ("mixed", lambda x: (x @ second.T).tanh()),
        ("scaled", lambda x: 2 * x),
        ("embedding", lambda x: x @ last),
    )
    roles = {"conv": "counted", "pool": "repeat", "mixed": "readout", "scaled": "readout", "embedding": "readout"}
    assert site_roles(task) == {"input": "image", **roles}
    assert counted_sites(task) == ("conv",)


@pytest.mark.parametrize(
    ("end", "role"),
    [
        (lambda x: torch.layer_norm(x, (16,)), "readout"),  # one factor for an image
        (lambda x: nn.functional.normalize(x, dim=-1), "readout"),
        (lambda x: x.relu(), "readout"),  # each unit by itself
        (lambda x: (x @ weights(16, 16)).relu(), "counted"),
    ],
)
def test_a_norm_reads_out_and_a_nonlinearity_does_not(end: Run, role: str) -> None:
    first, last = weights(16, 3), weights(16, 20)
    task = chain(("units", lambda x: x.mean((2, 3)) @ first.T), ("embedding", lambda x: end(x) @ last))
    assert site_roles(task)["units"] == role


@pytest.mark.parametrize("kind", ["resnet", "vit"])
def test_towers_count_what_computes(kind: str) -> None:
    encoder = Encoder.from_tower(make_tower(kind))
    task = Task(encoder, torch.randn(2, 3, *encoder.image_size), lambda e: e[:, 0], work=QUIET)
    counted = counted_sites(task)
    assert encoder.sites[1] in counted
    assert not {"input", encoder.sites[-1]} & {*counted}
    if kind == "vit":  # the stream of the last block reaches the embedding through a norm alone
        assert counted == encoder.sites[1:-2]
        heads = in_components(encoder)
        roles = site_roles(Task(heads, torch.randn(2, 3, *encoder.image_size), lambda e: e[:, 0], work=QUIET))
        assert [site for site in heads.sites if roles[site] == "readout"] == list(heads.sites[-2:])
