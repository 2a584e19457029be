"""How far a similarity can be trusted: chance levels, bootstrap and jackknife intervals, paired tests.

scipy does the work.
"""

from itertools import combinations

import numpy as np
import pandas as pd
from jaxtyping import Float
from scipy import stats

from circuitry.comparison.table import both_directions


def bootstrap_mean(
    values: Float[np.ndarray, " n"], *, confidence: float = 0.95, resamples: int = 2000, seed: int = 0
) -> tuple[float, float, float]:
    """Return mean, lower and upper end of the percentile bootstrap interval; NaN ends for fewer than two values."""
    values = values[~np.isnan(values)]
    if len(values) == 0:
        return (float("nan"),) * 3
    mean = float(values.mean())
    if len(values) < 2:
        return mean, float("nan"), float("nan")
    interval = stats.bootstrap(
        (values,),
        np.mean,
        n_resamples=resamples,
        confidence_level=confidence,
        method="percentile",
        rng=np.random.default_rng(seed),
    ).confidence_interval
    return mean, float(interval.low), float(interval.high)


def jackknife_interval(
    value: float, without_each: Float[np.ndarray, " n"], *, confidence: float = 0.95
) -> tuple[float, float]:
    """Return the interval of a statistic from its values without each of n observations in turn (Tukey 1958).

    The standard error is sqrt((n - 1) / n * sum of squared deviations of these values from their mean), the interval
    the value plus and minus Student's quantile with n - 1 degrees of freedom times it. NaN for fewer than two
    observations, or where a value is NaN.

    Example:
        >>> jackknife_interval(2.0, np.array([2.5, 2.0, 1.5]))  # the mean of 1, 2 and 3
        (-0.484..., 4.484...)
    """
    n = len(without_each)
    if n < 2:
        return float("nan"), float("nan")
    error = float(np.sqrt((n - 1) / n * np.square(without_each - without_each.mean()).sum()))
    reach = float(stats.t.ppf((1 + confidence) / 2, n - 1)) * error
    return value - reach, value + reach


def per_domain(table: pd.DataFrame, *, seed: int = 0) -> pd.DataFrame:
    """Return each domain's mean similarity with the other domains, bootstrapped over classes, of a `compare` table.

    Columns domain, site, value, low, high, n_classes; one row per domain and site.
    """
    long = both_directions(table)
    rows = []
    for (domain, site), part in long.groupby(["domain", "site"], dropna=False, sort=False):
        by_class = part.groupby("class")["value"].mean().to_numpy(dtype=float)
        rows.append(
            (domain, site if isinstance(site, str) else None, *bootstrap_mean(by_class, seed=seed), len(by_class))
        )
    return pd.DataFrame(rows, columns=["domain", "site", "value", "low", "high", "n_classes"])


def paired_tests(table: pd.DataFrame) -> pd.DataFrame:
    """Test, for each two domains, whether one is more alike the others than the other is.

    Per class, a domain's score is its mean similarity with the other domains; the two domains' scores are
    paired by class (Wilcoxon signed-rank test), and p values are corrected for the number of pairs (Holm).

    Returns:
        Columns domain_a, domain_b, difference (mean of a minus b), n_classes, p, p_holm.
    """
    scores = both_directions(table).groupby(["class", "domain"])["value"].mean().unstack()
    rows = []
    for a, b in combinations(sorted(scores.columns), 2):
        pair = scores[[a, b]].dropna()
        difference = (pair[a] - pair[b]).to_numpy(dtype=float)
        nothing = len(difference) < 2 or not difference.any()
        p = float("nan") if nothing else float(stats.wilcoxon(difference).pvalue)
        rows.append((a, b, float(difference.mean()) if len(difference) else float("nan"), len(difference), p))
    tests = pd.DataFrame(rows, columns=["domain_a", "domain_b", "difference", "n_classes", "p"])
    tested = tests["p"].astype(float).dropna().sort_values()
    return tests.assign(p_holm=(tested * np.arange(len(tested), 0, -1)).clip(upper=1).cummax())
