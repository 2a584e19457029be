"""Simulated circuits of known likeness: ratios, coverage and errors of tests, by binomial tolerance.

The same with a thousand draws and more: `experiments/simulate_trust.py`.
"""

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from circuitry.circuits import chance_overlap
from circuitry.comparison import (
    PartArray,
    ceiling_tests,
    domain_ratios,
    draw_resamples,
    dual_bootstrap,
    pair_ratios,
    part_tests,
)
from circuitry.comparison.ceiling import pair_cells, ratio
from circuitry.comparison.domain_tests import domain_spread
from circuitry.comparison.models import model_tests
from circuitry.comparison.statistics import family_of
from experiments.simulation import Planted, jaccard, keep, simulate

PLANTED = Planted(n_units=40, n_kept=6)
CHANCE = np.array([chance_overlap(40, 6, 6)])
PAIRS = ((0, 1), (0, 2), (1, 2))


def test_kept_sets_and_their_likeness() -> None:
    kept = keep(np.array([[0.1, 0.9, 0.5, 0.4], [0.9, 0.8, 0.1, 0.2]]), 2)
    assert kept.tolist() == [[False, True, True, False], [True, True, False, False]]
    assert jaccard(kept[0], kept[1]) == pytest.approx(1 / 3)
    assert pytest.approx(CHANCE[0], abs=0.001) == PLANTED.chance


def test_a_ratio_is_what_it_is_made_of() -> None:
    made = simulate(np.random.default_rng(0), np.full((5, 1), 0.6), 0.5, PLANTED).parts
    draws = draw_resamples(made.classes, 4, resamples=100)
    found = pair_ratios(pair_cells(made), CHANCE, draws)
    means = np.nanmean(made.values, (0, 3, 4, 5)) - CHANCE[0]
    by_hand = [means[a, b] / np.sqrt(means[a, a] * means[b, b]) for a, b in PAIRS]
    assert found["value"].tolist() == pytest.approx(by_hand)
    assert found["ceiling_b"].tolist() == pytest.approx([means[b, b] + CHANCE[0] for _, b in PAIRS])
    of_domains = domain_ratios(pair_cells(made), CHANCE, draws).value[:, 0]
    assert of_domains.tolist() == pytest.approx([(by_hand[a] + by_hand[b]) / 2 for a, b in PAIRS])


def test_a_class_without_a_domain_is_left_out_of_its_ratios() -> None:
    made = simulate(np.random.default_rng(0), np.full((5, 1), 0.6), 0.5, PLANTED).parts
    made.values[0, 2], made.values[0, :, 2] = np.nan, np.nan
    found = pair_ratios(pair_cells(made), CHANCE, draw_resamples(made.classes, 4, resamples=50))
    assert found["n_classes"].tolist() == [5, 4, 4]
    others = made._replace(classes=made.classes[1:], values=made.values[1:])
    expected = pair_ratios(pair_cells(others), CHANCE, draw_resamples(others.classes, 4, resamples=50))["value"]
    assert found["value"].tolist()[1:] == pytest.approx(expected.tolist()[1:])


def test_identical_domains_reach_the_ceiling_where_a_site_is_unknown_in_one() -> None:
    values = np.broadcast_to(np.array([0.8, 0.3])[:, None, None], (6, 2, 2, 2, 4, 4)).copy()  # two sites
    values[..., np.arange(4), np.arange(4)] = np.nan
    values[::2, 1, :, 1] = values[::2, :, 1, 1] = np.nan  # half of the classes have nothing at the second site in b
    made = PartArray(tuple("uvwxyz"), ("a", "b"), ("s", "t"), values)
    draws = draw_resamples(made.classes, 4, resamples=50)
    cells = pair_cells(made).over_sites()
    (row,) = pair_ratios(cells, CHANCE, draws).to_dict("records")
    assert row["value"] == pytest.approx(1)
    assert [row[name] for name in ("similarity", "ceiling_a", "ceiling_b")] == pytest.approx([(0.8 + 0.55) / 2] * 3)
    assert row["n_classes"] == 6
    assert domain_ratios(cells, CHANCE, draws).value[:, 0].tolist() == pytest.approx([1, 1])
    assert ceiling_tests(made, draws, True)["difference"].item() == pytest.approx(0)


