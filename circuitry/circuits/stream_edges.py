"""Edges through the residual stream, by attribution patching (Syed et al. 2023, arXiv 2310.10348) and corrections.

The effect of an edge is how much the metric falls when one reader gets one writer's baseline in its place, to first
order:

    score[reader, writer] = mean over images of  sum over positions of  (a - b)_writer . sum_k w_k * G_reader at t_k

with a and b what the writer adds to the residual stream, clean and at the baseline, and G the gradient of the metric by
the reader's own copy of the stream (`stream_gradients`). The points t_k of the rule lie on the straight line from clean
to baseline of the stream before the first block (Hanna et al. 2024, arXiv 2403.17806). t = 0 alone is plain attribution
patching. Layer by layer, the writers' additions are contracted with the G of all later readers; only one layer's are in
memory at a time, and images go through as memory allows. A writer has no edge to an earlier reader.

`ATTRIBUTED` has the methods by name:

gradient: the plain score.
path-by-layer: the points lie on the line of what each layer alone reads: a run for every layer and point.
exact-softmax: an edge into a query or key counts the change of the attention pattern itself, not its derivative, which
    vanishes where attention is saturated.
exact-readers: every edge counts the change of its reader's output, norm and nonlinearity included; only the rest of the
    network is linear. One partial run for each writer.
gradient-dropping: the mean size of the effects with one block after the other left out of the backward pass, so that a
    direct effect is seen where one through a later block cancels it.
atp-star: exact softmax and gradient dropping, as in AtP* (Kramar et al. 2024, arXiv 2403.00745). As an edge is cut at
    all positions at once, so are keys, which AtP* patches one by one. The mean size of the effects gets the sign of
    their mean; the mean over images is then taken of signed effects.
relp: coefficients of layer-wise relevance propagation instead of gradients, as in RelP (Jafari et al. 2025, arXiv
    2508.21258): the scale of norms and attention patterns are constants, an activation is x times the constant
    act(x) / x, and of a gate and what it multiplies each counts half. Edges into queries and keys have no effect.
relp-with-patterns: the same, but patterns keep their gradient.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import nullcontext
from functools import partial
from itertools import combinations
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from circuitry.bases.residual import Component, Layer, ResidualStream
from circuitry.circuits.edges import Pair
from circuitry.circuits.quadrature import QuadratureRule, left_rule
from circuitry.circuits.stream_gradients import (
    Activations,
    Gradients,
    Passes,
    changes,
    images_at_once,
    layer_gradients,
    reader_gradients,
    relevance,
    without_each_block,
)
from circuitry.encoder.metrics import Metric
from circuitry.encoder.sites import INPUT
from circuitry.encoder.task import Task
from circuitry.encoder.tensor_batches import count_batches
from circuitry.runs.errors import InputError
from circuitry.runs.progress import Bar

PLAIN = left_rule(1)
"""Attribution patching: one gradient, at the clean activation."""
BY_PATTERN = ("attn.hook_pattern",)
BY_READER = (*BY_PATTERN, "attn.hook_v", "mlp.hook_post")
"""Hook points of a block behind its readers, by which gradients are needed where readers are exact."""

Reader = Callable[
    [Float[Tensor, "batch position d_model"]], Float[Tensor, "passes batch readers"]
]
"""Effects of a change of the stream that some readers of a layer read, one reader at a time."""


class StreamScores(NamedTuple):
    """Scores of all edges between the components of a transformer."""

    readers: tuple[Component, ...]
    writers: tuple[Component, ...]
    scores: Float[np.ndarray, "readers writers"]
    """Effect; positive means that the edge helps: cutting it lowers the metric; NaN where there is no edge."""
    into: Float[np.ndarray, " readers"]
    """Effect of cutting all edges into a reader at once: to first order the sum of theirs."""
    out_of: Float[np.ndarray, " writers"]
    """Effect of cutting all edges out of a writer at once: to first order the sum of theirs."""
    n_images: int


def attributed(
    stream: ResidualStream,
    task: Task,
    rule: QuadratureRule,
    *,
    passes: Passes = lambda stream: [nullcontext()],
    gradients: Gradients = reader_gradients,
    exact: Sequence[str] = (),
) -> StreamScores:
    """Score all edges between the components of a stream.

    Args:
        stream: Some of its neurons may be components of their own.
        task: A task of ``stream.components``, with gradients running.
        passes: In what contexts gradients are taken.
        exact: Hook points behind the readers that are computed exactly: `BY_PATTERN` or `BY_READER`.
    """
    sums, n_images = [torch.zeros(()) for _ in range(3)], 0
    n_patterns = (
        (len(passes(stream)) + 3)
        * sum(one.n_heads for one in stream.blocks)
        * bool(exact)
    )
    for clean, other in clean_and_baseline(stream, task, n_patterns):
        at_points, linear, contexts = (
            list[Mapping[str, Tensor]](),
            list[Tensor](),
            passes(stream),
        )
        for context in contexts:
            with context:
                found = gradients(stream, task.metric, clean, other, rule, exact)
            at_points.append(found.points)
            # Images may be summed in one matrix product, unless effects are put together image by image.
            linear.append(
                _linear_effects(
                    stream,
                    clean,
                    other,
                    found.readers,
                    bool(exact) or len(contexts) > 1,
                )
            )
            del found  # most of the memory, gone before the next images come
        edges = torch.stack(linear)
        into = edges.sum(3)
        if exact:
            _put_exact_effects(
                stream, task.metric, clean, other, at_points, edges, into
            )
        effects = (
            _over_passes(stream, edges, stream.readers),
            _over_passes(stream, into, stream.readers),
            _over_passes(stream, edges.sum(2), stream.writers),
        )
        # A change leads to the baseline: what it adds to the metric is what the edge takes from it.
        sums = [
            total - effect.cpu().double().sum(0)
            for total, effect in zip(sums, effects, strict=True)
        ]
        if not all(bool(total.isfinite().all()) for total in sums):
            raise InputError(
                "Scores of edges are NaN or infinite, although the metric is finite: look at its derivative on the "
                "path to the baseline, or give an encoder of higher precision."
            )
        n_images += len(clean[stream.sites[0]])
    scores, of_readers, of_writers = ((total / n_images).numpy() for total in sums)
    scores = np.where(stream.edges.numpy(), scores, np.nan)
    return StreamScores(
        stream.readers, stream.writers, scores, of_readers, of_writers, n_images
    )


ATTRIBUTED: Mapping[
    str, Callable[[ResidualStream, Task, QuadratureRule], StreamScores]
] = {
    "gradient": attributed,
    "exact-readers": partial(attributed, exact=BY_READER),
    "exact-softmax": partial(attributed, exact=BY_PATTERN),
    "gradient-dropping": partial(attributed, passes=without_each_block),
    "atp-star": partial(attributed, passes=without_each_block, exact=BY_PATTERN),
    "relp": partial(attributed, passes=lambda stream: [relevance(stream, True)]),
    "relp-with-patterns": partial(
        attributed, passes=lambda stream: [relevance(stream, False)]
    ),
    "path-by-layer": partial(attributed, gradients=layer_gradients),
}
"""Methods that score edges of a stream by gradients; see the module."""


def unit_edges(
    score: Callable[[ResidualStream, Task, QuadratureRule], StreamScores],
    task: Task,
    kept_units: Mapping[str, Int[np.ndarray, " kept"]],
    rule: QuadratureRule,
) -> dict[Pair, np.ndarray]:
    """Return the scores [kept downstream, kept upstream] of the edges between every two sites, the earlier one first.

    Writers are heads, neurons and dimensions of the stream before the blocks; readers are heads (query, key and value
    together), neurons before their nonlinearity, and units of the embedding.
    """
    kept = {site: kept_units[site].tolist() for site in task.sites if site != INPUT}
    stream = ResidualStream.of(task.encoder, kept)
    scores, layers = (
        score(stream, task, rule).scores,
        {layer.site: layer for layer in stream.layers},
    )
    places = {
        site: np.array([layers[site].apart.index(unit) for unit in units], int)
        for site, units in kept.items()
    }
    found = {}
    for up, down in combinations(kept, 2):
        writers, readers = scores[:, layers[up].writers], layers[down].readers
        by_port = np.split(writers[readers], len(layers[down].ports))
        found[up, down] = np.sum(
            [of_port[np.ix_(places[down], places[up])] for of_port in by_port], 0
        )
    return found


def _over_passes(
    stream: ResidualStream,
    effects: Float[Tensor, "passes batch ends ..."],
    ends: Sequence[Component],
) -> Float[Tensor, "batch ends ..."]:
    """Return the effects of passes that each leave a block out; of one pass, that pass's.

    ``ends`` are the components whose own block's pass does not count: it leaves out what they do themselves.
    """
    if len(effects) == 1:
        return effects[0]
    block = {layer.name: layer.index for layer in stream.layers}
    own = torch.tensor([block[end.layer] for end in ends], device=effects.device)
    counts = (torch.arange(len(effects), device=effects.device)[:, None] != own).to(
        effects
    )
    weights = (counts / counts.sum(0)).reshape(
        len(effects), 1, len(ends), *[1] * (effects.dim() - 3)
    )
    return torch.copysign((weights * effects.abs()).sum(0), (weights * effects).sum(0))


def stream_of(task: Task) -> tuple[ResidualStream, Task]:
    """Return the residual stream of a task's encoder, and the task for the encoder in heads and neurons."""
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
    """Yield the clean activations and those at the baseline, of as many images as fit; the task's gradients run."""
    at_once = images_at_once(
        stream, len(stream.readers), task.work.memory_gib, n_patterns
    )
    total = count_batches(task.images, rows=1)
    with Bar(
        total=total,
        desc="edges",
        unit="image",
        disable=not task.work.progress,
        leave=False,
    ) as bar:
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
    """Return the effects of edges to first order: on each image, or, not apart, on all together as on one."""
    found = gradients.new_zeros(
        gradients.shape[1] if apart else 1, len(stream.readers), len(stream.writers)
    )
    equation = (
        "rbx,wbx->brw" if apart else "rbx,wbx->rw"
    )  # positions and d_model as one, else both are copied
    for layer, change in changes(stream, clean, other):
        later = slice(layer.readers.stop, None)
        found[:, later, layer.writers] = torch.einsum(
            equation, gradients[later].flatten(2), change.flatten(2)
        )
    return found


