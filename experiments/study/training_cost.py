"""What a training costs, in counted floating-point operations; `circuits.cost` counts those of attributions."""

from functools import cache
from typing import NamedTuple

from circuitry.circuits import OperationCounter
from circuitry.encoder import Encoder
from circuitry.models import register_model

import open_clip
import torch
from torch.nn.attention import SDPBackend, sdpa_kernel


class ModelOperations(NamedTuple):
    """Floating-point operations of a CLIP model on one image with its caption, and its size."""

    image: float
    """The forward pass of the image."""
    training_step: float
    """Forward and backward passes of the image and of the caption."""
    parameters: int
    """Weights."""
    embedding: int
    """Numbers of an image's embedding."""


@cache
def count_model(name: str) -> ModelOperations:
    """Count the operations of a model of open_clip's, or of one shipped here, by PyTorch's formulas.

    Two for each multiply-add of convolutions and matrix products, forward and backward; everything else is small beside
    them. The loss is left out: it grows with the batch and not with the model.

    Example:
        >>> round(count_model("RN50").image / 1e9, 1)  # GFLOP
        12.2
    """
    model = open_clip.create_model(register_model(name), pretrained_text=False, require_pretrained=False)
    images = torch.zeros(2, 3, *Encoder.from_tower(model.visual).image_size)  # two: batch norms need a variance
    texts = torch.zeros(2, model.context_length, dtype=torch.long)
    # PyTorch has a formula for matrix products, but not for fused attention on every device
    with sdpa_kernel(SDPBackend.MATH), OperationCounter() as counter:
        embedded = model.encode_image(images)
        image = counter.total
        (embedded.sum() + model.encode_text(texts).sum()).backward()
    weights = sum(weight.numel() for weight in model.parameters())
    return ModelOperations(image / 2, counter.total / 2, weights, embedded.shape[1])
