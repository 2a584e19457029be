"""Norms over the last axis with their scale held constant: affine maps, as exact decompositions need them."""

from typing import Any

import torch
from timm.layers import RmsNorm
from torch import Tensor, nn

NORMS = (nn.LayerNorm, nn.RMSNorm, RmsNorm)
"""Kinds of norms that are known."""


def scale_of(norm: Any, x: Tensor) -> Tensor:
    """Return what a norm multiplies its centred input with, [..., 1]."""
    eps = torch.finfo(x.dtype).eps if norm.eps is None else norm.eps
    found: Tensor = (_centred(norm, x).square().mean(-1, keepdim=True) + eps).rsqrt()
    return found


def normed_with(norm: Any, x: Tensor, scale: Tensor) -> Tensor:
    """Return a norm's output with this scale in place of its own."""
    y = _centred(norm, x) * scale
    y = y if norm.weight is None else y * norm.weight
    bias = getattr(norm, "bias", None)  # RMS norms have none
    return y if bias is None else y + bias


def _centred(norm: Any, x: Tensor) -> Tensor:
    return x - x.mean(-1, keepdim=True) if isinstance(norm, nn.LayerNorm) else x
