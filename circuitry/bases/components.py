"""Components of blocks as units: a tower as a finer chain of stages.

Inside its blocks a tower is a longer chain of stages. Each block of a transformer has two sites, in place of the site
of its residual stream:

    <block>.attn   heads: values of other positions that each head has mixed, z [batch, position, head, d_head]
    <block>.mlp    neurons: their activations after the nonlinearity [batch, position, neuron]

A convolutional block has a site for its hidden channels, and one for the channels of a projection shortcut
(`conv_blocks`). CLIP's attention pooling has a site for its heads. The stages before the first block and behind the
last one stay as they are.

The activation of such a site has, behind the units, the residual stream that goes past them, since the next stage needs
both. The carried stream is no unit: it is never scored, patched, ablated or kept. All functions of sites work on heads,
neurons and hidden channels as on channels.

A TransformerLens hook at such a site (``run_with_hooks``) gets and returns units and stream together, so a hook that
returns the activation of another image also replaces the stream. Only the units are written by `Patch` (`patched`,
`patch_effects`), by a hook on ``blocks.3.attn.hook_z`` or ``blocks.3.mlp.hook_post``, and by a hook that returns
``encoder.carry(site, value, activation)``.

Besides its sites a transformer has hook points with TransformerLens' names (`BLOCK_POINTS`), such as
``blocks.3.attn.hook_pattern``: hooks read and write them, and ``run_with_cache`` returns them.

With idle hooks outputs equal the tower's up to rounding. With hooks on scores or patterns attention computes these
instead of calling PyTorch's fused kernel, which hides them.
"""

from collections.abc import Mapping
from functools import partial
from typing import Any

import torch
from jaxtyping import Float
from open_clip.modified_resnet import AttentionPool2d
from torch import Tensor, nn
from transformer_lens.hook_points import HookPoint

from circuitry.bases.attention_kinds import mix_by_pattern
from circuitry.bases.blocks import Block, take_apart
from circuitry.bases.conv_blocks import after_block, conv_blocks, conv_stages
from circuitry.encoder.encoder import Encoder
from circuitry.encoder.narrowing import in_order, pooled_heads, project_heads
from circuitry.encoder.stages import NO_STEP, ConvBlock, Stage, Step
from circuitry.encoder.unit_kinds import HEAD, POOLING_HEAD
from circuitry.runs.arguments import checked
from circuitry.runs.errors import InputError

PATTERN_POINTS = ("attn.hook_attn_scores", "attn.hook_pattern")
BLOCK_POINTS = (
    "hook_resid_pre",
    "attn.hook_q",
    "attn.hook_k",
    "attn.hook_v",
    *PATTERN_POINTS,
    "attn.hook_z",
    "hook_attn_out",
    "hook_resid_mid",
    "mlp.hook_pre",
    "mlp.hook_post",
    "hook_mlp_out",
    "hook_resid_post",
)
"""Names of the hook points of a block behind ``blocks.<number>.``, in order; names and shapes are TransformerLens'."""

BETWEEN = (nn.LayerNorm, nn.Conv2d)
"""Kinds of stages between two blocks, such as a down-sampling, that become part of the block behind them."""


@checked
def in_components(encoder: Encoder, mlps: Mapping[str, Block] | None = None) -> Encoder:
    """Return an encoder on the same tower whose units are heads and neurons, or hidden channels.

    Args:
        encoder: An encoder of a transformer or of a convolutional network.
        mlps: Blocks that replace the tower's, by the site of their neurons; `in_feature_basis` makes them of
            transcoders.

    Raises:
        InputError: for a tower without blocks of a known kind, or a site that is in a feature basis.

    Example:
        >>> from circuitry.bases import in_components
        >>> heads = in_components(vit.encoder)
        >>> heads.sites[:4]
        ('input', 'ln_pre', 'transformer.resblocks.0.attn', 'transformer.resblocks.0.mlp')
        >>> embedding, cache = heads.run_with_cache(images)
        >>> cache["blocks.1.attn.hook_pattern"].dim()    # [batch, head, query, key]
        4
        >>> channels = in_components(encoder)
        >>> channels.kinds["layer1.0.act1"].name
        'hidden channel'
    """
    blocks = encoder.chain.blocks or conv_blocks(encoder.chain.stages)
    if not blocks:
        raise InputError(
            f"Components lie inside blocks, but of this {type(encoder.tower).__name__} no block is known: take its "
            "channels, or name its blocks in the Chain of a reader (register_architecture)."
        )
    if encoder.error_units:
        raise InputError(
            f"Components are read off the tower itself, but {', '.join(encoder.error_units)} is in a feature "
            "basis: give the encoder without autoencoders."
        )
    stages: list[Stage] = []
    points: dict[str, nn.Module] = {}
    # The step from the activation of the last stage so far to the residual stream. It begins the next stage. None means
    # that the activation is the stream itself.
    read: Step | None = None
    numbers = {site: number for number, site in enumerate(blocks)}
    blocks_left = len(blocks)
    x = encoder.blank()
    # The number of channels of a convolutional block is known only from a run, so x goes along the stages.
    with encoder.running():
        for stage in encoder.chain.stages:
            block = blocks.get(stage.site)
            if block is not None:
                blocks_left -= 1
            if isinstance(block, ConvBlock):
                inside, x = conv_stages(stage.site, block, read or NO_STEP, x)
                stages += inside
                read = partial(after_block, block, inside[-1])
            elif block is not None:
                mine = {name: HookPoint() for name in BLOCK_POINTS}
                for name, point in mine.items():
                    points[f"blocks.{numbers[stage.site]}.{name}"] = point
                apart = (mlps or {}).get(f"{stage.site}.mlp") or take_apart(block)
                stages += _stages_of(stage.site, apart, mine, read)
                read = partial(_after_block, apart, mine)
            # A norm or convolution between blocks is no site of its own: behind it only the changed stream is left.
            elif read is not None and blocks_left and isinstance(stage.run, BETWEEN):
                read = in_order(read, stage.run)
            else:
                run = _reading(read, stage.run)
                if isinstance(stage.run, AttentionPool2d):
                    stages += _in_heads(stage, stage.run, read)
                elif read is None:
                    stages.append(stage)
                else:
                    stages.append(Stage(stage.site, run, stage.units))
                # Behind the last block nothing needs the width.
                if blocks_left:
                    x = run(x)
                read = None
    return Encoder(
        encoder.tower, stages, encoder.image_size, points=points, chain=encoder.chain
    )


