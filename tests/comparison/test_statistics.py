"""Chance, intervals and tests against enumeration, scipy and paper."""

import math
from itertools import combinations

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from circuitry import InputError
from circuitry.circuits.similarity import chance_node_overlap, chance_overlap
from circuitry.comparison.statistics import bootstrap_mean, jackknife_interval, paired_tests, per_domain
from tests.circuits.test_graph import small_graph


@settings(deadline=None)
@given(st.integers(1, 6), st.data())
def test_chance_equals_the_mean_over_all_pairs_of_subsets(units: int, data: st.DataObject) -> None:
    a = data.draw(st.integers(0, units))
    b = data.draw(st.integers(0 if a else 1, units))
    # By symmetry the first subset may be held fixed, but the definition does not say so: both are enumerated.
    values = [
        len(set(x) & set(y)) / len(set(x) | set(y))
        for x in combinations(range(units), a)
        for y in combinations(range(units), b)
    ]
    assert chance_overlap(units, a, b) == pytest.approx(np.mean(values))


@pytest.mark.parametrize(("units", "a", "b"), [(5, 6, 1), (5, 1, 6), (5, -1, 2), (5, 0, 0)])
def test_impossible_subsets_are_refused(units: int, a: int, b: int) -> None:
    with pytest.raises(InputError, match=rf"between 0 and 5 members and not both 0, but {a} and {b} were given"):
        chance_overlap(units, a, b)


def test_chance_of_a_graph_has_a_row_per_site_without_the_image() -> None:
    # conv: 2 of 4. Overlap 0, 1, 2 with probability 1/6, 4/6, 1/6 and Jaccard 0, 1/3, 1. head: all of 3.
    table = chance_node_overlap(small_graph())
    assert table["site"].tolist() == ["conv", "head"]
    assert table["value"].tolist() == pytest.approx([4 / 18 + 1 / 6, 1])


# Bootstrap


def test_the_mean_is_exact_and_lies_in_its_interval() -> None:
    values = np.array([0.1, 0.2, 0.25, 0.9, 0.4])
    mean, low, high = bootstrap_mean(values)
    assert mean == pytest.approx(0.37)
    assert 0.1 < low < mean < high < 0.9


def test_the_interval_covers_the_truth_about_as_often_as_it_says() -> None:
    rng = np.random.default_rng(0)
    covered = 0
    for seed in range(100):
        _, low, high = bootstrap_mean(rng.normal(3.0, 1.0, size=30), confidence=0.8, resamples=300, seed=seed)
        covered += low < 3.0 < high
    assert 68 <= covered <= 90  # binomial with 0.8 (a little less for the percentile method): 3 standard deviations


def test_the_interval_narrows_with_less_confidence() -> None:
    values = np.arange(20.0)
    wide, narrow = (bootstrap_mean(values, confidence=c) for c in (0.95, 0.5))
    assert wide[1] < narrow[1] < narrow[2] < wide[2]


def test_a_seed_fixes_the_interval() -> None:
    values = np.random.default_rng(1).normal(size=12)
    assert bootstrap_mean(values, seed=3) == bootstrap_mean(values, seed=3)
    assert bootstrap_mean(values, seed=3) != bootstrap_mean(values, seed=4)


def test_fewer_than_two_values_have_no_interval() -> None:
    assert np.isnan(bootstrap_mean(np.array([]))).all()
    assert np.isnan(bootstrap_mean(np.array([math.nan]))).all()
    mean, low, high = bootstrap_mean(np.array([0.5, math.nan]))
    assert mean == 0.5
    assert math.isnan(low)
    assert math.isnan(high)


# Jackknife


def test_the_jackknife_of_a_mean_is_student_s_interval() -> None:
    values = np.random.default_rng(0).normal(size=12)
    without_each = np.array([np.delete(values, i).mean() for i in range(12)])
    expected = stats.t.interval(0.9, 11, values.mean(), stats.sem(values))
    assert jackknife_interval(float(values.mean()), without_each, confidence=0.9) == pytest.approx(expected)
    assert jackknife_interval(2.0, np.array([2.5, 2.0, 1.5])) == pytest.approx((-0.48414, 4.48414), abs=1e-5)


def test_the_jackknife_of_one_observation_or_of_unknown_values_is_unknown() -> None:
    assert np.isnan(jackknife_interval(1.0, np.array([1.0]))).all()
    assert np.isnan(jackknife_interval(1.0, np.array([1.0, math.nan]))).all()


# Tables


def table(values: dict[tuple[str, str, str], float], site: str | None = None) -> pd.DataFrame:
    rows = [(*key, site, value) for key, value in values.items()]
    return pd.DataFrame(rows, columns=["class", "domain_a", "domain_b", "site", "value"])


