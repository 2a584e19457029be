"""The dual bootstrap: how much would a mean vary with other classes and other images?

The images of each class are cut into folds, and every value compares two folds. The method is the dual bootstrap of
Schuett et al. (2023, eLife 12, e82566):

1. Draw classes and folds with replacement in three ways: both together, only classes, and only folds. If a draw has a
   fold twice, the pair of the fold with itself is ignored.
2. Compute the statistic in each draw. Its variances over the three kinds of draws are v12 (both), v1 (classes) and v2
   (folds).
3. If n members are drawn with replacement, variances are too small by the factor (n - 1) / n. Multiply by correction
   factors f1 (classes) and f2 (folds): var = f1 v1 + f2 v2 - f1 f2 (v12 - v1 - v2). The code calls these factors
   inflations. If the result is above v12, it becomes v12. If it is below f1 v1, it becomes f1 v1.
4. The interval is the value plus and minus t sqrt(var), where t is Student's quantile.

The code differs from the paper in three ways. There are two reasons: each class has its own images, so v1 includes the
noise of images; and there are few folds, which are compared in pairs. With the rules of the paper, the intervals are
too wide: 95 % intervals cover the truth in 97 to 100 % of the simulations in `experiments/simulate_trust.py`. The
differences are:

- The degrees of freedom come from Satterthwaite's formula. With n1 classes and n2 folds, the term f1 v1 has n1 - 1
  degrees of freedom, and the remainder var - f1 v1 has n2 - 1. The formula gives min(n1, n2) - 1 only if all variance
  comes from the factor with fewer members.
- The variance may be smaller than f2 v2, because drawing folds gives the noise of individual pairs too much weight.
- Pairs of a fold with itself are ignored, which shrinks the variance further. Therefore f2 is not n2 / (n2 - 1). It is
  computed from the weights of the folds in the draws: f2 is the variance of a mean of n2 folds, divided by the variance
  of this mean over the draws. With two folds all usable draws are equal. Then f2 is infinite, and only classes are
  drawn.

If few classes share much and most classes share little, the distribution of the mean is skewed. Then Student's
intervals lie too low.
"""

from collections.abc import Callable, Sequence
from typing import Annotated, NamedTuple

import numpy as np
from jaxtyping import Float, Int

from circuitry.comparison.fold_array import known_ratio, mean_known
from circuitry.comparison.statistics import Spread
from circuitry.runs.arguments import SOME, Count, Seed, checked
from circuitry.runs.errors import InputError

RESAMPLES = 1000
CONFIDENCE = 0.95
"""The share of the resamples that lie between the percentiles of `percentile_band`."""

_CHUNK = 64
"""Number of draws whose sums are held in memory at once."""


class Draws(NamedTuple):
    """Draws of the bootstrap: how often each draw has each class and each fold.

    Variances over such draws are too small. The two inflations are the factors by which variances are multiplied to
    correct this.
    """

    classes: Float[np.ndarray, "draws classes"]
    """How often each class was drawn, in each draw."""
    folds: Float[np.ndarray, "draws folds"]
    """How often each fold was drawn, in each draw."""
    n_classes: int
    """Number of classes. It differs from the number of columns of ``classes`` if these columns are pairs of classes."""
    class_inflation: float
    """Factor for variances over draws of classes: n / (n - 1) for n classes, infinite for a single class."""
    fold_inflation: float
    """Factor for variances over draws of folds, computed from the weights of the folds in the draws. It is infinite if
    all draws are the same."""


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
    drawn = draw_counts(rng, n, resamples)
    folds = _draw_folds(n_folds, resamples, rng)
    class_inflation = n / (n - 1) if n > 1 else np.inf
    fold_inflation = np.inf
    if n_folds > 2:
        # The variance of a mean of n folds, divided by the variance of this mean over the draws. In a draw, the weight
        # of a fold is its share of the pairs of folds.
        pairs = _pair_weights(folds)
        n_pairs = pairs.sum((1, 2))
        shares = pairs.sum(2) / n_pairs[:, None]
        distances = np.square(shares - 1 / n_folds).sum(1)
        shrunk = distances.mean()
        fold_inflation = 1 / n_folds / shrunk
    return Draws(drawn.astype(float), folds, n, class_inflation, fold_inflation)


def draw_counts(
    rng: np.random.Generator, n: int, resamples: int
) -> Int[np.ndarray, "resamples n"]:
    """Return how often each of n members is drawn in each resample."""
    return rng.multinomial(n, np.full(n, 1 / n), resamples)


def _draw_folds(
    n_folds: int,
    resamples: int,
    rng: np.random.Generator,
) -> Float[np.ndarray, "draws folds"]:
    """Draw folds with replacement.

    A draw that holds a single fold is repeated, because it has no pair of different folds.
    """
    drawn = draw_counts(rng, n_folds, resamples)
    # Each pass draws the useless rows again; of two folds half are useless, of more hardly any.
    while n_folds > 1:
        alone = (drawn == n_folds).any(1)
        if not alone.any():
            break
        n_alone = int(alone.sum())
        drawn[alone] = draw_counts(rng, n_folds, n_alone)
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
    """For every draw, return the mean over classes and over pairs of different folds.

    A class or a pair of folds has a larger weight if it was drawn more often. Unknown values are ignored. If
    ``classes`` or ``folds`` has a single row, this row is used for all draws.

    Args:
        values: Similarities by class, any further axes (``*cells``, such as sites), and two folds; NaN for unknown
            values.
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
    """For every draw, return the sum of values over classes and pairs of folds.

    The weight of a class, and of a pair of folds, is how often the draw has it.
    """
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
        values: Similarities by class, any further axes (``*cells``, such as sites), and two folds. Unknown values, and
            values of a fold with itself, are NaN.
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
    """Return the variance of a statistic, corrected for drawing with replacement (step 3 of the module's text).

    With very many classes and folds, both inflations are 1. Then the variance is 2 (by_class + by_fold) - both.

    Args:
        both: Variance over draws of classes and folds together.
        by_class: Variance over draws of classes alone.
        by_fold: Variance over draws of folds alone.
        class_inflation: Factor that corrects ``by_class``, which is too small; see `Draws`.
        fold_inflation: Factor that corrects ``by_fold``, which is too small.
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


def percentile_band(
    ratios: Float[np.ndarray, "resamples *rest"],
) -> Float[np.ndarray, "2 *rest"]:
    """Return the two percentiles between which `CONFIDENCE` of the resampled ratios lie, as an array [2, ...].

    Resamples whose ratio is NaN are left out. If they make up (1 - `CONFIDENCE`) / 2 of the resamples or more, the
    percentiles are NaN.
    """
    percentiles = [50 * (1 - CONFIDENCE), 50 * (1 + CONFIDENCE)]
    bounded = np.isnan(ratios).mean(0) < (1 - CONFIDENCE) / 2
    if not bounded.any():
        # `nanpercentile` warns if a column contains only NaN.
        return np.full((2, *bounded.shape), np.nan)
    return np.where(bounded, np.nanpercentile(ratios, percentiles, axis=0), np.nan)
