"""Kinds of units: each `Stage` has the kind of the units of its output.

To add a kind, give a `UnitKind` with a name and an axis to the stage whose output has such units. Units that are no
entries of the network's own activation, such as directions in it, need a definition in ``made_of``: two encoders count
as the same only if their definitions are equal.
"""

from dataclasses import dataclass, field
from typing import Any

from circuitry.runs.arguments import checked
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
    """Axis of the units in an activation: 1 of feature maps [B, C, H, W], -1 of tokens [B, L, C]."""
    is_vector: bool = False
    """Whether a unit is a vector at each position, along the last axis, as a head is. Its strength is the length of the
    vector."""
    made_of: Any = field(default=None, repr=False, compare=False)
    """Definition of the units, such as a rotation or an autoencoder; None for the network's own units. It is made of
    numbers, arrays, tensors, functions and objects of these, or has a text ``identity``, so that it has a `digest`."""

    @property
    def layout(self) -> tuple[int, bool]:
        """How units lie in an activation. Kinds that differ in their name alone are the same units."""
        return self.axis, self.is_vector

    @property
    def digest(self) -> Any:
        """Digest of ``made_of`` for an `Identity`; unknown, and so equal to nothing, if it cannot be read."""
        own = getattr(self.made_of, "identity", self.made_of)
        if isinstance(own, str):
            return own
        return entry_of(self.made_of, f"what makes up each {self.name}")


CHANNEL = UnitKind("channel", 1)
HIDDEN_CHANNEL = UnitKind("hidden channel", 1)
FEATURE = UnitKind("feature", -1)
"""A dimension of each token."""
EMBEDDING_FEATURE = UnitKind("feature", 1)
"""A dimension of a tower's output [B, D]."""
HEAD = UnitKind("head", 2, is_vector=True)
POOLING_HEAD = UnitKind("head", 1, is_vector=True)
NEURON = UnitKind("neuron", -1)


def kind_along(axis: int) -> UnitKind:
    """Return the kind of units whose axis alone is known."""
    for kind in (CHANNEL, FEATURE):
        if kind.axis == axis:
            return kind
    return UnitKind("unit", axis)
