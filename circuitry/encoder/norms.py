"""Norms that divide their input by the scale of this input, such as layer norm and RMS norm.

If the scale is held constant, a norm over the last axis is an affine map. Then the output is an exact sum of
contributions, one for each summand of the input.
"""

from typing import Any

import torch
from timm.layers import RmsNorm, RmsNorm2d
from torch import Tensor, nn

NORMS = (nn.LayerNorm, nn.RMSNorm, RmsNorm)
"""Classes of norms over the last axis that the package knows."""
_RESCALING = (*NORMS, RmsNorm2d, nn.GroupNorm, nn.InstanceNorm1d, nn.InstanceNorm2d)
"""Classes of norms that divide their input by its scale. Batch norms are not among them, because in evaluation mode
they divide by a constant."""


def has_rescaling_norms(tower: nn.Module) -> bool:
    """Return whether a tower has norms that divide their input by its scale, such as layer norms.

    If the input of such a norm is scaled towards zero, the output hardly changes.
    """
    return any(isinstance(module, _RESCALING) for module in tower.modules())


def scale_of(norm: Any, x: Tensor) -> Tensor:
    """Return the factor [..., 1] by which a norm multiplies its input ``x`` after centring.

    A layer norm centres its input by subtracting the mean. An RMS norm does not centre its input.
    """
    # nn.RMSNorm without eps adds the smallest step of the input's type, as PyTorch does.
    eps = torch.finfo(x.dtype).eps if norm.eps is None else norm.eps
    variance = centred(norm, x).square().mean(-1, keepdim=True)
    scale: Tensor = (variance + eps).rsqrt()
    return scale


def normed_with(norm: Any, x: Tensor, scale: Tensor) -> Tensor:
    """Return the output of a norm for the input ``x`` if its factor is held at ``scale``; see `scale_of`."""
    y = centred(norm, x) * scale
    if norm.weight is not None:
        y = y * norm.weight
    bias = getattr(norm, "bias", None)  # RMS norms have none
    if bias is not None:
        y = y + bias
    return y


def centred(norm: Any, x: Tensor) -> Tensor:
    """Return ``x`` as a norm centres it before it is scaled. RMS norms do not subtract the mean."""
    if isinstance(norm, nn.LayerNorm):
        return x - x.mean(-1, keepdim=True)
    return x
