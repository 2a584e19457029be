"""Effects of edges where readers are computed exactly: the change of their output, times its gradient.

A plain score is the gradient by the stream that a reader reads, times the change of the stream. Here the change of the
reader's output is computed, its norm included, and only the rest of the network is linear:

    query, key   the attention pattern, softmax included (Kramar et al. 2024, arXiv 2403.00745)
    value        the values of a head
    MLP          the neurons, nonlinearity included
    embedding    the metric itself
"""

from collections.abc import Callable, Iterable, Mapping, Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from circuitry.bases.residual import ResidualStream
from circuitry.encoder.metrics import Metric

EXACT_POINTS: Mapping[str, Sequence[str]] = {
    "exact-softmax": ("attn.hook_pattern",),
    "atp-star": ("attn.hook_pattern",),
    "exact-readers": ("attn.hook_pattern", "attn.hook_v", "mlp.hook_post"),
}
"""Hook points of a block by which gradients are needed, by the name of a method."""

Gradients = Sequence[Mapping[str, Tensor]]
"""By hook points, of each backward pass."""
Reader = Callable[[Float[Tensor, "batch position d_model"]], Float[Tensor, "passes batch readers"]]
"""Effects of a change of the stream that some readers of a stage read, one reader at a time."""


def put_exact_effects(
    stream: ResidualStream,
    metric: Metric,
    clean: Mapping[str, Tensor],
    changes: Iterable[tuple[int, slice, Float[Tensor, "writers batch position d_model"]]],
    gradients: Gradients,
    effects: Float[Tensor, "passes batch readers writers_and_all"],
) -> None:
    """Put exact readers' effects in the place of linear ones.

    Args:
        clean: Activations at the stream's sites.
        changes: The first stage that reads some writers, their columns, and what each adds to the stream.
        gradients: By the points of `EXACT_POINTS`: without values and neurons, queries and keys alone are exact.
        effects: Changed in place; the last column is of all that a reader reads.
    """
    readers = _readers(stream, metric, clean, gradients)
    moved: Tensor | float = 0.0
    for first, columns, change in changes:
        moved = moved + change.sum(0)
        for stage, reader in readers.items():
            start = stream.readers_of(stage).start
            if stage >= first:
                found = torch.stack([reader(one) for one in change], -1)
                effects[:, :, start : start + found.shape[2], columns] = found
            if stage == first:  # all that it reads has come
                found = reader(moved)
                effects[:, :, start : start + found.shape[2], -1] = found


def _readers(
    stream: ResidualStream, metric: Metric, clean: Mapping[str, Tensor], gradients: Gradients
) -> dict[int, Reader]:
    """Return the exact readers by stage: heads and, where there are gradients by neurons, all the others."""
    found, last = {}, 2 * len(stream.blocks)
    for index in range(len(stream.blocks)):
        found[2 * index] = _heads(stream, index, stream.read_by(2 * index, clean), gradients)
        if f"blocks.{index}.mlp.hook_post" in gradients[0]:
            found[2 * index + 1] = _neurons(stream, index, stream.read_by(2 * index + 1, clean), gradients)
    if len(found) > len(stream.blocks):
        found[last] = _embedding(stream, metric, stream.read_by(last, clean), len(gradients))
    return found


def _heads(stream: ResidualStream, index: int, x: Tensor, gradients: Gradients) -> Reader:
    steps, path = stream.blocks[index], f"blocks.{index}.attn"
    q, k, v = steps.project(steps.norm_attention(x))
    pattern = steps.scores(q, k).softmax(-1)

    def effects(change: Tensor) -> Tensor:
        moved_q, moved_k, moved_v = steps.project(steps.norm_attention(x + change))
        moves = [steps.scores(*pair).softmax(-1) - pattern for pair in ((moved_q, k), (q, moved_k))]
        found = [torch.cat([(at[f"{path}.hook_pattern"] * move).sum((2, 3)) for move in moves], 1) for at in gradients]
        if f"{path}.hook_v" in gradients[0]:
            values = [(at[f"{path}.hook_v"] * (moved_v - v)).sum((1, 3)) for at in gradients]
            found = [torch.cat(both, 1) for both in zip(found, values, strict=True)]
        return torch.stack(found)

    return effects


def _neurons(stream: ResidualStream, index: int, x: Tensor, gradients: Gradients) -> Reader:
    steps = stream.blocks[index]

    def post(read: Tensor) -> Tensor:
        return steps.activation(steps.mlp_in(steps.norm_mlp(read)))

    clean, groups = post(x), stream.neuron_groups(index).to(x)

    def effects(change: Tensor) -> Tensor:
        move = post(x + change) - clean
        return torch.stack([(at[f"blocks.{index}.mlp.hook_post"] * move).sum(1) @ groups.T for at in gradients])

    return effects


def _embedding(stream: ResidualStream, metric: Metric, x: Tensor, n_passes: int) -> Reader:
    last, units = stream.encoder.stages[-1].run, list(stream.outputs)
    with torch.enable_grad():
        embedding = last(x).detach().requires_grad_()
        clean = metric(embedding)
        (gradient,) = torch.autograd.grad(clean.sum(), embedding) if units else (embedding,)

    def effects(change: Tensor) -> Tensor:
        moved = last(x + change)
        whole = (metric(moved) - clean.detach())[:, None]
        if units:  # behind a unit of the embedding the metric is taken as linear
            alone = ((moved - embedding) * gradient).detach()[:, units]
            whole = torch.cat([alone, whole - alone.sum(1, keepdim=True)], 1)
        return whole[None].expand(n_passes, -1, -1)

    return effects
