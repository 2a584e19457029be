"""Learned masks on edges: the set of edges that together keep the model's answers while all others are cut.

What `masks` does for units, with a gate on every edge instead: the runs are those of `EdgeRuns`, and the k edges of all
sites together with the largest scores stay. In a chain every downstream unit needs a run of its stage: where there are
many, give the edges between the units of a mask that was learned first (`edges_among`), rather than all.
"""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from circuitry.interventions.answers import default_answers
from circuitry.interventions.edge_runs import EDGES, EdgeRuns
from circuitry.interventions.edge_sets import EdgeSet, Pair, count_edges
from circuitry.interventions.masks import MaskSettings, learn_masks
from circuitry.models.baselines import AnyBaseline
from circuitry.models.encoder import Encoder
from circuitry.models.metrics import Metric
from circuitry.runs.errors import InputError
from circuitry.runs.given import check_kinds, check_lists
from circuitry.runs.workers import Work


class LearnedEdges(NamedTuple):
    """Masks on edges, one for each size."""

    sets: Sequence[EdgeSet]
    """The kept edges, by the sizes as they were given."""
    scores: dict[Pair, np.ndarray]
    """How surely an edge is kept [down, up], by pair of sites: 0 or more in the smallest set; NaN without a gate."""
    lost: float
    """Share of the variance of the model's answers that the smallest set loses."""


def learn_edges(
    encoder: Encoder,
    images: Tensor,
    metric: Metric,
    edges: EdgeSet,
    sizes: Sequence[float],
    settings: MaskSettings = MaskSettings(),
    *,
    baseline: AnyBaseline = "zero",
    others: Tensor | None = None,
    work: Work = Work(),
) -> LearnedEdges:
    """Learn which edges keep what the model answers.

    Args:
        encoder: As for images, metric and baseline, see `find_circuit`; as for edges across sites, `cut_embeddings`.
        edges: Those to choose from, all others between the same sites are cut; see `edges_among`.
        sizes: Shares of these edges to keep.
        settings: How masks are learned.
        others: Images of other classes, on which the answers are kept, too.
        work: Memory and progress.

    Raises:
        InputError: for no edges to choose from, and what `learn_masks` and `EdgeRuns` raise.

    Example:
        >>> graph = stream_graph(score_edges(stream, photos, metric))
        >>> found = learn_edges(stream.components, photos, metric, edges_among(graph), [0.3, 0.1], others=not_cats)
        >>> measure_edges(stream.components, unseen, metric, graph, found.sets[::-1]).table()
    """
    check_kinds(encoder=(encoder, Encoder), edges=(edges, Mapping))
    check_lists(sizes=sizes)
    if not count_edges(edges):
        raise InputError("Masks choose from at least one edge, but none was given: take those of edges_among.")
    everything = images if others is None else torch.cat([images, others])
    own = np.arange(len(everything)) < len(images)
    with encoder.frozen(), encoder.fast(), encoder.differentiable():
        runs = EdgeRuns(encoder, everything, edges, baseline, work.memory_gib)
        mask = learn_masks(runs, default_answers(metric), own, sizes, settings, progress=work.progress)[0]
    places = np.argsort(np.argsort(-np.asarray(sizes), kind="stable"))
    kept = [runs.by_pair(mask.path[place][EDGES]) for place in places]
    return LearnedEdges(kept, runs.by_pair(mask.scores[EDGES], missing=np.nan), mask.lost)
