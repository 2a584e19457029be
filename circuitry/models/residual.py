"""The residual stream as a graph: every component reads what all earlier ones wrote.

Writers, in order: what stands before the first block (``embed``), then each block's heads and its MLP. What they write
adds up to the stream, but for constant biases:

    stream before block i = embed + sum over earlier heads of z O + sum over earlier MLPs of post N + biases

Readers, in order: the query, key and value of each head, the MLP of each block, and what makes the embedding of the
stream behind the last block. An edge goes from a writer to a reader that comes later.

`ResidualStream.run` gives every reader a stream of its own, in which the writers whose edges are cut have the values of
a baseline: the exact meaning of an edge (path patching; Wang et al. 2022, arXiv 2211.00593).
"""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Literal, NamedTuple

import torch
from einops import rearrange
from jaxtyping import Bool, Float
from torch import Tensor

from circuitry.models.adapters import residual_blocks
from circuitry.models.baselines import AnyBaseline, as_baseline
from circuitry.models.blocks import Block, take_apart
from circuitry.models.components import in_components
from circuitry.models.encoder import Encoder, clean_activations
from circuitry.models.gated_reading import Gates
from circuitry.models.stream_run import run_gated
from circuitry.runs.errors import InputError

Kind = Literal["embed", "head", "q", "k", "v", "mlp", "embedding"]
PORTS: tuple[Kind, Kind, Kind] = ("q", "k", "v")
"""What a head reads the stream for."""


class Component(NamedTuple):
    """A writer or a reader of the residual stream."""

    kind: Kind
    block: int = -1
    head: int = -1

    def __str__(self) -> str:
        if self.block < 0:
            return self.kind
        if self.kind == "mlp":
            return f"blocks.{self.block}.mlp"
        return f"blocks.{self.block}.attn.{self.head}" + ("" if self.kind == "head" else f".{self.kind}")


