"""Attributed scores of units next to their exact effects.

The exact effect of a unit is measured by a run in which the unit is replaced (`patch_effects`). Does not import torch.
"""

import math
from dataclasses import dataclass
from typing import Any

import pandas as pd

from circuitry.encoder.sites import INPUT
from circuitry.runs.notebooks import Shown

STRONGEST_SHARE = 0.2
"""The share of the units of all sites that `AttributionCheck.across_sites` takes as the strongest ones."""


@dataclass(frozen=True, eq=False, repr=False)
class AttributionCheck(Shown):
    """Attributed scores of units next to their exact effects, which are measured by replacing each unit.

    Example:
        >>> task = circuitry.Task(encoder, images, metric, baseline="mean-position", others=others)
        >>> check = check_attribution(task, graph, top=3, random=3)
        >>> check
        AttributionCheck: ... units at ... sites
        >>> table = check.across_sites()
    """

    points: pd.DataFrame
    """A table with a row for each unit. Its columns are site, unit, top and random (whether the unit is in this
    sample), attributed (the score) and exact (the effect)."""

    def __repr__(self) -> str:
        return f"AttributionCheck: {len(self.points)} units at {self.points['site'].nunique()} sites"

    def to_pandas(self) -> pd.DataFrame:
        """Return the correlations of attributed scores and exact effects, at each site and for each sample.

        Returns:
            A table with the columns site, sample (``top``, ``random``), n_units, pearson and spearman. A correlation is
            NaN if there are fewer than three units, or if all scores or all effects are the same.
        """
        rows = list[dict[str, Any]]()
        for site, of_site in self.points.groupby("site", sort=False):
            for sample in ("top", "random"):
                chosen = of_site.loc[of_site[sample], ["attributed", "exact"]]
                row: dict[str, Any] = {"site": site, "sample": sample}
                row["n_units"] = len(chosen)
                for method in ("pearson", "spearman"):
                    # Two points always lie on a line.
                    table = chosen.astype(float).corr(method, min_periods=3)
                    row[method] = table.loc["attributed", "exact"]
                rows.append(row)
        return pd.DataFrame(rows)

    def across_sites(self) -> pd.DataFrame:
        """Return a table which shows whether scores of units can be compared between sites.

        A global budget compares scores of all sites. It is justified only if the ratio of exact effect to score is
        similar at all sites. The table is computed from the units of the random sample.

        Returns:
            A table with the columns:

            - site, n_units.
            - exact_per_score: the sum of absolute exact effects divided by the sum of absolute scores.
            - strongest_by_score: how many units of the site are among the share `STRONGEST_SHARE` of units of all sites
              with the largest absolute scores.
            - strongest_by_exact: how many units of the site are among the share `STRONGEST_SHARE` of units of all sites
              with the largest absolute exact effects.

            The image itself is left out, because it has no nodes.
        """
        # The top units of a site are chosen by their scores, so with them all sites would look alike.
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
