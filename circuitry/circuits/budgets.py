"""Budgets: how the size of a circuit is shared out over the sites. No torch.

| budget | units of a site |
|---|---|
| ``same-share`` | the same share at every site, the study's |
| ``global`` | as many of its units as are among the largest scores of all sites together |
| ``learned`` | as many as a learned mask of this size keeps; `find_circuit` learns the mask |
| a table | the share of each site in the table times one factor, at most all of its units |

A global budget compares scores of units at different sites. With a table, one method keeps as many units of each site
as another method, such as a learned mask. The image itself is no node: at ``input`` every budget keeps the same share.
"""

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
from jaxtyping import Float, Int

from circuitry.encoder.sites import INPUT
from circuitry.runs.errors import InputError

SAME_SHARE, GLOBAL, LEARNED = "same-share", "global", "learned"
BUDGETS = (SAME_SHARE, GLOBAL)
"""Names of budgets that depend on the scores alone."""

RANKINGS = ("absolute", "signed")
"""Which units come first: ``absolute``: those with the largest |score| (MIB's choice for CMD); ``signed``: those whose
removal lowers the metric most (MIB's choice for CPR)."""

Budget = str | Mapping[str, float]
"""A name, or a table: the share of the units of each site, relative to the others."""


def strongest_units(
    scores: Mapping[str, Float[np.ndarray, " units"]], share: float, budget: Budget = SAME_SHARE
) -> dict[str, Int[np.ndarray, " kept"]]:
    """Return the units with the largest absolute scores by site, largest first, the first among equals.

    Args:
        scores: Scores of the units by site.
        share: Share of all units to keep, in (0, 1]; rounded up, with ``same-share`` at every site.
        budget: How the share is shared out over the sites.

    Raises:
        InputError: for a share outside (0, 1], another budget, and a table without one of the sites, with shares
            outside [0, 1], or with too few shares above 0 for the size.

    Example:
        >>> strongest_units(graph.node_scores, 0.1, "global")
        >>> strongest_units(graph.node_scores, 0.4, {"layer3.0": 0.9, "layer4.0": 0.3})
    """
    if not 0 < share <= 1:
        raise InputError(f"The share of units to keep lies in (0, 1], but {share} was given.")
    orders = {site: np.argsort(-np.abs(of_site), kind="stable") for site, of_site in scores.items()}
    pooled = {site: of_site for site, of_site in scores.items() if site != INPUT}
    counts = _counts(pooled, share, budget) if pooled else {}
    sizes = {site: counts.get(site, _ceil(share, len(order))) for site, order in orders.items()}
    return {site: order[: sizes[site]].astype(np.int64) for site, order in orders.items()}


def shares_of(kept: Mapping[str, np.ndarray], n_units: Mapping[str, int]) -> dict[str, float]:
    """Return the share of each site's units that a circuit keeps, as a table for another circuit's budget."""
    return {site: len(units) / n_units[site] for site, units in kept.items()}


def check_budget(budget: Budget) -> None:
    """Check that a budget is a known name, or a table of shares."""
    if isinstance(budget, Mapping):
        if wrong := {site: share for site, share in budget.items() if not 0 <= share <= 1}:
            site, share = next(iter(wrong.items()))
            raise InputError(f"A budget has shares of the units in [0, 1], but {share} was given for {site}.")
    elif budget not in BUDGETS:
        learned = ": find_circuit learns its masks; elsewhere give shares_of(a mask, its sites)"
        raise InputError(
            f"A budget is one of {', '.join(BUDGETS)}, or a table such as {{'layer3.0': 0.5}}, but {budget!r} was "
            f"given{learned if budget == LEARNED else ''}."
        )


def describe_budget(settings: Mapping[str, Any]) -> str:
    """Return a sentence on which units a circuit keeps, and of how many they are a share.

    Args:
        settings: ``AttributionGraph.settings``, or the configuration in the manifest of a run.
    """
    share, budget = settings.get("node_fraction"), settings.get("budget", SAME_SHARE)
    if share is None:
        return "Every site is counted except for the image."
    of = {SAME_SHARE: "of the units of every site", GLOBAL: "of the units of all sites, cut once over all of them,"}
    counted = of.get(budget, f"of the units, by the budget {budget},")
    return f"A circuit keeps {share:.3g} {counted} except for the image."


def budget_name(budget: Budget) -> str:
    """Return the name of a budget; ``table`` for a table."""
    return budget if isinstance(budget, str) else "table"


def _counts(scores: Mapping[str, np.ndarray], share: float, budget: Budget) -> dict[str, int]:
    """Return the number of units by site."""
    check_budget(budget)
    n_units = {site: len(of_site) for site, of_site in scores.items()}
    if budget == SAME_SHARE:
        return {site: _ceil(share, n) for site, n in n_units.items()}
    k = _ceil(share, sum(n_units.values()))
    if isinstance(budget, Mapping):
        return _scaled(budget, n_units, k)
    ranked = np.argsort(-np.abs(np.concatenate(list(scores.values()))), kind="stable")[:k]
    site_of = np.repeat(np.arange(len(n_units)), list(n_units.values()))
    return dict(zip(n_units, np.bincount(site_of[ranked], minlength=len(n_units)).tolist(), strict=True))


def _scaled(table: Mapping[str, float], n_units: Mapping[str, int], k: int) -> dict[str, int]:
    """Return counts that sum to k: the units of each site times its share times one factor, at most all of them."""
    if missing := [site for site in n_units if site not in table]:
        raise InputError(f"The budget has no share for {', '.join(missing)}: give one for every site.")
    n, shares = (np.array([source[site] for site in n_units], dtype=float) for source in (n_units, table))
    if k > n[shares > 0].sum():
        raise InputError(f"A circuit of {k} units is larger than the sites whose share in the budget is above 0.")
    # Where a site is full, the factor rises for the others: sites fill up in the order of their shares.
    full = np.zeros(len(n), dtype=bool)
    for _ in n:
        left = shares * n * ~full
        factor = (k - n[full].sum()) / left.sum() if left.any() else 0.0
        over = ~full & (factor * shares >= 1)
        if not over.any():
            break
        full |= over
    wanted = np.where(full, n, factor * shares * n)
    whole = np.floor(wanted + 1e-9)
    first = np.argsort(whole - wanted, kind="stable")[: k - int(whole.sum())]  # the largest remainders
    whole[first] += 1
    return dict(zip(n_units, whole.astype(int).tolist(), strict=True))


def _ceil(share: float, n: int) -> int:
    """Return the share of n, rounded up; 0.07 * 100 is 7.000000000000001."""
    return math.ceil(round(share * n, 9))
