"""`Stage`, one step of an encoder, and wrappers for the blocks of networks that a stage may run."""

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
"""Function that takes an activation x and a change ``delta`` of the chosen upstream units. It returns the chosen
downstream units of ``stage(x + delta)``, with gradients with respect to ``delta`` alone; see `narrowing`."""


def _no_block(given: object) -> str | None:
    """Check a value for the field ``block`` of a `Stage`: return None for a `Block`, otherwise describe the value."""
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
    """Function that takes the activation of the site before and returns the activation of this site."""
    units: UnitKind | int
    """Kind of the output's units, or only their axis. The axis is 1 for channels [B, C, H, W] and [B, C], and -1 for
    features [B, L, C] and [B, H, W, C]."""
    fast: Callable[[Tensor], Tensor] | None = None
    """Optional: a faster form of ``run``. It leaves out computations that do not affect the output, and returns the
    same output up to rounding."""
    narrow: Callable[[Tensor, Tensor], NarrowStage] | None = None
    """Optional: function that takes the indices of the chosen upstream units and of the chosen downstream units, and
    returns a `NarrowStage`."""
    error_units: range = range(0)
    """Indices of the error units in a feature basis. They follow the latents, and hold what the latents do not
    reconstruct."""
    carried: range = range(0)
    """Indices after the units, along their axis, that only carry the residual stream past the units. The stream is
    never scored or replaced; see `components`."""
    block: Annotated[
        Any, Condition("a Block", _no_block, "take that of `block_of`, or leave it out")
    ] = None
    """The `Block` of the units if the units are neurons; otherwise None."""

    @property
    def kind(self) -> UnitKind:
        """The kind of the output's units."""
        return kind_along(self.units) if isinstance(self.units, int) else self.units

    @property
    def unit_dim(self) -> int:
        """The axis of the output's units."""
        return self.kind.axis


def nowhere() -> None:
    """Return None. This is the field ``places`` of a `PlacedBlock` whose second argument is None."""


@dataclass(frozen=True)
class PlacedBlock:
    """A transformer block that takes a second argument: rotary embeddings, a bias of attention scores, or a mask."""

    module: nn.Module
    argument: str
    """Name of the second argument."""
    places: Callable[[], Any]
    """Function that returns the second argument, which may be None. Each run calls this function, because the argument
    may be a weight of the tower, which changes in training and moves to another device together with the tower."""

    def __call__(self, x: Tensor) -> Tensor:
        """Run the block."""
        y: Tensor = self.module(x, **{self.argument: self.places()})
        return y


@dataclass(frozen=True)
class EnteredBlock:
    """The first block of a level, together with the step that runs before this block, such as a down-sampling.

    A level is a group of blocks at one resolution. timm calls it a stage.
    """

    module: Any
    """The block."""
    entry: Callable[[Tensor], Tensor]
    """The step before the block."""

    def __call__(self, x: Tensor) -> Tensor:
        """Run the step before the block, then the block."""
        y: Tensor = self.module(self.entry(x))
        return y


@dataclass(frozen=True)
class ConvBlock:
    """The steps of a convolutional block.

    The block maps the stream x to ``after(add(hidden(entry(x))) + shortcut(entry(x)))``.

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
    """Name of each hidden activation, and the step that computes this activation. The first step takes the stream after
    ``entry``. Each further step takes the previous hidden activation."""
    add: Step
    """Step that takes the last hidden activation and returns what the block adds to the stream."""
    shortcut: tuple[str, Step] | None
    """Name and step of the projection that takes the stream past the hidden channels. If the shortcut is the stream
    itself, the name is empty and the step is the identity. None means that the block has no shortcut."""
    after: Step = NO_STEP
    """Step after the sum, such as a ReLU."""
    entry: Step = NO_STEP
    """Step that is applied to the stream before the block reads it, such as a down-sampling."""
