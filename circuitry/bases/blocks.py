"""Transformer blocks taken apart by their own modules: attention heads and MLP neurons.

Every block adds two things to the residual stream x [batch, position, d_model]:

    q, k, v = attention's projections of norm(x), split into heads [batch, position, head, d_head]
    z       = softmax(scores(q, k)) v                                        what a head reads off the other positions
    x       = x + attention_out(z)
    post    = activation(pre),  pre = mlp_in(norm(x))                        the neurons
    x       = x + mlp_out(post)

A new kind of block is one function that returns these steps as a `Block`; names follow TransformerLens. Kinds of
attention are in `attention_kinds`, of MLPs in `mlp_kinds`. Blocks that norm behind attention and MLP instead of before
them have no norms in front, and add what the norms make of it.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from open_clip.transformer import CustomResidualAttentionBlock, ResidualAttentionBlock
from timm.models.eva import EvaBlock, EvaBlockPostNorm
from timm.models.vision_transformer import Block as TimmBlock
from timm.models.vision_transformer import ResPostBlock
from timm.models.vision_transformer_relpos import RelPosBlock, ResPostRelPosBlock
from torch import Tensor, nn
from torchvision.models.vision_transformer import EncoderBlock

from circuitry.bases.attention_kinds import AttentionParts, attention_parts
from circuitry.bases.mlp_kinds import MlpParts, mlp_parts
from circuitry.encoder.narrowing import in_order
from circuitry.encoder.stages import PlacedBlock, nowhere
from circuitry.encoder.transformers_towers import found_by_role
from circuitry.encoder.unit_kinds import NEURON, UnitKind
from circuitry.runs.errors import InputError

POST_NORM = (ResPostBlock, EvaBlockPostNorm, ResPostRelPosBlock)
TIMM_BLOCKS = (TimmBlock, EvaBlock, RelPosBlock, *POST_NORM)
TRANSFORMERS_BLOCKS = (
    "CLIPEncoderLayer",
    "SiglipEncoderLayer",
    "Dinov2Layer",
    "Dinov2WithRegistersLayer",
    "DINOv3ViTLayer",
    "ViTLayer",
)
"""By name: importing transformers' models takes seconds."""
SUPPORTED_BLOCKS = (
    "open_clip's ResidualAttentionBlock and CustomResidualAttentionBlock",
    f"timm's {', '.join(kind.__name__ for kind in TIMM_BLOCKS)}",
    "torchvision's EncoderBlock",
    f"transformers' {', '.join(TRANSFORMERS_BLOCKS)}",
)
"""Kinds of blocks that can be taken apart, in words."""
_ATTENTION = ("attn", "self_attn", "attention", "self_attention")
_FIRST_NORM = ("norm1", "layer_norm1", "layernorm_before", "ln_1")
_SECOND_NORM = ("norm2", "layer_norm2", "layernorm_after", "ln_2")
_NOTHING = nn.Identity()


@dataclass(frozen=True)
class Block:
    """The steps of a transformer block, each by the block's own weights."""

    n_heads: int
    n_neurons: int
    width: int
    """d_model."""
    norm_attention: Callable[[Tensor], Tensor]
    """Residual stream -> what attention reads."""
    project: Callable[[Tensor], tuple[Tensor, Tensor, Tensor]]
    """What attention reads -> q, k, v of every head, before any norm or turn of q and k."""
    scores: Callable[[Tensor, Tensor], Tensor]
    """q, k -> attention scores [batch, head, query, key], before the softmax."""
    mix: Callable[[Tensor, Tensor, Tensor], Tensor]
    """q, k, v -> z, by the kernel that the block itself uses; `scores` and a softmax give the same up to rounding."""
    attention_out: Callable[[Tensor], Tensor]
    """z -> what attention adds to the residual stream."""
    norm_mlp: Callable[[Tensor], Tensor]
    """Residual stream -> what the MLP reads."""
    mlp_in: Callable[[Tensor], Tensor]
    """What the MLP reads -> the neurons' pre-activations [..., neurons]; of gated neurons [..., 2 neurons], one of the
    two that are multiplied behind the other."""
    activation: Callable[[Tensor], Tensor]
    """Pre-activations -> neurons."""
    mlp_out: Callable[[Tensor], Tensor]
    """Activations of the neurons -> what the MLP adds to the residual stream."""
    linear: bool
    """Whether heads and neurons add to the residual stream one by one: not so where a norm lies in between."""
    affine: bool = True
    """Whether ``mlp_in`` is affine: not so where neurons are latents and error of a dictionary; see `latent_basis`."""
    error_units: range = range(0)
    """Where neurons are latents of a dictionary: those behind the latents."""
    kind: UnitKind = NEURON
    """The kind of its neurons, which may be latents of a dictionary."""


