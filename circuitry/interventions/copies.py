"""Copies: disjoint own parts of one class, found one after another.

A part that takes the class is rarely the only one. Other units may carry the class as well, and a second part without
any unit of the first may take as much of the class. How much each further copy takes says how often the class is
there, and the sites of its units say at which depth.
"""

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd
from jaxtyping import Float

from circuitry.circuits.circuit_settings import OwnShare
from circuitry.circuits.found_on import own_and_others, tell_seen
from circuitry.circuits.graph import Circuit
from circuitry.circuits.own_part_of_class import (
    ImagesOfClass,
    check_alike,
    gates_on,
    own_part,
    prepared,
)
from circuitry.encoder.task import Task
from circuitry.interventions.faithfulness import draw_random
from circuitry.runs.arguments import Count, Seed, checked


@checked
def find_copies(
    task: Task | Sequence[Task],
    test: Task,
    *,
    share: OwnShare = 0.02,
    most: Count = 5,
    random_draws: Count = 3,
    seed: Seed = 0,
) -> tuple[list[Circuit], pd.DataFrame]:
    """Find disjoint own parts of a class one after another, until one takes no more of the class than random units.

    Args:
        task: The images that find the copies; as for `own_part`.
        test: Images of the class, and as ``others`` images of other classes, that test the copies. They should be other
            images than those of ``task``. Its ``sites`` are ignored.
        share: Share of the units that each copy has.
        most: The largest number of copies. There are fewer if the units are not enough for as many.
        random_draws: The number of random circuits that each copy is compared with. They have as many units at every
            site.
        seed: Seed of the random circuits.

    Returns:
        The copies, and a table with a row for each copy. The last copy takes no more than random units, unless there
        are ``most`` copies. A *fall* is how much the mean log-odds fall when units are ablated, in nats: of the class
        on its images, or of the answer of the whole model on images of other classes. Only images that the whole model
        recognises are tested, as in `own_part`. Columns:

        - copy: the number of the copy, from 1.
        - share: the share of the units that the copy has.
        - fall, others_fall: the falls for the class and for other classes if this copy alone is ablated.
        - random_fall: the fall for the class if as many random units at the same sites are ablated.
        - fall_so_far, others_fall_so_far, random_fall_so_far: the same if all copies so far are ablated together.
        - n_images, n_others: the number of images of the class and of other classes that are tested.
        - the name of each site: the share of the copy's units at this site.

    Raises:
        InputError: as for `own_part`, and if the two tasks differ in class, encoder or in what they ask.

    Example:
        >>> copies, table = find_copies(task, task, share=0.01, most=2)
        >>> np.intersect1d(copies[0].units["layer4.0"], copies[1].units["layer4.0"]).size
        0
        >>> table[["copy", "fall", "fall_so_far", "random_fall", "layer4.0"]].round(2)
    """
    tasks = prepared(task)
    test = prepared(replace(test, sites=tasks[0].sites))[0]
    check_alike([tasks[0], test], "The tasks of copies", "give both the same")
    # Before the first copy is found, because this raises an error at once if nothing can be tested.
    with test.running(gradients=True):
        tested = ImagesOfClass(test)
    # Copies share no unit, so there are no more of them than the units are enough for.
    n_units = tested.runs.n_gates
    most = min(most, n_units // math.ceil(share * n_units))
    rng = np.random.default_rng(seed)
    copies = list[Circuit]()
    rows = list[dict[str, Any]]()
    while len(copies) < most:
        copy = own_part(tasks, share=share, without=copies)
        copies.append(copy)
        units = dict[str, np.ndarray]()
        for site in copy.units:
            units[site] = np.concatenate([earlier.units[site] for earlier in copies])
        ablated = [copy, replace(copy, units=units)]
        drawn = draw_random(ablated, random_draws, rng)
        with test.running(gradients=True):
            of_class, of_others = _falls(tested, [*ablated, *drawn])
        # Each draw has random units for the copy, and then for all copies so far.
        by_chance = of_class[2:].reshape(random_draws, 2).mean(0)
        row: dict[str, Any] = {"copy": len(copies), "share": copy.size}
        for i, ending in enumerate(("", "_so_far")):
            row[f"fall{ending}"] = of_class[i]
            row[f"others_fall{ending}"] = of_others[i]
            row[f"random_fall{ending}"] = by_chance[i]
        row["n_images"] = len(tested.own)
        row["n_others"] = len(tested.others)
        for site, of_site in copy.units.items():
            row[site] = len(of_site) / copy.count
        rows.append(row)
        if of_class[0] <= by_chance[0]:
            break
    # The images are the same for all copies, so it is told once.
    source = copies[0].source
    tell_seen(own_and_others(test, source), [source], "What a copy takes")
    return copies, pd.DataFrame(rows)


def _falls(
    images: ImagesOfClass, ablated: Sequence[Circuit]
) -> Float[np.ndarray, "2 sets"]:
    """Return how much the mean log-odds fall, of the class and of other classes, when each circuit is ablated."""
    means = list[list[float]]()
    # The whole model also runs under gates, so that a fall is not a rounding error.
    for circuits in ([], *([circuit] for circuit in ablated)):
        closed = gates_on(images.runs, circuits).to(images.runs.embeddings.device)
        means.append([])
        for places in (images.own, images.others):
            odds = images.log_odds(places, (~closed).float())
            means[-1].append(float(odds.mean()))
    by_set = np.array(means)
    falls: np.ndarray = by_set[0] - by_set[1:]
    return falls.T
