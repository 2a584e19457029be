"""Read a faithfulness curve: contrasts between images, alone or as a share of the model's, with intervals. No torch.

1. A run gives three numbers for each image (`CURVE_NUMBERS`). A measure takes one of them, averages it over the images
   of the class and over images of other classes, and adds the two means with weights (`CURVE_MEASURES`). The sum is a
   contrast. With several classes it is averaged over classes.
2. Shares of answers (``right``, ``false``) are contrasts. Each other measure is the share of the whole model's lead
   that a circuit keeps: (contrast of the circuit - contrast of the baseline) / (contrast of the whole model - contrast
   of the baseline). Contrasts are averaged over classes before the division. Where resampling shows that the lead is
   within the noise, the measure has no value.
3. The interval of one class resamples images, and the draws of random circuits, and takes percentiles. It is about
   this class and other images of it: with a single image, of the class or of others, there is none.
4. The interval of several classes resamples classes, and the draws of random circuits. Classes have images of their
   own, so this includes the spread of images (see `comparison.bootstrap`). With n classes it is the value plus and
   minus Student's quantile with n - 1 degrees of freedom times the root of n / (n - 1) times the resampled variance.
   Percentiles would be too narrow: of 8 classes they hold the truth in 88 % of simulated studies in place of 95 %.
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
"""Numbers of an image in a run: the metric; with a `ClassLogit` also KL(whole model || run) of the answers among the
candidate classes, and whether the class of the metric has the largest logit."""


class CurveMeasure(NamedTuple):
    """A contrast of one of the `CURVE_NUMBERS`."""

    number: int
    own: float
    """Weight of the mean over images of the class."""
    others: float
    """Weight of the mean over images of other classes."""
    least: float | None = 0.0
    """The least lead of the whole model that is divided by; None: the contrast is read as it is."""


LEAST_KL = 1e-3
"""KL in nats of the answers with nothing kept, below which they are those of the whole model."""
CURVE_MEASURES: Mapping[str, CurveMeasure] = {
    "faithfulness": CurveMeasure(0, 1.0, 0.0),
    "selectivity": CurveMeasure(0, 1.0, -1.0),
    "kl recovered": CurveMeasure(1, -0.5, -0.5, LEAST_KL),
    "right": CurveMeasure(2, 1.0, 0.0, None),
    "false": CurveMeasure(2, 0.0, 1.0, None),
}
NO_OTHERS = "no images of other classes"
NO_CANDIDATES = "the metric has no candidate classes to choose from"
"""Why a measure is not known."""
CONFIDENCE = 0.95
"""Share of the resamples that a bootstrap band holds."""
RESAMPLES = 2000
"""Number of resamples."""


def faithfulness_ratio(kept: float, full: float, empty: float) -> tuple[float, str]:
    """Return (m(circuit) - m(baseline)) / (m(model) - m(baseline)), or NaN and the reason why there is none.

    All three are metrics averaged over the images, before any division.
    """
    # A lead within rounding would make the ratio noise; a negative lead would turn its sign.
    if full - empty <= 1e-6 * max(abs(full), abs(empty)):
        return float("nan"), describe_missing_lead(full, empty)
    return (kept - empty) / (full - empty), ""


def describe_missing_lead(full: float, empty: float) -> str:
    """Say that a ratio is undefined because the whole model has no lead over the baseline."""
    return f"the model does no better than the baseline: {round(full, 9):.4g} against {round(empty, 9):z.4g}"


def percentile_band(
    ratios: Float[np.ndarray, "resamples *rest"],
) -> Float[np.ndarray, "2 *rest"]:
    """Return the percentiles of resampled ratios that hold `CONFIDENCE` of them.

    NaN where more than a tail of the resamples has no ratio: the interval is not bounded there.
    """
    percentiles = [50 * (1 - CONFIDENCE), 50 * (1 + CONFIDENCE)]
    bounded = np.isnan(ratios).mean(0) < (1 - CONFIDENCE) / 2
    if not bounded.any():
        # `nanpercentile` warns of columns that are all NaN.
        return np.full((2, *bounded.shape), np.nan)
    return np.where(bounded, np.nanpercentile(ratios, percentiles, axis=0), np.nan)


def draw_counts(rng: np.random.Generator, n: int) -> Int[np.ndarray, "resamples n"]:
    """Return how often each of n things is in each of `RESAMPLES` resamples."""
    return rng.multinomial(n, np.full(n, 1 / n), RESAMPLES)


Weights = tuple[
    Float[np.ndarray, "rows images"], Mapping[str, Float[np.ndarray, "rows draws"]]
]
"""Weights of the sum over images (NaN without a contrast), and of the sums over random and foreign circuits. There is
one row for the value itself, or one row for each resample."""
Statistic = Callable[[Weights], dict[str, np.ndarray]]
"""A function from weights to a statistic of a curve: values [rows, ...] by circuit."""


@dataclass(frozen=True, eq=False)
class CurveReading:
    """A curve read as one measure."""

    measure: CurveMeasure
    curve: Any
    """A `FaithfulnessCurve`, which is not imported here."""

    @cached_property
    def weights(self) -> Weights:
        """The weights of the measure itself."""
        return self._weights(lambda n: np.ones((1, n)), rows=1)

    def values(self, statistic: Statistic | None = None) -> dict[str, np.ndarray]:
        """Return a statistic (default: the measure [sizes]) by circuit; NaN where there is a `reason`."""
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
        """Return the measure [rows, sizes] by circuit; NaN where the whole model has no lead.

        Shares of answers are also those of the whole model (``full``) and with nothing kept (``empty``).
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
                # The mean over draws (or foreign classes) of each row's contrast, with the row's own weights of draws.
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
        """Return [value, low, high] of a statistic by circuit."""
        resampled = statistic(self._resampled)
        by_circuit = dict[str, np.ndarray]()
        for name, value in self.values(statistic).items():
            low, high = self._interval(value, resampled[name])
            by_circuit[name] = np.stack([value, low, high])
        return by_circuit

    def _interval(self, value: np.ndarray, resampled: np.ndarray) -> np.ndarray:
        """Return the interval [2, rest] around a value [rest] from resampled values [resamples, rest]."""
        band = percentile_band(resampled)
        n = len(self._classes)
        if n > 1:
            # Resampling n classes gives (n - 1) / n of the variance of their mean. Where the percentiles are not
            # bounded, there is no interval either.
            variance = n / (n - 1) * known_variance(resampled)
            variance = np.where(np.isnan(band[0]), np.nan, variance)
            spread = Spread(value, variance, np.full_like(value, n - 1.0))
            band = np.stack(spread.interval())
            # Student's interval may leave [0, 1], where shares of answers lie.
            if self.measure.least is None:
                band = band.clip(0, 1)
            return band
        fewest = min(side.sum() for _, side in self._sides)
        if fewest < 2:  # resamples of a single image are all the same
            return np.full_like(band, np.nan)
        return band

    @cached_property
    def reason(self) -> str:
        """Why there is no value; empty where there is."""
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
        # As many resamples without a lead as a tail of the interval has: zero cannot be told from the lead.
        if np.isnan(self._lead(self._resampled[0])).mean() >= (1 - CONFIDENCE) / 2:
            return f"the lead of the model over the baseline is within the noise: {full:.4g} against {empty:.4g}"
        return ""

    @cached_property
    def _sides(self) -> list[tuple[float, Bool[np.ndarray, " images"]]]:
        """The images whose means the contrast adds, each with its weight."""
        sides = [
            (self.measure.own, self.curve.own),
            (self.measure.others, ~self.curve.own),
        ]
        # A side of weight 0 is left out: its classes need not have images.
        return [(weight, side) for weight, side in sides if weight]

    @cached_property
    def _classes(self) -> list[int]:
        """The classes that have all the images that the contrast takes."""
        of_sides = [set(self.curve.group[side].tolist()) for _, side in self._sides]
        return sorted(set.intersection(*of_sides))

    @cached_property
    def _resampled(self) -> Weights:
        rng = np.random.default_rng(0)
        return self._weights(lambda n: draw_counts(rng, n), rows=RESAMPLES)

    def _weights(self, count: Callable[[int], np.ndarray], rows: int) -> Weights:
        """Return weights from a function that says how often each of n things counts, [rows, n].

        Counted are classes, all images of each alike; of a single class its images.
        """
        # The order of the calls of `count` is the order of the random draws, and so part of every interval.
        n = len(self._classes)
        images = np.full((rows, len(self.curve.own)), 0.0 if n else np.nan)
        by_class = count(n) / n if n > 1 else np.ones((rows, n))
        for place, number in enumerate(self._classes):
            for weight, side in self._sides:
                mine = np.flatnonzero(side & (self.curve.group == number))
                counts = count(len(mine)) if n == 1 else np.ones((1, len(mine)))
                # A mean over the class's images, times the class's share.
                images[:, mine] = weight * by_class[:, place, None] * counts / len(mine)
        draws = dict[str, np.ndarray]()
        for name in ("random", "foreign"):
            n_draws = getattr(self.curve, name).shape[1]
            draws[name] = np.zeros((rows, 0))
            if n_draws:
                draws[name] = count(n_draws) / n_draws
        return images, draws

    def _lead(self, images: np.ndarray) -> np.ndarray:
        """Return the contrast of the whole model less the baseline's; NaN where it is within rounding."""
        full = self.curve.full[self.measure.number]
        empty = self.curve.empty[self.measure.number]
        lead = images @ (full - empty)
        # The largest sum that the weights could make: rounding is a share of it.
        size = np.abs(images) @ np.maximum(np.abs(full), np.abs(empty))
        least = np.maximum(1e-6 * size, self.measure.least or 0)
        return np.where(lead > least, lead, np.nan)
