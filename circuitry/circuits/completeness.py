"""How well the scores of a site add up to the metric's change. No torch."""

import math
from collections.abc import Mapping
from itertools import pairwise
from typing import NamedTuple

import numpy as np

ADDS_UP, ROUGHLY = 0.1, 0.5
"""Largest gaps, as shares of the metric's change, of scores that add up, and that do so roughly."""


class Completeness(NamedTuple):
    """How well a site's scores add up.

    At the embedding itself the cosine is constant on the path to zero and drops only at its very end, so with
    baseline zero the gap of the last site is the whole logit.
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
            return math.copysign(math.inf, self.gap) if self.gap else 0.0
        return self.gap / abs(self.metric_difference)

    @property
    def verdict(self) -> str:
        """Whether the scores can be trusted: ``adds up``, ``roughly`` or ``does not add up``; see `ADDS_UP`."""
        if math.isnan(self.share):
            return "unknown"
        size = abs(self.share)
        return (
            "adds up"
            if size <= ADDS_UP
            else "roughly"
            if size <= ROUGHLY
            else "does not add up"
        )


def largest_gap(completeness: Mapping[str, Completeness]) -> list[str]:
    """Return the site with the largest gap in a few words, or nothing where no gap is known."""
    if not completeness:
        return []
    site, of = max(completeness.items(), key=lambda item: abs(item[1].share))
    return [
        f"largest completeness gap {of.share:.0%} of the metric's change at {site}: {of.verdict}"
    ]


def find_doubtful(
    scores: Mapping[str, np.ndarray],
    completeness: Mapping[str, Completeness],
    inner: tuple[str, ...],
) -> dict[str, str]:
    """Return the sites whose scores do not add up, or equal those of the site before, with the reason in words.

    A stage without parameters that treats each channel separately, such as a pooling, passes on the scores of the site
    before. Sites without any effect are none of these.
    """
    found = {
        site: f"scores miss the metric's change by {abs(of.share):.0%}"
        for site in inner
        if (of := completeness.get(site)) is not None
        and of.verdict == "does not add up"
        and scores[site].any()
    }
    for before, site in pairwise(inner):
        a, b = scores[before], scores[site]
        if (
            a.shape == b.shape
            and b.any()
            and np.allclose(a, b, rtol=1e-3, atol=1e-4 * float(np.abs(b).max()))
        ):
            found[site] = f"repeats {before}"
    return {site: found[site] for site in inner if site in found}
