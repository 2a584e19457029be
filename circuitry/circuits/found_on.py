"""Check whether a circuit is tested on images that were used to find it.

A graph stores the digests of the pixels of all images that it was computed on, of the class and of other classes. So a
test recognises these images, whatever the names of their files are and however they are compressed. Graphs of earlier
versions have no digests. Then there is no warning.
"""

import logging
from collections.abc import Iterable, Mapping, Set
from typing import Any

from circuitry.circuits.graph import PIXELS, Scores
from circuitry.encoder.task import Task
from circuitry.encoder.tensor_batches import Images, digests_of
from circuitry.runs.errors import name_some

log = logging.getLogger(__name__)


def pixels_of(*sets: Images | None) -> dict[str, Any]:
    """Return the digests of all images of some sets, as an entry of the provenance of a graph.

    A set that is None is ignored.
    """
    digests: set[str] = set()
    for images in sets:
        if images is not None:
            digests.update(digests_of(images))
    # Sorted, because the order of a set differs between processes, and files would differ, too.
    return {PIXELS: sorted(digests)}


def own_and_others(task: Task, graph: Scores) -> dict[str, Images]:
    """Return a dictionary of the task's images: the images of the class, and the images of other classes if it has any.

    The keys are titles for messages. They name the class and the domain of ``graph``.
    """
    title = graph.title if graph.class_name or graph.domain else "the class"
    sets = {f"images of {title}": task.images}
    if task.others is not None:
        sets[f"others of {title}"] = task.others
    return sets


def tell_seen(
    sets: Mapping[str, Images], graphs: Iterable[Scores], what: str
) -> dict[str, int]:
    """Return, for each set of images, how many of its images were used to find circuits; warn if there are any.

    Args:
        sets: Sets of images by title.
        graphs: Graphs of the circuits.
        what: Name of the measurement, as the beginning of the warning.
    """
    known: set[str] = set()
    for graph in graphs:
        known.update(graph.provenance.get(PIXELS, ()))
    return count_seen(sets, known, what)


def count_seen(
    sets: Mapping[str, Images], known: Set[str], what: str
) -> dict[str, int]:
    """Return, for each set of images, how many of its images were used to find circuits; warn if there are any.

    Args:
        sets: Sets of images by title.
        known: The digests of the pixels of all images that were used.
        what: Name of the measurement, as the beginning of the warning.
    """
    counts = dict.fromkeys(sets, 0)
    # Reading and hashing all images takes time. It is skipped if no digests are known.
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
