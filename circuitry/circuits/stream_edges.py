"""Edges through the residual stream, scored by attribution patching (Syed et al. 2023, arXiv 2310.10348).

A writer is a component that adds to the residual stream: ``embed``, a head, an MLP or a neuron. A reader is a component
that reads the stream: the query, key or value of a head, an MLP, a neuron or the embedding. Each reader has an edge
from every writer of an earlier layer.

The effect of an edge is how much the metric falls if the reader receives the baseline of this one writer instead of its
clean value. To first order this is

    score[reader, writer] = mean over images of  sum over positions of  (a - b)_writer . sum_k w_k * G_reader at t_k.

Here a and b are what the writer adds to the residual stream on the clean run and at the baseline. G_reader is the
gradient of the metric with respect to the reader's own copy of the stream (`stream_gradients`). The points t_k of the
rule, with the weights w_k, lie on the straight line from the clean stream before the first block to its baseline (Hanna
et al. 2024, arXiv 2403.17806). A rule with the single point t = 0 is plain attribution patching. The products are
computed layer by layer for all later readers, so that the additions of only one layer are in memory at a time. Images
are taken in batches that fit into the memory.

The method ``exact-readers`` computes the output of the reader exactly, its norm and nonlinearity included (argument
``exact``). Only the network after the reader is taken as linear. This needs a partial run for each writer.

Corrections of the gradients (AtP*, RelP, paths layer by layer) are in ``experiments/edge_corrections.py`` of a
checkout. No correction ranked edges better.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import combinations
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from circuitry.bases.residual import Component, Layer, ResidualStream
from circuitry.circuits.quadrature import QuadratureRule, left_rule
from circuitry.circuits.stream_gradients import (
    Activations,
    Gradients,
    changes,
    images_at_once,
    reader_gradients,
)
from circuitry.encoder.metrics import Metric
from circuitry.encoder.sites import INPUT
from circuitry.encoder.task import Task
from circuitry.encoder.tensor_batches import count_batches
from circuitry.gates.edges import Pair
from circuitry.runs.errors import InputError

PLAIN = left_rule(1)
"""The rule of attribution patching: one gradient, at the clean activation."""
BY_READER = ("attn.hook_pattern", "attn.hook_v", "mlp.hook_post")
"""Hook points of a block at the outputs of its readers. If readers are computed exactly, gradients with respect to
these points are needed."""

Reader = Callable[
    [Float[Tensor, "batch position d_model"]], Float[Tensor, "batch readers"]
]
"""Takes a change of the stream. Returns, for each reader of a layer, the effect on the metric if only this reader reads
the changed stream."""


class StreamScores(NamedTuple):
    """Scores of all edges between the components of a transformer.

    A writer is a component that adds to the residual stream, and a reader is a component that reads it.
    """

    readers: tuple[Component, ...]
    """Components that read the stream, in the order of the tower. The query, key and value of a head are three
    readers."""
    writers: tuple[Component, ...]
    """Components that write to the stream, in the order of the tower."""
    scores: Float[np.ndarray, "readers writers"]
    """Effect of each edge. A positive effect means that the edge helps: cutting it lowers the metric. NaN if there is
    no edge."""
    into: Float[np.ndarray, " readers"]
    """Effect of cutting all edges into a reader at once; to first order the sum of the effects of these edges."""
    out_of: Float[np.ndarray, " writers"]
    """Effect of cutting all edges out of a writer at once; to first order the sum of the effects of these edges."""
    n_images: int
    """Number of images that the effects are means over."""


def attributed(
    stream: ResidualStream,
    task: Task,
    rule: QuadratureRule,
    *,
    gradients: Gradients = reader_gradients,
    exact: Sequence[str] = (),
) -> StreamScores:
    """Score all edges between the components of a stream.

    Args:
        stream: The stream. Some neurons may be components of their own.
        task: A task whose encoder is ``stream.components``, within ``task.running(gradients=True)``.
        rule: Points of the path from the clean stream to the baseline.
        gradients: Function that computes the gradients with respect to the copies of the stream that readers read.
        exact: Hook points at the outputs of the readers that are computed exactly. With `BY_READER`, all readers are
            computed exactly; with only the attention patterns, queries and keys are. If empty, all readers are taken as
            linear.
    """
    scores = torch.zeros(())
    into_readers = torch.zeros(())
    out_of_writers = torch.zeros(())
    n_images = 0
    # The attention patterns of all heads and their gradients need memory only if readers are computed exactly.
    n_patterns = 0
    if exact:
        n_patterns = 4 * sum(block.n_heads for block in stream.blocks)
    for clean, other in clean_and_baseline(stream, task, n_patterns):
        found = gradients(stream, task.metric, clean, other, rule, exact)
        at_points = found.points
        # One matrix product may sum over the images, unless exact effects, which are per image, replace some of these.
        edges = _linear_effects(stream, clean, other, found.readers, bool(exact))
        del found  # most of the memory, gone before the next images come
        into = edges.sum(2)
        if exact:
            _put_exact_effects(
                stream, task.metric, clean, other, at_points, edges, into
            )
        # The changes lead to the baseline. So the effect of an edge is minus what its change adds to the metric.
        scores = scores - edges.cpu().double().sum(0)
        into_readers = into_readers - into.cpu().double().sum(0)
        out_of_writers = out_of_writers - edges.sum(1).cpu().double().sum(0)
        for total in (scores, into_readers, out_of_writers):
            if not bool(total.isfinite().all()):
                raise InputError(
                    "Scores of edges are NaN or infinite, although the metric is finite: look at its derivative on the "
                    "path to the baseline, or give an encoder of higher precision."
                )
        n_images += len(clean[stream.sites[0]])
    means = (scores / n_images).numpy()
    return StreamScores(
        stream.readers,
        stream.writers,
        np.where(stream.edges.numpy(), means, np.nan),
        (into_readers / n_images).numpy(),
        (out_of_writers / n_images).numpy(),
        n_images,
    )


def unit_edges(
    score: Callable[[ResidualStream, Task, QuadratureRule], StreamScores],
    task: Task,
    kept_units: Mapping[str, Int[np.ndarray, " kept"]],
    rule: QuadratureRule,
) -> dict[Pair, np.ndarray]:
    """Return the scores [kept downstream, kept upstream] of edges between units, by pair of sites.

    Writers are heads, neurons and dimensions of the stream before the blocks. Readers are heads (query, key and value
    together), neurons before their nonlinearity, and units of the embedding.

    Args:
        score: Function that scores all edges between the components of a stream.
        task: A task of heads and neurons.
        kept_units: Indices of the kept units by site.
        rule: Points of the path.
    """
    kept = {site: kept_units[site].tolist() for site in task.sites if site != INPUT}
    stream = ResidualStream.of(task.encoder, kept)
    scores = score(stream, task, rule).scores
    layers = {layer.site: layer for layer in stream.layers}
    # The stream orders the units of a site in its own way. `places` holds where the kept units are in this order.
    places = dict[str, np.ndarray]()
    for site, units in kept.items():
        apart = list(layers[site].apart)
        places[site] = np.array([apart.index(unit) for unit in units], int)
    blocks = dict[Pair, np.ndarray]()
    for up, down in combinations(kept, 2):
        of_readers = scores[layers[down].readers, layers[up].writers]
        # Queries of all heads come first, then keys, then values; a head's score is the sum over its ports.
        by_port = np.split(of_readers, len(layers[down].ports))
        chosen = np.ix_(places[down], places[up])
        blocks[up, down] = np.sum([of_port[chosen] for of_port in by_port], 0)
    return blocks


def stream_of(task: Task) -> tuple[ResidualStream, Task]:
    """Return the residual stream of a task's encoder, and the same task for the encoder in heads and neurons."""
    stream = ResidualStream.of(task.encoder)
    if task.encoder is stream.components:
        return stream, task
    task.encoder.check_unhooked(
        "edges are scored in heads and neurons, and this encoder is not in them: give a task of in_components(encoder) "
        "with the hooks there"
    )
    return stream, Task(
        stream.components,
        task.images,
        task.metric,
        baseline=task.baseline,
        work=task.work,
    )


