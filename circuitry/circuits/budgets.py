"""Budgets: how the size of a circuit is shared out over the sites.

| budget | units of a site |
|---|---|
| ``same-share`` | the same share of the units at every site, as in the study |
| ``global`` | the units that are among the strongest units of all sites together |

A global budget compares the scores of units at different sites. A learned mask needs no budget, because the learning
decides how many units each site keeps. Circuits have no nodes at the image itself. If the site ``input`` is scored all
the same, both budgets keep the same share of its units.

Does not import torch.
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
"""How units are ranked. ``absolute``: the units with the largest absolute scores come first. ``signed``: the units
whose removal lowers the metric most come first. The benchmark MIB uses the former for its measure CMD, and the latter
for its measure CPR."""


def strongest_units(
    scores: Mapping[str, Float[np.ndarray, " units"]],
    share: float,
    budget: BudgetName = SAME_SHARE,
) -> dict[str, Int[np.ndarray, " kept"]]:
    """Return, by site, the indices of the units with the largest absolute scores, the largest first.

    Of units with equal scores, the first ones are chosen.

    Args:
        scores: Scores [units] by site.
        share: Share of the units to keep, in (0, 1]. The number of units is rounded up: at every site with
            ``same-share``, in total with ``global``.
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
        # A stable sort, so that equal scores, such as zeros, give the same units on any machine.
        order = np.argsort(-np.abs(of_site), kind="stable")
        count = counts.get(site, _ceil(share, len(order)))
        strongest[site] = order[:count].astype(np.int64)
    return strongest


def describe_budget(settings: Mapping[str, Any]) -> str:
    """Return a sentence for reports that says which share of the units a circuit keeps.

    Args:
        settings: The settings of a graph.
    """
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
    """Return the number of units to keep, by site."""
    n_units = {site: len(of_site) for site, of_site in scores.items()}
    if budget == SAME_SHARE:
        return {site: _ceil(share, n) for site, n in n_units.items()}
    # All units are in one ranking. A site keeps the number of its units that are among the first of this ranking.
    strengths = np.abs(np.concatenate(list(scores.values())))
    first = np.argsort(-strengths, kind="stable")[: _ceil(share, len(strengths))]
    site_of = np.repeat(np.arange(len(n_units)), list(n_units.values()))
    counts = np.bincount(site_of[first], minlength=len(n_units))
    return dict(zip(n_units, counts.tolist(), strict=True))


def _ceil(share: float, n: int) -> int:
    """Return ``share * n``, rounded up.

    Errors of floating point are removed first: 0.07 * 100 is 7.000000000000001 in floating point, but the result is 7.
    """
    return math.ceil(round(share * n, 9))
