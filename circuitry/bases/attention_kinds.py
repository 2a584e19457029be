"""Divide attention modules of several libraries into steps, for `blocks`.

Queries and keys may be normed (q/k norm) and rotated by their position (rotary embeddings) before their product is
taken. The product may get a bias that depends on the relative position, or the scores may be scaled cosines. Each head
then mixes the values of all positions by the softmax of its scores.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Float
from open_clip.transformer import Attention as OpenClipAttention
from timm.layers import Attention, AttentionRope, apply_rot_embed_cat
from timm.models.eva import EvaAttention
from timm.models.vision_transformer_relpos import RelPosAttention
from torch import Tensor, nn

from circuitry.encoder.narrowing import in_order
from circuitry.encoder.stages import nowhere
from circuitry.encoder.transformers_towers import from_transformers, member_by_role
from circuitry.runs.errors import InputError

Heads = Float[Tensor, "batch position head d_head"]
Scores = Float[Tensor, "batch head query key"]
AddedByPlace = Callable[[], Any]
"""Function without arguments that returns rotary embeddings, a bias of the scores, or None.

See `PlacedBlock.places`.
"""

TIMM_ATTENTION = (Attention, AttentionRope, EvaAttention, RelPosAttention)
"""timm's classes of attention that can be divided into steps."""


@dataclass(frozen=True)
class AttentionLayers:
    """The fields of a `Block` that its attention module determines."""

    n_heads: int
    project: Callable[[Tensor], tuple[Tensor, Tensor, Tensor]]
    scores: Callable[[Tensor, Tensor], Tensor]
    mix: Callable[[Tensor, Tensor, Tensor], Tensor]
    out: Callable[[Tensor], Tensor]
    norms: tuple[nn.Module, ...] = ()
    """Norms between the heads and their addition to the residual stream, or identities in their place.

    If there is such a norm, the heads do not add to the stream independently of each other.
    """


class Mixing(NamedTuple):
    """How queries and keys become scores, and how heads mix the values by these scores."""

    scores: Callable[[Tensor, Tensor], Tensor]
    """Function of q and k that returns the scores before the softmax."""
    mix: Callable[[Tensor, Tensor, Tensor], Tensor]
    """Function of q, k and v that returns z."""


_AS_IT_IS = nn.Identity()


def attention_layers(
    attn: Any, places: AddedByPlace = nowhere
) -> AttentionLayers | None:
    """Return the layers of an attention module in evaluation mode, or None if its kind is unknown.

    Args:
        attn: The attention module.
        places: Function that returns the second argument of the attention module: rotary embeddings, a bias of the
            attention scores, or None. It is ignored for the attention of PyTorch and open_clip.
    """
    if isinstance(attn, nn.MultiheadAttention | OpenClipAttention):
        return _together(attn)
    if isinstance(attn, TIMM_ATTENTION):
        return _timm(attn, places)
    if isinstance(attn, nn.Module) and from_transformers(attn):
        return _transformers(attn, places)
    return None


def _together(attn: Any) -> AttentionLayers:
    """Return the layers of an attention module of PyTorch or open_clip.

    Unlike PyTorch's module, the module of open_clip may have norms, a scale for each head, and cosine attention.
    """
    inner = getattr(attn, "ln_inner", _AS_IT_IS)

    def project(x: Tensor) -> tuple[Heads, Heads, Heads]:
        # One matrix [3 d_model, d_model] makes q, k and v.
        qkv = F.linear(x, attn.in_proj_weight, attn.in_proj_bias)
        return _split(qkv, attn.num_heads)

    def out(z: Tensor) -> Tensor:
        scale = getattr(attn, "head_scale", None)
        if scale is not None:
            z = z * scale.reshape(-1, 1)
        written: Tensor = attn.out_proj(inner(_joined(z)))
        return written

    if getattr(attn, "logit_scale", None) is None:
        q_norm = getattr(attn, "ln_q", _AS_IT_IS)
        k_norm = getattr(attn, "ln_k", _AS_IT_IS)
        mixing = _dot_product(q_norm, k_norm)
    else:
        mixing = _cosine(attn)
    return AttentionLayers(attn.num_heads, project, *mixing, out, (inner,))


