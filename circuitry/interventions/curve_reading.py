"""Compute measures, such as faithfulness, and their confidence intervals from a faithfulness curve.

1. A run of the model gives up to three numbers for each image (`CURVE_NUMBERS`). A measure (`CURVE_MEASURES`) uses one
   of these numbers. The *contrast* of a run is a weighted sum of two means of this number: over the images of the
   class, and over the images of other classes. If there are several classes, contrasts are averaged over classes.
2. The measures ``right`` and ``false`` are contrasts themselves. Each of them is a share of images that are classified
   as the class. Every other measure is the ratio (contrast of the circuit - contrast of the baseline) / (contrast of
   the whole model - contrast of the baseline). The denominator is the *lead* of the whole model over the baseline.
   Contrasts are averaged over classes before the division. If resampling shows that the lead may be zero, the measure
   has no value.
3. If there is one class, the interval is the range between two percentiles of a bootstrap. Images are resampled, and so
   are the random circuits. The interval says how the value varies with the choice of images of this class. If there is
   only one image of the class, or only one image of other classes, there is no interval.
4. If there are several classes, the classes are resampled, and so are the random circuits. Each class has images of its
   own, so this includes the spread of images (see `comparison.bootstrap`). With n classes, the half-width of the
   interval is t sqrt(n / (n - 1) v). Here v is the variance of the resampled values, and t is Student's quantile with
   n - 1 degrees of freedom. Percentiles would give intervals that are too narrow: with 8 classes, intervals of 95 %
   contained the true value in only 88 % of simulated studies.

Does not import torch.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Bool, Float

from circuitry.comparison.bootstrap import (
    CONFIDENCE,
    draw_counts,
    known_variance,
    percentile_band,
)
from circuitry.comparison.statistics import Spread

CURVE_NUMBERS = ("metric", "kl", "top")
"""The numbers of an image in a run. The metric is always known. With a `ClassLogit` there are two more: ``kl``, the
KL(whole model || run) of the answers among the candidate classes, and ``top``, which is 1 if the class of the metric
has the largest logit."""


class CurveMeasure(NamedTuple):
    """A weighted sum of two means of one of the `CURVE_NUMBERS`, and how it becomes a measure."""

    number: int
    """The index of the number in `CURVE_NUMBERS`."""
    own: float
    """The weight of the mean over images of the class."""
    others: float
    """The weight of the mean over images of other classes."""
    least: float | None = 0.0
    """The smallest lead for which the measure has a value. The lead is the weighted sum of the whole model minus the
    weighted sum of the baseline; the measure is divided by it. None if the weighted sum itself is the measure."""


LEAST_KL = 1e-3
"""A KL in nats. If the KL with every unit ablated is smaller, the ablated model gives the answers of the whole model.
Then it is undefined which share of the KL a circuit recovers."""
CURVE_MEASURES: Mapping[str, CurveMeasure] = {
    "faithfulness": CurveMeasure(0, 1.0, 0.0),
    "selectivity": CurveMeasure(0, 1.0, -1.0),
    "kl recovered": CurveMeasure(1, -0.5, -0.5, LEAST_KL),
    "right": CurveMeasure(2, 1.0, 0.0, None),
    "false": CurveMeasure(2, 0.0, 1.0, None),
}
NO_OTHERS = "no images of other classes"
NO_CANDIDATES = "the metric has no candidate classes to choose from"
"""Reasons why a measure is not known."""
RESAMPLES = 2000
"""The number of resamples of a bootstrap."""


Weights = tuple[
    Float[np.ndarray, "rows images"], Mapping[str, Float[np.ndarray, "rows draws"]]
]
"""Weights of the images, and weights of the circuits in ``random`` and in ``foreign`` (circuits of other classes). The
sum over images of weight times number is the contrast of a run. The weights of the images are NaN if there is no
contrast. There is one row without resampling, or one row for each resample."""
Statistic = Callable[[Weights], dict[str, np.ndarray]]
"""A function from weights to a statistic of a curve: arrays [rows, ...] by name of the circuit."""


@dataclass(frozen=True, eq=False)
class CurveReading:
    """The values of one measure, and their intervals, computed from a faithfulness curve."""

    measure: CurveMeasure
    """The measure."""
    curve: Any
    """The `FaithfulnessCurve`. The class is not imported here, because it imports this module."""

    @cached_property
    def weights(self) -> Weights:
        """The weights if neither the images nor the circuits are resampled; see `Weights`.

        Each array of weights has a single row.
        """
        return self._weights(lambda n: np.ones((1, n)), rows=1)

    def values(self, statistic: Statistic | None = None) -> dict[str, np.ndarray]:
        """Return a dictionary from the name of a circuit, such as ``kept``, to the values of a statistic.

        The values are NaN if the measure has no value (see `reason`).

        Args:
            statistic: A function that computes the statistic from weights. By default the statistic is the measure,
                with one value for each size.
        """
        by_circuit = (statistic or self.ratios)(self.weights)
        known = np.nan if self.reason else 1.0
        return {name: rows[0] * known for name, rows in by_circuit.items()}

    def ratios(self, weights: Weights) -> dict[str, np.ndarray]:
        """Return a dictionary from the name of a circuit, such as ``kept``, to the measure [rows, sizes].

        A ratio is NaN if the whole model does no better than the baseline. The measures ``right`` and ``false`` are not
        ratios. For these measures there are two more entries: ``full`` for the whole model, and ``empty`` for the model
        with every unit ablated.

        Args:
            weights: The weights, with one row for each row of the result.
        """
        images, draws = weights
        number = self.measure.number
        shape = (len(images), self.curve.kept.shape[1])
        if len(self.curve.full) <= number:  # the metric has no candidate classes
            unknown = np.full(shape, np.nan)
            return {"kept": unknown, "complement": unknown}
        contrasts = dict[str, np.ndarray]()
        for name in ("kept", "complement"):
            contrasts[name] = images @ getattr(self.curve, name)[number].T
        for name, of_draws in draws.items():
            if of_draws.shape[1]:
                # The contrast of each row, averaged over draws (or other classes) with the weights of this row.
                contrasts[name] = np.einsum(
                    "dfi,ri,rd->rf",
                    getattr(self.curve, name)[number],
                    images,
                    of_draws,
                    optimize=True,
                )
        empty = (images @ self.curve.empty[number])[:, None]
        if self.measure.least is None:
            full = (images @ self.curve.full[number])[:, None]
            contrasts["empty"] = np.broadcast_to(empty, shape)
            contrasts["full"] = np.broadcast_to(full, shape)
            return contrasts
        lead = self._lead(images)[:, None]
        return {name: (value - empty) / lead for name, value in contrasts.items()}

    def intervals(self, statistic: Statistic) -> dict[str, np.ndarray]:
        """Return a dictionary from the name of a circuit to an array: value, low and high end of the interval.

        Args:
            statistic: A function that computes the statistic from weights.
        """
        resampled = statistic(self._resampled)
        by_circuit = dict[str, np.ndarray]()
        for name, value in self.values(statistic).items():
            low, high = self._interval(value, resampled[name])
            by_circuit[name] = np.stack([value, low, high])
        return by_circuit

    def _interval(self, value: np.ndarray, resampled: np.ndarray) -> np.ndarray:
        """Return the low and the high end of the interval around values: an array [2, ...].

        Args:
            value: The values [...].
            resampled: The values in each resample, [resamples, ...].
        """
        band = percentile_band(resampled)
        n = len(self._classes)
        if n > 1:
            # Resampling n classes gives (n - 1) / n of the variance of their mean. If the percentiles are NaN, there is
            # no interval either.
            variance = n / (n - 1) * known_variance(resampled)
            variance = np.where(np.isnan(band[0]), np.nan, variance)
            spread = Spread(value, variance, np.full_like(value, n - 1.0))
            band = np.stack(spread.interval())
            # Shares of answers lie in [0, 1], but Student's interval may extend beyond.
            if self.measure.least is None:
                band = band.clip(0, 1)
            return band
        fewest = min(side.sum() for _, side in self._sides)
        if fewest < 2:  # resamples of a single image are all the same
            return np.full_like(band, np.nan)
        return band

    @cached_property
    def reason(self) -> str:
        """The reason why there is no value; an empty text if there is a value."""
        number = self.measure.number
        if len(self.curve.full) <= number:
            return NO_CANDIDATES
        if not self._classes:
            return NO_OTHERS
        if self.measure.least is None:
            return ""
        images, _ = self.weights
        full = float((images @ self.curve.full[number])[0])
        empty = float((images @ self.curve.empty[number])[0])
        if np.isnan(self._lead(images)).any():
            if self.measure.least:
                return f"with nothing kept the answers are the whole model's: a KL of {-empty:.2g} nats"
            return f"the model does no better than the baseline: {round(full, 9):.4g} against {round(empty, 9):z.4g}"
        # If a whole tail of the resamples has no lead, the interval of the lead contains zero.
        if np.isnan(self._lead(self._resampled[0])).mean() >= (1 - CONFIDENCE) / 2:
            return f"the lead of the model over the baseline is within the noise: {full:.4g} against {empty:.4g}"
        return ""

    @cached_property
    def _sides(self) -> list[tuple[float, Bool[np.ndarray, " images"]]]:
        """The sets of images that the measure uses: for each set, the weight of its mean and the mask of its images."""
        sides = [
            (self.measure.own, self.curve.own),
            (self.measure.others, ~self.curve.own),
        ]
        # A set of images with weight 0 is left out, because its classes need not have images.
        return [(weight, side) for weight, side in sides if weight]

    @cached_property
    def _classes(self) -> list[int]:
        """The classes that have images in every set of images that the measure uses (see `_sides`)."""
        of_sides = [set(self.curve.group[side].tolist()) for _, side in self._sides]
        return sorted(set.intersection(*of_sides))

    @cached_property
    def _resampled(self) -> Weights:
        rng = np.random.default_rng(0)
        return self._weights(lambda n: draw_counts(rng, n, RESAMPLES), rows=RESAMPLES)

    def _weights(self, count: Callable[[int], np.ndarray], rows: int) -> Weights:
        """Return the weights of images and circuits, given how often each of them is drawn.

        If there are several classes, classes are drawn, and all images of a class have equal weights. If there is a
        single class, its images are drawn.

        Args:
            count: A function that takes a number n and returns how often each of n members is drawn [rows, n].
            rows: The number of rows: 1 without resampling, otherwise the number of resamples.
        """
        # The calls of `count` draw random numbers, so another order of the calls would change every interval.
        n = len(self._classes)
        images = np.full((rows, len(self.curve.own)), 0.0 if n else np.nan)
        by_class = count(n) / n if n > 1 else np.ones((rows, n))
        for place, number in enumerate(self._classes):
            for weight, side in self._sides:
                mine = np.flatnonzero(side & (self.curve.group == number))
                counts = count(len(mine)) if n == 1 else np.ones((1, len(mine)))
                # A mean over the class's images, weighted by the class's share of the draws.
                images[:, mine] = weight * by_class[:, place, None] * counts / len(mine)
        draws = dict[str, np.ndarray]()
        for name in ("random", "foreign"):
            n_draws = getattr(self.curve, name).shape[1]
            draws[name] = np.zeros((rows, 0))
            if n_draws:
                draws[name] = count(n_draws) / n_draws
        return images, draws

    def _lead(self, images: np.ndarray) -> np.ndarray:
        """Return the contrast of the whole model minus the contrast of the baseline, for each row of weights.

        The difference is NaN if it is not above rounding errors, or not above the smallest lead of the measure.

        Args:
            images: The weights of the images [rows, images].
        """
        full = self.curve.full[self.measure.number]
        empty = self.curve.empty[self.measure.number]
        lead = images @ (full - empty)
        # The largest absolute value that the sum could have; rounding errors are relative to this value.
        size = np.abs(images) @ np.maximum(np.abs(full), np.abs(empty))
        least = np.maximum(1e-6 * size, self.measure.least or 0)
        return np.where(lead > least, lead, np.nan)