def test_nothing_is_read_against_a_ceiling_at_chance() -> None:
    means = np.array([[[[0.2]], [[0.1]], [[0.5]]]])
    assert np.isnan(ratio(means, np.array([0.1]))).all()
    assert ratio(means, np.array([0.0])).item() == pytest.approx(0.2 / np.sqrt(0.05))


@pytest.mark.parametrize("noise", [0.3, 0.7, 1.5])
def test_identical_domains_reach_the_ceiling_and_unrelated_ones_nothing(noise: float) -> None:
    for shared, expected in ((1.0, 1.0), (0.0, 0.0)):
        rng = np.random.default_rng(1)
        cells = [pair_cells(simulate(rng, np.full((16, 1), shared), noise, PLANTED).parts) for _ in range(150)]
        found = np.array([ratio(np.nanmean(one.values, (0, -2, -1))[None], CHANCE).mean() for one in cells])
        assert abs(found.mean() - expected) < 0.03 + 2 * stats.sem(found)


@pytest.mark.parametrize("n_classes", [4, 16])
def test_intervals_hold_the_truth_as_often_as_they_say(n_classes: int) -> None:
    many = simulate(np.random.default_rng(9), np.random.default_rng(8).uniform(0.2, 0.9, (2000, 1)), 0.7, PLANTED).parts
    truth = np.nanmean(many.values[:, 0, 1:])
    share = ratio(np.nanmean(pair_cells(many).values, (0, -2, -1))[None], CHANCE)[0, 0, 0]
    rng, hits = np.random.default_rng(2), []
    for seed in range(200):
        made = simulate(rng, rng.uniform(0.2, 0.9, (n_classes, 1)), 0.7, PLANTED).parts
        draws = draw_resamples(made.classes, 4, resamples=150, seed=seed)
        low, high = domain_spread(made, draws).interval()
        shares = dual_bootstrap(pair_cells(made).values, lambda m: ratio(m, CHANCE), draws).interval()
        hits.append((low[0, 0] <= truth <= high[0, 0], shares[0][0, 0] <= share <= shares[1][0, 0]))
    assert (np.mean(hits, axis=0) > 0.93 - 3 * np.sqrt(0.93 * 0.07 / 200)).all()  # binomial, three standard errors


@pytest.mark.parametrize("resampled", [False, True])
def test_tests_of_families_err_unless_families_are_drawn(resampled: bool) -> None:
    wrong = 0
    for seed in range(100):
        rng = np.random.default_rng([7, seed])
        family = np.repeat(np.arange(9), 4)
        made = simulate(rng, rng.uniform(0, 1, (9, 3))[family], 0.3, PLANTED).parts
        families = {name: str(f) for name, f in zip(made.classes, family, strict=True)} if resampled else {}
        draws = draw_resamples(family_of(made.classes, families), 4, resamples=150, seed=seed)
        wrong += bool((part_tests(made, draws, families)["p_holm"] < 0.05).any())
    assert wrong <= 13 if resampled else wrong > 20  # 6 % and three standard errors


def test_over_models_a_model_is_one_observation() -> None:
    rng = np.random.default_rng(0)
    scores = [rng.normal(size=(8, 1)) + 0.1 * rng.normal(size=(8, 3)) for _ in range(300)]
    found = [model_tests(pd.DataFrame(each, columns=["a", "b", "c"])) for each in scores]
    errors = np.mean([(each["p_holm"] < 0.05).any() for each in found])
    assert errors < 0.06 + 3 * np.sqrt(0.06 * 0.94 / 300)
    assert set(found[0]["about"]) == {"over 8 models"}
