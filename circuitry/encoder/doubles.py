"""Double precision on every device: whatever is added up in doubles goes through here."""

from torch import Tensor

WITHOUT_DOUBLES = "mps"
"""The kind of device that has no double precision."""


def in_double(x: Tensor) -> Tensor:
    """Return numbers in double precision, on their device or, if it has no doubles, on the CPU."""
    if x.device.type == WITHOUT_DOUBLES:
        x = x.cpu()
    return x.double()
