"""Stages restricted to the units that an edge needs: the speed of edge attribution on ResNets.

An edge between two sites needs the kept units downstream (rows) and the gradient by the kept units upstream
(columns), often a tenth of each. A `NarrowStage` computes just that:

    narrow(x, delta) = stage(x + delta placed at the kept upstream units), kept downstream units

where only ``delta`` carries gradient. The weights are sliced, the rest of the stage is constant in ``delta``
and leaves the graph: of a bottleneck only the middle 3x3 convolution keeps its full size.

Stages without a shortcut of their own take `narrow_stage`, which is right for all. Tests hold every one
against it.
"""

import copy
from collections.abc import Callable

import torch
import torch.nn.functional as F
from einops import rearrange
from open_clip.modified_resnet import AttentionPool2d, Bottleneck
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from circuitry.models.stages import NarrowStage, Stage


def narrow_stage(run: Callable[[Tensor], Tensor], up: Tensor, down: Tensor, up_dim: int, down_dim: int) -> NarrowStage:
    """Narrow any function between two sites: run it whole, then select."""

    def narrow(x: Tensor, delta: Tensor) -> Tensor:
        return run(x.index_add(up_dim, up, delta)).index_select(down_dim, down)

    return narrow


def narrowest(stages: tuple[Stage, ...], up: Tensor, down: Tensor, up_dim: int) -> NarrowStage:
    """Return the cheapest `NarrowStage` for the stages between two sites."""
    if len(stages) == 1 and stages[0].narrow is not None:
        return stages[0].narrow(up, down)

    def run(x: Tensor) -> Tensor:
        for stage in stages:
            x = stage.run(x)
        return x

    return narrow_stage(run, up, down, up_dim, stages[-1].unit_dim)


class _Affine(nn.Module):
    """An affine map of the constant x plus its linear part on ``delta``, which is set before each call."""

    def __init__(self, whole: nn.Module, linear: nn.Module) -> None:
        super().__init__()
        self.whole, self.linear = whole, linear
        self.delta: Tensor | None = None

    def forward(self, x: Tensor) -> Tensor:
        assert self.delta is not None
        with torch.no_grad():
            constant = self.whole(x)
        return torch.add(constant, self.linear(self.delta))


def _sliced(conv: nn.Conv2d, rows: Tensor | None = None, columns: Tensor | None = None) -> nn.Conv2d:
    """Return the convolution for some output (rows) and some input channels (columns; then without bias)."""
    weight, bias = conv.weight.detach(), None if conv.bias is None else conv.bias.detach()
    if rows is not None:
        weight, bias = weight[rows], None if bias is None else bias[rows]
    if columns is not None:
        weight, bias = weight[:, columns], None
    out = nn.Conv2d(
        weight.shape[1],
        weight.shape[0],
        kernel_size=(conv.kernel_size[0], conv.kernel_size[1]),
        padding=(int(conv.padding[0]), int(conv.padding[1])),
        bias=False,
        device="meta",
    )
    out.weight = nn.Parameter(weight, requires_grad=False)
    out.bias = None if bias is None else nn.Parameter(bias, requires_grad=False)
    return out


def _select(rows: Tensor, channels: int, like: Tensor) -> nn.Conv2d:
    """Return the 1x1 convolution that selects some of the channels."""
    weight = torch.zeros(len(rows), channels, 1, 1, dtype=like.dtype, device=like.device)
    weight[torch.arange(len(rows)), rows] = 1
    out = nn.Conv2d(channels, len(rows), 1, bias=False, device="meta")
    out.weight = nn.Parameter(weight, requires_grad=False)
    return out


class _Rows(nn.Module):
    """The channels ``rows`` of its input."""

    def __init__(self, rows: Tensor) -> None:
        super().__init__()
        self.rows = rows

    def forward(self, x: Tensor) -> Tensor:
        return x.index_select(1, self.rows)


def narrow_bottleneck(block: Bottleneck, up: Tensor, down: Tensor) -> NarrowStage:
    """Narrow a ResNet bottleneck; its own ``forward`` runs, on a shallow copy with sliced weights.

    Batch norms are folded into the convolutions before them, so values differ from the block's in rounding.
    """
    first = fuse_conv_bn_eval(block.conv1, block.bn1)
    last = _sliced(fuse_conv_bn_eval(block.conv3, block.bn3), rows=down)
    if block.downsample is None:
        channels = block.conv3.out_channels
        unit = _select(down, channels, block.conv3.weight)
        shortcut = _Affine(_Rows(down), _sliced(unit, columns=up))
    else:
        pool, conv, norm = block.downsample
        whole = _sliced(fuse_conv_bn_eval(conv, norm), rows=down)
        shortcut = _Affine(nn.Sequential(pool, whole), nn.Sequential(pool, _sliced(whole, columns=up)))
    entry = _Affine(first, _sliced(first, columns=up))
    narrow = copy.copy(block)
    narrow._modules = dict(block._modules)  # the copy's own, so that the block keeps its modules
    narrow.conv1, narrow.bn1 = entry, nn.Identity()
    narrow.conv2, narrow.bn2 = fuse_conv_bn_eval(block.conv2, block.bn2), nn.Identity()
    narrow.conv3, narrow.bn3 = last, nn.Identity()
    narrow.downsample = shortcut

    def run(x: Tensor, delta: Tensor) -> Tensor:
        entry.delta = shortcut.delta = delta
        out: Tensor = narrow(x)
        return out

    return run


def _tokens(x: Tensor) -> Tensor:
    """[B, C, H, W] -> the mean token and one token per position [B, 1 + H W, C]."""
    sequence = rearrange(x, "batch unit h w -> batch (h w) unit")
    return torch.cat([sequence.mean(1, keepdim=True), sequence], 1)


def _attend(pool: AttentionPool2d, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """Return the attention of one query [B, 1, C] over k and v [B, tokens, C]: [B, C]."""
    q, k, v = (rearrange(t, "batch token (head d) -> batch head token d", head=pool.num_heads) for t in (q, k, v))
    weight = ((q * q.shape[-1] ** -0.5) @ k.transpose(-1, -2)).softmax(-1)
    pooled: Tensor = rearrange(weight @ v, "batch head 1 d -> batch (head d)")
    return pooled


def fast_attention_pool(pool: AttentionPool2d, x: Tensor) -> Tensor:
    """CLIP's attention pooling for its one used query; the module also computes one per position."""
    tokens = _tokens(x) + pool.positional_embedding
    pooled = _attend(pool, pool.q_proj(tokens[:, :1]), pool.k_proj(tokens), pool.v_proj(tokens))
    embedding: Tensor = pool.c_proj(pooled)
    return embedding


def narrow_attention_pool(pool: AttentionPool2d, up: Tensor, down: Tensor) -> NarrowStage:
    """Narrow CLIP's attention pooling: one query (the mean token), and only the changed columns of k and v."""
    weights = {name: getattr(pool, f"{name}_proj").weight[:, up] for name in "qkv"}
    out_weight, out_bias = pool.c_proj.weight[down], pool.c_proj.bias[down]

    def run(x: Tensor, delta: Tensor) -> Tensor:
        with torch.no_grad():
            whole = _tokens(x) + pool.positional_embedding
            constant = {"q": pool.q_proj(whole[:, :1]), "k": pool.k_proj(whole), "v": pool.v_proj(whole)}
        change = _tokens(delta)
        parts = {"q": change[:, :1], "k": change, "v": change}
        qkv = (torch.add(constant[name], F.linear(part, weights[name])) for name, part in parts.items())
        return F.linear(_attend(pool, *qkv), out_weight, out_bias)

    return run
