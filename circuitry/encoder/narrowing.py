"""Stages that compute only the units of some edges, which makes edge attribution on ResNets fast.

The score of an edge needs the value of a downstream unit and the gradient of this value with respect to an upstream
unit. The value needs a row of the weights of the stage, and the gradient needs a column. Often the edges join only a
tenth of the units of two sites. A `NarrowStage` computes these units alone:

    narrow(x, delta) = the chosen downstream units of stage(x + delta at the chosen upstream units)

Only ``delta`` has a gradient. Autograd does not record computations that do not depend on ``delta``. The weights are
sliced to the chosen units. In a bottleneck only the middle 3x3 convolution keeps its full size.

ResNet's bottlenecks and CLIP's attention pooling have a `NarrowStage` of their own. For any other module `narrow_stage`
runs the whole module and selects the chosen units.

`units_alone` and `change_of_units` narrow the steps inside of a block (`conv_blocks`) to some units of their output or
of their input. The modules of the tower are never changed.
"""

import copy
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from einops import rearrange
from open_clip.modified_resnet import AttentionPool2d, Bottleneck
from timm.layers import BatchNormAct2d, Conv2dSame
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from circuitry.encoder.stages import NO_STEP, NarrowStage, Stage

CONVOLUTIONS = (nn.Conv2d, Conv2dSame)
BATCH_NORMS = (nn.BatchNorm2d, BatchNormAct2d)
BY_UNIT = (
    nn.ReLU,
    nn.ReLU6,
    nn.GELU,
    nn.SiLU,
    nn.Hardswish,
    nn.Identity,
    nn.AvgPool2d,
)
"""Modules that compute each channel from the same channel, without weights of its own.

All three lists hold exact classes, because a derived class may use its weights in another way.
"""


@dataclass(frozen=True)
class InOrder:
    """The composition of functions. The first function is applied first."""

    functions: tuple[Callable[[Tensor], Tensor], ...]

    def __call__(self, x: Tensor) -> Tensor:
        """Run the functions."""
        for function in self.functions:
            x = function(x)
        return x


def in_order(*functions: Callable[[Tensor], Tensor]) -> InOrder:
    """Return the composition of functions. Functions that are compositions themselves are opened."""
    opened = list[Callable[[Tensor], Tensor]]()
    for function in functions:
        if isinstance(function, InOrder):
            opened += function.functions
        else:
            opened.append(function)
    return InOrder(tuple(opened))


def units_alone(
    step: Callable[[Tensor], Tensor], units: Tensor, unit_dim: int = 1
) -> Callable[[Tensor], Tensor]:
    """Return a function that computes only some units of the output of a step.

    The last functions of the step are narrowed to the units, back to the convolution whose rows of weights belong to
    the units. If a function is of an unknown kind, all units are computed, and the chosen units are selected.

    Args:
        step: A function of feature maps [B, C, H, W].
        units: Indices of the units.
        unit_dim: Axis of the units in the output. A step with units on another axis than 1 is not narrowed.
    """
    functions = list[Callable[[Tensor], Tensor]]()
    for function in in_order(step).functions:
        # A projection of the stream is a sequence of modules.
        if type(function) is nn.Sequential:
            functions += function
        else:
            functions.append(function)
    behind = list[Callable[[Tensor], Tensor]]()
    while functions and unit_dim == 1:
        last: Any = functions[-1]
        if type(last) in BATCH_NORMS:
            behind.insert(0, _of_units(last, units))
        elif type(last) in CONVOLUTIONS and last.groups == 1:
            # Its rows read all channels, so everything before it is needed.
            rows = _of_units(last, units)
            return in_order(*functions[:-1], rows, *behind)
        elif type(last) in CONVOLUTIONS and _is_depthwise(last):
            depthwise = _of_units(last, units)
            depthwise.groups = len(units)
            behind.insert(0, depthwise)
        elif type(last) in BY_UNIT:
            behind.insert(0, last)
        elif isinstance(last, partial) and last.func is pooled_heads:
            pool = _of_heads(last.args[0], units)
            return in_order(*functions[:-1], partial(pooled_heads, pool), *behind)
        else:
            break
        functions.pop()
    select = partial(torch.index_select, dim=unit_dim, index=units)
    return in_order(*functions, select, *behind)


