"""Simulated circuits of known similarity: kept units of classes, domains and folds of images.

The score of a unit in a class and domain is sqrt(shared) z + sqrt(1 - shared) y + noise. All terms are normal: z
belongs to the class, y to the class in the domain, and the noise to each fold of the images. The units with the largest
scores are kept, and sets of kept units are compared by their Jaccard index, like circuits. If ``shared`` is 1, domains
differ only by noise; if it is 0, they are independent.
"""

from typing import NamedTuple

from circuitry.comparison.fold_array import FoldArray

import numpy as np
from jaxtyping import Bool, Float


class Planted(NamedTuple):
    """Sizes of a simulation."""

    n_units: int = 60
    """Units of each circuit."""
    n_kept: int = 8
    """Units that a circuit keeps."""
    n_domains: int = 3
    """Domains of each class."""
    n_folds: int = 4
    """Folds of the images of a class in a domain."""

    @property
    def domains(self) -> tuple[str, ...]:
        """Names of the domains."""
        return tuple(f"d{i}" for i in range(self.n_domains))

    @property
    def chance(self) -> float:
        """Expected Jaccard index of two random kept sets."""
        rng = np.random.default_rng(0)
        # By simulation: the expectation of a ratio has no short formula.
        kept = keep(rng.normal(size=(2, 100_000, self.n_units)), self.n_kept)
        return float(jaccard(kept[0], kept[1]).mean())


class SimulatedCircuits(NamedTuple):
    """Similarities of simulated circuits of one class in two domains."""

    folds: FoldArray
    """Similarities of circuits of folds."""
    whole: Float[np.ndarray, "classes domains domains"]
    """Similarities of circuits of all images."""


def simulate(
    rng: np.random.Generator,
    shared: Float[np.ndarray, "classes #domains"],
    noise: Float[np.ndarray, "#classes #domains"] | float,
    planted: Planted,
) -> SimulatedCircuits:
    """Draw circuits of classes in domains and compare them.

    Args:
        rng: Generator of the scores.
        shared: Share of the variance of scores that a class has in common over domains.
        noise: Standard deviation of the noise of one fold. The noise of all images is the mean over folds.
        planted: Sizes of the simulation.
    """
    n = len(shared)
    d = planted.n_domains
    k = planted.n_folds
    u = planted.n_units
    own = rng.normal(size=(n, d, u))
    common = rng.normal(size=(n, 1, u))
    scores = np.sqrt(shared)[..., None] * common + np.sqrt(1 - shared)[..., None] * own
    # [classes, domains, folds, units]
    added = np.broadcast_to(noise, (n, d))[..., None, None] * rng.normal(
        size=(n, d, k, u)
    )
    kept = keep(scores[:, :, None] + added, planted.n_kept)
    whole = keep(scores + added.mean(2), planted.n_kept)
    values = jaccard(kept[:, :, None, :, None], kept[:, None, :, None])[:, :, :, None]
    # A fold compared with itself, in two domains, shares its images.
    values[..., np.arange(k), np.arange(k)] = np.nan
    classes = tuple(f"c{i:03}" for i in range(n))
    return SimulatedCircuits(
        FoldArray(classes, planted.domains, (None,), values),
        jaccard(whole[:, :, None], whole[:, None]),
    )


def keep(
    scores: Float[np.ndarray, "*circuits units"], n_kept: int
) -> Bool[np.ndarray, "*circuits units"]:
    """Return which units have the largest scores."""
    kept = np.zeros(scores.shape, bool)
    np.put_along_axis(
        kept, np.argpartition(scores, -n_kept, axis=-1)[..., -n_kept:], True, axis=-1
    )
    return kept


def jaccard(
    a: Bool[np.ndarray, "*#circuits units"], b: Bool[np.ndarray, "*#circuits units"]
) -> np.ndarray:
    """Return the Jaccard index of two sets of units: common units over units of either set."""
    return np.asarray((a & b).sum(-1) / (a | b).sum(-1))
