"""Metrics: functions of embeddings that return one number per image, such as the cosine logit of a class."""

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
from circuitry.runs.arguments import Natural, Positive, checked
from circuitry.runs.errors import InputError

log = logging.getLogger(__name__)
UNIT = 0.02
"""Largest difference of a text weight's length from 1; half precision stays within it."""
SCALE = 100.0
"""Factor of cosines before the softmax: CLIP's scale of logits at the end of its training."""
NO_ANSWER = -1
"""Stands for the row of a class where an image gets no class."""

Metric = Callable[[Tensor], Tensor]
"""Function of embeddings [B, D] that returns one number per image [B], independent of the other images."""

MetricOfClass = Callable[[Tensor, int], Metric]
"""Function of text weights [K, D] and the row of a class that returns the metric of the class."""


@dataclass(frozen=True, eq=False)
class ClassLogit:
    """The cosine logit of one class, ``normalize(embedding) @ weights[label]``, without logit scale."""

    weights: Tensor = field(repr=False)
    """Weights [K, D], a row for every class: text weights of length 1, which make the logit a cosine, or margins."""
    label: int
    """Row of the class."""
    name: str = "logit"
    """Name in tables and provenance."""
    scale: float | None = None
    """Factor from cosines to logits, for probabilities (default: the model's own, see `Encoder.scale`).

    The metric and its gradients do not depend on it. Log-odds and probabilities do: those of `own_part` and `lesion`,
    and ``kl`` of curves.
    """
    stretch: float = field(default=1.0, repr=False)
    """Factor by which the rows are longer than text weights, as those of margins are; probabilities undo it."""

    @property
    def made_with(self) -> dict[str, Any]:
        """Provenance: the label, and a few numbers of the weights of the class and of all classes."""
        every = self.weights.detach()
        return {
            "label": self.label,
            "class_weights": _sketch(every[self.label]),
            "text_weights": _sketch(every),
        }

    def log_answers(
        self, embedding: Float[Tensor, "batch d"]
    ) -> Float[Tensor, "batch classes"]:
        """Return the log-probability of each class: the log-softmax of the scaled cosines, in double precision.

        A metric without a scale uses CLIP's usual scale; a task gives it the scale of its model (`at_model_scale`).
        """
        check_width(self.weights, embedding)
        direction = F.normalize(in_double(embedding), dim=-1)
        scale = SCALE if self.scale is None else self.scale
        scale /= self.stretch
        rows = in_double(self.weights).to(direction.device)
        return F.log_softmax(scale * direction @ rows.T, dim=-1)

    def is_given(
        self, answers: Float[Tensor, "*runs classes"]
    ) -> Bool[Tensor, "*runs"]:
        """Return which images get this metric's class, given the answers of all classes; see `given_classes`."""
        return given_classes(answers) == self.label

    def __call__(self, embedding: Float[Tensor, "batch d"]) -> Float[Tensor, " batch"]:
        check_width(self.weights, embedding)
        # PyTorch's 1e-12 keeps an embedding of zeros at zero. It is zero in float16, where 0 / 0 would be NaN.
        smallest = max(1e-12, torch.finfo(embedding.dtype).tiny)
        direction = F.normalize(embedding, dim=-1, eps=smallest)
        row = self.weights[self.label]
        if row.is_inference() and not torch.is_inference_mode_enabled():
            # PyTorch refuses to save inference tensors for the backward pass; a copy is an ordinary tensor.
            row = row.clone()
        return direction @ row.to(direction)


def given_classes(answers: Float[Tensor, "*runs classes"]) -> Int[Tensor, "*runs"]:
    """Return the row of the class that each image gets, or `NO_ANSWER`.

    An image gets the class with the largest answer. It gets none if two classes share the largest answer, since the
    order of the list would decide, or if an answer is NaN, as of an embedding that is not finite.
    """
    # The maximum is NaN if one answer is; NaN equals nothing, so the count is 0 there.
    highest, rows = answers.max(-1, keepdim=True)
    is_one = (answers == highest).sum(-1) == 1
    return rows[..., 0].masked_fill(~is_one, NO_ANSWER)


