"""The networks of timm as chains.

A network of timm may be a tower by itself, or the trunk of an open_clip tower. A trunk has no classifier. Instead, the
open_clip tower adds a head that computes the embedding.

Convolutional networks and Swin are described by links: module paths in the order in which they run (see `chain`). To
add such a network, add a line to `FEATURES`. In timm, MobileNet v1, MobileNet v2 and MNASNet are of the class
EfficientNet, and MobileCLIP's FastViT is of the class FastVit. ViTs may have learned positions, rotary embeddings (EVA,
EVA-02, PE) or biases of attention scores by relative position (`PlacedBlock`).

If a network is a tower by itself, its last stage is its classifier, and the stage before the classifier is its pooling.
If the network has no classifier, the pooling is the last stage. A ViT has a single stage for pooling and classifier.
"""

from collections.abc import Iterator
from functools import partial
from typing import Any

import timm.models as timm_models
import torch
from timm.data import resolve_model_data_config
from torch import Tensor, nn

from circuitry.encoder.chain import (
    Chain,
    Link,
    TransformerBlock,
    linked_stages,
    token_stages,
)
from circuitry.encoder.narrowing import in_order
from circuitry.encoder.stages import PlacedBlock, Stage, nowhere
from circuitry.encoder.tokens import CLASS_TOKEN, TokenGrid, register_names
from circuitry.encoder.unit_kinds import CHANNEL, EMBEDDING_FEATURE, FEATURE
from circuitry.runs.errors import InputError

SWIN = (timm_models.SwinTransformer, timm_models.SwinTransformerV2)
_RESNET_LAYERS = ("maxpool", "layer1", "layer2", "layer3", "layer4")
FEATURES: dict[type, tuple[Link, ...]] = {
    timm_models.EfficientNet: (
        ("conv_stem", "bn1"),
        "blocks",
        ("conv_head", "bn2"),
    ),
    timm_models.MobileNetV3: (("conv_stem", "bn1"), "blocks"),
    timm_models.ResNet: (("conv1", "bn1", "act1"), *_RESNET_LAYERS),
    timm_models.RegNet: ("stem", "s1", "s2", "s3", "s4", "final_conv"),
    timm_models.ConvNeXt: (("stem",), "stages"),
    timm_models.FastVit: (("stem",), "stages", "final_conv"),
    timm_models.SwinTransformer: ("patch_embed", "layers"),
    timm_models.SwinTransformerV2: ("patch_embed", "layers"),
}
"""The links (see `chain`) of each class of networks, from the image up to the last feature map."""
VITS = (
    timm_models.VisionTransformer,
    timm_models.Eva,
    timm_models.VisionTransformerRelPos,
)


def read_timm(net: nn.Module) -> Chain | None:
    """Return the chain of a network of timm. Return None for any other network."""
    if not isinstance(net, VITS) and _links(net) is None:
        return None
    network: Any = net
    height, width = resolve_model_data_config(network)["input_size"][1:]
    stages = (*trunk_stages(net, ""), *_ends(network))
    return Chain(stages, (height, width), trunk_blocks(net, ""), trunk_grid(net))


def trunk_stages(trunk: Any, path: str) -> Iterator[Stage]:
    """Yield the stages of a network of timm up to its last feature map or its last block.

    Args:
        trunk: The network.
        path: Prefix of the names of sites: ``"trunk."`` for a trunk of open_clip, otherwise empty.
    """
    if isinstance(trunk, timm_models.VisionTransformer):
        entry = in_order(
            trunk.patch_embed, trunk._pos_embed, trunk.patch_drop, trunk.norm_pre
        )
        yield Stage(f"{path}norm_pre", entry, FEATURE)
    elif isinstance(trunk, timm_models.Eva):

        def placed(x: Tensor) -> Tensor:
            # The second result is the rotary embedding, which each block gets as a `PlacedBlock`.
            tokens: Tensor = trunk._pos_embed(trunk.patch_embed(x))[0]
            return tokens

        yield Stage(f"{path}norm_pre", in_order(placed, trunk.norm_pre), FEATURE)
    elif isinstance(trunk, timm_models.VisionTransformerRelPos):
        entry = in_order(trunk.patch_embed, partial(_with_class_token, trunk))
        yield Stage(f"{path}patch_embed", entry, FEATURE)
    elif (links := _links(trunk)) is not None:
        axis = -1 if isinstance(trunk, SWIN) else 1
        yield from linked_stages(trunk, links, axis, path)
    else:
        known = ", ".join(kind.__name__ for kind in (*VITS, *FEATURES))
        raise InputError(
            f"No adapter for a TimmModel with a {type(trunk).__name__} trunk; known are those of {known}: "
            "give the stages to Encoder.from_stages, or add a reader with register_architecture."
        )
    yield from token_stages(trunk_blocks(trunk, path))


