"""Does the class or the domain make circuits similar?

The table has four cells: circuits of the same class or of two classes, each in the same domain or in two domains. All
cells compare different folds, with equally many images. An effect is a difference of cells. Its interval comes from the
dual bootstrap, in which the weight of a pair of classes is the product of the counts of both classes. Its p value comes
from exchanging "same" and "other", class by class.

The intervals are conservative: they cover the truth in more than 95 % of cases. If two classes have only one pair of
folds, drawing folds mostly removes pairs of classes. In simulations with 4 to 30 classes, each compared with 2 or 6
other classes, intervals of the class effect were 1.2 to 2.4 times as wide as Student's intervals over fresh draws.
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
"""Weights of the cells in each effect.

The last effect is the similarity of one class in two domains minus the similarity of two classes in two domains."""

_COLUMNS = ("what", "value", "low", "high", "n_classes", "p", "detectable", "about")


@checked
def class_by_domain(folds: FoldTable, *, seed: Seed = 0) -> pd.DataFrame:
    """Return the mean similarity in each of the four cells, and the effects of class and domain.

    Means are over classes, domains and sites.

    Args:
        folds: A table of folds; see `FOLDS`. If it has no rows for a cell, the result lacks this cell and its effects.

    Returns:
        Columns what (of `CELLS` and `EFFECTS`), value, low, high (95 %), n_classes, p (of effects; NaN for cells),
        detectable (the effect that four of five studies like this would find; infinite if there are too few classes),
        about (the scope of p). If ``folds`` is empty, the result has no rows.
    """
    pairs, values = _pair_array(folds)
    classes, a, b = places_of(pairs, "class")
    if not classes:
        return pd.DataFrame(columns=list(_COLUMNS))
    draws = draw_resamples(classes, values.shape[-1], seed=seed)
    # A pair of classes counts as often as both were drawn, one class as often as it was.
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
    # p exchanges "same" and "other" class by class, so it needs each class's own effect.
    of_pairs = mean_known(values, (-2, -1))
    of_class = _by_class(of_pairs, a, b, len(classes))
    results = _contrast(of_class, contrasts)
    n_classes = (~np.isnan(results)).sum(0)
    p = np.full(len(contrasts), np.nan)
    # Cells come first; a p value is of an effect alone.
    for i in range(len(CELLS), len(contrasts)):
        effect = results[:, i]
        p[i] = sign_flip_p(effect[~np.isnan(effect)], seed=seed)
    # With fewer classes no exchange can give a p below the level, however large the effect.
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
        A table of the pairs with the columns class_a and class_b, and the means by pair, cell (of `CELLS`) and two
        folds. A mean is NaN if the pair has no row of this cell.
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
    """Return weighted sums of cells; NaN if a cell with a weight other than zero is unknown."""
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
    """Return the mean of each class over the pairs that it belongs to.

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
