"""Exact effects of patches: what `patch_effects` measures. No torch."""

from dataclasses import dataclass, field
from typing import Annotated, Any

import numpy as np
import pandas as pd

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