def _transformers(attn: Any, places: AddedByPlace) -> AttentionLayers:
    """Return the layers of an attention module of the library transformers.

    The names of its submodules differ between models and versions.
    """
    # Some models wrap the projections in an inner module and keep the output layer outside of it.
    inner = getattr(attn, "attention", attn)
    q = member_by_role(inner, "q projection", "q_proj", "query")
    k = member_by_role(inner, "k projection", "k_proj", "key")
    v = member_by_role(inner, "v projection", "v_proj", "value")
    out = member_by_role(
        attn, "output layer of attention", "out_proj", "o_proj", "output.dense"
    )
    n_heads = member_by_role(
        inner, "number of heads", "num_heads", "num_attention_heads"
    )
    d_head = q.out_features // n_heads
    _check_width(out.out_features, n_heads, d_head)
    project = _apart((q, k, v), d_head, n_heads)
    turn = partial(_turned, places, True)
    mixing = _dot_product(turn, turn)
    return AttentionLayers(n_heads, project, *mixing, in_order(_joined, out))


def _timm(attn: Any, places: AddedByPlace) -> AttentionLayers:
    """Return the layers of an attention module of timm."""
    if getattr(attn, "gate", None) is not None:
        raise InputError(
            "Heads behind a gate on attention are not known: use this tower's residual stream."
        )
    _check_width(attn.proj.out_features, attn.num_heads, attn.head_dim)
    norm = getattr(attn, "norm", nn.Identity())
    if isinstance(attn, RelPosAttention):
        bias = places if attn.rel_pos is None else attn.rel_pos.get_bias
        mixing = _dot_product(attn.q_norm, attn.k_norm, bias)
    else:
        turn = partial(_turned, places, getattr(attn, "rotate_half", False))
        to_q = in_order(attn.q_norm, turn)
        mixing = _dot_product(to_q, in_order(attn.k_norm, turn))
    out = in_order(_joined, norm, attn.proj)
    return AttentionLayers(attn.num_heads, _projection(attn), *mixing, out, (norm,))


