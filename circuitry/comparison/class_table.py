"""Does the class or the domain make circuits similar?

Two circuits are of the same class or of two classes, and of the same domain or of two domains. The mean similarities in
these four cases are the cells of a table with two rows and two columns. In all four cells, circuits of two different
folds are compared, with equally many images.

An effect is a difference of cells. Its interval comes from the dual bootstrap. In a draw, the weight of a pair of
classes is the product of how often the two classes were drawn. The p value of an effect comes from a sign-flip test
over classes: if "same" and "other" are exchanged for a class, the effect of this class changes its sign.

The intervals are conservative: they cover the truth in more than 95 % of cases. The reason is that two classes may be
compared on only one pair of folds. If a draw of folds lacks this pair, the pair of classes is missing, too. In
simulations with 4 to 30 classes, each compared with 2 or 6 other classes, intervals of the class effect were 1.2 to 2.4
times as wide as Student's intervals over newly simulated data.
"""

import numpy as np
import pandas as pd
from jaxtyping import Float

from circuitry.comparison.bootstrap import draw_resamples, dual_bootstrap
from circuitry.comparison.domain_testing import THIS_MODEL
from circuitry.comparison.fold_array import (
    FoldTable,
    mean_known,
    mean_of_members,
    of_whole,
    places_of,
)
from circuitry.comparison.significance import LEVEL, fewest_units, sign_flip_p
from circuitry.runs.arguments import Seed, checked

CELLS = (
    "same class, same domain",
    "same class, other domain",
    "other class, same domain",
    "other class, other domain",
)
EFFECTS = {
    "class effect": (0.5, 0.5, -0.5, -0.5),
    "domain effect": (0.5, -0.5, 0.5, -0.5),
    "domain effect within a class": (1, -1, 0, 0),
    "class effect across domains": (0, 1, 0, -1),
}
"""Each effect is a weighted sum of the four cells. These are the weights, in the order of `CELLS`.

The last effect is the similarity of one class in two domains minus the similarity of two classes in two domains."""

_COLUMNS = ("what", "value", "low", "high", "n_classes", "p", "detectable", "about")


@checked
def class_by_domain(folds: FoldTable, *, seed: Seed = 0) -> pd.DataFrame:
    """Return the mean similarity within and between classes and domains, and the effects of class and domain.

    There are four mean similarities (`CELLS`): of the same class or of two classes, in the same domain or in two
    domains. An effect is a difference of these means. Means are over classes, domains and sites.

    Args:
        folds: A table of similarities between folds, with the columns `FOLDS`. If the table has no rows for one of the
            four means, the result lacks this mean and the effects that need the mean.

    Returns:
        Columns what (name of the mean or effect), value, low, high (95 % interval), n_classes, p (NaN for means),
        detectable (the size of the effect that four of five studies like this would find; infinite if there are too
        few classes), about (a phrase that says what p is about). If ``folds`` is empty, the result has no rows.
    """
    pairs, values = _pair_array(folds)
    classes, a, b = places_of(pairs, "class")
    if not classes:
        return pd.DataFrame(columns=list(_COLUMNS))
    draws = draw_resamples(classes, values.shape[-1], seed=seed)
    # The weight of a pair of two classes is the product of their counts. For a class with itself, it is the count.
    count_a = draws.classes[:, a]
    count_b = draws.classes[:, b]
    weights = count_a * np.where(a == b, 1.0, count_b)
    # Each cell is the contrast with a weight on itself alone; so cells and effects are computed alike.
    contrasts = np.vstack([np.eye(len(CELLS)), list(EFFECTS.values())])
    spread = dual_bootstrap(
        values,
        lambda means: _contrast(means, contrasts),
        draws._replace(classes=weights),
    )
    low, high = spread.interval()
    # The sign-flip test needs the effect of each class.
    of_pairs = mean_known(values, (-2, -1))
    of_class = _by_class(of_pairs, a, b, len(classes))
    results = _contrast(of_class, contrasts)
    n_classes = (~np.isnan(results)).sum(0)
    p = np.full(len(contrasts), np.nan)
    # Cells come first. Only effects have a p value.
    for i in range(len(CELLS), len(contrasts)):
        effect = results[:, i]
        p[i] = sign_flip_p(effect[~np.isnan(effect)], seed=seed)
    # With fewer classes the sign-flip test cannot give a p below the level, however large the effect is.
    detectable = spread.detectable(LEVEL)
    detectable = np.where(n_classes >= fewest_units(1), detectable, np.inf)
    table = pd.DataFrame(
        {
            "what": [*CELLS, *EFFECTS],
            "value": spread.value,
            "low": low,
            "high": high,
            "n_classes": n_classes,
            "p": p,
            "detectable": np.where(np.isnan(p), np.nan, detectable),
            "about": np.where(np.isnan(p), "", THIS_MODEL),
        }
    )
    return table.dropna(subset="value").reset_index(drop=True)


def _pair_array(
    folds: FoldTable,
) -> tuple[pd.DataFrame, Float[np.ndarray, "pairs cells folds folds"]]:
    """Return the pairs of classes, and their mean similarities over domains and sites.

    Returns:
        A table of the pairs with the columns class_a and class_b, and an array of means [pairs, cells, folds, folds].
        The cells are the four cases of `CELLS`. A mean is NaN if the table of folds has no row for this pair of
        classes, cell and pair of folds.
    """
    rows = folds[~of_whole(folds)].dropna(subset="value")
    other_class = rows["class_a"] != rows["class_b"]
    other_domain = rows["domain_a"] != rows["domain_b"]
    # The place in CELLS: other classes are the second half, other domains the second of each half.
    cell = 2 * other_class + other_domain
    keys = ["class_a", "class_b", "cell", "fold_a", "fold_b"]
    rows = rows.assign(cell=cell.astype(int))
    means = rows.groupby(keys)["value"].mean().reset_index()
    of_pair = ["class_a", "class_b"]
    pairs = means[of_pair].drop_duplicates()
    place = means.groupby(of_pair, sort=False).ngroup()
    labels, p, q = places_of(means, "fold")
    shape = (
        len(pairs),
        len(CELLS),
        len(labels),
        len(labels),
    )
    values = np.full(shape, np.nan)
    values[place, means["cell"], p, q] = means["value"]
    return pairs, values


def _contrast(
    cells: Float[np.ndarray, "rows cells"],
    weights: Float[np.ndarray, "results cells"],
) -> np.ndarray:
    """Return weighted sums of the four cells.

    A sum is NaN if an unknown cell has a weight other than zero in this sum.
    """
    # An unknown cell without a weight must not make the sum unknown, as 0 * NaN would.
    has_weight = weights != 0
    n_unknown = np.isnan(cells).astype(float) @ has_weight.T
    sums = np.nan_to_num(cells) @ weights.T
    return np.where(n_unknown > 0, np.nan, sums)


def _by_class(
    values: Float[np.ndarray, "pairs cells"],
    a: np.ndarray,
    b: np.ndarray,
    n_classes: int,
) -> Float[np.ndarray, "classes cells"]:
    """For each class and cell, return the mean over the pairs that contain the class.

    Args:
        a: Index of the first class of each pair.
        b: Index of the second class of each pair.
    """
    pairs = np.arange(len(values))
    # A class with itself sets the same 1 twice, so it counts once.
    member = np.zeros((n_classes, len(values)))
    member[a, pairs] = 1.0
    member[b, pairs] = 1.0
    return mean_of_members(member, values)
