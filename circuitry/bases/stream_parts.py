"""What writes to a residual stream, what reads it, in which order, and the edges between them.

Some neurons of an MLP, dimensions of the stream before the blocks, and units of the embedding may be components of
their own. The components ``mlp``, ``embed`` and ``embedding`` are then all the others together.
"""

from dataclasses import dataclass
from functools import cached_property
from typing import Literal, NamedTuple

import torch
from jaxtyping import Bool
from torch import Tensor

from circuitry.bases.blocks import Block
from circuitry.bases.gated_reading import Gates
from circuitry.encoder.modes import own_modes
from circuitry.runs.errors import InputError
from circuitry.runs.given import checked

Kind = Literal["embed", "head", "q", "k", "v", "neuron", "mlp", "embedding"]
PORTS: tuple[Kind, Kind, Kind] = ("q", "k", "v")
"""What a head reads the stream for."""


@checked
class Component(NamedTuple):
    """A writer or a reader of the residual stream."""

    kind: Kind
    block: int = -1
    head: int = -1
    """Number of the head, neuron, dimension or unit; -1 for all others together."""

    def __str__(self) -> str:
        if self.block < 0:
            return self.kind + (f".{self.head}" if self.head >= 0 else "")
        if self.kind in ("mlp", "neuron"):
            return f"blocks.{self.block}.mlp" + (f".{self.head}" if self.kind == "neuron" else "")
        return f"blocks.{self.block}.attn.{self.head}" + ("" if self.kind == "head" else f".{self.kind}")


@dataclass(frozen=True, eq=False)
class StreamParts:
    """Writers and readers in order. Stages read one after the other: the heads of the first block, its MLP, the heads
    of the second, ..., and the embedding."""

    blocks: tuple[Block, ...]
    neurons: tuple[tuple[int, ...], ...]
    """The neurons of each block that are components of their own."""
    dimensions: tuple[int, ...]
    """Dimensions of the stream before the blocks that are components of their own."""
    outputs: tuple[int, ...]
    """Units of the embedding that are components of their own."""
    n_outputs: int
    """Number of units of the embedding."""

    @cached_property
    def writers(self) -> tuple[Component, ...]:
        """All writers in order."""
        found = [*(Component("embed", head=n) for n in self.dimensions), Component("embed")]
        for i, block in enumerate(self.blocks):
            found += [Component("head", i, h) for h in range(block.n_heads)] + self._of_mlp(i)
        return tuple(found)

    @cached_property
    def readers(self) -> tuple[Component, ...]:
        """All readers in order."""
        found: list[Component] = []
        for i, block in enumerate(self.blocks):
            found += [Component(port, i, h) for port in PORTS for h in range(block.n_heads)] + self._of_mlp(i)
        return (*found, *(Component("embedding", head=n) for n in self.outputs), Component("embedding"))

    def _of_mlp(self, block: int) -> list[Component]:
        return [*(Component("neuron", block, n) for n in self.neurons[block]), Component("mlp", block)]

    @checked
    def neuron_groups(self, block: int) -> Bool[Tensor, "groups neuron"]:
        """Return which neurons of a block each of its MLP's components is: one each, and all the others."""
        return _groups(self.neurons[block], self.blocks[block].n_neurons)

    @cached_property
    @own_modes()
    def edges(self) -> Bool[Tensor, "readers writers"]:
        """Which edges exist: from every writer to every later reader."""
        behind = dict.fromkeys(("mlp", "neuron"), 0.5)  # the heads of their block
        written = torch.tensor([writer.block + behind.get(writer.kind, 0) for writer in self.writers])
        read = [len(self.blocks) if r.block < 0 else r.block + behind.get(r.kind, 0) for r in self.readers]
        return written[None] < torch.tensor(read)[:, None]

    @checked
    def edge(self, writer: str, reader: str) -> tuple[int, int]:
        """Return the row and column of an edge in `edges`, by the names of its ends.

        Raises:
            InputError: for an unknown head or layer, or a reader before the writer.

        Example:
            >>> keep = stream.edges.clone()
            >>> keep[stream.edge("blocks.0.attn.3", "blocks.5.mlp")] = False
        """
        writers, readers = ([str(one) for one in some] for some in (self.writers, self.readers))
        if writer in writers and reader in readers:
            row, column = readers.index(reader), writers.index(writer)
            if self.edges[row, column]:
                return row, column
        raise InputError(
            f"There is no edge from {writer!r} to {reader!r}: edges go from a writer ({writers[0]}, {writers[1]}, ... "
            f"{writers[-1]}) to a later reader ({readers[0]}, ... {readers[-1]})."
        )

    @checked
    def writers_of(self, place: int) -> slice:
        """Return where the writers of a place are: at 0 the stream before the blocks, at n those of stage n - 1."""
        return self._parts(
            place,
            [len(self.dimensions) + 1, *(n for i, b in enumerate(self.blocks) for n in (b.n_heads, self._n_mlp(i)))],
        )

    @checked
    def readers_of(self, stage: int) -> slice:
        """Return where the readers of a stage are; the ports of heads are all queries, all keys, all values."""
        heads = len(PORTS)
        return self._parts(
            stage,
            [
                *(n for i, b in enumerate(self.blocks) for n in (heads * b.n_heads, self._n_mlp(i))),
                len(self.outputs) + 1,
            ],
        )

    def _n_mlp(self, block: int) -> int:
        return len(self.neurons[block]) + 1

    @staticmethod
    def _parts(place: int, sizes: list[int]) -> slice:
        first = sum(sizes[:place])
        return slice(first, first + sizes[place])

    @checked
    def gates_of(self, keep: Gates) -> dict[tuple[int, int], Gates]:
        """Return a mask of edges by pair of places, neuron by neuron where some are apart; see `stream_run`."""
        n_places, found = 2 * len(self.blocks) + 2, {}
        units = [self._component_of_unit(place) for place in range(n_places)]
        for down in range(1, n_places):
            for up in range(min(down, n_places - 1)):
                gate = keep[self.readers_of(down - 1), self.writers_of(up)]
                rows, columns = units[down], units[up]
                gate = gate if rows is None else gate[rows]
                found[up, down] = gate if columns is None else gate[:, columns]
        return found

    def _component_of_unit(self, place: int) -> Tensor | None:
        """Return which component each unit of a place is part of; none where no units are apart."""
        block, is_mlp = divmod(place - 1, 2)
        if place == 0:
            apart, size = self.dimensions, self.blocks[0].width
        elif block == len(self.blocks):
            apart, size = self.outputs, self.n_outputs
        else:
            apart, size = self.neurons[block] if is_mlp else (), self.blocks[block].n_neurons
        return _groups(apart, size).int().argmax(0) if apart else None


def _groups(apart: tuple[int, ...], size: int) -> Bool[Tensor, "groups unit"]:
    """Return which units are in which group: each of those apart alone, and all others."""
    alone = torch.nn.functional.one_hot(torch.tensor(apart, dtype=torch.int64), size).bool()
    return torch.cat([alone, ~alone.any(0, keepdim=True)])
