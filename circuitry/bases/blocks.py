"""Divide transformer blocks into steps that run the block's own modules: attention heads and MLP neurons.

Attention and MLP of a block each add to the residual stream x [batch, position, d_model]:

    q, k, v = attention's projections of norm(x), split into heads [batch, position, head, d_head]
    z       = softmax(scores(q, k)) v                                        values of other positions, mixed by a head
    x       = x + attention_out(z)
    post    = activation(pre),  pre = mlp_in(norm(x))                        activations of the neurons
    x       = x + mlp_out(post)

To support a new kind of block, add a function that returns these steps as a `Block`; names follow TransformerLens.
`attention_kinds` divides attention, `mlp_kinds` divides MLPs. In a block with norms behind attention and MLP instead
of before them, ``norm(x)`` is x, and the norms are the last steps of ``attention_out`` and ``mlp_out``.
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
"""Names of transformers' classes of blocks; names, since importing the classes takes seconds."""
SUPPORTED_BLOCKS = (
    "open_clip's ResidualAttentionBlock and CustomResidualAttentionBlock",
    f"timm's {', '.join(kind.__name__ for kind in TIMM_BLOCKS)}",
    "torchvision's EncoderBlock",
    f"transformers' {', '.join(TRANSFORMERS_BLOCKS)}",
)
"""Kinds of blocks that can be divided, for messages."""
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
    """Step from the input of attention to q, k, v of every head, before any norm or turn of q and k."""
    scores: Callable[[Tensor, Tensor], Tensor]
    """Step from q and k to the attention scores [batch, head, query, key], before the softmax."""
    mix: Callable[[Tensor, Tensor, Tensor], Tensor]
    """Step from q, k and v to z by the kernel that the block uses; `scores` and a softmax agree up to rounding."""
    attention_out: Callable[[Tensor], Tensor]
    """Step from z to the addition of attention to the residual stream."""
    norm_mlp: Callable[[Tensor], Tensor]
    """Step from the residual stream to the input of the MLP."""
    mlp_in: Callable[[Tensor], Tensor]
    """Step from the input of the MLP to the neurons' pre-activations [..., neurons]. A gated neuron has two numbers,
    which are multiplied: [..., 2 neurons], all first numbers, then all second ones."""
    activation: Callable[[Tensor], Tensor]
    """Step from the pre-activations to the activations of the neurons."""
    mlp_out: Callable[[Tensor], Tensor]
    """Step from the activations of the neurons to the addition of the MLP to the residual stream."""
    linear: bool
    """Whether each head and neuron adds to the residual stream independently of the others; a norm behind them makes it
    False."""
    affine: bool = True
    """Whether ``mlp_in`` is affine; it is not if the neurons are latents of a dictionary, see `latent_basis`."""
    error_units: range = range(0)
    """If the neurons are latents of a dictionary: the units behind the latents."""
    kind: UnitKind = NEURON
    """Kind of the neurons, which may be latents of a dictionary."""


def take_apart(block: nn.Module | PlacedBlock) -> Block:
    """Return the steps of a block in evaluation mode."""
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
            # open_clip's custom block norms behind attention as well as before; `ls` are layer scales.
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
    """Return the step of a block's layer scale, which may be a parameter or a module; the identity if there is none."""
    # The parameter is read in each run, since the weights may have been replaced by then.
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
        behind: Steps behind the output layers of attention and of the MLP.
        norm_behind: The norm among ``behind``, or the identity.
    """
    between = (*attention.norms, mlp.between, norm_behind)
    # A layer scale is linear, so only norms keep heads and neurons from adding up.
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
