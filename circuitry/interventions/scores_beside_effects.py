"""Effects of single units, sites and positions, measured and predicted: results of patching. No torch."""

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import pandas as pd
from scipy import stats

from circuitry.encoder.sites import INPUT

STRONGEST_SHARE = 0.2
"""Share of the units of all sites that `AttributionCheck.across_sites` counts site by site."""


@dataclass(frozen=True, eq=False, repr=False)
class AttributionCheck:
    """Attributed scores beside exact effects."""

    points: pd.DataFrame
    """Columns site, unit, top, random (whether the unit is in that sample), attributed, exact."""

    def __repr__(self) -> str:
        return f"AttributionCheck: {len(self.points)} units at {self.points['site'].nunique()} sites"

    def to_pandas(self) -> pd.DataFrame:
        """Return the correlations: columns site, sample (``top``, ``random``), n_units, pearson, spearman.

        NaN for fewer than three units, or where the attributed or the exact effects are all the same.
        """
        rows = []
        for site, part in self.points.groupby("site", sort=False):
            for sample in ("top", "random"):
                chosen = part[part[sample]]
                rows.append((site, sample, len(chosen), *_correlations(chosen)))
        return pd.DataFrame(
            rows, columns=["site", "sample", "n_units", "pearson", "spearman"]
        )

    def across_sites(self) -> pd.DataFrame:
        """Return whether scores of different sites can be compared, as a global budget does; in the random sample.

        Returns:
            Columns site, n_units, exact_per_score (sum of the absolute exact effects over that of the scores: alike at
            all sites where scores can be compared), strongest_by_score and strongest_by_exact (its units among the
            strongest `STRONGEST_SHARE` of all sites, by either). The image, which is no node, is left out.
        """
        points = self.points[self.points["random"] & (self.points["site"] != INPUT)]
        sizes = (
            points[["attributed", "exact"]]
            .abs()
            .set_axis(["score", "exact"], axis=1)
            .assign(site=points["site"])
        )
        n = math.ceil(STRONGEST_SHARE * len(sizes))
        by_site = sizes.groupby("site", sort=False)
        sums = by_site[["score", "exact"]].sum()
        found = pd.DataFrame(
            {
                "n_units": by_site.size(),
                "exact_per_score": sums["exact"] / sums["score"],
            }
        )
        for by in ("score", "exact"):
            among = sizes.nlargest(n, by)["site"].value_counts()
            found[f"strongest_by_{by}"] = among.reindex(found.index, fill_value=0)
        return found.reset_index()


def map_agreement(maps: Mapping[str, np.ndarray]) -> dict[str, float]:
    """Return the correlation of each map with the first, over all pixels; NaN of a map that is the same everywhere."""
    (_, whole), *others = maps.items()
    varied = {name: np.ptp(one) > 0 and np.ptp(whole) > 0 for name, one in others}
    return {
        n: float(np.corrcoef(whole.ravel(), one.ravel())[0, 1]) if varied[n] else np.nan
        for n, one in others
    }


def _correlations(points: pd.DataFrame) -> tuple[float, float]:
    x, y = (
        points["attributed"].to_numpy(dtype=float),
        points["exact"].to_numpy(dtype=float),
    )
    if len(x) < 3 or np.ptp(x) == 0 or np.ptp(y) == 0:
        return float("nan"), float("nan")
    return float(stats.pearsonr(x, y).statistic), float(stats.spearmanr(x, y).statistic)