# --- Readers that are computed exactly: the change of their output, times its gradient --------------------------------


def _put_exact_effects(
    stream: ResidualStream,
    metric: Metric,
    clean: Activations,
    other: Activations,
    gradients: Sequence[Mapping[str, Tensor]],
    edges: Float[Tensor, "passes batch readers writers"],
    into: Float[Tensor, "passes batch readers"],
) -> None:
    """Put exact readers' effects in the place of linear ones.

    Args:
        gradients: By hook points, of each backward pass: without values and neurons, queries and keys alone are exact.
        edges, into: Effects of each edge and of all edges into a reader, changed in place.
    """
    everything = any(point.endswith("mlp.hook_post") for point in gradients[0])
    readers = dict[str, Reader]()
    for layer in stream.layers[1:]:
        x = stream.read_by(layer, clean)
        if layer.of_heads:
            readers[layer.name] = _exact_heads(layer, x, gradients)
        elif everything and layer.block is not None:
            readers[layer.name] = _exact_neurons(layer, x, gradients)
        elif everything:
            readers[layer.name] = _exact_embedding(
                stream, metric, layer, x, len(gradients)
            )
    moved: Tensor | float = 0.0
    for place, (layer, change) in enumerate(changes(stream, clean, other), 1):
        moved = moved + change.sum(0)
        for later in stream.layers[place:]:
            if reader := readers.get(later.name):
                found = torch.stack([reader(one) for one in change], -1)
                rows = slice(later.readers.start, later.readers.start + found.shape[2])
                edges[:, :, rows, layer.writers] = found
                if later is stream.layers[place]:  # all that it reads has come
                    into[:, :, rows] = reader(moved)


