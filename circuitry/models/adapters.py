"""Architectures as chains of stages. This and `narrowing` are the only files that name an architecture.

A new architecture is one function here: it yields a `Stage` per site, built from the tower's own modules.

ResNet (`ModifiedResNet`): act1 act2 act3 avgpool, each layerN.i, attnpool (the embedding)
ViT (`VisionTransformer`): ln_pre, each transformer.resblocks.i, proj (pooled and projected: the embedding)
timm (`TimmModel`):        trunk stem, every block, head (normalised, pooled, projected: the embedding)
timm's ViTs are those with positions of their own, rotary ones (EVA, EVA-02, PE) and biases of scores (`PlacedBlock`)
timm's EfficientNets:      bn1 (the stem), each blocks.i.j, bn2, then pooled and, where there is one, the classifier

In timm's hierarchical trunks a stage's down-sampling belongs to its first block. An EfficientNet may be the trunk of a
`TimmModel` or a network by itself, a classifier; MobileNet v1 and v2 and MNASNet are of the same class.
"""

from collections.abc import Iterator
from functools import partial
from typing import Any

import timm.models as timm_models
import torch
from open_clip.modified_resnet import ModifiedResNet
from open_clip.timm_model import TimmModel
from open_clip.transformer import VisionTransformer
from timm.data import resolve_model_data_config
from torch import Tensor, nn

from circuitry.models.narrowing import fast_attention_pool, in_order, narrow_attention_pool, narrow_bottleneck
from circuitry.models.stages import PlacedBlock, Stage
from circuitry.models.tokens import CLASS_TOKEN, TokenGrid
from circuitry.runs.errors import InputError
from circuitry.runs.given import checked

TransformerBlock = nn.Module | PlacedBlock

SUPPORTED_TOWERS = (
    "open_clip ModifiedResNet",
    "open_clip VisionTransformer",
    "open_clip TimmModel with a trunk of Swin, Swin v2, ConvNeXt, VisionTransformer, VisionTransformerRelPos, Eva or "
    "EfficientNet",
    "timm EfficientNet",
)
"""What can be wrapped, in words."""


def encoder_parts(tower: nn.Module) -> tuple[tuple[Stage, ...], tuple[int, int]]:
    """Return the stages of an open_clip image tower and its image size (height, width), or raise `InputError`."""
    if isinstance(tower, ModifiedResNet):
        stages = _resnet_stages(tower)
    elif isinstance(tower, VisionTransformer):
        stages = _vit_stages(tower)
    elif isinstance(tower, TimmModel):
        stages = _timm_stages(tower)
    elif isinstance(tower, timm_models.EfficientNet):
        height, width = resolve_model_data_config(tower)["input_size"][1:]
        return tuple(_classifier_stages(tower)), (height, width)
    else:
        raise _unsupported(type(tower).__name__)
    size = tower.image_size
    return tuple(stages), (size, size) if isinstance(size, int) else (size[0], size[1])


def residual_blocks(tower: nn.Module) -> dict[str, TransformerBlock]:
    """Return the transformer blocks of a tower by the site that each ends at; none of a tower without them."""
    if isinstance(tower, VisionTransformer):
        return {f"transformer.resblocks.{i}": block for i, block in enumerate(tower.transformer.resblocks)}
    if not isinstance(tower, TimmModel):
        return {}
    trunk: Any = tower.trunk
    blocks: dict[int, TransformerBlock] = {}
    if isinstance(trunk, timm_models.VisionTransformer):
        blocks = dict(enumerate(trunk.blocks))
    elif isinstance(trunk, timm_models.Eva):
        blocks = {i: PlacedBlock(one, "rope", partial(_rotary, trunk, i)) for i, one in enumerate(trunk.blocks)}
    elif isinstance(trunk, timm_models.VisionTransformerRelPos):
        bias = partial(_shared_bias, trunk)
        blocks = {i: PlacedBlock(one, "shared_rel_pos", bias) for i, one in enumerate(trunk.blocks)}
    return {f"trunk.blocks.{i}": block for i, block in blocks.items()}


@checked
def token_grid(tower: nn.Module) -> TokenGrid:
    """Return where the tokens of a transformer tower lie.

    Raises:
        InputError: for a tower without transformer blocks, whose positions are pixels of feature maps.
    """
    if isinstance(tower, VisionTransformer):
        return TokenGrid((CLASS_TOKEN,), *tower.grid_size)
    if not residual_blocks(tower):
        raise InputError(
            f"Tokens are those of transformers, but a {type(tower).__name__} has none: its positions are those of its "
            "feature maps."
        )
    trunk: Any = tower.trunk
    first = () if trunk.cls_token is None else (CLASS_TOKEN,)
    registers = tuple(f"register {i + 1}" for i in range(trunk.num_prefix_tokens - len(first)))
    return TokenGrid((*first, *registers), *trunk.patch_embed.grid_size)


def _rotary(trunk: Any, block: int) -> Tensor | None:
    """Return the rotary embedding of a block, as the trunk itself makes it."""
    if trunk.rope is None:
        return None
    known = getattr(trunk.rope, "feat_shape", None) is not None
    found: Tensor = trunk.rope.get_embed() if known else trunk.rope.get_embed(shape=trunk.patch_embed.grid_size)
    return found[block] if trunk.rope_mixed else found


