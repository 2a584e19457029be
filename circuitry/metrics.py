"""Metrics: embeddings -> one number per image. Any such callable will do; here is the study's."""

from collections.abc import Callable
from dataclasses import dataclass

import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from circuitry.errors import InputError

Metric = Callable[[Tensor], Tensor]
"""Embeddings [B, D] -> one number per image [B], each row by itself."""


@dataclass(frozen=True, eq=False)
class ClassLogit:
    """The cosine logit of one class, ``normalize(embedding) @ weights[label]``, without logit scale."""

    weights: Tensor
    """Text weights [K, D], normalised."""
    label: int

    def __call__(self, embedding: Float[Tensor, "batch d"]) -> Float[Tensor, " batch"]:
        return F.normalize(embedding, dim=-1) @ self.weights[self.label]


def class_logit(weights: Float[Tensor, "classes d"], label: int) -> ClassLogit:
    """Return the metric of the study: how much the encoder takes an image for class ``label``.

    Args:
        weights: Text weights [K, D], as `Clip.text_weights` makes them.
        label: Row of the class.

    Raises:
        InputError: when there is no such row.

    Example:
        >>> metric = class_logit(clip.text_weights(["cat", "dog"]), label=0)
        >>> metric(encoder(images))   # one number per image
    """
    if not 0 <= label < len(weights):
        raise InputError(f"A label is a row of the {len(weights)} text weights, but {label} was given.")
    return ClassLogit(weights, label)
