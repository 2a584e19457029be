"""The residual stream as a graph: every component reads the sum of the outputs of all earlier components.

A tower is a sequence of layers: the stream before the first block, then the heads and the MLP of each block, then the
embedding. Each layer reads the stream, to which all earlier layers have added, and then adds to it. Let z be the
outputs of the heads, post the activations of the neurons, and O and N the output weights of the heads and of the MLPs:

    stream before block i = embed + sum over earlier heads of z O + sum over earlier MLPs of post N + biases

The writers are, in order, ``embed``, and then the heads and the MLP of each block. The readers are the query, key and
value of each head, the MLP of each block, and the embedding. An edge leads from a writer to a reader of a later layer.
A single neuron, a single dimension of the stream before the blocks, or a single unit of the embedding can be a
component. Then the remaining units of its layer together form one further component.

`gated_stream` runs the graph with cut edges (path patching; Wang et al. 2022, arXiv 2211.00593). Each reader then reads
a copy of the stream of its own. If the edge from a writer to the reader is cut, the copy contains what the writer adds
in a baseline.
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
    """A component that writes to the residual stream or reads from it. ``str`` joins its fields by dots.

    Example:
        >>> from circuitry.bases import Component
        >>> str(Component("blocks.1.attn", 3, "q"))
        'blocks.1.attn.3.q'
    """

    layer: str
    """Name of its `Layer`."""
    unit: int | None = None
    """Index of the head, of the neuron, of the dimension of the stream, or of the unit of the embedding.

    None means the component that consists of all remaining units of the layer.
    """
    port: str = ""
    """One of `PORTS` if the component is a head that reads; otherwise empty."""

    def __str__(self) -> str:
        return ".".join(str(word) for word in self if word not in (None, ""))


@dataclass(frozen=True, eq=False)
class Layer:
    """Units that read the stream at one place and add to it at the same place, such as the heads of a block."""

    name: str
    """``embed``, ``blocks.3.attn``, ``blocks.3.mlp`` or ``embedding``."""
    site: str
    """Site of its units in the encoder of heads and neurons."""
    index: int
    """Index of its block. It is -1 for the layer before the blocks, and the number of blocks for the embedding."""
    block: Block | None
    """Its block, or None for the layer before the blocks and for the embedding."""
    kind: UnitKind
    """Kind of its units."""
    reads: str
    """Name of the hook point at which it reads the stream; empty for the layer before the blocks."""
    apart: tuple[int, ...]
    """Indices of its units that are components by themselves. Every head is a component."""
    writers: slice
    """Positions of its components in `ResidualStream.writers`."""
    readers: slice
    """Positions of its components in `ResidualStream.readers`.

    If the units are heads, all queries come first, then all keys, then all values.
    """

    @property
    def of_heads(self) -> bool:
        """Whether its units are heads."""
        return self.kind == HEAD

    @property
    def ports(self) -> tuple[str, ...]:
        """Names of the readers that each unit has: `PORTS` if the units are heads, otherwise a single empty name."""
        return PORTS if self.of_heads else ("",)

    @property
    def names(self) -> tuple[str, ...]:
        """The names under which gates on this layer can be given: its site and its ``name``.

        Gates under the site have an entry for each unit. Gates under the ``name`` have a single entry, which all units
        share, except that each head has an entry if the units are heads. If both names are equal, there is one name.
        """
        return tuple(dict.fromkeys((self.site, self.name)))

    def names_of(self, port: str) -> tuple[str, ...]:
        """Return all names under which gates on the edges into this layer can be given.

        ``port`` is one of `ports`: ``"q"``, ``"k"`` or ``"v"`` for queries, keys or values of heads, otherwise empty.
        """
        if not port:
            return self.names
        return (*self.names, f"{self.name}.{port}")

    @property
    def components(self) -> tuple[Component, ...]:
        """The components of this layer.

        They are the units in ``apart``, followed by one component that consists of all remaining units. In a layer of
        heads every head is a component, so there are no remaining units.
        """
        alone = tuple(Component(self.name, unit) for unit in self.apart)
        return alone if self.of_heads else (*alone, Component(self.name))

    def groups(self, size: int) -> Bool[Tensor, "components unit"]:
        """Return a mask that says which units belong to each component.

        ``size`` is the number of units of the layer.
        """
        alone = _one_hot(self.apart, size).bool()
        if self.of_heads:
            return alone
        return torch.cat([alone, ~alone.any(0, keepdim=True)])


@dataclass(frozen=True, eq=False)
class ResidualStream:
    """A transformer tower as a graph of components that write to the residual stream and read from it.

    `writers` and `readers` are the components, and `edges` says which reader reads which writer. The properties with
    weights compute these weights from the tower at each access. Within a run (`Encoder.running`) they are computed at
    the first access only.

    Example:
        >>> from circuitry.bases import ResidualStream
        >>> stream = ResidualStream.of(vit.encoder)
        >>> [str(writer) for writer in stream.writers[:3]]
        ['embed', 'blocks.0.attn.0', 'blocks.0.attn.1']
    """

    HOW_TO_GET: ClassVar = "make one with ResidualStream.of(clip.encoder)"

    blocks: tuple[Block, ...]  #: Blocks of the tower in order.
    apart: Mapping[str, tuple[int, ...]]
    """Indices of the units that are components by themselves, by site.

    Heads are not listed, because every head is a component.
    """
    encoder: Encoder
    """Encoder of the tower whose sites include the residual stream after each block."""
    components: Encoder
    """Encoder of the same tower whose units are heads and neurons."""

    @classmethod
    def of(
        cls, encoder: Encoder, units: Mapping[str, Units] | None = None
    ) -> "ResidualStream":
        """Divide a tower into writers and readers.

        Args:
            encoder: An encoder of the tower, either in channels or in heads and neurons (`in_components`). An encoder
                in heads and neurons becomes the field ``components``, so hooks that are set on it still act. Only the
                stream of an encoder in lower precision (`Encoder.in_precision`) runs in the type of the weights, on
                encoders of its own.
            units: Indices of the units that become components by themselves, by site. The sites are the sites of an
                encoder in heads and neurons. The ``kept_units`` of a graph can be given. By default each MLP is one
                component. Every head is a component in any case.

        Raises:
            InputError: if the tower has no transformer blocks of a known kind, if its heads or neurons do not add to
                the stream independently of each other, if a unit does not exist, or if hooks are set on an encoder in
                lower precision.
        """
        # What edges carry are small differences, which lower precision would drown.
        encoder = encoder.in_type_of_weights()
        components = encoder if encoder.carried else in_components(encoder)
        if components is encoder:
            encoder = encoder.in_channels()
        blocks = _blocks_of(components)
        if not adds_up(components):
            raise InputError(
                "This tower has no heads and neurons that add to a residual stream one by one, as where a norm lies in "
                "between: look at its sites instead (in_components)."
            )
        # A first stream, without single units as components, gives the number of units of each layer for the check.
        stream = cls(blocks, {}, encoder, components)
        apart = {}
        for layer in stream.layers:
            if units is not None and len(units.get(layer.site, ())):
                n_units = stream.n_units(layer)
                chosen = _checked_units(layer.site, n_units, units[layer.site])
                # Heads are components in any case.
                if not layer.of_heads:
                    apart[layer.site] = chosen
        return cls(blocks, apart, encoder, components)

    @cached_property
    def layers(self) -> tuple[Layer, ...]:
        """All layers in order. The first layer does not read the stream, and the last layer does not write to it."""
        # The last sites are: the site before the blocks, the heads and the MLP of each block, and the embedding.
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
            # Each unit in `apart` is a component. All remaining units are one more component.
            writes = len(apart) + 1
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
        """All readers in order. In a layer of heads, all queries come first, then all keys, then all values."""
        readers = list[Component]()
        for layer in self.layers[1:]:
            for port in layer.ports:
                readers += [unit._replace(port=port) for unit in layer.components]
        return tuple(readers)

    @cached_property
    @own_modes()
    def edges(self) -> Bool[Tensor, "readers writers"]:
        """Mask of the edges that exist. An edge leads from each writer to each reader of a later layer."""
        written = torch.tensor([self._order[writer.layer] for writer in self.writers])
        read = torch.tensor([self._order[reader.layer] for reader in self.readers])
        return written[None] < read[:, None]

    @cached_property
    def _order(self) -> dict[str, int]:
        """Dictionary from the names of each layer to the index of the layer in `layers`; see `Layer.names_of`."""
        order = dict[str, int]()
        for place, layer in enumerate(self.layers):
            for port in layer.ports:
                order |= dict.fromkeys(layer.names_of(port), place)
        return order

    def reads(self, up: str, down: str) -> bool:
        """Return whether edges lead from layer ``up`` to layer ``down``.

        A layer is given by its site or its name. ``down`` may also name the queries, keys or values of a layer of
        heads, as in ``blocks.3.attn.q``.
        """
        before = self._order.get(up)
        after = self._order.get(down)
        if before is None or after is None:
            return False
        # A name with a port, such as ``blocks.3.attn.q``, means readers only. It cannot be a writer.
        return before < after and up in self.layers[before].names

    @property
    def sites(self) -> tuple[str, ...]:
        """Sites of `components` whose units write to the stream.

        They are the site before the blocks, and then the sites of the heads and of the neurons of each block.
        """
        return tuple(layer.site for layer in self.layers[:-1])

    @cached_property
    def sizes(self) -> dict[str, int]:
        """Number of gates that a layer has if its gates are given under a name, by name.

        The names of a layer are its site, its ``name``, and in a layer of heads also names with a port, as in
        ``blocks.3.attn.q``; see `Layer.names`.
        """
        sizes = {}
        for layer in self.layers:
            sizes[layer.site] = self.n_units(layer)
            # Under its name, an MLP, the embedding, or the stream before the blocks has a single gate.
            size = sizes[layer.site] if layer.of_heads else 1
            sizes[layer.name] = size
            for port in layer.ports:
                sizes[layer.names_of(port)[-1]] = size
        return sizes

    def n_units(self, layer: Layer) -> int:
        """Return the number of units of a layer. If the layer has no block, the tower is run once to count them."""
        if layer.block is not None:
            return layer.block.n_heads if layer.of_heads else layer.block.n_neurons
        encoder = self.components
        read = encoder.read_unhooked(encoder.blank(), [layer.site])
        return read[layer.site].shape[-1]

    @property
    def read_weights(self) -> tuple[tuple[Tensor, Tensor], ...]:
        """For each block, the weights by which its heads read the stream.

        Each entry holds weights [port, head, d_head, d_model] and biases [port, head, d_head].
        """
        return tuple(map(self.read_weights_of, range(len(self.blocks))))

    def read_weights_of(self, index: int) -> tuple[Tensor, Tensor]:
        """Return the weights by which the heads of one block read the stream; see `read_weights`."""
        block = self.blocks[index]
        return self._once(f"read {index}", lambda: self._read_weights(block))

    @property
    def write_weights(self) -> tuple[Float[Tensor, "head d_head d_model"], ...]:
        """For each block, the weights from z to what its heads add to the stream."""
        return tuple(map(self.write_weights_of, range(len(self.blocks))))

    def write_weights_of(self, index: int) -> Float[Tensor, "head d_head d_model"]:
        """Return the weights from z of one block to what its heads add to the stream."""
        block = self.blocks[index]
        return self._once(f"write {index}", lambda: self._write_weights(block))

    @property
    def neuron_weights(self) -> tuple[Float[Tensor, "neuron d_model"], ...]:
        """For each block, the weights from its neurons to what its MLP adds to the stream."""
        places = range(len(self.blocks))
        return self._once("neurons", lambda: tuple(map(self._neuron_weights, places)))

    def apart_weights(self, layer: Layer) -> Float[Tensor, "neurons d_model"]:
        """Return the weights from the neurons of a layer that are components by themselves to the stream."""
        return self._once(
            f"{layer.name} apart",
            lambda: self._neuron_weights(layer.index, layer.apart),
        )

    def _once(self, name: str, make: Callable[[], _Weights]) -> _Weights:
        """Return the result of ``make``.

        Within a run (`Encoder.running`), ``make`` is called only the first time, and its result is kept under ``name``
        until the run ends. Outside of a run, ``make`` is called each time.
        """
        # The key contains this stream, because all encoders and streams on a tower share its runs.
        with self.encoder.running():
            return self.encoder.once((self, name), make)

    def _neuron_weights(
        self, index: int, neurons: Sequence[int] | None = None
    ) -> Float[Tensor, "neurons d_model"]:
        block = self.blocks[index]
        # The weights are the outputs for unit vectors minus the output for zero. So they include layer scales and other
        # linear steps, whatever modules the block has.
        chosen = range(block.n_neurons) if neurons is None else neurons
        ones = _one_hot(chosen, block.n_neurons)[:, None]
        written = block.mlp_out(ones.to(self.encoder.device, self.encoder.dtype))
        return (written[:, 0] - self.biases(index)[1]).detach()

    def biases(
        self, block: Natural
    ) -> tuple[Float[Tensor, " d_model"], Float[Tensor, " d_model"]]:
        """Return what attention and what the MLP of a block add to the stream if all heads and neurons are zero.

        Args:
            block: Index of the block.

        Raises:
            InputError: if the tower has no block of this index.
        """
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
        # As in `_neuron_weights`. The unit vectors of z are a batch of images [d_model, 1, head, d_head].
        ones = torch.unflatten(self._eye(block), 1, (1, block.n_heads, -1))
        bias = block.attention_out(torch.zeros_like(ones[:1]))
        written = block.attention_out(ones) - bias
        return torch.unflatten(written.detach()[:, 0], 0, (block.n_heads, -1))

    def _read_weights(self, block: Block) -> tuple[Tensor, Tensor]:
        # The projection of zeros is the bias. The projection of a unit vector is the bias plus a column of the weights.
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
        """Return the residual stream as a layer reads it, given the activations at `sites`."""
        # A site of heads or neurons carries the stream that these units read. The embedding reads the stream that the
        # site of the last MLP carries, after what this MLP adds has been added to it.
        site = layer.site if layer.block else self.sites[-1]
        units, past = self.components.units_and_carried(site, _at(site, activations))
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
        """Return what each component of a layer adds to the stream, without biases, given the activations at `sites`.

        The result is linear in the activations.
        """
        x = self.components.units_of(layer.site, _at(layer.site, activations))
        if layer.of_heads:
            heads = rearrange(x, "b p head d -> head (b p) d")
            written = heads @ self.write_weights_of(layer.index)
            return written.reshape(-1, *x.shape[:2], written.shape[-1])
        if layer.block is None:
            together = x
            alone = _one_hot(layer.apart, x.shape[-1]).to(x)[:, None, None] * x
        else:
            together = layer.block.mlp_out(x) - self.biases(layer.index)[1]
            if not layer.apart:
                return together[None]
            weights = self.apart_weights(layer)
            alone = torch.einsum("bpn,nm->nbpm", x[..., list(layer.apart)], weights)
        # The last component is the layer minus all other components, so that all components sum to the layer exactly.
        return torch.cat([alone, (together - alone.sum(0))[None]])


def adds_up(encoder: Encoder) -> bool:
    """Return whether all heads and neurons of an encoder add to the residual stream independently of each other.

    The result is False if the tower is not a transformer.
    """
    blocks = _blocks_of(encoder)
    return bool(blocks) and all(block.linear for block in blocks)


def in_stream(encoder: Encoder) -> bool:
    """Return whether the edges of an encoder lead through its residual stream.

    They do if its units are heads and neurons that add to the stream independently of each other.
    """
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
    # The blocks of the stages are preferred, because their neurons may have been replaced by latents.
    in_neurons = [stage.block for stage in encoder.stages if stage.block is not None]
    if in_neurons:
        return tuple(in_neurons)
    blocks = encoder.chain.blocks.values()
    return tuple(take_apart(b) for b in blocks if not isinstance(b, ConvBlock))


def _at(site: str, activations: Mapping[str, Tensor]) -> Tensor:
    """Return the activation of a site. Raise `InputError` if the activation is missing."""
    if site not in activations:
        raise InputError(
            f"The activation at {site!r} is needed, but only {', '.join(activations) or 'none'} given."
        )
    return activations[site]
