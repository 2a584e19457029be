"""How well the scores of a site add up to the change of the metric when the whole site goes to its baseline.

Does not import torch.
"""

import math
from collections.abc import Mapping
from typing import NamedTuple

import numpy as np

ADDS_UP = 0.1
"""Largest gap, as a share of the metric's change, with which scores are said to add up."""
ROUGHLY = 0.5
"""Largest gap, as a share of the metric's change, with which scores are said to add up roughly."""


class Completeness(NamedTuple):
    """Compare the sum of a site's scores with the change of the metric that they should sum to.

    The change is the metric of the clean run, minus the metric with the whole site at its baseline. The `gap` between
    the sum and the change is the error of the quadrature rule. The last site is an exception if the baseline is zero:
    on the path from the embedding to zero the cosine is constant, and drops only at the very end. So the effects are
    zero, and the gap is the whole logit.

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
        """Sum of the effects minus the metric's change.

        The gap is the error of the quadrature rule. It goes to 0 as the number of points grows, except at the embedding
        with baseline zero.
        """
        return self.effect_sum - self.metric_difference

    @property
    def share(self) -> float:
        """The gap as a share of the metric's change; positive if the sum of the effects is too large.

        If the metric does not change, the share is 0 if the gap is 0, and infinite otherwise.
        """
        if not self.metric_difference:
            # The metric does not change, so effects with any other sum than 0 are wrong by any measure.
            return math.copysign(math.inf, self.gap) if self.gap else 0.0
        return self.gap / abs(self.metric_difference)

    @property
    def verdict(self) -> str:
        """Whether the scores add up: ``adds up``, ``roughly``, ``does not add up`` or ``unknown``.

        The verdict is ``adds up`` if the size of `share` is at most `ADDS_UP`, and ``roughly`` if it is at most
        `ROUGHLY`. It is ``unknown`` if the share is NaN.
        """
        size = abs(self.share)
        # The share is NaN if the sums were not measured.
        if math.isnan(size):
            return "unknown"
        if size <= ADDS_UP:
            return "adds up"
        if size <= ROUGHLY:
            return "roughly"
        return "does not add up"


def largest_gap(completeness: Mapping[str, Completeness]) -> list[str]:
    """Return a list with a phrase that describes the largest gap and its site, or an empty list if no gap is known."""
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
    """Return the sites with doubtful scores, each with the reason.

    Scores are doubtful if they do not add up, or if they are equal to the scores of the site before. The latter happens
    after a stage without parameters that treats each channel separately, such as a pooling. Sites without any effect
    are not doubtful.

    Args:
        scores: Scores [units] by site.
        completeness: Completeness by site; if a site has no entry, it is unknown whether its scores add up.
        inner: The sites to check, in the encoder's order.
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
    # One more stage changes scores by rounding errors, which are relative to the largest score.
    rounding = 1e-4 * float(np.abs(scores).max())
    return scores.shape == before.shape and np.allclose(
        before, scores, rtol=1e-3, atol=rounding
    )