def clean_and_baseline(
    stream: ResidualStream, task: Task, n_patterns: int = 0
) -> Iterator[tuple[dict[str, Tensor], dict[str, Tensor]]]:
    """Yield, batch by batch, the clean activations and the activations at the baseline, each by site of the stream.

    A batch has as many images as fit into the memory. Call it within ``task.running(gradients=True)``.

    Args:
        stream: The stream.
        task: The task.
        n_patterns: Number of attention patterns that are in memory at the same time.
    """
    at_once = images_at_once(
        stream, len(stream.readers), task.work.memory_gib, n_patterns
    )
    n_images = count_batches(task.images, rows=1)
    with task.bar("edges", "image", n_images) as bar:
        for batch in task.batches(at_once):
            with torch.no_grad():
                clean = batch.clean(stream.sites)
                other = batch.ends(clean)
            yield clean, other
            bar.update(len(batch.images))


def _linear_effects(
    stream: ResidualStream,
    clean: Activations,
    other: Activations,
    gradients: Tensor,
    apart: bool,
) -> Float[Tensor, "images readers writers"]:
    """Return the first-order effects of the changes from clean to baseline on the metric, for every edge.

    Args:
        stream: The stream.
        clean, other: Activations of the clean run and at the baseline.
        gradients: Gradients [readers, batch, position, d_model] with respect to the copies of the stream.
        apart: If True, the first axis of the result has an entry for each image. If False, it has a single entry, the
            sum over all images.
    """
    n_rows = gradients.shape[1] if apart else 1
    effects = gradients.new_zeros(n_rows, len(stream.readers), len(stream.writers))
    # Positions and d_model are one axis x, because einsum would copy both sides if they were two axes.
    equation = "rbx,wbx->brw" if apart else "rbx,wbx->rw"
    for layer, change in changes(stream, clean, other):
        # A writer only has edges to later readers; all other entries stay 0.
        later = slice(layer.readers.stop, None)
        effects[:, later, layer.writers] = torch.einsum(
            equation, gradients[later].flatten(2), change.flatten(2)
        )
    return effects


