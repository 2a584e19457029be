"""Run a transformer with gates on the edges of its residual stream.

Each reader has a stream of its own: the stream of the baseline, and the difference that each earlier layer makes to it
in this run, through the gates:

    stream[reader] = stream of the baseline + sum over earlier layers of  write(gates[reader, unit] * (a - b)[unit])

Writing is linear, so the gate of an edge may act on the unit before it is written.
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
"""Gates [readers, units] by the pair of writing and reading layer. A layer given by its site has a gate for each unit;
given by its name, an MLP, the embedding or the stream before the blocks has one gate for all units. A name such as
``blocks.3.attn.q`` means the queries of the heads. Gates of several names are multiplied; pairs without gates are open.
"""


_Read = Callable[[Tensor], Tensor]
"""Function of numbers of rows that returns the streams [rows, batch, position, d_model] under these rows of gates."""


class LayerRun(NamedTuple):
    """Differences of a layer in this run from its baseline."""

    layer: Layer
    units: Float[Tensor, "batch position ..."]
    """Difference of its units."""
    stream: Float[Tensor, "terms batch position d_model"]
    """Difference of its addition to the stream: of each head, or of all units of another layer together."""


def run_gated(
    stream: ResidualStream,
    start: Float[Tensor, "batch position d_model"],
    ends: Mapping[str, Tensor],
    gates: GatesByLayers,
    at_once: int,
) -> Float[Tensor, "batch d"]:
    """Return the embeddings under gates on edges.

    Args:
        stream: The tower as writers and readers.
        start: Activation before the first block.
        ends: Activations of the baseline at the sites of the stream, for each image or one for all.
        gates: Booleans, or real numbers, in which the embeddings are differentiable.
        at_once: Largest number of different streams in memory at a time.
    """
    # This function computes blocks from weights instead of running stages, so hooks inside would not act.
    stream.components.check_unhooked(
        "runs under gates on edges go through the weights of the blocks: put hooks before the blocks",
        stream.sites[0],
    )
    first, *layers, last = stream.layers
    baseline = stream.components.units_of(first.site, ends[first.site])
    moved = start - baseline
    # `baseline` is the baseline's stream up to here; each layer adds its own part to it.
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
            # A difference is written without the bias, which the baseline has already.
            wrote = (block.mlp_out(moved) - stream.biases(layer.index)[1])[None]
            baseline = baseline + block.mlp_out(end)
        earlier.append(LayerRun(layer, moved, wrote))
    into = _gates_into(last, earlier, gates)
    read = partial(_streams, stream, baseline, earlier, into)
    return _units(read, into, stream.encoder.stages[-1].run, at_once)


def _gates_into(
    layer: Layer, earlier: Sequence[LayerRun], gates: GatesByLayers
) -> list[Gates | None]:
    """Return the gates [readers, units] of a layer on each earlier layer; None for an earlier layer without gates.

    The readers of heads are all queries, then all keys, then all values.
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
        # Gates of a whole layer and of its units act together, so the largest shape is that of their product.
        shape = np.broadcast_shapes(*(gate.shape for gate in every))
        is_open = torch.ones(shape, dtype=torch.bool, device=every[0].device)
        joined.append(torch.cat([reduce(mul, port, is_open) for port in by_port]))
    # One row of gates stands for all readers alike.
    n_readers = max((len(gate) for gate in joined if gate is not None), default=1)
    return [None if gate is None else gate.expand(n_readers, -1) for gate in joined]


def _streams(
    stream: ResidualStream,
    baseline: Float[Tensor, "_ position d_model"],
    earlier: Sequence[LayerRun],
    into: Sequence[Gates | None],
    rows: Int[Tensor, " rows"],
) -> Float[Tensor, "rows batch position d_model"]:
    """Return the streams of some readers: the baseline's stream and the gated differences of all earlier layers."""
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
    """Return the difference of a layer's addition to the stream, with gates on its units or on the whole layer."""
    gate = gates.to(run.units)
    # Gates on heads, or one on a whole layer: the difference of each was written once and is only weighted here.
    if gate.shape[1] == len(run.stream):
        return torch.einsum("rw,wbpm->rbpm", gate, run.stream)
    if run.layer.block is None:
        # Before the blocks a unit is a dimension of the stream itself.
        return gate[:, None, None] * run.units
    # Neurons whose gates are closed in all rows are left out of the product, which saves most of it in small circuits.
    through = gates.detach().any(0)
    gated = run.units[..., through] * gate[:, None, None, through]
    return gated @ stream.neuron_weights[run.layer.index][through]


def _units(
    read: _Read,
    into: Sequence[Gates | None],
    step: Callable[[Tensor], Tensor],
    at_once: int,
) -> Tensor:
    """Return the units of a layer, each computed by ``step`` from the stream of its own gates."""
    gates = [gate for gate in into if gate is not None]

    def made(rows: Tensor) -> Tensor:
        units = step(read(rows).flatten(0, 1))
        return torch.unflatten(units, 0, (len(rows), -1))

    # Without gates, or with one row for all, all units read one stream.
    if not gates or len(gates[0]) == 1:
        return made(torch.zeros(1, dtype=torch.int64))[0]
    return read_through(gates, made, -1, at_once)


def _attend(
    block: Block,
    read_weights: tuple[Tensor, Tensor],
    read: _Read,
    into: Sequence[Gates | None],
) -> Float[Tensor, "batch position head d_head"]:
    """Return z of a block in which the query, key and value of each head read streams of their own.

    ``read_weights`` are weights and biases of the readers, see `ResidualStream.read_weights`.
    """
    weights, bias = read_weights
    gates = [gate for gate in into if gate is not None]
    same = torch.zeros(3 * block.n_heads, dtype=torch.int64)
    rows, which = different_rows(gates) if gates else (same[:1], same)
    # Norms are computed for the distinct streams alone, then given to their readers: [port, head, batch, ...].
    streams = torch.unflatten(block.norm_attention(read(rows))[which], 0, (3, -1))
    q, k, v = torch.einsum("ahbpm,ahdm->abphd", streams, weights) + bias[:, None, None]
    return block.mix(q, k, v)
