"""Means over classes with Student's intervals, and the jackknife.

All intervals and tests are computed from a `Spread`: a statistic with its variance and degrees of freedom.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import pandas as pd
from jaxtyping import Float
from scipy import stats

from circuitry.comparison.table import both_directions
from circuitry.runs.arguments import checked
from circuitry.runs.errors import InputError

INTERVALS = ("domain", "site", "value", "low", "high", "n_classes")
"""Columns of a table with each domain's mean with the other domains."""

STUDENT_QUANTILE = (1 + 0.95) / 2
"""Probability of the quantile of Student's t that gives 95 % intervals."""

_POWER = 0.8
"""A difference is detectable if this share of all studies finds it to be significant (the power of a test)."""


class Spread(NamedTuple):
    """A statistic with its variance, and with the degrees of freedom for Student's t."""

    value: Float[np.ndarray, "*results"]
    """The statistic, computed from all classes and images."""
    variance: Float[np.ndarray, "*results"]
    """Variance of the statistic if other classes and images were drawn; NaN if it cannot be estimated."""
    degrees: Float[np.ndarray, "*results"]
    """Degrees of freedom for Student's t."""

    def interval(self) -> tuple[np.ndarray, np.ndarray]:
        """Return the lower and upper bounds of the 95 % interval."""
        quantile = stats.t.ppf(STUDENT_QUANTILE, self.degrees)
        reach = quantile * np.sqrt(self.variance)
        low = np.asarray(self.value - reach)
        high = np.asarray(self.value + reach)
        return low, high

    def detectable(self, level: float) -> np.ndarray:
        """Return the smallest difference from zero that Student's test finds in four of five studies like this.

        Args:
            level: Significance level of the test.
        """
        # The first term is the limit of the test, in standard errors. The second term is the distance from this limit
        # at which the test has its power.
        errors = stats.t.ppf(1 - level / 2, self.degrees)
        errors = errors + stats.t.ppf(_POWER, self.degrees)
        return np.asarray(errors * np.sqrt(self.variance))

    def p(self) -> np.ndarray:
        """Return the two-sided p value of Student's t test against zero."""
        # If the variance is zero, t is infinite and p = 0. If the value is zero, too, p is NaN.
        with np.errstate(divide="ignore", invalid="ignore"):
            t = np.abs(self.value) / np.sqrt(self.variance)
            return np.asarray(2 * stats.t.sf(t, self.degrees))


@checked
def mean_spread(
    values: Float[np.ndarray, " n"],
    families: Sequence[object] | None = None,
) -> Spread:
    """Return the mean of the known values, with the variance of this mean.

    Values may be in families. Values of one family may depend on each other, and values of two families are
    independent. Let N values be in F families, and let D_f be the sum of the deviations of family f from the mean. The
    variance is F / (F - 1) * (sum over f of D_f^2) / N^2, with F - 1 degrees of freedom. If every family has one value,
    this is the usual variance of a mean. The confidence interval that `Spread.interval` returns is then Student's
    interval.

    Args:
        values: The values; NaN for unknown values.
        families: The family of each value. By default every value is a family of its own.

    Example:
        >>> spread = mean_spread(np.array([1.0, 2.0, 3.0]))
        >>> float(spread.value), float(spread.degrees)
        (2.0, 2.0)
    """
    # Without families each value is a family of its own.
    names = np.arange(len(values))
    if families is not None:
        if len(families) != len(values):
            raise InputError(
                f"Each of the {len(values)} values has a family, but {len(families)} were given."
            )
        names = np.array([str(name) for name in families])
    known = ~np.isnan(values)
    n = int(known.sum())
    if n == 0:
        return Spread(*np.full(3, np.nan))
    mean = values[known].mean()
    # D_f, the sum of the deviations of each family.
    _, family = np.unique(names[known], return_inverse=True)
    deviations = np.bincount(family, values[known] - mean)
    f = len(deviations)
    variance = np.nan
    if f > 1:
        variance = f / (f - 1) * np.square(deviations).sum() / n**2
    return Spread(np.array(mean), np.array(variance), np.array(f - 1.0))


def mean_spreads(several: Sequence[np.ndarray]) -> Spread:
    """Return the `mean_spread` of each of several samples, as one `Spread` of arrays."""
    spreads = [mean_spread(values) for values in several]
    return Spread(*np.array(spreads, float).reshape(-1, 3).T)


@checked
def mean_interval(
    values: Float[np.ndarray, " n"],
    families: Sequence[object] | None = None,
) -> tuple[float, float, float]:
    """Return the mean of the known values, and the bounds of its 95 % interval (Student's).

    The bounds are NaN for fewer than two values or families.

    Args:
        values: The values; NaN for unknown values.
        families: The family of each value. Values of one family may depend on each other; see `mean_spread`. By default
            all values are independent.

    Example:
        >>> mean_interval(np.array([1.0, 2.0, 3.0]))
        (2.0, -0.484..., 4.484...)
    """
    spread = mean_spread(values, families)
    low, high = spread.interval()
    return float(spread.value), float(low), float(high)


