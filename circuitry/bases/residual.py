"""The residual stream as a graph: every component reads what all earlier ones wrote.

Writers, in order: the stream before the first block (``embed``), then each block's heads and its MLP. Together they add
up to the stream, except for constant biases:

    stream before block i = embed + sum over earlier heads of z O + sum over earlier MLPs of post N + biases

Readers, in order: the query, key and value of each head, the MLP of each block, and the embedding, which reads the
stream behind the last block. An edge goes from a writer to a reader that comes later. Some neurons may be writers and
readers of their own; see `stream_parts`.

`stream_run` gives every reader a stream of its own, in which the writers whose edges are cut have the values of a
baseline: the exact meaning of an edge (path patching; Wang et al. 2022, arXiv 2211.00593).
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar, TypeVar

import numpy as np
import torch
from einops import rearrange
from jaxtyping import Float, Int
from torch import Tensor

from circuitry.bases.blocks import Block, take_apart
from circuitry.bases.components import in_components
from circuitry.bases.stream_parts import StreamParts
from circuitry.data.names import chosen_names
from circuitry.encoder.encoder import Encoder
from circuitry.runs.errors import InputError
from circuitry.runs.given import Natural, checked

Units = Sequence[int] | Int[np.ndarray, " units"]
_Weights = TypeVar("_Weights")


@checked
@dataclass(frozen=True, eq=False)
class ResidualStream(StreamParts):
    """A transformer tower as writers and readers of its residual stream.

    Weights are read off the tower when they are asked for, and kept to the end of a run (`Encoder.running`).

    Example:
        >>> stream = ResidualStream.of(clip.encoder)
        >>> [str(writer) for writer in stream.writers[:3]]
        ['embed', 'blocks.0.attn.0', 'blocks.0.attn.1']
        >>> stream.edge("blocks.2.attn.5", "blocks.3.mlp")    # row and column in stream.edges
    """

    HOW_TO_GET: ClassVar = "make one with ResidualStream.of(clip.encoder)"

    encoder: Encoder
    """The encoder whose sites are the stream."""
    components: Encoder
    """The same tower in heads and neurons."""

    @classmethod
    @checked
    def of(cls, encoder: Encoder, units: Mapping[str, Units] | None = None) -> "ResidualStream":
        """Take a tower apart; an encoder in heads and neurons is kept as it is, with its hooks.

        Args:
            units: Units by site in heads and neurons that become components of their own, such as the ``kept_units``
                of a graph; heads always are (default: none, an MLP is one component).

        Raises:
            InputError: for a tower without known transformer blocks, one whose heads or neurons do not add to the
                stream one by one, or a unit that does not exist.

        Example:
            >>> graph = attribute(clip.in_components().encoder, photos, metric, node_fraction=0.02)
            >>> stream = ResidualStream.of(clip.encoder, graph.kept_units)
        """
        if encoder.carried:
            encoder, components = encoder.in_channels(), encoder
        else:
            components = in_components(encoder)
        blocks = _blocks_of(components)
        if not adds_up(components):
            raise InputError(
                "In this tower a norm lies between heads or neurons and the residual stream, so they do not add to it "
                "one by one: look at its sites instead (in_components)."
            )
        units, first, *sites = units or {}, *components.sites[-2 * len(blocks) - 2 :]
        mlps = zip(sites[1:-1:2], blocks, strict=True)
        neurons = tuple(_checked_units(site, block.n_neurons, units.get(site, ())) for site, block in mlps)
        dimensions = _checked_units(first, blocks[0].width, units.get(first, ()))
        n_outputs = _n_outputs(encoder) if sites[-1] in units else 0
        outputs = _checked_units(sites[-1], n_outputs, units.get(sites[-1], ()))
        return cls(blocks, neurons, dimensions, outputs, n_outputs, encoder, components)

    @checked
    def writer(self, name: str) -> int:
        """Return the place among `writers` of one by name, or raise `InputError` with the names that come close."""
        names = [str(one) for one in self.writers]
        return names.index(chosen_names("writer", [name], names)[0])

    @property
    def sites(self) -> tuple[str, ...]:
        """The sites of `components` that hold what is written: before the blocks, then heads and neurons of each."""
        return self.components.sites[self._first : -1]

    @property
    def _first(self) -> int:
        return len(self.components.sites) - 2 - 2 * len(self.blocks)

    @property
    def read_weights(self) -> tuple[tuple[Tensor, Tensor], ...]:
        """The weights [port, head, d_head, d_model] and biases [port, head, d_head] of each block's heads."""
        return self._once("read", lambda: tuple(map(self._read_weights, self.blocks)))

    @property
    def write_weights(self) -> tuple[Float[Tensor, "head d_head d_model"], ...]:
        """The map of each block from z to what its heads add to the stream."""
        return self._once("write", lambda: tuple(map(self._write_weights, self.blocks)))

    @property
    def neuron_weights(self) -> tuple[Float[Tensor, "neuron d_model"], ...]:
        """The map of each block from its neurons to what its MLP adds to the stream."""
        everything = tuple(range(block.n_neurons) for block in self.blocks)
        return self._once("neurons", lambda: tuple(map(self._of_neurons, range(len(self.blocks)), everything)))

    @property
    def _apart_weights(self) -> tuple[Float[Tensor, "apart d_model"], ...]:
        """The same of the neurons that are apart."""
        return self._once("apart", lambda: tuple(map(self._of_neurons, range(len(self.blocks)), self.neurons)))

    def _once(self, name: str, make: Callable[[], _Weights]) -> _Weights:
        """Return weights that hold as long as the run that they are made in; outside of one they are made anew."""
        with self.encoder.running():
            return self.encoder.once((self, name), make)

    def _of_neurons(self, block: int, neurons: Sequence[int]) -> Float[Tensor, "neurons d_model"]:
        one, weight = self.blocks[block], next(self.encoder.tower.parameters())
        ones = torch.nn.functional.one_hot(torch.tensor(list(neurons), dtype=torch.int64), one.n_neurons).to(weight)
        return (one.mlp_out(ones[:, None])[:, 0] - self.biases(block)[1]).detach()

    @checked
    def biases(self, block: Natural) -> tuple[Float[Tensor, " d_model"], Float[Tensor, " d_model"]]:
        """Return what attention and MLP of a block add to the stream when heads and neurons are zero."""
        self._check_block(block)
        one = self.blocks[block]
        weight = next(self.encoder.tower.parameters())
        heads = weight.new_zeros(1, 1, one.n_heads, one.width // one.n_heads)
        return one.attention_out(heads)[0, 0].detach(), one.mlp_out(weight.new_zeros(1, 1, one.n_neurons))[
            0, 0
        ].detach()

    def _check_block(self, block: int) -> None:
        if block >= len(self.blocks):
            raise InputError(
                f"There are {len(self.blocks)} blocks, from 0, but {block} was given: give a lower number."
            )

    def _eye(self, block: Block) -> Tensor:
        return torch.eye(block.width, dtype=self.encoder.dtype, device=self.encoder.device)

    def _write_weights(self, block: Block) -> Tensor:
        ones = rearrange(self._eye(block), "rows (head d) -> rows 1 head d", head=block.n_heads)
        written = block.attention_out(ones) - block.attention_out(torch.zeros_like(ones[:1]))
        return rearrange(written.detach(), "(head d) 1 model -> head d model", head=block.n_heads)

    def _read_weights(self, block: Block) -> tuple[Tensor, Tensor]:
        rows = torch.cat([torch.zeros_like(self._eye(block)[:1]), self._eye(block)])[:, None]
        read = torch.stack(block.project(rows)).detach()  # port, row, 1, head, d_head
        bias = read[:, 0, 0]
        weights = rearrange(read[:, 1:, 0] - bias[:, None], "port model head d -> port head d model")
        return weights.contiguous(), bias

    @checked
    def read_by(self, stage: Natural, activations: Mapping[str, Tensor]) -> Float[Tensor, "batch position d_model"]:
        """Return the stream that a stage reads, given the activations at `sites`, which carry it past their units."""
        site = self.sites[1 + min(stage, 2 * len(self.blocks) - 1)]
        past = self.components.carried[site]
        x = _at(site, activations).narrow(self.components.unit_dim(site), past.start, len(past)).flatten(2)
        if stage < 2 * len(self.blocks):
            return x
        return x + self.blocks[-1].mlp_out(self.components.units_of(site, _at(site, activations)))

    @checked
    def written(self, activations: Mapping[str, Tensor]) -> Float[Tensor, "writers batch position d_model"]:
        """Return what every writer adds to the stream, without biases, given the activations at `sites`."""
        added = [self.added(i, activations) for i in range(len(self.blocks))]
        return torch.cat([self.entered(activations), *added])

    @checked
    def entered(self, activations: Mapping[str, Tensor]) -> Float[Tensor, "writers batch position d_model"]:
        """Return the stream before the blocks: each dimension that is apart, and all others."""
        x = _at(self.sites[0], activations)
        if not self.dimensions:
            return x[None]
        alone = torch.nn.functional.one_hot(torch.tensor(self.dimensions, device=x.device), x.shape[-1]).to(x)
        parts = alone[:, None, None] * x
        return torch.cat([parts, (x - parts.sum(0))[None]])

    @checked
    def added(
        self, block: Natural, activations: Mapping[str, Tensor]
    ) -> Float[Tensor, "writers batch position d_model"]:
        """Return what the heads and the MLP of a block add to the stream, without biases; it is linear."""
        self._check_block(block)
        attn, mlp = self.sites[1 + 2 * block : 3 + 2 * block]
        z, neurons = (self.components.units_of(site, _at(site, activations)) for site in (attn, mlp))
        heads = rearrange(z, "b p head d -> head (b p) d") @ self.write_weights[block]
        others = self.blocks[block].mlp_out(neurons) - self.biases(block)[1]
        parts = [heads.reshape(-1, *others.shape)]
        if apart := list(self.neurons[block]):
            parts.append(torch.einsum("bpn,nm->nbpm", neurons[..., apart], self._apart_weights[block]))
            others = others - parts[-1].sum(0)
        return torch.cat([*parts, others[None]])

    @checked
    def attended(self, index: Natural, streams: Float[Tensor, "ports batch position d_model"]) -> Tensor:
        """Return z of a block whose heads' ports, all q before all k and v, each read a stream of their own."""
        self._check_block(index)
        n_ports = 3 * self.blocks[index].n_heads
        if len(streams) != n_ports:
            raise InputError(
                f"The heads of a block have {n_ports} ports, but streams has {len(streams)}: give one each."
            )
        block, (weights, bias) = self.blocks[index], self.read_weights[index]
        read = block.norm_attention(streams)
        by_port = rearrange(read, "(port head) b p m -> port head b p m", port=3)
        q, k, v = torch.einsum("ahbpm,ahdm->abphd", by_port, weights) + bias[:, None, None]
        return block.mix(q, k, v)


def adds_up(encoder: Encoder) -> bool:
    """Say whether what heads and neurons add to the residual stream is the sum of what each adds alone."""
    blocks = _blocks_of(encoder)
    return bool(blocks) and all(block.linear for block in blocks)


def in_stream(encoder: Encoder) -> bool:
    """Say whether an encoder's edges run through the residual stream: its units are heads and neurons that add up."""
    return bool(encoder.carried) and adds_up(encoder)


def _n_outputs(encoder: Encoder) -> int:
    blank = torch.zeros(1, 3, *encoder.image_size, dtype=encoder.dtype, device=encoder.device)
    with encoder.running():
        return int(encoder(blank).shape[-1])


def _checked_units(site: str, n_units: int, chosen: Units) -> tuple[int, ...]:
    found = tuple(map(int, chosen))
    if len(set(found)) < len(found) or not all(0 <= unit < n_units for unit in found):
        raise InputError(
            f"Units at site {site!r} are numbers from 0 to {n_units - 1}, each once, but "
            f"{', '.join(map(str, found))} were given."
        )
    return found


def _blocks_of(encoder: Encoder) -> tuple[Block, ...]:
    in_neurons = tuple(stage.block for stage in encoder.stages if stage.block is not None)
    return in_neurons or tuple(take_apart(block) for block in encoder.chain.blocks.values())


def _at(site: str, activations: Mapping[str, Tensor]) -> Tensor:
    """Return the activation of a site; raise `InputError` where it is missing."""
    if site not in activations:
        raise InputError(f"The activation at {site!r} is needed, but only {', '.join(activations) or 'none'} given.")
    return activations[site]
