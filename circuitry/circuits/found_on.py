"""Which images found a circuit, by digests of their pixels, and whether other images test it.

A graph carries the digests of the images that it was made of, the class's and the others'. So a test knows the images
of its circuit again, whatever their files are called and however they are compressed. A graph of earlier versions
carries none, and nothing is said of it.
"""

import logging
from collections.abc import Iterable, Mapping
from typing import Any

from circuitry.circuits.graph import PIXELS, Scores
from circuitry.encoder.task import Task
from circuitry.encoder.tensor_batches import Images, digests_of
from circuitry.runs.errors import name_some

log = logging.getLogger(__name__)


def pixels_of(*sets: Images | None) -> dict[str, Any]:
    """Return the digests of all images of some sets, as the provenance of a graph that is made of them."""
    digests: set[str] = set()
    for images in sets:
        if images is not None:
            digests.update(digests_of(images))
    # Sorted, for a set has another order in each process and a file would differ.
    return {PIXELS: sorted(digests)}


def own_and_others(task: Task, graph: Scores) -> dict[str, Images]:
    """Return the images of the class and those of other classes of a task, by titles that name the class of a graph."""
    title = graph.title if graph.class_name or graph.domain else "the class"
    sets = {f"images of {title}": task.images}
    if task.others is not None:
        sets[f"others of {title}"] = task.others
    return sets


def tell_seen(
    sets: Mapping[str, Images], graphs: Iterable[Scores], what: str
) -> dict[str, int]:
    """Count the images of each set that some graphs were made of, and warn if there are any.

    Args:
        sets: Images by title.
        graphs: Graphs whose images are known again.
        what: The measurement, as the beginning of the sentence.
    """
    known: set[str] = set()
    for graph in graphs:
        known.update(graph.provenance.get(PIXELS, ()))
    counts = dict.fromkeys(sets, 0)
    # Reading and hashing all images takes time, which nothing known makes idle.
    if known:
        for name, images in sets.items():
            counts[name] = sum(digest in known for digest in digests_of(images))
    if seen := [f"{name} ({n})" for name, n in counts.items() if n]:
        log.warning(
            "%s is measured on images that found the circuits, which fit these better than others: %s. Give images "
            "that found none.",
            what,
            name_some(seen),
        )
    return counts
