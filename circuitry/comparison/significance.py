"""p values from permutations, their correction for multiple tests, and the smallest p that permutations can give."""

import math
from collections.abc import Sequence
from itertools import permutations
from typing import Annotated

import numpy as np
import pandas as pd
from jaxtyping import Float
from scipy import stats

from circuitry.runs.arguments import FINITE, Condition, Count, Seed, checked

LEVEL = 0.05

EXACT_SIGNS = 12
"""Largest number of values for which all 2^n combinations of signs are tried."""
EXACT_DOMAINS = 8
"""Largest number of domains for which all n! orders are tried."""

_SIGN_DRAWS = 10_000
"""Number of random combinations of signs that are tried for more than `EXACT_SIGNS` values."""

_IN_RANGE = Condition(
    "p values",
    lambda p: None if p.dropna().between(0, 1).all() else "others",
    "correct them",
)
ROUNDING = 1e-12
"""Tolerance for rounding errors when statistics are compared. Without it, a permutation that equals the given order
might be counted as smaller."""


@checked
def holm(p: Annotated[pd.Series, _IN_RANGE]) -> pd.Series:
    """Return p values corrected for their number by Holm's method (1979).

    NaN values stay NaN, and do not count as tests.

    Example:
        >>> holm(pd.Series([0.01, 0.04, 0.03])).tolist()
        [0.03, 0.06, 0.06]
    """
    # In ascending order, each p is multiplied by the number of tests that are left. No corrected p is smaller than the
    # corrected p before it.
    tested = p.astype(float).dropna().sort_values(kind="stable")
    n_left = np.arange(len(tested), 0, -1)
    return (tested * n_left).clip(upper=1).cummax().reindex(p.index)


def smallest_p(n: int) -> float:
    """Return the smallest two-sided p value that a sign-flip test of n values (`sign_flip_p`) can give: 2 / 2^n."""
    return min(1.0, 2.0 ** (1 - n))


def fewest_units(n_tests: int) -> int:
    """Return how many values a sign-flip test needs at least, so that its result can be significant.

    With this number of values, the smallest possible p, multiplied by ``n_tests``, is at most `LEVEL`.

    Args:
        n_tests: Number of tests for which the p values are corrected.
    """
    # 2 / 2^n * n_tests <= LEVEL, solved for n.
    return math.ceil(1 + math.log2(n_tests / LEVEL))


@checked
def sign_flip_p(
    values: Annotated[Float[np.ndarray, " n"], FINITE],
    *,
    seed: Seed = 0,
) -> float:
    """Test whether a mean is zero by flipping the signs of the values; return the two-sided p value.

    The p value is the share of combinations of signs that give at least as large an absolute mean as the given signs.
    For at most twelve values p is exact, because all 2^n combinations are tried. For more values, the given signs and
    10,000 random combinations are tried, so p is at least 1 / 10,001. The result is NaN if there are no values, or if
    all values are zero.

    Example:
        >>> sign_flip_p(np.array([1.0, 2.0, 3.0]))
        0.25
    """
    n = len(values)
    if n == 0 or not values.any():
        return float("nan")
    exact = n <= EXACT_SIGNS
    if exact:
        # Bit i of a number from 0 to 2^n - 1 is the sign of value i.
        numbers = np.arange(2**n)[:, None]
        bits = (numbers >> np.arange(n)) & 1
        signs = 1 - 2 * bits
    else:
        rng = np.random.default_rng(seed)
        signs = rng.choice([-1.0, 1.0], (_SIGN_DRAWS, n))
    # Sums are compared in place of means. The given signs must count among the permutations in spite of rounding.
    as_large = np.abs(signs @ values) >= abs(values.sum()) - ROUNDING
    if exact:
        return float(as_large.mean())
    return float((1 + as_large.sum()) / (1 + _SIGN_DRAWS))


@checked
def mantel(
    x: Float[np.ndarray, "domains domains"],
    y: Float[np.ndarray, "domains domains"],
    *,
    draws: Count = 10_000,
    seed: Seed = 0,
) -> tuple[float, float]:
    """Return Spearman's correlation of two symmetric matrices over pairs of domains, and its p value (Mantel 1967).

    Two pairs may share a domain, so pairs are not independent. Therefore the domains of ``y`` are permuted. The p value
    is the share of permutations that give at least as large an absolute correlation. For at most eight domains, all
    permutations are tried. For more domains, random permutations and the given order are tried.

    A value may be unknown (NaN). Then domains are left out one by one until all pairs are known. The domain with the
    most unknown pairs is left out first. The result is NaN for fewer than three domains, or if all pairs of a matrix
    are equal.

    Args:
        draws: Number of random permutations.

    Example:
        >>> x = np.array([[0.0, 1.0, 2.0], [1.0, 0.0, 3.0], [2.0, 3.0, 0.0]])
        >>> rho, p = mantel(x, x)
        >>> round(rho, 6)
        1.0
    """
    complete = _complete([x, y])
    n = len(complete)
    upper = np.triu_indices(n, 1)
    # Standardised ranks of the pairs of domains: their products are Spearman's correlations.
    ranked = []
    for matrix in (x, y):
        pairs = matrix[np.ix_(complete, complete)][upper]
        ranked.append(_standardised(stats.rankdata(pairs)))
    u, v = ranked
    # A matrix of equal pairs has no order, and all-zero ranks.
    if n < 3 or not u.any() or not v.any():
        return float("nan"), float("nan")
    # As a matrix again, so that an order of the domains moves whole rows and columns of y.
    ranks = np.zeros((n, n))
    ranks[upper] = v
    ranks += ranks.T
    exact = n <= EXACT_DOMAINS
    if exact:
        orders = np.array(list(permutations(range(n))))
    else:
        rng = np.random.default_rng(seed)
        in_order = np.tile(np.arange(n), (draws, 1))
        orders = rng.permuted(in_order, axis=1)
    rhos = ranks[orders[:, upper[0]], orders[:, upper[1]]] @ u
    rho = float(u @ v)
    is_as_large = np.abs(rhos) >= abs(rho) - ROUNDING
    as_large = int(is_as_large.sum())
    if exact:
        return rho, as_large / len(orders)
    # The given order is one of the permutations, so p is never zero.
    return rho, (1 + as_large) / (1 + draws)


def _complete(matrices: Sequence[np.ndarray]) -> list[int]:
    """Return the indices of the domains to keep, so that every pair of kept domains is known in all matrices.

    As long as the domains that are left have an unknown pair, the domain with the most unknown pairs is left out.
    """
    unknown = np.asarray(np.isnan(matrices).any(0))
    unknown |= unknown.T
    np.fill_diagonal(unknown, False)
    # Leave out the domain with the most unknown pairs, until all pairs are known.
    left = list(range(len(unknown)))
    while unknown[np.ix_(left, left)].any():
        n_unknown = unknown[np.ix_(left, left)].sum(0)
        left.pop(int(n_unknown.argmax()))
    return left


def _standardised(values: np.ndarray) -> np.ndarray:
    """Shift and scale values so that their mean is 0 and their Euclidean norm is 1; return zeros if all are equal.

    The dot product of two such vectors is their correlation.
    """
    centred = values - values.mean() if len(values) else values
    length = float(np.linalg.norm(centred))
    return centred / length if length > ROUNDING else np.zeros(len(values))
