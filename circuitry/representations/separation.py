"""Do the images of a domain lie apart in an embedding space? Distances, silhouettes, probes, modality gap. No torch.

Each function's own text says what it measures. All vectors have length 1. Between domains, `compare_distances` compares
class by class, `mean_distances` whole domains. A finite number of images puts means apart by itself: `half_distances`.
Distances, spread, silhouettes and gap do not change when the space is rotated.
"""

import zlib
from collections.abc import Mapping, Sequence
from itertools import combinations
from typing import Literal

import numpy as np
import pandas as pd
from jaxtyping import Float
from sklearn.metrics import silhouette_samples

from circuitry.comparison.compared_values import VALUES, class_groups
from circuitry.comparison.comparison import Comparison
from circuitry.comparison.parts import CEILINGS, parts_of_halves
from circuitry.representations.embedding_set import Embeddings
from circuitry.representations.probes import probe_accuracy
from circuitry.runs.errors import InputError

ALL = "all"
"""Stands for all domains together."""

MEASURES = ("cosine", "euclidean", "standardised")
"""Distances between the means of two sets of vectors; see `distance`."""


def distance(a: Float[np.ndarray, "n d"], b: Float[np.ndarray, "m d"], measure: str = "cosine") -> float:
    """Return the distance between the means p and q of two sets of vectors.

    - ``cosine``: 1 - p.q / (|p| |q|), in 0..2;
    - ``euclidean``: |p - q|;
    - ``standardised``: |p - q| / sqrt((v + w) / 2), where v and w are the summed variances (divided by n - 1) of the
      two sets: how many times their own spread they lie apart, so it stays the same when the whole space shrinks.

    NaN where a mean is zero (cosine), or a set has one vector or none of the two any spread (standardised).

    Raises:
        InputError: for another measure.

    Example:
        >>> distance(np.array([[1.0, 0.0]]), np.array([[0.0, 1.0]]), "euclidean")
        1.414...
    """
    if measure not in MEASURES:
        raise InputError(f"Unknown measure {measure!r} of distance: choose one of {', '.join(MEASURES)}.")
    p, q = a.mean(0, dtype=np.float64), b.mean(0, dtype=np.float64)
    if measure == "cosine":
        norms = float(np.linalg.norm(p) * np.linalg.norm(q))
        return 1 - float(p @ q) / norms if norms else float("nan")
    apart = float(np.linalg.norm(p - q))
    if measure == "euclidean":
        return apart
    if min(len(a), len(b)) < 2:
        return float("nan")
    variance = (a.var(0, dtype=np.float64, ddof=1).sum() + b.var(0, dtype=np.float64, ddof=1).sum()) / 2
    return apart / float(np.sqrt(variance)) if variance > 0 else float("nan")


def compare_distances(
    images: Embeddings,
    measure: str = "cosine",
    groups: Mapping[str, Sequence[str]] | None = None,
    *,
    splits: int = 10,
    seed: int = 0,
) -> Comparison:
    """Compare each class between all pairs of domains by the distance of its means; near is small.

    Args:
        images: The images.
        measure: See `distance`.
        groups: Further groups of classes; see `class_groups`.
        splits: How many times each class in a domain is halved.
        seed: Seed of the halves and of the bootstraps.

    Returns:
        `class_distances`, with `half_distances` in the place of ceilings: what lies no farther apart cannot be told
        apart.

    Raises:
        InputError: for another measure, or when no class has images in two domains.
    """
    values = class_distances(images, measure)
    return Comparison(
        f"{measure}_distance",
        values,
        parts_of_halves(half_distances(images, measure, splits=splits, seed=seed)),
        groups=class_groups(images.class_name.tolist(), groups),
        alike=False,
        about={"n_images": len(images), "splits": splits, "seed": seed},
        seed=seed,
    )


def class_distances(images: Embeddings, measure: str = "cosine") -> pd.DataFrame:
    """Return the distance between the means of each class in each two domains: `VALUES`, without sites."""
    groups, rows = images.groups(), []
    for class_name in dict.fromkeys(name for name, _ in groups):
        domains = [domain for name, domain in groups if name == class_name]
        for a, b in combinations(domains, 2):
            x, y = (images.vectors[groups[class_name, domain]] for domain in (a, b))
            rows.append((class_name, a, b, None, distance(x, y, measure)))
    return pd.DataFrame(rows, columns=list(VALUES))


