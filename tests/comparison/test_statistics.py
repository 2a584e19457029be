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
from circuitry.circuits import AttributionGraph, chance_node_overlap, chance_overlap
from circuitry.comparison import jackknife_interval, mean_interval, mean_spread, per_domain
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


def graph_keeping(kept: dict[str, int]) -> AttributionGraph:
    return small_graph(kept_units={site: np.arange(n) for site, n in kept.items()}, edge_scores={}, completeness={})


def test_chance_of_graphs_is_the_mean_over_pairs_of_their_own_numbers() -> None:
    graphs = [graph_keeping({"input": 1, "conv": n, "head": 0}) for n in (2, 2, 3)]
    found = chance_node_overlap(*graphs).set_index("site")["value"]
    assert found["conv"] == pytest.approx(np.mean([chance_overlap(4, 2, 2), *[chance_overlap(4, 2, 3)] * 2]))
    assert math.isnan(found["head"])
    assert chance_node_overlap(graphs[0])["value"][0] == chance_node_overlap(*graphs[:2])["value"][0]


# Student's interval


def test_the_interval_of_a_mean_is_student_s() -> None:
    values = np.array([0.1, 0.2, math.nan, 0.25, 0.9, 0.4])
    known = values[~np.isnan(values)]
    mean, low, high = mean_interval(values, confidence=0.9)
    assert mean == pytest.approx(0.37)
    assert (low, high) == pytest.approx(stats.t.interval(0.9, 4, known.mean(), stats.sem(known)))


def test_families_count_once() -> None:
    values = np.array([0.1, 0.3, 0.2, 0.6, 0.5, 0.7])
    twice, families = np.repeat(values, 2), [i // 2 for i in range(12)]
    assert mean_interval(twice, families) == pytest.approx(mean_interval(values))
    assert mean_interval(twice)[2] < mean_interval(values)[2]
    # By hand, families of 1 and 2: mean 2, deviations -2 and (0 + 2), so 2 * (4 + 4) / 9.
    assert mean_spread(np.array([0.0, 2.0, 4.0]), ["a", "b", "b"]).variance == pytest.approx(16 / 9)


def test_fewer_than_two_values_have_no_interval() -> None:
    assert np.isnan(mean_interval(np.array([]))).all()
    assert np.isnan(mean_interval(np.array([math.nan]))).all()
    for values, families in ((np.array([0.5, math.nan]), None), (np.array([0.4, 0.6]), ["a", "a"])):
        mean, low, high = mean_interval(values, families)
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
    assert (low["real"], high["real"]) == pytest.approx(stats.t.interval(0.95, 1, 0.25, 0.15))
    assert found["site"].isna().all()


def test_means_per_domain_keep_sites_apart_and_in_order() -> None:
    both = pd.concat([table(HAND, "late"), table({k: 1 - v for k, v in HAND.items()}, "early")])
    found = per_domain(both)
    real = found[found["domain"] == "real"]
    assert real["site"].tolist() == ["late", "early"]
    assert real["value"].tolist() == pytest.approx([0.25, 0.75])
