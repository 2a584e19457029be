"""Effects of single units, sites and positions, measured and predicted: results of patching. No torch."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Annotated, Any

import numpy as np
import pandas as pd
from scipy import stats

from circuitry.encoder.sites import INPUT
from circuitry.runs.given import DISTINCT, Count, checked, one_of

PATCHED_BY = ("unit", "site", "position")
DIRECTIONS = ("noise", "denoise")


@checked
@dataclass(frozen=True, eq=False, repr=False)
class PatchEffects:
    """Exact effects on the metric of moving one thing from its clean activation to the baseline.

    Positive means that the thing helps the metric, as for `AttributionGraph.node_scores`.
    """

    sites: Annotated[tuple[str, ...], DISTINCT]
    """Sites in order."""
    scores: dict[str, np.ndarray]
    """Mean effect over images by site: [units], [] for all units of a site, or [height, width] or [tokens] for
    positions. NaN for units that were not asked for."""
    by: Annotated[str, one_of(*PATCHED_BY)]
    """What moves."""
    direction: Annotated[str, one_of(*DIRECTIONS)]
    """``noise``: the clean run with the baseline written in; ``denoise``: the baseline's run with the clean
    activation written back, effect = metric(written back) - metric(baseline)."""
    clean_metric: float
    """Mean metric of the clean images."""
    baseline_metric: dict[str, float]
    """Mean metric by site of what the effects are read against: ``noise``: the clean run with all units of the site at
    the baseline; ``denoise``: the baseline's run, which the clean activation is written into."""
    n_images: Count  #: Images that effects are means over.
    settings: dict[str, Any] = field(default_factory=dict)
    """Settings of the computation: the task's, with its baseline."""

    def __repr__(self) -> str:
        what = f"PatchEffects by {self.by} ({self.direction}): {len(self.sites)} sites"
        return f"{what}, {self.n_images} images, mean metric {self.clean_metric:.3g}"

    def to_pandas(self) -> pd.DataFrame:
        """Return the effects as a tidy table: site, index (unit or position, row by row), value."""
        parts = [
            pd.DataFrame(
                {
                    "site": site,
                    "index": np.arange(scores.size),
                    "value": scores.reshape(-1),
                }
            )
            for site, scores in self.scores.items()
        ]
        return pd.concat(parts, ignore_index=True).dropna(
            subset="value", ignore_index=True
        )


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
