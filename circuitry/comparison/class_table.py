"""Does the class or the domain make circuits similar? Same and other class, in the same and another domain.

All four cells compare different folds, with equally many images. Effects are differences of the cells. Each has an
interval from the dual bootstrap, which weights a pair of classes by the counts of both, and a p value from exchanging
"same" and "other", class by class.

Intervals are conservative: they cover the truth in more than 95 %. If two classes have one pair of folds, drawing folds
mostly removes pairs of classes. In simulations with 4 to 30 classes, each compared with 2 or 6 others, intervals of the
class effect were 1.2 to 2.4 times as wide as Student's over fresh draws.
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
"""Weights of the cells. The last effect is a class in two domains minus two classes in two domains."""

_COLUMNS = ("what", "value", "low", "high", "n_classes", "p", "detectable", "about")


@checked
def class_by_domain(folds: FoldTable, *, seed: Seed = 0) -> pd.DataFrame:
    """Return the four means over classes, domains and sites, and their differences.

    Args:
        folds: A table of folds; see `FOLDS`. The result lacks cells without rows, and their effects.

    Returns:
        Columns what (of `CELLS` and `EFFECTS`), value, low, high (95 %), n_classes, p (of effects), detectable (the
        effect that four of five studies like this find, infinite for too few classes), about (the scope of p). No row
        for a table without folds.
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
    """Return the pairs of classes, and for each its means over domains and sites in each of `CELLS`, by fold.

    Columns of the pairs are class_a and class_b. NaN where a pair has no row of a cell.
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
    """Return weighted sums of cells; NaN if a cell with a weight is unknown."""
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
    """Return each class's mean over its pairs."""
    pairs = np.arange(len(values))
    # A class with itself sets the same 1 twice, so it counts once.
    member = np.zeros((n_classes, len(values)))
    member[a, pairs] = 1.0
    member[b, pairs] = 1.0
    return mean_of_members(member, values)
