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
"""Largest difference between the length of a text weight and 1 that gives no warning.

Rounding to half precision changes lengths by less than this."""
SCALE = 100.0
"""Factor that multiplies cosines before the softmax if the scale of a model is not known.

It is the logit scale of CLIP at the end of CLIP's training."""
NO_ANSWER = -1
"""Value that is given instead of the row of a class if an image is classified as no class."""

Metric = Callable[[Tensor], Tensor]
"""Function that takes embeddings [B, D] and returns one number per image [B].

The number of an image does not depend on the other images."""

MetricOfClass = Callable[[Tensor, int], Metric]
"""Function that takes text weights [K, D] and the row of a class, and returns the metric of this class."""


@dataclass(frozen=True, eq=False)
class ClassLogit:
    """The cosine logit of one class, ``normalize(embedding) @ weights[label]``, without logit scale."""

    weights: Tensor = field(repr=False)
    """Weights [K, D] with a row for every class. The rows are text weights of length 1, so that the logit is a cosine.
    For a margin, the mean text weight of the other classes is subtracted from each row."""
    label: int
    """Row of the class in ``weights``."""
    name: str = "logit"
    """Name in tables and provenance."""
    scale: float | None = None
    """Factor that turns cosines into logits, for probabilities (default: the scale of the model, see `Encoder.scale`).

    The metric and its gradients do not depend on this factor. Probabilities and log-odds depend on it, and so do the
    results of `own_part` and `lesion` and the ``kl`` of curves.
    """
    stretch: float = field(default=1.0, repr=False)
    """Factor by which the rows of ``weights`` lie further apart than the text weights. It is 1 for logits, and above 1
    for margins. Probabilities are computed with the scale divided by this factor."""

    @property
    def made_with(self) -> dict[str, Any]:
        """Provenance: the label, and a few numbers that identify the text weights of the class and of all classes."""
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

        If the metric has no ``scale``, `SCALE` is used. To use the scale of the model of a task, call `at_model_scale`
        first.
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
        """Return a mask of the images that are classified as the metric's class; see `given_classes`.

        Args:
            answers: A number for each image and class, such as the log-probability of the class.
        """
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
    """Return, for each image, the row of the class that the image is classified as, or `NO_ANSWER`.

    An image is classified as the class with the largest answer. It is classified as no class if two classes share the
    largest answer, because the order of the classes would decide between them. The same holds if an answer is NaN, for
    example because the embedding is not finite.

    Args:
        answers: A number for each image and class, such as the log-probability of the class.
    """
    # If an answer is NaN, the maximum is NaN. NaN equals no number, so the count is 0 in this case.
    highest, rows = answers.max(-1, keepdim=True)
    is_one = (answers == highest).sum(-1) == 1
    return rows[..., 0].masked_fill(~is_one, NO_ANSWER)


def log_odds(
    answers: Float[Tensor, "*runs classes"], rows: Int[Tensor, "*runs"]
) -> Float[Tensor, "*runs"]:
    """Return the log-odds of one class for each image: log p - log(1 - p).

    1 - p is computed as the sum over the other classes, which is exact if p is nearly 1.

    Args:
        answers: The log-probability of each class; see `ClassLogit.log_answers`.
        rows: For each image, the row of the class.
    """
    of_class = rows[..., None]
    others = answers.scatter(-1, of_class, -torch.inf)
    return answers.gather(-1, of_class)[..., 0] - others.logsumexp(-1)


@dataclass(frozen=True, eq=False)
class ClassLogOdds(ClassLogit):
    """The log-odds of one class among all classes, log p - log(1 - p), in double precision.

    With two classes this is the difference of their logits. Without a ``scale``, `SCALE` multiplies the cosines.

    Example:
        >>> from circuitry.encoder import ClassLogOdds
        >>> against_first = ClassLogOdds(weights[:2], label=1, scale=100.0)
        >>> against_first(encoder(images)).shape    # one number per image
        torch.Size([4])
    """

    name: str = "log-odds"
    """Name of the metric."""

    def __call__(self, embedding: Float[Tensor, "batch d"]) -> Float[Tensor, " batch"]:
        rows = torch.full(embedding.shape[:1], self.label, device=embedding.device)
        return log_odds(self.log_answers(embedding), rows)


