"""The networks of timm as chains, by themselves or as the trunk of an open_clip tower.

Convolutional networks and Swin are written down as links (`chain`): a new one is a line of `FEATURES`. MobileNet v1 and
v2 and MNASNet are EfficientNets; MobileCLIP's FastViT is a FastVit. timm's ViTs are those with positions of their own,
rotary ones (EVA, EVA-02, PE) and biases of scores (`PlacedBlock`).

A network by itself ends with what it pools, and its classifier where there is one; a ViT with one stage of both.
"""

from collections.abc import Iterator
from functools import partial
from typing import Any

import timm.models as timm_models
import torch
from timm.data import resolve_model_data_config
from torch import Tensor, nn

from circuitry.encoder.chain import Chain, Link, TransformerBlock, linked_stages
from circuitry.encoder.narrowing import in_order
from circuitry.encoder.stages import PlacedBlock, Stage, nowhere
from circuitry.encoder.tokens import CLASS_TOKEN, TokenGrid
from circuitry.runs.errors import InputError

SWIN = (timm_models.SwinTransformer, timm_models.SwinTransformerV2)
FEATURES: tuple[tuple[tuple[type, ...], tuple[Link, ...]], ...] = (
    (
        (timm_models.EfficientNet,),
        (("conv_stem", "bn1"), "blocks", ("conv_head", "bn2")),
    ),
    ((timm_models.MobileNetV3,), (("conv_stem", "bn1"), "blocks")),
    (
        (timm_models.ResNet,),
        (("conv1", "bn1", "act1"), "maxpool", "layer1", "layer2", "layer3", "layer4"),
    ),
    ((timm_models.RegNet,), ("stem", "s1", "s2", "s3", "s4", "final_conv")),
    ((timm_models.ConvNeXt,), (("stem",), "stages")),
    ((timm_models.FastVit,), (("stem",), "stages", "final_conv")),
    (SWIN, ("patch_embed", "layers")),
)
"""Up to the last feature map."""
VITS = (
    timm_models.VisionTransformer,
    timm_models.Eva,
    timm_models.VisionTransformerRelPos,
)


def read_timm(net: nn.Module) -> Chain | None:
    """Return the chain of a network of timm; none of another network."""
    if not isinstance(net, VITS) and _links(net) is None:
        return None
    found: Any = net
    height, width = resolve_model_data_config(found)["input_size"][1:]
    stages = (*trunk_stages(net, ""), *_ends(found))
    return Chain(stages, (height, width), trunk_blocks(net, ""), trunk_grid(net))


def trunk_stages(trunk: Any, path: str) -> Iterator[Stage]:
    """Yield the stages up to the last feature map or token stream; ``path`` goes before the modules' names."""
    if isinstance(trunk, timm_models.VisionTransformer):
        entry = in_order(
            trunk.patch_embed, trunk._pos_embed, trunk.patch_drop, trunk.norm_pre
        )
        yield Stage(f"{path}norm_pre", entry, -1)
    elif isinstance(trunk, timm_models.Eva):
        placed = in_order(
            trunk.patch_embed, lambda x: trunk._pos_embed(x)[0]
        )  # blocks ask for the rotary embedding
        yield Stage(f"{path}norm_pre", in_order(placed, trunk.norm_pre), -1)
    elif isinstance(trunk, timm_models.VisionTransformerRelPos):
        yield Stage(
            f"{path}patch_embed",
            in_order(trunk.patch_embed, partial(_with_class_token, trunk)),
            -1,
        )
    elif (links := _links(trunk)) is not None:
        yield from linked_stages(
            trunk, links, -1 if isinstance(trunk, SWIN) else 1, path
        )
    else:
        known = [
            kind.__name__
            for kinds in (VITS, *(kinds for kinds, _ in FEATURES))
            for kind in kinds
        ]
        raise InputError(
            f"No adapter for a TimmModel with a {type(trunk).__name__} trunk; known are those of {', '.join(known)}: "
            "give the stages to Encoder.from_stages, or add a reader with register_architecture."
        )
    for site, block in trunk_blocks(trunk, path).items():
        yield Stage(site, block, -1)


def trunk_blocks(trunk: Any, path: str) -> dict[str, TransformerBlock]:
    """Return the transformer blocks of a ViT by the site that each ends at; none of another trunk."""
    if isinstance(trunk, timm_models.Eva):
        blocks = [
            PlacedBlock(one, "rope", partial(_rotary, trunk, i))
            for i, one in enumerate(trunk.blocks)
        ]
    elif isinstance(trunk, timm_models.VisionTransformerRelPos):
        shared = (
            trunk.shared_rel_pos
        )  # the bias of scores that all blocks share, if they do
        places = nowhere if shared is None else shared.get_bias
        blocks = [PlacedBlock(one, "shared_rel_pos", places) for one in trunk.blocks]
    else:
        blocks = list(trunk.blocks) if isinstance(trunk, VITS) else []
    return {f"{path}blocks.{i}": block for i, block in enumerate(blocks)}


def trunk_grid(trunk: Any) -> TokenGrid | None:
    """Return where the tokens of a ViT lie; nothing for another trunk."""
    if not isinstance(trunk, VITS):
        return None
    first = () if trunk.cls_token is None else (CLASS_TOKEN,)
    registers = tuple(
        f"register {i + 1}" for i in range(trunk.num_prefix_tokens - len(first))
    )
    return TokenGrid((*first, *registers), *trunk.patch_embed.grid_size)


def last_norm(trunk: Any) -> nn.Module:
    """Return the norm between the last feature map and the head, if there is one."""
    norm: nn.Module = getattr(
        trunk,
        "norm_pre" if isinstance(trunk, timm_models.ConvNeXt) else "norm",
        nn.Identity(),
    )
    return norm


def _ends(net: Any) -> Iterator[Stage]:
    """Yield what follows the last feature map of a network by itself."""
    if isinstance(net, VITS):
        yield Stage("head", in_order(last_norm(net), net.forward_head), 1)
        return
    pooled = in_order(last_norm(net), partial(net.forward_head, pre_logits=True))
    yield Stage("head" if hasattr(net, "head") else "global_pool", pooled, 1)
    classifier = net.get_classifier()
    if not isinstance(classifier, nn.Identity):
        yield Stage(
            next(name for name, module in net.named_modules() if module is classifier),
            classifier,
            1,
        )


def _links(trunk: object) -> tuple[Link, ...] | None:
    return next((links for kinds, links in FEATURES if isinstance(trunk, kinds)), None)


def _rotary(trunk: Any, block: int) -> Tensor | None:
    """Return the rotary embedding of a block, as the trunk itself makes it."""
    if trunk.rope is None:
        return None
    known = getattr(trunk.rope, "feat_shape", None) is not None
    found: Tensor = (
        trunk.rope.get_embed()
        if known
        else trunk.rope.get_embed(shape=trunk.patch_embed.grid_size)
    )
    return found[block] if trunk.rope_mixed else found


def _with_class_token(trunk: Any, x: Tensor) -> Tensor:
    return (
        x
        if trunk.cls_token is None
        else torch.cat((trunk.cls_token.expand(len(x), -1, -1), x), 1)
    )