def take_apart(block: nn.Module | PlacedBlock) -> Block:
    """Return the steps of a block in evaluation mode."""
    module: Any = block
    places = nowhere
    if isinstance(block, PlacedBlock):
        module = block.module
        places = block.places
    attn = None
    for name in reversed(_ATTENTION):
        attn = getattr(module, name, attn)
    mlp_module = getattr(module, "mlp", None)
    attention = attention_parts(attn, places)
    mlp = mlp_parts(mlp_module)
    if attention is not None and mlp is not None:
        if isinstance(module, ResidualAttentionBlock | CustomResidualAttentionBlock):
            norm = getattr(module, "ln_attn", _NOTHING)
            behind = in_order(norm, module.ls_1), module.ls_2
            return _block((module.ln_1, module.ln_2), attention, mlp, behind, norm)
        if isinstance(module, POST_NORM):
            behind = module.norm1, module.norm2
            return _block((_NOTHING, _NOTHING), attention, mlp, behind, module.norm1)
        named = type(module).__name__ in TRANSFORMERS_BLOCKS
        if named or isinstance(module, (*TIMM_BLOCKS, EncoderBlock)):
            _, first = found_by_role(module, "norm", *_FIRST_NORM)
            _, second = found_by_role(module, "norm", *_SECOND_NORM)
            behind = _scale(module, 1), _scale(module, 2)
            return _block((first, second), attention, mlp, behind, _NOTHING)
    inside = f"{type(attn).__name__} and {type(mlp_module).__name__}"
    raise InputError(
        f"Heads and neurons are known of {' and '.join(SUPPORTED_BLOCKS)}, but this tower has a "
        f"{type(module).__name__} with {inside}: use its residual stream, or add it to circuitry/bases/blocks.py."
    )


def _scale(block: Any, number: int) -> Callable[[Tensor], Tensor]:
    """Return the layer scale of a block, a module or a parameter, if there is one."""
    if getattr(block, f"gamma_{number}", None) is not None:
        return lambda x: getattr(block, f"gamma_{number}") * x
    module = getattr(block, f"layer_scale{number}", _NOTHING)
    return getattr(block, f"ls{number}", module)


def _block(
    norms: tuple[Callable[[Tensor], Tensor], Callable[[Tensor], Tensor]],
    attention: AttentionParts,
    mlp: MlpParts,
    behind: tuple[Callable[[Tensor], Tensor], Callable[[Tensor], Tensor]],
    norm_behind: nn.Module,
) -> Block:
    """Put a block together: norms before attention and MLP, and what both pass behind their output layers."""
    between = (*attention.norms, mlp.between, norm_behind)
    return Block(
        attention.n_heads,
        mlp.out.in_features,
        mlp.out.out_features,
        norms[0],
        attention.project,
        attention.scores,
        attention.mix,
        in_order(attention.out, behind[0]),
        in_order(norms[1], mlp.norm),
        mlp.into,
        mlp.activation,
        in_order(mlp.between, mlp.out, behind[1]),
        all(isinstance(norm, nn.Identity) for norm in between),
    )
