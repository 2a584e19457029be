"""Run a transformer with gates on the edges of its residual stream.

A reader is a component that reads the stream: the query, key or value of a head, an MLP or a neuron, or the embedding
(see `residual`). Here each reader reads a copy of the stream of its own. The copy starts from the stream of the
baseline. For each unit of an earlier layer, with activation a and baseline b, the difference a - b is multiplied by the
gate of the edge from the unit to the reader, and written to the copy by the output weights of the layer:

    stream[reader] = stream of the baseline + sum over earlier layers of  write(gates[reader, unit] * (a - b)[unit])

Writing to the stream is linear. So the gate of an edge can be multiplied with the unit before the unit is written.
"""

from collections.abc import Callable, Mapping, Sequence
from functools import partial, reduce
from itertools import chain, product
from operator import mul
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from circuitry.bases.blocks import Block
from circuitry.bases.gated_reading import Gates, different_rows, read_through
from circuitry.bases.residual import Layer, ResidualStream
from circuitry.encoder.narrowing import in_order

GatesByLayers = Mapping[tuple[str, str], Gates]
"""Gates [readers, units] by pairs (writing layer, reading layer).

A layer in a pair is given by its site or by its name (see `Layer`). The site means that each unit has a gate. The name
of an MLP, of the embedding or of the stream before the blocks means that all its units share one gate. The name of
the heads of a block still means that each head has a gate. A name such as ``blocks.3.attn.q`` means the queries of the
heads. If a pair of layers has gates under several names, they are multiplied. If a pair has no gates, its edges are
open.
"""


_Read = Callable[[Tensor], Tensor]
"""Function that takes indices of readers, and returns the copies of the stream that these readers read.

The indices are rows of the gates. The result has the shape [rows, batch, position, d_model].
"""


class LayerRun(NamedTuple):
    """The differences between a layer in a run under gates and the same layer in the baseline."""

    layer: Layer
    units: Float[Tensor, "batch position ..."]
    """Activations of the units of the layer, minus the baselines of these units."""
    stream: Float[Tensor, "terms batch position d_model"]
    """What the layer adds to the stream, minus what the layer adds in the baseline.

    The first axis has an entry for each head if the units are heads. Otherwise it has one entry for the whole layer.
    """


def run_gated(
    stream: ResidualStream,
    start: Float[Tensor, "batch position d_model"],
    ends: Mapping[str, Tensor],
    gates: GatesByLayers,
    at_once: int,
) -> Float[Tensor, "batch d"]:
    """Return the embeddings under gates on edges.

    Args:
        stream: The tower as a graph of components that write to the residual stream and read from it.
        start: Activation of the images before the first block.
        ends: Activations of the baseline at the sites of the stream: an activation for each image, or a single
            activation for all images.
        gates: Gates that are booleans or real numbers. The embeddings are differentiable with respect to real gates.
        at_once: Largest number of different streams in memory at a time.

    Raises:
        InputError: if hooks are set after the first site of the stream. They would be ignored, because blocks are
            computed from their weights.
    """
    # This function computes blocks from their weights instead of running the stages. So hooks in the blocks would be
    # ignored.
    stream.components.check_unhooked(
        "runs under gates on edges go through the weights of the blocks: put hooks before the blocks",
        stream.sites[0],
    )
    first, *layers, last = stream.layers
    baseline = stream.components.units_of(first.site, ends[first.site])
    moved = start - baseline
    # `baseline` is the stream of the baseline before the current layer. Each layer adds its baseline addition to it.
    earlier = [LayerRun(first, moved, moved[None])]
    for layer in layers:
        block = layer.block
        assert block is not None
        end = stream.components.units_of(layer.site, ends[layer.site])
        into = _gates_into(layer, earlier, gates)
        read = partial(_streams, stream, baseline, earlier, into)
        if layer.of_heads:
            moved = _attend(block, stream.read_weights[layer.index], read, into) - end
            weights = stream.write_weights[layer.index]
            wrote = torch.einsum("bphd,hdm->hbpm", moved, weights)
            baseline = baseline + block.attention_out(end)
        else:
            to_neurons = in_order(block.norm_mlp, block.mlp_in, block.activation)
            moved = _units(read, into, to_neurons, at_once) - end
            # A difference is written without the bias, because the stream of the baseline contains the bias.
            wrote = (block.mlp_out(moved) - stream.biases(layer.index)[1])[None]
            baseline = baseline + block.mlp_out(end)
        earlier.append(LayerRun(layer, moved, wrote))
    into = _gates_into(last, earlier, gates)
    read = partial(_streams, stream, baseline, earlier, into)
    return _units(read, into, stream.encoder.stages[-1].run, at_once)


