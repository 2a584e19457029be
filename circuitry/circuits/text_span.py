"""Describe the output of a head by texts: a greedy basis for its direct effects (TextSpan, arXiv 2310.05916). No torch.

1. Project the texts into the span of the head's vectors over images.
2. Take the text along which the vectors vary most, and remove its direction from vectors and texts.
3. Repeat; the share of the variance that the texts explain together measures how well they describe the head.

The best of many directions always explains something. So random directions with the texts' mean and covariance are
taken in the same way, many times: trust the names of texts that explain more.
"""

from collections.abc import Iterator
from typing import Annotated

import numpy as np
import pandas as pd
from jaxtyping import Float

from circuitry.runs.errors import InputError
from circuitry.runs.given import FINITE, Count, Names, checked

_DRAWS = 200
"""Draws of random directions."""

SAME_DIRECTION = 1e-6
"""A text adds no direction if the texts before it leave no more than this share of it."""
CHANCE_QUANTILE = 0.95
"""Share of the draws of random directions that explain less than the column ``chance``."""


@checked
def text_span(
    vectors: Annotated[Float[np.ndarray, "images d"], FINITE],
    text_weights: Annotated[Float[np.ndarray, "texts d"], FINITE],
    texts: Names,
    n: Count = 5,
) -> pd.DataFrame:
    """Return the texts that span the output of a head, best first.

    Args:
        vectors: The head's contributions to the embedding, image by image; a column of `direct_vectors`.
        text_weights: Embeddings of the texts.
        texts: The texts.
        n: Number of texts to return; fewer if the vectors have fewer directions.

    Returns:
        Columns rank, text, share (of the variance over images), together (with the texts before it), chance (the
        most that as many random directions explain together in `CHANCE_QUANTILE` of the draws), most (the same of any
        directions: the principal components).

    Example:
        >>> vectors = direct_vectors(stream, photos)
        >>> text_span(vectors[:, stream.writer("blocks.11.attn.3")], clip.text_weights(words), words)
    """
    if text_weights.shape != (len(texts), vectors.shape[1]) or len(vectors) < 2:
        raise InputError(
            f"Texts that describe a head need embeddings [texts, {vectors.shape[1]}] and at least two images, but "
            f"{len(texts)} texts, embeddings {list(text_weights.shape)} and {len(vectors)} images were given."
        )
    centred = np.asarray(vectors, dtype=float) - np.mean(vectors, axis=0, dtype=float)
    _, sizes, axes = np.linalg.svd(centred, full_matrices=False)
    there = sizes > sizes[0] * 1e-9
    basis, total = axes[there], np.square(sizes).sum() or 1.0
    left = sizes[there, None] * basis  # varies as the vectors do, in as few rows as there are directions
    weights = np.asarray(text_weights, dtype=float)
    found = list(_greedy(left, weights @ basis.T @ basis, n))
    shares = np.array([square for _, square in found]) / total
    chance = np.zeros((_DRAWS, len(found)))
    for row, other in zip(chance, _random_texts(weights), strict=True):
        squares = [square for _, square in _greedy(left, other @ basis.T @ basis, len(found))]
        row[: len(squares)] = squares
    return pd.DataFrame(
        {
            "rank": np.arange(len(found)) + 1,
            "text": [texts[best] for best, _ in found],
            "share": shares,
            "together": np.cumsum(shares),
            "chance": np.quantile(np.cumsum(chance, 1), CHANCE_QUANTILE, axis=0) / total,
            "most": np.cumsum(np.square(sizes))[: len(found)] / total,
        }
    )


def _greedy(
    left: Float[np.ndarray, "rows d"], candidates: Float[np.ndarray, "texts d"], n: int
) -> Iterator[tuple[int, float]]:
    """Yield the best candidates and the squares that the direction of each takes away."""
    least = SAME_DIRECTION * np.linalg.norm(candidates, axis=1)
    for _ in range(min(n, *left.shape, len(candidates))):
        candidates = np.where(np.linalg.norm(candidates, axis=1, keepdims=True) > least[:, None], candidates, 0.0)
        variance = np.square(left @ candidates.T).sum(0)
        best = int(variance.argmax())
        if not variance[best] > 0:
            return
        direction = candidates[best] / np.linalg.norm(candidates[best])
        yield best, float(np.square(left @ direction).sum())
        left = left - np.outer(left @ direction, direction)
        candidates = candidates - np.outer(candidates @ direction, direction)


def _random_texts(weights: Float[np.ndarray, "texts d"]) -> Iterator[Float[np.ndarray, "texts d"]]:
    """Yield directions with the spread of the texts: their mean, and random mixtures of their deviations from it."""
    rng = np.random.default_rng(0)
    mean, n = weights.mean(0), len(weights)
    length = np.linalg.norm(weights, axis=1).mean()  # the variance along a longer one would be larger
    for _ in range(_DRAWS):
        mixed = mean + rng.normal(size=(n, n)) @ (weights - mean) / np.sqrt(n)
        yield mixed * length / np.linalg.norm(mixed, axis=1, keepdims=True)