def _projection(attn: Any) -> Callable[[Tensor], tuple[Tensor, Tensor, Tensor]]:
    """Return a function that computes q, k and v from the input of timm's attention.

    One matrix computes all three, or each has a matrix of its own.
    """
    if attn.qkv is None:
        layers = (attn.q_proj, attn.k_proj, attn.v_proj)
        return _apart(layers, attn.head_dim, attn.num_heads)
    if getattr(attn, "q_bias", None) is None:
        return lambda x: _split(attn.qkv(x), attn.num_heads)

    def biased(x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        # EVA's matrix has no bias. EVA learns biases for q and v only, so k_bias is a buffer of zeros.
        bias = torch.cat((attn.q_bias, attn.k_bias, attn.v_bias))
        return _split(F.linear(x, attn.qkv.weight, bias), attn.num_heads)

    return biased


def _apart(
    projections: Sequence[nn.Module], d_head: int, n_heads: int
) -> Callable[[Tensor], tuple[Tensor, Tensor, Tensor]]:
    """Return a function that computes q, k and v from the input of attention.

    Args:
        projections: The projections of q, k and v, in this order.
        d_head: Width of a head.
        n_heads: Number of heads of queries. If the projections of k and v have fewer heads, these are repeated.
    """

    def heads(projection: nn.Module, x: Tensor) -> Tensor:
        # With grouped queries, several heads of queries share one head of keys and values, which is repeated for them.
        own = torch.unflatten(projection(x), -1, (-1, d_head))
        return own.repeat_interleave(n_heads // own.shape[2], 2)

    q, k, v = projections
    return lambda x: (heads(q, x), heads(k, x), heads(v, x))


def _check_width(width: int, n_heads: int, d_head: int) -> None:
    if d_head * n_heads != width:
        raise InputError(
            f"Heads are known that together are as wide as the residual stream ({width}), but this tower has "
            f"{n_heads} heads of {d_head}: use its residual stream."
        )


def _turned(places: AddedByPlace, half: bool, x: Heads) -> Heads:
    """Return queries or keys after their rotation by position.

    The class token and registers are not rotated. Without rotary embeddings, ``x`` is returned.

    Args:
        places: Function that returns the rotary embeddings, or None.
        half: True if the first half of a head is paired with the second half, False if neighbouring entries are paired.
        x: Queries or keys.
    """
    rotary = places()
    if rotary is None:
        return x
    # transformers gives (cosines, sines). timm's function takes one tensor with the sines first.
    if isinstance(rotary, tuple):
        rotary = torch.cat(rotary[::-1], -1)
    # The first positions have no rotary embedding: they are the class token and registers.
    first, patches = x.transpose(1, 2).tensor_split([x.shape[1] - rotary.shape[-2]], 2)
    turned: Tensor = apply_rot_embed_cat(patches, rotary, half=half)
    return torch.cat([first, turned], 2).type_as(x).transpose(1, 2)


def _dot_product(
    q_way: Callable[[Tensor], Tensor] = _AS_IT_IS,
    k_way: Callable[[Tensor], Tensor] = _AS_IT_IS,
    bias: AddedByPlace = nowhere,
) -> Mixing:
    """Return how scaled dot-product attention computes the scores and mixes the values.

    Args:
        q_way: Step applied to the queries before the product, such as a norm or a rotation.
        k_way: Step applied to the keys before the product.
        bias: Function that returns a bias, which is added to the scores, or None.
    """

    def scores(q: Heads, k: Heads) -> Scores:
        scale: float = q.shape[-1] ** -0.5
        products = _dot(q_way(q), k_way(k)) * scale
        added = bias()
        if added is not None:
            products = products + added
        return products

    def mix(q: Heads, k: Heads, v: Heads) -> Heads:
        q = q_way(q).transpose(1, 2)
        k = k_way(k).transpose(1, 2)
        # The blocks use this fused kernel, too. So z equals theirs to the last bit, and no scores are held in memory.
        z = F.scaled_dot_product_attention(q, k, v.transpose(1, 2), attn_mask=bias())
        return z.transpose(1, 2)

    return Mixing(scores, mix)


def _cosine(attn: Any) -> Mixing:
    """Return how scaled cosine attention (Swin v2, arXiv 2111.09883) computes the scores and mixes the values."""

    def scores(q: Heads, k: Heads) -> Scores:
        # The module learns the logarithm of the scale. The logarithm has an upper limit.
        scale: Tensor = torch.clamp(attn.logit_scale, max=attn.logit_scale_max).exp()
        return _dot(F.normalize(q, dim=-1), F.normalize(k, dim=-1)) * scale

    def mix(q: Heads, k: Heads, v: Heads) -> Heads:
        return mix_by_pattern(scores(q, k).softmax(-1), v)

    return Mixing(scores, mix)


def mix_by_pattern(pattern: Scores, v: Heads) -> Heads:
    """Return z [batch, position, head, d_head]: the values mixed by an attention pattern (scores after the softmax)."""
    return torch.einsum("bhqk,bkhd->bqhd", pattern, v)


def _split(
    qkv: Float[Tensor, "batch position three_d_model"], n_heads: int
) -> tuple[Heads, Heads, Heads]:
    q, k, v = torch.unflatten(qkv, -1, (3, n_heads, -1)).unbind(2)
    return q, k, v


def _joined(z: Heads) -> Float[Tensor, "batch position d_model"]:
    return z.flatten(2)


def _dot(q: Heads, k: Heads) -> Scores:
    return torch.einsum("bqhd,bkhd->bhqk", q, k)
