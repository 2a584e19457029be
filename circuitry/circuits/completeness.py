"""How well the scores of a site add up to the metric's change. No torch."""

import math
from collections.abc import Mapping
from typing import NamedTuple

import numpy as np

ADDS_UP = 0.1
"""Largest gap of scores that add up, as a share of the metric's change."""
ROUGHLY = 0.5
"""Largest gap of scores that add up roughly."""


class Completeness(NamedTuple):
    """Compare the sum of a site's scores with the change of the metric that they share out.

    At the embedding itself the cosine is constant on the path to zero and drops only at its very end, so with
    baseline zero the gap of the last site is the whole logit.

    Example:
        >>> sums = circuitry.circuits.Completeness(effect_sum=0.9, metric_difference=1.0)
        >>> round(sums.gap, 6), sums.verdict
        (-0.1, 'adds up')
    """

    effect_sum: float
    """Sum of the effects of all units."""
    metric_difference: float
    """Mean clean metric minus the mean metric with the whole site at the baseline."""

    @property
    def gap(self) -> float:
        """Error of the quadrature: it goes to 0 with many points, except at the embedding with a zero baseline."""
        return self.effect_sum - self.metric_difference

    @property
    def share(self) -> float:
        """The gap as a share of the metric's change, positive where the effects are too large; infinite of none."""
        if not self.metric_difference:
            # Nothing changed: right if the scores say so, else wrong by any measure.
            return math.copysign(math.inf, self.gap) if self.gap else 0.0
        return self.gap / abs(self.metric_difference)

    @property
    def verdict(self) -> str:
        """Whether the scores can be trusted: ``adds up``, ``roughly`` or ``does not add up``; see `ADDS_UP`."""
        size = abs(self.share)
        # NaN: of scores whose sums nobody measured.
        if math.isnan(size):
            return "unknown"
        if size <= ADDS_UP:
            return "adds up"
        if size <= ROUGHLY:
            return "roughly"
        return "does not add up"


def largest_gap(completeness: Mapping[str, Completeness]) -> list[str]:
    """Return the site with the largest gap in a few words, or nothing where no gap is known."""
    if not completeness:
        return []
    site = max(completeness, key=lambda name: abs(completeness[name].share))
    sums = completeness[site]
    return [
        f"largest completeness gap {sums.share:.0%} of the metric's change at {site}: {sums.verdict}"
    ]


def find_doubtful(
    scores: Mapping[str, np.ndarray],
    completeness: Mapping[str, Completeness],
    inner: tuple[str, ...],
) -> dict[str, str]:
    """Return, by site, why its scores are doubtful: they do not add up, or they equal the scores of the site before.

    A stage without parameters that treats each channel separately, such as a pooling, passes on the scores of the site
    before. Sites without any effect are not doubtful.
    """
    reasons = {}
    before = None
    for site in inner:
        own = scores[site]
        sums = completeness.get(site)
        if own.any():
            if before is not None and _repeats(own, scores[before]):
                reasons[site] = f"repeats {before}"
            elif sums is not None and sums.verdict == "does not add up":
                reasons[site] = (
                    f"scores miss the metric's change by {abs(sums.share):.0%}"
                )
        before = site
    return reasons


def _repeats(scores: np.ndarray, before: np.ndarray) -> bool:
    # Passes through one more stage differ by rounding, relative to the largest score.
    rounding = 1e-4 * float(np.abs(scores).max())
    return scores.shape == before.shape and np.allclose(
        before, scores, rtol=1e-3, atol=rounding
    )
