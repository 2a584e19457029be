"""Kinds of attention taken apart by their own modules, for `blocks`.

Queries and keys may be normed (q/k norm) and turned by their position (rotary embeddings) before they meet, scores may
have a bias by relative position or be scaled cosines; each head then mixes the values of the positions.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from einops import rearrange
from jaxtyping import Float
from open_clip.transformer import Attention as OpenClipAttention
from timm.layers import Attention, AttentionRope, apply_rot_embed_cat
from timm.models.eva import EvaAttention
from timm.models.vision_transformer_relpos import RelPosAttention
from torch import Tensor, nn

from circuitry.encoder.narrowing import in_order
from circuitry.encoder.stages import nowhere
from circuitry.encoder.transformers_towers import found_by_role, from_transformers
from circuitry.runs.errors import InputError

Heads = Float[Tensor, "batch position head d_head"]
Scores = Float[Tensor, "batch head query key"]
AddedByPlace = Callable[[], Any]
"""What the trunk tells a block of its positions; see `PlacedBlock`."""

TIMM_ATTENTION = (Attention, AttentionRope, EvaAttention, RelPosAttention)
"""The kinds of timm's that are known."""


@dataclass(frozen=True)
class AttentionParts:
    """The fields of `Block` that an attention module gives."""

    n_heads: int
    project: Callable[[Tensor], tuple[Tensor, Tensor, Tensor]]
    scores: Callable[[Tensor, Tensor], Tensor]
    mix: Callable[[Tensor, Tensor, Tensor], Tensor]
    out: Callable[[Tensor], Tensor]
    norms: tuple[nn.Module, ...] = ()
    """Norms between the heads and what they add to the residual stream."""


_AS_IT_IS = nn.Identity()


def attention_parts(attn: Any, places: AddedByPlace = nowhere) -> AttentionParts | None:
    """Return the parts of an attention module in evaluation mode; none of a kind that is not known."""
    if isinstance(attn, nn.MultiheadAttention | OpenClipAttention):
        return _together(attn)
    if isinstance(attn, TIMM_ATTENTION):
        return _timm(attn, places)
    return (
        _transformers(attn, places)
        if isinstance(attn, nn.Module) and from_transformers(attn)
        else None
    )


def _together(attn: Any) -> AttentionParts:
    """Return the parts of PyTorch's attention, or open_clip's, which may have norms and scales besides."""
    inner, q_norm, k_norm = (
        getattr(attn, name, _AS_IT_IS) for name in ("ln_inner", "ln_q", "ln_k")
    )

    def out(z: Tensor) -> Tensor:
        scale = getattr(attn, "head_scale", None)
        found: Tensor = attn.out_proj(
            inner(_joined(z if scale is None else z * scale.reshape(-1, 1)))
        )
        return found

    return AttentionParts(
        attn.num_heads,
        lambda x: _split(
            F.linear(x, attn.in_proj_weight, attn.in_proj_bias), attn.num_heads
        ),
        *(
            _dot_product(q_norm, k_norm)
            if getattr(attn, "logit_scale", None) is None
            else _cosine(attn)
        ),
        out,
        (inner,),
    )


def _transformers(attn: Any, places: AddedByPlace) -> AttentionParts:
    """Return the parts of an attention module of transformers by their roles, under either of their names."""
    inner = getattr(attn, "attention", attn)
    projections = [
        found_by_role(inner, f"{letter} projection", f"{letter}_proj", name)[1]
        for letter, name in zip("qkv", ("query", "key", "value"), strict=True)
    ]
    _, out = found_by_role(
        attn, "output layer of attention", "out_proj", "o_proj", "output.dense"
    )
    _, n_heads = found_by_role(
        inner, "number of heads", "num_heads", "num_attention_heads"
    )
    d_head = projections[0].out_features // n_heads
    _check_width(out.out_features, n_heads, d_head)
    turn = partial(_turned, places, True)
    return AttentionParts(
        n_heads,
        _apart(projections, d_head, n_heads),
        *_dot_product(turn, turn),
        in_order(_joined, out),
    )


def _timm(attn: Any, places: AddedByPlace) -> AttentionParts:
    if getattr(attn, "gate", None) is not None:
        raise InputError(
            "Heads behind a gate on attention are not known: use this tower's residual stream."
        )
    _check_width(attn.proj.out_features, attn.num_heads, attn.head_dim)
    norm = getattr(attn, "norm", nn.Identity())
    if isinstance(attn, RelPosAttention):
        kernel = _dot_product(
            attn.q_norm,
            attn.k_norm,
            places if attn.rel_pos is None else attn.rel_pos.get_bias,
        )
    else:
        turn = partial(_turned, places, getattr(attn, "rotate_half", False))
        kernel = _dot_product(in_order(attn.q_norm, turn), in_order(attn.k_norm, turn))
    return AttentionParts(
        attn.num_heads,
        _projection(attn),
        *kernel,
        in_order(_joined, norm, attn.proj),
        (norm,),
    )


