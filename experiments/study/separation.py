"""Are domains separate in an embedding space? Distances, silhouettes, probes, modality gap. No torch.

All vectors have length 1. Between domains, `compare_distances` compares class by class, `mean_distances` whole domains
(the study's: Euclidean). Distances, spread, silhouettes and gap do not change when the space is rotated.
"""

from itertools import combinations
from typing import Literal

from circuitry.runs import InputError
from circuitry.comparison import Comparison
from circuitry.data.parts import DEFAULT_PARTS
from circuitry.representations import Embeddings, probe_accuracy
from circuitry.representations.cells import ALL, compare_by_parts

import numpy as np
import pandas as pd
from jaxtyping import Float
from sklearn.metrics import silhouette_samples

DISTANCES = ("cosine", "euclidean", "standardised")
"""Distances between the means of two sets of vectors; see `distance`."""

MOST_IMAGES = 10_000
"""Images whose silhouettes are computed at most."""


def distance(a: Float[np.ndarray, "n d"], b: Float[np.ndarray, "m d"], measure: str = "cosine") -> float:
    """Return the distance between the means p and q of two sets of vectors.

    - ``cosine``: 1 - p.q / (|p| |q|), in 0..2;
    - ``euclidean``: |p - q|;
    - ``standardised``: |p - q| / sqrt((v + w) / 2), where v and w are the summed variances (divided by n - 1) of the
      two sets: the distance in units of their spread, which does not change when the whole space shrinks.

    NaN if a mean is zero (cosine), or if a set has one vector or both have no spread (standardised).
    """
    (p, v), (q, w) = _moments(a), _moments(b)
    return float(_apart(p[None], np.array([v]), q[None], np.array([w]), measure)[0])


def _moments(vectors: Float[np.ndarray, "n d"]) -> tuple[np.ndarray, float]:
    """Return the mean [d] and the summed variance of a set of vectors; NaN for the variance of one vector."""
    variance = vectors.var(0, dtype=np.float64, ddof=1).sum() if len(vectors) > 1 else np.nan
    return vectors.mean(0, dtype=np.float64), float(variance)


def _apart(p: np.ndarray, v: np.ndarray, q: np.ndarray, w: np.ndarray, measure: str) -> np.ndarray:
    """Return the distances of pairs of means p and q [pairs, d] with summed variances v and w [pairs]."""
    if measure == "cosine":
        norms = np.linalg.norm(p, axis=1) * np.linalg.norm(q, axis=1)
        return np.asarray(1 - (p * q).sum(1) / np.where(norms > 0, norms, np.nan))
    apart = np.linalg.norm(p - q, axis=1)
    if measure == "euclidean":
        return np.asarray(apart)
    variance = (v + w) / 2
    return np.asarray(apart / np.sqrt(np.where(variance > 0, variance, np.nan)))


def compare_distances(images: Embeddings, measure: str = "cosine", *, seed: int = 0) -> Comparison:
    """Compare each class between all pairs of domains by the distance of its means; small means near.

    A finite number of images separates means by itself. So the mean distance of two parts of a class's images takes the
    place of ceilings: two domains that are no farther apart, at equal numbers of images, cannot be distinguished.

    Args:
        images: The images.
        measure: See `distance`.
        seed: Seed of the bootstraps.

    Raises:
        InputError: when no class has images in two domains.
    """

    def describe(rows: np.ndarray) -> np.ndarray:
        mean, variance = _moments(images.vectors[rows])
        return np.append(mean, variance)

    def compare(a: np.ndarray, b: np.ndarray) -> np.ndarray:
        return _apart(a[:, :-1], a[:, -1], b[:, :-1], b[:, -1], measure)

    return compare_by_parts(
        f"{measure}_distance",
        images.table(),
        DEFAULT_PARTS,
        describe,
        compare,
        alike=False,
        about={"seed": seed},
        seed=seed,
    )


def mean_distances(images: Embeddings) -> pd.DataFrame:
    """Return the distances between the means of whole domains, by every measure.

    They include differences in the domains' shares of the classes; `compare_distances` does not.

    Returns:
        Columns domain_a, domain_b, cosine, euclidean, standardised.
    """
    pairs = combinations(_by_domain(images).items(), 2)
    rows = [(a, b, *(distance(x, y, measure) for measure in DISTANCES)) for (a, x), (b, y) in pairs]
    return pd.DataFrame(rows, columns=["domain_a", "domain_b", *DISTANCES])


