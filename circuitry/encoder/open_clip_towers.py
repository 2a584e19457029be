"""The image towers of open_clip as chains.

ResNet (`ModifiedResNet`): act1 act2 act3 avgpool, each layerN.i, attnpool (the embedding)
ViT (`VisionTransformer`): ln_pre, each transformer.resblocks.i, proj (pooled and projected: the embedding)
timm (`TimmModel`):        the stages of the trunk (`timm_nets`), head (normalised, pooled, projected: the embedding)
"""

from collections.abc import Iterator
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


def read_open_clip(tower: nn.Module) -> Chain | None:
    """Return the chain of an image tower of open_clip; none of another tower."""
    if isinstance(tower, ModifiedResNet):
        return Chain(tuple(_resnet_stages(tower)), height_and_width(tower.image_size))
    if isinstance(tower, VisionTransformer):
        blocks = {
            f"transformer.resblocks.{i}": block
            for i, block in enumerate(tower.transformer.resblocks)
        }
        grid = TokenGrid((CLASS_TOKEN,), *tower.grid_size)
        return Chain(
            tuple(_vit_stages(tower)), height_and_width(tower.image_size), blocks, grid
        )
    if isinstance(tower, TimmModel):
        head = Stage(
            "head",
            in_order(last_norm(tower.trunk), tower.trunk.forward_head, tower.head),
            1,
        )
        stages, size = (
            (*trunk_stages(tower.trunk, "trunk."), head),
            height_and_width(tower.image_size),
        )
        return Chain(
            stages, size, trunk_blocks(tower.trunk, "trunk."), trunk_grid(tower.trunk)
        )
    return None


def _resnet_stages(tower: ModifiedResNet) -> Iterator[Stage]:
    for i in "123":
        conv, norm, act = (
            getattr(tower, f"{part}{i}") for part in ("conv", "bn", "act")
        )
        yield Stage(f"act{i}", in_order(conv, norm, act), 1)
    yield Stage("avgpool", tower.avgpool, 1)
    for layer in ("layer1", "layer2", "layer3", "layer4"):
        for j, block in enumerate(getattr(tower, layer)):
            yield Stage(
                f"{layer}.{j}", block, 1, narrow=partial(narrow_bottleneck, block)
            )
    pool = tower.attnpool
    used = in_order(
        partial(pooled_heads, pool), partial(project_heads, pool)
    )  # the module has a query per position
    yield Stage("attnpool", pool, 1, used, partial(narrow_attention_pool, pool))


def _vit_stages(tower: VisionTransformer) -> Iterator[Stage]:
    yield Stage("ln_pre", tower._embeds, -1)
    for i, block in enumerate(tower.transformer.resblocks):
        run = (
            block if tower.transformer.batch_first else partial(_sequence_first, block)
        )
        yield Stage(f"transformer.resblocks.{i}", run, -1)

    def pooled(x: Tensor) -> Tensor:
        features: Tensor = tower._pool(x)[0]
        return features if tower.proj is None else features @ tower.proj

    yield Stage("proj", pooled, 1)


def _sequence_first(block: nn.Module, x: Tensor) -> Tensor:
    y: Tensor = block(x.transpose(0, 1).contiguous())
    return y.transpose(0, 1)
