"""Rivals of contrast, on numbers worked out by hand and on a planted network."""

from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import pytest
import torch

from circuitry.circuits import METHODS, own_part, score_units
from circuitry.circuits.circuit_settings import MOST
from circuitry.circuits.own_part_of_class import FIRST, ImagesOfClass, contrast
from circuitry.interventions import find_circuit
from experiments.rivals_of_contrast import (
    RATIOS,
    SEARCHES,
    TINY,
    Measured,
    class_selectivity,
    contrast_once,
    dampening_ratio,
    measure,
    probe_weights,
    pruning_abs,
    pruning_rms,
    random_of_top_decile,
    random_units,
    register_rivals,
    tf_idf,
)
from tests.support.planted_classes import planted_classes
from tests.support.work import QUIET

NET = planted_classes()
TASK = replace(NET.task(1), work=QUIET)


def by_hand(slopes: list[list[float]], means: list[list[float]]) -> Measured:
    """Two images of class 0, one of class 1 and one of class 2, and two or more units at one site."""
    of_means = np.array(means)
    return Measured(
        label=0,
        answers=np.array([0, 0, 1, 2]),
        probabilities=np.array([0.5, 0.0, 0.0, 0.5]),
        slopes={"units": np.array(slopes)},
        means={"units": of_means},
        sizes={"units": np.abs(of_means)},
        squares={"units": np.square(of_means)},
    )


MEASURED = by_hand(
    slopes=[[2.0, 0.0], [3.0, 1.0], [1.0, -4.0], [0.0, 2.0]],
    means=[[1.0, -2.0], [3.0, 0.0], [0.0, 3.0], [2.0, 1.0]],
)


def test_dampening_compares_squared_slopes_of_the_loss() -> None:
    # Slopes of the loss, (1 - p) times those of the log-odds: of the first unit 1, 3, 1, 0, of the second 0, 1, 4, 1.
    (scores,) = dampening_ratio(MEASURED).values()
    np.testing.assert_allclose(scores, [(10 / 2) / (11 / 4), (1 / 2) / (18 / 4)])


def test_pruning_compares_sizes_of_activations() -> None:
    (of_sizes,) = pruning_abs(MEASURED).values()
    np.testing.assert_allclose(of_sizes, [2 / 1, 1 / 2])
    (of_squares,) = pruning_rms(MEASURED).values()
    np.testing.assert_allclose(of_squares, [np.sqrt(5 / 2), np.sqrt(2 / 5)])


def test_selectivity_is_the_difference_over_the_sum() -> None:
    (scores,) = class_selectivity(MEASURED).values()
    np.testing.assert_allclose(scores, [(2 - 1) / 3, (-1 - 2) / 3])


def test_tf_idf_is_the_share_of_a_site_times_the_rarity_among_classes() -> None:
    # Positive means by class: 2, 0 (the class), 0, 3 and 2, 1. The class has all of its activation in the first unit.
    # Two of three classes activate the first unit at least as much as their mean 4 / 3, one class the second.
    (scores,) = tf_idf(MEASURED).values()
    np.testing.assert_allclose(scores, [np.log(3 / 3), 0])
    rare = by_hand(MEASURED.slopes["units"], [[9, 1], [9, 1], [0, 1], [0, 1]])  # type: ignore[arg-type]
    (scores,) = tf_idf(rare).values()
    np.testing.assert_allclose(scores, [9 / 10 * np.log(3 / 2), 1 / 10 * np.log(3 / 4)])


def test_contrast_once_is_the_first_ratio_of_contrast() -> None:
    costs = np.array([2.5, 0.5])
    damages = np.array([0.5, 3.0])
    (scores,) = contrast_once(MEASURED).values()
    np.testing.assert_allclose(scores, costs / (damages + 0.3 * 1.75))
    with TASK.running(gradients=True):
        images = ImagesOfClass(TASK)
        # A search that ends at its first cut ranks all units by the first ratio.
        ranks = contrast([images], FIRST).ranks.numpy()
    (scores,) = contrast_once(measure(TASK)).values()
    # Further units, which no class needs, have ratios of nearly 0.
    np.testing.assert_array_equal(np.argsort(-scores)[:20], np.argsort(-ranks)[:20])


