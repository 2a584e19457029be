"""Lesion: what a model loses with a part of its units, class by class and style by style."""

from collections.abc import Mapping
from dataclasses import replace
from itertools import combinations
from typing import Annotated, Any

import numpy as np
import pandas as pd
from jaxtyping import Float
from torch import Tensor

from circuitry.circuits.comparable import Comparable
from circuitry.circuits.found_on import tell_seen
from circuitry.circuits.graph import Circuit
from circuitry.circuits.made_with import ANY_CLASS, ANY_TEXTS, check_made_with
from circuitry.circuits.similarity_matrix import edge_jaccard_matrix
from circuitry.data.parts import Key
from circuitry.encoder.doubles import in_double
from circuitry.encoder.metrics import answer_metric
from circuitry.encoder.modes import own_modes
from circuitry.encoder.task import Task
from circuitry.encoder.tensor_batches import one_tensor
from circuitry.interventions.faithfulness import draw_random
from circuitry.interventions.gated import kept_embeddings
from circuitry.runs.errors import InputError
from circuitry.runs.given import SOME, Natural, Seed, checked
from circuitry.runs.progress import Bar

PART, RANDOM = "part", "random"
KEYS = ("part_class", "part_domain", "class", "domain", "cut")


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
            Their others and sites are not used.
        parts: By (class, domain) that they were found on; any circuits of units of one encoder.
        random_draws: Random parts beside each, with as many units at every site.
        seed: Of these.

    Returns:
        Columns part_class, part_domain, class, domain, cut (``part`` or ``random``), n_units, n_images; then means over
        images: whole_right and right, the share that gets its own class before and after the lesion; whole_probability
        and probability, of its own class; and taken_for, the share that gets the class of the part after it.

    Raises:
        InputError: for parts of another encoder or of edges, and metrics without candidate classes.

    Example:
        >>> table = lesion(unseen, {key: own_part(task) for key, task in seen.items()})
        >>> lesion_matrix(table)    # rows: found on, columns: tested on
    """
    if of_edges := [" in ".join(key) for key, part in parts.items() if part.edges is not None]:
        raise InputError(f"A lesion ablates units, but the part of {of_edges[0]} is of edges: give it without edges.")
    tested = {" in ".join(key): task.images for key, task in tasks.items()}
    tell_seen(tested, [part.source for part in parts.values()], "A lesion")
    metrics = {key: answer_metric(task.metric, "A lesion takes") for key, task in tasks.items()}
    labels = {class_name: metric.label for (class_name, _), metric in metrics.items()}
    rng, cuts = np.random.default_rng(seed), list[tuple[Key, str, Circuit]]()
    for key, part in parts.items():
        cuts += [(key, PART, part), *((key, RANDOM, one) for one in draw_random([part], random_draws, rng))]
    runs = [cut.complement() for *_, cut in cuts]
    progress, rows = any(task.work.progress for task in tasks.values()), list[dict[str, Any]]()
    for key, task in Bar(tasks.items(), desc="lesion", unit="job", disable=not progress):
        check_made_with(task, [part.source for part in parts.values()], ANY_TEXTS)
        check_made_with(task, [parts[key].source] if key in parts else [], (*ANY_CLASS, "label"))
        quiet = replace(task, images=one_tensor(task.images), others=None, work=replace(task.work, progress=False))
        found = kept_embeddings(quiet, [runs[0].nothing().complement(), *runs])
        whole, *after = (metrics[key].log_answers(embeddings).cpu() for embeddings in found)
        before = {f"whole_{name}": value for name, value in _read(whole, labels[key[0]]).items()}
        for (part_key, cut, part), answers in zip(cuts, after, strict=True):
            named = dict(zip(KEYS, (*part_key, *key, cut), strict=True))
            rows.append({**named, "n_units": part.count, "n_images": len(answers), **before})
            rows[-1] |= _read(answers, labels[key[0]])
            given = labels.get(part_key[0], -1)  # no answer, where no task is of the class
            rows[-1]["taken_for"] = _share(answers, given)
    return pd.DataFrame(rows).groupby(list(KEYS), sort=False).mean().reset_index()


def part_overlaps(parts: Mapping[Key, Circuit]) -> pd.DataFrame:
    """Return the Jaccard index of the units of every two parts, and its expectation for random units.

    Random units are as many at every site; the expectation is that of the sizes by site, summed before dividing.

    Returns:
        Columns class_a, domain_a, class_b, domain_b, overlap, chance; and edges, the Jaccard index of the strongest
        edges between the units of each part, NaN where they have no scores (`with_edges`).
    """
    sources, rows, checked = [part.source for part in parts.values()], [], Comparable()
    for source in sources:
        checked.add(source)
    scored = bool(parts) and all(source.edge_scores for source in sources)
    by_edges = edge_jaccard_matrix([source.circuit() for source in sources]) if scored else None
    for (i, (a, part_a)), (j, (b, part_b)) in combinations(enumerate(parts.items()), 2):
        sites = [site for site in part_a.units if site in part_b.units]
        shared = sum(len(np.intersect1d(part_a.units[site], part_b.units[site])) for site in sites)
        n_units = {site: len(part_a.source.node_scores[site]) for site in sites}
        by_chance = sum(len(part_a.units[site]) * len(part_b.units[site]) / n for site, n in n_units.items())
        both = part_a.count + part_b.count
        edges = np.nan if by_edges is None else by_edges[i, j]
        rows.append((*a, *b, shared / (both - shared), by_chance / (both - by_chance), edges))
    return pd.DataFrame(rows, columns=["class_a", "domain_a", "class_b", "domain_b", "overlap", "chance", "edges"])


def _read(answers: Float[Tensor, "images classes"], label: int) -> dict[str, float]:
    """Return the share of images that get a class, and its mean probability."""
    return {
        "right": _share(answers, label),
        "probability": float(answers[:, label].exp().mean()),
    }


def _share(answers: Float[Tensor, "images classes"], label: int) -> float:
    """Return the share of images that get a class."""
    return float(in_double(answers.argmax(-1) == label).mean())
