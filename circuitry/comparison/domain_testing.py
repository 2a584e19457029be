"""Means of domains, tests between domains, and tests of two domains against their ceiling.

A test between two domains asks whether one of them has a larger mean similarity with the other domains. A test against
the ceiling asks whether two domains are less similar than two folds of one domain.

The variance of a difference comes from the dual bootstrap over classes and folds. If there are no folds, it is the
variance over classes. The p values come from Student's t distribution. With few classes these p values may be too
small. Therefore every p value is at least the smallest p that a sign-flip test over the classes could give
(`smallest_p`). The p values are corrected for the number of tests (Holm).
"""

from collections.abc import Sequence
from itertools import combinations

import numpy as np
import pandas as pd
from jaxtyping import Float, Int

from circuitry.comparison.bootstrap import Draws, dual_bootstrap
from circuitry.comparison.ceiling import pair_cells
from circuitry.comparison.fold_array import FoldArray, mean_known, without_own
from circuitry.comparison.significance import LEVEL, fewest_units, holm, smallest_p
from circuitry.comparison.statistics import INTERVALS, Spread, mean_spreads
from circuitry.comparison.table import both_directions
from circuitry.runs.arguments import checked
from circuitry.runs.errors import number_of

THIS_MODEL = "this trained model"
"""The scope of a p value over classes and images. It says nothing about other trainings of the model."""

TESTS = (
    "domain_a",
    "domain_b",
    "difference",
    "low",
    "high",
    "n_classes",
    "p",
    "p_holm",
    "detectable",
    "about",
)
"""Columns of tables of tests; see `corrected_tests`."""


def domain_spread(folds: FoldArray, draws: Draws) -> Spread:
    """Return each domain's mean similarity with the other domains, from similarities between folds.

    Returns:
        The means [domains, sites], with their variances.
    """
    values = without_own(folds.values)
    return dual_bootstrap(values, lambda means: mean_known(means, 2), draws)


def fold_means(folds: FoldArray, spread: Spread) -> pd.DataFrame:
    """Return results by domain and site as a table.

    Args:
        folds: The similarities between folds from which the results were computed.
        spread: Results [domains, sites], such as the means of `domain_spread`.

    Returns:
        Columns domain, site, value, low, high (95 % interval), n_classes.
    """
    low, high = spread.interval()
    # A class counts if any pair of folds with any other domain is known.
    known = ~np.isnan(without_own(folds.values))
    n_classes = known.any((2, 4, 5)).sum(0)
    rows = []
    for s, site in enumerate(folds.sites):
        for d, domain in enumerate(folds.domains):
            row = {
                "domain": domain,
                "site": site,
                "value": spread.value[d, s],
                "low": low[d, s],
                "high": high[d, s],
                "n_classes": int(n_classes[d, s]),
            }
            rows.append(row)
    return pd.DataFrame(rows, columns=list(INTERVALS))


@checked
def domain_tests(values: pd.DataFrame) -> pd.DataFrame:
    """Test, for each pair of domains, whether their mean similarities with the other domains differ.

    The score of a domain in a class is its mean similarity with the other domains. Student's t test compares the scores
    of two domains, paired by class.

    Args:
        values: Table with the columns class, domain_a, domain_b, site, value, such as from `compare`.

    Returns:
        Columns domain_a, domain_b, difference (mean score of domain_a minus mean score of domain_b), low, high (95 %
        interval), n_classes, p, p_holm (p corrected for the number of tests), detectable (the difference that four of
        five studies like this would find), about (a phrase that says what p is about).

    Example:
        >>> pairs = [("real", "sketch", 0.8), ("clipart", "real", 0.4), ("clipart", "sketch", 0.6)]
        >>> table = pd.DataFrame(pairs, columns=["domain_a", "domain_b", "value"])
        >>> tests = domain_tests(table.assign(**{"class": "clock", "site": "conv"}))
        >>> tests["domain_b"].tolist()
        ['real', 'sketch', 'sketch']
    """
    by_domain = both_directions(values).groupby(["class", "domain"])["value"]
    scores = by_domain.mean().unstack()
    pairs = list(combinations(sorted(scores.columns), 2))
    apart = []
    n_classes = []
    for a, b in pairs:
        # NaN for a class that one of the two domains lacks: pairs are within a class.
        differences = (scores[a] - scores[b]).to_numpy(dtype=float)
        apart.append(differences)
        n_classes.append(np.isfinite(differences).sum())
    return corrected_tests(pairs, mean_spreads(apart), np.array(n_classes, int))


def fold_tests(folds: FoldArray, draws: Draws) -> pd.DataFrame:
    """Test, for each pair of domains, whether their mean similarities with the other domains differ.

    Unlike `domain_tests`, this function takes similarities between folds. The variance comes from the dual bootstrap
    over classes and folds. The two domains are paired by class and site: a class and site is ignored unless both
    domains have a value there. Means over sites are computed first, and then means over classes.

    Args:
        folds: Similarities between folds.
        draws: From `draw_resamples`, for the same classes and folds.

    Returns:
        The columns of `domain_tests`.

    Example:
        >>> from circuitry.comparison import FOLDS, FoldArray, draw_resamples
        >>> rows = [("clock", "clock", "real", "sketch", p, 1 - p, "conv", 0.5) for p in (0, 1)]
        >>> folds = FoldArray.from_table(pd.DataFrame(rows, columns=FOLDS))
        >>> fold_tests(folds, draw_resamples(folds.classes, folds.n_folds))["difference"].tolist()
        [0.0]
    """
    pairs = list(combinations(range(len(folds.domains)), 2))
    if not pairs:
        return pd.DataFrame(columns=list(TESTS))
    others = without_own(folds.values)
    # Means over sites come first, over the sites at which both domains of a pair are known: sites differ in similarity.
    means = []
    for pair in pairs:
        values = others[:, pair]
        # [classes, 2, sites]: this domain of the pair has a value with some other domain.
        known = (~np.isnan(values)).any((2, 4, 5))
        both = known.all(1)[:, None, None, :, None, None]
        values = np.where(both, values, np.nan)
        means.append(mean_known(values, 3))
    cells = np.stack(means, 2)

    def differences(means: np.ndarray) -> np.ndarray:
        scores = mean_known(means, -1)
        return np.asarray(scores[:, 0] - scores[:, 1])

    known = ~np.isnan(cells[:, 0])
    n_classes = known.any((-3, -2, -1)).sum(0)
    names = [(folds.domains[a], folds.domains[b]) for a, b in pairs]
    return corrected_tests(names, dual_bootstrap(cells, differences, draws), n_classes)


