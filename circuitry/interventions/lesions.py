"""Lesion: what a model loses with a part of its units, class by class and style by style."""

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
from circuitry.data.parts import Key
from circuitry.encoder.doubles import in_double
from circuitry.encoder.metrics import answer_metric, given_classes
from circuitry.encoder.modes import own_modes
from circuitry.encoder.task import Task, at_model_scale
from circuitry.encoder.tensor_batches import one_tensor
from circuitry.interventions.faithfulness import draw_random
from circuitry.interventions.kept_circuits import kept_embeddings
from circuitry.runs.errors import InputError, name_some
from circuitry.runs.given import SOME, Natural, Seed, checked
from circuitry.runs.identity import same_part
from circuitry.runs.progress import Bar

PART, RANDOM = "part", "random"
KEYS = ("part_class", "part_domain", "class", "domain", "cut")
_PAIR = ("class_a", "domain_a", "class_b", "domain_b")

log = logging.getLogger(__name__)


class Ablated(NamedTuple):
    """Units that are ablated."""

    found_on: Key
    """Class and domain of the part that they are, or that random units stand beside."""
    kind: str
    n_units: int
    rest: Circuit
    """All units but these."""


@own_modes()
@checked
def lesion(
    tasks: Annotated[Mapping[Key, Task], SOME],
    parts: Annotated[Mapping[Key, Circuit], SOME],
    *,
    random_draws: Natural = 1,
    seed: Seed = 0,
) -> pd.DataFrame:
    """Ablate each part, and look at all classes in all styles: whose answers are lost?

    Args:
        tasks: By (class, domain) images that found no part, the metric of the class, and what replaces ablated units.
            All have the same candidate classes, scale and kind of baseline; another class has another label. Their
            others and sites are not used.
        parts: By (class, domain) that they were found on; any circuits of units of one encoder, found with one kind of
            baseline, which may differ from that of the tasks.
        random_draws: Random parts beside each, with as many units at every site.
        seed: Of these.

    Returns:
        Columns part_class, part_domain, class, domain, cut (``part`` or ``random``), n_units, n_images; then means over
        images: whole_right and right, the share that gets its own class before and after the lesion; whole_probability
        and probability, of its own class; and taken_for, the share that gets the class of the part after it, NaN where
        that is none of the candidates. Of equal answers, and of embeddings that are not finite, none is given
        (`given_classes`). The last columns are the same in all rows: candidates (how many), scale, baseline (of the
        tasks), part_baseline (that the parts were found with, None where they do not say).

    Raises:
        InputError: for parts of another encoder or of edges, metrics without candidate classes, and tasks or parts that
            are asked differently.

    Example:
        >>> table = lesion(unseen, {key: own_part(task) for key, task in seen.items()})
        >>> lesion_matrix(table)    # rows: found on, columns: tested on
    """
    if of_edges := [
        " in ".join(key) for key, part in parts.items() if part.edges is not None
    ]:
        raise InputError(
            f"A lesion ablates units, but the part of {of_edges[0]} is of edges: give it without edges."
        )
    tested = {" in ".join(key): task.images for key, task in tasks.items()}
    tell_seen(tested, [part.source for part in parts.values()], "A lesion")
    tasks = {key: at_model_scale(task) for key, task in tasks.items()}
    asked = _asked_of_cells(tasks)
    part_baseline = _baseline_of_parts(parts, asked["baseline"])
    labels = _labels_of_classes(tasks, parts, asked["text_weights"])
    rng, cuts = np.random.default_rng(seed), list[Ablated]()
    for key, part in parts.items():
        cuts.append(Ablated(key, PART, part.count, part.complement()))
        for one in draw_random([part], random_draws, rng):
            cuts.append(Ablated(key, RANDOM, one.count, one.complement()))
    progress, rows = (
        any(task.work.progress for task in tasks.values()),
        list[dict[str, Any]](),
    )
    for key, task in Bar(
        tasks.items(), desc="lesion", unit="job", disable=not progress
    ):
        check_made_with(task, [part.source for part in parts.values()], ANY_TEXTS)
        check_made_with(
            task, [parts[key].source] if key in parts else [], (*ANY_CLASS, "label")
        )
        rows += _rows_of_cell(key, task, cuts, labels)
    table = pd.DataFrame(rows).groupby(list(KEYS), sort=False).mean().reset_index()
    told = {name: asked[name] for name in ("candidates", "scale", "baseline")}
    return table.assign(**told, part_baseline=part_baseline)


def _asked_of_cells(tasks: Mapping[Key, Task]) -> dict[str, Any]:
    """Return what all tasks are asked; refuse tasks whose rows would not be comparable."""
    asked = {
        " in ".join(key): asked_of(task, "A lesion takes")
        for key, task in tasks.items()
    }
    check_asked_alike(
        asked,
        "The cells of one table of lesions",
        "give all the same, or make a table of each",
    )
    return next(iter(asked.values()))