HAND = {
    ("axe", "clipart", "real"): 0.2,
    ("axe", "clipart", "sketch"): 0.4,
    ("axe", "real", "sketch"): 0.6,
    ("fish", "real", "sketch"): 0.1,
}


def test_hand_worked_means_per_domain() -> None:
    found = per_domain(table(HAND)).set_index("domain")
    # clipart: axe 0.3.  real: axe 0.4, fish 0.1.  sketch: axe 0.5, fish 0.1.  Classes weigh the same.
    assert found["value"].to_dict() == pytest.approx({"clipart": 0.3, "real": 0.25, "sketch": 0.3})
    assert found["n_classes"].to_dict() == {"clipart": 1, "real": 2, "sketch": 2}
    low, high = found["low"].to_dict(), found["high"].to_dict()
    assert math.isnan(low["clipart"])
    assert (low["real"], high["real"]) == pytest.approx((0.1, 0.4))
    assert found["site"].isna().all()


def test_means_per_domain_keep_sites_apart_and_in_order() -> None:
    both = pd.concat([table(HAND, "late"), table({k: 1 - v for k, v in HAND.items()}, "early")])
    found = per_domain(both)
    real = found[found["domain"] == "real"]
    assert real["site"].tolist() == ["late", "early"]
    assert real["value"].tolist() == pytest.approx([0.25, 0.75])


def many_classes(seed: int) -> tuple[dict[tuple[str, str, str], float], dict[str, np.ndarray]]:
    """Random similarities of three domains in twelve classes, and each domain's mean over the others by class."""
    rng = np.random.default_rng(seed)
    ab, ac, bc = rng.random(12), rng.random(12) ** 2, rng.random(12) / 2
    values: dict[tuple[str, str, str], float] = {}
    for i in range(12):
        values |= {(f"c{i:02}", "a", "b"): ab[i], (f"c{i:02}", "a", "c"): ac[i], (f"c{i:02}", "b", "c"): bc[i]}
    return values, {"a": (ab + ac) / 2, "b": (ab + bc) / 2, "c": (ac + bc) / 2}


@pytest.mark.parametrize(("seed", "carried_over"), [(5, False), (28, True)])
def test_paired_tests_equal_scipy_with_holm_by_hand(seed: int, carried_over: bool) -> None:
    values, scores = many_classes(seed)
    found = paired_tests(table(values))
    assert found[["domain_a", "domain_b"]].to_numpy().tolist() == [["a", "b"], ["a", "c"], ["b", "c"]]
    p = [stats.wilcoxon(scores[x], scores[y]).pvalue for x, y in ("ab", "ac", "bc")]
    assert found["p"].tolist() == pytest.approx(p)
    assert found["difference"].tolist() == pytest.approx(
        [(scores[x] - scores[y]).mean() for x, y in ("ab", "ac", "bc")]
    )
    assert found["n_classes"].tolist() == [12, 12, 12]
    smallest, middle, largest = sorted(p)
    assert (3 * smallest > 2 * middle) == carried_over  # a larger p may not be corrected to a smaller one
    holm = {smallest: min(1, 3 * smallest)}
    holm[middle] = max(holm[smallest], min(1, 2 * middle))
    holm[largest] = max(holm[middle], largest)
    assert found["p_holm"].tolist() == pytest.approx([holm[value] for value in p])
    assert len({round(v, 9) for v in found["p_holm"]}) > 1


def test_pairs_without_a_test_stay_untested_and_uncounted() -> None:
    # a shares one class with b and d and none with e; only b, d and e have enough classes in common.
    values = {("c0", "a", "b"): 0.2, ("c0", "a", "d"): 0.1, ("c0", "b", "d"): 0.7}
    values |= {(f"c{i}", "b", "d"): i / 10 for i in range(1, 4)} | {(f"c{i}", "b", "e"): i / 7 for i in range(1, 4)}
    found = paired_tests(table(values)).set_index(["domain_a", "domain_b"])
    p, corrected = found["p"].to_dict(), found["p_holm"].to_dict()
    assert found["n_classes"].to_dict()["a", "e"] == 0
    assert math.isnan(found["difference"].to_dict()["a", "e"])
    assert {pair for pair, value in p.items() if not math.isnan(value)} == {("b", "d"), ("b", "e"), ("d", "e")}
    assert {pair for pair, value in corrected.items() if not math.isnan(value)} == {("b", "d"), ("b", "e"), ("d", "e")}
    smallest = min(("b", "d"), ("b", "e"), ("d", "e"), key=lambda pair: p[pair])
    assert corrected[smallest] == pytest.approx(min(1, 3 * p[smallest]))


def test_two_domains_alone_cannot_differ() -> None:
    found = paired_tests(table({("axe", "a", "b"): 0.3, ("fish", "a", "b"): 0.5}))
    assert found["difference"].tolist() == [0]
    assert found["p"].isna().all()
