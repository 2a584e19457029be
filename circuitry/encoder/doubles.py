"""Double precision on every device: whatever is added up in doubles goes through here."""

from torch import Tensor

WITHOUT_DOUBLES = "mps"
"""The kind of device that has no double precision."""


def in_double(x: Tensor) -> Tensor:
    """Return numbers in double precision: where they lie, or on the CPU where their device has none."""
    return (x.cpu() if x.device.type == WITHOUT_DOUBLES else x).double()
