"""Metrics: embeddings -> one number per image. Any such callable will do; here is the study's."""

import logging
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor
from torch.utils.weak import WeakIdKeyDictionary

from circuitry.encoder.doubles import in_double
from circuitry.runs.errors import InputError
from circuitry.runs.given import Natural, Positive, checked

log = logging.getLogger(__name__)
UNIT = 0.02
"""How far the length of a text weight may be from 1, in any precision."""
SCALE = 100.0
"""What cosines are multiplied with before the softmax: CLIP's scale of logits at the end of its training."""
NO_ANSWER = -1
"""In place of the row of a class: the image gets none."""

Metric = Callable[[Tensor], Tensor]
"""Embeddings [B, D] -> one number per image [B], each row by itself."""

MetricOfClass = Callable[[Tensor, int], Metric]
"""Text weights [K, D] and the row of a class -> the metric of that class."""


@dataclass(frozen=True, eq=False)
class ClassLogit:
    """The cosine logit of one class, ``normalize(embedding) @ weights[label]``, without logit scale."""

    weights: Tensor = field(repr=False)
    """A row [D] for every class [K, D]: text weights (normalised ones make the logit a cosine), or margins."""
    label: int
    name: str = "logit"
    """For provenance."""
    scale: float | None = None
    """What makes logits of cosines, and so probabilities (default: the model's own, see `Encoder.scale`).

    The logit and its gradients do not depend on it. Log-odds and probabilities do: `own_part`, ``kl`` of curves, and
    the probabilities of `lesion`.
    """
    stretch: float = field(default=1.0, repr=False)
    """How many times longer the rows are than those that the scale belongs to: margins are longer than texts."""

    @property
    def made_with(self) -> dict[str, Any]:
        """The label, and numbers that differ for other weights of all classes or of its own class."""
        every = self.weights.detach()
        return {
            "label": self.label,
            "class_weights": _sketch(every[self.label]),
            "text_weights": _sketch(every),
        }

    def log_answers(
        self, embedding: Float[Tensor, "batch d"]
    ) -> Float[Tensor, "batch classes"]:
        """Return log p of each class: the softmax over the classes of the scaled cosines, in double precision.

        A metric without a scale takes CLIP's usual one; a task gives it that of its model (`at_model_scale`).
        """
        check_width(self.weights, embedding)
        direction = F.normalize(in_double(embedding), dim=-1)
        scale = (SCALE if self.scale is None else self.scale) / self.stretch
        rows = in_double(self.weights).to(direction.device)
        return F.log_softmax(scale * direction @ rows.T, dim=-1)

    def is_given(
        self, answers: Float[Tensor, "*runs classes"]
    ) -> Bool[Tensor, "*runs"]:
        """Return which images get the class, by their answers; see `given_classes`."""
        return given_classes(answers) == self.label

    def __call__(self, embedding: Float[Tensor, "batch d"]) -> Float[Tensor, " batch"]:
        check_width(self.weights, embedding)
        # 1e-12 keeps an embedding of zeros at zero; float16 has no number as small.
        smallest = max(1e-12, torch.finfo(embedding.dtype).tiny)
        direction = F.normalize(embedding, dim=-1, eps=smallest)
        row = self.weights[self.label]
        if row.is_inference() and not torch.is_inference_mode_enabled():
            # Gradients do not flow past what was made in inference mode.
            row = row.clone()
        return direction @ row.to(direction)


def given_classes(answers: Float[Tensor, "*runs classes"]) -> Int[Tensor, "*runs"]:
    """Return the row of the class that each image gets, or `NO_ANSWER`: the one place that decides what an answer is.

    The answer is the class above all others. Where two share the first place, and where an answer is NaN, as of an
    embedding that is not finite, none is given: the first of equals would be right by its place in the list.
    """
    # NaN where one of the answers is NaN, which equals nothing.
    highest, rows = answers.max(-1, keepdim=True)
    is_one = (answers == highest).sum(-1) == 1
    return rows[..., 0].masked_fill(~is_one, NO_ANSWER)