def trunk_blocks(trunk: Any, path: str) -> dict[str, TransformerBlock]:
    """Return the transformer blocks of a ViT, by the site at which each block ends.

    Return an empty dictionary for a network that is not a ViT.

    Args:
        trunk: The network.
        path: Prefix of the names of sites: ``"trunk."`` for a trunk of open_clip, otherwise empty.
    """
    if not isinstance(trunk, VITS):
        return {}
    blocks = dict[str, TransformerBlock]()
    for i, block in enumerate(trunk.blocks):
        if isinstance(trunk, timm_models.Eva):
            block = PlacedBlock(block, "rope", partial(_rotary, trunk, i))
        elif isinstance(trunk, timm_models.VisionTransformerRelPos):
            # All blocks may share a bias of attention scores. Otherwise each block's attention has its own bias.
            shared = trunk.shared_rel_pos
            places = nowhere if shared is None else shared.get_bias
            block = PlacedBlock(block, "shared_rel_pos", places)
        blocks[f"{path}blocks.{i}"] = block
    return blocks


def trunk_grid(trunk: Any) -> TokenGrid | None:
    """Return the grid of a ViT's tokens in the image. Return None for a network that is not a ViT."""
    if not isinstance(trunk, VITS):
        return None
    first = () if trunk.cls_token is None else (CLASS_TOKEN,)
    registers = register_names(trunk.num_prefix_tokens - len(first))
    return TokenGrid((*first, *registers), *trunk.patch_embed.grid_size)


def last_norm(trunk: Any) -> nn.Module:
    """Return the norm between the last feature map and the head. If there is no such norm, return the identity."""
    # The `norm` of a ConvNeXt may belong to its head. The norm before the head is called `norm_pre`.
    name = "norm_pre" if isinstance(trunk, timm_models.ConvNeXt) else "norm"
    norm: nn.Module = getattr(trunk, name, nn.Identity())
    return norm


def _ends(net: Any) -> Iterator[Stage]:
    """Yield the stages after the last feature map or block of a network that is a tower by itself."""
    if isinstance(net, VITS):
        answered = in_order(last_norm(net), net.forward_head)
        yield Stage("head", answered, EMBEDDING_FEATURE)
        return
    pooled = in_order(last_norm(net), partial(net.forward_head, pre_logits=True))
    classifier = net.get_classifier()
    is_last = isinstance(classifier, nn.Identity)
    name = "head" if hasattr(net, "head") else "global_pool"
    yield Stage(name, pooled, EMBEDDING_FEATURE if is_last else CHANNEL)
    if not is_last:
        # The site of the classifier is named by its path, which timm does not tell.
        names = {module: name for name, module in net.named_modules()}
        yield Stage(names[classifier], classifier, EMBEDDING_FEATURE)


def _links(trunk: object) -> tuple[Link, ...] | None:
    for kind, links in FEATURES.items():
        if isinstance(trunk, kind):
            return links
    return None


def _rotary(trunk: Any, block: int) -> Tensor | None:
    """Return the rotary embedding that the network gives to the block with index ``block``, or None."""
    if trunk.rope is None:
        return None
    # Without a fixed shape the embedding is computed for the grid of this image size, as in the trunk's own forward.
    if getattr(trunk.rope, "feat_shape", None) is None:
        rotary: Tensor = trunk.rope.get_embed(shape=trunk.patch_embed.grid_size)
    else:
        rotary = trunk.rope.get_embed()
    # Mixed rotary embeddings are learned for each block: [block, ...].
    return rotary[block] if trunk.rope_mixed else rotary


def _with_class_token(trunk: Any, x: Tensor) -> Tensor:
    if trunk.cls_token is None:
        return x
    return torch.cat((trunk.cls_token.expand(len(x), -1, -1), x), 1)
