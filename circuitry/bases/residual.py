"""The residual stream as a graph: every component reads the sum of the outputs of all earlier components.

A tower is a sequence of layers: the stream before the first block, then the heads and the MLP of each block, then the
embedding. A layer reads the stream, to which all earlier layers have added, and adds to it:

    stream before block i = embed + sum over earlier heads of z O + sum over earlier MLPs of post N + biases

Writers are in order ``embed``, then each block's heads and its MLP. Readers are the query, key and value of each head,
the MLP of each block, and the embedding. An edge leads from a writer to a reader of a later layer. Single neurons,
dimensions of the stream before the blocks, and units of the embedding can be components of their own; the rest of their
layer is then one component.

`gated_stream` runs the graph with cut edges: each reader has a stream of its own, in which writers whose edges to it
are cut have the values of a baseline (path patching; Wang et al. 2022, arXiv 2211.00593).
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import ClassVar, NamedTuple, TypeVar

import numpy as np
import torch
import torch.nn.functional as F
from einops import rearrange
from jaxtyping import Bool, Float, Int
from torch import Tensor

from circuitry.bases.blocks import Block, take_apart
from circuitry.bases.components import in_components
from circuitry.encoder.encoder import Encoder
from circuitry.encoder.modes import own_modes
from circuitry.encoder.sites import FIRST_LAYER
from circuitry.encoder.stages import ConvBlock
from circuitry.encoder.unit_kinds import HEAD, UnitKind
from circuitry.runs.arguments import Natural
from circuitry.runs.errors import InputError

Units = Sequence[int] | Int[np.ndarray, " units"]
PORTS = ("q", "k", "v")
"""Readers of a head: query, key and value."""
_Weights = TypeVar("_Weights")


class Component(NamedTuple):
    """A writer or a reader of the residual stream; its text has points between the fields.

    Example:
        >>> from circuitry.bases import Component
        >>> str(Component("blocks.1.attn", 3, "q"))
        'blocks.1.attn.3.q'
    """

    layer: str
    """Name of its `Layer`."""
    unit: int | None = None
    """Number of the head, neuron, dimension or unit of the embedding; None for the component of all remaining units."""
    port: str = ""
    """One of `PORTS` for a reader that is a head; else empty."""

    def __str__(self) -> str:
        return ".".join(str(word) for word in self if word not in (None, ""))


@dataclass(frozen=True, eq=False)
class Layer:
    """Units that read the stream at one place and add to it there, such as the heads of a block."""

    name: str
    """``embed``, ``blocks.3.attn``, ``blocks.3.mlp`` or ``embedding``."""
    site: str
    """Site of its units in the encoder of heads and neurons."""
    index: int
    """Number of its block; -1 before the blocks, and the number of blocks for the embedding."""
    block: Block | None
    """Its block; None before the blocks and for the embedding."""
    kind: UnitKind
    """Kind of its units."""
    reads: str
    """Name of the hook point of the stream that it reads."""
    apart: tuple[int, ...]
    """Units that are components of their own; all heads are."""
    writers: slice
    """Its places among the writers."""
    readers: slice
    """Its places among the readers; for heads all queries, then all keys, then all values."""

    @property
    def of_heads(self) -> bool:
        """Whether its units are heads."""
        return self.kind == HEAD

    @property
    def ports(self) -> tuple[str, ...]:
        """Readers of each unit: `PORTS` of a head, one reader without a name of another unit."""
        return PORTS if self.of_heads else ("",)

    @property
    def names(self) -> tuple[str, ...]:
        """Its site, which means each of its units, and its name, which means all of them; equal names once."""
        return tuple(dict.fromkeys((self.site, self.name)))

    def names_of(self, port: str) -> tuple[str, ...]:
        """Return the names that mean the readers of one port of this layer."""
        if not port:
            return self.names
        return (*self.names, f"{self.name}.{port}")

    @property
    def components(self) -> tuple[Component, ...]:
        """Its components: units of their own, then one component of all remaining units, which heads do not have."""
        alone = tuple(Component(self.name, unit) for unit in self.apart)
        return alone if self.of_heads else (*alone, Component(self.name))

    def groups(self, size: int) -> Bool[Tensor, "components unit"]:
        """Return a mask of the units, ``size`` in number, of each component."""
        alone = _one_hot(self.apart, size).bool()
        if self.of_heads:
            return alone
        return torch.cat([alone, ~alone.any(0, keepdim=True)])


@dataclass(frozen=True, eq=False)
class ResidualStream:
    """A transformer tower as writers and readers of its residual stream.

    Each access to weights reads them from the tower; within a run (`Encoder.running`) only the first access does.

    Example:
        >>> from circuitry.bases import ResidualStream
        >>> stream = ResidualStream.of(vit.encoder)
        >>> [str(writer) for writer in stream.writers[:3]]
        ['embed', 'blocks.0.attn.0', 'blocks.0.attn.1']
    """

    HOW_TO_GET: ClassVar = "make one with ResidualStream.of(clip.encoder)"

    blocks: tuple[Block, ...]  #: Blocks of the tower in order.
    apart: Mapping[str, tuple[int, ...]]
    """Units that are components of their own, by site; heads always are and are not listed."""
    encoder: Encoder
    """The tower with the residual stream behind each block as sites."""
    components: Encoder
    """The same tower in heads and neurons."""

    @classmethod
    def of(
        cls, encoder: Encoder, units: Mapping[str, Units] | None = None
    ) -> "ResidualStream":
        """Divide a tower into writers and readers.

        Args:
            encoder: The tower, in channels or in heads and neurons; an encoder in heads and neurons keeps its hooks.
            units: Units that become components of their own, by site in heads and neurons, such as the ``kept_units``
                of a graph (default: none, so that each MLP is one component; heads always are components).

        Raises:
            InputError: for a tower without known transformer blocks, for one whose heads or neurons do not add to the
                stream independently, or for a unit that does not exist.
        """
        components = encoder if encoder.carried else in_components(encoder)
        if components is encoder:
            encoder = encoder.in_channels()
        blocks = _blocks_of(components)
        if not adds_up(components):
            raise InputError(
                "This tower has no heads and neurons that add to a residual stream one by one, as where a norm lies in "
                "between: look at its sites instead (in_components)."
            )
        # A first stream without units of their own tells the numbers of units, with which they are checked.
        stream = cls(blocks, {}, encoder, components)
        apart = {}
        for layer in stream.layers:
            if units is not None and layer.site in units:
                n_units = stream.n_units(layer)
                chosen = _checked_units(layer.site, n_units, units[layer.site])
                # Heads are components in any case.
                if not layer.of_heads:
                    apart[layer.site] = chosen
        return cls(blocks, apart, encoder, components)

    @cached_property
    def layers(self) -> tuple[Layer, ...]:
        """All layers in order; the first does not read, the last does not write."""
        # The last sites: before the blocks, heads and MLP of each block, and the embedding.
        n = len(self.blocks)
        first, *inner, last = self.components.sites[-2 * n - 2 :]
        named = [(FIRST_LAYER, first, -1, "")]
        for i in range(n):
            path = f"blocks.{i}"
            named.append((f"{path}.attn", inner[2 * i], i, f"{path}.hook_resid_pre"))
            named.append((f"{path}.mlp", inner[2 * i + 1], i, f"{path}.hook_resid_mid"))
        named.append(("embedding", last, n, f"blocks.{n - 1}.hook_resid_post"))
        layers = list[Layer]()
        n_writers = 0
        n_readers = 0
        for name, site, index, reads in named:
            block = self.blocks[index] if 0 <= index < n else None
            kind = self.components.kinds[site]
            apart = self.apart.get(site, ())
            writes = len(apart) + 1  # units of their own, and one component of the rest
            n_ports = 1
            if block is not None and kind == HEAD:
                apart = tuple(range(block.n_heads))
                writes = block.n_heads
                n_ports = len(PORTS)
            read = 0 if name == FIRST_LAYER else n_ports * writes
            if name == "embedding":
                writes = 0
            writers = slice(n_writers, n_writers + writes)
            readers = slice(n_readers, n_readers + read)
            n_writers = writers.stop
            n_readers = readers.stop
            layers.append(
                Layer(name, site, index, block, kind, reads, apart, writers, readers)
            )
        return tuple(layers)

    @cached_property
    def writers(self) -> tuple[Component, ...]:
        """All writers in order."""
        writers = list[Component]()
        for layer in self.layers[:-1]:
            writers += layer.components
        return tuple(writers)

    @cached_property
    def readers(self) -> tuple[Component, ...]:
        """All readers in order; for a layer of heads all queries, then all keys, then all values."""
        readers = list[Component]()
        for layer in self.layers[1:]:
            for port in layer.ports:
                readers += [unit._replace(port=port) for unit in layer.components]
        return tuple(readers)

    @cached_property
    @own_modes()
    def edges(self) -> Bool[Tensor, "readers writers"]:
        """Mask of the edges that exist: from every writer to every reader of a later layer."""
        written = torch.tensor([self._order[writer.layer] for writer in self.writers])
        read = torch.tensor([self._order[reader.layer] for reader in self.readers])
        return written[None] < read[:, None]

    @cached_property
    def _order(self) -> dict[str, int]:
        """Place of each layer in the order, by each of its names."""
        order = dict[str, int]()
        for place, layer in enumerate(self.layers):
            for port in layer.ports:
                order |= dict.fromkeys(layer.names_of(port), place)
        return order

    def reads(self, up: str, down: str) -> bool:
        """Return whether edges lead from one layer to another, each given by its site or its name."""
        before = self._order.get(up)
        after = self._order.get(down)
        if before is None or after is None:
            return False
        # A name of one port, such as ``blocks.3.attn.q``, is a reader and no writer.
        return before < after and up in self.layers[before].names

    @property
    def sites(self) -> tuple[str, ...]:
        """Sites of `components` whose units write: before the blocks, then heads and neurons of each block."""
        return tuple(layer.site for layer in self.layers[:-1])

    @cached_property
    def sizes(self) -> dict[str, int]:
        """Number of gates that a layer has under each of its names: one for each unit by its site, see `names`."""
        sizes = {}
        for layer in self.layers:
            sizes[layer.site] = self.n_units(layer)
            # By its name an MLP, the embedding, or the stream before the blocks has one gate.
            size = sizes[layer.site] if layer.of_heads else 1
            sizes[layer.name] = size
            for port in layer.ports:
                sizes[layer.names_of(port)[-1]] = size
        return sizes

    def n_units(self, layer: Layer) -> int:
        """Return the number of units of a layer; without a block it takes a run."""
        if layer.block is not None:
            return layer.block.n_heads if layer.of_heads else layer.block.n_neurons
        encoder = self.components
        read = encoder.read_unhooked(encoder.blank(), [layer.site])
        return read[layer.site].shape[-1]

    @property
    def read_weights(self) -> tuple[tuple[Tensor, Tensor], ...]:
        """Weights [port, head, d_head, d_model] and biases [port, head, d_head] of heads that read, by block."""
        return self._once("read", lambda: tuple(map(self._read_weights, self.blocks)))

    @property
    def write_weights(self) -> tuple[Float[Tensor, "head d_head d_model"], ...]:
        """Weights of each block from z to the addition of its heads to the stream."""
        return self._once("write", lambda: tuple(map(self._write_weights, self.blocks)))

    @property
    def neuron_weights(self) -> tuple[Float[Tensor, "neuron d_model"], ...]:
        """Weights of each block from its neurons to the addition of its MLP to the stream."""
        places = range(len(self.blocks))
        return self._once("neurons", lambda: tuple(map(self._neuron_weights, places)))

    def _once(self, name: str, make: Callable[[], _Weights]) -> _Weights:
        """Return the result of ``make``, computed once in a run; outside of a run it is computed at each call."""
        # The key has this stream, since the runs of a tower serve all encoders and streams on it.
        with self.encoder.running():
            return self.encoder.once((self, name), make)

    def _neuron_weights(
        self, index: int, neurons: Sequence[int] | None = None
    ) -> Float[Tensor, "neurons d_model"]:
        block = self.blocks[index]
        # Weights are the outputs for unit vectors minus the output for zero. So layer scales and other linear steps are
        # in them, whatever modules the block has.
        chosen = range(block.n_neurons) if neurons is None else neurons
        ones = _one_hot(chosen, block.n_neurons)[:, None]
        written = block.mlp_out(ones.to(self.encoder.device, self.encoder.dtype))
        return (written[:, 0] - self.biases(index)[1]).detach()

    def biases(
        self, block: Natural
    ) -> tuple[Float[Tensor, " d_model"], Float[Tensor, " d_model"]]:
        """Return the additions of attention and MLP of a block to the stream when all heads and neurons are zero."""
        if block >= len(self.blocks):
            raise InputError(
                f"There are {len(self.blocks)} blocks, from 0, but {block} was given: give a lower number."
            )
        steps = self.blocks[block]
        weight = next(self.encoder.tower.parameters())
        heads = weight.new_zeros(1, 1, steps.n_heads, steps.width // steps.n_heads)
        neurons = weight.new_zeros(1, 1, steps.n_neurons)
        of_heads = steps.attention_out(heads)[0, 0]
        return of_heads.detach(), steps.mlp_out(neurons)[0, 0].detach()

    def _write_weights(self, block: Block) -> Tensor:
        # As in `_neuron_weights`: unit vectors of z as a batch of images [d_model, 1, head, d_head].
        ones = torch.unflatten(self._eye(block), 1, (1, block.n_heads, -1))
        bias = block.attention_out(torch.zeros_like(ones[:1]))
        written = block.attention_out(ones) - bias
        return torch.unflatten(written.detach()[:, 0], 0, (block.n_heads, -1))

    def _read_weights(self, block: Block) -> tuple[Tensor, Tensor]:
        # The projection of zeros is the bias; that of a unit vector is the bias and one column of the weights.
        eye = self._eye(block)
        rows = torch.cat([eye.new_zeros(1, block.width), eye])[:, None]
        read = torch.stack(block.project(rows)).detach()[:, :, 0]
        bias = read[:, 0]
        weights = read[:, 1:] - read[:, :1]
        in_order = rearrange(weights, "port model head d -> port head d model")
        return in_order.contiguous(), bias

    def _eye(self, block: Block) -> Tensor:
        return torch.eye(
            block.width, dtype=self.encoder.dtype, device=self.encoder.device
        )

    def read_by(
        self, layer: Layer, activations: Mapping[str, Tensor]
    ) -> Float[Tensor, "batch position d_model"]:
        """Return the stream that a layer reads, given the activations at `sites`."""
        # A site of heads or neurons carries the stream that they read. The embedding reads that of the last MLP's site,
        # to which this MLP still has to be added.
        site = layer.site if layer.block else self.sites[-1]
        units, past = self.components.units_and_carried(site, _at(site, activations))
        carried = past.flatten(2)
        if layer.block:
            return carried
        return carried + self.blocks[-1].mlp_out(units)

    def written(
        self, activations: Mapping[str, Tensor]
    ) -> Float[Tensor, "writers batch position d_model"]:
        """Return the addition of every writer to the stream, without biases, given the activations at `sites`."""
        writing = self.layers[:-1]
        return torch.cat([self.written_by(layer, activations) for layer in writing])

    def written_by(
        self, layer: Layer, activations: Mapping[str, Tensor]
    ) -> Float[Tensor, "writers batch position d_model"]:
        """Return the addition of each component of a layer to the stream, without biases: linear in the activations."""
        x = self.components.units_of(layer.site, _at(layer.site, activations))
        if layer.of_heads:
            heads = rearrange(x, "b p head d -> head (b p) d")
            written = heads @ self.write_weights[layer.index]
            return written.reshape(-1, *x.shape[:2], written.shape[-1])
        if layer.block is None:
            together = x
            alone = _one_hot(layer.apart, x.shape[-1]).to(x)[:, None, None] * x
        else:
            together = layer.block.mlp_out(x) - self.biases(layer.index)[1]
            if not layer.apart:
                return together[None]
            weights = self._once(
                f"{layer.name} apart",
                lambda: self._neuron_weights(layer.index, layer.apart),
            )
            alone = torch.einsum("bpn,nm->nbpm", x[..., list(layer.apart)], weights)
        # The last component is the rest, so that the components sum to the layer exactly.
        return torch.cat([alone, (together - alone.sum(0))[None]])


def adds_up(encoder: Encoder) -> bool:
    """Return whether all heads and neurons of an encoder add to the residual stream independently of each other."""
    blocks = _blocks_of(encoder)
    return bool(blocks) and all(block.linear for block in blocks)


def in_stream(encoder: Encoder) -> bool:
    """Return whether edges of an encoder run through the residual stream, between heads and neurons that add up."""
    return bool(encoder.carried) and adds_up(encoder)


def _one_hot(units: Sequence[int], size: int) -> Int[Tensor, "units size"]:
    return F.one_hot(torch.tensor(list(units), dtype=torch.int64), size)


def _checked_units(site: str, n_units: int, chosen: Units) -> tuple[int, ...]:
    units = tuple(map(int, chosen))
    if len(set(units)) < len(units) or not set(units) <= {*range(n_units)}:
        raise InputError(
            f"Units at site {site!r} are numbers from 0 to {n_units - 1}, each once, but "
            f"{', '.join(map(str, units))} were given."
        )
    return units


def _blocks_of(encoder: Encoder) -> tuple[Block, ...]:
    # Blocks of the stages go first: their MLPs may have latents of dictionaries as neurons.
    in_neurons = [stage.block for stage in encoder.stages if stage.block is not None]
    if in_neurons:
        return tuple(in_neurons)
    blocks = encoder.chain.blocks.values()
    return tuple(take_apart(b) for b in blocks if not isinstance(b, ConvBlock))


def _at(site: str, activations: Mapping[str, Tensor]) -> Tensor:
    """Return the activation of a site; raise `InputError` where it is missing."""
    if site not in activations:
        raise InputError(
            f"The activation at {site!r} is needed, but only {', '.join(activations) or 'none'} given."
        )
    return activations[site]