@checked
def class_logit(
    weights: Float[Tensor, "classes d"], label: Natural, scale: Positive | None = None
) -> ClassLogit:
    """Return the metric of the study: how much the encoder takes an image for class ``label``.

    It is the cosine of an embedding [D] with the class's text, ``normalize(embedding) @ weights[label]``, in [-1, 1]
    and without CLIP's logit scale.

    Args:
        weights: Text weights [K, D], as `Clip.text_weights` makes them; they are computed with in the precision and
            on the device of the embedding.
        scale: What makes probabilities of cosines (default: the scale of the model whose encoder a task has, which is
            `Clip.scale`). The logit has none; `own_part`, `lesion` and ``kl`` of curves take it.

        label: The row of the class.

    Example:
        >>> metric = circuitry.class_logit(weights, label=1)
        >>> metric(encoder(images)).shape    # one number per image
        torch.Size([4])
    """
    _check(weights, label)
    return ClassLogit(weights, label, scale=None if scale is None else float(scale))


@checked
def class_margin(
    weights: Float[Tensor, "classes d"], label: Natural, scale: Positive | None = None
) -> ClassLogit:
    """Return the cosine logit of a class minus the mean cosine logit of the other classes.

    All images lie in one narrow cone (the modality gap), so every logit has a part that all images and texts share.
    The margin leaves this part out: it measures which class is recognised.

    Args:
        weights, label, scale: As for `class_logit`, whose answers are the margin's, too.

    Example:
        >>> metric = circuitry.class_margin(weights, label=1)
        >>> metric(encoder(images)).shape    # one number per image
        torch.Size([4])
    """
    _check(weights, label)
    if len(weights) < 2:
        raise InputError(
            "A margin needs the text weights of at least two classes, but there is one."
        )
    n = len(weights)
    others = (weights.sum(0) - weights) / (n - 1)
    # A class less the mean of the others is n / (n - 1) times the class less the mean of all, which all answers share.
    own_scale = None if scale is None else float(scale)
    return ClassLogit(weights - others, label, "margin", own_scale, stretch=n / (n - 1))


def _sketch(weights: Tensor) -> list[float]:
    """Return length, norm and some sums of weights: they hardly change with rounding, which would change a digest."""
    flat = in_double(weights.cpu()).flatten()
    places = torch.arange(len(flat), dtype=flat.dtype, device=flat.device)
    numbers = [float(len(weights)), float(flat.norm())]
    numbers += [float(flat @ torch.cos(step * places)) for step in range(4)]
    return [round(number, 6) for number in numbers]


def _check(weights: Tensor, label: int) -> None:
    """Check that a label is one of the rows."""
    if label >= len(weights):
        raise InputError(
            f"A label is a row of the {len(weights)} text weights, but {label!r} was given: give a whole number "
            "from 0, the place of the class among their classes."
        )
    lengths = weights.detach().float().norm(dim=1)
    apart = (lengths - 1).abs() > UNIT
    if not weights.is_meta and bool(apart.any()):
        row = int(apart.int().argmax())
        log.warning(
            "Row %d of the text weights has length %.3g, not 1, so the metric is no cosine: give "
            "torch.nn.functional.normalize(weights, dim=-1), as clip.text_weights does.",
            row,
            float(lengths[row]),
        )


def check_width(weights: Tensor, embedding: Tensor) -> None:
    """Refuse text weights that are not as wide as an embedding."""
    if embedding.shape[-1] != weights.shape[-1]:
        raise InputError(
            f"A text weight has as many numbers as an embedding, but they have {weights.shape[-1]} and "
            f"{embedding.shape[-1]}: take the text weights of the model that the encoder is of (clip.text_weights)."
        )


def answer_metric(metric: Metric, who: str) -> ClassLogit:
    """Return a metric with candidate classes, or raise `InputError`: ``who`` takes answers among them."""
    if isinstance(metric, ClassLogit) and len(metric.weights) > 1:
        return metric
    raise InputError(
        f"{who} answers among candidate classes, but the metric {metric_name(metric)!r} has none: give "
        "class_logit(weights, label), with the weights of at least two classes."
    )