@checked
def class_logit(
    weights: Float[Tensor, "classes d"], label: Natural, scale: Positive | None = None
) -> ClassLogit:
    """Return a metric: the cosine logit of a class. The study uses this metric.

    The cosine logit is the cosine between an image's embedding [D] and the text weight of the class,
    ``normalize(embedding) @ weights[label]``. It lies between -1 and 1. It is not multiplied by CLIP's logit scale.

    Args:
        weights: Text weights [K, D], as from `Clip.text_weights`. They are converted to the precision and device of
            the embedding.
        label: Row of the class in ``weights``.
        scale: Factor that turns cosines into logits before probabilities are computed. `own_part`, `lesion` and the
            ``kl`` of curves use probabilities. The metric itself does not depend on the scale. Default: the logit scale
            of the model (`Encoder.scale`).

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
    """Return a metric: the cosine logit of a class minus the mean cosine logit of the other classes.

    All embeddings of images lie in one narrow cone (the modality gap), so every logit has a part that is the same for
    all images and texts. The margin removes this part and measures which class is recognised.

    Args:
        weights: Text weights [K, D] of at least two classes, as from `Clip.text_weights`.
        label: Row of the class in ``weights``.
        scale: Factor that turns cosines into logits before probabilities are computed, as for `class_logit`. The
            probabilities of the classes are equal to the probabilities of `class_logit`.

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
    # For the weight w of a class: w - mean of the other classes = n / (n - 1) (w - mean of all classes). The mean of
    # all classes changes all answers equally, so it changes no probability.
    own_scale = None if scale is None else float(scale)
    # `stretch` divides the scale by n / (n - 1). So probabilities are equal to the probabilities of the logits.
    return ClassLogit(weights - others, label, "margin", own_scale, stretch=n / (n - 1))


def _sketch(weights: Tensor) -> list[float]:
    """Return six rounded numbers of weights: the length of the first axis, the norm, and four weighted sums.

    These numbers identify text weights better than a digest. The text encoder rounds differently on different machines,
    which changes a digest of the weights but hardly changes these numbers.
    """
    flat = in_double(weights.cpu()).flatten()
    places = torch.arange(len(flat), dtype=flat.dtype, device=flat.device)
    numbers = [float(len(weights)), float(flat.norm())]
    numbers += [float(flat @ torch.cos(step * places)) for step in range(4)]
    return [round(number, 6) for number in numbers]


def _check(weights: Tensor, label: int) -> None:
    """Raise `InputError` if ``weights`` has no row ``label``. Warn if a row does not have length 1."""
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
    """Raise `InputError` if text weights and embedding have last axes of different sizes."""
    if embedding.shape[-1] != weights.shape[-1]:
        raise InputError(
            f"A text weight has as many numbers as an embedding, but they have {weights.shape[-1]} and "
            f"{embedding.shape[-1]}: take the text weights of the model that the encoder is of (clip.text_weights)."
        )


def answer_metric(metric: Metric, who: str) -> ClassLogit:
    """Return ``metric`` if it is a `ClassLogit` of at least two classes. Otherwise raise `InputError`.

    Args:
        metric: The metric to check.
        who: What classifies images and therefore needs the classes. The message begins with this text.
    """
    if isinstance(metric, ClassLogit) and len(metric.weights) > 1:
        return metric
    raise InputError(
        f"{who} answers among candidate classes, but the metric {metric_name(metric)!r} has none: give "
        "class_logit(weights, label), with the weights of at least two classes."
    )


def metric_name(metric: object) -> str:
    """Return the name of a metric in tables and provenance.

    This is the metric's attribute ``name``. If there is no such attribute, it is the name of the function or class.
    """
    if isinstance(metric, str):
        return metric
    name = getattr(metric, "name", None) or getattr(metric, "__qualname__", None)
    return name if isinstance(name, str) else type(metric).__qualname__


METRICS: Mapping[str, Any] = {"logit": class_logit, "margin": class_margin}
"""Functions that make the metric of a class, by name; see `class_logit` and `class_margin`."""


def metric_of_class(
    metric: str | MetricOfClass | None, scale: float | None = None
) -> MetricOfClass:
    """Return the function that makes the metric of a class.

    Args:
        metric: A name in `METRICS`, or the function itself. The function takes text weights [K, D] and the row of a
            class, and returns a `Metric`.
        scale: Factor that turns cosines into logits, for the functions in `METRICS` (default: the scale of the task's
            model). It is ignored for any other function.

    Raises:
        InputError: if the name is unknown, or if ``metric`` is the metric of one class instead of a function that makes
            metrics.

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
"""Metrics that `_check_rows` has checked. Each metric is checked once, because a check takes a call of the metric."""


def _check_rows(metric: Metric, embedding: Tensor, value: Tensor) -> None:
    """Raise `InputError` if the metric of an image depends on the other images. Each metric is checked once."""
    # The package's own metrics need no check, and a single row cannot depend on other rows.
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
    """Return the metric [B] of embeddings [B, D], after checking what the metric returns.

    Raises:
        InputError: if the metric does not return a tensor [B] of finite numbers, or if the value for one image depends
            on the other images. While gradients are recorded, the error is also raised for a metric that has no
            gradient with respect to the embeddings, and for a metric that overwrites the embeddings.
    """
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
    # The version counts writes into the tensor. After a write autograd would return a wrong gradient: the gradient with
    # respect to the overwritten numbers.
    if torch.is_grad_enabled() and own.requires_grad and own._version:
        raise InputError(
            f"The gradient of a metric by the embedding is needed, but {metric_name(metric)!r} writes into the "
            "embedding, which PyTorch does not follow back: write e = e / e.norm() in place of e /= e.norm()."
        )
    return value
