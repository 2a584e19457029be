"""The dual bootstrap: how much a mean would vary with other classes and other images.

The images of each class are cut into folds, and every value compares two folds. The method is that of Schuett et al.
(2023, eLife 12, e82566):

1. Draw classes and folds with replacement in three ways: both together, only classes, and only folds.
2. Compute the statistic of each draw. Its variances over the three kinds of draws are v12 (both), v1 (classes) and v2
   (folds). A fold compared with itself does not count.
3. Drawing from n members shrinks a variance by the factor (n - 1) / n. The inflations f1 (classes) and f2 (folds) undo
   this: var = f1 v1 + f2 v2 - f1 f2 (v12 - v1 - v2). The result is at least f1 v1 and at most v12.
4. The interval is the value plus and minus Student's quantile times the root of var.

Three things differ from the paper, for two reasons: each class has its own images, so v1 includes the noise of images,
and few folds are compared in pairs. With the rules of the paper, 95 % intervals cover the truth in 97 to 100 % of the
simulations in `experiments/simulate_trust.py`. The differences are:

- The degrees of freedom are Satterthwaite's. With n1 classes and n2 folds, f1 v1 has n1 - 1 degrees, and what remains
  of var has n2 - 1. The result is min(n1, n2) - 1 only if all variance comes from the factor with fewer members.
- The variance may be smaller than f2 v2, because drawing folds gives the noise of individual pairs too much weight.
- A fold compared with itself is dropped, which shrinks the variance further. So f2 is computed from the weights of the
  folds in the draws: it is the variance of a mean of n2 folds, divided by the variance of this mean over the draws. For
  two folds every usable draw is the same. Then f2 is infinite, and only classes are drawn.

If few classes share much and most classes share little, the mean is skewed, and Student's intervals lie too low.
"""

from collections.abc import Callable, Sequence
from typing import Annotated, NamedTuple

import numpy as np
from jaxtyping import Float

from circuitry.comparison.fold_array import known_ratio, mean_known
from circuitry.comparison.statistics import Spread
from circuitry.runs.arguments import SOME, Count, Seed, checked
from circuitry.runs.errors import InputError

RESAMPLES = 1000

_CHUNK = 64
"""Number of draws whose sums are held in memory at once."""


class Draws(NamedTuple):
    """How often each draw has each class and each fold, and the inflations that undo the shrinkage of variances."""

    classes: Float[np.ndarray, "draws classes"]
    """How often each class was drawn, in each draw."""
    folds: Float[np.ndarray, "draws folds"]
    """How often each fold was drawn, in each draw."""
    n_classes: int
    """Number of classes. It differs from the number of columns of ``classes`` if these columns are pairs of classes."""
    class_inflation: float
    """n / (n - 1) for n classes; infinite for a single class."""
    fold_inflation: float
    """The inflation for folds, from their weights in the draws; infinite if all draws are the same."""


def draw_resamples(
    classes: Annotated[Sequence[object], SOME],
    n_folds: Count,
    *,
    resamples: Count = RESAMPLES,
    seed: Seed = 0,
) -> Draws:
    """Draw classes and folds with replacement, for `dual_bootstrap`.

    Args:
        classes: The classes; only their number matters.
        n_folds: Number of folds into which the images of a class are cut; 1 if the images are not cut.
        resamples: Number of draws.

    Example:
        >>> draw_resamples(["clock", "cup"], 4, resamples=10).folds.shape
        (10, 4)
    """
    rng = np.random.default_rng(seed)
    n = len(classes)
    # Classes are drawn before folds: the order of the draws decides the numbers of a seed.
    drawn = rng.multinomial(n, np.full(n, 1 / n), resamples)
    folds = _draw_folds(n_folds, resamples, rng)
    class_inflation = n / (n - 1) if n > 1 else np.inf
    fold_inflation = np.inf
    if n_folds > 2:
        # The variance of a mean of n folds, divided by that of the draws: each fold has a share of a draw's pairs.
        pairs = _pair_weights(folds)
        n_pairs = pairs.sum((1, 2))
        shares = pairs.sum(2) / n_pairs[:, None]
        distances = np.square(shares - 1 / n_folds).sum(1)
        shrunk = distances.mean()
        fold_inflation = 1 / n_folds / shrunk
    return Draws(drawn.astype(float), folds, n, class_inflation, fold_inflation)