def metric_name(metric: object) -> str:
    """Return the name of a metric for tables and provenance: its own, or its function's or class's."""
    if isinstance(metric, str):
        return metric
    name = getattr(metric, "name", None) or getattr(metric, "__qualname__", None)
    return name if isinstance(name, str) else type(metric).__qualname__


METRICS: Mapping[str, Any] = {"logit": class_logit, "margin": class_margin}
"""Metrics of a class by name: the study's cosine logit, or its lead over the mean logit of the other classes."""


def metric_of_class(
    metric: str | MetricOfClass | None, scale: float | None = None
) -> MetricOfClass:
    """Return the metric of a class, given by one of the names `METRICS` or as a function, or raise `InputError`.

    The package's own take a ``scale`` of logits (default: that of the model in whose tasks they are).

    Example:
        >>> from circuitry.encoder import metric_of_class
        >>> metric_of_class("margin")(weights, 1).name
        'margin'
    """
    for name, make in METRICS.items():
        if metric in (name, make):
            return partial(make, scale=scale)
    if isinstance(metric, ClassLogit):
        raise InputError(
            "Expected a function that makes the metric of each class, but the ready metric of one was given: give the "
            "function, class_logit or class_margin, not class_logit(weights, label)."
        )
    if isinstance(metric, str) or not callable(metric):
        raise InputError(
            f"Expected one of the metrics {', '.join(METRICS)}, or a function of the text weights [K, D] and a label "
            f"that returns a metric, but {metric!r} was given."
        )
    return metric


_tried: WeakIdKeyDictionary = WeakIdKeyDictionary()
"""Metrics that were tried on an image by itself."""


def _check_rows(metric: Metric, embedding: Tensor, value: Tensor) -> None:
    """Check once that the metric of an image is the same without the images beside it."""
    if isinstance(metric, ClassLogit) or len(value) < 2 or metric in _tried:
        return
    with suppress(TypeError):  # of what has no weak references, and is tried each time
        _tried[metric] = True
    with torch.no_grad():
        alone = metric(embedding[:1].detach()).flatten().tolist()
    beside = value[:1].tolist()
    largest = float(value.detach().abs().max())
    if len(alone) != 1 or abs(alone[0] - beside[0]) > 0.01 * largest:
        raise InputError(
            f"A metric looks at each image by itself, but {metric_name(metric)!r} gives {beside} for an image among "
            f"{len(value)} and {alone} for it alone: let no number depend on other rows, as softmax over them does."
        )


def checked_metric(metric: Metric, embedding: Tensor) -> Tensor:
    """Return the metric [B] of embeddings [B, D]."""
    own = embedding.clone()  # a metric may work in place
    value: object = metric(own)
    if not isinstance(value, Tensor):
        raise InputError(
            f"A metric returns a tensor with one number per image, but {metric_name(metric)!r} returned "
            f"{type(value).__name__}: compute it with torch, so that gradients flow through it."
        )
    if value.shape != embedding.shape[:1]:
        raise InputError(
            f"A metric maps embeddings {list(embedding.shape)} to one number per image "
            f"[{len(embedding)}], but this one returned {list(value.shape)}."
        )
    if not bool(value.isfinite().all()):
        raise InputError(
            f"A metric gives finite numbers, but the metric {metric_name(metric)!r} is NaN or infinite for one of "
            f"{len(embedding)} embeddings: look at the metric and at the activations that the embeddings are made from."
        )
    _check_rows(metric, embedding, value)
    if torch.is_grad_enabled() and embedding.requires_grad and not value.requires_grad:
        raise InputError(
            f"The gradient of a metric by the embedding is needed, but what {metric_name(metric)!r} returned has none: "
            "compute it from the embedding by torch alone, without detach, item, no_grad or argmax."
        )
    if torch.is_grad_enabled() and own.requires_grad and own._version:
        raise InputError(
            f"The gradient of a metric by the embedding is needed, but {metric_name(metric)!r} writes into the "
            "embedding, which PyTorch does not follow back: write e = e / e.norm() in place of e /= e.norm()."
        )
    return value
