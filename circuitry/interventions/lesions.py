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
        - whole_log_odds, log_odds: the mean log-odds of the images' own class before and after the lesion, log p -
          log(1 - p). Their difference is the evidence that is lost. It compares styles that begin at other margins.
        - whole_rank, rank: the mean rank of the images' own class among the candidates, 1 if it is the answer.
        - whole_auc, auc: only for images of the part's class, how well the log-odds of this class tell them from the
          images of the other classes in their domain: the area under the ROC curve, 0.5 by chance.
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
    # The class of a part may be no candidate. Then its log-odds are unknown.
    part_labels = [labels.get(one.found_on[0], NO_ANSWER) for one in lesions]
    answers = _read_answers(task, embeddings, torch.tensor(part_labels))
    label = answer_metric(task.metric, "A lesion takes").label
    right = in_double(answers.given == label).mean(-1)
    odds = answers.log_odds.mean(-1)
    rank = answers.rank.mean(-1)
    of_parts = torch.tensor(part_labels)[:, None]
    taken_for = in_double(answers.given[1:] == of_parts).mean(-1)
    taken_for[of_parts[:, 0] == NO_ANSWER] = np.nan
    rows = list[dict[str, Any]]()
    for one in lesions:
        names = (*one.found_on, *key, one.kind)
        rows.append({**one.told, **dict(zip(KEYS, names, strict=True))})
    n_unknown = answers.log_odds[1:].isnan().sum(-1).tolist()
    n_images = answers.given.shape[1]
    _tell_unknown(key, lesions, n_unknown, n_images)
    return pd.DataFrame(rows).assign(
        n_units=[one.n_units for one in lesions],
        n_images=n_images,
        whole_right=float(right[0]),
        whole_log_odds=float(odds[0]),
        whole_rank=float(rank[0]),
        right=right[1:].numpy(),
        log_odds=odds[1:].numpy(),
        rank=rank[1:].numpy(),
        taken_for=taken_for.numpy(),
        candidates=asked["candidates"],
        scale=asked["scale"],
        baseline=asked["baseline"],
        whole_of_part=_in_words(answers.of_parts_before),
        of_part=_in_words(answers.of_parts),
    )


def join_cells(cells: Sequence[pd.DataFrame]) -> pd.DataFrame:
    """Return one table of lesions from the tables of `lesion_cell`, with the areas under the ROC curve.

    The random draws of a part are averaged into one row.
    """
    table = pd.concat(cells, ignore_index=True)
    before = table.pop("whole_of_part").map(_in_numbers)
    after = table.pop("of_part").map(_in_numbers)
    told = list(table.columns[: table.columns.get_loc(KEYS[0])])
    of_lesion = [*told, "part_class", "part_domain", "domain", "cut", "draw"]
    table = table.assign(whole_auc=np.nan, auc=np.nan)
    for _, rows in table.groupby(of_lesion, sort=False).groups.items():
        is_own = table.loc[rows, "part_class"] == table.loc[rows, "class"]
        own = rows[is_own]
        others = rows[~is_own]
        if len(own) and len(others):
            for name, values in (("whole_auc", before), ("auc", after)):
                of_others = np.concatenate(list(values[others]))
                table.loc[own, name] = area_under_curve(values[own[0]], of_others)
    asked = ["candidates", "scale", "baseline"]
    by = [*told, *KEYS, *asked]
    return table.drop(columns="draw").groupby(by, sort=False).mean().reset_index()


def _in_words(numbers: Float[Tensor, "lesions images"]) -> list[str]:
    """Return the numbers of each lesion as a text, so that a row of a table can hold them."""
    return [" ".join(f"{number:.7g}" for number in row) for row in numbers.tolist()]


def _in_numbers(text: str) -> np.ndarray:
    """Return the numbers that `_in_words` wrote."""
    return np.array(text.split(), float)


def area_under_curve(
    positives: Float[np.ndarray, " n"], negatives: Float[np.ndarray, " m"]
) -> float:
    """Return the area under the ROC curve: how often a positive is above a negative; a tie counts as half.

    Example:
        >>> area_under_curve(np.array([1.0, 3.0]), np.array([0.0, 2.0]))
        0.75
    """
    ordered = np.sort(negatives)
    below = np.searchsorted(ordered, positives, "left")
    not_above = np.searchsorted(ordered, positives, "right")
    return float((below + not_above).mean() / 2 / len(ordered))


class _Answers(NamedTuple):
    """What the model answers for each image in several runs: one of the whole model, and one of each lesion."""

    given: Int[Tensor, "runs images"]
    """Labels of the classes that the images are classified as."""
    log_odds: Float[Tensor, "runs images"]
    """Log-odds of the images' own class; NaN if the embedding is not finite."""
    rank: Float[Tensor, "runs images"]
    """Rank of the images' own class among the candidates, 1 for the class with the largest answer."""
    of_parts_before: Float[Tensor, "lesions images"]
    """Log-odds of the class of each lesion's part, in the run of the whole model."""
    of_parts: Float[Tensor, "lesions images"]
    """Log-odds of the class of each lesion's part, after the lesion."""


def _read_answers(
    task: Task,
    embeddings: Float[Tensor, "runs images d"],
    part_labels: Int[Tensor, " lesions"],
) -> _Answers:
    """Return what the model answers.

    Args:
        task: The task, with the images' own class and all candidate classes.
        embeddings: The embeddings of the task's images in the run of the whole model, and in a run of each lesion.
        part_labels: For each lesion, the label of the class of its part, or `NO_ANSWER`.
    """
    metric = answer_metric(task.metric, "A lesion takes")
    n_images = embeddings.shape[1]
    own = torch.tensor([metric.label])
    labels = torch.cat([own, part_labels])
    whole = metric.log_answers(embeddings[0]).cpu()
    chunks = list[_Answers]()
    at_once = max(1, _ROWS // n_images)
    for some, of_parts in zip(embeddings.split(at_once), labels.split(at_once)):
        answers = metric.log_answers(some.flatten(0, 1)).cpu()
        answers = answers.view(len(some), n_images, -1)
        of_own = answers[..., metric.label, None]
        rank = in_double(answers > of_own).sum(-1) + 1
        chunks.append(
            _Answers(
                given_classes(answers),
                _of_classes(answers, own.expand(len(some))),
                rank.masked_fill(answers.isnan().any(-1), np.nan),
                _of_classes(whole.expand_as(answers), of_parts),
                _of_classes(answers, of_parts),
            )
        )
    given, odds, ranks, before, after = map(torch.cat, zip(*chunks, strict=True))
    return _Answers(given, odds, ranks, before[1:], after[1:])


def _of_classes(
    answers: Float[Tensor, "runs images classes"], labels: Int[Tensor, " runs"]
) -> Float[Tensor, "runs images"]:
    """Return the log-odds of one class in each run; NaN if the class is no candidate (`NO_ANSWER`)."""
    rows = labels.clamp(min=0)[:, None].expand(answers.shape[:2])
    is_candidate = labels != NO_ANSWER
    return log_odds(answers, rows).masked_fill(~is_candidate[:, None], np.nan)


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
