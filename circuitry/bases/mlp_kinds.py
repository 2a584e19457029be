"""Divide MLPs of several libraries into steps, for `blocks`."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from timm.layers import GluMlp, Mlp, SwiGLU
from timm.models.vitamin import GeGluMlp
from torch import Tensor, nn
from torchvision.ops import MLP as TorchvisionMlp  # noqa: N811

from circuitry.encoder.transformers_towers import from_transformers, member_by_role

_NOTHING = nn.Identity()
_OPEN_CLIP = ("c_fc", "gelu", "c_proj")
"""Names of the steps of open_clip's MLP."""


@dataclass(frozen=True)
class MlpLayers:
    """The fields of a `Block` that its MLP determines."""

    into: Callable[[Tensor], Tensor]
    activation: Callable[[Tensor], Tensor]
    between: nn.Module
    """Norm between the neurons and the output layer, or the identity."""
    out: Any
    """The output layer."""
    norm: Callable[[Tensor], Tensor] = _NOTHING
    """Norm inside the MLP before the neurons."""


def mlp_layers(mlp: Any) -> MlpLayers | None:
    """Return the layers of an MLP in evaluation mode; None for an unknown kind."""
    # Dropout does nothing in evaluation mode and is left out of every kind.
    if isinstance(mlp, TorchvisionMlp):
        layer_in, act, _, layer_out, _ = mlp
        return MlpLayers(layer_in, act, _NOTHING, layer_out)
    if isinstance(mlp, nn.Sequential) and all(hasattr(mlp, n) for n in _OPEN_CLIP):
        steps: Any = mlp
        norm = getattr(mlp, "ln", _NOTHING)
        return MlpLayers(steps.c_fc, steps.gelu, norm, steps.c_proj)
    if isinstance(mlp, Mlp):
        return MlpLayers(mlp.fc1, mlp.act, mlp.norm, mlp.fc2)
    if isinstance(mlp, GluMlp):
        return MlpLayers(mlp.fc1, _gated(mlp.act, mlp.gate_last), mlp.norm, mlp.fc2)
    if isinstance(mlp, SwiGLU):
        # The gate first: `_gated` applies the activation to the first half.
        both = _side_by_side(mlp.fc1_g, mlp.fc1_x)
        return MlpLayers(both, _gated(mlp.act), mlp.norm, mlp.fc2)
    if isinstance(mlp, GeGluMlp):
        both = _side_by_side(mlp.w0, mlp.w1)
        return MlpLayers(both, _gated(mlp.act), _NOTHING, mlp.w2, mlp.norm)
    if isinstance(mlp, nn.Module) and from_transformers(mlp):
        return _of_transformers(mlp)
    return None


def _of_transformers(mlp: Any) -> MlpLayers:
    """Return the layers of an MLP of transformers, whose names differ between models and versions."""
    out = member_by_role(
        mlp, "output layer of the MLP", "fc2", "down_proj", "weights_out"
    )
    # DINOv2's SwiGLU has one matrix for both halves, DINOv3's has two.
    if hasattr(mlp, "weights_in"):
        return MlpLayers(mlp.weights_in, _gated(nn.SiLU()), _NOTHING, out)
    act = member_by_role(
        mlp, "activation of the MLP", "activation_fn", "act_fn", "activation"
    )
    into = member_by_role(mlp, "first layer of the MLP", "fc1", "up_proj")
    if hasattr(mlp, "gate_proj"):
        return MlpLayers(_side_by_side(mlp.gate_proj, into), _gated(act), _NOTHING, out)
    return MlpLayers(into, act, _NOTHING, out)


def _side_by_side(*layers: nn.Module) -> Callable[[Tensor], Tensor]:
    return lambda x: torch.cat([layer(x) for layer in layers], -1)


def _gated(act: nn.Module, gate_last: bool = False) -> Callable[[Tensor], Tensor]:
    """Return the activation of gated neurons: the product of one half and the activated other half."""

    def gated(pre: Tensor) -> Tensor:
        first, second = pre.chunk(2, -1)
        neurons: Tensor = first * act(second) if gate_last else act(first) * second
        return neurons

    return gated
