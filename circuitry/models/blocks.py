"""Transformer blocks taken apart by their own modules: attention heads and MLP neurons.

Every block adds two things to the residual stream x [batch, position, d_model]:

    q, k, v = attention's projections of norm(x), split into heads [batch, position, head, d_head]
    z       = softmax(scores(q, k)) v                                        what a head reads off the other positions
    x       = x + attention_out(z)
    post    = activation(pre),  pre = mlp_in(norm(x))                        the neurons
    x       = x + mlp_out(post)

A new kind of block is one function that returns these steps as a `Block`; names are those of TransformerLens.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from einops import rearrange
from jaxtyping import Float
from open_clip.transformer import Attention as OpenClipAttention
from open_clip.transformer import CustomResidualAttentionBlock, ResidualAttentionBlock
from timm.layers import Attention as TimmAttention
from timm.layers import Mlp
from timm.models.vision_transformer import Block as TimmBlock
from torch import Tensor, nn

from circuitry.models.narrowing import in_order
from circuitry.runs.errors import InputError

Heads = Float[Tensor, "batch position head d_head"]
Stream = Float[Tensor, "batch position d_model"]

SUPPORTED = ("open_clip's ResidualAttentionBlock and CustomResidualAttentionBlock", "timm's Block")
"""Kinds of blocks that can be taken apart, in words."""


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
    """What attention reads -> q, k, v of every head, before any norm of q and k."""
    scores: Callable[[Tensor, Tensor], Tensor]
    """q, k -> attention scores [batch, head, query, key], before the softmax."""
    mix: Callable[[Tensor, Tensor, Tensor], Tensor]
    """q, k, v -> z, by the kernel that the block itself uses; `scores` and a softmax give the same but for rounding."""
    attention_out: Callable[[Tensor], Tensor]
    """z -> what attention adds to the residual stream."""
    norm_mlp: Callable[[Tensor], Tensor]
    """Residual stream -> what the MLP reads."""
    mlp_in: Callable[[Tensor], Tensor]
    """What the MLP reads -> the neurons' pre-activations."""
    activation: Callable[[Tensor], Tensor]
    mlp_out: Callable[[Tensor], Tensor]
    """Activations of the neurons -> what the MLP adds to the residual stream."""
    linear: bool
    """Whether heads and neurons add to the residual stream one by one: not so where a norm lies in between."""


def take_apart(block: nn.Module) -> Block:
    """Return the steps of a block in evaluation mode.

    Raises:
        InputError: for a kind of block that is not known, or one with a gate on attention.
    """
    if isinstance(block, ResidualAttentionBlock):
        return _open_clip_block(block, _multihead(block.attn), block.ls_1)
    if isinstance(block, CustomResidualAttentionBlock):
        return _open_clip_block(block, _open_clip_attention(block.attn), in_order(block.ln_attn, block.ls_1))
    if isinstance(block, TimmBlock) and isinstance(block.attn, TimmAttention) and isinstance(block.mlp, Mlp):
        return _timm_block(block)
    raise InputError(
        f"Heads and neurons are known of {' and '.join(SUPPORTED)}, but this tower has a {type(block).__name__} with "
        f"{type(getattr(block, 'attn', None)).__name__}: use its residual stream, or add it to "
        "circuitry/models/blocks.py."
    )


@dataclass(frozen=True)
class _AttentionParts:
    """Of an attention module: the fields of `Block` that are its own."""

    n_heads: int
    project: Callable[[Tensor], tuple[Tensor, Tensor, Tensor]]
    scores: Callable[[Tensor, Tensor], Tensor]
    mix: Callable[[Tensor, Tensor, Tensor], Tensor]
    out: Callable[[Tensor], Tensor]
    norms: tuple[nn.Module, ...] = ()
    """Norms between the heads and what they add to the residual stream."""


def _open_clip_block(block: Any, attention: _AttentionParts, scale: Callable[[Tensor], Tensor]) -> Block:
    mlp = block.mlp
    n_neurons, width = mlp.c_fc.weight.shape
    between = [mlp.ln] if hasattr(mlp, "ln") else []
    return Block(
        attention.n_heads,
        n_neurons,
        width,
        block.ln_1,
        attention.project,
        attention.scores,
        attention.mix,
        in_order(attention.out, scale),
        block.ln_2,
        mlp.c_fc,
        mlp.gelu,
        in_order(*between, mlp.c_proj, block.ls_2),
        _none_but_identity(*attention.norms, getattr(block, "ln_attn", None), *between),
    )


