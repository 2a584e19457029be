"""Which share of the ceiling do two domains reach? Their similarity divided by both ceilings, at equal n.

For domains a and b, over parts p != q of their images:

    S_ab = mean of sim(a_p, b_q)        R_a = mean of sim(a_p, a_q)
    shared_ab = (S_ab - chance) / sqrt((R_a - chance) (R_b - chance))

All three compare different items and equally many images, so two identical domains give 1 in expectation. Means over
classes and sites come first, over the classes and sites with all three: similarity differs between sites, so three
means over different sites would not give 1.

Where a ceiling is not well above chance (`LEAST_ABOVE`) there is no ratio, in no table: it could be any number.
"""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import pandas as pd
from jaxtyping import Bool, Float

from circuitry.comparison.bootstrap import Draws, dual_bootstrap, resampled_means
from circuitry.comparison.part_array import PartArray, mean_known, mean_of_members
from circuitry.comparison.statistics import Spread
from circuitry.runs.given import checked

RATIOS = (
    *("domain_a", "domain_b", "site", "value", "low", "high", "n_classes"),
    *("similarity", "ceiling_a", "ceiling_b", "note"),
)
"""Columns of `pair_ratios`."""

LEAST_ABOVE = 0.25
"""A ceiling is well above chance if the lower end of its 95 % interval keeps this share of its distance from chance."""


class PairCells(NamedTuple):
    """Each two domains' similarity and their two ceilings, over the same classes and sites."""

    domains: tuple[str, ...]
    sites: tuple[str | None, ...]
    pairs: tuple[tuple[int, int], ...]
    values: Float[np.ndarray, "classes 3 pairs sites parts parts"]

    @property
    def there(self) -> Bool[np.ndarray, "classes pairs sites"]:
        """Classes with all three."""
        return np.asarray((~np.isnan(self.values[:, 0])).any((-2, -1)))

    def over_sites(self) -> "PairCells":
        """Return the means over sites as one site: for each class and pair, over the sites with all three."""
        return self._replace(
            sites=(None,), values=mean_known(self.values, 3)[:, :, :, None]
        )


def pair_cells(parts: PartArray) -> PairCells:
    """Arrange similarities and ceilings of each two domains; sites of a class without all three become NaN."""
    pairs = [(a, b) for a in range(len(parts.domains)) for b in range(a)]
    pairs = sorted((b, a) for a, b in pairs)
    first, second = (np.array([pair[side] for pair in pairs], int) for side in (0, 1))
    cells = np.stack(
        [
            parts.values[:, x, y]
            for x, y in ((first, second), (first, first), (second, second))
        ],
        1,
    )
    complete = (~np.isnan(cells)).any((-2, -1)).all(1)
    cells = np.where(complete[:, None, :, :, None, None], cells, np.nan)
    return PairCells(parts.domains, parts.sites, tuple(pairs), cells)


def ratio(
    means: Float[np.ndarray, "draws 3 pairs sites"], chance: Float[np.ndarray, " sites"]
) -> Float[np.ndarray, "draws pairs sites"]:
    """Return (S - chance) / sqrt((R_a - chance) (R_b - chance)); NaN unless both ceilings exceed chance."""
    above = means - chance
    both = np.where(
        (above[:, 1] > 0) & (above[:, 2] > 0), above[:, 1] * above[:, 2], np.nan
    )
    found: np.ndarray = above[:, 0] / np.sqrt(both)
    return found


@checked
def pair_ratios(
    cells: PairCells, chance: Float[np.ndarray, " sites"], draws: Draws
) -> pd.DataFrame:
    """Return the ratio to the ceiling of each two domains at each site, with its three means: columns `RATIOS`.

    The note names the ceilings that are not well above chance.
    """
    spread, above = _ratio_spread(cells, chance, draws, lambda ratios: ratios)
    every_class, every_part = (
        np.ones((1, len(cells.values))),
        np.ones((1, cells.values.shape[-1])),
    )
    means = resampled_means(cells.values, every_class, every_part)[0]
    (low, high), ends, weak = (
        spread.interval(),
        np.stack(above.interval()) + chance,
        ~_well_above(above),
    )
    n_classes, rows = cells.there.sum(0), []
    for s, site in enumerate(cells.sites):
        for i, pair in enumerate(cells.pairs):
            a, b = (cells.domains[place] for place in pair)
            notes = [
                f"the ceiling of {name}, {_said(means[1 + side, i, s], ends[:, side, i, s])}, is not known to be well "
                f"above chance, {chance[s]:.2f}"
                for side, name in enumerate((a, b))
                if weak[side, i, s] and n_classes[i, s]
            ]
            interval = spread.value[i, s], low[i, s], high[i, s], int(n_classes[i, s])
            rows.append((a, b, site, *interval, *means[:, i, s], "; ".join(notes)))
    return pd.DataFrame(rows, columns=list(RATIOS))


def _said(value: float, ends: np.ndarray) -> str:
    return f"{value:.2f}" + (
        "" if np.isnan(ends).any() else f" [{ends[0]:.2f}, {ends[1]:.2f}]"
    )


def missing_ratios(ratios: pd.DataFrame) -> str:
    """Say for how many pairs of domains there is no ratio, why, and what would help; nothing where all have one."""
    notes = [note for note in ratios["note"] if note]
    said = f"{len(notes)} of {len(ratios)} pairs have no ratio: " + "".join(notes[:1])
    return (
        f"{said}. More images in a part, or more classes, would help." if notes else ""
    )


def mean_ratio(
    cells: PairCells, chance: Float[np.ndarray, " sites"], draws: Draws
) -> Spread:
    """Return the mean ratio over the pairs of domains that have one [sites]."""
    return _ratio_spread(cells, chance, draws, lambda ratios: mean_known(ratios, 1))[0]


@checked
def domain_ratios(
    cells: PairCells, chance: Float[np.ndarray, " sites"], draws: Draws
) -> Spread:
    """Return each domain's mean ratio with the other domains [domains, sites]."""
    member = np.zeros((len(cells.domains), len(cells.pairs)))
    for i, pair in enumerate(cells.pairs):
        member[list(pair), i] = 1.0
    return _ratio_spread(
        cells, chance, draws, lambda ratios: mean_of_members(member, ratios)
    )[0]


def _ratio_spread(
    cells: PairCells,
    chance: Float[np.ndarray, " sites"],
    draws: Draws,
    reduced: Callable[[np.ndarray], np.ndarray],
) -> tuple[Spread, Spread]:
    """Return what ratios are reduced to, and how far the two ceilings of each pair lie above chance."""
    above = dual_bootstrap(cells.values[:, 1:], lambda means: means - chance, draws)
    known = _well_above(above).all(0)

    def statistic(means: np.ndarray) -> np.ndarray:
        return reduced(np.where(known, ratio(means, chance), np.nan))

    return dual_bootstrap(cells.values, statistic, draws), above


def _well_above(above: Spread) -> Bool[np.ndarray, "*results"]:
    return np.asarray(
        (above.value > 0) & (above.interval()[0] >= LEAST_ABOVE * above.value)
    )
