"""The residual stream as a graph: every component reads what all earlier ones wrote.

A tower is a row of layers: what stands before the first block, then the heads and the MLP of each block, and last what
makes the embedding. A layer reads the stream that all earlier layers have written, and writes to it:

    stream before block i = embed + sum over earlier heads of z O + sum over earlier MLPs of post N + biases

Writers, in order: ``embed``, then each block's heads and its MLP. Readers: the query, key and value of each head, the
MLP of each block, and the embedding. An edge goes from a writer to a reader of a later layer. Some neurons, dimensions
of the stream before the blocks, and units of the embedding may be components of their own, apart from the others.

`gated_stream` gives every reader a stream of its own, in which the writers whose edges are cut have the values of a
baseline: the exact meaning of an edge (path patching; Wang et al. 2022, arXiv 2211.00593).
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
from circuitry.runs.errors import InputError
from circuitry.runs.given import Natural

Units = Sequence[int] | Int[np.ndarray, " units"]
PORTS = ("q", "k", "v")
"""What a head reads the stream for."""
_Weights = TypeVar("_Weights")


class Component(NamedTuple):
    """A writer or a reader of the residual stream; as text its parts with points between them.

    Example:
        >>> from circuitry.bases import Component
        >>> str(Component("blocks.1.attn", 3, "q"))
        'blocks.1.attn.3.q'
    """

    layer: str
    """Name of its `Layer`."""
    unit: int | None = None
    """Number of the head, neuron, dimension or unit of the embedding; none for all others of the layer together."""
    port: str = ""
    """One of `PORTS` where a head reads."""

    def __str__(self) -> str:
        return ".".join(str(part) for part in self if part not in (None, ""))


@dataclass(frozen=True, eq=False)
class Layer:
    """What reads the stream at one place and writes to it there."""

    name: str
    """``embed``, ``blocks.3.attn``, ``blocks.3.mlp`` or ``embedding``."""
    site: str
    """The site of the encoder in heads and neurons that has its units."""
    index: int
    """Number of its block; -1 before the blocks, the number of blocks behind them."""
    block: Block | None
    kind: UnitKind
    """The kind of its units."""
    reads: str
    """The hook point of the stream that it reads."""
    apart: tuple[int, ...]
    """Its units that are components of their own; all heads are."""
    writers: slice
    """Its places among the writers."""
    readers: slice
    """Its places among the readers: of heads all queries, then all keys, then all values."""

    @property
    def of_heads(self) -> bool:
        """Whether its units are heads."""
        return self.kind == HEAD

    @property
    def ports(self) -> tuple[str, ...]:
        """What each unit reads for."""
        return PORTS if self.of_heads else ("",)

    @property
    def names(self) -> tuple[str, ...]:
        """Its site, by which all its units are apart, and its name."""
        return tuple(dict.fromkeys((self.site, self.name)))

    def names_of(self, port: str) -> tuple[str, ...]:
        """Return by which names a port of its readers is meant."""
        return (*self.names, f"{self.name}.{port}") if port else self.names

    @property
    def components(self) -> tuple[Component, ...]:
        """Its units that are components of their own, and all others together."""
        alone = tuple(Component(self.name, unit) for unit in self.apart)
        return alone if self.of_heads else (*alone, Component(self.name))

    def groups(self, size: int) -> Bool[Tensor, "components unit"]:
        """Return which of ``size`` units each component is."""
        alone = _one_hot(self.apart, size).bool()
        if self.of_heads:
            return alone
        return torch.cat([alone, ~alone.any(0, keepdim=True)])


@dataclass(frozen=True, eq=False)
class ResidualStream:
    """A transformer tower as writers and readers of its residual stream.

    Each access reads the weights off the tower; within a run (`Encoder.running`) the first access does.

    Example:
        >>> from circuitry.bases import ResidualStream
        >>> stream = ResidualStream.of(vit.encoder)
        >>> [str(writer) for writer in stream.writers[:3]]
        ['embed', 'blocks.0.attn.0', 'blocks.0.attn.1']
    """

    HOW_TO_GET: ClassVar = "make one with ResidualStream.of(clip.encoder)"

    blocks: tuple[Block, ...]  #: Of the tower, in their order.
    apart: Mapping[str, tuple[int, ...]]
    """Units by site that are components of their own, beside all heads."""
    encoder: Encoder
    """The encoder whose sites are the stream."""
    components: Encoder
    """The same tower in heads and neurons."""

    @classmethod
    def of(
        cls, encoder: Encoder, units: Mapping[str, Units] | None = None
    ) -> "ResidualStream":
        """Take a tower apart; an encoder in heads and neurons stays as it is, with its hooks.

        Args:
            encoder: The tower, in channels or in heads and neurons.
            units: Units by site in heads and neurons that become components of their own, such as the ``kept_units``
                of a graph; heads always are (default: none, an MLP is one component).

        Raises:
            InputError: for a tower without known transformer blocks, one whose heads or neurons do not add to the
                stream one by one, or a unit that does not exist.
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
        stream = cls(blocks, {}, encoder, components)
        apart = {}
        for layer in stream.layers:
            if units is not None and layer.site in units:
                n_units = stream.n_units(layer)
                chosen = _checked_units(layer.site, n_units, units[layer.site])
                if not layer.of_heads:  # which are apart in any case
                    apart[layer.site] = chosen
        return cls(blocks, apart, encoder, components)

    @cached_property
    def layers(self) -> tuple[Layer, ...]:
        """All layers in order; the first does not read, the last does not write."""
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
            writes = len(apart) + 1  # units apart, and all others together
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
        return tuple(one for layer in self.layers[:-1] for one in layer.components)

    @cached_property
    def readers(self) -> tuple[Component, ...]:
        """All readers in order."""
        readers = list[Component]()
        for layer in self.layers[1:]:
            for port in layer.ports:
                readers += [one._replace(port=port) for one in layer.components]
        return tuple(readers)

    @cached_property
    @own_modes()
    def edges(self) -> Bool[Tensor, "readers writers"]:
        """Which edges exist: from every writer to every reader of a later layer."""
        written = torch.tensor([self._order[one.layer] for one in self.writers])
        read = torch.tensor([self._order[one.layer] for one in self.readers])
        return written[None] < read[:, None]

    @cached_property
    def _order(self) -> dict[str, int]:
        """The place of each layer by all its names."""
        order = dict[str, int]()
        for place, layer in enumerate(self.layers):
            for port in layer.ports:
                order |= dict.fromkeys(layer.names_of(port), place)
        return order

    def reads(self, up: str, down: str) -> bool:
        """Say whether edges lead from a layer to another, each given by its site or its name."""
        before = self._order.get(up)
        after = self._order.get(down)
        if before is None or after is None:
            return False
        return before < after and up in self.layers[before].names

    @property
    def sites(self) -> tuple[str, ...]:
        """The sites of `components` that hold what is written: before the blocks, then heads and neurons of each."""
        return tuple(layer.site for layer in self.layers[:-1])

    @cached_property
    def sizes(self) -> dict[str, int]:
        """The number of units of each layer by its site, and by its names, where all of an MLP is one."""
        sizes = {}
        for layer in self.layers:
            sizes[layer.site] = self.n_units(layer)
            size = sizes[layer.site] if layer.of_heads else 1
            sizes[layer.name] = size
            for port in layer.ports:
                sizes[layer.names_of(port)[-1]] = size
        return sizes

    def n_units(self, layer: Layer) -> int:
        if layer.block is not None:
            return layer.block.n_heads if layer.of_heads else layer.block.n_neurons
        encoder = self.components
        read = encoder.read_unhooked(encoder.blank(), [layer.site])
        return read[layer.site].shape[-1]

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
        places = range(len(self.blocks))
        return self._once("neurons", lambda: tuple(map(self._neuron_weights, places)))

    def _once(self, name: str, make: Callable[[], _Weights]) -> _Weights:
        """Return weights that hold as long as the run that they are made in; outside of one they are made anew."""
        with self.encoder.running():
            return self.encoder.once((self, name), make)

    def _neuron_weights(
        self, index: int, neurons: Sequence[int] | None = None
    ) -> Float[Tensor, "neurons d_model"]:
        block = self.blocks[index]
        chosen = range(block.n_neurons) if neurons is None else neurons
        ones = _one_hot(chosen, block.n_neurons)[:, None]
        written = block.mlp_out(ones.to(self.encoder.device, self.encoder.dtype))
        return (written[:, 0] - self.biases(index)[1]).detach()

    def biases(
        self, block: Natural
    ) -> tuple[Float[Tensor, " d_model"], Float[Tensor, " d_model"]]:
        """Return what attention and MLP of a block add to the stream when heads and neurons are zero."""
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
        ones = torch.unflatten(self._eye(block), 1, (1, block.n_heads, -1))
        bias = block.attention_out(torch.zeros_like(ones[:1]))
        written = block.attention_out(ones) - bias
        return torch.unflatten(written.detach()[:, 0], 0, (block.n_heads, -1))

    def _read_weights(self, block: Block) -> tuple[Tensor, Tensor]:
        # A row of zeros reads the biases, a row of the unit matrix one column of the weights beside them.
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
        """Return the stream that a layer reads, given the activations at `sites`, which carry it past their units."""
        site = layer.site if layer.block else self.sites[-1]
        units, past = self.components.parts_of(site, _at(site, activations))
        carried = past.flatten(2)
        if layer.block:
            return carried
        return carried + self.blocks[-1].mlp_out(units)

    def written(
        self, activations: Mapping[str, Tensor]
    ) -> Float[Tensor, "writers batch position d_model"]:
        """Return what every writer adds to the stream, without biases, given the activations at `sites`."""
        writing = self.layers[:-1]
        return torch.cat([self.written_by(layer, activations) for layer in writing])

    def written_by(
        self, layer: Layer, activations: Mapping[str, Tensor]
    ) -> Float[Tensor, "writers batch position d_model"]:
        """Return what each component of a layer adds to the stream, without biases; it is linear."""
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
        return torch.cat([alone, (together - alone.sum(0))[None]])


def adds_up(encoder: Encoder) -> bool:
    """Say whether what heads and neurons add to the residual stream is the sum of what each adds alone."""
    blocks = _blocks_of(encoder)
    return bool(blocks) and all(block.linear for block in blocks)


def in_stream(encoder: Encoder) -> bool:
    """Say whether an encoder's edges run through the residual stream: its units are heads and neurons that add up."""
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
    in_neurons = [stage.block for stage in encoder.stages if stage.block is not None]
    if in_neurons:
        return tuple(in_neurons)
    blocks = encoder.chain.blocks.values()
    return tuple(take_apart(one) for one in blocks if not isinstance(one, ConvBlock))


def _at(site: str, activations: Mapping[str, Tensor]) -> Tensor:
    """Return the activation of a site; raise `InputError` where it is missing."""
    if site not in activations:
        raise InputError(
            f"The activation at {site!r} is needed, but only {', '.join(activations) or 'none'} given."
        )
    return activations[site]