def _reading(read: Step | None, run: Step) -> Step:
    """Return ``run`` behind the step that reads the stream, or alone if ``read`` is None."""
    return run if read is None else in_order(read, run)


def _in_heads(stage: Stage, pool: AttentionPool2d, read: Step | None) -> list[Stage]:
    """Return the two stages of an attention pooling: from positions to heads, and from heads to the embedding."""
    to_heads = _reading(read, partial(pooled_heads, pool))
    return [
        Stage(f"{stage.site}.heads", to_heads, POOLING_HEAD),
        Stage(stage.site, partial(project_heads, pool), stage.units),
    ]


def _stages_of(
    path: str, block: Block, points: Mapping[str, Any], read: Step | None
) -> tuple[Stage, Stage]:
    """Return two stages of a block: up to its heads, and from there up to its neurons.

    The first stage starts with the step ``read``, which makes the stream out of the previous block's units.
    """
    to_heads = _reading(read, partial(_heads, block, points))
    # The stream is as wide as all heads together, so it is stored as n_heads further rows behind the heads.
    past_heads = range(block.n_heads, 2 * block.n_heads)
    past_neurons = range(block.n_neurons, block.n_neurons + block.width)
    return (
        Stage(f"{path}.attn", to_heads, HEAD, carried=past_heads),
        Stage(
            f"{path}.mlp",
            partial(_neurons, block, points),
            block.kind,
            error_units=block.error_units,
            carried=past_neurons,
            block=block,
        ),
    )


def _heads(
    block: Block, points: Mapping[str, Any], x: Float[Tensor, "batch position d_model"]
) -> Tensor:
    """Return z of every head, then the residual stream as further heads: [batch, position, 2 heads, d_head]."""
    x = points["hook_resid_pre"](x)
    projected = block.project(block.norm_attention(x))
    q = points["attn.hook_q"](projected[0])
    k = points["attn.hook_k"](projected[1])
    v = points["attn.hook_v"](projected[2])
    # The fused kernel never has scores in memory, so hooks on them need the slower plain computation.
    if any(points[name].fwd_hooks or points[name].bwd_hooks for name in PATTERN_POINTS):
        scores = points["attn.hook_attn_scores"](block.scores(q, k))
        z = mix_by_pattern(points["attn.hook_pattern"](scores.softmax(-1)), v)
    else:
        z = block.mix(q, k, v)
    stream = torch.unflatten(x, -1, (block.n_heads, -1))
    return torch.cat([points["attn.hook_z"](z), stream], 2)


def _neurons(
    block: Block,
    points: Mapping[str, Any],
    x: Float[Tensor, "batch position units d_head"],
) -> Tensor:
    """Return the neurons, then the residual stream: [batch, position, neurons + d_model]."""
    z, carried = torch.tensor_split(x, [block.n_heads], 2)
    written = points["hook_attn_out"](block.attention_out(z))
    middle = points["hook_resid_mid"](carried.flatten(2) + written)
    before = points["mlp.hook_pre"](block.mlp_in(block.norm_mlp(middle)))
    neurons = points["mlp.hook_post"](block.activation(before))
    return torch.cat([neurons, middle], -1)


def _after_block(
    block: Block, points: Mapping[str, Any], x: Float[Tensor, "batch position units"]
) -> Tensor:
    """Return the residual stream behind a block [batch, position, d_model]."""
    neurons, stream = torch.tensor_split(x, [block.n_neurons], -1)
    written = points["hook_mlp_out"](block.mlp_out(neurons))
    behind: Tensor = points["hook_resid_post"](stream + written)
    return behind
