"""The exact effects of cutting edges, with one run of the model for each cut; see `circuitry.gates.edge_gates`."""

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
from circuitry.runs.arguments import checked

Cut = Mapping[Pair, tuple[Any, Any]]
"""The edges to cut together: their rows (downstream units) and columns (upstream units), by pair of sites."""


@checked
def cut_effects(task: Task, edges: Edges) -> Edges:
    """Return edges whose scores are the exact effects of cutting them one at a time.

    Every edge needs a run of its own, from the first site on. All other edges between the sites are kept in this run.
    The edges may join neighbouring sites. They may also join sites further apart, if a residual stream is carried past
    the units of the sites.

    Args:
        task: Images, metric, and the baseline that a cut edge carries.
        edges: Edges to cut one at a time, such as ``graph.edges``, or `Edges.between` for all edges between some units.

    Returns:
        The same edges with the scores metric(clean) - metric(edge cut), as means over images. A positive score means
        that the edge helps.

    Example:
        >>> strongest = graph.edges.top(0.001)
        >>> exact = cut_effects(task, strongest)
        >>> exact.count == strongest.count
        True
    """
    gated = gated_edges_of(task, edges.scores)
    # This raises an error before the first run if the encoder does not have one of the units.
    gated.masks(edges)
    cuts = list[Cut]()
    for (up, down), (rows, columns) in edges.places.items():
        readers = edges.units[down][rows]
        writers = edges.units[up][columns]
        cuts += [{(up, down): edge} for edge in zip(readers, writers, strict=True)]
    effects, _ = _effects(task, gated, cuts)
    scores = dict[Pair, np.ndarray]()
    start = 0
    # The effects follow the edges, pair by pair.
    for pair, place in edges.places.items():
        end = start + len(place[0])
        scores[pair] = np.full(edges.scores[pair].shape, np.nan)
        scores[pair][place] = effects[start:end]
        start = end
    return replace(edges, scores=scores)


def component_cuts(stream: ResidualStream, task: Task) -> StreamScores:
    """Return the exact effects of cutting edges between the components of a residual stream.

    Three kinds of cuts are made: each single edge, all edges into each reader, and all edges out of each writer. A
    writer is a component that adds to the stream, and a reader is a component that reads it.

    Args:
        stream: A stream in which each layer is one component, or is divided into heads. Single neurons must not be
            components of their own.
        task: A task whose encoder is ``stream.components``.
    """
    order = [layer.name for layer in stream.layers]
    every_unit = slice(None)
    # Site and unit of each reader, and of each writer; a whole MLP is the unit 0 of its layer.
    readers = list[tuple[str, int]]()
    for reader in stream.readers:
        site = f"{reader.layer}.{reader.port}" if reader.port else reader.layer
        readers.append((site, reader.unit or 0))
    writers = [(writer.layer, writer.unit or 0) for writer in stream.writers]
    cuts = list[Cut]()
    places = stream.edges.nonzero()
    for r, w in places.tolist():
        (down, reading), (up, writing) = readers[r], writers[w]
        cuts.append({(up, down): (reading, writing)})
    for reader, (site, unit) in zip(stream.readers, readers, strict=True):
        earlier = order[: order.index(reader.layer)]
        cuts.append({(up, site): (unit, every_unit) for up in earlier})
    for site, unit in writers:
        later = order[order.index(site) + 1 :]
        cuts.append({(site, down): (every_unit, unit) for down in later})
    effects, n_images = _effects(task, gated_edges_of(task, ()), cuts)
    ends = np.cumsum([len(places), len(readers)])
    single, into, out_of = np.split(effects, ends)
    scores = np.full(stream.edges.shape, np.nan)
    scores[stream.edges.numpy()] = single
    return StreamScores(stream.readers, stream.writers, scores, into, out_of, n_images)


def _effects(
    task: Task, gated: GatedEdges, cuts: Sequence[Cut]
) -> tuple[Float[np.ndarray, " cuts"], int]:
    """Return how much each cut lowers the metric, as a mean over images, and the number of images.

    Args:
        task: Images, metric and baseline.
        gated: The task's encoder, which is run with gates on its edges.
        cuts: The cuts; each is made in a run of its own.
    """
    # The first value is the metric of the whole model, followed by the metric after each cut.
    values = np.zeros(1 + len(cuts))
    n_images = 0
    n_batches = count_batches(task.images, gated.rows) or 0
    with (
        task.running(),
        task.bar("cuts", "cut", n_batches * len(values)) as bar,
    ):
        for batch in task.batches(gated.rows):
            clean = batch.clean(gated.sites)
            ends = batch.ends(clean)
            n_images += len(batch.images)
            of_cuts = list[Tensor]()
            for cut in [{}, *cuts]:
                # The masks are made for each cut separately. Masks for all cuts would need too much memory at once.
                masks = dict[Pair, np.ndarray]()
                for (up, down), place in cut.items():
                    mask = np.ones((gated.sizes[down], gated.sizes[up]), dtype=bool)
                    mask[place] = False
                    masks[up, down] = mask
                gates = gates_of_masks(masks, batch.images.device)
                embedding = gated.run(clean[gated.start], ends, gates)[0]
                of_cuts.append(in_double(checked_metric(task.metric, embedding)).sum())
                bar.update()
            # Values are moved once per batch, so that the GPU is not waited for at every cut.
            values += torch.stack(of_cuts).cpu().numpy()
    return (values[0] - values[1:]) / n_images, n_images
