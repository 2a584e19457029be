"""Means and their intervals against scipy and paper."""

import math

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from circuitry.comparison import domain_matrix, jackknife_interval, mean_interval, mean_spread, per_domain


def test_the_interval_of_a_mean_is_student_s() -> None:
    values = np.array([0.1, 0.2, math.nan, 0.25, 0.9, 0.4])
    known = values[~np.isnan(values)]
    mean, low, high = mean_interval(values)
    assert mean == pytest.approx(0.37)
    assert (low, high) == pytest.approx(stats.t.interval(0.95, 4, known.mean(), stats.sem(known)))


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


def test_the_jackknife_of_a_mean_is_student_s_interval() -> None:
    values = np.random.default_rng(0).normal(size=12)
    without_each = np.array([np.delete(values, i).mean() for i in range(12)])
    expected = stats.t.interval(0.95, 11, values.mean(), stats.sem(values))
    assert jackknife_interval(float(values.mean()), without_each) == pytest.approx(expected)
    assert jackknife_interval(2.0, np.array([2.5, 2.0, 1.5])) == pytest.approx((-0.48414, 4.48414), abs=1e-5)
    for unknown in ([1.0], [1.0, math.nan]):
        assert np.isnan(jackknife_interval(1.0, np.array(unknown))).all()


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


def test_hand_worked_matrix() -> None:
    matrix, nan = domain_matrix(table(HAND)), math.nan
    assert list(matrix.index) == list(matrix.columns) == ["clipart", "real", "sketch"]
    np.testing.assert_allclose(matrix, [[nan, 0.2, 0.4], [0.2, nan, 0.35], [0.4, 0.35, nan]])
