"""Effects of edges by pairs of positions. Only heads move information between positions, through their pattern.

The effect of an edge is a sum over positions, see `stream_edges`. Into a port of a head it is a sum over pairs of
positions (to, from):

    v:  pattern[to, from] * (dv[from] . G_z[to])                the head reads another value at the position
    k:  G_s[to, from] * ds[to, from]  as k[from] changes        the head looks there more
    q:  G_s[to, from] * ds[to, from]  as q[to] changes          the same, by who looks

with dv, ds the change to first order from the writer's baseline to its clean activation, and G_z and G_s the gradients
of the metric by the head's output and its scores. Over ``to`` (q: over ``from``) they sum to `edges_by_position`.
"""

from collections.abc import Callable, Sequence
from typing import Annotated

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from circuitry.bases.residual import PORTS, Component, ResidualStream
from circuitry.circuits.stream_edges import PLAIN, clean_and_baseline, stream_of
from circuitry.circuits.stream_gradients import Tap, reader_gradients, tapped_run
from circuitry.encoder.task import Task
from circuitry.runs.errors import InputError
from circuitry.runs.given import DISTINCT, SOME, checked


@checked
def edges_by_position(
    task: Task, edges: Annotated[Sequence[tuple[str, str]], DISTINCT, SOME]
) -> Float[np.ndarray, "images edges positions"]:
    """Return the effects of some edges image by image, at each position; positions sum to an edge's effect.

    An edge through the stream stays at its position; only heads move between positions, see `moves_between_positions`.

    Args:
        task: As for `attribute_components`.
        edges: Names of (writer, reader).

    Example:
        >>> found = edges_by_position(task, [("blocks.2.attn.1", "blocks.3.mlp")])
        >>> by_patch = clip.encoder.token_grid.patches(found)
        >>> position_heatmap(by_patch[0, 0], pixels, title="...", measure="effect on the logit")
    """
    stream, task = stream_of(task)
    places = [stream.edge(writer, reader) for writer, reader in edges]
    found = []
    with task.running(gradients=True):
        for clean, other in clean_and_baseline(stream, task):
            gradients = reader_gradients(stream, task.metric, clean, other, PLAIN).readers
            change = stream.written({site: clean[site] - other[site] for site in stream.sites})
            parts = [(gradients[row] * change[column]).sum(-1) for row, column in places]
            found.append(torch.stack(parts, 1).cpu().double().numpy())
    return np.concatenate(found)


@checked
def moves_between_positions(
    task: Task, edges: Annotated[Sequence[tuple[str, str]], DISTINCT]
) -> Float[np.ndarray, "images edges to from"]:
    """Return the effects of some edges into heads image by image, by the positions that the head moves them between.

    Args:
        task: As for `attribute_components`.
        edges: Names of (writer, reader); readers are the query, key or value of a head.

    Example:
        >>> moves = moves_between_positions(task, [("embed", "blocks.3.attn.0.v")])
        >>> grid = clip.encoder.token_grid
        >>> position_moves(moves[0, 0], pixels, grid, title="...", measure="effect on the logit")
    """
    stream, task = stream_of(task)
    places = [_place(stream, writer, reader) for writer, reader in edges]
    found = []
    with task.running(gradients=True):
        for clean, other in clean_and_baseline(stream, task):
            taps = tapped_run(stream, task.metric, clean[stream.sites[0]], ("attn.hook_z",))
            change = stream.written({site: clean[site] - other[site] for site in stream.sites})
            parts = [_moves(stream, reader, change[column], taps) for column, reader in places]
            n = change.shape[2]
            some = torch.stack(parts, 1).cpu().double().numpy() if parts else np.zeros((change.shape[1], 0, n, n))
            found.append(some)
    return np.concatenate(found)


def _place(stream: ResidualStream, writer: str, reader: str) -> tuple[int, Component]:
    row, column = stream.edge(writer, reader)
    if not stream.readers[row].port:
        raise InputError(
            f"Heads alone move between positions, but {reader!r} reads every position for itself: give a head's query, "
            f"key or value ({stream.readers[0]}), or take edges_by_position."
        )
    return column, stream.readers[row]


def _moves(
    stream: ResidualStream, reader: Component, change: Tensor, taps: dict[str, Tap]
) -> Float[Tensor, "batch to from"]:
    """Return the effects, given what the writer changes."""
    layer = next(one for one in stream.layers if one.name == reader.layer)
    block, path, head, port = layer.block, layer.name, reader.unit, PORTS.index(reader.port)
    assert block is not None
    before = taps[layer.reads].value
    q, k, v = (taps[f"{path}.hook_{port}"].value for port in PORTS)
    step = _derivative(lambda x: block.project(block.norm_attention(x))[port], before, change)
    pattern = block.scores(q, k).softmax(-1)[:, head]
    into_z = taps[f"{path}.hook_z"].gradient[:, :, head]
    if reader.port == "v":
        return pattern * torch.einsum("bqd,bkd->bqk", into_z, step[:, :, head])
    into_pattern = torch.einsum("bqd,bkd->bqk", into_z, v[:, :, head])
    into_scores = pattern * (into_pattern - (pattern * into_pattern).sum(-1, keepdim=True))
    along = (lambda x: block.scores(x, k), q) if reader.port == "q" else (lambda x: block.scores(q, x), k)
    return into_scores * _derivative(*along, step)[:, head]


def _derivative(function: Callable[[Tensor], Tensor], x: Tensor, step: Tensor) -> Tensor:
    """Return how a function changes with a step from x, to first order."""
    found: Tensor = torch.func.jvp(function, (x,), (step,))[1]
    return found