def _shared_bias(trunk: Any) -> Tensor | None:
    """Return the bias of scores that all blocks share, if they do."""
    return None if trunk.shared_rel_pos is None else trunk.shared_rel_pos.get_bias()


def _unsupported(name: str) -> InputError:
    return InputError(
        f"No adapter for a tower of type {name}; supported are: {'; '.join(SUPPORTED_TOWERS)}. "
        "Pass the image tower of a CLIP model (model.visual), or add an adapter to circuitry/models/adapters.py."
    )


def _resnet_stages(tower: ModifiedResNet) -> Iterator[Stage]:
    for i in "123":
        conv, norm, act = (getattr(tower, f"{part}{i}") for part in ("conv", "bn", "act"))
        yield Stage(f"act{i}", in_order(conv, norm, act), 1)
    yield Stage("avgpool", tower.avgpool, 1)
    for layer in ("layer1", "layer2", "layer3", "layer4"):
        for j, block in enumerate(getattr(tower, layer)):
            yield Stage(f"{layer}.{j}", block, 1, narrow=partial(narrow_bottleneck, block))
    pool = tower.attnpool
    yield Stage("attnpool", pool, 1, partial(fast_attention_pool, pool), partial(narrow_attention_pool, pool))


def _vit_stages(tower: VisionTransformer) -> Iterator[Stage]:
    yield Stage("ln_pre", tower._embeds, -1)
    for i, block in enumerate(tower.transformer.resblocks):
        run = block if tower.transformer.batch_first else partial(_sequence_first, block)
        yield Stage(f"transformer.resblocks.{i}", run, -1)

    def pooled(x: Tensor) -> Tensor:
        features: Tensor = tower._pool(x)[0]
        return features if tower.proj is None else features @ tower.proj

    yield Stage("proj", pooled, 1)


def _sequence_first(block: nn.Module, x: Tensor) -> Tensor:
    y: Tensor = block(x.transpose(0, 1).contiguous())
    return y.transpose(0, 1)


def _timm_stages(tower: TimmModel) -> Iterator[Stage]:
    trunk, norm = tower.trunk, tower.trunk.norm if hasattr(tower.trunk, "norm") else nn.Identity()
    if isinstance(trunk, timm_models.VisionTransformer):
        yield Stage(
            "trunk.norm_pre", in_order(trunk.patch_embed, trunk._pos_embed, trunk.patch_drop, trunk.norm_pre), -1
        )
    elif isinstance(trunk, timm_models.Eva):
        yield Stage("trunk.norm_pre", in_order(trunk.patch_embed, partial(_placed, trunk), trunk.norm_pre), -1)
    elif isinstance(trunk, timm_models.VisionTransformerRelPos):
        yield Stage("trunk.patch_embed", in_order(trunk.patch_embed, partial(_with_class_token, trunk)), -1)
    elif isinstance(trunk, timm_models.ConvNeXt):
        yield Stage("trunk.stem", trunk.stem, 1)
        yield from _hierarchical("trunk.stages", trunk.stages, unit_dim=1)
        norm = trunk.norm_pre
    elif isinstance(trunk, timm_models.SwinTransformer | timm_models.SwinTransformerV2):
        yield Stage("trunk.patch_embed", trunk.patch_embed, -1)
        yield from _hierarchical("trunk.layers", trunk.layers, unit_dim=-1)
    elif isinstance(trunk, timm_models.EfficientNet):
        yield from _efficientnet_stages(trunk, "trunk.")  # the norm of the last feature map is the site trunk.bn2
    else:
        raise _unsupported(f"TimmModel with a {type(trunk).__name__} trunk")
    for site, block in residual_blocks(tower).items():
        yield Stage(site, block, -1)
    yield Stage("head", in_order(norm, trunk.forward_head, tower.head), 1)


def _placed(trunk: Any, x: Tensor) -> Tensor:
    tokens: Tensor = trunk._pos_embed(x)[0]  # and the rotary embedding, which blocks ask for themselves
    return tokens


def _with_class_token(trunk: Any, x: Tensor) -> Tensor:
    return x if trunk.cls_token is None else torch.cat((trunk.cls_token.expand(len(x), -1, -1), x), 1)


def _hierarchical(path: str, levels: Any, unit_dim: int) -> Iterator[Stage]:
    for i, level in enumerate(levels):
        for j, block in enumerate(level.blocks):
            run = in_order(level.downsample, block) if j == 0 else block
            yield Stage(f"{path}.{i}.blocks.{j}", run, unit_dim)


def _efficientnet_stages(trunk: nn.Module, path: str) -> Iterator[Stage]:
    """Yield the stages up to the last feature map; ``path`` goes before the modules' names."""
    net: Any = trunk
    yield Stage(f"{path}bn1", in_order(net.conv_stem, net.bn1), 1)
    for i, level in enumerate(net.blocks):
        for j, block in enumerate(level):
            yield Stage(f"{path}blocks.{i}.{j}", block, 1)
    yield Stage(f"{path}bn2", in_order(net.conv_head, net.bn2), 1)


def _classifier_stages(net: Any) -> Iterator[Stage]:
    yield from _efficientnet_stages(net, "")
    yield Stage("global_pool", partial(net.forward_head, pre_logits=True), 1)
    if not isinstance(net.classifier, nn.Identity):
        yield Stage("classifier", net.classifier, 1)
