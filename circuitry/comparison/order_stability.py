"""Does the order of the domains depend on the settings of the circuits? Rank correlations with the default.

Domains are ordered by their mean similarity with the other domains, over classes and sites. The order under another
setting is compared with the default's, over the domains and over the pairs of domains.
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
"""The name of the first row."""

Varied = tuple[str, str]
"""A setting and its other value: ("baseline", "mean-position")."""


class OrderStability(NamedTuple):
    """Stability of the order of the domains, and the comparisons of circuits with other settings."""

    table: pd.DataFrame
    """The table of `domain_order_stability`, with n_classes."""
    default: Comparison
    """With the default settings, on the classes of ``extracted``."""
    extracted: dict[Varied, Comparison]
    """With other settings."""


def domain_order_stability(default: pd.DataFrame, variants: Mapping[Varied, pd.DataFrame]) -> pd.DataFrame:
    """Return the rank correlations of the order of the domains under other settings with the default order.

    Args:
        default: Symmetric similarities of domains, as from `Comparison.matrix`; the diagonal does not count.
        variants: Similarities of the same domains under other settings.

    Returns:
        Columns `ORDERS`, the default first: rho is Spearman's rank correlation with the default over the domains'
        means with the others, rho_pairs over the pairs of domains (NaN if all are equal); least and most are the
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
                f"Compared orders need the same domains, but the default has {', '.join(sorted(default.index))} and "
                f"{varied} {setting} has {', '.join(sorted(matrix.index))}: leave the others out."
            )
        here = matrix.loc[default.index, default.index]
        means = mean_with_others(here)
        rho, pairs = _spearman(mean_with_others(default), means), _spearman(_pairs(default), _pairs(here))
        known = means.dropna()  # none where no circuit of the variant has what is measured
        least, most = (str(known.idxmin()), str(known.idxmax())) if len(known) else (None, None)
        rows.append((varied, setting, rho, pairs, least, most, len(means)))
    return pd.DataFrame(rows, columns=list(ORDERS))


def mean_with_others(matrix: pd.DataFrame) -> "pd.Series[float]":
    """Return each domain's mean over the other domains with a known value."""
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