def _draw_folds(
    n_folds: int,
    resamples: int,
    rng: np.random.Generator,
) -> Float[np.ndarray, "draws folds"]:
    """Draw folds with replacement.

    A draw that holds a single fold is repeated, because it has no pair of different folds.
    """
    shares = np.full(n_folds, 1 / n_folds)
    drawn = rng.multinomial(n_folds, shares, resamples)
    # Each pass draws the useless rows again; of two folds half are useless, of more hardly any.
    while n_folds > 1:
        alone = (drawn == n_folds).any(1)
        if not alone.any():
            break
        n_alone = int(alone.sum())
        drawn[alone] = rng.multinomial(n_folds, shares, n_alone)
    return drawn.astype(float)


def _pair_weights(
    folds: Float[np.ndarray, "draws folds"],
) -> Float[np.ndarray, "draws folds folds"]:
    # A pair of folds counts as often as both were drawn together.
    pairs = folds[:, :, None] * folds[:, None, :]
    if folds.shape[1] > 1:
        same = np.arange(folds.shape[1])
        pairs[:, same, same] = 0.0
    else:  # a single fold stands for all images
        pairs[:] = 1.0
    return np.asarray(pairs)


def resampled_means(
    values: Float[np.ndarray, "classes *cells folds folds"],
    classes: Float[np.ndarray, "#draws classes"],
    folds: Float[np.ndarray, "#draws folds"],
) -> Float[np.ndarray, "_ *cells"]:
    """Return for every draw the weighted mean over classes and over pairs of different folds.

    Unknown values are ignored. If ``classes`` or ``folds`` has a single row, this row is used for all draws.

    Args:
        values: Similarities by class, cell and two folds; NaN for unknown values.
        classes: How often each draw has each class.
        folds: How often each draw has each fold.
    """
    cells = values.shape[1:-2]
    n_folds = values.shape[-1]
    # [classes, cells, pairs]: sums over pairs are then matrix products.
    flat = values.reshape(len(values), -1, n_folds * n_folds)
    pairs = _pair_weights(folds).reshape(len(folds), -1)
    known = ~np.isnan(flat)
    # A fold with itself (every n + 1st of the flat pairs) is unknown, and needs no weight: it has none.
    known[..., :: n_folds + 1] = True
    totals = _weighted(np.nan_to_num(flat), classes, pairs)
    # Where all is known the weights of all cells are equal, which saves the second, equally large product.
    if known.all():
        of_draws = classes.sum(1) * pairs.sum(1)
        weights = np.broadcast_to(of_draws[:, None], totals.shape)
    else:
        weights = _weighted(known.astype(float), classes, pairs)
    return known_ratio(totals, weights).reshape(-1, *cells)


def _weighted(
    values: Float[np.ndarray, "classes cells pairs"],
    classes: Float[np.ndarray, "#draws classes"],
    pairs: Float[np.ndarray, "#draws pairs"],
) -> Float[np.ndarray, "_ cells"]:
    """Return for every draw the sum over classes and pairs of folds, weighted by their counts in the draw."""
    # A factor with one row is the same in all draws: it is summed first, which saves most of the work.
    if len(pairs) == 1:
        over_pairs = values @ pairs[0]
        return np.asarray(classes @ over_pairs)
    if len(classes) == 1:
        over_classes = np.tensordot(classes[0], values, 1)
        return np.asarray(pairs @ over_classes.T)
    # The products of all draws at once would take draws x cells x pairs numbers.
    sums = []
    for start in range(0, len(classes), _CHUNK):
        chunk = slice(start, start + _CHUNK)
        over_classes = np.tensordot(classes[chunk], values, 1)
        sums.append(np.einsum("dcp,dp->dc", over_classes, pairs[chunk]))
    return np.concatenate(sums)


