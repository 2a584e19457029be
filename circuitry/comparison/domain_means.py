"""Each domain's mean similarity with the other domains, with its spread over classes and images from parts."""

import numpy as np
import pandas as pd
from jaxtyping import Float

from circuitry.comparison.bootstrap import Draws, dual_bootstrap
from circuitry.comparison.part_array import PartArray, mean_known
from circuitry.comparison.statistics import INTERVALS, Spread


def domain_spread(parts: PartArray, draws: Draws) -> Spread:
    """Return each domain's mean over the other domains [domains, sites], of parts."""
    return dual_bootstrap(without_own(parts.values), lambda means: mean_known(means, 2), draws)


def without_own(
    values: Float[np.ndarray, "classes domains domains *cells"],
) -> Float[np.ndarray, "classes domains domains *cells"]:
    """Return the similarities of different domains; NaN for a domain with itself."""
    kept = values.copy()
    n = values.shape[1]
    kept[:, np.arange(n), np.arange(n)] = np.nan
    return kept


def part_means(parts: PartArray, spread: Spread) -> pd.DataFrame:
    """Return results [domains, sites] of parts as a table with the columns `INTERVALS`."""
    low, high = spread.interval()
    there = ~np.isnan(mean_known(without_own(parts.values), (2, 4, 5)))
    rows = [
        (domain, site, spread.value[d, s], low[d, s], high[d, s], int(there[:, d, s].sum()))
        for s, site in enumerate(parts.sites)
        for d, domain in enumerate(parts.domains)
    ]
    return pd.DataFrame(rows, columns=list(INTERVALS))
