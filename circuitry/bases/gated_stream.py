"""Runs of a transformer with the edges of its residual stream under gates.

A reader reads the stream of the baseline, and what every earlier layer writes in this run beyond its baseline, times
the gates:

    stream[reader] = stream of the baseline + sum over earlier layers of  write(gates[reader, unit] * (a - b)[unit])

Writing is linear, so the gate of an edge may act on the unit before it is written.
"""

from collections.abc import Callable, Mapping, Sequence
from functools import partial, reduce
from itertools import product
from operator import mul
from typing import NamedTuple

import torch
from einops import rearrange
from jaxtyping import Float, Int
from torch import Tensor

from circuitry.bases.gated_reading import Gates, different_rows, read_through
from circuitry.bases.residual import Layer, ResidualStream
from circuitry.encoder.narrowing import in_order

GatesByLayers = Mapping[tuple[str, str], Gates]
"""Gates [readers, units] by the layer that writes and the one that reads: their sites, all of whose units are apart, or
their names, where all of an MLP, or of what stands before or behind the blocks, is one. ``blocks.3.attn.q`` names the
queries of a layer of heads alone. Gates of several names act together; without any, edges are open."""


_Read = Callable[[Tensor], Tensor]
"""The streams [rows, batch, position, d_model] under some rows of gates."""


class LayerRun(NamedTuple):
    """How far a layer of this run lies from its baseline."""

    layer: Layer
    units: Float[Tensor, "batch position ..."]
    stream: Float[Tensor, "parts batch position d_model"]
    """What it adds to the stream: of each head, or of all other units together."""


def run_gated(
    stream: ResidualStream,
    start: Float[Tensor, "batch position d_model"],
    ends: Mapping[str, Tensor],
    gates: GatesByLayers,
    at_once: int,
) -> Float[Tensor, "batch d"]:
    """Return the embeddings under gates on edges.

    Args:
        start: What stands before the first block.
        ends: Activations of the baseline at the sites of the stream, for every image or one for all.
        gates: Booleans, or real numbers by which the embeddings are differentiable.
        at_once: Different streams that neurons, or units of the embedding, may read at once.
    """
    stream.components.check_unhooked(
        "runs under gates on edges go through the weights of the blocks: put hooks before the blocks",
        stream.sites[0],
    )
    first, *layers, last = stream.layers
    baseline = stream.components.units_of(first.site, ends[first.site])
    earlier = [LayerRun(first, start - baseline, (start - baseline)[None])]
    for layer in layers:
        end = stream.components.units_of(layer.site, ends[layer.site])
        block, into = layer.block, _gates_into(layer, earlier, gates)
        assert block is not None
        read = partial(_streams, stream, baseline, earlier, into)
        if layer.of_heads:
            moved, out = _attend(stream, layer, read, into) - end, block.attention_out
            wrote = torch.einsum(
                "bphd,hdm->hbpm", moved, stream.write_weights[layer.index]
            )
        else:
            neurons = in_order(block.norm_mlp, block.mlp_in, block.activation)
            moved, out = _units(read, into, neurons, at_once) - end, block.mlp_out
            wrote = (out(moved) - stream.biases(layer.index)[1])[None]
        earlier.append(LayerRun(layer, moved, wrote))
        baseline = baseline + out(end)
    into = _gates_into(last, earlier, gates)
    return _units(
        partial(_streams, stream, baseline, earlier, into),
        into,
        stream.encoder.stages[-1].run,
        at_once,
    )


def _gates_into(
    layer: Layer, earlier: Sequence[LayerRun], gates: GatesByLayers
) -> list[Gates | None]:
    """Return the gates of a layer's readers on each earlier layer, port behind port; none where all are open."""
    found = list[Gates | None]()
    for up in (one.layer for one in earlier):
        names = [list(product(up.names, layer.names_of(port))) for port in layer.ports]
        by_port = [[gates[pair] for pair in pairs if pair in gates] for pairs in names]
        some = [gate for of_port in by_port for gate in of_port]
        if not some:
            found.append(None)
            continue
        shape = [max(gate.shape[axis] for gate in some) for axis in (0, 1)]
        whole = torch.ones(shape, dtype=torch.bool, device=some[0].device)
        found.append(torch.cat([reduce(mul, of_port, whole) for of_port in by_port]))
    n_readers = max((len(gate) for gate in found if gate is not None), default=1)
    return [gate if gate is None else gate.expand(n_readers, -1) for gate in found]


def _streams(
    stream: ResidualStream,
    baseline: Float[Tensor, "_ position d_model"],
    earlier: Sequence[LayerRun],
    into: Sequence[Gates | None],
    rows: Int[Tensor, " rows"],
) -> Float[Tensor, "rows batch position d_model"]:
    """Return the streams under some rows of gates: the baseline's and what every earlier layer writes beyond it."""
    found = baseline.expand(len(rows), *earlier[0].units.shape)
    for one, gate in zip(earlier, into, strict=True):
        found = found + (
            one.stream.sum(0) if gate is None else _through(stream, one, gate[rows])
        )
    return found


def _through(
    stream: ResidualStream, one: LayerRun, gate: Gates
) -> Float[Tensor, "rows batch position d_model"]:
    """Return what a layer writes beyond its baseline through gates on its units, or on all of it."""
    open_, gate = gate.detach().any(0), gate.to(one.units)
    if gate.shape[1] == len(one.stream):
        return torch.einsum("rw,wbpm->rbpm", gate, one.stream)
    if one.layer.block is None:
        return gate[:, None, None] * one.units
    return (one.units[..., open_] * gate[:, None, None, open_]) @ stream.neuron_weights[
        one.layer.index
    ][open_]


def _units(
    read: _Read,
    into: Sequence[Gates | None],
    step: Callable[[Tensor], Tensor],
    at_once: int,
) -> Tensor:
    """Return the units of a layer, each by the step from its own stream."""
    gates = [gate for gate in into if gate is not None]

    def made(rows: Tensor) -> Tensor:
        return rearrange(
            step(read(rows).flatten(0, 1)),
            "(row image) ... -> row image ...",
            row=len(rows),
        )

    if not gates or len(gates[0]) == 1:
        return made(torch.zeros(1, dtype=torch.int64))[0]
    return read_through(gates, made, -1, at_once)


def _attend(
    stream: ResidualStream, layer: Layer, read: _Read, into: Sequence[Gates | None]
) -> Float[Tensor, "batch position head d_head"]:
    """Return z of a block whose heads' queries, keys and values each read a stream of their own."""
    block, (weights, bias) = (
        stream.blocks[layer.index],
        stream.read_weights[layer.index],
    )
    gates = [gate for gate in into if gate is not None]
    same = torch.zeros(3 * block.n_heads, dtype=torch.int64)
    rows, which = different_rows(gates) if gates else (same[:1], same)
    streams = rearrange(
        block.norm_attention(read(rows))[which],
        "(port head) b p m -> port head b p m",
        port=3,
    )
    q, k, v = torch.einsum("ahbpm,ahdm->abphd", streams, weights) + bias[:, None, None]
    return block.mix(q, k, v)
