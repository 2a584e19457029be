"""An attribution graph as tables: its units, and its sites. No torch."""

import math
from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd

from circuitry.circuits.completeness import Completeness

_BY_SITE = [
    "site",
    "units",
    "kept",
    "effect_sum",
    "metric_difference",
    "gap",
    "gap_share",
    "verdict",
]
# Of a site whose sums no method measured: the table says NaN and "unknown".
_UNKNOWN = Completeness(math.nan, math.nan)


def nodes_table(
    node_scores: Mapping[str, np.ndarray], kept_units: Mapping[str, np.ndarray]
) -> pd.DataFrame:
    """Return site, unit, score, kept, a row per unit."""
    tables = []
    for site, scores in node_scores.items():
        units = np.arange(len(scores))
        kept = np.isin(units, kept_units.get(site, ()))
        tables.append(
            pd.DataFrame({"site": site, "unit": units, "score": scores, "kept": kept})
        )
    return pd.concat(tables, ignore_index=True)


def sites_table(
    sites: Sequence[str],
    node_scores: Mapping[str, np.ndarray],
    kept_units: Mapping[str, np.ndarray],
    completeness: Mapping[str, Completeness],
) -> pd.DataFrame:
    """Return how many units each site has and keeps, and whether its scores add up to the metric's change."""
    rows = []
    for site in sites:
        sums = completeness.get(site, _UNKNOWN)
        n_units = len(node_scores[site])
        n_kept = len(kept_units.get(site, ()))
        rows.append((site, n_units, n_kept, *sums, sums.gap, sums.share, sums.verdict))
    return pd.DataFrame(rows, columns=_BY_SITE)
