"""Read measures off a faithfulness curve: contrasts between images and their intervals. No torch.

1. A run of the model gives up to three numbers for each image (`CURVE_NUMBERS`). A measure (`CURVE_MEASURES`) takes one
   of these numbers. It averages the number over the images of the class, and over the images of other classes, and adds
   the two means with weights. The sum is called a contrast. If there are several classes, contrasts are averaged over
   classes.
2. The measures ``right`` and ``false`` (shares of answers) are contrasts. Every other measure is the share of the whole
   model's lead that a circuit keeps: (contrast of the circuit - contrast of the baseline) / (contrast of the whole
   model - contrast of the baseline). The denominator is the lead. Contrasts are averaged over classes before the
   division. If resampling shows that the lead is within the noise, the measure has no value.
3. For one class, the interval comes from percentiles of resamples. Images are resampled, and so are the draws of random
   circuits. The interval describes other images of this class. If there is only one image of the class, or only one
   image of other classes, there is no interval.
4. For several classes, classes are resampled, and so are the draws of random circuits. Each class has images of its
   own, so this includes the spread of images (see `comparison.bootstrap`). With n classes the half-width of the
   interval is Student's quantile with n - 1 degrees of freedom, times the root of n / (n - 1) times the resampled
   variance. Percentiles would be too narrow: with 8 classes, intervals of 95 % contained the true value in only 88 % of
   simulated studies.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Int

from circuitry.comparison.bootstrap import known_variance
from circuitry.comparison.statistics import Spread

CURVE_NUMBERS = ("metric", "kl", "top")
"""The numbers of an image in a run. The metric is always known. With a `ClassLogit` there are two more: ``kl``, the
KL(whole model || run) of the answers among the candidate classes, and ``top``, which is 1 if the class of the metric
has the largest logit."""


class CurveMeasure(NamedTuple):
    """A contrast of one of the `CURVE_NUMBERS`."""

    number: int
    own: float
    """The weight of the mean over images of the class."""
    others: float
    """The weight of the mean over images of other classes."""
    least: float | None = 0.0
    """The smallest lead of the whole model that the measure may be divided by; None if the contrast itself is the
    measure."""


LEAST_KL = 1e-3
"""A KL in nats. If the KL with nothing kept is smaller, the answers with nothing kept are those of the whole model."""
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
CONFIDENCE = 0.95
"""The share of the resamples that lie in a bootstrap interval."""
RESAMPLES = 2000
"""The number of resamples of a bootstrap."""


def faithfulness_ratio(kept: float, full: float, empty: float) -> tuple[float, str]:
    """Return the share of the model's lead that a circuit keeps, and an empty text; or NaN and the reason.

    The share is (m(circuit) - m(baseline)) / (m(model) - m(baseline)). The reason says why there is no share.

    Args:
        kept: The metric m with the circuit kept, averaged over the images.
        full: The same mean for the whole model.
        empty: The same mean with every unit at the baseline.
    """
    # A lead within rounding would make the ratio noise, and a negative lead would reverse the sign of the ratio.
    if full - empty <= 1e-6 * max(abs(full), abs(empty)):
        return float("nan"), describe_missing_lead(full, empty)
    return (kept - empty) / (full - empty), ""


def describe_missing_lead(full: float, empty: float) -> str:
    """Return a sentence which says that a ratio is undefined because the model has no lead over the baseline."""
    return f"the model does no better than the baseline: {round(full, 9):.4g} against {round(empty, 9):z.4g}"


def percentile_band(
    ratios: Float[np.ndarray, "resamples *rest"],
) -> Float[np.ndarray, "2 *rest"]:
    """Return the percentiles between which `CONFIDENCE` of the resampled ratios lie: [low and high, ...].

    The percentiles are NaN if so many resamples have no ratio that a tail of the interval would consist of them.
    """
    percentiles = [50 * (1 - CONFIDENCE), 50 * (1 + CONFIDENCE)]
    bounded = np.isnan(ratios).mean(0) < (1 - CONFIDENCE) / 2
    if not bounded.any():
        # `nanpercentile` warns if a column contains only NaN.
        return np.full((2, *bounded.shape), np.nan)
    return np.where(bounded, np.nanpercentile(ratios, percentiles, axis=0), np.nan)


def draw_counts(rng: np.random.Generator, n: int) -> Int[np.ndarray, "resamples n"]:
    """Return how often each of n members is drawn in each of `RESAMPLES` resamples, as an array [resamples, n]."""
    return rng.multinomial(n, np.full(n, 1 / n), RESAMPLES)


Weights = tuple[
    Float[np.ndarray, "rows images"], Mapping[str, Float[np.ndarray, "rows draws"]]
]
"""Two kinds of weights: of the images, and of the random circuits and the circuits of other classes. A weighted sum
over images is a contrast; the weights of the images are NaN if there is no contrast. There is one row for the value
itself, or one row for each resample."""
Statistic = Callable[[Weights], dict[str, np.ndarray]]
"""A function from weights to a statistic of a curve: arrays [rows, ...] by name of the circuit."""


@dataclass(frozen=True, eq=False)
class CurveReading:
    """A curve that is read as one measure."""

    measure: CurveMeasure
    curve: Any
    """The `FaithfulnessCurve`. The class is not imported here, because it imports this module."""

    @cached_property
    def weights(self) -> Weights:
        """The weights that give the value of the measure, without resampling."""
        return self._weights(lambda n: np.ones((1, n)), rows=1)

    def values(self, statistic: Statistic | None = None) -> dict[str, np.ndarray]:
        """Return the values of a statistic by name of the circuit; NaN if there is a `reason`.

        Args:
            statistic: The statistic. By default it is the measure, with one value for each size.
        """
        if statistic is None:
            statistic = self.ratios
        by_circuit = dict[str, np.ndarray]()
        for name, rows in statistic(self.weights).items():
            value = rows[0]
            if self.reason:
                value = np.full_like(value, np.nan)
            by_circuit[name] = value
        return by_circuit

    def ratios(self, weights: Weights) -> dict[str, np.ndarray]:
        """Return the measure by name of the circuit, as arrays [rows, sizes]; NaN if the whole model has no lead.

        For shares of answers (``right``, ``false``) there are also values of the whole model (``full``) and with
        nothing kept (``empty``).
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
        """Return arrays [value, low, high] of a statistic by name of the circuit."""
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
            return describe_missing_lead(full, empty)
        # If a whole tail of the resamples has no lead, the interval of the lead contains zero.
        if np.isnan(self._lead(self._resampled[0])).mean() >= (1 - CONFIDENCE) / 2:
            return f"the lead of the model over the baseline is within the noise: {full:.4g} against {empty:.4g}"
        return ""

    @cached_property
    def _sides(self) -> list[tuple[float, Bool[np.ndarray, " images"]]]:
        """The sets of images whose means the contrast adds, each with the weight of its mean."""
        sides = [
            (self.measure.own, self.curve.own),
            (self.measure.others, ~self.curve.own),
        ]
        # A set of images with weight 0 is left out, because its classes need not have images.
        return [(weight, side) for weight, side in sides if weight]

    @cached_property
    def _classes(self) -> list[int]:
        """The classes that have images in every set of images that the contrast uses."""
        of_sides = [set(self.curve.group[side].tolist()) for _, side in self._sides]
        return sorted(set.intersection(*of_sides))

    @cached_property
    def _resampled(self) -> Weights:
        rng = np.random.default_rng(0)
        return self._weights(lambda n: draw_counts(rng, n), rows=RESAMPLES)

    def _weights(self, count: Callable[[int], np.ndarray], rows: int) -> Weights:
        """Return weights from a function that counts how often each of n members is drawn.

        With several classes, classes are drawn, and all images of a class count alike. With a single class, its images
        are drawn.

        Args:
            count: A function from n to counts [rows, n].
            rows: The number of rows.
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
        """Return the contrast of the whole model minus the contrast of the baseline; NaN if it is within rounding."""
        full = self.curve.full[self.measure.number]
        empty = self.curve.empty[self.measure.number]
        lead = images @ (full - empty)
        # The largest absolute value that the sum could have; rounding errors are relative to this value.
        size = np.abs(images) @ np.maximum(np.abs(full), np.abs(empty))
        least = np.maximum(1e-6 * size, self.measure.least or 0)
        return np.where(lead > least, lead, np.nan)
