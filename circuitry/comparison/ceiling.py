"""Which share of the ceiling do two domains reach? Their similarity divided by both ceilings, at equal n.

For domains a and b, over parts p != q of their images:

    S_ab = mean of sim(a_p, b_q)        R_a = mean of sim(a_p, a_q)
    shared_ab = (S_ab - chance) / sqrt((R_a - chance) (R_b - chance))

All three compare different items and equally many images, so two identical domains give 1 in expectation. Means over
classes and sites come first, over the classes and sites with all three: similarity differs between sites, so three
means over different sites would not give 1.
"""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import pandas as pd
from jaxtyping import Bool, Float

from circuitry.comparison.bootstrap import Draws, dual_bootstrap, resampled_means
from circuitry.comparison.part_array import PartArray, known_ratio, mean_known
from circuitry.comparison.statistics import Spread
from circuitry.runs.errors import InputError
from circuitry.runs.given import checked

RATIOS = ("domain_a", "domain_b", "site", "value", "low", "high", "n_classes", "similarity", "ceiling_a", "ceiling_b")
"""Columns of `pair_ratios`."""


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
        return self._replace(sites=(None,), values=mean_known(self.values, 3)[:, :, :, None])


def pair_cells(parts: PartArray) -> PairCells:
    """Arrange similarities and ceilings of each two domains; sites of a class without all three become NaN."""
    pairs = [(a, b) for a in range(len(parts.domains)) for b in range(a)]
    pairs = sorted((b, a) for a, b in pairs)
    first, second = (np.array([pair[side] for pair in pairs], int) for side in (0, 1))
    cells = np.stack([parts.values[:, x, y] for x, y in ((first, second), (first, first), (second, second))], 1)
    complete = (~np.isnan(cells)).any((-2, -1)).all(1)
    cells = np.where(complete[:, None, :, :, None, None], cells, np.nan)
    return PairCells(parts.domains, parts.sites, tuple(pairs), cells)


def ratio(
    means: Float[np.ndarray, "draws 3 pairs sites"], chance: Float[np.ndarray, " sites"]
) -> Float[np.ndarray, "draws pairs sites"]:
    """Return (S - chance) / sqrt((R_a - chance) (R_b - chance)); NaN unless both ceilings exceed chance."""
    above = means - chance
    both = np.where((above[:, 1] > 0) & (above[:, 2] > 0), above[:, 1] * above[:, 2], np.nan)
    found: np.ndarray = above[:, 0] / np.sqrt(both)
    return found


@checked
def pair_ratios(cells: PairCells, chance: Float[np.ndarray, " sites"], draws: Draws) -> pd.DataFrame:
    """Return the ratio to the ceiling of each two domains at each site, with its three means: columns `RATIOS`."""
    spread = _ratio_spread(cells, chance, draws, lambda ratios: ratios)
    every_class, every_part = np.ones((1, len(cells.values))), np.ones((1, cells.values.shape[-1]))
    means = resampled_means(cells.values, every_class, every_part)[0]
    low, high = spread.interval()
    n_classes, rows = cells.there.sum(0), []
    for s, site in enumerate(cells.sites):
        for i, (a, b) in enumerate(cells.pairs):
            interval = spread.value[i, s], low[i, s], high[i, s], int(n_classes[i, s])
            rows.append((cells.domains[a], cells.domains[b], site, *interval, *means[:, i, s]))
    return pd.DataFrame(rows, columns=list(RATIOS))


def mean_ratio(cells: PairCells, chance: Float[np.ndarray, " sites"], draws: Draws) -> Spread:
    """Return the mean ratio over all pairs of domains [sites]."""
    return _ratio_spread(cells, chance, draws, lambda ratios: mean_known(ratios, 1))


@checked
def domain_ratios(cells: PairCells, chance: Float[np.ndarray, " sites"], draws: Draws) -> Spread:
    """Return each domain's mean ratio with the other domains [domains, sites]."""
    member = np.zeros((len(cells.domains), len(cells.pairs)))
    for i, pair in enumerate(cells.pairs):
        member[list(pair), i] = 1.0

    def over_others(ratios: np.ndarray) -> np.ndarray:
        known = ~np.isnan(ratios)
        total, n = member @ np.nan_to_num(ratios), member @ known
        return known_ratio(total, n)

    return _ratio_spread(cells, chance, draws, over_others)


def _ratio_spread(
    cells: PairCells,
    chance: Float[np.ndarray, " sites"],
    draws: Draws,
    reduced: Callable[[np.ndarray], np.ndarray],
) -> Spread:
    if len(chance) != len(cells.sites):
        raise InputError(f"Each of the {len(cells.sites)} sites has a level of chance, but {len(chance)} were given.")
    return dual_bootstrap(cells.values, lambda means: reduced(ratio(means, chance)), draws)
