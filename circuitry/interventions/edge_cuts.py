"""The exact effect of each edge: it alone is cut, so that its downstream unit gets the upstream unit's baseline."""

from collections.abc import Sequence
from dataclasses import replace
from itertools import chain
from typing import Any

import numpy as np
from torch import Tensor

from circuitry.circuits.edges import Edges
from circuitry.encoder.task import Task
from circuitry.interventions.faithfulness import measure_each
from circuitry.interventions.gated import gated_embeddings
from circuitry.interventions.gated_edges import gated_edges_of
from circuitry.runs.given import checked


@checked
def cut_effects(task: Task, edges: Edges) -> Edges:
    """Return some edges, of a chain or across sites, with the exact effect of cutting each as its score.

    Every edge takes a run of its own, from the first site of all on, while all others between the sites are kept.

    Args:
        task: Images, metric, and the baseline that a cut edge carries.
        edges: Edges to cut in turn, such as ``graph.edges``, or `Edges.between` for all edges of some units.

    Returns:
        The edges with metric(clean) - metric(edge cut), mean over images: positive where an edge helps.

    Example:
        >>> exact = cut_effects(Task(encoder, photos, metric), graph.edges)
        >>> exact.scores["layer3.0", "layer4.0"]    # beside graph.edge_scores["layer3.0", "layer4.0"]
    """
    gated = gated_edges_of(task, edges.scores)
    whole = {pair: np.ones_like(mask) for pair, mask in gated.masks(edges).items()}

    def without(pair: tuple[str, str], row: int, column: int) -> dict[tuple[str, str], np.ndarray]:
        left = whole[pair].copy()
        left[edges.units[pair[1]][row], edges.units[pair[0]][column]] = False
        return {**whole, pair: left}

    places = [(pair, *place) for pair, found in edges.places.items() for place in np.transpose(found).tolist()]
    cuts = chain([whole], (without(*place) for place in places))

    def run(some: Task, cut: Sequence[Any]) -> Tensor:
        return gated_embeddings(some, gated, cut)

    values = measure_each(replace(task, others=None), cuts, 1 + len(places), "cuts", run).mean(1)
    scores = {pair: np.full(found.shape, np.nan) for pair, found in edges.scores.items()}
    for (pair, row, column), value in zip(places, values[1:], strict=True):
        scores[pair][row, column] = values[0] - value
    return replace(edges, scores=scores)
