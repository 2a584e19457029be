"""Lesions: ablate some units of a model, and measure for which classes and domains its answers change.

An own part is a set of units that a class needs and that other classes do not need. A lesion ablates the units of one
own part. For comparison, another lesion ablates as many random units.
"""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Annotated, Any

import numpy as np
import pandas as pd
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from circuitry.circuits.asked_alike import (
    ANY_CLASS,
    ANY_TEXTS,
    asked_of,
    check_asked_alike,
    check_made_with,
)
from circuitry.circuits.found_on import tell_seen
from circuitry.circuits.graph import Circuit
from circuitry.data.folds import Key
from circuitry.encoder.doubles import in_double
from circuitry.encoder.metrics import answer_metric, given_classes
from circuitry.encoder.modes import own_modes
from circuitry.encoder.task import Task, at_model_scale
from circuitry.encoder.tensor_batches import one_tensor
from circuitry.interventions.faithfulness import draw_random
from circuitry.interventions.kept_circuits import (
    ablated_embeddings,
    units_with_errors,
)
from circuitry.runs.arguments import SOME, Natural, Seed, checked
from circuitry.runs.errors import InputError, name_some
from circuitry.runs.identity import same_entry
from circuitry.runs.plan import Forwards
from circuitry.runs.progress import Bar

PART = "part"
RANDOM = "random"
KEYS = ("part_class", "part_domain", "class", "domain", "cut")
_ROWS = 4096
"""Largest number of embeddings whose answers are in memory at once."""

log = logging.getLogger(__name__)


@dataclass(frozen=True, eq=False)
class Ablated:
    """Units that are ablated together."""

    found_on: Key
    """Class and domain of the own part. For random units, it is the own part that they are compared with."""
    kind: str
    """``part`` or ``random``."""
    n_units: int
    """The number of units that are ablated."""
    units: Mapping[str, np.ndarray]
    """Indices of these units by site. Sites without ablated units are left out."""
    told: Mapping[str, Any] = field(default_factory=dict)
    """Further columns of a table of lesions, such as the share of the units that the part has."""


def ablations(
    found_on: Key, part: Circuit, drawn: Sequence[Circuit], **told: Any
) -> list[Ablated]:
    """Return the lesion of a part, followed by the lesions of the random parts that it is compared with.

    Args:
        found_on: Class and domain of the part.
        part: The part.
        drawn: Random parts with as many units at every site.
        told: Further columns of the rows of these lesions.
    """
    lesions = list[Ablated]()
    for circuit in (part, *drawn):
        kind = RANDOM if lesions else PART
        units = dict[str, np.ndarray]()
        for site, of_site in units_with_errors(circuit).items():
            if len(of_site):
                units[site] = of_site
        lesions.append(Ablated(found_on, kind, circuit.count, units, told))
    return lesions


@own_modes()
@checked
def lesion(
    tasks: Annotated[Mapping[Key, Task], SOME],
    parts: Annotated[Mapping[Key, Circuit], SOME],
    *,
    random_draws: Natural = 1,
    seed: Seed = 0,
) -> pd.DataFrame:
    """Ablate each part, and measure in which classes and domains the model loses right answers.

    Args:
        tasks: A task for each (class, domain) to test on. It has the images, the metric of the class, and the baseline
            of ablated units. All tasks must have the same candidate classes, scale and kind of baseline, and each class
            must have its own label. The ``others`` and ``sites`` of the tasks are ignored.
        parts: For each (class, domain), the circuit of units that was found on its images. All circuits must be of one
            encoder and must have been found with one kind of baseline. This may differ from the baseline of the tasks.
        random_draws: The number of random parts to compare each part with. A random part has as many units at every
            site.
        seed: Seed of the random parts.

    Returns:
        A table. For each part and each (class, domain) of the tasks, there is a row for the lesion of the part and a
        row for lesions of random units. The second row has means over all draws of random units. Columns:

        - part_class, part_domain: the class and domain that the part was found on.
        - class, domain: the class and domain of the images.
        - cut: which units were ablated: ``part`` or ``random``.
        - n_units, n_images: how many units are ablated, and how many images are tested.
        - whole_right, right: the share of images that are classified as their own class before and after the lesion.
        - whole_probability, probability: the mean probability of the images' own class before and after the lesion.
        - taken_for: the share of images that are classified as the part's class after the lesion. It is NaN if the
          part's class is not among the candidates.
        - candidates, scale, baseline: the number of candidate classes, the scale and the baseline of all tasks, the
          same in all rows.
        - part_baseline: the baseline that was used to find the parts, or None if the parts do not say.

        An image is classified as no class if two classes share the largest answer, or if the embedding is not finite
        (`given_classes`).

    Raises:
        InputError: for parts of another encoder or of edges, metrics without candidate classes, and tasks or parts
            whose settings differ.

    Example:
        >>> part = circuitry.own_part(task, share=0.02)
        >>> table = lesion({("clock", "real"): task}, {("clock", "real"): part})
        >>> table["cut"].tolist()
        ['part', 'random']
    """
    for key, part in parts.items():
        if part.edges is not None:
            raise InputError(
                f"A lesion ablates units, but the part of {' in '.join(key)} is of edges: give it without edges."
            )
    # A test on images that were used to find a part would overrate the part.
    sources = [part.source for part in parts.values()]
    tested = dict[str, Any]()
    for key, task in tasks.items():
        tested[" in ".join(key)] = task.images
    tell_seen(tested, sources, "A lesion")
    # Probabilities depend on the scale of the logits. A task without a scale takes the scale of the model.
    tasks = {key: at_model_scale(task) for key, task in tasks.items()}
    asked = _asked_of_cells(tasks)
    part_baseline = _baseline_of_parts(parts, asked["baseline"])
    labels = _labels_of_classes(tasks, parts, asked["text_weights"])
    # Random units are drawn once, so that all classes are tested without the same units.
    rng = np.random.default_rng(seed)
    lesions = list[Ablated]()
    n_units = dict[str, int]()
    for key, part in parts.items():
        lesions += ablations(key, part, draw_random([part], random_draws, rng))
        n_units |= {site: part.source.n_units(site) for site in part.units}
    progress = any(task.work.progress for task in tasks.values())
    jobs = Bar(tasks.items(), desc="lesion", unit="job", disable=not progress)
    tables = list[pd.DataFrame]()
    for key, task in jobs:
        # Any part may be tested on any class. A part and a task of one class and domain must have the same label.
        check_made_with(task, sources, ANY_TEXTS)
        if key in parts:
            check_made_with(task, [parts[key].source], (*ANY_CLASS, "label"))
        tables.append(lesion_cell(key, task, lesions, n_units, labels))
    table = pd.concat(tables, ignore_index=True)
    return table.assign(part_baseline=part_baseline)


