"""Stages restricted to the units that an edge needs: the speed of edge attribution on ResNets.

An edge needs some units downstream (rows) and the gradient by some units upstream (columns), often a tenth of
each. A `NarrowStage` computes just that:

    narrow(x, delta) = the chosen downstream units of stage(x + delta at the chosen upstream units)

where only ``delta`` carries gradient. The weights are sliced, the rest of the stage is constant in ``delta``
and leaves the graph: of a bottleneck only the middle 3x3 convolution keeps its full size.

Stages without a shortcut of their own take `narrow_stage`; tests hold every shortcut against it. The tower's own
modules are never written to.
"""

from collections.abc import Callable
from functools import partial

import torch
import torch.nn.functional as F
from einops import rearrange
from open_clip.modified_resnet import AttentionPool2d, Bottleneck
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from circuitry.encoder.stages import NarrowStage, Stage


def in_order(*functions: Callable[[Tensor], Tensor]) -> Callable[[Tensor], Tensor]:
    """Compose functions, the first one first."""

    def run(x: Tensor) -> Tensor:
        for function in functions:
            x = function(x)
        return x

    return run


def narrow_stage(
    run: Callable[[Tensor], Tensor],
    up: Tensor,
    down: Tensor,
    up_dim: int,
    down_dim: int,
) -> NarrowStage:
    """Narrow any function between two sites: run it whole, then select."""

    def narrow(x: Tensor, delta: Tensor) -> Tensor:
        return run(x.index_add(up_dim, up, delta)).index_select(down_dim, down)

    return narrow


def narrowest(
    stages: tuple[Stage, ...], up: Tensor, down: Tensor, up_dim: int
) -> NarrowStage:
    """Return the cheapest `NarrowStage` for the stages between two sites."""
    if len(stages) == 1 and stages[0].narrow is not None:
        return stages[0].narrow(up, down)

    run = in_order(*(stage.run for stage in stages))
    return narrow_stage(run, up, down, up_dim, stages[-1].unit_dim)


def narrow_bottleneck(block: Bottleneck, up: Tensor, down: Tensor) -> NarrowStage:
    """Narrow a ResNet bottleneck: the steps of its own ``forward``, with its 1x1 convolutions sliced.

    Batch norms are folded into the convolutions before them, so values differ from the block's in rounding.
    """
    first = fuse_conv_bn_eval(block.conv1, block.bn1)
    middle = fuse_conv_bn_eval(block.conv2, block.bn2)
    last = _some_rows(fuse_conv_bn_eval(block.conv3, block.bn3), down)
    columns = first.weight.detach()[:, up]
    # The shortcut of the chosen rows: as it is of x, and its weights for the change of the chosen columns.
    if block.downsample is None:
        pool = nn.Identity()
        shortcut: Callable[[Tensor], Tensor] = partial(
            torch.index_select, dim=1, index=down
        )
        of_change = (down[:, None] == up).to(columns)[:, :, None, None]
    else:
        pool, conv, norm = block.downsample
        projection = _some_rows(fuse_conv_bn_eval(conv, norm), down)
        shortcut = in_order(pool, projection)
        of_change = projection.keywords["weight"][:, up]

    def run(x: Tensor, delta: Tensor) -> Tensor:
        with torch.no_grad():
            entry = first(x)
            constant = shortcut(x)
        hidden = block.act2(middle(block.act1(entry + F.conv2d(delta, columns))))
        out = last(block.avgpool(hidden))
        out += constant + F.conv2d(pool(delta), of_change)
        end: Tensor = block.act3(out)
        return end

    return run


def _some_rows(conv: nn.Conv2d, rows: Tensor) -> "partial[Tensor]":
    """Return a 1x1 convolution with some of its output channels alone."""
    bias = None if conv.bias is None else conv.bias.detach()[rows]
    return partial(F.conv2d, weight=conv.weight.detach()[rows], bias=bias)


def pooled_tokens(x: Tensor) -> Tensor:
    """[B, C, H, W] -> the mean token and one token per position [B, 1 + H W, C]."""
    sequence = rearrange(x, "batch unit h w -> batch (h w) unit")
    return torch.cat([sequence.mean(1, keepdim=True), sequence], 1)


def _attend(pool: AttentionPool2d, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """Return what each head's query [B, 1, C] reads off k and v [B, tokens, C]: [B, head, C / heads]."""
    q = _in_heads(pool, q)
    k = _in_heads(pool, k)
    weight = ((q * q.shape[-1] ** -0.5) @ k.transpose(-1, -2)).softmax(-1)
    pooled: Tensor = (weight @ _in_heads(pool, v)).squeeze(2)
    return pooled


def _in_heads(pool: AttentionPool2d, x: Tensor) -> Tensor:
    return rearrange(
        x, "batch token (head d) -> batch head token d", head=pool.num_heads
    )


def pooled_heads(pool: AttentionPool2d, x: Tensor) -> Tensor:
    """Return what each head of CLIP's attention pooling reads off the positions [B, head, d_head]."""
    tokens = pooled_tokens(x) + pool.positional_embedding
    return _attend(
        pool, pool.q_proj(tokens[:, :1]), pool.k_proj(tokens), pool.v_proj(tokens)
    )


def project_heads(pool: AttentionPool2d, heads: Tensor) -> Tensor:
    """Return the embedding that the heads of CLIP's attention pooling make."""
    embedding: Tensor = pool.c_proj(heads.flatten(1))
    return embedding


def narrow_attention_pool(
    pool: AttentionPool2d, up: Tensor, down: Tensor
) -> NarrowStage:
    """Narrow CLIP's attention pooling: one query (the mean token), and only the changed columns of k and v."""
    q_columns = pool.q_proj.weight[:, up]
    k_columns = pool.k_proj.weight[:, up]
    v_columns = pool.v_proj.weight[:, up]
    out_weight = pool.c_proj.weight[down]
    out_bias = pool.c_proj.bias[down]

    def run(x: Tensor, delta: Tensor) -> Tensor:
        with torch.no_grad():
            tokens = pooled_tokens(x) + pool.positional_embedding
            q = pool.q_proj(tokens[:, :1])
            k = pool.k_proj(tokens)
            v = pool.v_proj(tokens)
        change = pooled_tokens(delta)
        q = q + F.linear(change[:, :1], q_columns)
        k = k + F.linear(change, k_columns)
        v = v + F.linear(change, v_columns)
        return F.linear(_attend(pool, q, k, v).flatten(1), out_weight, out_bias)

    return run
