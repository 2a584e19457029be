"""What does a head write? A greedy basis of texts for its direct effects (TextSpan, arXiv 2310.05916). No torch.

1. Texts are projected into the span of the head's vectors over images;
2. the text along which the vectors vary most is taken, and its direction removed from vectors and texts;
3. and so on; the share of the variance that the texts so far explain says how well they describe the head.
"""

from collections.abc import Sequence

import numpy as np
import pandas as pd
from jaxtyping import Float

from circuitry.runs.errors import InputError


def text_span(
    vectors: Float[np.ndarray, "images d"], text_weights: Float[np.ndarray, "texts d"], texts: Sequence[str], n: int = 5
) -> pd.DataFrame:
    """Return the texts that span what a head writes, best first: rank, text, share of the variance, together.

    Args:
        vectors: What the head adds to the embedding, image by image; a column of `direct_vectors`.
        text_weights: Embeddings of the texts.
        texts: What they say.
        n: How many to take; fewer where the vectors have no more directions.

    Raises:
        InputError: for other numbers of texts and embeddings, other sizes, or fewer than two images.

    Example:
        >>> vectors = direct_vectors(stream, photos)
        >>> text_span(vectors[:, stream.writers.index(Component("head", 11, 3))], clip.text_weights(words), words)
    """
    if text_weights.shape != (len(texts), vectors.shape[1]) or len(vectors) < 2:
        raise InputError(
            f"A head is named by texts with an embedding of {vectors.shape[1]} numbers each, on at least two images, "
            f"but {len(texts)} texts, embeddings {list(text_weights.shape)} and {len(vectors)} images were given."
        )
    left = np.asarray(vectors, dtype=float) - np.mean(vectors, axis=0, dtype=float)
    total = np.square(left).sum()
    _, sizes, axes = np.linalg.svd(left, full_matrices=False)
    basis = axes[sizes > sizes[0] * 1e-9] if total else axes[:0]
    candidates = np.asarray(text_weights, dtype=float) @ basis.T @ basis
    rows = []
    for rank in range(min(n, len(basis), len(texts))):
        variance = np.square(left @ candidates.T).sum(0)
        best = int(variance.argmax())
        length = np.linalg.norm(candidates[best])
        if not variance[best] > 0 or not length > 0:
            break
        direction = candidates[best] / length
        share = float(np.square(left @ direction).sum() / total)
        left = left - np.outer(left @ direction, direction)
        candidates = candidates - np.outer(candidates @ direction, direction)
        rows.append((rank + 1, texts[best], share, 1 - float(np.square(left).sum() / total)))
    return pd.DataFrame(rows, columns=["rank", "text", "share", "together"])
