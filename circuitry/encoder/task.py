"""A task: an encoder, images and a metric. Every function that scores, patches or ablates units takes one.

1. `Task.running` holds a run of its encoder (`Encoder.running`) with the stages' fast functions;
2. `Task.batches` is the one loop over images: it yields batches that fit memory, each with its part of the baseline;
3. `Task.identity` identifies everything that shapes the numbers; results are compared if their identities are equal.
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from itertools import chain
from typing import Annotated, Any, ClassVar, NamedTuple

import torch
from jaxtyping import Bool, Int
from torch import Tensor

from circuitry.encoder.baselines import (
    MEANS,
    AnyBaseline,
    Baseline,
    Counterfactual,
    as_baseline,
    check_count,
    mean_baseline,
)
from circuitry.encoder.encoder import Encoder
from circuitry.encoder.metrics import ClassLogit, Metric, metric_name
from circuitry.encoder.site_activations import checked_sites, clean_activations
from circuitry.encoder.tensor_batches import (
    ImageBatches,
    Images,
    checked_batches,
    images_of_task,
    rows_that_fit,
    seen,
)
from circuitry.runs.arguments import DISTINCT, Count, Names, checked
from circuitry.runs.errors import InputError, number_of
from circuitry.runs.identity import Identity
from circuitry.runs.leaves import entry_of
from circuitry.runs.progress import BRIEF, Bar
from circuitry.runs.workers import Work


class Batch(NamedTuple):
    """Some images of a task."""

    images: Tensor
    """Images [batch, 3, height, width] on the encoder's device and in its precision."""
    start: int
    """Place of the first image of the batch among all images."""
    task: "Task"
    """The task that the images are of."""

    def clean(self, sites: Sequence[str]) -> dict[str, Tensor]:
        """Return the activations of the batch at ``sites``; raise `InputError` if they are not finite."""
        return clean_activations(self.task.encoder, self.images, sites)

    def ends(self, clean: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Return the ``clean`` activations with all units at the baseline.

        The stream that a site carries past its units stays that of the batch, even if the baseline is counterfactual.
        """
        encoder = self.task.encoder
        ends = self.task.baseline.activations(encoder, clean, self.start)
        return {site: encoder.carry(site, ends[site], clean[site]) for site in clean}


@dataclass(frozen=True, eq=False, init=False, repr=False)
class Task:
    """An encoder, images, a metric, and the baseline that replaces ablated activations.

    Example:
        >>> task = circuitry.Task(encoder, images, metric, others=others)
        >>> task
        Task: 4 images of a class, 6 images of other classes; metric logit, baseline zero, 10 sites
        >>> with task.running():
        ...     for batch in task.batches():
        ...         clean = batch.clean(task.sites)
        >>> clean["attnpool"].shape[0]
        4
    """

    HOW_TO_GET: ClassVar = "make one with Task(clip.encoder, images, metric)"

    encoder: Encoder  #: The tower that runs.
    images: Images
    """Images of one class: a tensor [B, 3, H, W] or an iterable of batches, whose sizes change nothing."""
    metric: Metric
    """Function of embeddings [B, D] that returns one number per image [B], independent of the other images."""
    baseline: Baseline | Counterfactual
    """Replacement of ablated activations; see `circuitry.encoder.baselines`."""
    others: Images | None
    """Images of other classes, for selectivity, learned masks, and means by name."""
    sites: Annotated[tuple[str, ...], DISTINCT]
    """Sites to score or to ablate, in the encoder's order."""
    work: Work
    """Memory and progress; they change no number."""

    @checked
    def __init__(
        self,
        encoder: Encoder,
        images: Images,
        metric: Metric,
        *,
        baseline: AnyBaseline = "zero",
        others: Images | None = None,
        sites: Names | None = None,
        work: Work = Work(),
    ) -> None:
        """Make a task.

        Args:
            encoder: The encoder; images are moved to its device and precision.
            images: Images of one class. Images of a one-shot iterator stay in memory, so that every pass sees them.
            metric: A metric such as `class_logit`.
            baseline: One of ``"zero"``; ``"mean-position"`` or ``"mean-unit"``, the mean over ``images`` and
                ``others``, which are needed then; a `Baseline`, as from `mean_baseline` or another task; or
                counterfactual images, [1, 3, H, W] for all images or [B, 3, H, W] with one for each image.
            others: Images of other classes, for selectivity, learned masks, and means by name.
            sites: Sites to score or to ablate, in the encoder's order (default: all).
            work: Memory and progress.
        """
        images, others = images_of_task((images, others), encoder, work.memory_gib)
        if isinstance(baseline, str) and baseline in MEANS and others is not None:
            rows = rows_that_fit(encoder, work.memory_gib)
            own = ImageBatches(images, encoder, rows)
            together = chain(own, ImageBatches(others, encoder, rows))
            per = MEANS[baseline]
            baseline = mean_baseline(encoder, together, per, progress=work.progress)
        # The class is frozen, and the fields need other types than the arguments.
        vars(self).update(
            encoder=encoder,
            images=images,
            metric=metric,
            baseline=as_baseline(baseline),
            others=others,
            sites=checked_sites(encoder, sites),
            work=work,
        )

    @contextmanager
    def running(self, *, gradients: bool = False) -> Iterator[None]:
        """Hold a run of the encoder within the block, with the stages' fast functions; see `Encoder.running`."""
        # Memory is measured before `fast`, so that batches do not depend on who asks first.
        rows_that_fit(self.encoder, self.work.memory_gib)
        with self.encoder.running(gradients=gradients), self.encoder.fast():
            if isinstance(self.baseline, Baseline):
                self.baseline.check_made_of(self.encoder)
            yield

    def batches(self, rows: Count | None = None) -> Iterator[Batch]:
        """Yield the images in batches of at most ``rows`` images that also fit the memory of ``work``."""
        fit = rows_that_fit(self.encoder, self.work.memory_gib)
        count = 0
        for images in ImageBatches(self.images, self.encoder, min(rows or fit, fit)):
            # The first batch is enough: a hook that repeats rows does so for all images.
            if count == 0 and self.encoder.hooked_sites:
                n_rows = len(self.encoder(images))
                if n_rows != len(images):
                    raise InputError(
                        f"Each image has one embedding, but hooks at {', '.join(self.encoder.hooked_sites)} make "
                        f"{n_rows} of {len(images)}: take off the one that repeats rows."
                    )
            yield Batch(images, count, self)
            count += len(images)
        check_count(self.baseline, count)

    def bar(self, name: str, unit: str, total: int | None = None) -> Bar:
        """Return a progress bar of a step of the work, which is hidden where `work` shows none.

        Args:
            total: Number of units, if it is known; None or 0 for images that are read as they are needed.
        """
        desc = self.work.bar(name)
        hidden = desc is None
        return Bar(total=total or None, desc=desc, unit=unit, disable=hidden, **BRIEF)

    def of_some(
        self,
        images: Tensor,
        chosen: Int[Tensor, " some"] | Bool[Tensor, " images"] | slice,
    ) -> "Task":
        """Return the task for the chosen images, with their part of the baseline; images of other classes stay.

        Args:
            images: The task's own images as a tensor.
            chosen: Places, a mask or a slice of the chosen images.
        """
        of_baseline = chosen
        n = self.baseline.n_images
        if self.others is not None and n is not None:
            # A baseline with a value for each image has those of other classes behind those of the task's images.
            places = torch.arange(n)
            own = places[: len(images)][chosen]
            of_baseline = torch.cat([own, places[len(images) :]])
        baseline = self.baseline.select(of_baseline)
        return replace(self, images=seen(images[chosen]), baseline=baseline)

    def __repr__(self) -> str:
        shown = f"{_count(self.images)} of a class"
        if self.others is not None:
            shown += f", {_count(self.others)} of other classes"
        asked = f"metric {metric_name(self.metric)}, baseline {self.baseline.name}, {len(self.sites)} sites"
        return f"Task: {shown}; {asked}"

    @property
    def identity(self) -> Identity:
        """Identity of encoder, metric and baseline; images and the settings of a method are not in it."""
        asked: dict[str, Any] = {
            "baseline": self.baseline.name,
            "baseline_digest": self.baseline.digest,
            "metric": metric_name(self.metric),
        }
        if isinstance(self.metric, ClassLogit):
            asked |= self.metric.made_with
        else:
            asked["metric_code"] = entry_of(self.metric, "the metric")
        return self.encoder.identity | asked


def _count(images: Images) -> str:
    # Other images would have to be read to be counted.
    return number_of(len(images), "image") if isinstance(images, Tensor) else "images"


def at_model_scale(task: Task) -> Task:
    """Return a task whose metric has a scale of logits: that of the model, if it has none itself.

    To read the scale of a classifier takes a run.
    """
    metric = task.metric
    if isinstance(metric, ClassLogit) and metric.scale is None:
        return replace(task, metric=replace(metric, scale=task.encoder.scale))
    return task


def with_others(task: Task) -> tuple[Task, int]:
    """Return a task whose images are the task's own, then those of other classes; and the number of its own images."""
    batches = list[Tensor]()
    counts = []
    for images in (task.images, task.others):
        if images is not None:
            of_set = list(checked_batches(images))
            counts.append(sum(map(len, of_set)))
            batches += [batch for batch in of_set if len(batch)]
    if 0 in counts:
        raise InputError(
            f"A task has at least one image of its class and, where others are given, of other classes, but {counts} "
            "were given."
        )
    return replace(task, images=batches, others=None), counts[0]
