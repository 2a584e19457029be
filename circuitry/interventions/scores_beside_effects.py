"""Attributed scores of units beside exact effects, and the agreement of maps of pixels. No torch."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from scipy import stats

from circuitry.encoder.sites import INPUT

STRONGEST_SHARE = 0.2
"""Share of the units of all sites that `AttributionCheck.across_sites` counts site by site."""


@dataclass(frozen=True, eq=False, repr=False)
class AttributionCheck:
    """Attributed scores beside exact effects.

    Example:
        >>> task = circuitry.Task(encoder, images, metric, baseline="mean-position", others=others)
        >>> check = check_attribution(task, graph, top=3, random=3)
        >>> check
        AttributionCheck: ... units at ... sites
        >>> table = check.across_sites()
    """

    points: pd.DataFrame
    """Columns site, unit, top, random (whether the unit is in that sample), attributed, exact."""

    def __repr__(self) -> str:
        return f"AttributionCheck: {len(self.points)} units at {self.points['site'].nunique()} sites"

    def to_pandas(self) -> pd.DataFrame:
        """Return the correlations: columns site, sample (``top``, ``random``), n_units, pearson, spearman.

        NaN for fewer than three units, or where the attributed or the exact effects are all the same.
        """
        rows = list[tuple[Any, ...]]()
        for site, of_site in self.points.groupby("site", sort=False):
            for sample in ("top", "random"):
                chosen = of_site[of_site[sample]]
                rows.append((site, sample, len(chosen), *_correlations(chosen)))
        columns = ["site", "sample", "n_units", "pearson", "spearman"]
        return pd.DataFrame(rows, columns=columns)

    def across_sites(self) -> pd.DataFrame:
        """Return whether scores of different sites can be compared, as a global budget does; in the random sample.

        Returns:
            Columns site, n_units, exact_per_score (sum of the absolute exact effects over that of the scores: alike at
            all sites where scores can be compared), strongest_by_score and strongest_by_exact (its units among the
            strongest `STRONGEST_SHARE` of all sites, by either). The image, which is no node, is left out.
        """
        # The top units are chosen by their scores, so their effects would make every site look alike.
        points = self.points[self.points["random"] & (self.points["site"] != INPUT)]
        sizes = pd.DataFrame(
            {
                "site": points["site"],
                "score": points["attributed"].abs(),
                "exact": points["exact"].abs(),
            }
        )
        n_strongest = math.ceil(STRONGEST_SHARE * len(sizes))
        by_site = sizes.groupby("site", sort=False)
        sums = by_site[["score", "exact"]].sum()
        table = pd.DataFrame(
            {
                "n_units": by_site.size(),
                "exact_per_score": sums["exact"] / sums["score"],
            }
        )
        for by in ("score", "exact"):
            among = sizes.nlargest(n_strongest, by)["site"].value_counts()
            table[f"strongest_by_{by}"] = among.reindex(table.index, fill_value=0)
        return table.reset_index()


def map_agreement(maps: Mapping[str, np.ndarray]) -> dict[str, float]:
    """Return the correlation of each map with the first, over all pixels; NaN of a map that is the same everywhere."""
    (_, first), *others = maps.items()
    agreement = dict[str, float]()
    for name, pixels in others:
        agreement[name] = float("nan")
        # numpy warns of a correlation with a constant, and would return NaN as well.
        if np.ptp(pixels) > 0 and np.ptp(first) > 0:
            correlation = np.corrcoef(first.ravel(), pixels.ravel())
            agreement[name] = float(correlation[0, 1])
    return agreement


def _correlations(points: pd.DataFrame) -> tuple[float, float]:
    """Return Pearson's and Spearman's correlation of attributed and exact effects."""
    attributed = points["attributed"].to_numpy(dtype=float)
    exact = points["exact"].to_numpy(dtype=float)
    # Two points lie on a line always, and a constant has no correlation.
    if len(points) < 3 or np.ptp(attributed) == 0 or np.ptp(exact) == 0:
        return float("nan"), float("nan")
    pearson = stats.pearsonr(attributed, exact).statistic
    spearman = stats.spearmanr(attributed, exact).statistic
    return float(pearson), float(spearman)
