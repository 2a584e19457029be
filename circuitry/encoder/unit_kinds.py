"""What a unit is, as a value: each `Stage` says of what kind the units of its output are.

A new kind is a `UnitKind` of a name and an axis, on the stage whose output has such units. Where units are no places
of the network's own activation, such as directions in it, ``made_of`` holds what defines them: two encoders are taken
for the same one only where that is equal.
"""

from dataclasses import dataclass, field
from typing import Any

from circuitry.runs.given import checked
from circuitry.runs.leaves import part_of


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
    """One such unit in words, for cards and messages."""
    axis: int
    """Axis of the units in an activation: 1 of feature maps [B, C, H, W], -1 of tokens [B, L, C]."""
    is_vector: bool = False
    """Whether a unit is a vector at each position, along the last axis, as a head is; its strength is the length."""
    made_of: Any = field(default=None, repr=False, compare=False)
    """What defines the units, such as a rotation or an autoencoder; None for the network's own. The `digest` is read
    off it: numbers, arrays, tensors, functions, objects of these, or an object with a text ``identity``."""

    @property
    def digest(self) -> Any:
        """What ``made_of`` is, as part of an `Identity`: unknown, and equal to nothing, where it cannot be read."""
        own = getattr(self.made_of, "identity", self.made_of)
        if isinstance(own, str):
            return own
        return part_of(self.made_of, f"what makes up each {self.name}")


CHANNEL = UnitKind("channel", 1)
HIDDEN_CHANNEL = UnitKind("hidden channel", 1)
FEATURE = UnitKind("feature", -1)
"""A dimension of each token."""
EMBEDDING_FEATURE = UnitKind("feature", 1)
"""A dimension of what a tower returns."""
HEAD = UnitKind("head", 2, is_vector=True)
POOLING_HEAD = UnitKind("head", 1, is_vector=True)
NEURON = UnitKind("neuron", -1)


def kind_along(axis: int) -> UnitKind:
    """Return the kind of units whose axis alone is known."""
    known = {CHANNEL.axis: CHANNEL, FEATURE.axis: FEATURE}
    return known.get(axis, UnitKind("unit", axis))
