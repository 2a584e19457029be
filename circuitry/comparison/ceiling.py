"""The ratio to the ceiling: how similar are two domains, relative to two samples of one domain?

The images of each domain are cut into folds. For domains a and b, over folds p != q:

    S_ab = mean of sim(a_p, b_q)        R_a = mean of sim(a_p, a_q)
    shared_ab = (S_ab - chance) / sqrt((R_a - chance) (R_b - chance))

R_a is the ceiling of a: the similarity of two folds of one domain. S_ab, R_a and R_b each compare different items, with
equally many images on each side. So two identical domains give 1 in expectation. Means over classes and sites are taken
before the ratio, over the classes and sites at which S_ab, R_a and R_b are all known. Similarity differs between sites,
so means over different sites would not give 1.

If a ceiling is not well above chance (`LEAST_ABOVE`), the ratio could be any number. Therefore tables have NaN instead.
"""

from collections.abc import Callable
from itertools import combinations
from typing import NamedTuple

import numpy as np
import pandas as pd
from jaxtyping import Bool, Float

from circuitry.comparison.bootstrap import Draws, dual_bootstrap, resampled_means
from circuitry.comparison.fold_array import FoldArray, mean_known, mean_of_members
from circuitry.comparison.statistics import Spread
from circuitry.runs.arguments import checked

RATIOS = (
    "domain_a",
    "domain_b",
    "site",
    "value",
    "low",
    "high",
    "n_classes",
    "similarity",
    "ceiling_a",
    "ceiling_b",
    "note",
)
"""Columns of the table that `pair_ratios` returns."""

LEAST_ABOVE = 0.25
"""A share that decides whether a ceiling is well above chance.

The distance from the chance level to the lower end of the ceiling's 95 % interval must be at least this share of the
distance from the chance level to the ceiling."""


class PairCells(NamedTuple):
    """For each pair of domains: the similarity of the two domains, and the ceiling of each domain.

    The three values of a pair are known for the same classes and sites, so their means can be compared.
    """

    domains: tuple[str, ...]
    """Names of the domains."""
    sites: tuple[str | None, ...]
    """Names of the sites; None for means over sites."""
    pairs: tuple[tuple[int, int], ...]
    """Indices in ``domains`` of the two domains of each pair."""
    values: Float[np.ndarray, "classes 3 pairs sites folds folds"]
    """Axis 1 has the similarity, the ceiling of the first domain, and the ceiling of the second domain. For a class and
    site at which one of the three is unknown, all three are NaN."""

    @property
    def complete(self) -> Bool[np.ndarray, "classes pairs sites"]:
        """Whether the similarity and both ceilings of a pair are known, for each class and site."""
        # Where one of the three is unknown, the similarity is NaN, too.
        known = ~np.isnan(self.values[:, 0])
        return np.asarray(known.any((-2, -1)))

    def over_sites(self) -> "PairCells":
        """Return the means over sites, as a single site.

        For a class and a pair, the mean is over the sites at which the similarity and both ceilings are known.
        """
        means = mean_known(self.values, 3)[:, :, :, None]
        return self._replace(sites=(None,), values=means)


def pair_cells(folds: FoldArray) -> PairCells:
    """Collect the similarity and the two ceilings of each pair of domains in one array.

    If one of the three is unknown for a class and site, all three become NaN there.
    """
    pairs = list(combinations(range(len(folds.domains)), 2))
    # Without the reshape a single domain, which has no pair, would give no columns.
    places = np.array(pairs, int).reshape(-1, 2)
    a = places[:, 0]
    b = places[:, 1]
    similarity = folds.values[:, a, b]
    ceiling_a = folds.values[:, a, a]
    ceiling_b = folds.values[:, b, b]
    cells = np.stack([similarity, ceiling_a, ceiling_b], 1)
    # A class counts at a site if its similarity and both ceilings are known there.
    known = ~np.isnan(cells)
    complete = known.any((-2, -1)).all(1)
    complete = complete[:, None, :, :, None, None]
    cells = np.where(complete, cells, np.nan)
    return PairCells(folds.domains, folds.sites, tuple(pairs), cells)


def ratio(
    means: Float[np.ndarray, "draws 3 pairs sites"],
    chance: Float[np.ndarray, " sites"],
) -> Float[np.ndarray, "draws pairs sites"]:
    """Return the ratio to the ceiling: (S - chance) / sqrt((R_a - chance) (R_b - chance)).

    The ratio is NaN unless both ceilings exceed chance.

    Args:
        means: Axis 1 has the similarity S and the ceilings R_a and R_b.
        chance: Chance level of each site.
    """
    # Axis 1 of the means holds the similarity and the two ceilings.
    above = means - chance
    similarity = above[:, 0]
    ceiling_a = above[:, 1]
    ceiling_b = above[:, 2]
    # Two negative ceilings would have a positive product.
    known = (ceiling_a > 0) & (ceiling_b > 0)
    both = np.where(known, ceiling_a * ceiling_b, np.nan)
    return np.asarray(similarity / np.sqrt(both))