@checked
def share_interval(
    shares: Float[np.ndarray, " classes"], n_images: float
) -> tuple[float, float, float]:
    """Return the mean of shares over classes, and the bounds of its exact 95 % interval (Korn and Graubard 1998).

    The interval is that of Clopper and Pearson for the effective number of images: as many independent images as would
    give the mean the variance that it has over classes, and at most ``n_images``. So it never has a width of zero, even
    if all shares are 0. The bounds are NaN for fewer than two classes.

    Args:
        shares: A share in [0, 1] for each class.
        n_images: The number of images of all classes.

    Example:
        >>> share_interval(np.zeros(7), 140.0)
        (0.0, 0.0, 0.026...)
    """
    spread = mean_spread(shares)
    value = float(spread.value)
    n_classes = int((~np.isnan(shares)).sum())
    if n_classes < 2 or not n_images:
        return value, float("nan"), float("nan")
    effective = float(n_images)
    if spread.variance > 0:
        # Student's quantiles account for the few classes from which the variance is estimated.
        quantiles = stats.t.ppf(STUDENT_QUANTILE, [max(n_images - 1, 1), n_classes - 1])
        effective = value * (1 - value) / float(spread.variance)
        effective = min(effective * (quantiles[0] / quantiles[1]) ** 2, n_images)
    successes = value * effective
    failures = effective - successes
    low = high = value
    if successes > 0:
        low = stats.beta.ppf(1 - STUDENT_QUANTILE, successes, failures + 1)
    if failures > 0:
        high = stats.beta.ppf(STUDENT_QUANTILE, successes + 1, failures)
    return value, float(low), float(high)


def jackknife_interval(
    value: float,
    without_each: Float[np.ndarray, " n"],
) -> tuple[float, float]:
    """Return the 95 % interval of a statistic by the jackknife (Tukey 1958).

    The standard error is sqrt((n - 1) / n * S), where S is the sum of the squared deviations of ``without_each`` from
    their mean. The interval is the value plus and minus the standard error times Student's quantile with n - 1 degrees
    of freedom. The bounds are NaN for fewer than two observations, or if a value is NaN.

    Args:
        value: The statistic of all n observations.
        without_each: The statistic without each of the n observations in turn.

    Example:
        >>> jackknife_interval(2.0, np.array([2.5, 2.0, 1.5]))  # the mean of 1, 2 and 3
        (-0.484..., 4.484...)
    """
    n = len(without_each)
    if n < 2:
        return float("nan"), float("nan")
    squares = np.square(without_each - without_each.mean()).sum()
    error = float(np.sqrt((n - 1) / n * squares))
    reach = float(stats.t.ppf(STUDENT_QUANTILE, n - 1)) * error
    return value - reach, value + reach


def ratio_interval(
    numerators: Float[np.ndarray, " classes"],
    denominators: Float[np.ndarray, " classes"],
) -> tuple[float, float, float]:
    """Return the ratio of two means over the same classes, and its 95 % interval by the jackknife over classes.

    Classes with NaN on either side are left out.

    If the 95 % interval of the mean of the denominators contains 0, the ratio has no upper bound. Then the value and
    the upper bound are NaN, and the lower bound is that of the mean of the numerators divided by the upper bound of the
    mean of the denominators. It is NaN, too, if the interval of the mean of the numerators contains 0.

    Example:
        >>> ratio_interval(np.array([16.0, 12.0, 20.0]), np.array([2.0, 2.0, 3.0]))
        (6.857..., 4.788..., 8.925...)
        >>> ratio_interval(np.array([7.0, 9.0]), np.array([-1.0, 1.0]))
        (nan, nan, nan)
    """
    known = ~np.isnan(numerators + denominators)
    numerators = numerators[known]
    denominators = denominators[known]
    above, above_low, _ = mean_interval(numerators)
    below, below_low, below_high = mean_interval(denominators)
    if not below_low > 0:
        at_least = above_low / below_high if above_low > 0 < below_high else np.nan
        return np.nan, float(at_least), np.nan
    n = len(numerators)
    without_each = (n * above - numerators) / (n * below - denominators)
    ratio = above / below
    return ratio, *jackknife_interval(ratio, without_each)


def per_domain(table: pd.DataFrame) -> pd.DataFrame:
    """Return each domain's mean similarity with the other domains, with Student's interval over classes.

    Returns:
        Columns domain, site, value, low, high, n_classes; one row per domain and site.

    Example:
        >>> row = {"class": "clock", "domain_a": "real", "domain_b": "sketch", "site": "conv", "value": 0.5}
        >>> per_domain(pd.DataFrame([row]))["domain"].tolist()
        ['real', 'sketch']
    """
    rows = []
    by_domain = both_directions(table).groupby(
        ["domain", "site"],
        dropna=False,
        sort=False,
    )
    for (domain, site), of_domain in by_domain:
        # A class has one value with each other domain; its mean over them is one observation.
        by_class = of_domain.groupby("class")["value"].mean().dropna()
        interval = mean_interval(by_class.to_numpy(dtype=float))
        # Grouping makes NaN of the site None.
        if not isinstance(site, str):
            site = None
        rows.append((domain, site, *interval, len(by_class)))
    return pd.DataFrame(rows, columns=list(INTERVALS))