def _by_domain(images: Embeddings) -> dict[str, np.ndarray]:
    return {domain: images.vectors[images.domain == domain] for domain in sorted(set(images.domain.tolist()))}


def image_spread(images: Embeddings) -> pd.DataFrame:
    """Return the mean Euclidean distance of images to their mean, for each class in each domain and for each domain.

    Returns:
        Columns class (None for the whole domain), domain, value.
    """

    def of(vectors: np.ndarray) -> float:
        return float(np.linalg.norm(vectors - vectors.mean(0, dtype=np.float64), axis=1).mean())

    rows: list[tuple[str | None, str, float]] = [(*k, of(images.vectors[rows])) for k, rows in images.groups().items()]
    rows += [(None, domain, of(vectors)) for domain, vectors in _by_domain(images).items()]
    return pd.DataFrame(rows, columns=["class", "domain", "value"])


def silhouettes(images: Embeddings, by: Literal["domain", "class"] = "domain", *, seed: int = 0) -> pd.DataFrame:
    """Return mean silhouettes of the images of each class in each domain, with cosine distances.

    An image's silhouette is (b - a) / max(a, b): a is its mean distance to the others of its group, b to the images
    of the nearest other group. Near 1: the group is separate. Near 0: it is mixed with another. Below 0: the image is
    nearer to another group. Time grows with the square of the number of images, so at most `MOST_IMAGES` are taken,
    evenly over classes and domains, at random by ``seed``.

    Groups are domains (all classes together) or classes (all domains together).

    Returns:
        Columns class, domain, value.

    Raises:
        InputError: for fewer than two groups, or as many groups as images.
    """
    if len(images) > MOST_IMAGES:
        images = images.sample(MOST_IMAGES, seed)
    labels = images.domain if by == "domain" else images.class_name
    n_groups = len(set(labels.tolist()))
    if not 2 <= n_groups < len(images):
        raise InputError(
            f"Silhouettes by {by} need at least two groups and more images than groups, but {len(images)} images in "
            f"{n_groups} were given."
        )
    values = silhouette_samples(images.vectors.astype(np.float64), labels, metric="cosine")
    rows = [(*key, float(values[group].mean())) for key, group in images.groups().items()]
    return pd.DataFrame(rows, columns=["class", "domain", "value"])


def domain_probe(images: Embeddings, *, seed: int = 0) -> pd.DataFrame:
    """Return how well a linear classifier separates each domain from all others, in every fold.

    The balanced accuracy of `probe_accuracy`: guessing reaches 1/2. Rows of domain `ALL` are of one classifier that
    names the domain: guessing reaches one over the number of domains. Images of one item (`stem_without_domain`) are in
    one fold.

    Returns:
        Columns domain, fold, value.
    """
    tasks = {domain: (images.domain == domain).astype(str).tolist() for domain in _by_domain(images)}
    tasks[ALL] = images.domain.tolist()
    rows = [
        (domain, fold, float(value))
        for domain, labels in tasks.items()
        for fold, value in enumerate(probe_accuracy(images.vectors, labels, images.items(), seed=seed))
    ]
    return pd.DataFrame(rows, columns=["domain", "fold", "value"])


def modality_gap(images: Embeddings, texts: Embeddings) -> pd.DataFrame:
    """Return ``|mean of the images - mean of all texts|``, for all images and for those of each domain.

    Returns:
        Columns domain (`ALL` first), value: Euclidean, in 0..2.
    """
    parts = {ALL: images.vectors} | _by_domain(images)
    rows = [(domain, distance(vectors, texts.vectors, "euclidean")) for domain, vectors in parts.items()]
    return pd.DataFrame(rows, columns=["domain", "value"])


def class_accuracy(images: Embeddings, texts: Embeddings) -> pd.DataFrame:
    """Return the share of images whose nearest text is that of their class, by class and domain.

    Args:
        images: The images.
        texts: One for each class.

    Returns:
        Columns class, domain, value.
    """
    right = texts.class_name[(images.vectors @ texts.vectors.T).argmax(1)] == images.class_name
    rows = [(*key, float(right[group].mean())) for key, group in images.groups().items()]
    return pd.DataFrame(rows, columns=["class", "domain", "value"])
