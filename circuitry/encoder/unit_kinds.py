"""Kinds of units. Each `Stage` has a `UnitKind`, which says what the units of its output are.

To add a kind, give a `UnitKind` with a name and an axis to the stage whose output has such units. Units that are not
entries of the network's own activation, for example directions in this activation, need a definition in ``made_of``.
Results of two encoders are compared only if the definitions of their units are equal.
"""

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from circuitry.runs.arguments import checked
from circuitry.runs.errors import InputError
from circuitry.runs.leaves import entry_of


@checked
@dataclass(frozen=True)
class UnitKind:
    """The kind of a site's units.

    Example:
        >>> from circuitry.encoder import UnitKind
        >>> UnitKind("row of pixels", 2)
        UnitKind(name='row of pixels', axis=2, is_vector=False)
        >>> encoder.kinds["layer1.0"].name
        'channel'
    """

    name: str
    """Word for one unit, for cards and messages."""
    axis: int
    """Axis of the units in an activation: 1 for feature maps [B, C, H, W], -1 for tokens [B, L, C]."""
    is_vector: bool = False
    """Whether a unit is a vector at each position, along the last axis. A head is such a unit. The strength of such a
    unit is the length of the vector."""
    made_of: Any = field(default=None, repr=False, compare=False)
    """Definition of the units, such as a rotation or an autoencoder. None for the network's own units. The definition
    needs a `digest`. So it either consists of numbers, arrays, tensors, functions and objects that hold these, or has
    an attribute ``identity`` that is a text."""

    def __post_init__(self) -> None:
        if self.axis == 0:
            raise InputError(
                f"Expected the axis of the units {self.name!r} in an activation [images, ...], but 0, the axis of "
                "images, was given: give 1 for channels, or -1 for features of tokens."
            )

    @property
    def layout(self) -> tuple[int, bool]:
        """How units lie in an activation: their axis, and whether a unit is a vector.

        If two kinds have equal layouts, they divide an activation in the same way, even if their names differ.
        """
        return self.axis, self.is_vector

    @property
    def digest(self) -> Any:
        """Digest of ``made_of`` for an `Identity`.

        If ``made_of`` cannot be read, the digest is marked as unknown. An unknown digest equals no other digest.
        """
        own = getattr(self.made_of, "identity", self.made_of)
        if isinstance(own, str):
            return own
        return entry_of(self.made_of, f"what makes up each {self.name}")


CHANNEL = UnitKind("channel", 1)
HIDDEN_CHANNEL = UnitKind("hidden channel", 1)
PROJECTION_CHANNEL = UnitKind("projection channel", 1)
"""A channel of the output of a projection shortcut."""
FEATURE = UnitKind("feature", -1)
"""A dimension of each token."""
EMBEDDING_FEATURE = UnitKind("feature", 1)
"""A dimension of a tower's output [B, D]."""
HEAD = UnitKind("head", 2, is_vector=True)
POOLING_HEAD = UnitKind("head", 1, is_vector=True)
NEURON = UnitKind("neuron", -1)


def name_kinds(kinds: Iterable[UnitKind]) -> str:
    """Return the names of kinds in the plural, each once, such as "hidden channels and projection channels"."""
    names = list(dict.fromkeys(f"{kind.name}s" for kind in kinds))
    last = names.pop()
    return f"{', '.join(names)} and {last}" if names else last


def kind_along(axis: int) -> UnitKind:
    """Return a kind for units if only their axis is known: channels, features of tokens, or otherwise "unit"."""
    for kind in (CHANNEL, FEATURE):
        if kind.axis == axis:
            return kind
    return UnitKind("unit", axis)