def _timm_block(block: Any) -> Block:
    attention = _timm_attention(block.attn)
    mlp = block.mlp
    n_neurons, width = mlp.fc1.weight.shape
    return Block(
        attention.n_heads,
        n_neurons,
        width,
        block.norm1,
        attention.project,
        attention.scores,
        attention.mix,
        in_order(attention.out, block.ls1),
        block.norm2,
        mlp.fc1,
        mlp.act,
        in_order(mlp.norm, mlp.fc2, block.ls2),
        _none_but_identity(*attention.norms, mlp.norm),
    )


def _none_but_identity(*norms: nn.Module | None) -> bool:
    return all(norm is None or isinstance(norm, nn.Identity) for norm in norms)


def _multihead(attn: nn.MultiheadAttention) -> _AttentionParts:
    return _AttentionParts(
        attn.num_heads,
        lambda x: _split(F.linear(x, attn.in_proj_weight, attn.in_proj_bias), attn.num_heads),
        lambda q, k: _dot(q, k) * q.shape[-1] ** -0.5,
        _attend,
        in_order(_joined, attn.out_proj),
    )


def _open_clip_attention(attn: OpenClipAttention) -> _AttentionParts:
    if attn.logit_scale is not None:
        raise InputError("Heads of scaled cosine attention are not known: use this tower's residual stream.")

    def normed(q: Tensor, k: Tensor) -> tuple[Tensor, Tensor]:
        # Norms act on [batch, head, position, d_head] alike: their axis is the last.
        return attn.ln_q(q), attn.ln_k(k)

    def out(z: Tensor) -> Tensor:
        z = z if attn.head_scale is None else z * attn.head_scale.reshape(-1, 1)
        found: Tensor = attn.out_proj(attn.ln_inner(_joined(z)))
        return found

    return _AttentionParts(
        attn.num_heads,
        lambda x: _split(F.linear(x, attn.in_proj_weight, attn.in_proj_bias), attn.num_heads),
        lambda q, k: _dot(*normed(q, k)) * attn.scale,
        lambda q, k, v: _attend(*normed(q, k), v),
        out,
        (attn.ln_inner,),
    )


def _timm_attention(attn: TimmAttention) -> _AttentionParts:
    if attn.gate is not None:
        raise InputError("Heads behind a gate on attention are not known: use this tower's residual stream.")
    return _AttentionParts(
        attn.num_heads,
        lambda x: _split(attn.qkv(x), attn.num_heads),
        lambda q, k: _dot(attn.q_norm(q), attn.k_norm(k)) * attn.scale,
        lambda q, k, v: _attend(attn.q_norm(q), attn.k_norm(k), v),
        in_order(_joined, attn.norm, attn.proj),
        (attn.norm,),
    )


def _split(qkv: Float[Tensor, "batch position three_d_model"], n_heads: int) -> tuple[Heads, Heads, Heads]:
    q, k, v = rearrange(qkv, "batch position (which head d) -> which batch position head d", which=3, head=n_heads)
    return q, k, v


def _joined(z: Heads) -> Float[Tensor, "batch position d_model"]:
    return rearrange(z, "batch position head d -> batch position (head d)")


def _dot(q: Heads, k: Heads) -> Float[Tensor, "batch head query key"]:
    return torch.einsum("bqhd,bkhd->bhqk", q, k)


def _attend(q: Heads, k: Heads, v: Heads) -> Heads:
    """Return z by PyTorch's own kernel."""
    q, k, v = (x.transpose(1, 2) for x in (q, k, v))
    return F.scaled_dot_product_attention(q, k, v).transpose(1, 2)


def mix_by_pattern(pattern: Float[Tensor, "batch head query key"], v: Heads) -> Heads:
    """Return z [batch, position, head, d_head] of an attention pattern."""
    return torch.einsum("bhqk,bkhd->bqhd", pattern, v)