def test_a_probe_weighs_the_unit_that_tells_the_class() -> None:
    rng = np.random.default_rng(0)
    means = rng.normal(size=(40, 3))
    answers = np.where(means[:, 1] > 0, 0, 1)
    empty = {"units": means}
    measured = Measured(0, answers, means[:, 0], empty, empty, empty, empty)
    (scores,) = probe_weights(measured).values()
    assert scores.argmax() == 1
    assert scores[1] > 3 * np.abs(scores[[0, 2]]).max()


def test_random_units_of_the_top_decile_have_large_effects() -> None:
    slopes = np.tile(np.arange(100.0), (4, 1))
    measured = by_hand(slopes, np.ones((4, 100)))  # type: ignore[arg-type]
    (scores,) = random_of_top_decile(measured, seed=1).values()
    assert np.flatnonzero(scores).tolist() == list(range(90, 100))
    (others,) = random_of_top_decile(measured, seed=2).values()
    assert scores.argmax() != others.argmax() or (scores != others).any()
    assert (random_units(measured)["units"] > 0).all()


def test_measurements_are_those_of_plain_loops() -> None:
    measured = measure(TASK)
    units, code = (stage.run for stage in NET.encoder.stages)
    images = torch.cat([TASK.images, TASK.others])  # type: ignore[list-item]
    activations = units(images)
    np.testing.assert_allclose(measured.means["units"], activations, rtol=1e-5)
    np.testing.assert_allclose(measured.squares["units"], activations**2, rtol=1e-5)
    gates = torch.ones(activations.shape, requires_grad=True)
    mean = activations.mean(0)
    logits = 20 * torch.nn.functional.normalize(
        code(mean + gates * (activations - mean)), dim=-1
    )
    log_p = logits.log_softmax(-1).gather(1, torch.tensor(measured.answers)[:, None])
    (slopes,) = torch.autograd.grad(log_p.sum(), gates)
    of_loss = (1 - measured.probabilities)[:, None] * measured.slopes["units"]
    np.testing.assert_allclose(of_loss, slopes, rtol=1e-3, atol=1e-5)
    assert measured.is_own.sum() == 6


@pytest.fixture
def registered(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[str]]:
    before = dict(METHODS)
    yield register_rivals()
    METHODS.clear()
    METHODS.update(before)


def test_rivals_are_methods_and_find_what_their_ratios_can_tell(
    registered: list[str],
) -> None:
    assert registered == [*RATIOS, *SEARCHES]
    n_units = len(score_units(TASK, "random")["units"])
    recalls = dict[str, float]()
    for name in registered:
        source = find_circuit(TASK, method=name, size=MOST).source
        part = source.strongest(3 / n_units, "signed", "global")
        own = np.isin(part.units["units"], NET.own[1])
        recalls[name] = float(own.mean())
    for name in ("dampening-ratio", "probe-weights"):
        assert recalls[name] == 1, name
    # Loud units, which nothing reads, are among the most selective ones.
    for name in ("class-selectivity", "pruning-abs", "pruning-rms", "random"):
        assert recalls[name] < 1, name
    # The third own unit is found only if costs are measured again after the first two are cut.
    assert recalls["contrast-once"] == pytest.approx(2 / 3)
    part = own_part(TASK, share=3 / n_units)
    assert set(part.units["units"].tolist()) == set(NET.own[1])


def test_a_unit_that_is_never_active_gets_no_rank() -> None:
    silent = by_hand([[0.0, 1.0]] * 4, [[0.0, 1.0]] * 4)
    for score in (dampening_ratio, pruning_abs, class_selectivity, tf_idf):
        assert abs(score(silent)["units"][0]) <= TINY