def _asked_of_cells(tasks: Mapping[Key, Task]) -> dict[str, Any]:
    """Return the settings that all tasks share.

    Raises:
        InputError: if the settings of the tasks differ, so that their rows could not be compared.
    """
    asked = dict[str, dict[str, Any]]()
    for key, task in tasks.items():
        asked[" in ".join(key)] = asked_of(task, "A lesion takes")
    check_asked_alike(
        asked,
        "The cells of one table of lesions",
        "give all the same, or make a table of each",
    )
    return next(iter(asked.values()))


def _baseline_of_parts(parts: Mapping[Key, Circuit], tested: str) -> str | None:
    """Return the name of the baseline that was used to find the parts; None if no part has stored it.

    A warning is logged if ``tested``, the baseline of the test, has another name.

    Raises:
        InputError: if the parts were found with different baselines or scales.
    """
    asked = dict[str, dict[str, Any]]()
    part_baseline: str | None = None
    for key, part in parts.items():
        made = part.source.settings
        # Circuits that are made by hand name neither baseline nor scale.
        known = dict[str, Any]()
        for name in ("baseline", "scale"):
            if name in made:
                known[name] = made[name]
        asked[f"the part of {' in '.join(key)}"] = known
        part_baseline = part_baseline or known.get("baseline")
    check_asked_alike(
        asked, "The parts of one table of lesions", "make a table of each"
    )
    if part_baseline not in (None, tested):
        log.warning(
            "The parts were found with the baseline %r, and are tested with %r: another question than that which found "
            "them. The columns part_baseline and baseline say so.",
            part_baseline,
            tested,
        )
    return part_baseline


def _labels_of_classes(
    tasks: Mapping[Key, Task],
    parts: Mapping[Key, Circuit],
    text_weights: Sequence[float],
) -> dict[str, int]:
    """Return the label of each class: its index among the candidate classes.

    The label of a class is taken from its task. If the class has a part but no task, its label is taken from the part.
    But if the part was found with other candidate classes, the class gets no label.

    Raises:
        InputError: if two tasks of one class have different labels.
    """
    labels = dict[str, int]()
    told_by = dict[str, Key]()
    for key, task in tasks.items():
        name = key[0]
        label = answer_metric(task.metric, "A lesion takes").label
        if labels.setdefault(name, label) != label:
            first = " in ".join(told_by[name])
            raise InputError(
                f"A class is one row of the candidates, but {first} has label {labels[name]} and {' in '.join(key)} "
                f"has label {label}: give both the row of {name!r}."
            )
        told_by.setdefault(name, key)
    for (name, _), part in parts.items():
        made = part.source.settings
        # A label is the index of a candidate, so among other texts it would mean another class.
        if "label" in made and same_entry(made.get("text_weights"), text_weights):
            labels.setdefault(name, int(made["label"]))
    return labels


