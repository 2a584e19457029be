"""The stages of an encoder, and the blocks that some of them run."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Annotated, Any

from torch import Tensor, nn

from circuitry.encoder.unit_kinds import UnitKind, kind_along
from circuitry.runs.arguments import Condition, checked
from circuitry.runs.errors import shown

Step = Callable[[Tensor], Tensor]
NO_STEP = nn.Identity()
NarrowStage = Callable[[Tensor, Tensor], Tensor]
"""Function of an activation x and a change ``delta`` of the chosen upstream units. It returns the chosen downstream
units of ``stage(x + delta)``, differentiable in ``delta`` alone; see `narrowing`."""


def _no_block(given: object) -> str | None:
    """Describe a value that is no block; return None for a block."""
    # `Block` is in bases, above this room, so it cannot be imported here.
    return None if hasattr(given, "n_neurons") else shown(given)


@checked
@dataclass(frozen=True)
class Stage:
    """One step of an encoder: the function between two neighbouring sites.

    Example:
        >>> from circuitry.encoder import Stage, UnitKind
        >>> Stage("stem", torch.relu, 1).kind.name
        'channel'
        >>> Stage("rows", torch.relu, UnitKind("row of pixels", 2)).unit_dim
        2
    """

    site: str
    """Name of the site at the output: the module's path in the tower."""
    run: Callable[[Tensor], Tensor]
    """Function from the activation of the site before to the activation of this site."""
    units: UnitKind | int
    """Kind of the output's units, or only their axis: 1 of channels [B, C, H, W] and [B, C], -1 of features [B, L, C]
    and [B, H, W, C]."""
    fast: Callable[[Tensor], Tensor] | None = None
    """Optional: a faster ``run`` that leaves out work without effect on the output; equal up to rounding."""
    narrow: Callable[[Tensor, Tensor], NarrowStage] | None = None
    """Optional: function of the kept upstream units and the kept downstream units that returns a `NarrowStage`."""
    error_units: range = range(0)
    """In a feature basis: the units behind the latents, which hold the error of their reconstruction."""
    carried: range = range(0)
    """Places behind the units that only carry the residual stream past them; they are never scored or written, see
    `components`."""
    block: Annotated[
        Any, Condition("a Block", _no_block, "take that of `block_of`, or leave it out")
    ] = None
    """If the units are neurons: their `Block`."""

    @property
    def kind(self) -> UnitKind:
        """The kind of the output's units."""
        return kind_along(self.units) if isinstance(self.units, int) else self.units

    @property
    def unit_dim(self) -> int:
        """The axis of the output's units."""
        return self.kind.axis


def nowhere() -> None:
    """Return None: the `PlacedBlock.places` of a block that needs no positions."""


@dataclass(frozen=True)
class PlacedBlock:
    """A transformer block that takes a second argument: rotary embeddings, a bias of scores, or a mask."""

    module: nn.Module
    argument: str
    """Name of the second argument."""
    places: Callable[[], Any]
    """Function that returns the second argument, perhaps None. Each run calls it, since the argument may be a learned
    weight and moves with the trunk to another device."""

    def __call__(self, x: Tensor) -> Tensor:
        """Run the block."""
        y: Tensor = self.module(x, **{self.argument: self.places()})
        return y


@dataclass(frozen=True)
class EnteredBlock:
    """The first block of a level, and the step of the level before it, such as a down-sampling."""

    module: Any
    entry: Callable[[Tensor], Tensor]

    def __call__(self, x: Tensor) -> Tensor:
        """Run the level's step, then the block."""
        y: Tensor = self.module(self.entry(x))
        return y


@dataclass(frozen=True)
class ConvBlock:
    """The steps of a convolutional block: ``after(add(hidden(entry(x))) + shortcut(entry(x)))`` of the stream x.

    Example:
        >>> from torch import nn
        >>> from circuitry.encoder import Chain, ConvBlock, linked_stages
        >>> net = nn.Sequential(nn.Conv2d(3, 8, 1), nn.Conv2d(8, 8, 3, padding=1), nn.Flatten())
        >>> block = ConvBlock([("relu", torch.relu)], net[1], shortcut=None)
        >>> chain = Chain(tuple(linked_stages(net, ["0", (torch.relu, "1"), "2"])), (64, 64), {"1": block})
        >>> tower = circuitry.Encoder(net, chain.stages, chain.image_size, chain=chain)
        >>> circuitry.in_components(tower).sites
        ('input', '0', '1.relu', '2')
    """

    hidden: Sequence[tuple[str, Step]]
    """Name of each hidden activation and the step that makes it, of the stream or of the activation before it."""
    add: Step
    """Step from the last hidden activation to the block's addition to the stream."""
    shortcut: tuple[str, Step] | None
    """Name and step of a projection of the stream past the hidden channels. An empty name stands for the stream itself,
    None for a block without a shortcut."""
    after: Step = NO_STEP
    """Step behind the sum, such as a ReLU."""
    entry: Step = NO_STEP
    """Step of the stream before the block reads it, such as a down-sampling."""
