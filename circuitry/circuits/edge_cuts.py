"""The exact effect of cutting edges, each in a run of its own; see `circuitry.gates.edge_gates`."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from circuitry.bases.residual import ResidualStream
from circuitry.circuits.stream_edges import StreamScores
from circuitry.encoder.doubles import in_double
from circuitry.encoder.metrics import checked_metric
from circuitry.encoder.task import Task
from circuitry.encoder.tensor_batches import count_batches
from circuitry.gates.edge_gates import GatedEdges, gated_edges_of, gates_of_masks
from circuitry.gates.edges import Edges, Pair
from circuitry.runs.given import checked
from circuitry.runs.progress import Bar

Cut = Mapping[Pair, tuple[Any, Any]]
"""Rows and columns in the masks of some pairs: the edges to cut together."""


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
    gated.masks(edges)
    places = [
        (pair, *place)
        for pair, found in edges.places.items()
        for place in np.transpose(found).tolist()
    ]
    cuts = [
        {(up, down): (edges.units[down][row], edges.units[up][column])}
        for (up, down), row, column in places
    ]
    scores = {
        pair: np.full(found.shape, np.nan) for pair, found in edges.scores.items()
    }
    for (pair, row, column), effect in zip(
        places, _effects(task, gated, cuts)[0], strict=True
    ):
        scores[pair][row, column] = effect
    return replace(edges, scores=scores)


def component_cuts(stream: ResidualStream, task: Task) -> StreamScores:
    """Return the exact effects of cutting each edge between components, all into a reader, and all out of a writer.

    Args:
        stream: Whose layers are one component, or heads.
        task: A task of ``stream.components``.
    """
    order, everything = [layer.name for layer in stream.layers], slice(None)
    readers = [
        (f"{one.layer}.{one.port}".removesuffix("."), one.unit or 0)
        for one in stream.readers
    ]
    writers = [(one.layer, one.unit or 0) for one in stream.writers]
    places = stream.edges.nonzero().tolist()
    cuts: list[Cut] = [
        {(writers[w][0], readers[r][0]): (readers[r][1], writers[w][1])}
        for r, w in places
    ]
    for reader, (name, unit) in zip(stream.readers, readers, strict=True):
        cuts.append(
            {
                (up, name): (unit, everything)
                for up in order[: order.index(reader.layer)]
            }
        )
    for name, unit in writers:
        cuts.append(
            {
                (name, down): (everything, unit)
                for down in order[order.index(name) + 1 :]
            }
        )
    effects, n_images = _effects(task, gated_edges_of(task, ()), cuts)
    single, into, out_of = np.split(effects, np.cumsum([len(places), len(readers)]))
    scores = np.full(stream.edges.shape, np.nan)
    scores[tuple(np.transpose(places))] = single
    return StreamScores(stream.readers, stream.writers, scores, into, out_of, n_images)


def _effects(
    task: Task, gated: GatedEdges, cuts: Sequence[Cut]
) -> tuple[Float[np.ndarray, " cuts"], int]:
    """Return how much the metric falls in the mean by each cut, and the number of images."""
    values, n_images = np.zeros(1 + len(cuts)), 0
    n_batches = count_batches(task.images, gated.rows) or 0
    with (
        task.running(),
        Bar(
            total=n_batches * len(values) or None,
            desc="cuts",
            unit="cut",
            disable=not task.work.progress,
            leave=False,
        ) as bar,
    ):
        for batch in task.batches(gated.rows):
            clean = batch.clean(gated.sites)
            ends, n_images = batch.ends(clean), n_images + len(batch.images)
            of_cuts = list[Tensor]()
            for cut in [{}, *cuts]:
                masks = {
                    (up, down): np.ones(
                        (gated.sizes[down], gated.sizes[up]), dtype=bool
                    )
                    for up, down in cut
                }
                for pair, place in cut.items():
                    masks[pair][place] = False
                (embedding,) = gated.run(
                    clean[gated.start], ends, gates_of_masks(masks, batch.images.device)
                )
                of_cuts.append(in_double(checked_metric(task.metric, embedding)).sum())
                bar.update()
            values += (
                torch.stack(of_cuts).cpu().numpy()
            )  # a GPU is waited for once, not at every cut
    return (values[0] - values[1:]) / n_images, n_images
