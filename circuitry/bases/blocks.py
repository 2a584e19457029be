"""Divide a transformer block into steps, so that its attention heads and MLP neurons can be read.

Each step runs modules of the block. The attention and the MLP of a block each add to the residual stream x
[batch, position, d_model]:

    q, k, v = projections of norm(x) by attention, split into heads [batch, position, head, d_head]
    z       = softmax(scores(q, k)) v                        values of the positions, mixed by each head
    x       = x + attention_out(z)
    post    = activation(pre) with pre = mlp_in(norm(x))     activations of the neurons
    x       = x + mlp_out(post)

Names follow TransformerLens. `attention_kinds` divides attention, and `mlp_kinds` divides MLPs. A block may have its
norms after attention and MLP instead of before them. Then ``norm(x)`` is x, and the norms are the last steps of
``attention_out`` and ``mlp_out``.

To support a new kind of block, add a function that returns these steps as a `Block`.
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

from circuitry.bases.attention_kinds import AttentionLayers, attention_layers
from circuitry.bases.mlp_kinds import MlpLayers, mlp_layers
from circuitry.encoder.narrowing import in_order
from circuitry.encoder.stages import PlacedBlock, nowhere
from circuitry.encoder.transformers_towers import member_by_role
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
"""Names of the classes of blocks in the library transformers.

The classes themselves are not listed here, because importing them takes seconds.
"""
SUPPORTED_BLOCKS = (
    "open_clip's ResidualAttentionBlock and CustomResidualAttentionBlock",
    f"timm's {', '.join(kind.__name__ for kind in TIMM_BLOCKS)}",
    "torchvision's EncoderBlock",
    f"transformers' {', '.join(TRANSFORMERS_BLOCKS)}",
)
"""Kinds of blocks that can be divided, as error messages list them."""
_ATTENTION = ("attn", "self_attn", "attention", "self_attention")
_FIRST_NORM = ("norm1", "layer_norm1", "layernorm_before", "ln_1")
_SECOND_NORM = ("norm2", "layer_norm2", "layernorm_after", "ln_2")
_NOTHING = nn.Identity()


@dataclass(frozen=True)
class Block:
    """The steps of a transformer block; each step runs the block's own modules."""

    n_heads: int
    n_neurons: int
    width: int
    """Width of the residual stream (d_model)."""
    norm_attention: Callable[[Tensor], Tensor]
    """Step from the residual stream to the input of attention."""
    project: Callable[[Tensor], tuple[Tensor, Tensor, Tensor]]
    """Step from the input of attention to q, k, v of every head, before q and k are normed or rotated."""
    scores: Callable[[Tensor, Tensor], Tensor]
    """Step from q and k to the attention scores [batch, head, query, key], before the softmax."""
    mix: Callable[[Tensor, Tensor, Tensor], Tensor]
    """Step from q, k and v to z. It runs the kernel that the block uses.

    Mixing v by the softmax of `scores` gives the same z up to rounding.
    """
    attention_out: Callable[[Tensor], Tensor]
    """Step from z to what attention adds to the residual stream."""
    norm_mlp: Callable[[Tensor], Tensor]
    """Step from the residual stream to the input of the MLP."""
    mlp_in: Callable[[Tensor], Tensor]
    """Step from the input of the MLP to the pre-activations of the neurons [..., neurons].

    A gated neuron has two pre-activations: its activation is the product of one of them and a nonlinear function of
    the other one. Then the shape is [..., 2 neurons]: the first pre-activation of every neuron, then the second
    pre-activation of every neuron.
    """
    activation: Callable[[Tensor], Tensor]
    """Step from the pre-activations to the activations of the neurons."""
    mlp_out: Callable[[Tensor], Tensor]
    """Step from the activations of the neurons to what the MLP adds to the residual stream."""
    linear: bool
    """Whether each head and neuron adds to the residual stream independently of all other heads and neurons.

    It is False if there is a norm between the heads or neurons and the stream.
    """
    affine: bool = True
    """Whether ``mlp_in`` is an affine map.

    It is not affine if the neurons are replaced by the latents of an autoencoder or transcoder; see `latent_basis`.
    """
    error_units: range = range(0)
    """Indices of the error units, which follow the latents.

    The range is empty unless the neurons are replaced by the latents of an autoencoder or transcoder.
    """
    kind: UnitKind = NEURON
    """Kind of the neurons, or of the latents that replace them."""


