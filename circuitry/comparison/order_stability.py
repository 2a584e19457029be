"""Does the order of the domains hang on how circuits were found? Rank correlations with the default.

A domain's place is that of its mean similarity with the other domains, over classes and sites. The order under another
setting is set against the default's, over the domains, and over the pairs of domains.
"""

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
import pandas as pd
from scipy import stats

from circuitry.comparison.comparison import Comparison
from circuitry.runs.errors import InputError

ORDERS = ("varied", "setting", "rho", "rho_pairs", "least", "most", "n_domains")
"""Columns of `domain_order_stability`."""
DEFAULT = "default"
"""What is varied in the first row."""

Varied = tuple[str, str]
"""What is varied, and to which setting: ("baseline", "mean-position")."""


class OrderStability(NamedTuple):
    """How far the order of the domains holds, and the comparisons of circuits that were found with other settings."""

    table: pd.DataFrame
    """Of `domain_order_stability`, with n_classes."""
    default: Comparison
    """By the default settings, of the classes of ``extracted``."""
    extracted: dict[Varied, Comparison]
    """By other settings."""


def domain_order_stability(default: pd.DataFrame, variants: Mapping[Varied, pd.DataFrame]) -> pd.DataFrame:
    """Return how far the order of the domains under other settings is that of the default.

    Args:
        default: Symmetric similarities of domains, as from `Comparison.matrix`; the diagonal has no part in it.
        variants: The same of the same domains under other settings.

    Returns:
        Columns `ORDERS`, the default first: rho is Spearman's rank correlation with the default over the domains'
        means with the others, rho_pairs over the pairs of domains (NaN where all are alike); least and most are the
        domains with the smallest and the largest mean.

    Raises:
        InputError: for a variant of other domains.

    Example:
        >>> domain_order_stability(zero.matrix(), {("baseline", "mean-position"): mean.matrix()})
    """
    rows = []
    for (varied, setting), matrix in {(DEFAULT, ""): default, **variants}.items():
        if set(matrix.index) != set(default.index):
            raise InputError(
                f"Orders are compared of the same domains, but the default has {', '.join(sorted(default.index))} and "
                f"{varied} {setting} has {', '.join(sorted(matrix.index))}."
            )
        here = matrix.loc[default.index, default.index]
        means = with_others(here)
        rho, pairs = _spearman(with_others(default), means), _spearman(_pairs(default), _pairs(here))
        rows.append((varied, setting, rho, pairs, str(means.idxmin()), str(means.idxmax()), len(means)))
    return pd.DataFrame(rows, columns=list(ORDERS))


def with_others(matrix: pd.DataFrame) -> "pd.Series[float]":
    """Return each domain's mean over the other domains that it is known with."""
    return matrix.where(~np.eye(len(matrix), dtype=bool)).mean(axis=1)


def _pairs(matrix: pd.DataFrame) -> np.ndarray:
    return np.asarray(matrix.to_numpy(dtype=float)[np.triu_indices(len(matrix), 1)])


def _spearman(a: "pd.Series[float] | np.ndarray", b: "pd.Series[float] | np.ndarray") -> float:
    x, y = np.asarray(a, dtype=float), np.asarray(b, dtype=float)
    known = ~(np.isnan(x) | np.isnan(y))
    x, y = x[known], y[known]
    if len(x) < 2 or np.ptp(x) == 0 or np.ptp(y) == 0:
        return float("nan")
    return float(stats.spearmanr(x, y).statistic)
