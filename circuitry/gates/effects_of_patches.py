"""Exact effects of replacing activations: the result of `patch_effects`. Does not import torch."""

from dataclasses import dataclass, field
from typing import Annotated, Any

import numpy as np
import pandas as pd

from circuitry.runs.arguments import DISTINCT, Count, checked, one_of
from circuitry.runs.errors import number_of
from circuitry.runs.notebooks import Shown

PATCHED_BY = ("unit", "site", "position")
DIRECTIONS = ("noise", "denoise")


@checked
@dataclass(frozen=True, eq=False, repr=False)
class PatchEffects(Shown):
    """How much the metric changes, exactly, when the activation of a unit, a site or a position is replaced.

    With the direction ``noise``, a clean activation is replaced by the baseline, and the effect is the fall of the
    metric. With ``denoise``, the baseline is replaced by the clean activation, and the effect is the rise of the
    metric. So in both directions the effect is positive if the unit, site or position helps the metric, as in
    `AttributionGraph.node_scores`.

    Example:
        >>> exact = circuitry.patch_effects(task, units={"layer4.0": [0, 5]})
        >>> exact.to_pandas()["index"].tolist()
        [0, 5]
    """

    sites: Annotated[tuple[str, ...], DISTINCT]
    """Sites in order."""
    scores: dict[str, np.ndarray]
    """Mean effects over images, by site.

    The shape is [units] for effects of units, [] for the effect of a whole site, and [height, width] or [tokens] for
    effects of positions. Units that were not chosen have NaN.
    """
    by: Annotated[str, one_of(*PATCHED_BY)]
    """What is patched at a time: a ``unit``, a ``site`` or a ``position``."""
    direction: Annotated[str, one_of(*DIRECTIONS)]
    """Which activations are written into which run.

    ``noise``: the baseline is written into the clean run, and effect = metric(clean) - metric(patched).
    ``denoise``: the clean activation is written into the run of the baseline, and
    effect = metric(patched) - metric(baseline).
    """
    clean_metric: float
    """Mean metric of the clean images."""
    baseline_metric: dict[str, float]
    """Mean metric at the baseline, by site.

    ``noise``: the mean metric of the clean run with all units of the site at the baseline. ``denoise``: the mean metric
    of the run of the baseline, before the clean activation is written into it.
    """
    n_images: Count  #: Number of images that effects are means over.
    settings: dict[str, Any] = field(default_factory=dict)
    """Identity of the task on whose images effects were measured, including its baseline."""

    def __repr__(self) -> str:
        return (
            f"PatchEffects by {self.by} ({self.direction}): {len(self.sites)} sites, "
            f"{number_of(self.n_images, 'image')}, mean metric {self.clean_metric:.3g}"
        )

    def matrix(self) -> pd.DataFrame:
        """Return the effects with a row for each site in order, and a column for each unit or position.

        A site with fewer units or positions than another one has NaN there.
        """
        table = self.to_pandas()
        cells = table.pivot(index="site", columns="index", values="value")
        # A pivot sorts sites by name.
        cells = cells.loc[table["site"].unique()]
        return cells.rename(columns=f"{self.by} {{}}".format).rename_axis(columns=None)

    def shown_table(self) -> pd.DataFrame:
        """Return the `matrix`."""
        return self.matrix()

    def to_pandas(self) -> pd.DataFrame:
        """Return a table with a row for each effect.

        The columns are site, index and value. The index is the index of the unit, or of the position (row by row in a
        feature map). It is 0 for the effect of a whole site. Units that were not chosen have no row.
        """
        tables = list[pd.DataFrame]()
        for site, scores in self.scores.items():
            values = scores.reshape(-1)
            index = np.arange(len(values))
            tables.append(pd.DataFrame({"site": site, "index": index, "value": values}))
        table = pd.concat(tables, ignore_index=True)
        # Units that were not chosen have NaN, and get no row.
        return table.dropna(subset="value", ignore_index=True)
