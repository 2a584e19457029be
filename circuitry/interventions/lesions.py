"""Lesions: ablate some units of a model, and measure for which classes and domains its answers change.

An own part is a set of units that a class needs and that other classes do not need. A lesion ablates the units of one
own part. For comparison, another lesion ablates as many random units.
"""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import combinations
from typing import Annotated, Any, NamedTuple

import numpy as np
import pandas as pd
from jaxtyping import Float
from torch import Tensor

from circuitry.circuits.asked_alike import (
    ANY_CLASS,
    ANY_TEXTS,
    asked_of,
    check_asked_alike,
    check_made_with,
)
from circuitry.circuits.comparable import Comparable
from circuitry.circuits.found_on import tell_seen
from circuitry.circuits.graph import AttributionGraph, Circuit
from circuitry.circuits.similarity_matrix import edge_jaccard_matrix
from circuitry.data.folds import Key
from circuitry.encoder.doubles import in_double
from circuitry.encoder.metrics import answer_metric, given_classes
from circuitry.encoder.modes import own_modes
from circuitry.encoder.task import Task, at_model_scale
from circuitry.encoder.tensor_batches import one_tensor
from circuitry.interventions.faithfulness import draw_random
from circuitry.interventions.kept_circuits import kept_embeddings
from circuitry.runs.arguments import SOME, Natural, Seed, checked
from circuitry.runs.errors import InputError, name_some
from circuitry.runs.identity import same_entry
from circuitry.runs.progress import Bar

PART = "part"
RANDOM = "random"
KEYS = ("part_class", "part_domain", "class", "domain", "cut")
_PAIR = ("class_a", "domain_a", "class_b", "domain_b")

log = logging.getLogger(__name__)


class Ablated(NamedTuple):
    """Units that are ablated together."""

    found_on: Key
    """Class and domain of the own part. For random units, it is the own part that they are compared with."""
    kind: str
    """``part`` or ``random``."""
    n_units: int
    """The number of units that are ablated."""
    rest: Circuit
    """All other units; these are kept."""


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
    cuts = list[Ablated]()
    for key, part in parts.items():
        cuts.append(Ablated(key, PART, part.count, part.complement()))
        for drawn in draw_random([part], random_draws, rng):
            cuts.append(Ablated(key, RANDOM, drawn.count, drawn.complement()))
    progress = any(task.work.progress for task in tasks.values())
    jobs = Bar(tasks.items(), desc="lesion", unit="job", disable=not progress)
    rows = list[dict[str, Any]]()
    for key, task in jobs:
        # Any part may be tested on any class. A part and a task of one class and domain must have the same label.
        check_made_with(task, sources, ANY_TEXTS)
        if key in parts:
            check_made_with(task, [parts[key].source], (*ANY_CLASS, "label"))
        rows += _rows_of_cell(key, task, cuts, labels)
    # The random draws of a part are averaged into one row.
    table = pd.DataFrame(rows).groupby(list(KEYS), sort=False).mean().reset_index()
    return table.assign(
        candidates=asked["candidates"],
        scale=asked["scale"],
        baseline=asked["baseline"],
        part_baseline=part_baseline,
    )


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


