"""A task: an encoder, images, a metric and a baseline.

Every function that scores, patches or ablates units takes a task.

1. `Task.running` makes a ``with`` block one run of the encoder (`Encoder.running`), in which stages run their faster
   forms (`Stage.fast`).
2. `Task.batches` is the only loop over images. It yields batches that fit memory. A `Batch` returns the activations of
   its images and the baselines that replace them.
3. `Task.identity` identifies everything that the results depend on, except for the images. Results are compared only if
   their identities are equal.
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from itertools import chain
from typing import Annotated, Any, ClassVar, NamedTuple

import pandas as pd
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
from circuitry.runs.notebooks import Shown
from circuitry.runs.progress import BRIEF, Bar
from circuitry.runs.workers import Work


class Batch(NamedTuple):
    """Some images of a task, with the place of these images in the task."""

    images: Tensor
    """Images [batch, 3, height, width] on the encoder's device and in its precision."""
    start: int
    """Index of the first image of the batch among the task's images."""
    task: "Task"
    """The task that the images belong to."""

    def clean(self, sites: Sequence[str]) -> dict[str, Tensor]:
        """Return the activations of the batch at ``sites``. Raise `InputError` if an activation is not finite."""
        return clean_activations(self.task.encoder, self.images, sites)

    def ends(self, clean: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Return the activations ``clean`` of the batch with all units replaced by the baseline.

        If a site carries a residual stream past its units, this stream is not replaced. This also holds if the baseline
        is a `Counterfactual`.
        """
        encoder = self.task.encoder
        ends = self.task.baseline.activations(encoder, clean, self.start)
        return {site: encoder.carry(site, ends[site], clean[site]) for site in clean}


@dataclass(frozen=True, eq=False, init=False, repr=False)
class Task(Shown):
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

    encoder: Encoder  #: The encoder that runs the images.
    images: Images
    """Images of one class: a tensor [B, 3, H, W] or an iterable of batches. The sizes of the batches do not matter."""
    metric: Metric
    """Function that takes embeddings [B, D] and returns one number per image [B]. The number of an image does not
    depend on the other images."""
    baseline: Baseline | Counterfactual
    """What replaces ablated activations; see `circuitry.encoder.baselines`."""
    others: Images | None
    """Images of other classes. Selectivity, learned masks and the baselines ``mean-position`` and ``mean-unit`` use
    them."""
    sites: Annotated[tuple[str, ...], DISTINCT]
    """Sites to score or to ablate, in the encoder's order."""
    work: Work
    """Memory and progress bars. They do not change results."""

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
            encoder: The encoder. Images are moved to its device and precision.
            images: Images of one class. If they come from a one-shot iterator, they stay in memory, so that every pass
                sees them.
            metric: A metric such as `class_logit`.
            baseline: What replaces ablated activations. ``"zero"`` replaces them by zero. ``"mean-position"`` and
                ``"mean-unit"`` replace them by the mean over ``images`` and ``others``; both names require ``others``.
                A `Baseline` comes from `mean_baseline` or from another task. Counterfactual images are a tensor
                [1, 3, H, W] for all images, or [B, 3, H, W] with a counterfactual image for each image.
            others: Images of other classes. Selectivity, learned masks and the baselines ``"mean-position"`` and
                ``"mean-unit"`` use them.
            sites: Sites to score or to ablate, in the encoder's order (default: all sites).
            work: Memory and progress bars.
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
        """Treat a ``with`` block as one run of the encoder, and restore all modes after the block.

        Within the block the encoder is as within `Encoder.running`, and stages run their faster forms (`Stage.fast`).

        Args:
            gradients: Whether PyTorch records gradients of activations.

        Raises:
            InputError: if the baseline was computed by another model, or for a reason in `Encoder.running`.
        """
        # Memory is measured before `fast`, so that batches do not depend on which function measures it first.
        rows_that_fit(self.encoder, self.work.memory_gib)
        with self.encoder.running(gradients=gradients), self.encoder.fast():
            if isinstance(self.baseline, Baseline):
                self.baseline.check_made_of(self.encoder)
            yield

    def batches(self, rows: Count | None = None) -> Iterator[Batch]:
        """Yield the images in batches that fit the memory of ``work``. If ``rows`` is given, it limits their size."""
        fit = rows_that_fit(self.encoder, self.work.memory_gib)
        count = 0
        for images in ImageBatches(self.images, self.encoder, min(rows or fit, fit)):
            # Only the first batch is checked, because a hook that repeats rows repeats the rows of all images.
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
        """Return a progress bar for a step of the computation. The bar is hidden if ``work`` shows no progress.

        Args:
            name: Name of the step.
            unit: Word for the things that the bar counts, such as "image".
            total: Number of these things, or None or 0 if the number is not known. It is unknown if images are read
                only when they are needed.
        """
        desc = self.work.bar(name)
        hidden = desc is None
        return Bar(total=total or None, desc=desc, unit=unit, disable=hidden, **BRIEF)

    def of_some(
        self,
        images: Tensor,
        chosen: Int[Tensor, " some"] | Bool[Tensor, " images"] | slice,
    ) -> "Task":
        """Return a task with some of the images of this task, and with the baseline of these images.

        The images of other classes stay the same.

        Args:
            images: The task's own images as a tensor.
            chosen: Indices of the chosen images, a mask over the images, or a slice.
        """
        of_baseline = chosen
        n = self.baseline.n_images
        if self.others is not None and n is not None:
            # A baseline with a value for each image lists the task's own images first, then images of other classes.
            places = torch.arange(n)
            own = places[: len(images)][chosen]
            of_baseline = torch.cat([own, places[len(images) :]])
        baseline = self.baseline.select(of_baseline)
        return replace(self, images=seen(images[chosen]), baseline=baseline)

    def shown_table(self) -> pd.DataFrame:
        """Return what is asked: the columns are ``asked`` and ``of the task``."""
        others = "none" if self.others is None else _count(self.others)
        rows = {
            "images of the class": _count(self.images),
            "images of other classes": others,
            "metric": metric_name(self.metric),
            "baseline": self.baseline.name,
            "sites": ", ".join(self.sites),
        }
        return pd.DataFrame(rows.items(), columns=["asked", "of the task"])

    def __repr__(self) -> str:
        shown = f"{_count(self.images)} of a class"
        if self.others is not None:
            shown += f", {_count(self.others)} of other classes"
        asked = f"metric {metric_name(self.metric)}, baseline {self.baseline.name}, {len(self.sites)} sites"
        return f"Task: {shown}; {asked}"

    @property
    def identity(self) -> Identity:
        """Identity of the encoder, the metric and the baseline, without the images and the settings of a method."""
        asked: dict[str, Any] = {
            "baseline": self.baseline.name,
            "baseline_digest": self.baseline.digest,
            "metric": metric_name(self.metric),
        }
        # Two models of one architecture have other means of the same images.
        if isinstance(self.baseline, Baseline) and "pixels" in self.baseline.made_of:
            asked["baseline_pixels"] = self.baseline.made_of["pixels"]
        if isinstance(self.metric, ClassLogit):
            asked |= self.metric.made_with
        else:
            asked["metric_code"] = entry_of(self.metric, "the metric")
        return self.encoder.identity | asked


def _count(images: Images) -> str:
    # Images that are not a tensor would have to be read to count them.
    return number_of(len(images), "image") if isinstance(images, Tensor) else "images"


def at_model_scale(task: Task) -> Task:
    """Return the task with a logit scale in its metric, so that probabilities can be computed.

    If the metric is a `ClassLogit` without a scale, the metric gets the scale of the task's model. Otherwise the task
    is returned as it is. If the model is a classifier instead of a CLIP, reading its scale takes a run of the model.
    """
    metric = task.metric
    if isinstance(metric, ClassLogit) and metric.scale is None:
        return replace(task, metric=replace(metric, scale=task.encoder.scale))
    return task


def with_others(task: Task) -> tuple[Task, int]:
    """Return a task whose images are the images of the class followed by the images of other classes.

    The returned task has no ``others``. Also return the number of images of the class.
    """
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
