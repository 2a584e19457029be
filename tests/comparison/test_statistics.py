"""Means, ratios and their intervals against scipy, paper, enumeration and simulated circuits."""

import math
from itertools import product

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from circuitry.circuits import chance_overlap
from circuitry.comparison import (
    FoldArray,
    domain_matrix,
    draw_resamples,
    dual_bootstrap,
    jackknife_interval,
    mean_interval,
    mean_spread,
    per_domain,
    ratio_interval,
)
from circuitry.comparison.bootstrap import dual_variance, resampled_means
from circuitry.comparison.ceiling import (
    domain_ratios,
    mean_ratio,
    pair_cells,
    pair_ratios,
    ratio,
)
from circuitry.comparison.domain_testing import ceiling_tests, domain_spread
from experiments.simulation import Planted, jaccard, keep, simulate


def test_the_interval_of_a_mean_is_student_s() -> None:
    values = np.array([0.1, 0.2, math.nan, 0.25, 0.9, 0.4])
    known = values[~np.isnan(values)]
    mean, low, high = mean_interval(values)
    assert mean == pytest.approx(0.37)
    assert (low, high) == pytest.approx(
        stats.t.interval(0.95, 4, known.mean(), stats.sem(known))
    )


def test_families_count_once() -> None:
    values = np.array([0.1, 0.3, 0.2, 0.6, 0.5, 0.7])
    twice, families = np.repeat(values, 2), [i // 2 for i in range(12)]
    assert mean_interval(twice, families) == pytest.approx(mean_interval(values))
    assert mean_interval(twice)[2] < mean_interval(values)[2]
    # By hand, families of 1 and 2: mean 2, deviations -2 and (0 + 2), so 2 * (4 + 4) / 9.
    assert mean_spread(
        np.array([0.0, 2.0, 4.0]), ["a", "b", "b"]
    ).variance == pytest.approx(16 / 9)


def test_fewer_than_two_values_have_no_interval() -> None:
    assert np.isnan(mean_interval(np.array([]))).all()
    assert np.isnan(mean_interval(np.array([math.nan]))).all()
    for values, families in (
        (np.array([0.5, math.nan]), None),
        (np.array([0.4, 0.6]), ["a", "a"]),
    ):
        mean, low, high = mean_interval(values, families)
        assert mean == 0.5
        assert math.isnan(low)
        assert math.isnan(high)


def test_the_jackknife_of_a_mean_is_student_s_interval() -> None:
    values = np.random.default_rng(0).normal(size=12)
    without_each = np.array([np.delete(values, i).mean() for i in range(12)])
    expected = stats.t.interval(0.95, 11, values.mean(), stats.sem(values))
    assert jackknife_interval(float(values.mean()), without_each) == pytest.approx(
        expected
    )
    assert jackknife_interval(2.0, np.array([2.5, 2.0, 1.5])) == pytest.approx(
        (-0.48414, 4.48414), abs=1e-5
    )
    for unknown in ([1.0], [1.0, math.nan]):
        assert np.isnan(jackknife_interval(1.0, np.array(unknown))).all()


def table(
    values: dict[tuple[str, str, str], float], site: str | None = None
) -> pd.DataFrame:
    rows = [(*key, site, value) for key, value in values.items()]
    return pd.DataFrame(
        rows, columns=["class", "domain_a", "domain_b", "site", "value"]
    )


HAND = {
    ("axe", "clipart", "real"): 0.2,
    ("axe", "clipart", "sketch"): 0.4,
    ("axe", "real", "sketch"): 0.6,
    ("fish", "real", "sketch"): 0.1,
}


def test_a_ratio_of_means_is_worked_by_hand_and_is_not_told_beside_zero() -> None:
    falls = np.array([16.0, 12.0, 20.0])
    # Without each class the ratio is 32/5, 36/5, 28/4, whose mean is 103/15; Student's t of 2 degrees is 4.3027.
    squares = sum((ratio - 103 / 15) ** 2 for ratio in (6.4, 7.2, 7.0))
    reach = 4.302653 * math.sqrt(2 / 3 * squares)
    ratio = ratio_interval(falls, np.array([2.0, 2.0, 3.0]))
    assert ratio == pytest.approx((48 / 7, 48 / 7 - reach, 48 / 7 + reach))
    # These others fall by 1 with an interval that contains 0, and so the ratio has no upper bound.
    others = np.array([0.0, 1.0, 2.0])
    value, at_least, high = ratio_interval(falls, others)
    least_fall, most_of_others = mean_interval(falls)[1], mean_interval(others)[2]
    assert at_least == pytest.approx(least_fall / most_of_others)
    assert np.isnan([value, high]).all()
    for gained in (others - 9, np.array([math.nan, 1.0, math.nan])):
        assert np.isnan(ratio_interval(falls, gained)).all()
    with_unknown = ratio_interval(
        np.append(falls, [1.0, math.nan]), np.array([2.0, 2.0, 3.0, math.nan, 1.0])
    )
    assert with_unknown == pytest.approx(ratio)


def test_hand_worked_means_per_domain() -> None:
    found = per_domain(table(HAND)).set_index("domain")
    # clipart: axe 0.3.  real: axe 0.4, fish 0.1.  sketch: axe 0.5, fish 0.1.  Classes weigh the same.
    assert found["value"].to_dict() == pytest.approx(
        {"clipart": 0.3, "real": 0.25, "sketch": 0.3}
    )
    assert found["n_classes"].to_dict() == {"clipart": 1, "real": 2, "sketch": 2}
    low, high = found["low"].to_dict(), found["high"].to_dict()
    assert math.isnan(low["clipart"])
    assert (low["real"], high["real"]) == pytest.approx(
        stats.t.interval(0.95, 1, 0.25, 0.15)
    )
    assert found["site"].isna().all()


def test_means_per_domain_keep_sites_apart_and_in_order() -> None:
    both = pd.concat(
        [table(HAND, "late"), table({k: 1 - v for k, v in HAND.items()}, "early")]
    )
    found = per_domain(both)
    real = found[found["domain"] == "real"]
    assert real["site"].tolist() == ["late", "early"]
    assert real["value"].tolist() == pytest.approx([0.25, 0.75])


def test_hand_worked_matrix() -> None:
    matrix, nan = domain_matrix(table(HAND)), math.nan
    assert list(matrix.index) == list(matrix.columns) == ["clipart", "real", "sketch"]
    np.testing.assert_allclose(
        matrix, [[nan, 0.2, 0.4], [0.2, nan, 0.35], [0.4, 0.35, nan]]
    )


def additive(
    rng: np.random.Generator, n: int, folds: int, common: float
) -> tuple[np.ndarray, np.ndarray]:
    """Return x = class + fold + noise, and the means of pairs of folds of it [classes, 1, folds, folds]."""
    x = (
        rng.normal(size=(n, 1))
        + common * rng.normal(size=folds)
        + rng.normal(size=(n, folds))
    )
    pairs = (x[:, :, None] + x[:, None, :]) / 2
    pairs[:, np.arange(folds), np.arange(folds)] = np.nan
    return x, pairs[:, None]


def test_means_of_draws_are_those_of_repeated_classes_and_folds() -> None:
    rng = np.random.default_rng(0)
    values = rng.random((5, 2, 4, 4))
    values[1, 0, 2, 3] = np.nan
    draws = draw_resamples(range(5), 4, resamples=6)
    found = resampled_means(values, draws.classes, draws.folds)
    for i, (classes, folds) in enumerate(
        zip(draws.classes.astype(int), draws.folds.astype(int), strict=True)
    ):
        chosen, members = (
            np.repeat(np.arange(5), classes),
            np.repeat(np.arange(4), folds),
        )
        for cell in range(2):
            pairs = [
                values[c, cell, p, q]
                for c in chosen
                for p, q in product(members, members)
                if p != q
            ]
            assert found[i, cell] == pytest.approx(np.nanmean(pairs))
    one_way = resampled_means(values, draws.classes, np.ones((1, 4)))
    np.testing.assert_allclose(
        one_way, resampled_means(values, draws.classes, np.ones((6, 4)))
    )
    other_way = resampled_means(values, np.ones((1, 5)), draws.folds)
    np.testing.assert_allclose(
        other_way, resampled_means(values, np.ones((6, 5)), draws.folds)
    )


def test_fold_inflation_is_that_of_all_draws() -> None:
    shares = []
    for folds in product(range(4), repeat=4):
        m = np.bincount(folds, minlength=4)
        pairs = np.outer(m, m) * (1 - np.eye(4))
        if pairs.any():
            shares.append(pairs.sum(0) / pairs.sum())
    exact = (1 / 4) / np.square(np.array(shares) - 1 / 4).sum(1).mean()
    assert draw_resamples(
        range(3), 4, resamples=20_000
    ).fold_inflation == pytest.approx(exact, rel=0.02)
    assert draw_resamples(range(3), 2).fold_inflation == np.inf


def test_the_variance_is_that_of_the_paper() -> None:
    arguments = (
        np.array([2.0]),
        np.array([1.0]),
        5 / 4,
        3 / 2,
    )  # v1, v2, of 5 classes and 3 folds
    for both, expected in (
        (3.5, 4 - 15 / 8 * 0.5),
        (3.2, 3.2),
        (3.9, 2.5),
    ):  # inside, above v12, below 5 / 4 v1
        assert dual_variance(np.array([both]), *arguments).tolist() == pytest.approx(
            [expected]
        )
    large = dual_variance(np.array([3.5]), np.array([2.0]), np.array([1.0]), 1.0, 1.0)
    assert large.tolist() == pytest.approx([2 * (2 + 1) - 3.5])


@pytest.mark.parametrize("common", [0.0, 0.7])
def test_the_variance_is_right_on_average(common: float) -> None:
    n, k, rng = 12, 5, np.random.default_rng(3)
    found = []
    for seed in range(150):
        x, values = additive(rng, n, k, common)
        spread = dual_bootstrap(
            values, lambda m: m, draw_resamples(range(n), k, resamples=150, seed=seed)
        )
        assert spread.value[0] == pytest.approx(x.mean())
        assert min(n, k) - 1 <= spread.degrees[0] <= n + k - 2
        found.append(spread.variance[0])
    assert np.mean(found) == pytest.approx(1 / n + common**2 / k + 1 / (n * k), rel=0.2)


def test_without_folds_to_draw_the_spread_is_over_classes() -> None:
    x, values = additive(np.random.default_rng(0), 9, 2, 0.0)
    spread = dual_bootstrap(
        values, lambda m: m, draw_resamples(range(9), 2, resamples=20_000)
    )
    assert spread.variance[0] == pytest.approx(x.mean(1).var(ddof=1) / 9, rel=0.05)
    assert spread.degrees[0] == 8
    assert np.isnan(
        dual_bootstrap(values[:1], lambda m: m, draw_resamples([0], 2)).interval()[0]
    ).all()


def test_one_class_has_the_spread_of_its_folds() -> None:
    x, values = additive(np.random.default_rng(1), 1, 6, 0.0)
    spread = dual_bootstrap(
        values, lambda m: m, draw_resamples([0], 6, resamples=20_000)
    )
    assert spread.variance[0] == pytest.approx(x[0].var(ddof=1) / 6, rel=0.2)
    assert spread.degrees[0] == 5


PLANTED = Planted(n_units=40, n_kept=6)
CHANCE = np.array([chance_overlap(40, 6, 6)])
PAIRS = ((0, 1), (0, 2), (1, 2))


def test_kept_sets_and_their_likeness() -> None:
    kept = keep(np.array([[0.1, 0.9, 0.5, 0.4], [0.9, 0.8, 0.1, 0.2]]), 2)
    assert kept.tolist() == [[False, True, True, False], [True, True, False, False]]
    assert jaccard(kept[0], kept[1]) == pytest.approx(1 / 3)
    assert pytest.approx(CHANCE[0], abs=0.001) == PLANTED.chance


def test_a_ratio_is_what_it_is_made_of() -> None:
    made = simulate(np.random.default_rng(0), np.full((5, 1), 0.6), 0.5, PLANTED).folds
    draws = draw_resamples(made.classes, 4, resamples=100)
    found = pair_ratios(pair_cells(made), CHANCE, draws)
    means = np.nanmean(made.values, (0, 3, 4, 5)) - CHANCE[0]
    by_hand = [means[a, b] / np.sqrt(means[a, a] * means[b, b]) for a, b in PAIRS]
    assert found["value"].tolist() == pytest.approx(by_hand)
    assert found["ceiling_b"].tolist() == pytest.approx(
        [means[b, b] + CHANCE[0] for _, b in PAIRS]
    )
    of_domains = domain_ratios(pair_cells(made), CHANCE, draws).value[:, 0]
    assert of_domains.tolist() == pytest.approx(
        [(by_hand[a] + by_hand[b]) / 2 for a, b in PAIRS]
    )


def test_a_class_without_a_domain_is_left_out_of_its_ratios() -> None:
    made = simulate(np.random.default_rng(0), np.full((9, 1), 0.6), 0.5, PLANTED).folds
    made.values[0, 2], made.values[0, :, 2] = np.nan, np.nan
    found = pair_ratios(
        pair_cells(made), CHANCE, draw_resamples(made.classes, 4, resamples=50)
    )
    assert found["n_classes"].tolist() == [9, 8, 8]
    others = made._replace(classes=made.classes[1:], values=made.values[1:])
    expected = pair_ratios(
        pair_cells(others), CHANCE, draw_resamples(others.classes, 4, resamples=50)
    )["value"]
    assert found["value"].tolist()[1:] == pytest.approx(expected.tolist()[1:])


def test_identical_domains_reach_the_ceiling_where_a_site_is_unknown_in_one() -> None:
    values = np.broadcast_to(
        np.array([0.8, 0.3])[:, None, None], (6, 2, 2, 2, 4, 4)
    ).copy()  # two sites
    values[..., np.arange(4), np.arange(4)] = np.nan
    values[::2, 1, :, 1] = values[::2, :, 1, 1] = (
        np.nan
    )  # half of the classes have nothing at the second site in b
    made = FoldArray(tuple("uvwxyz"), ("a", "b"), ("s", "t"), values)
    draws = draw_resamples(made.classes, 4, resamples=50)
    cells = pair_cells(made).over_sites()
    (row,) = pair_ratios(cells, CHANCE, draws).to_dict("records")
    assert row["value"] == pytest.approx(1)
    assert [
        row[name] for name in ("similarity", "ceiling_a", "ceiling_b")
    ] == pytest.approx([(0.8 + 0.55) / 2] * 3)
    assert row["n_classes"] == 6
    assert domain_ratios(cells, CHANCE, draws).value[:, 0].tolist() == pytest.approx(
        [1, 1]
    )
    assert ceiling_tests(made, draws, True)["difference"].item() == pytest.approx(0)


def test_there_is_no_ratio_where_a_ceiling_is_not_well_above_chance() -> None:
    rng = np.random.default_rng(0)
    values = np.broadcast_to(
        np.array([0.6, 0.55, 0.3])[:, None, None, None], (8, 3, 3, 1, 4, 4)
    ).copy()
    values[:, range(3), range(3)] = np.array([0.8, 0.7, 0.3])[:, None, None, None]
    values[..., np.arange(4), np.arange(4)] = np.nan
    for spread, weak in (
        (0.05, False),
        (0.5, True),
    ):  # of the third domain's ceilings over classes
        values[:, 2, 2] += (
            spread * rng.permutation(np.linspace(-1, 1, 8))[:, None, None, None]
        )
        made = FoldArray(tuple("stuvwxyz"), ("a", "b", "c"), (None,), values)
        cells, draws = pair_cells(made), draw_resamples(made.classes, 4, resamples=200)
        found = pair_ratios(cells, CHANCE, draws)
        ceilings = values[:, 2, 2, 0, 0, 1] - CHANCE[0]
        low = stats.t.interval(0.95, 7, ceilings.mean(), stats.sem(ceilings))[0]
        assert (low < 0.25 * ceilings.mean()) == weak
        assert (
            found["value"].isna().tolist()
            == found["low"].isna().tolist()
            == [False, weak, weak]
        )
        assert [("c, 0.30 [" in note) for note in found["note"]] == [False, weak, weak]
        assert domain_ratios(cells, CHANCE, draws).value[
            :, 0
        ].tolist() == pytest.approx(by_domain(found), nan_ok=True)
        assert mean_ratio(cells, CHANCE, draws).value.item() == pytest.approx(
            found["value"].mean()
        )


def by_domain(found: pd.DataFrame) -> list[float]:
    return [
        found[(found["domain_a"] == d) | (found["domain_b"] == d)]["value"].mean()
        for d in "abc"
    ]


def test_nothing_is_read_against_a_ceiling_at_chance() -> None:
    means = np.array([[[[0.2]], [[0.1]], [[0.5]]]])
    assert np.isnan(ratio(means, np.array([0.1]))).all()
    assert ratio(means, np.array([0.0])).item() == pytest.approx(0.2 / np.sqrt(0.05))


@pytest.mark.parametrize("n_classes", [4, 16])
def test_intervals_hold_the_truth_as_often_as_they_say(n_classes: int) -> None:
    many = simulate(
        np.random.default_rng(9),
        np.random.default_rng(8).uniform(0.2, 0.9, (2000, 1)),
        0.7,
        PLANTED,
    ).folds
    truth = np.nanmean(many.values[:, 0, 1:])
    share = ratio(np.nanmean(pair_cells(many).values, (0, -2, -1))[None], CHANCE)[
        0, 0, 0
    ]
    rng, hits = np.random.default_rng(2), []
    for seed in range(200):
        made = simulate(rng, rng.uniform(0.2, 0.9, (n_classes, 1)), 0.7, PLANTED).folds
        draws = draw_resamples(made.classes, 4, resamples=150, seed=seed)
        low, high = domain_spread(made, draws).interval()
        shares = dual_bootstrap(
            pair_cells(made).values, lambda m: ratio(m, CHANCE), draws
        ).interval()
        hits.append(
            (
                low[0, 0] <= truth <= high[0, 0],
                shares[0][0, 0] <= share <= shares[1][0, 0],
            )
        )
    assert (
        np.mean(hits, axis=0) > 0.93 - 3 * np.sqrt(0.93 * 0.07 / 200)
    ).all()  # binomial, three standard errors
