"""Answers: what a learned mask is to keep of the model's embeddings."""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from circuitry.models.metrics import ClassLogit, Metric, check_width

Answers = Callable[[Tensor], Tensor]
"""Embeddings [B, D] -> what is to be kept of them [B, answers], such as the logits of all classes."""


def class_answers(weights: Float[Tensor, "classes d"], label: int) -> Answers:
    """Return the answers that matter for one class: its lead over the mean of all classes, and all logits.

    Cosine logits less their mean; the lead counts as much as all of them together.

    Example:
        >>> settings = SearchSettings(answers=class_answers(weights, 3))    # for a metric that is not class_logit
    """
    every = all_answers(weights)

    def answers(embedding: Tensor) -> Tensor:
        logits = every(embedding)
        return torch.cat([logits[:, label : label + 1], logits / len(weights) ** 0.5], 1)

    return answers


def all_answers(weights: Float[Tensor, "classes d"]) -> Answers:
    """Return the cosine logits of all classes, less their mean: what a whole domain's circuit keeps."""
    centred = weights - weights.mean(0)

    def answers(embedding: Tensor) -> Tensor:
        check_width(weights, embedding)
        return F.normalize(embedding, dim=-1) @ centred.to(embedding).T

    return answers


def default_answers(metric: Metric) -> Answers:
    """Return what a mask keeps for a metric: of a `class_logit` its `class_answers`, of others the metric itself."""
    if isinstance(metric, ClassLogit) and len(metric.weights) > 1:
        return class_answers(metric.weights, metric.label)
    return lambda embedding: metric(embedding)[:, None]