def _exact_heads(
    layer: Layer, x: Tensor, gradients: Sequence[Mapping[str, Tensor]]
) -> Reader:
    """Queries and keys through the attention pattern, softmax included (Kramar et al. 2024, arXiv 2403.00745)."""
    block, point = layer.block, f"{layer.name}.hook_"
    assert block is not None
    q, k, v = block.project(block.norm_attention(x))
    pattern = block.scores(q, k).softmax(-1)

    def effects(change: Tensor) -> Tensor:
        moved_q, moved_k, moved_v = block.project(block.norm_attention(x + change))
        moves = [
            block.scores(*pair).softmax(-1) - pattern
            for pair in ((moved_q, k), (q, moved_k))
        ]
        found = [
            torch.cat([(at[f"{point}pattern"] * move).sum((2, 3)) for move in moves], 1)
            for at in gradients
        ]
        if f"{point}v" in gradients[0]:
            values = [(at[f"{point}v"] * (moved_v - v)).sum((1, 3)) for at in gradients]
            found = [torch.cat(both, 1) for both in zip(found, values, strict=True)]
        return torch.stack(found)

    return effects


def _exact_neurons(
    layer: Layer, x: Tensor, gradients: Sequence[Mapping[str, Tensor]]
) -> Reader:
    """An MLP through its norm and nonlinearity."""
    block = layer.block
    assert block is not None

    def post(read: Tensor) -> Tensor:
        return block.activation(block.mlp_in(block.norm_mlp(read)))

    clean, groups = post(x), layer.groups(block.n_neurons).to(x)

    def effects(change: Tensor) -> Tensor:
        move = post(x + change) - clean
        return torch.stack(
            [
                (at[f"{layer.name}.hook_post"] * move).sum(1) @ groups.T
                for at in gradients
            ]
        )

    return effects


def _exact_embedding(
    stream: ResidualStream, metric: Metric, layer: Layer, x: Tensor, n_passes: int
) -> Reader:
    """The embedding through the metric itself; behind a unit of it the metric is taken as linear."""
    last, units = stream.encoder.stages[-1].run, list(layer.apart)
    with torch.enable_grad():
        embedding = last(x).detach().requires_grad_()
        clean = metric(embedding)
        (gradient,) = (
            torch.autograd.grad(clean.sum(), embedding) if units else (embedding,)
        )

    def effects(change: Tensor) -> Tensor:
        moved = last(x + change)
        whole = (metric(moved) - clean.detach())[:, None]
        if units:
            alone = ((moved - embedding) * gradient).detach()[:, units]
            whole = torch.cat([alone, whole - alone.sum(1, keepdim=True)], 1)
        return whole[None].expand(n_passes, -1, -1)

    return effects
