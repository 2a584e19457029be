"""A stage: one link of the chain that an encoder is."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Annotated, Any

from torch import Tensor, nn

from circuitry.encoder.unit_kinds import UnitKind, kind_along
from circuitry.runs.errors import shown
from circuitry.runs.given import Condition, checked

Step = Callable[[Tensor], Tensor]
NO_STEP = nn.Identity()
NarrowStage = Callable[[Tensor, Tensor], Tensor]
"""Maps (activation x, change ``delta`` of the chosen upstream units) to the chosen downstream units of
``stage(x + delta)``, differentiable in ``delta`` only."""


def _no_block(given: object) -> str | None:
    """Say what is given in the place of a block, whose class is in a room above."""
    return None if hasattr(given, "n_neurons") else shown(given)


@checked
@dataclass(frozen=True)
class Stage:
    """One link of the chain.

    Example:
        >>> from circuitry.encoder import Stage, UnitKind
        >>> Stage("stem", torch.relu, 1).kind.name
        'channel'
        >>> Stage("rows", torch.relu, UnitKind("row of pixels", 2)).unit_dim
        2
    """

    site: str
    """Name of the site at its output: the module path in the tower."""
    run: Callable[[Tensor], Tensor]
    """Activation of the site before -> activation of this site."""
    units: UnitKind | int
    """The kind of the output's units, or their axis alone: 1 of channels [B, C, H, W] and [B, C], -1 of features
    [B, L, C] and [B, H, W, C]."""
    fast: Callable[[Tensor], Tensor] | None = None
    """Optional: ``run`` without work that does not reach its output, equal up to rounding."""
    narrow: Callable[[Tensor, Tensor], NarrowStage] | None = None
    """Optional faster route for edges: (kept upstream units, kept downstream units) -> `NarrowStage`."""
    error_units: range = range(0)
    """Where the output is in a feature basis: the units behind the latents, which hold what they miss."""
    carried: range = range(0)
    """What is carried past the site behind its units, such as the residual stream past the heads: no units, never
    scored or written; see `components`."""
    block: Annotated[
        Any, Condition("a Block", _no_block, "take that of `block_of`, or leave it out")
    ] = None
    """Where the units are neurons: the `Block` that they are of."""

    @property
    def kind(self) -> UnitKind:
        """The kind of the output's units."""
        return kind_along(self.units) if isinstance(self.units, int) else self.units

    @property
    def unit_dim(self) -> int:
        """The axis of the output's units."""
        return self.kind.axis


def nowhere() -> None:
    """Return None, as the places of a block that is told none."""


@dataclass(frozen=True)
class PlacedBlock:
    """A transformer block whose trunk gives it more than the stream: rotary embeddings, a bias, or no mask."""

    module: nn.Module
    argument: str
    """What the block calls that."""
    places: Callable[[], Any]
    """Returns it, or none; asked anew in every run, as it may be learned and moves with the trunk."""

    def __call__(self, x: Tensor) -> Tensor:
        """Run the block."""
        y: Tensor = self.module(x, **{self.argument: self.places()})
        return y


@dataclass(frozen=True)
class EnteredBlock:
    """The first block of a level with what comes before it there, such as a down-sampling."""

    module: Any
    entry: Callable[[Tensor], Tensor]

    def __call__(self, x: Tensor) -> Tensor:
        """Run both."""
        y: Tensor = self.module(self.entry(x))
        return y


@dataclass(frozen=True)
class ConvBlock:
    """The steps of a convolutional block.

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
    """Name of each hidden activation, and the step to it from the one before, the first from the stream."""
    add: Step
    """The last hidden activation -> what the block adds to the stream."""
    shortcut: tuple[str, Step] | None
    """Name and step of what goes past the hidden channels: without a name the stream as it is; none for nothing."""
    after: Step = NO_STEP
    """What the sum passes."""
    entry: Step = NO_STEP
    """What the stream passes before the block reads it."""