def half_distances(images: Embeddings, measure: str = "cosine", *, splits: int = 10, seed: int = 0) -> pd.DataFrame:
    """Return the mean distance between the means of two random halves of each class in each domain: the noise floor.

    Each half has half of the images, so it is a cautious floor for means of all of them. The halves of a class in a
    domain depend on the seed and on nothing but its images; with fewer than two it is absent.

    Returns:
        Columns class, domain, site (None), value.
    """
    rows = []
    for (class_name, domain), group in images.groups().items():
        if len(group) < 2:
            continue
        rng = np.random.default_rng([seed, zlib.crc32(f"{class_name}\0{domain}".encode())])
        shuffled = (images.vectors[rng.permutation(group)] for _ in range(splits))
        values = [distance(x[: len(x) // 2], x[len(x) // 2 :], measure) for x in shuffled]
        rows.append((class_name, domain, None, float(np.mean(values))))
    return pd.DataFrame(rows, columns=list(CEILINGS))


def mean_distances(images: Embeddings) -> pd.DataFrame:
    """Return the distances between the means of whole domains, by every measure.

    Where domains hold different shares of the classes, that is in it, too; `class_distances` are free of it.

    Returns:
        Columns domain_a, domain_b, cosine, euclidean, standardised.
    """
    pairs = combinations(_by_domain(images).items(), 2)
    rows = [(a, b, *(distance(x, y, measure) for measure in MEASURES)) for (a, x), (b, y) in pairs]
    return pd.DataFrame(rows, columns=["domain_a", "domain_b", *MEASURES])


def _by_domain(images: Embeddings) -> dict[str, np.ndarray]:
    return {domain: images.vectors[images.domain == domain] for domain in sorted(set(images.domain.tolist()))}


def spread(images: Embeddings) -> pd.DataFrame:
    """Return the mean Euclidean distance of images to their own mean: of each class in each domain, and of each domain.

    Returns:
        Columns class (None for the whole domain), domain, value.
    """

    def of(vectors: np.ndarray) -> float:
        return float(np.linalg.norm(vectors - vectors.mean(0, dtype=np.float64), axis=1).mean())

    rows: list[tuple[str | None, str, float]] = [(*k, of(images.vectors[rows])) for k, rows in images.groups().items()]
    rows += [(None, domain, of(vectors)) for domain, vectors in _by_domain(images).items()]
    return pd.DataFrame(rows, columns=["class", "domain", "value"])


def silhouettes(images: Embeddings, by: Literal["domain", "class"] = "domain") -> pd.DataFrame:
    """Return mean silhouettes of the images of each class in each domain, with cosine distances.

    An image's silhouette is (b - a) / max(a, b): a is its mean distance to the others of its group, b to the images
    of the nearest other group. Near 1: the group lies apart. Near 0: it is mixed with another. Below 0: the image is
    nearer to another group. Time grows with the square of the number of images.

    Groups are domains (all classes together) or classes (all domains together).

    Returns:
        Columns class, domain, value.

    Raises:
        InputError: for fewer than two groups, or as many groups as images.
    """
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


def domain_probe(images: Embeddings, *, folds: int = 5, seed: int = 0) -> pd.DataFrame:
    """Return how well a linear classifier tells each domain from the others together, in every fold.

    The balanced accuracy of `probe_accuracy`: guessing reaches 1/2. Rows of domain `ALL` are of one classifier that
    names the domain: guessing reaches one over the number of domains.

    Returns:
        Columns domain, fold, value.
    """
    tasks = {domain: (images.domain == domain).astype(str).tolist() for domain in _by_domain(images)}
    tasks[ALL] = images.domain.tolist()
    rows = [
        (domain, fold, float(value))
        for domain, labels in tasks.items()
        for fold, value in enumerate(probe_accuracy(images.vectors, labels, folds=folds, seed=seed))
    ]
    return pd.DataFrame(rows, columns=["domain", "fold", "value"])


def modality_gap(images: Embeddings, texts: Embeddings) -> pd.DataFrame:
    """Return |mean of the images - mean of the texts| for all images and for those of each domain, always to all texts.

    Returns:
        Columns domain (`ALL` first), value: Euclidean, in 0..2.
    """
    parts = {ALL: images.vectors} | _by_domain(images)
    rows = [(domain, distance(vectors, texts.vectors, "euclidean")) for domain, vectors in parts.items()]
    return pd.DataFrame(rows, columns=["domain", "value"])


def class_accuracy(images: Embeddings, texts: Embeddings) -> pd.DataFrame:
    """Return the share of the images of each class in each domain whose nearest text is that of their class.

    Returns:
        Columns class, domain, value.

    Raises:
        InputError: for a class with no text or several.
    """
    names, counts = np.unique(texts.class_name, return_counts=True)
    wrong = sorted(set(images.class_name.tolist()) - set(names[counts == 1].tolist()))
    if wrong or counts.max() > 1:
        name = wrong[0] if wrong else str(names[counts.argmax()])
        raise InputError(
            f"Zero-shot accuracy needs one text per class, but there are {int((texts.class_name == name).sum())} of "
            f"{name!r}: give embed_texts(clip, all_classes)."
        )
    right = texts.class_name[(images.vectors @ texts.vectors.T).argmax(1)] == images.class_name
    rows = [(*key, float(right[group].mean())) for key, group in images.groups().items()]
    return pd.DataFrame(rows, columns=["class", "domain", "value"])
