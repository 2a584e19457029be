"""The bootstrap of ratios: weights of resamples, and percentile bands where a ratio is bounded. No torch."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int

from circuitry.runs.errors import InputError


@dataclass(frozen=True)
class Bootstrap:
    """How a band is drawn."""

    confidence: float = 0.95
    resamples: int = 2000
    seed: int = 0

    def __post_init__(self) -> None:
        if not 0 < self.confidence < 1 or self.resamples < 1:
            raise InputError(
                "A band needs a confidence in (0, 1) and at least one resample, but "
                f"confidence={self.confidence} and resamples={self.resamples} were given."
            )

    def band(self, ratios: Float[np.ndarray, "resamples *rest"]) -> Float[np.ndarray, "2 *rest"]:
        """Return the percentiles of resampled ratios that hold the confidence.

        NaN where more than a tail of the resamples has no ratio: then it has no bounded interval.
        """
        tails = 50 * (1 - self.confidence), 50 * (1 + self.confidence)
        bounded = np.isnan(ratios).mean(0) < (1 - self.confidence) / 2
        if not bounded.any():
            return np.full((2, *bounded.shape), np.nan)
        return np.where(bounded, np.nanpercentile(ratios, tails, axis=0), np.nan)


def draw_counts(rng: np.random.Generator, n: int, resamples: int) -> Int[np.ndarray, "resamples n"]:
    """Return how often each of n things is in each resample."""
    return rng.multinomial(n, np.full(n, 1 / n), resamples)
