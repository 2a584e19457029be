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
from circuitry.runs.given import Share, fitting, one_of

SAME_SHARE, GLOBAL = "same-share", "global"
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
        >>> strongest_units(graph.node_scores, 0.1, "global")
    """
    share, budget = (
        fitting(share, Share, "share"),
        fitting(budget, BudgetName, "budget"),
    )
    orders = {
        site: np.argsort(-np.abs(of_site), kind="stable")
        for site, of_site in scores.items()
    }
    pooled = {site: of_site for site, of_site in scores.items() if site != INPUT}
    counts = _counts(pooled, share, budget) if pooled else {}
    sizes = {
        site: counts.get(site, _ceil(share, len(order)))
        for site, order in orders.items()
    }
    return {
        site: order[: sizes[site]].astype(np.int64) for site, order in orders.items()
    }


def describe_budget(settings: Mapping[str, Any]) -> str:
    """Return a sentence on which units a circuit keeps, and of how many they are a share."""
    if (share := settings.get("size")) is None:
        return "Every site is counted except for the image."
    of = {
        SAME_SHARE: "of the units of every site",
        GLOBAL: "of the units of all sites, cut once over all of them,",
    }
    return f"A circuit keeps {share:.3g} {of[settings.get('budget', SAME_SHARE)]} except for the image."


def _counts(
    scores: Mapping[str, np.ndarray], share: float, budget: str
) -> dict[str, int]:
    """Return the number of units by site."""
    n_units = {site: len(of_site) for site, of_site in scores.items()}
    if budget == SAME_SHARE:
        return {site: _ceil(share, n) for site, n in n_units.items()}
    k = _ceil(share, sum(n_units.values()))
    ranked = np.argsort(-np.abs(np.concatenate(list(scores.values()))), kind="stable")[
        :k
    ]
    site_of = np.repeat(np.arange(len(n_units)), list(n_units.values()))
    return dict(
        zip(
            n_units,
            np.bincount(site_of[ranked], minlength=len(n_units)).tolist(),
            strict=True,
        )
    )


def _ceil(share: float, n: int) -> int:
    """Return the share of n, rounded up; 0.07 * 100 is 7.000000000000001."""
    return math.ceil(round(share * n, 9))
