"""The networks of torchvision as chains.

Convolutional networks are described by links: module paths in the order in which they run (see `chain`). The chain of
the ViT is made by a function.
"""

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torchvision import models

from circuitry.encoder.chain import (
    Chain,
    Link,
    class_token,
    height_and_width,
    linked_stages,
    token_stages,
)
from circuitry.encoder.narrowing import in_order
from circuitry.encoder.stages import Stage
from circuitry.encoder.tokens import CLASS_TOKEN, TokenGrid
from circuitry.encoder.unit_kinds import EMBEDDING_FEATURE, FEATURE

_FLAT = partial(torch.flatten, start_dim=1)
_MEAN: Callable[[Tensor], Tensor] = partial(
    nn.functional.adaptive_avg_pool2d, output_size=(1, 1)
)
_RESNET_LAYERS = ("maxpool", "layer1", "layer2", "layer3", "layer4")
NETS: dict[type, tuple[Link, ...]] = {
    models.ResNet: (
        ("conv1", "bn1", "relu"),
        *_RESNET_LAYERS,
        ("avgpool", _FLAT),
        "fc",
    ),
    models.RegNet: (("stem",), "trunk_output", ("avgpool", _FLAT), "fc"),
    models.ConvNeXt: (
        "features",
        ("avgpool", "classifier.0", "classifier.1"),
        "classifier.2",
    ),
    models.EfficientNet: (
        "features",
        ("avgpool", _FLAT, "classifier.0"),
        "classifier.1",
    ),
    models.MobileNetV2: (
        "features",
        (_MEAN, _FLAT, "classifier.0"),
        "classifier.1",
    ),
    models.MobileNetV3: (
        "features",
        ("avgpool", _FLAT),
        ("classifier.0", "classifier.1", "classifier.2"),
        "classifier.3",
    ),
}
"""The links of each class of networks, including the last layer; see `chain`."""
USUAL_SIZE = 224
"""Height and width of images if the network has no setting for the size of images."""


def read_torchvision(net: nn.Module) -> Chain | None:
    """Return the chain of a network of torchvision. Return None for any other network."""
    if isinstance(net, models.VisionTransformer):
        return _vit_chain(net)
    for kind, links in NETS.items():
        if isinstance(net, kind):
            *stages, last = linked_stages(net, links)
            # The units of the last layer are outputs, not channels.
            stages.append(replace(last, units=EMBEDDING_FEATURE))
            settings = getattr(net, "preprocess_cfg", {})
            size = height_and_width(settings.get("size", USUAL_SIZE))
            return Chain(tuple(stages), size)
    return None


def _vit_chain(net: Any) -> Chain:
    layers = net.encoder.layers
    blocks = {
        f"encoder.layers.{name}": block for name, block in layers.named_children()
    }

    def entered(x: Tensor) -> Tensor:
        class_tokens = net.class_token.expand(len(x), -1, -1)
        tokens = torch.cat([class_tokens, net._process_input(x)], 1)
        # Dropout does nothing in evaluation mode, but its path names the site where positions have been added.
        placed: Tensor = net.encoder.dropout(tokens + net.encoder.pos_embedding)
        return placed

    to_answers = in_order(net.encoder.ln, class_token, net.heads)
    stages = (
        Stage("encoder.dropout", entered, FEATURE),
        *token_stages(blocks),
        Stage("heads", to_answers, EMBEDDING_FEATURE),
    )
    side = net.image_size // net.patch_size
    grid = TokenGrid((CLASS_TOKEN,), side, side)
    return Chain(stages, height_and_width(net.image_size), blocks, grid)
