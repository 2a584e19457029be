"""Two-dimensional maps of an embedding space: UMAP with density if installed, else principal components. No torch.

UMAP (McInnes et al. 2018, arXiv 1802.03426) keeps neighbours together; its densMAP variant (Narayan et al. 2021, doi
10.1038/s41587-020-00801-7) also keeps dense regions dense. Distances between far groups mean little on it. Principal
components keep large distances and may put distant groups on top of each other.
"""

import importlib.util
from typing import NamedTuple

from circuitry.runs import InputError
from circuitry.representations import Embeddings

import numpy as np
import pandas as pd
from jaxtyping import Float
from sklearn.decomposition import PCA

NEIGHBOURS = 15
"""UMAP's default; fewer with fewer points."""
COMPONENTS = "principal components"
"""First words of the name of a map without UMAP."""
PER_DOMAIN = 2000
"""Images of a domain that the study maps."""


class EmbeddingMap(NamedTuple):
    """Points in the plane, and the method."""

    points: Float[np.ndarray, "n 2"]
    method: str
    """In words: "UMAP with density", or "principal components (41 % of the variance)"."""


def embedding_map(vectors: Float[np.ndarray, "n d"], method: str = "auto", seed: int = 0) -> EmbeddingMap:
    """Map vectors to the plane; the same arguments give the same points.

    Args:
        vectors: One row per image or text; Euclidean distances, which order vectors of length 1 as cosines do.
        method: ``umap`` or ``pca``; ``auto`` takes UMAP where umap-learn is installed (importing and compiling it
            takes half a minute).
        seed: Seed of UMAP.

    Raises:
        InputError: UMAP where it is not installed, fewer than four vectors, one dimension, or
            vectors that are not finite.

    Example:
        >>> points, method = embedding_map(images.vectors, "pca")
    """
    installed = importlib.util.find_spec("umap") is not None
    if method == "umap" and not installed:
        raise InputError(
            "A map by UMAP needs umap-learn, which is not installed: pip install umap-learn, or choose pca."
        )
    if len(vectors) < 4 or vectors.shape[1] < 2 or not np.isfinite(vectors).all():
        raise InputError(
            f"A map needs at least four finite vectors of two dimensions or more, but {list(vectors.shape)} "
            + ("with NaN or infinite values was given." if not np.isfinite(vectors).all() else "was given.")
        )
    if method == "pca" or not installed:
        pca = PCA(2, svd_solver="full")  # the one that is neither random nor squares the numbers
        points = pca.fit_transform(vectors.astype(np.float64))
        return EmbeddingMap(points, f"{COMPONENTS} ({pca.explained_variance_ratio_.sum():.0%} of the variance)")
    import umap  # slow to import, and an extra

    neighbours = min(NEIGHBOURS, len(vectors) - 1)
    # n_jobs: with a seed UMAP runs on one thread, and warns where it is not told so.
    mapper = umap.UMAP(n_neighbors=neighbours, densmap=True, random_state=seed, n_jobs=1)
    return EmbeddingMap(np.asarray(mapper.fit_transform(vectors), dtype=np.float64), "UMAP with density")


def map_table(
    images: Embeddings,
    method: str = "auto",
    *,
    texts: Embeddings | None = None,
    per_domain: int | None = PER_DOMAIN,
    without: str | None = None,
    seed: int = 0,
) -> pd.DataFrame:
    """Map random images of each domain, by one model, as the study does.

    Args:
        images: Images to draw from.
        method: See `embedding_map`.
        texts: Texts to map together with the images; they also shape the map (default: none).
        per_domain: Most images of each domain; None for all.
        without: A domain to leave out.
        seed: Seed of the map and of the choice.

    Returns:
        Columns kind ("image" or "text"), domain, class, x, y, method.

    Raises:
        InputError: for a domain ``without`` that has no images or is the only one, and as `embedding_map`.
    """
    domains = sorted(set(images.domain.tolist()))
    if without is not None:
        if without not in domains or len(domains) < 2:
            raise InputError(
                f"A map leaves out one of at least two domains, but {without!r} was given for {', '.join(domains)}."
            )
        domains.remove(without)
    rng = np.random.default_rng(seed)
    rows = [rng.permutation(np.flatnonzero(images.domain == domain))[:per_domain] for domain in domains]
    chosen = images.take(np.sort(np.concatenate(rows)))
    parts = {"image": chosen} if texts is None else {"image": chosen, "text": texts}
    points, said = embedding_map(np.concatenate([part.vectors for part in parts.values()]), method, seed)
    tables = [
        part.table()[["domain", "class"]].assign(kind=kind)[["kind", "domain", "class"]] for kind, part in parts.items()
    ]
    return pd.concat(tables, ignore_index=True).assign(x=points[:, 0], y=points[:, 1], method=said)
