"""p values against enumeration by hand and scipy, and what permutations can give at least."""

import math
from itertools import permutations, product

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from circuitry.comparison import holm, mantel, sign_flip_p
from circuitry.comparison.significance import smallest_p, with_corrected_p


def test_holm_by_hand() -> None:
    p = pd.Series([0.01, math.nan, 0.04, 0.03])
    assert holm(p).tolist() == pytest.approx([0.03, math.nan, 0.06, 0.06], nan_ok=True)
    assert holm(pd.Series([0.6, 0.5])).tolist() == [1, 1]


def test_signs_are_all_gone_through() -> None:
    values = np.array([0.3, -0.1, 0.5, 0.2, 0.05])
    means = [abs(np.dot(signs, values)) for signs in product([-1, 1], repeat=5)]
    expected = np.mean([mean >= abs(values.sum()) - 1e-12 for mean in means])
    assert sign_flip_p(values) == pytest.approx(expected)
    scipys = stats.permutation_test((values,), np.mean, permutation_type="samples", n_resamples=np.inf)
    assert sign_flip_p(values) == pytest.approx(scipys.pvalue)
    assert sign_flip_p(np.full(6, 0.5)) == smallest_p(6) == 2 / 2**6
    assert math.isnan(sign_flip_p(np.zeros(3)))


def test_many_signs_are_drawn() -> None:
    values = np.random.default_rng(0).normal(0.3, 1, 20)
    assert sign_flip_p(values) == pytest.approx(stats.ttest_1samp(values, 0).pvalue, abs=0.02)
    assert sign_flip_p(np.ones(30)) == 1 / 10_001


def test_what_cannot_be_shown_is_said() -> None:
    tests = pd.DataFrame({"p": [0.001, 0.9, math.nan], "n_units": [6, 5, 6]})
    found = with_corrected_p(tests, of="models")
    assert found["p"].tolist() == pytest.approx([2 / 64, 0.9, math.nan], nan_ok=True)
    assert found["p_holm"].tolist() == pytest.approx([4 / 64, 0.9, math.nan], nan_ok=True)
    assert found["note"].tolist() == ["cannot be significant with 6 models", "cannot be significant with 5 models", ""]


def symmetric(rng: np.random.Generator, n: int) -> np.ndarray:
    found = rng.normal(size=(n, n))
    return found + found.T


@pytest.mark.parametrize("n", [3, 4, 5])
def test_mantel_goes_through_all_orders(n: int) -> None:
    rng = np.random.default_rng(n)
    x, y = symmetric(rng, n), symmetric(rng, n)
    upper = np.triu_indices(n, 1)
    rho = stats.spearmanr(x[upper], y[upper]).statistic
    others = [stats.spearmanr(x[upper], y[np.ix_(order, order)][upper]).statistic for order in permutations(range(n))]
    expected = np.mean(np.abs(others) >= abs(rho) - 1e-12)
    assert mantel(x, y) == pytest.approx((rho, expected))


def test_three_domains_show_nothing() -> None:
    x = np.array([[0, 1, 2], [1, 0, 3], [2, 3, 0.0]])
    assert mantel(x, x) == pytest.approx((1, 1 / 3))


def test_more_than_eight_domains_are_drawn() -> None:
    x = symmetric(np.random.default_rng(0), 9)
    assert mantel(x, x, draws=99) == pytest.approx((1, 0.01))


def test_domains_with_unknown_pairs_are_left_out() -> None:
    rng = np.random.default_rng(1)
    x, y = symmetric(rng, 5), symmetric(rng, 5)
    with_gap = y.copy()
    with_gap[4, 2] = with_gap[4, 0] = np.nan
    assert mantel(x, with_gap) == pytest.approx(mantel(x[:4, :4], y[:4, :4]))
    assert np.isnan(mantel(x, np.full((5, 5), np.nan))).all()
    assert np.isnan(mantel(x, np.ones((5, 5)))).all()
