"""Which edges into a unit are kept? Those with the largest scores. No torch."""

import numpy as np
from jaxtyping import Int, Shaped


def strongest_columns(scores: Shaped[np.ndarray, "down up"], n: int) -> Int[np.ndarray, "down strongest"]:
    """Return, for each row, the columns of its n largest scores, by sign, largest first; the first among equals."""
    n = min(n, scores.shape[1])
    left = np.array(scores, dtype=float)
    rows, found = np.arange(len(left)), np.empty((len(left), n), dtype=np.int64)
    for k in range(n):
        found[:, k] = left.argmax(1)
        left[rows, found[:, k]] = -np.inf
    return found
