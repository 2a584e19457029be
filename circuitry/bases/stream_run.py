"""Runs of a transformer with edges of its residual stream gated, unit by unit.

Places, in order: 0 what stands before the first block, 2i + 1 the heads of block i, 2i + 2 its MLP, and last what makes
the embedding. A place reads the stream of the baseline plus what every earlier place writes in this run beyond its
baseline, times the gates:

    stream[reader] = stream of the baseline + sum over earlier places of  write(gates[reader, unit] * (a - b)[unit])

Writing is linear, so the gate of an edge may act on the unit before it is written. Gates come by (upstream, downstream)
pair of places as [readers, units], where either may be 1: all alike, as for an MLP as a whole. A pair that is not there
is open. Heads have three readers each, query, key and value: [port head, units].
"""

from collections.abc import Callable, Mapping

import torch
from einops import rearrange
from jaxtyping import Float
from torch import Tensor

from circuitry.bases.gated_reading import Gates, different_rows, read_through
from circuitry.bases.residual import ResidualStream
from circuitry.encoder.narrowing import in_order

_Pair = tuple[int, int]

PORTS_OF_A_HEAD = 3


def run_gated(
    stream: ResidualStream,
    start: Float[Tensor, "batch position d_model"],
    ends: Mapping[str, Tensor],
    gates: Mapping[_Pair, Gates],
    at_once: int,
) -> Float[Tensor, "batch d"]:
    """Return the embeddings under gates on edges.

    Args:
        stream: The tower.
        start: What stands before the first block.
        ends: Activations of the baseline at the sites of the stream, for every image or one for all.
        gates: By pair of places; see the module.
        at_once: Different streams that neurons, or units of the embedding, may read at once.

    Raises:
        InputError: for hooks in the blocks or behind them, on which it would not act.
    """
    stream.components.check_unhooked(
        "runs under gates on edges go through the weights of the blocks: put hooks before the blocks", stream.sites[0]
    )
    run = _Run(stream, start, ends, gates, at_once)
    for index, block in enumerate(stream.blocks):
        heads, mlp = 2 * index + 1, 2 * index + 2
        z = stream.attended(index, run.streams_of_each(heads, PORTS_OF_A_HEAD * block.n_heads))
        run.write(heads, z, block.attention_out)
        neurons = in_order(block.norm_mlp, block.mlp_in, block.activation)
        run.write(mlp, run.read(mlp, neurons), block.mlp_out)
    return run.read(2 * len(stream.blocks) + 1, stream.encoder.stages[-1].run)


class _Run:
    """How far every place lies from its baseline, place by place, as the run goes on."""

    def __init__(
        self,
        stream: ResidualStream,
        start: Tensor,
        ends: Mapping[str, Tensor],
        gates: Mapping[_Pair, Gates],
        at_once: int,
    ) -> None:
        self.stream, self.gates, self.at_once = stream, gates, at_once
        self.ends = [stream.components.units_of(site, ends[site]) for site in stream.sites]
        self.of_baseline = self.ends[0]
        """The stream of the baseline, as far as it has been written."""
        self.moved = [start - self.ends[0]]
        self._written = [self.moved[0][None]]
        """What every place writes beyond its baseline: heads apart, an MLP as a whole [parts, batch, position, d]."""

    def write(self, place: int, units: Tensor, out: Callable[[Tensor], Tensor]) -> None:
        """Write the units of a place, whose map to the stream is given."""
        end = self.ends[place]
        self.of_baseline = self.of_baseline + out(end)
        self.moved.append(units - end)
        index, is_mlp = divmod(place - 1, 2)
        if is_mlp:
            self._written.append((out(self.moved[place]) - self.stream.biases(index)[1])[None])
        else:
            weights = self.stream.write_weights[index]
            self._written.append(torch.einsum("bphd,hdm->hbpm", self.moved[place], weights))

    def read(self, place: int, step: Callable[[Tensor], Tensor]) -> Tensor:
        """Return the units of a place, each by the step from its own stream."""
        gates = self._into(place)

        def read(rows: Tensor) -> Tensor:
            streams = self._streams(place, rows)
            return rearrange(step(streams.flatten(0, 1)), "(row image) ... -> row image ...", row=len(rows))

        return read(gates)[0] if len(gates) == 1 else read_through(gates, read, -1, self.at_once)

    def streams_of_each(self, place: int, n: int) -> Float[Tensor, "readers batch position d_model"]:
        """Return the stream of each of the n readers of a place."""
        rows, which = different_rows(self._into(place))
        return self._streams(place, rows)[which if len(which) == n else which.expand(n)]

    def _into(self, place: int) -> Gates:
        """Return the gates into a place from all earlier ones that have some, side by side."""
        found = [self.gates[up, place] for up in range(place) if (up, place) in self.gates]
        n = max(map(len, found), default=1)
        return torch.cat([gate.expand(n, -1) for gate in found], 1) if found else self.moved[0].new_ones(1, 0)

    def _streams(self, place: int, rows: Gates) -> Float[Tensor, "rows batch position d_model"]:
        found, column = self.of_baseline.expand(len(rows), *self.moved[0].shape), 0
        for up in range(place):
            if (up, place) not in self.gates:
                found = found + self._written[up].sum(0)
                continue
            n = self.gates[up, place].shape[1]
            found = found + self._through(up, rows[:, column : column + n])
            column += n
        return found

    def _through(self, up: int, gate: Gates) -> Float[Tensor, "rows batch position d_model"]:
        """Return what a place writes beyond its baseline through gates on its units, or on all of it."""
        open_ = gate.detach().any(0)  # few are in a circuit
        whole, gate = self._written[up], gate.to(self.moved[up])
        if gate.shape[1] == len(whole):
            return torch.einsum("rw,wbpm->rbpm", gate, whole)
        if up == 0:
            return gate[:, None, None] * self.moved[0]
        weights = self.stream.neuron_weights[up // 2 - 1][open_]
        return (self.moved[up][..., open_] * gate[:, None, None, open_]) @ weights