def take_apart(block: nn.Module | PlacedBlock) -> Block:
    """Return the steps of a block in evaluation mode.

    Raises:
        InputError: if the kind of the block, of its attention or of its MLP is unknown.
    """
    module: Any = block
    places = nowhere
    if isinstance(block, PlacedBlock):
        module = block.module
        places = block.places
    # Reversed, so that the first name of the list wins where a block has several.
    attn = None
    for name in reversed(_ATTENTION):
        attn = getattr(module, name, attn)
    mlp_module = getattr(module, "mlp", None)
    attention = attention_layers(attn, places)
    mlp = mlp_layers(mlp_module)
    if attention is not None and mlp is not None:
        if isinstance(module, ResidualAttentionBlock | CustomResidualAttentionBlock):
            norm = getattr(module, "ln_attn", _NOTHING)
            # open_clip's custom block has norms both before and after attention. `ls_1` and `ls_2` are layer scales.
            behind: tuple[Callable[[Tensor], Tensor], Callable[[Tensor], Tensor]]
            behind = in_order(norm, module.ls_1), module.ls_2
            return _block((module.ln_1, module.ln_2), attention, mlp, behind, norm)
        if isinstance(module, POST_NORM):
            behind = module.norm1, module.norm2
            return _block((_NOTHING, _NOTHING), attention, mlp, behind, module.norm1)
        named = type(module).__name__ in TRANSFORMERS_BLOCKS
        if named or isinstance(module, (*TIMM_BLOCKS, EncoderBlock)):
            first = member_by_role(module, "norm", *_FIRST_NORM)
            second = member_by_role(module, "norm", *_SECOND_NORM)
            behind = _scale(module, 1), _scale(module, 2)
            return _block((first, second), attention, mlp, behind, _NOTHING)
    inside = f"{type(attn).__name__} and {type(mlp_module).__name__}"
    raise InputError(
        f"Heads and neurons are known of {' and '.join(SUPPORTED_BLOCKS)}, but this tower has a "
        f"{type(module).__name__} with {inside}: use its residual stream, or add it to circuitry/bases/blocks.py."
    )


def _scale(block: Any, number: int) -> Callable[[Tensor], Tensor]:
    """Return the layer scale of a block as a step, or the identity if the block has no layer scale.

    Args:
        block: The block. Its layer scale is a parameter or a module.
        number: 1 for the layer scale of attention, 2 for the layer scale of the MLP.
    """
    # The parameter is read in each run, since the weights may be replaced between runs.
    if getattr(block, f"gamma_{number}", None) is not None:
        return lambda x: getattr(block, f"gamma_{number}") * x
    module = getattr(block, f"layer_scale{number}", _NOTHING)
    return getattr(block, f"ls{number}", module)


def _block(
    norms: tuple[Callable[[Tensor], Tensor], Callable[[Tensor], Tensor]],
    attention: AttentionLayers,
    mlp: MlpLayers,
    behind: tuple[Callable[[Tensor], Tensor], Callable[[Tensor], Tensor]],
    norm_behind: nn.Module,
) -> Block:
    """Return the `Block` of these layers.

    Args:
        norms: Norms before attention and before the MLP.
        attention: Layers of the attention.
        mlp: Layers of the MLP.
        behind: The step after the output layer of attention, and the step after the output layer of the MLP. Such a
            step is a norm, a layer scale, both, or the identity.
        norm_behind: The norm after attention that ``behind`` contains, or the identity if there is no such norm.
    """
    between = (*attention.norms, mlp.between, norm_behind)
    # A layer scale is linear. So heads and neurons add to the stream independently unless there is a norm.
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