def _gates_into(
    layer: Layer, earlier: Sequence[LayerRun], gates: GatesByLayers
) -> list[Gates | None]:
    """Return the gates [readers, units] on the edges into a layer: an entry for each earlier layer, in order.

    An entry is None if the edges from the earlier layer have no gates, so that these edges are open. If ``layer`` has
    heads, its readers are all queries, then all keys, then all values.
    """
    joined = list[Gates | None]()
    for up in earlier:
        by_port = []
        for port in layer.ports:
            pairs = product(up.layer.names, layer.names_of(port))
            by_port.append([gates[pair] for pair in pairs if pair in gates])
        every = list(chain.from_iterable(by_port))
        if not every:
            joined.append(None)
            continue
        # Gates of a whole layer and gates of its units are multiplied. So the product gets the broadcast shape.
        shape = np.broadcast_shapes(*(gate.shape for gate in every))
        is_open = torch.ones(shape, dtype=torch.bool, device=every[0].device)
        joined.append(torch.cat([reduce(mul, port, is_open) for port in by_port]))
    # A single row of gates is used for all readers.
    n_readers = max((len(gate) for gate in joined if gate is not None), default=1)
    return [None if gate is None else gate.expand(n_readers, -1) for gate in joined]


def _streams(
    stream: ResidualStream,
    baseline: Float[Tensor, "_ position d_model"],
    earlier: Sequence[LayerRun],
    into: Sequence[Gates | None],
    rows: Int[Tensor, " rows"],
) -> Float[Tensor, "rows batch position d_model"]:
    """Return the copies of the stream that some readers of a layer read.

    Each copy is the stream of the baseline plus the gated differences of all earlier layers; see the module.

    Args:
        stream: The tower as a graph of components that write to the residual stream and read from it.
        baseline: Stream of the baseline before the layer.
        earlier: Differences of the earlier layers.
        into: Gates on the edges from each earlier layer, or None for a layer without gates; see `_gates_into`.
        rows: Indices of the readers, which are rows of the gates.
    """
    streams = baseline.expand(len(rows), *earlier[0].units.shape)
    for run, gate in zip(earlier, into, strict=True):
        if gate is not None:
            streams = streams + _through(stream, run, gate[rows])
            continue
        # Without gates the layer adds the same to every stream.
        streams = streams + run.stream.sum(0)
    return streams


def _through(
    stream: ResidualStream, run: LayerRun, gates: Gates
) -> Float[Tensor, "rows batch position d_model"]:
    """Return what an earlier layer adds to the copy of each reader: its differences to the baseline, times the gates.

    Args:
        stream: The tower as a graph of components that write to the residual stream and read from it.
        run: Differences of the earlier layer.
        gates: Gates with a row for each reader. A row has a gate for each unit, or one gate for the whole layer.
    """
    gate = gates.to(run.units)
    # For gates on heads, or one gate on a whole layer, the differences in the stream are known. They are only weighted.
    if gate.shape[1] == len(run.stream):
        return torch.einsum("rw,wbpm->rbpm", gate, run.stream)
    if run.layer.block is None:
        # Before the blocks a unit is a dimension of the stream itself.
        return gate[:, None, None] * run.units
    # Neurons whose gates are closed in all rows are left out of the product. In small circuits these are most neurons.
    through = gates.detach().any(0)
    gated = run.units[..., through] * gate[:, None, None, through]
    return gated @ stream.neuron_weights[run.layer.index][through]


def _units(
    read: _Read,
    into: Sequence[Gates | None],
    step: Callable[[Tensor], Tensor],
    at_once: int,
) -> Tensor:
    """Return the activations of the neurons of an MLP, or the units of the embedding, under gates.

    Args:
        read: Function that returns copies of the stream; see `_Read`.
        into: Gates on the edges from each earlier layer, with a row for each unit, or one row for all units.
        step: Function that computes all units of the layer from a stream. From each copy of the stream, only the units
            that read this copy are taken.
        at_once: Largest number of different copies in memory at a time.
    """
    gates = [gate for gate in into if gate is not None]

    def made(rows: Tensor) -> Tensor:
        units = step(read(rows).flatten(0, 1))
        return torch.unflatten(units, 0, (len(rows), -1))

    # If there are no gates, or if one row of gates is for all units, all units read the same stream.
    if not gates or len(gates[0]) == 1:
        return made(torch.zeros(1, dtype=torch.int64))[0]
    return read_through(gates, made, -1, at_once)


def _attend(
    block: Block,
    read_weights: tuple[Tensor, Tensor],
    read: _Read,
    into: Sequence[Gates | None],
) -> Float[Tensor, "batch position head d_head"]:
    """Return z, the output of each head of a block, under gates.

    Each query, key and value of each head is computed from a copy of the stream of its own.

    Args:
        block: The block.
        read_weights: The weights and the biases that compute queries, keys and values from the normed stream; see
            `ResidualStream.read_weights`.
        read: Function that returns copies of the stream; see `_Read`.
        into: Gates on the edges from each earlier layer; see `_gates_into`.
    """
    weights, bias = read_weights
    gates = [gate for gate in into if gate is not None]
    same = torch.zeros(3 * block.n_heads, dtype=torch.int64)
    rows, which = different_rows(gates) if gates else (same[:1], same)
    # Norms are computed only for the distinct streams. Then each reader gets its stream: [port, head, batch, ...].
    streams = torch.unflatten(block.norm_attention(read(rows))[which], 0, (3, -1))
    q, k, v = torch.einsum("ahbpm,ahdm->abphd", streams, weights) + bias[:, None, None]
    return block.mix(q, k, v)
