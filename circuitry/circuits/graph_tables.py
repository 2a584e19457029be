"""Tables of the units and of the sites of an attribution graph. Does not import torch."""

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
# For a site whose completeness is unknown, the table has NaN and the verdict "unknown".
_UNKNOWN = Completeness(math.nan, math.nan)


def nodes_table(
    node_scores: Mapping[str, np.ndarray], kept_units: Mapping[str, np.ndarray]
) -> pd.DataFrame:
    """Return a table with one row per unit and the columns site, unit, score and kept."""
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
    """Return a table with one row per site: its numbers of units and of kept units, and its completeness.

    The columns are described at `AttributionGraph.to_pandas`.
    """
    rows = []
    for site in sites:
        sums = completeness.get(site, _UNKNOWN)
        n_units = len(node_scores[site])
        n_kept = len(kept_units.get(site, ()))
        rows.append((site, n_units, n_kept, *sums, sums.gap, sums.share, sums.verdict))
    return pd.DataFrame(rows, columns=_BY_SITE)
