"""The image towers of open_clip as chains, with these sites:

ResNet (`ModifiedResNet`): act1 act2 act3 avgpool, each layerN.i, attnpool (the embedding)
ViT (`VisionTransformer`): ln_pre, each transformer.resblocks.i, proj (pooled and projected: the embedding)
timm (`TimmModel`):        the sites of a network of timm, called the trunk (`timm_nets`), and head (normalised, pooled,
                           projected: the embedding)
"""

from collections.abc import Iterator, Mapping
from functools import partial

from open_clip.modified_resnet import ModifiedResNet
from open_clip.timm_model import TimmModel
from open_clip.transformer import VisionTransformer
from torch import Tensor, nn

from circuitry.encoder.chain import Chain, height_and_width
from circuitry.encoder.narrowing import (
    in_order,
    narrow_attention_pool,
    narrow_bottleneck,
    pooled_heads,
    project_heads,
)
from circuitry.encoder.stages import Stage
from circuitry.encoder.timm_nets import (
    last_norm,
    trunk_blocks,
    trunk_grid,
    trunk_stages,
)
from circuitry.encoder.tokens import CLASS_TOKEN, TokenGrid
from circuitry.encoder.unit_kinds import CHANNEL, EMBEDDING_FEATURE, FEATURE


def read_open_clip(tower: nn.Module) -> Chain | None:
    """Return the chain of an image tower of open_clip. Return None for any other tower."""
    if isinstance(tower, ModifiedResNet):
        return Chain(tuple(_resnet_stages(tower)), height_and_width(tower.image_size))
    if isinstance(tower, VisionTransformer):
        modules = tower.transformer.resblocks
        blocks = {f"transformer.resblocks.{i}": m for i, m in enumerate(modules)}
        grid = TokenGrid((CLASS_TOKEN,), *tower.grid_size)
        size = height_and_width(tower.image_size)
        return Chain(tuple(_vit_stages(tower, blocks)), size, blocks, grid)
    if isinstance(tower, TimmModel):
        trunk = tower.trunk
        to_embedding = in_order(last_norm(trunk), trunk.forward_head, tower.head)
        head = Stage("head", to_embedding, EMBEDDING_FEATURE)
        stages = (*trunk_stages(trunk, "trunk."), head)
        size = height_and_width(tower.image_size)
        return Chain(stages, size, trunk_blocks(trunk, "trunk."), trunk_grid(trunk))
    return None


def _resnet_stages(tower: ModifiedResNet) -> Iterator[Stage]:
    yield Stage("act1", in_order(tower.conv1, tower.bn1, tower.act1), CHANNEL)
    yield Stage("act2", in_order(tower.conv2, tower.bn2, tower.act2), CHANNEL)
    yield Stage("act3", in_order(tower.conv3, tower.bn3, tower.act3), CHANNEL)
    yield Stage("avgpool", tower.avgpool, CHANNEL)
    for layer in ("layer1", "layer2", "layer3", "layer4"):
        for j, block in enumerate(getattr(tower, layer)):
            narrow = partial(narrow_bottleneck, block)
            yield Stage(f"{layer}.{j}", block, CHANNEL, narrow=narrow)
    pool = tower.attnpool
    # The module computes the result of every position, but the embedding is the result of the first alone.
    fast = in_order(partial(pooled_heads, pool), partial(project_heads, pool))
    narrow = partial(narrow_attention_pool, pool)
    yield Stage("attnpool", pool, EMBEDDING_FEATURE, fast, narrow)


def _vit_stages(
    tower: VisionTransformer, blocks: Mapping[str, nn.Module]
) -> Iterator[Stage]:
    yield Stage("ln_pre", tower._embeds, FEATURE)
    batch_first = tower.transformer.batch_first
    for site, block in blocks.items():
        # Older open_clip towers run blocks on [L, B, C]; sites are [B, L, C] for every tower.
        run = block if batch_first else partial(_sequence_first, block)
        yield Stage(site, run, FEATURE)

    def pooled(x: Tensor) -> Tensor:
        # `_pool` also returns the tokens, as its second result.
        features: Tensor = tower._pool(x)[0]
        if tower.proj is not None:
            features = features @ tower.proj
        return features

    yield Stage("proj", pooled, EMBEDDING_FEATURE)


def _sequence_first(block: nn.Module, x: Tensor) -> Tensor:
    # Contiguous, because the tower's own copy is contiguous, and another layout would round differently.
    y: Tensor = block(x.transpose(0, 1).contiguous())
    return y.transpose(0, 1)