@checked
def dual_bootstrap(
    values: Float[np.ndarray, "classes *cells folds folds"],
    statistic: Callable[[np.ndarray], np.ndarray],
    draws: Draws,
) -> Spread:
    """Return a statistic of means over classes and folds, with its variance and its degrees of freedom.

    Args:
        values: Similarities by class, cell and two folds. Unknown values, and values of a fold with itself, are NaN.
        statistic: Function that takes means ``[draws, *cells]`` and returns results ``[draws, *results]``.
        draws: From `draw_resamples`, for the same classes and folds.

    Example:
        >>> values = np.random.default_rng(0).random((5, 2, 3, 3))    # of two sites
        >>> spread = dual_bootstrap(values, lambda means: means, draw_resamples(range(5), 3))
        >>> spread.value.shape
        (2,)
    """
    n_drawn = draws.classes.shape[1]
    n_folds = draws.folds.shape[1]
    same_classes = len(values) == n_drawn
    same_folds = values.shape[-1] == n_folds
    if values.size == 0 or not same_classes or not same_folds:
        raise InputError(
            f"Draws are of the classes and folds of the values, but values {list(values.shape)} and draws of "
            f"{n_drawn} classes and {n_folds} folds were given: draw for these."
        )
    # One draw in which each class, or each fold, counts once.
    every_class = np.ones((1, n_drawn))
    every_fold = np.ones((1, n_folds))

    def drawn_variance(classes: np.ndarray, folds: np.ndarray) -> np.ndarray:
        return known_variance(statistic(resampled_means(values, classes, folds)))

    # Classes and folds drawn together, classes alone, folds alone: v12, v1 and v2 of the module's text.
    value = statistic(resampled_means(values, every_class, every_fold))[0]
    both = drawn_variance(draws.classes, draws.folds)
    by_class = drawn_variance(draws.classes, every_fold)
    by_fold = drawn_variance(every_class, draws.folds)
    class_degrees = draws.n_classes - 1
    fold_degrees = n_folds - 1
    has_classes = draws.n_classes > 1
    has_folds = not np.isinf(draws.fold_inflation)
    # A factor with one member, or with two folds, has no spread: the other factor alone is drawn.
    if not has_classes and not has_folds:
        unknown = np.full_like(by_class, np.nan)
        return Spread(value, unknown, unknown)
    if not has_folds:
        degrees = np.full_like(by_class, class_degrees)
        return Spread(value, draws.class_inflation * by_class, degrees)
    if not has_classes:
        degrees = np.full_like(by_fold, fold_degrees)
        return Spread(value, draws.fold_inflation * by_fold, degrees)
    classes = draws.class_inflation * by_class
    variance = dual_variance(
        both,
        by_class,
        by_fold,
        draws.class_inflation,
        draws.fold_inflation,
    )
    # Satterthwaite: (v1 + v2)^2 / (v1^2 / d1 + v2^2 / d2); the fewer degrees where nothing varies.
    # The variance that classes do not explain belongs to the folds.
    rest = np.square(variance - classes) / fold_degrees
    squares = np.square(classes) / class_degrees + rest
    least = np.full_like(variance, min(class_degrees, fold_degrees))
    varies = squares > 0
    degrees = np.divide(np.square(variance), squares, out=least, where=varies)
    return Spread(value, variance, degrees)


def dual_variance(
    both: Float[np.ndarray, "*results"],
    by_class: Float[np.ndarray, "*results"],
    by_fold: Float[np.ndarray, "*results"],
    class_inflation: float,
    fold_inflation: float,
) -> Float[np.ndarray, "*results"]:
    """Return the corrected variance of a dual bootstrap; see the module's text.

    If both inflations are 1, as for very many classes and folds, this is 2 (by_class + by_fold) - both.

    Args:
        both: Variance over draws of classes and folds together.
        by_class: Variance over draws of classes alone.
        by_fold: Variance over draws of folds alone.
        class_inflation: Factor that undoes the shrinkage of ``by_class``; see `Draws`.
        fold_inflation: Factor that undoes the shrinkage of ``by_fold``.
    """
    classes = class_inflation * by_class
    folds = fold_inflation * by_fold
    interaction = class_inflation * fold_inflation * (both - by_class - by_fold)
    corrected = classes + folds - interaction
    # Drawing classes alone is a lower bound; drawing both, uncorrected, an upper one.
    most = np.maximum(classes, both)
    return np.asarray(np.clip(corrected, classes, most))


def known_variance(
    drawn: Float[np.ndarray, "draws *results"],
) -> Float[np.ndarray, "*results"]:
    """Return the variance over the known draws; NaN if fewer than two draws are known."""
    known = ~np.isnan(drawn)
    n = known.sum(0)
    # An unknown draw lies at the mean, so that it adds nothing.
    apart = np.where(known, drawn - mean_known(drawn, 0), 0.0)
    return known_ratio(np.square(apart).sum(0), n - 1)
