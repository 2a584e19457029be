"""p values of permutations, their correction for many tests, and the smallest p that permutations can give."""

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
"""Most values whose signs are exchanged in all 2^n ways."""
EXACT_DOMAINS = 8
"""Most domains that are put into all n! orders."""

_SIGN_DRAWS = 10_000
"""Random signs of more values."""

_IN_RANGE = Condition(
    "p values",
    lambda p: None if p.dropna().between(0, 1).all() else "others",
    "correct them",
)
ROUNDING = 1e-12
"""Tolerance, so that the given order counts among the permutations."""


@checked
def holm(p: Annotated[pd.Series, _IN_RANGE]) -> pd.Series:
    """Return p values corrected for their number (Holm 1979); NaN values are not counted.

    Example:
        >>> holm(pd.Series([0.01, 0.04, 0.03])).tolist()
        [0.03, 0.06, 0.06]
    """
    # The i-th smallest p times the number of tests from it on, and no smaller than those before it.
    tested = p.astype(float).dropna().sort_values(kind="stable")
    n_left = np.arange(len(tested), 0, -1)
    return (tested * n_left).clip(upper=1).cummax().reindex(p.index)


def smallest_p(n: int) -> float:
    """Return the smallest two-sided p value of exchanging the signs of n values: 2 / 2^n."""
    return min(1.0, 2.0 ** (1 - n))


def fewest_units(n_tests: int) -> int:
    """Return how many values are needed before the smallest p, corrected for the tests, is significant."""
    # 2 / 2^n * n_tests <= LEVEL, solved for n.
    return math.ceil(1 + math.log2(n_tests / LEVEL))


@checked
def sign_flip_p(
    values: Annotated[Float[np.ndarray, " n"], FINITE],
    *,
    seed: Seed = 0,
) -> float:
    """Test whether a mean is zero by exchanging the signs of its values; return the two-sided p value.

    p is the share of signs that give at least as large an absolute mean. Up to twelve values it is exact, over all 2^n
    signs. Of more values it is over 10,000 random signs and the given ones, so it is at least 1 / 10,001. NaN for no
    values, or for zeros alone.

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
    # Sums order as means do; the given signs must count among the permutations in spite of rounding.
    as_large = np.abs(signs @ values) >= abs(values.sum()) - ROUNDING
    if exact:
        return float(as_large.mean())
    return float((1 + as_large.sum()) / (1 + _SIGN_DRAWS))


@checked
def mantel(
    x: Float[np.ndarray, "domains domains"],
    y: Float[np.ndarray, "domains domains"],
    given: Float[np.ndarray, "domains domains"] | None = None,
    *,
    draws: Count = 10_000,
    seed: Seed = 0,
) -> tuple[float, float]:
    """Return Spearman's correlation of two symmetric matrices over pairs of domains, and its p value (Mantel 1967).

    Pairs share domains, so they are not independent. Therefore the domains of ``y`` are put into other orders, and p is
    the share of orders that give at least as large an absolute correlation. Up to eight domains all orders are taken;
    of more domains random orders and the given one. Domains with unknown pairs are left out, the domain with the most
    unknown pairs first. NaN for fewer than three domains, or if all pairs of a matrix are equal.

    With ``given`` the correlation is partial. The ranks of this third matrix are taken out of the ranks of both
    matrices by least squares, and again out of each order of the rest of ``y`` (Freedman and Lane 1983).

    Example:
        >>> x = np.array([[0.0, 1.0, 2.0], [1.0, 0.0, 3.0], [2.0, 3.0, 0.0]])
        >>> rho, p = mantel(x, x)
        >>> round(rho, 6)
        1.0
    """
    matrices = [x, y]
    if given is not None:
        matrices.append(given)
    complete = _complete(matrices)
    n = len(complete)
    upper = np.triu_indices(n, 1)
    # Standardised ranks of the pairs of domains: their products are Spearman's correlations.
    ranked = []
    for matrix in matrices:
        pairs = matrix[np.ix_(complete, complete)][upper]
        ranked.append(_standardised(stats.rankdata(pairs)))
    # With a third matrix: the share of both that its ranks explain is taken out.
    taken = np.zeros(len(ranked[0])) if given is None else ranked[2]
    u = _standardised(ranked[0] - (ranked[0] @ taken) * taken)
    v = _standardised(ranked[1] - (ranked[1] @ taken) * taken)
    # A matrix of equal pairs has no order, and all-zero ranks.
    varies = u.any() and v.any() and (given is None or taken.any())
    if n < 3 or not varies:
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
    moved = ranks[orders[:, upper[0]], orders[:, upper[1]]]
    # An order mixes the rest of y with the given ranks again, which are taken out of it.
    explained = np.square(moved @ taken)
    rest = np.sqrt(np.maximum(1 - explained, ROUNDING))
    rhos = moved @ u / rest
    rho = float(u @ v)
    is_as_large = np.abs(rhos) >= abs(rho) - ROUNDING
    as_large = int(is_as_large.sum())
    if exact:
        return rho, as_large / len(orders)
    # The given order is one of the permutations, so p is never zero.
    return rho, (1 + as_large) / (1 + draws)


def _complete(matrices: Sequence[np.ndarray]) -> list[int]:
    """Return domains whose pairs are all known in all matrices."""
    unknown = np.asarray(np.isnan(matrices).any(0))
    unknown |= unknown.T
    np.fill_diagonal(unknown, False)
    # The domain with the most unknown pairs goes until none is left.
    left = list(range(len(unknown)))
    while unknown[np.ix_(left, left)].any():
        n_unknown = unknown[np.ix_(left, left)].sum(0)
        left.pop(int(n_unknown.argmax()))
    return left


def _standardised(values: np.ndarray) -> np.ndarray:
    """Return values with mean 0 and length 1, so that products are correlations; 0 for equal values."""
    centred = values - values.mean() if len(values) else values
    length = float(np.linalg.norm(centred))
    return centred / length if length > ROUNDING else np.zeros(len(values))
