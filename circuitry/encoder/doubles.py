"""Conversion to double precision, also of tensors on devices that have no double precision."""

from torch import Tensor

WITHOUT_DOUBLES = "mps"
"""The kind of device that has no double precision."""


def in_double(x: Tensor) -> Tensor:
    """Return a tensor in double precision. If the tensor's device has no double precision, the result is on the CPU."""
    if x.device.type == WITHOUT_DOUBLES:
        x = x.cpu()
    return x.double()