def ceiling_tests(folds: FoldArray, draws: Draws, alike: bool) -> pd.DataFrame:
    """Test, for each pair of domains, whether their similarity differs from the mean of their two ceilings.

    The ceiling of a domain is the similarity of two different folds of its images. Similarities and ceilings compare
    equally many images.

    Args:
        alike: Whether large values mean similar. False for distances.

    Returns:
        The columns of `domain_tests`. The column difference is the mean ceiling minus the similarity, or for distances
        the distance of the two domains minus the mean ceiling. If the difference is zero, the two domains are as
        similar as two folds of one domain. If it is positive, they are less similar; see `below_ceiling`.
    """
    cells = pair_cells(folds).over_sites()
    # Of distances the ceiling is the smaller number.
    sign = 1.0 if alike else -1.0

    def below_ceilings(means: np.ndarray) -> np.ndarray:
        ceiling = means[:, 1:].mean(1)
        return np.asarray(sign * (ceiling - means[:, 0]))

    spread = dual_bootstrap(cells.values[:, :, :, 0], below_ceilings, draws)
    names = [(folds.domains[a], folds.domains[b]) for a, b in cells.pairs]
    return corrected_tests(names, spread, cells.complete[:, :, 0].sum(0))


def too_few(n_classes: int, n_domains: int) -> str:
    """Return a sentence if no test can be significant with so few classes, and an empty text otherwise.

    Example:
        >>> circuitry.comparison.too_few(2, 3)
        'With 2 classes no test of 3 domains can be significant: it takes ... classes.'
    """
    # One test for each pair of domains.
    needed = fewest_units(max(1, n_domains * (n_domains - 1) // 2))
    if n_classes >= needed:
        return ""
    few = number_of(n_classes, "class")
    return f"With {few} no test of {n_domains} domains can be significant: it takes {needed} classes."


def could_find(tests: pd.DataFrame) -> str:
    """Return a sentence on the tests that are not significant: how large a difference could they have found?

    The sentence begins with a space. If all tests are significant, the text is empty.
    """
    # An unknown p is not below the level, either.
    missed = tests.loc[~(tests["p_holm"] < LEVEL), "detectable"].dropna()
    if missed.empty:
        return ""
    finite = missed[np.isfinite(missed)]
    if finite.empty:
        return " With so few classes none can be."
    least = f"{finite.min():.3f}"
    most = f"{finite.max():.3f}"
    sizes = least if least == most else f"{least} to {most}"
    return f" In four of five studies like this the others would find a difference of {sizes}."


def below_ceiling(tests: pd.DataFrame) -> "pd.Series[bool]":
    """Return which rows of `ceiling_tests` find two domains significantly less similar than two folds of one domain."""
    return (tests["p_holm"] < LEVEL) & (tests["difference"] > 0)


def corrected_tests(
    pairs: Sequence[tuple[str, str]],
    spread: Spread,
    n_classes: Int[np.ndarray, " pairs"],
    p: Float[np.ndarray, " pairs"] | None = None,
) -> pd.DataFrame:
    """Return a table of tests with corrected p values and detectable differences.

    Args:
        pairs: The two domains of each test.
        spread: The difference of each test, with its variance.
        n_classes: Number of classes of each test.
        p: The p values (default: Student's). A value below `smallest_p` of the number of classes is replaced by
            `smallest_p`.

    Returns:
        Columns `TESTS`. The column p_holm is p corrected for the number of tests. The column detectable is the
        difference that the corrected test would find in four of five studies like this. It is infinite if there are so
        few classes that the smallest possible p exceeds 0.05 after the correction. The column about is a phrase that
        says what p is about.
    """
    # NaN where nothing varies: such a pair is no test, and does not count in the correction.
    raw = spread.p() if p is None else p
    tested = ~np.isnan(raw)
    n_tests = max(1, int(tested.sum()))
    detectable = spread.detectable(LEVEL / n_tests)
    detectable = np.where(n_classes < fewest_units(n_tests), np.inf, detectable)
    low, high = spread.interval()
    # With few classes, p of Student's t may be smaller than any p that a sign-flip test can give.
    least = [smallest_p(int(n)) for n in n_classes]
    tests = pd.DataFrame(pairs, columns=["domain_a", "domain_b"]).assign(
        difference=spread.value,
        low=low,
        high=high,
        n_classes=n_classes,
        p=np.maximum(raw, least),
        detectable=np.where(tested, detectable, np.nan),
        about=THIS_MODEL,
    )
    return tests.assign(p_holm=holm(tests["p"]))[list(TESTS)]