def lesion_forwards(n_images: int, n_lesions: int) -> Forwards:
    """Return what `lesion_cell` runs at most: equal lesions run once.

    Args:
        n_images: Number of images.
        n_lesions: Number of lesions, of parts and of random units.
    """
    # A clean run, and one of the whole model under gates.
    return Forwards(alone=n_images * (2 + n_lesions))


def lesion_cell(
    key: Key,
    task: Task,
    lesions: Sequence[Ablated],
    n_units: Mapping[str, int],
    labels: Mapping[str, int],
) -> pd.DataFrame:
    """Return the table of lesions that are measured on the images of one class in one domain.

    Args:
        key: The class and domain of the images.
        task: The task with these images. Its metric has the scale of the model (`at_model_scale`).
        lesions: The units that each lesion ablates.
        n_units: The number of units, error units included, of each site of the parts.
        labels: The labels of the classes among the candidates. A class may be missing.

    Returns:
        The columns of `lesion`, except for ``part_baseline``, and the columns that the lesions tell. The random draws
        of a part are averaged into one row.
    """
    asked = asked_of(task, "A lesion takes")
    quiet = replace(
        task,
        images=one_tensor(task.images),
        others=None,
        work=replace(task.work, progress=False),
    )
    # The whole model also runs as a circuit, so that the answers before and after a lesion do not differ by rounding.
    whole: Mapping[str, np.ndarray] = {}
    embeddings = ablated_embeddings(
        quiet, n_units, [whole, *(one.units for one in lesions)]
    )
    given, probability, is_known = _read_answers(task, embeddings)
    label = answer_metric(task.metric, "A lesion takes").label
    right = in_double(given == label).mean(-1)
    # The share is known only if the class of the part is a candidate.
    part_labels = [labels.get(one.found_on[0], np.nan) for one in lesions]
    of_parts = torch.tensor(part_labels, dtype=torch.double)[:, None]
    taken_for = in_double(given[1:] == of_parts).mean(-1)
    taken_for[of_parts[:, 0].isnan()] = np.nan
    rows = list[dict[str, Any]]()
    for one in lesions:
        names = (*one.found_on, *key, one.kind)
        rows.append({**one.told, **dict(zip(KEYS, names, strict=True))})
    table = pd.DataFrame(rows).assign(
        n_units=[one.n_units for one in lesions],
        n_images=given.shape[1],
        whole_right=float(right[0]),
        whole_probability=float(probability[0]),
        right=right[1:].numpy(),
        probability=probability[1:].numpy(),
        taken_for=taken_for.numpy(),
    )
    _tell_unknown(key, lesions, (~is_known[1:]).sum(-1).tolist(), given.shape[1])
    told = list(lesions[0].told)
    means = table.groupby([*told, *KEYS], sort=False).mean().reset_index()
    return means.assign(
        candidates=asked["candidates"],
        scale=asked["scale"],
        baseline=asked["baseline"],
    )


def _read_answers(
    task: Task, embeddings: Float[Tensor, "runs images d"]
) -> tuple[
    Int[Tensor, "runs images"], Float[Tensor, " runs"], Bool[Tensor, "runs images"]
]:
    """Return the class that each image is classified as, the mean probability of the task's class, and what is finite.

    Args:
        task: The task, with the images' own class and all candidate classes.
        embeddings: The embeddings of the task's images in several runs.

    Returns:
        The labels of the given classes; the probability by run; and a mask of the images with an answer.
    """
    metric = answer_metric(task.metric, "A lesion takes")
    n_images = embeddings.shape[1]
    given = list[Tensor]()
    probability = list[Tensor]()
    is_known = list[Tensor]()
    for some in torch.split(embeddings, max(1, _ROWS // n_images)):
        answers = metric.log_answers(some.flatten(0, 1)).cpu()
        answers = answers.view(len(some), n_images, -1)
        given.append(given_classes(answers))
        probability.append(answers[..., metric.label].exp().mean(-1))
        is_known.append(~answers.isnan().any(-1))
    return torch.cat(given), torch.cat(probability), torch.cat(is_known)


def _tell_unknown(
    key: Key, lesions: Sequence[Ablated], n_unknown: Sequence[int], n_images: int
) -> None:
    """Log a warning if images have no answer after a lesion.

    Args:
        key: The class and domain of the images.
        lesions: The lesions.
        n_unknown: For each lesion, the number of images without an answer.
        n_images: The number of images.
    """
    broken = list[str]()
    for one, n in zip(lesions, n_unknown, strict=True):
        if n:
            broken.append(
                f"{n} without the {one.kind} units of {' in '.join(one.found_on)}"
            )
    if broken:
        log.warning(
            "Of %d images of %s the embeddings of some are not finite after a lesion, so they have no answer, and "
            "their probability is NaN: %s.",
            n_images,
            " in ".join(key),
            name_some(broken),
        )