def _projection(attn: Any) -> Callable[[Tensor], tuple[Tensor, Tensor, Tensor]]:
    """Return how a module of timm's projects: by one matrix or by three; fewer keys and values serve several heads."""
    if attn.qkv is None:
        return _apart(
            (attn.q_proj, attn.k_proj, attn.v_proj), attn.head_dim, attn.num_heads
        )
    if getattr(attn, "q_bias", None) is None:
        return lambda x: _split(attn.qkv(x), attn.num_heads)

    def biased(x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        bias = torch.cat(
            (attn.q_bias, attn.k_bias, attn.v_bias)
        )  # EVA's, which has none for keys
        return _split(F.linear(x, attn.qkv.weight, bias), attn.num_heads)

    return biased


def _apart(
    projections: Sequence[nn.Module], d_head: int, n_heads: int
) -> Callable[[Tensor], tuple[Tensor, Tensor, Tensor]]:
    """Return how a matrix each for q, k and v projects."""

    def apart(x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        found = [
            rearrange(
                proj(x), "batch position (head d) -> batch position head d", d=d_head
            )
            for proj in projections
        ]
        q, k, v = (one.repeat_interleave(n_heads // one.shape[2], 2) for one in found)
        return q, k, v

    return apart


def _check_width(width: int, n_heads: int, d_head: int) -> None:
    if d_head * n_heads != width:
        raise InputError(
            f"Heads are known that together are as wide as the residual stream ({width}), but this tower has "
            f"{n_heads} heads of {d_head}: use its residual stream."
        )


def _turned(places: AddedByPlace, half: bool, x: Heads) -> Heads:
    """Turn queries or keys by their position; the class token and registers stay unturned."""
    rotary = places()
    if rotary is None:
        return x
    if isinstance(rotary, tuple):  # cosines and sines of transformers
        rotary = torch.cat(rotary[::-1], -1)
    first, patches = x.transpose(1, 2).tensor_split([x.shape[1] - rotary.shape[-2]], 2)
    turned: Tensor = apply_rot_embed_cat(patches, rotary, half=half)
    return torch.cat([first, turned], 2).type_as(x).transpose(1, 2)


def _dot_product(
    q_way: Callable[[Tensor], Tensor] = _AS_IT_IS,
    k_way: Callable[[Tensor], Tensor] = _AS_IT_IS,
    bias: AddedByPlace = nowhere,
) -> tuple[
    Callable[[Tensor, Tensor], Scores], Callable[[Tensor, Tensor, Tensor], Heads]
]:
    """Return scores and mix of scaled dot products, of what queries and keys become on their ways.

    Norms act on [batch, head, position, d_head], too: their axis is the last.
    """

    def scores(q: Heads, k: Heads) -> Scores:
        scale: float = q.shape[-1] ** -0.5
        found, added = _dot(q_way(q), k_way(k)) * scale, bias()
        return found if added is None else found + added

    def mix(q: Heads, k: Heads, v: Heads) -> Heads:
        q, k, v = (x.transpose(1, 2) for x in (q_way(q), k_way(k), v))
        return F.scaled_dot_product_attention(q, k, v, attn_mask=bias()).transpose(1, 2)

    return scores, mix


def _cosine(
    attn: Any,
) -> tuple[
    Callable[[Tensor, Tensor], Scores], Callable[[Tensor, Tensor, Tensor], Heads]
]:
    """Return scores and mix of scaled cosine attention (Swin v2, arXiv 2111.09883)."""

    def scores(q: Heads, k: Heads) -> Scores:
        scale: Tensor = torch.clamp(attn.logit_scale, max=attn.logit_scale_max).exp()
        return _dot(F.normalize(q, dim=-1), F.normalize(k, dim=-1)) * scale

    return scores, lambda q, k, v: mix_by_pattern(scores(q, k).softmax(-1), v)


def mix_by_pattern(pattern: Scores, v: Heads) -> Heads:
    """Return z [batch, position, head, d_head] of an attention pattern."""
    return torch.einsum("bhqk,bkhd->bqhd", pattern, v)


def _split(
    qkv: Float[Tensor, "batch position three_d_model"], n_heads: int
) -> tuple[Heads, Heads, Heads]:
    q, k, v = rearrange(
        qkv,
        "batch position (which head d) -> which batch position head d",
        which=3,
        head=n_heads,
    )
    return q, k, v


def _joined(z: Heads) -> Float[Tensor, "batch position d_model"]:
    return rearrange(z, "batch position head d -> batch position (head d)")


def _dot(q: Heads, k: Heads) -> Scores:
    return torch.einsum("bqhd,bkhd->bhqk", q, k)
