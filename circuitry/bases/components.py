"""Divide a tower into a finer chain of stages, whose units are components of blocks, such as heads and neurons.

Each block of a transformer then has two sites. They replace the site of the residual stream after the block:

    <block>.attn   units are heads; the activation is z, the output of each head [batch, position, head, d_head]
    <block>.mlp    units are neurons; the activation is after the nonlinearity [batch, position, neuron]

A convolutional block has a site for each of its hidden activations, and a site for the channels of its projection
shortcut if it has one (`conv_blocks`). CLIP's attention pooling has a site for its heads. The stages before the first
block stay as they are. So do the stages after the last block, except for the first of them: it begins with a new step,
which adds the output of the last block to the residual stream.

The next stage needs both the units of such a site and the residual stream. So the activation of the site holds the
units first, and after them the residual stream, which is carried past the units. The carried stream is not a unit: it
is never scored, patched, ablated or kept. All functions that take sites treat heads, neurons and hidden channels as
they treat channels.

A TransformerLens hook at such a site (``run_with_hooks``) gets and returns the units and the stream together. So a hook
that returns the activation of another image also replaces the stream. To replace only the units, use a `Patch`
(`patched`, `patch_effects`), a hook on ``blocks.3.attn.hook_z`` or ``blocks.3.mlp.hook_post``, or a hook that returns
``encoder.carry(site, value, activation)``.

A transformer also has hook points with TransformerLens' names (`BLOCK_POINTS`), such as
``blocks.3.attn.hook_pattern``. Hooks can read and write at these points, and ``run_with_cache`` returns their
activations.

If no hook changes an activation, the outputs equal the outputs of the tower up to rounding. PyTorch's fused kernel for
attention does not return scores and patterns. So if a hook is set on scores or patterns, attention is computed without
that kernel.
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
from circuitry.bases.conv_blocks import AfterBlock, conv_blocks, conv_stages
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
"""Names of the hook points of a block, in the order of a run.

The full name of a hook point begins with ``blocks.<index of the block>.``. Names and shapes are the same as in
TransformerLens.
"""

BETWEEN = (nn.LayerNorm, nn.Conv2d)
"""Kinds of modules that may lie between two blocks, such as a down-sampling, and become part of the next block."""


@checked
def in_components(encoder: Encoder, mlps: Mapping[str, Block] | None = None) -> Encoder:
    """Return an encoder on the same tower whose units are heads and neurons, or hidden channels.

    Args:
        encoder: An encoder of a transformer or of a convolutional network.
        mlps: Blocks that replace blocks of the tower, by the site of their neurons. `in_feature_basis` gives blocks
            whose neurons are the latents of transcoders or autoencoders. Default: the blocks of the tower.

    Raises:
        InputError: if the tower has no blocks of a known kind, or if a site of the encoder is in a feature basis.

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
    if encoder.carried and encoder.chain.stages == encoder.stages:
        # Patches are written at its components (`with_patches`), and no coarser chain has them.
        return encoder
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
    # `read` computes the residual stream from the activation of the last stage so far. The next stage begins with it.
    # None means that the activation is the stream itself.
    read: Step | None = None
    numbers = {site: number for number, site in enumerate(blocks)}
    blocks_left = len(blocks)
    x = encoder.blank()
    # Only a run shows how many channels a convolutional block has. So a blank image x is run through the stages.
    with encoder.running():
        for stage in encoder.chain.stages:
            block = blocks.get(stage.site)
            if block is not None:
                blocks_left -= 1
            if isinstance(block, ConvBlock):
                inside, x = conv_stages(stage.site, block, read or NO_STEP, x)
                stages += inside
                read = AfterBlock(block, inside[-1].carried.start)
            elif block is not None:
                mine = {name: HookPoint() for name in BLOCK_POINTS}
                for name, point in mine.items():
                    points[f"blocks.{numbers[stage.site]}.{name}"] = point
                apart = (mlps or {}).get(f"{stage.site}.mlp") or take_apart(block)
                stages += _stages_of(stage.site, apart, mine, read)
                read = partial(_after_block, apart, mine)
            # A norm or convolution between two blocks gets no site, because it leaves nothing but the changed stream.
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
                # After the last block no stage needs to know the number of channels.
                if blocks_left:
                    x = run(x)
                read = None
    return Encoder(
        encoder.tower, stages, encoder.image_size, points=points, chain=encoder.chain
    )


def _reading(read: Step | None, run: Step) -> Step:
    """Return a step that runs ``read`` and then ``run``. If ``read`` is None, return ``run``."""
    return run if read is None else in_order(read, run)


def _in_heads(stage: Stage, pool: AttentionPool2d, read: Step | None) -> list[Stage]:
    """Return the two stages of an attention pooling.

    The first stage ends at the heads. The second stage projects the heads to the embedding.

    Args:
        stage: The stage that runs the whole pooling.
        pool: The module of the pooling.
        read: Step that computes the residual stream from the activation of the previous stage. None means that this
            activation is the stream.
    """
    to_heads = _reading(read, partial(pooled_heads, pool))
    return [
        Stage(f"{stage.site}.heads", to_heads, POOLING_HEAD),
        Stage(stage.site, partial(project_heads, pool), stage.units),
    ]


def _stages_of(
    path: str, block: Block, points: Mapping[str, Any], read: Step | None
) -> tuple[Stage, Stage]:
    """Return the two stages of a transformer block: the first ends at its heads, the second at its neurons.

    Args:
        path: Site of the block.
        block: Steps of the block.
        points: Hook points of the block by the names in `BLOCK_POINTS`.
        read: Step that computes the stream from the activation of the previous stage. The first stage starts with it.
            None means that this activation is the stream.
    """
    to_heads = _reading(read, partial(_heads, block, points))
    # The stream is as wide as all heads together, so it is stored after the heads as n_heads further heads.
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
    """Return the activation of a site of heads [batch, position, 2 heads, d_head], given the residual stream ``x``.

    The first half of the third axis holds z, the output of each head. The second half holds the residual stream, which
    is reshaped to [head, d_head] so that it fits into the same tensor.
    """
    x = points["hook_resid_pre"](x)
    projected = block.project(block.norm_attention(x))
    q = points["attn.hook_q"](projected[0])
    k = points["attn.hook_k"](projected[1])
    v = points["attn.hook_v"](projected[2])
    # The fused kernel holds no scores in memory. So hooks on scores or patterns need the slower plain computation.
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
    """Return the activation of a site of neurons [batch, position, neurons + d_model].

    The last axis holds the activations of the neurons, followed by the residual stream between attention and MLP.
    ``x`` is the activation of the site of heads of the same block; see `_heads`.
    """
    z, carried = torch.tensor_split(x, [block.n_heads], 2)
    written = points["hook_attn_out"](block.attention_out(z))
    middle = points["hook_resid_mid"](carried.flatten(2) + written)
    before = points["mlp.hook_pre"](block.mlp_in(block.norm_mlp(middle)))
    neurons = points["mlp.hook_post"](block.activation(before))
    return torch.cat([neurons, middle], -1)


def _after_block(
    block: Block, points: Mapping[str, Any], x: Float[Tensor, "batch position units"]
) -> Tensor:
    """Return the residual stream after a block [batch, position, d_model].

    ``x`` is the activation of the site of neurons of the same block; see `_neurons`.
    """
    neurons, stream = torch.tensor_split(x, [block.n_neurons], -1)
    written = points["hook_mlp_out"](block.mlp_out(neurons))
    behind: Tensor = points["hook_resid_post"](stream + written)
    return behind