# --- Readers that are computed exactly: the change of their output, times its gradient --------------------------------


def _put_exact_effects(
    stream: ResidualStream,
    metric: Metric,
    clean: Activations,
    other: Activations,
    gradients: Mapping[str, Tensor],
    edges: Float[Tensor, "batch readers writers"],
    into: Float[Tensor, "batch readers"],
) -> None:
    """Replace the first-order effects of some readers by effects that are computed with the readers' exact outputs.

    Args:
        stream, metric: The stream, and the metric of its embedding.
        clean, other: Activations of the clean run and at the baseline.
        gradients: Gradients of the metric with respect to hook points, by name. Gradients of the attention patterns are
            needed, and make queries and keys exact. Gradients of the values make values exact. Gradients of the neurons
            make MLPs and the embedding exact.
        edges, into: Effects of each edge, and of all edges into a reader; changed in place.
    """
    everything = any(point.endswith("mlp.hook_post") for point in gradients)
    # Layers without an entry keep their linear effects.
    readers = dict[str, Reader]()
    for layer in stream.layers[1:]:
        x = stream.read_by(layer, clean)
        if layer.of_heads:
            readers[layer.name] = _exact_heads(layer, x, gradients)
        elif everything and layer.block is not None:
            readers[layer.name] = _exact_neurons(layer, x, gradients)
        elif everything:
            readers[layer.name] = _exact_embedding(stream, metric, layer, x)
    # The change of the stream that all writers up to this layer cause together.
    moved: Tensor | float = 0.0
    for place, (layer, change) in enumerate(changes(stream, clean, other), 1):
        moved = moved + change.sum(0)
        for later in stream.layers[place:]:
            reader = readers.get(later.name)
            if reader is None:
                continue
            # One writer at a time, because all at once would need a copy of the block's activations for each writer.
            by_writer = torch.stack([reader(of_writer) for of_writer in change], -1)
            # If only queries and keys are exact, values keep their linear effects in the last rows of the layer.
            first = later.readers.start
            rows = slice(first, first + by_writer.shape[1])
            edges[:, rows, layer.writers] = by_writer
            # The next layer reads no later writers, so `moved` is the whole change that it reads.
            if later is stream.layers[place]:
                into[:, rows] = reader(moved)