@checked
def pair_ratios(
    cells: PairCells,
    chance: Float[np.ndarray, " sites"],
    draws: Draws,
) -> pd.DataFrame:
    """Return the ratio to the ceiling of each pair of domains at each site.

    Args:
        cells: From `pair_cells`.
        chance: Chance level of each site.
        draws: From `draw_resamples`, for the same classes and folds.

    Returns:
        Columns domain_a, domain_b, site, value (the ratio), low, high (its 95 % interval), n_classes, similarity,
        ceiling_a, ceiling_b (the means from which the ratio is computed), note. The note names the ceilings that are
        not well above chance. If there are such ceilings, the ratio is NaN.
    """
    spread, above = _ratio_spread(cells, chance, draws, lambda ratios: ratios)
    every_class = np.ones((1, len(cells.values)))
    every_fold = np.ones((1, cells.values.shape[-1]))
    means = resampled_means(cells.values, every_class, every_fold)[0]
    # The intervals in ``above`` are of distances from chance. The note gives the intervals of the ceilings themselves.
    low, high = spread.interval()
    ceiling_ends = np.stack(above.interval()) + chance
    weak = ~_well_above(above)
    n_classes = cells.complete.sum(0)
    rows = []
    for s, site in enumerate(cells.sites):
        for i, pair in enumerate(cells.pairs):
            domain_a = cells.domains[pair[0]]
            domain_b = cells.domains[pair[1]]
            similarity, ceiling_a, ceiling_b = means[:, i, s]
            notes = []
            for side, name in enumerate((domain_a, domain_b)):
                # Without a class there is no ceiling, weak or not.
                if weak[side, i, s] and n_classes[i, s]:
                    ceiling = means[1 + side, i, s]
                    ends = ceiling_ends[:, side, i, s]
                    said = _with_interval(ceiling, ends)
                    notes.append(
                        f"the ceiling of {name}, {said}, is not known to be well above chance, {chance[s]:.2f}"
                    )
            row = {
                "domain_a": domain_a,
                "domain_b": domain_b,
                "site": site,
                "value": spread.value[i, s],
                "low": low[i, s],
                "high": high[i, s],
                "n_classes": int(n_classes[i, s]),
                "similarity": similarity,
                "ceiling_a": ceiling_a,
                "ceiling_b": ceiling_b,
                "note": "; ".join(notes),
            }
            rows.append(row)
    return pd.DataFrame(rows, columns=list(RATIOS))


def _with_interval(value: float, ends: np.ndarray) -> str:
    if np.isnan(ends).any():
        return f"{value:.2f}"
    return f"{value:.2f} [{ends[0]:.2f}, {ends[1]:.2f}]"


def missing_ratios(ratios: pd.DataFrame) -> str:
    """Return a text that says how many pairs of domains have no ratio, and why.

    The text is empty if each pair has a ratio.
    """
    notes = ratios.loc[ratios["note"] != "", "note"]
    if notes.empty:
        return ""
    return (
        f"{len(notes)} of {len(ratios)} pairs have no ratio: {notes.iloc[0]}. "
        "More images in a fold, or more classes, would help."
    )


def mean_ratio(
    cells: PairCells,
    chance: Float[np.ndarray, " sites"],
    draws: Draws,
) -> Spread:
    """Return the mean over pairs of domains of the ratio to the ceiling, with its variance, for each site.

    A pair is left out at a site if one of its two ceilings is not well above chance.

    Args:
        cells: Similarities and ceilings of pairs of domains, from `pair_cells`.
        chance: Chance level of each site.
        draws: From `draw_resamples`, for the same classes and folds.
    """
    return _ratio_spread(cells, chance, draws, lambda ratios: mean_known(ratios, 1))[0]


@checked
def domain_ratios(
    cells: PairCells,
    chance: Float[np.ndarray, " sites"],
    draws: Draws,
) -> Spread:
    """Return the mean ratio to the ceiling of each domain with the other domains, with its variance.

    A pair is left out at a site if one of its two ceilings is not well above chance.

    Args:
        cells: Similarities and ceilings of pairs of domains, from `pair_cells`.
        chance: Chance level of each site.
        draws: From `draw_resamples`, for the same classes and folds.

    Returns:
        Means with the shape [domains, sites].
    """
    # [domains, pairs]: 1 where the domain is one of the pair.
    member = np.zeros((len(cells.domains), len(cells.pairs)))
    for i, pair in enumerate(cells.pairs):
        member[list(pair), i] = 1.0

    def by_domain(ratios: np.ndarray) -> np.ndarray:
        return mean_of_members(member, ratios)

    return _ratio_spread(cells, chance, draws, by_domain)[0]


def _ratio_spread(
    cells: PairCells,
    chance: Float[np.ndarray, " sites"],
    draws: Draws,
    reduced: Callable[[np.ndarray], np.ndarray],
) -> tuple[Spread, Spread]:
    """Compute a statistic of the ratios to the ceiling, with its variance from the dual bootstrap.

    The ratio of a pair is NaN if one of the two ceilings is not well above chance.

    Args:
        reduced: Function that computes the statistic. It takes ratios [draws, pairs, sites] and returns one result for
            each draw, such as a mean over pairs.

    Returns:
        Two spreads: the statistic, and how far the two ceilings of each pair are above chance [2, pairs, sites].
    """
    above = dual_bootstrap(cells.values[:, 1:], lambda means: means - chance, draws)
    # Pairs without a ratio are chosen once, from all classes and folds, so that every draw is of the same pairs.
    known = _well_above(above).all(0)

    def statistic(means: np.ndarray) -> np.ndarray:
        return reduced(np.where(known, ratio(means, chance), np.nan))

    return dual_bootstrap(cells.values, statistic, draws), above


def _well_above(above: Spread) -> Bool[np.ndarray, "*results"]:
    # Compared by the interval: a ceiling that may be chance makes a ratio of any size.
    low, _ = above.interval()
    is_above = above.value > 0
    is_far = low >= LEAST_ABOVE * above.value
    return np.asarray(is_above & is_far)
