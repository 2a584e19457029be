"""Budgets: how the size of a circuit is shared out over the sites. No torch.

| budget | units of a site |
|---|---|
| ``same-share`` | the same share at every site, the study's |
| ``global`` | as many of its units as are among the largest scores of all sites together |

A global budget compares scores of units at different sites. A learned mask has counts of its own. The image itself is
no node: at ``input`` every budget keeps the same share.
"""

import math
from collections.abc import Mapping
from typing import Annotated, Any

import numpy as np
from jaxtyping import Float, Int

from circuitry.encoder.sites import INPUT
from circuitry.runs.arguments import Share, fitting, one_of

SAME_SHARE = "same-share"
GLOBAL = "global"
BUDGETS = (SAME_SHARE, GLOBAL)
BudgetName = Annotated[str, one_of(*BUDGETS)]

RANKINGS = ("absolute", "signed")
"""Which units come first: ``absolute``: those with the largest |score| (MIB's choice for CMD); ``signed``: those whose
removal lowers the metric most (MIB's choice for CPR)."""


def strongest_units(
    scores: Mapping[str, Float[np.ndarray, " units"]],
    share: float,
    budget: BudgetName = SAME_SHARE,
) -> dict[str, Int[np.ndarray, " kept"]]:
    """Return the units with the largest absolute scores by site, largest first, the first among equals.

    Args:
        share: Share of all units to keep, in (0, 1]; rounded up, with ``same-share`` at every site.
        budget: How the share is shared out over the sites.

    Example:
        >>> scores = {"a": np.array([0.1, -3.0, 2.0]), "b": np.array([0.5])}
        >>> circuitry.circuits.strongest_units(scores, 0.5, "global")
        {'a': array([1, 2]), 'b': array([], dtype=int64)}
    """
    share = fitting(share, Share, "share")
    budget = fitting(budget, BudgetName, "budget")
    pooled = {site: of_site for site, of_site in scores.items() if site != INPUT}
    counts = _counts(pooled, share, budget) if pooled else {}
    strongest = {}
    for site, of_site in scores.items():
        # Stable, so that equal scores, such as zeros, give the same units on any machine.
        order = np.argsort(-np.abs(of_site), kind="stable")
        count = counts.get(site, _ceil(share, len(order)))
        strongest[site] = order[:count].astype(np.int64)
    return strongest


def describe_budget(settings: Mapping[str, Any]) -> str:
    """Return a sentence on which units a circuit keeps, and of how many they are a share."""
    share = settings.get("size")
    if share is None:
        return "Every site is counted except for the image."
    units = "of the units of every site"
    if settings.get("budget", SAME_SHARE) == GLOBAL:
        units = "of the units of all sites, cut once over all of them,"
    return f"A circuit keeps {share:.3g} {units} except for the image."


def _counts(
    scores: Mapping[str, np.ndarray], share: float, budget: str
) -> dict[str, int]:
    """Return the number of units by site."""
    n_units = {site: len(of_site) for site, of_site in scores.items()}
    if budget == SAME_SHARE:
        return {site: _ceil(share, n) for site, n in n_units.items()}
    # One ranking of all units; a site keeps as many as come first there.
    strengths = np.abs(np.concatenate(list(scores.values())))
    first = np.argsort(-strengths, kind="stable")[: _ceil(share, len(strengths))]
    site_of = np.repeat(np.arange(len(n_units)), list(n_units.values()))
    counts = np.bincount(site_of[first], minlength=len(n_units))
    return dict(zip(n_units, counts.tolist(), strict=True))


def _ceil(share: float, n: int) -> int:
    """Return the share of n, rounded up; 0.07 * 100 is 7.000000000000001."""
    return math.ceil(round(share * n, 9))