@dataclass(frozen=True, eq=False)
class ResidualStream:
    """A transformer tower as writers and readers of its residual stream.

    Example:
        >>> stream = ResidualStream.of(clip.encoder)
        >>> [str(writer) for writer in stream.writers[:3]]
        ['embed', 'blocks.0.attn.0', 'blocks.0.attn.1']
        >>> keep = stream.edges.clone()
        >>> keep[stream.edge("blocks.2.attn.5", "blocks.3.mlp")] = False
        >>> embedding = stream.run(images, keep)      # without one edge
    """

    encoder: Encoder
    """The encoder whose sites are the stream."""
    components: Encoder
    """The same tower in heads and neurons."""
    blocks: tuple[Block, ...]

    @classmethod
    def of(cls, encoder: Encoder) -> "ResidualStream":
        """Take a tower apart; an encoder in heads and neurons is kept as it is, with its hooks.

        Raises:
            InputError: for a tower without transformer blocks that are known, or one whose heads or neurons do not add
                to the stream one by one.
        """
        if encoder.carried:
            encoder, components = Encoder.from_tower(encoder.tower), encoder
        else:
            components = in_components(encoder)
        blocks = _blocks_of(encoder)
        if not adds_up(encoder):
            raise InputError(
                "In this tower a norm lies between heads or neurons and the residual stream, so they do not add to it "
                "one by one: look at its sites instead (in_components)."
            )
        return cls(encoder, components, blocks)

    @property
    def sites(self) -> tuple[str, ...]:
        """The sites of `components` that hold what is written: before the blocks, then heads and neurons of each."""
        return self.components.sites[self._first : -1]

    @property
    def _first(self) -> int:
        return len(self.components.sites) - 2 - 2 * len(self.blocks)

    @cached_property
    def writers(self) -> tuple[Component, ...]:
        """All writers in order."""
        found = [Component("embed")]
        for i, block in enumerate(self.blocks):
            found += [*(Component("head", i, h) for h in range(block.n_heads)), Component("mlp", i)]
        return tuple(found)

    @cached_property
    def readers(self) -> tuple[Component, ...]:
        """All readers in order."""
        found: list[Component] = []
        for i, block in enumerate(self.blocks):
            found += [Component(port, i, h) for port in PORTS for h in range(block.n_heads)]
            found.append(Component("mlp", i))
        return (*found, Component("embedding"))

    @cached_property
    def edges(self) -> Bool[Tensor, "readers writers"]:
        """Which edges there are: those from an earlier writer."""
        written = torch.tensor([writer.block + 0.5 * (writer.kind == "mlp") for writer in self.writers])
        read = [len(self.blocks) if r.block < 0 else r.block + 0.5 * (r.kind == "mlp") for r in self.readers]
        return written[None] < torch.tensor(read)[:, None]

    def edge(self, writer: str, reader: str) -> tuple[int, int]:
        """Return the row and column of an edge in `edges`, by the names of its ends.

        Raises:
            InputError: for an edge that there is not: a head or layer that is not there, or a reader before the writer.

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

    def writer_slice(self, block: int) -> slice:
        """Return where the heads and the MLP of a block are among the writers."""
        first = 1 + sum(one.n_heads + 1 for one in self.blocks[:block])
        return slice(first, first + self.blocks[block].n_heads + 1)

    def reader_slice(self, block: int) -> slice:
        """Return where the ports of a block's heads and its MLP are among the readers."""
        first = sum(3 * one.n_heads + 1 for one in self.blocks[:block])
        return slice(first, first + 3 * self.blocks[block].n_heads + 1)

    @cached_property
    def read_weights(self) -> tuple[tuple[Tensor, Tensor], ...]:
        """Of each block the weights [port, head, d_head, d_model] and biases [port, head, d_head] of its heads."""
        return tuple(self._read_weights(block) for block in self.blocks)

    @cached_property
    def write_weights(self) -> tuple[Float[Tensor, "head d_head d_model"], ...]:
        """Of each block the map from z to what its heads add to the stream."""
        found = []
        for block in self.blocks:
            ones = rearrange(self._eye(block), "rows (head d) -> rows 1 head d", head=block.n_heads)
            written = block.attention_out(ones) - block.attention_out(torch.zeros_like(ones[:1]))
            found.append(rearrange(written.detach(), "(head d) 1 model -> head d model", head=block.n_heads))
        return tuple(found)

    @cached_property
    def neuron_weights(self) -> tuple[Float[Tensor, "neuron d_model"], ...]:
        """Of each block the map from its neurons to what its MLP adds to the stream."""
        weight = next(self.encoder.tower.parameters())
        ones = [torch.eye(block.n_neurons).to(weight)[:, None] for block in self.blocks]
        return tuple(
            (block.mlp_out(one)[:, 0] - self.biases(i)[1]).detach()
            for i, (block, one) in enumerate(zip(self.blocks, ones, strict=True))
        )

    def biases(self, block: int) -> tuple[Float[Tensor, " d_model"], Float[Tensor, " d_model"]]:
        """Return what attention and MLP of a block add to the stream when heads and neurons are silent."""
        one = self.blocks[block]
        weight = next(self.encoder.tower.parameters())
        heads = weight.new_zeros(1, 1, one.n_heads, one.width // one.n_heads)
        return one.attention_out(heads)[0, 0].detach(), one.mlp_out(weight.new_zeros(1, 1, one.n_neurons))[
            0, 0
        ].detach()

    def _eye(self, block: Block) -> Tensor:
        return torch.eye(block.width, dtype=self.encoder.dtype, device=self.encoder.device)

    def _read_weights(self, block: Block) -> tuple[Tensor, Tensor]:
        rows = torch.cat([torch.zeros_like(self._eye(block)[:1]), self._eye(block)])[:, None]
        read = torch.stack(block.project(rows)).detach()  # port, row, 1, head, d_head
        bias = read[:, 0, 0]
        weights = rearrange(read[:, 1:, 0] - bias[:, None], "port model head d -> port head d model")
        return weights, bias

    def read_by(self, stage: int, activations: Mapping[str, Tensor]) -> Float[Tensor, "batch position d_model"]:
        """Return the stream that a stage reads, given the activations at `sites`, which carry it past their units.

        Stages are the heads of the first block, its MLP, the heads of the second, ..., and the embedding.
        """
        site = self.sites[1 + min(stage, 2 * len(self.blocks) - 1)]
        past = self.components.carried[site]
        x = activations[site].narrow(self.components.unit_dim(site), past.start, len(past)).flatten(2)
        if stage < 2 * len(self.blocks):
            return x
        return x + self.blocks[-1].mlp_out(self.components.units_of(site, activations[site]))

    def stage_rows(self, stage: int) -> slice:
        """Return where the readers of a stage are."""
        block, is_mlp = divmod(stage, 2)
        if block == len(self.blocks):
            return slice(len(self.readers) - 1, len(self.readers))
        rows = self.reader_slice(block)
        return slice(rows.stop - 1, rows.stop) if is_mlp else slice(rows.start, rows.stop - 1)

    def written(self, activations: Mapping[str, Tensor]) -> Float[Tensor, "writers batch position d_model"]:
        """Return what every writer adds to the stream, without biases, given the activations at `sites`."""
        added = [self.added(i, activations) for i in range(len(self.blocks))]
        return torch.cat([activations[self.sites[0]][None], *added])

    def added(self, block: int, activations: Mapping[str, Tensor]) -> Float[Tensor, "writers batch position d_model"]:
        """Return what the heads and the MLP of a block add to the stream, without biases; it is linear."""
        attn, mlp = self.sites[1 + 2 * block : 3 + 2 * block]
        z, neurons = (self.components.units_of(site, activations[site]) for site in (attn, mlp))
        heads = rearrange(z, "b p head d -> head (b p) d") @ self.write_weights[block]
        others = self.blocks[block].mlp_out(neurons) - self.biases(block)[1]
        return torch.cat([heads.reshape(-1, *others.shape), others[None]])

    def run(
        self,
        images: Float[Tensor, "batch 3 h w"],
        keep: Float[Tensor, "readers writers"] | Bool[Tensor, "readers writers"],
        baseline: AnyBaseline = "zero",
    ) -> Float[Tensor, "batch d"]:
        """Return the embeddings with some edges kept and the others cut, each to its writer's baseline.

        A reader's stream is that of the baseline plus, for every edge kept, what its writer writes in this run beyond
        its baseline. With all edges kept the embeddings are the tower's but for rounding. ``keep`` may be a real number
        between: it is differentiable.

        Args:
            images: One batch of images.
            keep: Which edges are kept; those that there are not are ignored.
            baseline: What a writer writes where its edge is cut; see `circuitry.models.baselines`, for the sites of
                `components`.

        Raises:
            InputError: for a mask of another shape, and what the encoder and the baseline raise.
        """
        if keep.shape != self.edges.shape:
            raise InputError(
                f"Edges are kept by a mask [{', '.join(map(str, self.edges.shape))}] (readers, writers), but one of "
                f"shape {list(keep.shape)} was given."
            )
        with torch.no_grad():
            clean = clean_activations(self.components, images, self.sites)
            ends = as_baseline(baseline).activations(self.components, clean)
        return run_gated(self, clean[self.sites[0]], ends, self._by_place(keep), at_once=1)

    def _by_place(self, keep: Gates) -> dict[tuple[int, int], Gates]:
        """Return a mask of edges by pair of places; see `stream_run`."""
        writers, readers = [slice(0, 1)], [slice(0, 0)]
        for block in range(len(self.blocks)):
            for found, mine in ((writers, self.writer_slice(block)), (readers, self.reader_slice(block))):
                found += [slice(mine.start, mine.stop - 1), slice(mine.stop - 1, mine.stop)]
        readers.append(slice(len(keep) - 1, len(keep)))
        pairs = [(up, down) for down in range(1, len(readers)) for up in range(min(down, len(writers)))]
        return {(up, down): keep[readers[down], writers[up]] for up, down in pairs}

    def attended(self, index: int, streams: Float[Tensor, "ports batch position d_model"]) -> Tensor:
        """Return z of a block whose heads' ports, all q before all k and v, each read a stream of their own."""
        block, (weights, bias) = self.blocks[index], self.read_weights[index]
        read = block.norm_attention(streams)
        by_port = rearrange(read, "(port head) b p m -> port head b p m", port=3)
        q, k, v = torch.einsum("ahbpm,ahdm->abphd", by_port, weights) + bias[:, None, None]
        return block.mix(q, k, v)


def adds_up(encoder: Encoder) -> bool:
    """Say whether what heads and neurons add to the residual stream is the sum of what each adds alone."""
    blocks = _blocks_of(encoder)
    return bool(blocks) and all(block.linear for block in blocks)


def _blocks_of(encoder: Encoder) -> tuple[Block, ...]:
    return tuple(take_apart(block) for block in residual_blocks(encoder.tower).values())