@checked
def class_logit(
    weights: Float[Tensor, "classes d"], label: Natural, scale: Positive | None = None
) -> ClassLogit:
    """Return the cosine logit of a class, the metric of the study.

    It is the cosine of an embedding [D] and the text of the class, ``normalize(embedding) @ weights[label]``, between
    -1 and 1 and without CLIP's logit scale.

    Args:
        weights: Text weights [K, D], as from `Clip.text_weights`; they are converted to the precision and device of
            the embedding.
        label: The row of the class.
        scale: Factor from cosines to logits, for probabilities alone: those of `own_part`, `lesion` and ``kl`` of
            curves (default: `Clip.scale` of the model whose encoder a task has).

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

    All embeddings of images lie in one narrow cone (the modality gap), so every logit has a part that is the same for
    all images and texts. The margin removes this part and measures which class is recognised.

    Args:
        weights, label, scale: As for `class_logit`; margin and logit give an image the same class and probabilities.

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
    # So `stretch` divides the scale by n / (n - 1), and probabilities are those of the plain logits.
    return ClassLogit(weights - others, label, "margin", own_scale, stretch=n / (n - 1))


def _sketch(weights: Tensor) -> list[float]:
    """Return length, norm and four sums of weights, rounded.

    The text encoder's rounding differs between machines. It would change a digest, but hardly changes these numbers.
    """
    flat = in_double(weights.cpu()).flatten()
    places = torch.arange(len(flat), dtype=flat.dtype, device=flat.device)
    numbers = [float(len(weights)), float(flat.norm())]
    numbers += [float(flat @ torch.cos(step * places)) for step in range(4)]
    return [round(number, 6) for number in numbers]


def _check(weights: Tensor, label: int) -> None:
    """Raise `InputError` for a label that is no row; warn about rows whose length is not 1."""
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
    """Raise `InputError` for text weights of another width than the embedding."""
    if embedding.shape[-1] != weights.shape[-1]:
        raise InputError(
            f"A text weight has as many numbers as an embedding, but they have {weights.shape[-1]} and "
            f"{embedding.shape[-1]}: take the text weights of the model that the encoder is of (clip.text_weights)."
        )


def answer_metric(metric: Metric, who: str) -> ClassLogit:
    """Return ``metric`` if it has candidate classes, else raise `InputError`; ``who`` begins the message."""
    if isinstance(metric, ClassLogit) and len(metric.weights) > 1:
        return metric
    raise InputError(
        f"{who} answers among candidate classes, but the metric {metric_name(metric)!r} has none: give "
        "class_logit(weights, label), with the weights of at least two classes."
    )


def metric_name(metric: object) -> str:
    """Return the name of a metric in tables and provenance: its ``name``, or that of its function or class."""
    if isinstance(metric, str):
        return metric
    name = getattr(metric, "name", None) or getattr(metric, "__qualname__", None)
    return name if isinstance(name, str) else type(metric).__qualname__


METRICS: Mapping[str, Any] = {"logit": class_logit, "margin": class_margin}
"""Functions that make the metric of a class, by name: its cosine logit, or the lead over other classes' mean."""


def metric_of_class(
    metric: str | MetricOfClass | None, scale: float | None = None
) -> MetricOfClass:
    """Return the function that makes the metric of a class, given itself or its name in `METRICS`.

    Args:
        metric: A name of `METRICS`, or a function of text weights [K, D] and a label.
        scale: Factor from cosines to logits for metrics of `METRICS` (default: that of the model of a task).

    Raises:
        InputError: for another name, or the finished metric of one class.

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
"""Metrics that `_check_rows` has checked; each is checked once, since it takes a call."""


def _check_rows(metric: Metric, embedding: Tensor, value: Tensor) -> None:
    """Raise `InputError` for a metric that depends on the images beside an image; each metric is checked once."""
    # The package's own metrics are known to be right, and a single row has no rows beside it.
    if isinstance(metric, ClassLogit) or len(value) < 2 or metric in _tried:
        return
    with suppress(TypeError):  # an object without weak references is checked each time
        _tried[metric] = True
    with torch.no_grad():
        alone = metric(embedding[:1].detach()).flatten().tolist()
    beside = value[:1].tolist()
    # 1 % of the largest value: kernels round batches of different sizes differently, above all in half precision.
    largest = float(value.detach().abs().max())
    if len(alone) != 1 or abs(alone[0] - beside[0]) > 0.01 * largest:
        raise InputError(
            f"A metric looks at each image by itself, but {metric_name(metric)!r} gives {beside} for an image among "
            f"{len(value)} and {alone} for it alone: let no number depend on other rows, as softmax over them does."
        )


def checked_metric(metric: Metric, embedding: Tensor) -> Tensor:
    """Return the metric [B] of embeddings [B, D]; raise `InputError` for a metric that breaks a rule."""
    own = (
        embedding.clone()
    )  # a metric may write into its argument, which the caller still needs
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
    # The version counts writes. Autograd would give the gradient by the overwritten numbers, a wrong one.
    if torch.is_grad_enabled() and own.requires_grad and own._version:
        raise InputError(
            f"The gradient of a metric by the embedding is needed, but {metric_name(metric)!r} writes into the "
            "embedding, which PyTorch does not follow back: write e = e / e.norm() in place of e /= e.norm()."
        )
    return value