def _rows_of_cell(
    key: Key, task: Task, cuts: Sequence[Ablated], labels: Mapping[str, int]
) -> list[dict[str, Any]]:
    """Return a row for each lesion, measured on the images of one class in one domain.

    Args:
        key: The class and domain of the images.
        task: The task with these images.
        cuts: The units that each lesion ablates.
        labels: The labels of the classes among the candidates.
    """
    metric = answer_metric(task.metric, "A lesion takes")
    quiet = replace(
        task,
        images=one_tensor(task.images),
        others=None,
        work=replace(task.work, progress=False),
    )
    # The whole model also runs as a circuit, so that the answers before and after a lesion do not differ by rounding.
    everything = cuts[0].rest.nothing().complement()
    embeddings = kept_embeddings(quiet, [everything, *(cut.rest for cut in cuts)])
    whole, *after = (metric.log_answers(of_run).cpu() for of_run in embeddings)
    before = _read(whole, metric.label)
    rows = list[dict[str, Any]]()
    broken = list[str]()
    for cut, answers in zip(cuts, after, strict=True):
        row: dict[str, Any] = dict(
            zip(KEYS, (*cut.found_on, *key, cut.kind), strict=True)
        )
        row["n_units"] = cut.n_units
        row["n_images"] = len(answers)
        row["whole_right"] = before["right"]
        row["whole_probability"] = before["probability"]
        row |= _read(answers, metric.label)
        # The share is known only if the class of the part is a candidate.
        part_label = labels.get(cut.found_on[0])
        row["taken_for"] = np.nan if part_label is None else _share(answers, part_label)
        rows.append(row)
        n_broken = int(answers.isnan().any(-1).sum())
        if n_broken:
            broken.append(
                f"{n_broken} without the {cut.kind} units of {' in '.join(cut.found_on)}"
            )
    if broken:
        log.warning(
            "Of %d images of %s the embeddings of some are not finite after a lesion, so they have no answer, and "
            "their probability is NaN: %s.",
            len(whole),
            " in ".join(key),
            name_some(broken),
        )
    return rows


def part_overlaps(parts: Mapping[Key, Circuit]) -> pd.DataFrame:
    """Return the Jaccard index of the units of every two parts, and the index that is expected by chance.

    The chance level is the Jaccard index of random units, as many at every site as each part has. The expected sizes of
    intersection and union are summed over sites, and then divided.

    Args:
        parts: The parts by (class, domain).

    Returns:
        A table with a row for each two parts. Columns:

        - class_a, domain_a, class_b, domain_b: the two parts.
        - overlap: the Jaccard index of their units.
        - chance: the index that is expected for random units.
        - edges: the Jaccard index of the strongest edges between the units of each part. It is NaN if any part has no
          scores of edges (`with_edges`).
        - size_a, size_b: the share of the units that each part has. If the sizes differ, the overlap is at most the
          smaller size divided by the larger.

    Example:
        >>> small, large = propose_circuits(task, [0.02, 0.04])
        >>> part_overlaps({("clock", "real"): small, ("clock", "sketch"): large})[["size_a", "size_b"]].round(2)
    """
    comparable = Comparable()
    graphs = list[AttributionGraph]()
    for part in parts.values():
        comparable.add(part.source)
        if isinstance(part.source, AttributionGraph) and part.source.edge_scores:
            graphs.append(part.source)
    # If one part has no scores of edges, there is no matrix of all parts.
    by_edges = None
    if parts and len(graphs) == len(parts):
        by_edges = edge_jaccard_matrix([graph.circuit() for graph in graphs])
    rows = list[dict[str, Any]]()
    numbered = enumerate(parts.items())
    for (i, (key_a, part_a)), (j, (key_b, part_b)) in combinations(numbered, 2):
        shared = 0
        by_chance = 0.0
        for site, units_a in part_a.units.items():
            if site in part_b.units:
                units_b = part_b.units[site]
                n_units = len(part_a.source.node_scores[site])
                shared += len(np.intersect1d(units_a, units_b))
                # The mean of a hypergeometric draw.
                by_chance += len(units_a) * len(units_b) / n_units
        both = part_a.count + part_b.count
        row: dict[str, Any] = dict(zip(_PAIR, (*key_a, *key_b), strict=True))
        row["overlap"] = shared / (both - shared)
        row["chance"] = by_chance / (both - by_chance)
        row["edges"] = np.nan if by_edges is None else by_edges[i, j]
        row["size_a"] = part_a.size
        row["size_b"] = part_b.size
        rows.append(row)
    columns = [*_PAIR, "overlap", "chance", "edges", "size_a", "size_b"]
    return pd.DataFrame(rows, columns=columns)


def _read(answers: Float[Tensor, "images classes"], label: int) -> dict[str, float]:
    """Return the share of images that are classified as a class, and the mean probability of the class."""
    return {
        "right": _share(answers, label),
        "probability": float(answers[:, label].exp().mean()),
    }


def _share(answers: Float[Tensor, "images classes"], label: int) -> float:
    """Return the share of images that are classified as a class."""
    return float(in_double(given_classes(answers) == label).mean())