def _exact_heads(layer: Layer, x: Tensor, gradients: Mapping[str, Tensor]) -> Reader:
    """Return a function that takes a change of the stream and returns its effects through the heads of a layer.

    The function is a `Reader`. It returns an effect for the queries of each head, and an effect for the keys of each
    head. If ``gradients`` has the gradient with respect to the attention values, the function also returns an effect
    for the values of each head. The attention patterns are computed exactly, softmax included (Kramar et al. 2024,
    arXiv 2403.00745).

    Args:
        layer: The layer of heads.
        x: The clean stream that the layer reads.
        gradients: Gradients of the metric with respect to hook points, by name.
    """
    block = layer.block
    assert block is not None
    by_pattern = gradients[f"{layer.name}.hook_pattern"]
    by_value = gradients.get(f"{layer.name}.hook_v")
    q, k, v = block.project(block.norm_attention(x))
    pattern = block.scores(q, k).softmax(-1)

    def effects(change: Tensor) -> Tensor:
        # One port at a time reads the changed stream, while the other two ports read the clean stream.
        moved_q, moved_k, moved_v = block.project(block.norm_attention(x + change))
        moved_patterns = (
            block.scores(moved_q, k).softmax(-1),
            block.scores(q, moved_k).softmax(-1),
        )
        ports = [(by_pattern * (p - pattern)).sum((2, 3)) for p in moved_patterns]
        if by_value is not None:
            ports.append((by_value * (moved_v - v)).sum((1, 3)))
        return torch.cat(ports, 1)

    return effects


def _exact_neurons(layer: Layer, x: Tensor, gradients: Mapping[str, Tensor]) -> Reader:
    """Return a function that takes a change of the stream and returns its effects through the neurons of an MLP.

    The function is a `Reader`. It computes the norm and the nonlinearity of the MLP exactly. The arguments are those of
    `_exact_heads`.
    """
    block = layer.block
    assert block is not None
    by_neuron = gradients[f"{layer.name}.hook_post"]

    def post(read: Tensor) -> Tensor:
        return block.activation(block.mlp_in(block.norm_mlp(read)))

    clean = post(x)
    groups = layer.groups(block.n_neurons).to(x)

    def effects(change: Tensor) -> Tensor:
        return (by_neuron * (post(x + change) - clean)).sum(1) @ groups.T

    return effects


def _exact_embedding(
    stream: ResidualStream, metric: Metric, layer: Layer, x: Tensor
) -> Reader:
    """Return a function that takes a change of the stream and returns its effect through the embedding.

    The function is a `Reader`. It computes the last stage and the metric exactly. If units of the embedding are readers
    of their own, the metric is taken as linear in each of these units.
    """
    last = stream.encoder.stages[-1].run
    units = list(layer.apart)
    with torch.enable_grad():
        embedding = last(x).detach().requires_grad_()
        clean = metric(embedding)
        gradient = embedding
        if units:
            (gradient,) = torch.autograd.grad(clean.sum(), embedding)

    def effects(change: Tensor) -> Tensor:
        moved = last(x + change)
        whole = (metric(moved) - clean.detach())[:, None]
        if not units:
            return whole
        # All other units of the embedding are one reader. Subtracting the effects of the units gives its effect.
        alone = ((moved - embedding) * gradient).detach()[:, units]
        return torch.cat([alone, whole - alone.sum(1, keepdim=True)], 1)

    return effects