def change_of_units(
    step: Callable[[Tensor], Tensor], units: Tensor
) -> Callable[[Tensor], Tensor] | None:
    """Return the function from a change of some units of the input to the change of the output of a step.

    The step is a convolution, perhaps with a batch norm. For all other steps None is returned, because the change of
    the output may depend on the input itself.

    Args:
        step: A function of feature maps [B, C, H, W].
        units: Indices of the units, which are channels of the input.
    """
    functions: tuple[Any, ...] = in_order(step).functions
    conv: Any = functions[0] if functions else None
    if type(conv) not in CONVOLUTIONS or conv.groups != 1:
        return None
    weight = conv.weight.detach()[:, units]
    for norm in functions[1:]:
        # A batch norm of timm may end with a nonlinearity.
        is_linear = isinstance(getattr(norm, "act", NO_STEP), nn.Identity)
        if type(norm) not in BATCH_NORMS or not is_linear:
            return None
        scale = (norm.running_var + norm.eps).rsqrt()
        if norm.weight is not None:
            scale = scale * norm.weight.detach()
        weight = weight * scale[:, None, None, None]
    narrowed: Any = copy.copy(conv)
    narrowed._parameters = {"weight": weight, "bias": None}
    change: Callable[[Tensor], Tensor] = narrowed
    return change


def _is_depthwise(conv: Any) -> bool:
    return {conv.groups} == {conv.in_channels, conv.out_channels}


def _of_units(module: Any, units: Tensor) -> Any:
    """Return a copy of a convolution or a batch norm that has only the weights of some of its output channels."""
    narrowed = copy.copy(module)
    # The dictionaries are new, so the module itself keeps its weights.
    narrowed._parameters = _entries(module._parameters, units)
    narrowed._buffers = _entries(module._buffers, units)
    return narrowed


def _entries(weights: dict[str, Any], units: Tensor) -> dict[str, Any]:
    """Return the entries of some units in all weights that have an axis of units."""
    entries = {}
    for name, weight in weights.items():
        # A batch norm also counts its batches, in a number without an axis.
        has_units = weight is not None and weight.dim()
        entries[name] = weight.detach()[units] if has_units else weight
    return entries


def _of_heads(pool: AttentionPool2d, heads: Tensor) -> Any:
    """Return a copy of CLIP's attention pooling that computes only some of its heads."""
    d_head = pool.q_proj.out_features // pool.num_heads
    places = heads[:, None] * d_head + torch.arange(d_head, device=heads.device)
    narrowed: Any = copy.copy(pool)
    narrowed._modules = dict(pool._modules)
    for name in ("q_proj", "k_proj", "v_proj"):
        narrowed._modules[name] = _of_units(pool._modules[name], places.flatten())
    narrowed.num_heads = len(heads)
    return narrowed


def narrow_stage(
    run: Callable[[Tensor], Tensor],
    up: Tensor,
    down: Tensor,
    up_dim: int,
    down_dim: int,
) -> NarrowStage:
    """Return the `NarrowStage` of any function between two sites.

    The `NarrowStage` runs the whole function, and then selects the chosen downstream units.

    Args:
        run: The function.
        up: Indices of the chosen upstream units.
        down: Indices of the chosen downstream units.
        up_dim: Axis of the units in the input.
        down_dim: Axis of the units in the output.
    """

    def narrow(x: Tensor, delta: Tensor) -> Tensor:
        return run(x.index_add(up_dim, up, delta)).index_select(down_dim, down)

    return narrow


def narrowest(
    stages: tuple[Stage, ...], up: Tensor, down: Tensor, up_dim: int
) -> NarrowStage:
    """Return the cheapest `NarrowStage` of the stages between two sites.

    This is the stage's own `NarrowStage` if there is a single stage that has one. Otherwise it is a `narrow_stage`.

    Args:
        stages: The stages from the upstream site to the downstream site.
        up: Indices of the chosen upstream units.
        down: Indices of the chosen downstream units.
        up_dim: Axis of the units at the upstream site.
    """
    # Narrow forms cannot be composed, because all units have changed after the first stage.
    if len(stages) == 1 and stages[0].narrow is not None:
        return stages[0].narrow(up, down)

    run = in_order(*(stage.run for stage in stages))
    return narrow_stage(run, up, down, up_dim, stages[-1].unit_dim)


