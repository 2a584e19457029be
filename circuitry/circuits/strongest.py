"""The edges with the largest scores into every unit. No torch."""

from collections.abc import Mapping

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


def strongest_edges(
    edge_scores: Mapping[tuple[str, str], Shaped[np.ndarray, "down up"]], n: int, any_sign: bool = False
) -> dict[tuple[str, str], tuple[np.ndarray, np.ndarray]]:
    """Return the n strongest edges into every unit, whichever earlier site they come from.

    Args:
        edge_scores: Scores by (upstream, downstream) pair of sites.
        n: Most edges into a unit.
        any_sign: Whether edges may have a score of zero or less.

    Returns:
        Rows and columns of the edges in the scores of each pair, row by row, by falling score.
    """
    into: dict[str, list[tuple[str, str]]] = {}
    for pair in edge_scores:
        into.setdefault(pair[1], []).append(pair)
    found = {}
    for pairs in into.values():
        scores = np.concatenate([edge_scores[pair] for pair in pairs], 1)
        columns = strongest_columns(scores, n)
        rows, flat = np.repeat(np.arange(len(scores)), columns.shape[1]), columns.ravel()
        there = np.ones(len(rows), bool) if any_sign else scores[rows, flat] > 0
        ends = np.cumsum([edge_scores[pair].shape[1] for pair in pairs])
        for pair, end in zip(pairs, ends, strict=True):
            start = end - edge_scores[pair].shape[1]
            mine = there & (start <= flat) & (flat < end)
            found[pair] = rows[mine], flat[mine] - start
    return {pair: found[pair] for pair in edge_scores}
