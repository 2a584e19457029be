"""Exact effects of patches: what `patch_effects` measures. No torch."""

from dataclasses import dataclass, field
from typing import Annotated, Any

import numpy as np
import pandas as pd

from circuitry.runs.arguments import DISTINCT, Count, checked, one_of

PATCHED_BY = ("unit", "site", "position")
DIRECTIONS = ("noise", "denoise")


@checked
@dataclass(frozen=True, eq=False, repr=False)
class PatchEffects:
    """Exact effects on the metric of moving one thing from its clean activation to the baseline.

    Positive means that the thing helps the metric, as for `AttributionGraph.node_scores`.

    Example:
        >>> exact = circuitry.patch_effects(task, units={"layer4.0": [0, 5]})
        >>> exact.to_pandas()["index"].tolist()
        [0, 5]
    """

    sites: Annotated[tuple[str, ...], DISTINCT]
    """Sites in order."""
    scores: dict[str, np.ndarray]
    """Mean effect over images by site: [units], [] for all units of a site, or [height, width] or [tokens] for
    positions. NaN for units that were not asked for."""
    by: Annotated[str, one_of(*PATCHED_BY)]
    """The thing that moves: ``unit``, ``site`` or ``position``."""
    direction: Annotated[str, one_of(*DIRECTIONS)]
    """``noise``: the clean run with the baseline written in; ``denoise``: the baseline's run with the clean
    activation written back, effect = metric(written back) - metric(baseline)."""
    clean_metric: float
    """Mean metric of the clean images."""
    baseline_metric: dict[str, float]
    """Mean metric, by site, of the run that effects are read against. ``noise``: the clean run with all units of the
    site at the baseline. ``denoise``: the baseline's run, which the clean activation is written into."""
    n_images: Count  #: Images that effects are means over.
    settings: dict[str, Any] = field(default_factory=dict)
    """Settings of the computation: the task's, with its baseline."""

    def __repr__(self) -> str:
        return (
            f"PatchEffects by {self.by} ({self.direction}): {len(self.sites)} sites, "
            f"{self.n_images} images, mean metric {self.clean_metric:.3g}"
        )

    def to_pandas(self) -> pd.DataFrame:
        """Return the effects as a tidy table: site, index (unit or position, row by row), value."""
        tables = list[pd.DataFrame]()
        for site, scores in self.scores.items():
            values = scores.reshape(-1)
            index = np.arange(len(values))
            tables.append(pd.DataFrame({"site": site, "index": index, "value": values}))
        table = pd.concat(tables, ignore_index=True)
        # Units that were not asked for are NaN, and get no row.
        return table.dropna(subset="value", ignore_index=True)