def narrow_bottleneck(block: Bottleneck, up: Tensor, down: Tensor) -> NarrowStage:
    """Return the `NarrowStage` of a ResNet bottleneck.

    It computes what the block's ``forward`` computes, but with 1x1 convolutions that are sliced to the chosen units.
    Batch norms are folded into the convolutions before them, so the values differ from the block's values by rounding.

    Args:
        block: The bottleneck.
        up: Indices of the chosen upstream units, which are channels of the input.
        down: Indices of the chosen downstream units, which are channels of the output.
    """
    first = fuse_conv_bn_eval(block.conv1, block.bn1)
    middle = fuse_conv_bn_eval(block.conv2, block.bn2)
    last = _some_rows(fuse_conv_bn_eval(block.conv3, block.bn3), down)
    columns = first.weight.detach()[:, up]
    # Two parts of the shortcut at the chosen rows: its value at x, which has no gradient, and its weights
    # [rows, columns, 1, 1] for the change of the chosen columns.
    if block.downsample is None:
        pool = nn.Identity()
        shortcut: Callable[[Tensor], Tensor] = partial(
            torch.index_select, dim=1, index=down
        )
        # The identity as a 1x1 convolution: 1 where a downstream unit and an upstream unit have the same index.
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
        # The first convolution is linear, so the chosen columns alone give the change of its output.
        hidden = block.act2(middle(block.act1(entry + F.conv2d(delta, columns))))
        out = last(block.avgpool(hidden))
        out += constant + F.conv2d(pool(delta), of_change)
        end: Tensor = block.act3(out)
        return end

    return run


def _some_rows(conv: nn.Conv2d, rows: Tensor) -> "partial[Tensor]":
    """Return a 1x1 convolution that computes only the output channels ``rows`` of ``conv``."""
    bias = None if conv.bias is None else conv.bias.detach()[rows]
    return partial(F.conv2d, weight=conv.weight.detach()[rows], bias=bias)


def pooled_tokens(x: Tensor) -> Tensor:
    """Return feature maps [B, C, H, W] as tokens [B, 1 + H W, C].

    The first token is the mean over positions. After it comes one token for each position.
    """
    sequence = rearrange(x, "batch unit h w -> batch (h w) unit")
    return torch.cat([sequence.mean(1, keepdim=True), sequence], 1)


def _attend(pool: AttentionPool2d, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """Return the result [B, head, C / heads] of attention with a single query.

    Args:
        pool: The pooling module, which has the number of heads.
        q: The query [B, 1, C].
        k: The keys [B, tokens, C].
        v: The values [B, tokens, C].
    """
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
    """Return the output [B, head, d_head] of each head of CLIP's attention pooling for feature maps [B, C, H, W]."""
    # The mean token is the only query, because the embedding is the result at its position.
    tokens = pooled_tokens(x) + pool.positional_embedding
    return _attend(
        pool, pool.q_proj(tokens[:, :1]), pool.k_proj(tokens), pool.v_proj(tokens)
    )


def project_heads(pool: AttentionPool2d, heads: Tensor) -> Tensor:
    """Return the embedding, given the outputs [B, head, d_head] of the heads of CLIP's attention pooling."""
    embedding: Tensor = pool.c_proj(heads.flatten(1))
    return embedding


def narrow_attention_pool(
    pool: AttentionPool2d, up: Tensor, down: Tensor
) -> NarrowStage:
    """Return the `NarrowStage` of CLIP's attention pooling.

    The projections to q, k and v are sliced to the chosen upstream units. Only the query of the mean token is computed,
    because the embedding is the output for this token.

    Args:
        pool: The pooling module.
        up: Indices of the chosen upstream units, which are channels of the feature map.
        down: Indices of the chosen downstream units, which are dimensions of the embedding.
    """
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
        # The projections are linear, so the change of the chosen channels adds to q, k and v.
        change = pooled_tokens(delta)
        q = q + F.linear(change[:, :1], q_columns)
        k = k + F.linear(change, k_columns)
        v = v + F.linear(change, v_columns)
        return F.linear(_attend(pool, q, k, v).flatten(1), out_weight, out_bias)

    return run
