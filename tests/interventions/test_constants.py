"""Constants of optimal ablation: the least-squares ones where the answers are linear, never worse than the baseline."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from circuitry.bases import in_components
from circuitry.encoder import Encoder, Task, class_logit
from circuitry.interventions import (
    AblationSettings,
    circuit_of,
    kept_embeddings,
    measure_circuits,
    optimal_ablation,
    optimal_baseline,
)
from circuitry.interventions.faithfulness import draw_random
from circuitry.interventions.optimal_ablation import SHRINKAGE
from circuitry.runs import InputError
from tests.support.towers import make_tower


def first(embeddings: Tensor) -> Tensor:
    return embeddings[:, 0]


def test_a_linear_circuit_gets_the_least_squares_constant(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(optimal_ablation, "STEPS", 400)
    torch.manual_seed(0)
    last = nn.Linear(2, 1)
    tower = nn.Sequential(
        nn.Conv2d(3, 2, 1), nn.AdaptiveAvgPool2d(1), nn.Flatten(), last
    ).double()
    encoder = Encoder.from_stages(
        tower.eval().requires_grad_(False), ["0", ("1", "2"), "3"], (4, 4)
    )
    images = torch.randn(8, 3, 4, 4).double()
    task = Task(encoder, images, first, baseline="zero")
    found = optimal_baseline(task, circuit_of(task, {"0": [0]}))
    units, whole = encoder(images, stop="0"), first(encoder(images))
    weight, spread = last.weight[0, 1], units[:, 1].std(unbiased=False)
    # loss: mean of (weight (mean activation of the unit - constant))^2 / variance, and the shrinkage of two constants
    slope, there = (
        weight.square() / whole.var(unbiased=False),
        units[:, 1].mean((1, 2)).mean(),
    )
    wanted = slope * there / (slope + SHRINKAGE / 2 / spread.square())
    assert float(found.values["0"][0, 1, 0, 0]) == pytest.approx(
        float(wanted), abs=1e-3 * float(spread)
    )
    assert found.values["0"][0, 0].abs().max() == 0


def lost(task: Task, kept: dict[str, list[int]]) -> float:
    """Return the loss of the logits of all classes, centred, and of the class's own."""
    assert isinstance(task.images, Tensor)
    weights = task.metric.weights.double()  # type: ignore[attr-defined]
    rows = weights - weights.mean(0)
    run = kept_embeddings(task, [circuit_of(task, kept)])[0]

    def answers(x: Tensor) -> Tensor:
        logits = nn.functional.normalize(x, dim=-1) @ rows.T
        return torch.cat([logits[:, :1], logits / len(rows) ** 0.5], 1)

    whole = answers(task.encoder(task.images))
    squares = (answers(run) - whole).square().sum(1).mean() / (
        whole - whole.mean(0)
    ).square().sum(1).mean()
    return float(squares)


@pytest.mark.parametrize("name", ["resnet", "vit"])
def test_constants_cost_less_on_their_images_and_leave_kept_units_and_streams_alone(
    name: str,
) -> None:
    encoder = in_components(Encoder.from_tower(make_tower(name).double()))
    torch.manual_seed(0)
    images, metric = (
        torch.randn(6, 3, *encoder.image_size).double(),
        class_logit(torch.randn(3, 16).double(), 0),
    )
    site = encoder.sites[6 if name == "resnet" else 3]
    task = Task(encoder, images, metric, baseline="zero")
    kept = {site: [0, 2], encoder.sites[2]: []}
    found = optimal_baseline(task, circuit_of(task, kept))
    assert set(found.values) == set(kept)
    before, after = (
        lost(task, kept),
        lost(Task(encoder, images, metric, baseline=found), kept),
    )
    assert after < before
    moved = (
        encoder.units_of(site, found.values[site])
        .movedim(encoder.unit_dim(site), 0)
        .flatten(1)
    )
    assert np.flatnonzero(moved.abs().amax(1) == 0)[:2].tolist() == [0, 2]


def test_constants_are_added_to_one_baseline_for_all_images() -> None:
    encoder = Encoder.from_tower(make_tower("resnet"))
    images = torch.randn(2, 3, *encoder.image_size)
    task = Task(encoder, images, first, baseline=torch.flip(images, [0]))
    with pytest.raises(InputError, match=r"one baseline for all images.*mean baseline"):
        optimal_baseline(task, circuit_of(task, {"layer1.0": [0]}))


def test_circuits_and_random_units_are_measured_with_constants_of_their_own() -> None:
    encoder = in_components(Encoder.from_tower(make_tower("resnet").double()))
    torch.manual_seed(0)
    images, metric = (
        torch.randn(6, 3, *encoder.image_size).double(),
        class_logit(torch.randn(3, 16).double(), 0),
    )
    task, settings = (
        Task(encoder, images, metric, baseline="zero"),
        AblationSettings(random_draws=1),
    )
    chosen = [circuit_of(task, {site: [0, 2] for site in encoder.sites[6:9]})]
    found, plain = (
        measure_circuits(task, chosen, settings, fitted=fitted)
        for fitted in (task, None)
    )
    (random,) = draw_random(chosen, 1, np.random.default_rng(settings.seed))
    for circuit, measured, without in (
        (chosen[0], found.kept, plain.kept),
        (random, found.random[:, 0], plain.random[:, 0]),
    ):
        own = replace(task, baseline=optimal_baseline(task, circuit))
        alone = measure_circuits(own, [circuit], AblationSettings(random_draws=0)).kept
        np.testing.assert_allclose(measured, alone, rtol=1e-9, atol=1e-12)
        assert not np.allclose(measured, without, rtol=1e-3)
    np.testing.assert_array_equal(found.empty, plain.empty)
    assert found.settings["baseline"] == "optimal"
