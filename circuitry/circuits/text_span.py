"""What does a head write? A greedy basis of texts for its direct effects (TextSpan, arXiv 2310.05916). No torch.

1. Texts are projected into the span of the head's vectors over images;
2. the text along which the vectors vary most is taken, and its direction removed from vectors and texts;
3. and so on; the share of the variance that the texts so far explain says how well they describe the head.

Of many directions the best always explains something. So the same is done with as many directions that have the texts'
mean and covariance but say nothing, again and again: names are to be trusted where the texts explain more.
"""

from collections.abc import Iterator, Sequence

import numpy as np
import pandas as pd
from jaxtyping import Float

from circuitry.runs.errors import InputError

LEVEL = 0.95
"""Share of the draws of directions without meaning that explain less than the column ``chance``."""


def text_span(
    vectors: Float[np.ndarray, "images d"],
    text_weights: Float[np.ndarray, "texts d"],
    texts: Sequence[str],
    n: int = 5,
    *,
    draws: int = 200,
    seed: int = 0,
) -> pd.DataFrame:
    """Return the texts that span what a head writes, best first.

    Args:
        vectors: What the head adds to the embedding, image by image; a column of `direct_vectors`.
        text_weights: Embeddings of the texts.
        texts: What they say.
        n: How many to take; fewer where the vectors have no more directions.
        draws: How often directions without meaning take the texts' place; 0 for no such level.
        seed: Of these draws.

    Returns:
        Columns rank, text, share (of the variance over images), together (with the texts before it), chance (what as
        many directions without meaning explain together, at most, in `LEVEL` of the draws; NaN without draws), most
        (what any so many directions can explain: those of the principal components).

    Raises:
        InputError: for other numbers of texts and embeddings, other sizes, or fewer than two images.

    Example:
        >>> vectors = direct_vectors(stream, photos)
        >>> text_span(vectors[:, stream.writer("blocks.11.attn.3")], clip.text_weights(words), words)
    """
    if text_weights.shape != (len(texts), vectors.shape[1]) or len(vectors) < 2:
        raise InputError(
            f"A head is named by texts with an embedding of {vectors.shape[1]} numbers each, on at least two images, "
            f"but {len(texts)} texts, embeddings {list(text_weights.shape)} and {len(vectors)} images were given."
        )
    centred = np.asarray(vectors, dtype=float) - np.mean(vectors, axis=0, dtype=float)
    _, sizes, axes = np.linalg.svd(centred, full_matrices=False)
    there = sizes > sizes[0] * 1e-9
    basis, total = axes[there], np.square(sizes).sum() or 1.0
    left = sizes[there, None] * basis  # varies as the vectors do, in as few rows as there are directions
    weights = np.asarray(text_weights, dtype=float)
    found = list(_greedy(left, weights @ basis.T @ basis, n))
    shares = np.array([square for _, square in found]) / total
    chance = np.full((max(draws, 1), len(found)), 0.0 if draws else np.nan)
    for row, other in zip(chance, _alike(weights, draws, seed), strict=False):
        squares = [square for _, square in _greedy(left, other @ basis.T @ basis, len(found))]
        row[: len(squares)] = squares
    return pd.DataFrame(
        {
            "rank": np.arange(len(found)) + 1,
            "text": [texts[best] for best, _ in found],
            "share": shares,
            "together": np.cumsum(shares),
            "chance": np.quantile(np.cumsum(chance, 1), LEVEL, axis=0) / total,
            "most": np.cumsum(np.square(sizes))[: len(found)] / total,
        }
    )


def _greedy(
    left: Float[np.ndarray, "rows d"], candidates: Float[np.ndarray, "texts d"], n: int
) -> Iterator[tuple[int, float]]:
    """Yield the best candidates and the squares that the direction of each takes away."""
    for _ in range(min(n, *left.shape, len(candidates))):
        variance = np.square(left @ candidates.T).sum(0)
        best = int(variance.argmax())
        length = np.linalg.norm(candidates[best])
        if not variance[best] > 0 or not length > 0:
            return
        direction = candidates[best] / length
        yield best, float(np.square(left @ direction).sum())
        left = left - np.outer(left @ direction, direction)
        candidates = candidates - np.outer(candidates @ direction, direction)


def _alike(weights: Float[np.ndarray, "texts d"], draws: int, seed: int) -> Iterator[Float[np.ndarray, "texts d"]]:
    """Yield directions that are spread as the texts are: their mean, and random mixtures of how they differ from it."""
    rng = np.random.default_rng(seed)
    mean, n = weights.mean(0), len(weights)
    length = np.linalg.norm(weights, axis=1).mean()  # the variance along a longer one would be larger
    for _ in range(draws):
        mixed = mean + rng.normal(size=(n, n)) @ (weights - mean) / np.sqrt(n)
        yield mixed * length / np.linalg.norm(mixed, axis=1, keepdims=True)
