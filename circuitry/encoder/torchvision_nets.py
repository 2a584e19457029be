"""The networks of torchvision as chains: convolutional ones written down as links, a line each, and the ViT."""

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torchvision import models

from circuitry.encoder.chain import (
    Chain,
    Link,
    TransformerBlock,
    class_token,
    height_and_width,
    linked_stages,
)
from circuitry.encoder.narrowing import in_order
from circuitry.encoder.stages import Stage
from circuitry.encoder.tokens import CLASS_TOKEN, TokenGrid

_FLAT = partial(torch.flatten, start_dim=1)
_MEAN: Callable[[Tensor], Tensor] = partial(
    nn.functional.adaptive_avg_pool2d, output_size=(1, 1)
)
NETS: tuple[tuple[type, tuple[Link, ...]], ...] = (
    (
        models.ResNet,
        (
            ("conv1", "bn1", "relu"),
            "maxpool",
            "layer1",
            "layer2",
            "layer3",
            "layer4",
            ("avgpool", _FLAT),
            "fc",
        ),
    ),
    (models.RegNet, (("stem",), "trunk_output", ("avgpool", _FLAT), "fc")),
    (
        models.ConvNeXt,
        ("features", ("avgpool", "classifier.0", "classifier.1"), "classifier.2"),
    ),
    (
        models.EfficientNet,
        ("features", ("avgpool", _FLAT, "classifier.0"), "classifier.1"),
    ),
    (models.MobileNetV2, ("features", (_MEAN, _FLAT, "classifier.0"), "classifier.1")),
    (
        models.MobileNetV3,
        (
            "features",
            ("avgpool", _FLAT),
            ("classifier.0", "classifier.1", "classifier.2"),
            "classifier.3",
        ),
    ),
)
USUAL_SIZE = 224
"""Height and width of images, where the network does not say."""


def read_torchvision(net: nn.Module) -> Chain | None:
    """Return the chain of a network of torchvision; none of another network."""
    if isinstance(net, models.VisionTransformer):
        return _vit_chain(net)
    for kind, links in NETS:
        if isinstance(net, kind):
            size = getattr(net, "preprocess_cfg", {}).get(
                "size", (USUAL_SIZE, USUAL_SIZE)
            )
            return Chain(tuple(linked_stages(net, links)), height_and_width(size))
    return None


def _vit_chain(net: Any) -> Chain:
    blocks: dict[str, TransformerBlock] = {
        f"encoder.layers.{name}": block
        for name, block in net.encoder.layers.named_children()
    }

    def entered(x: Tensor) -> Tensor:
        tokens = torch.cat(
            [net.class_token.expand(len(x), -1, -1), net._process_input(x)], 1
        )
        placed: Tensor = net.encoder.dropout(tokens + net.encoder.pos_embedding)
        return placed

    stages = (
        Stage("encoder.dropout", entered, -1),
        *(Stage(site, block, -1) for site, block in blocks.items()),
        Stage("heads", in_order(net.encoder.ln, class_token, net.heads), 1),
    )
    side = net.image_size // net.patch_size
    return Chain(
        stages,
        (net.image_size, net.image_size),
        blocks,
        TokenGrid((CLASS_TOKEN,), side, side),
    )