def _baseline_of_parts(parts: Mapping[Key, Circuit], tested: str) -> str | None:
    """Return the baseline that all parts were found with; refuse several, and say where the test has another."""
    settings = {key: part.source.settings for key, part in parts.items()}
    names = ("baseline", "scale")
    asked = {
        f"the part of {' in '.join(key)}": {
            name: made[name] for name in names if name in made
        }
        for key, made in settings.items()
    }
    check_asked_alike(
        asked, "The parts of one table of lesions", "make a table of each"
    )
    found: str | None = next(
        (made["baseline"] for made in settings.values() if "baseline" in made), None
    )
    if found not in (None, tested):
        log.warning(
            "The parts were found with the baseline %r, and are tested with %r: another question than that which found "
            "them. The columns part_baseline and baseline say so.",
            found,
            tested,
        )
    return found


def _labels_of_classes(
    tasks: Mapping[Key, Task],
    parts: Mapping[Key, Circuit],
    text_weights: Sequence[float],
) -> dict[str, int]:
    """Return the row of each class among the candidates of all tasks; refuse tasks that disagree.

    Classes that have parts and no task take the row that their parts were found with, if it is of the same candidates.
    """
    labels, told_by = dict[str, int](), dict[str, Key]()
    for key, task in tasks.items():
        label = answer_metric(task.metric, "A lesion takes").label
        if labels.setdefault(key[0], label) != label:
            first = " in ".join(told_by[key[0]])
            raise InputError(
                f"A class is one row of the candidates, but {first} has label {labels[key[0]]} and {' in '.join(key)} "
                f"has label {label}: give both the row of {key[0]!r}."
            )
        told_by.setdefault(key[0], key)
    for (class_name, _), part in parts.items():
        made = part.source.settings
        if "label" in made and same_part(made.get("text_weights"), text_weights):
            labels.setdefault(class_name, int(made["label"]))
    return labels


def _rows_of_cell(
    key: Key, task: Task, cuts: Sequence[Ablated], labels: Mapping[str, int]
) -> list[dict[str, Any]]:
    """Return a row for each cut, of the images of one class in one domain."""
    metric = answer_metric(task.metric, "A lesion takes")
    quiet = replace(
        task,
        images=one_tensor(task.images),
        others=None,
        work=replace(task.work, progress=False),
    )
    everything = cuts[0].rest.nothing().complement()
    embeddings = kept_embeddings(quiet, [everything, *(cut.rest for cut in cuts)])
    whole, *after = (metric.log_answers(found).cpu() for found in embeddings)
    before = {
        f"whole_{name}": value for name, value in _read(whole, metric.label).items()
    }
    rows, broken = list[dict[str, Any]](), list[str]()
    for cut, answers in zip(cuts, after, strict=True):
        named = dict(zip(KEYS, (*cut.found_on, *key, cut.kind), strict=True))
        row = {**named, "n_units": cut.n_units, "n_images": len(answers), **before}
        row |= _read(answers, metric.label)
        part_label = labels.get(cut.found_on[0])
        row["taken_for"] = np.nan if part_label is None else _share(answers, part_label)
        rows.append(row)
        if n_broken := int(answers.isnan().any(-1).sum()):
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
    """Return the Jaccard index of the units of every two parts, and its expectation for random units.

    Random units are as many at every site; the expectation is that of the sizes by site, summed before dividing.

    Returns:
        Columns class_a, domain_a, class_b, domain_b, overlap, chance; edges, the Jaccard index of the strongest edges
        between the units of each part, NaN where they have no scores (`with_edges`); and size_a, size_b, the shares of
        the units that the parts have: the overlap of parts of unequal sizes is at most the smaller over the larger.
    """
    rows = list[dict[str, Any]]()
    checked = Comparable()
    graphs = list[AttributionGraph]()
    for part in parts.values():
        source = part.source
        checked.add(source)
        if isinstance(source, AttributionGraph) and source.edge_scores:
            graphs.append(source)
    by_edges = None
    if parts and len(graphs) == len(parts):
        by_edges = edge_jaccard_matrix([graph.circuit() for graph in graphs])
    for (i, (a, part_a)), (j, (b, part_b)) in combinations(enumerate(parts.items()), 2):
        sites = [site for site in part_a.units if site in part_b.units]
        shared = sum(
            len(np.intersect1d(part_a.units[site], part_b.units[site]))
            for site in sites
        )
        n_units = {site: len(part_a.source.node_scores[site]) for site in sites}
        by_chance = sum(
            len(part_a.units[site]) * len(part_b.units[site]) / n
            for site, n in n_units.items()
        )
        both = part_a.count + part_b.count
        row: dict[str, Any] = dict(zip(_PAIR, (*a, *b), strict=True))
        row["overlap"] = shared / (both - shared)
        row["chance"] = by_chance / (both - by_chance)
        row["edges"] = np.nan if by_edges is None else by_edges[i, j]
        rows.append(row | {"size_a": part_a.size, "size_b": part_b.size})
    return pd.DataFrame(
        rows, columns=[*_PAIR, "overlap", "chance", "edges", "size_a", "size_b"]
    )


def _read(answers: Float[Tensor, "images classes"], label: int) -> dict[str, float]:
    """Return the share of images that get a class, and its mean probability."""
    return {
        "right": _share(answers, label),
        "probability": float(answers[:, label].exp().mean()),
    }


def _share(answers: Float[Tensor, "images classes"], label: int) -> float:
    """Return the share of images that get a class."""
    return float(in_double(given_classes(answers) == label).mean())
