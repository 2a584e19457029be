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
import torch
from jaxtyping import Float
from torch import Tensor

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
from circuitry.runs.errors import InputError


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
        most: The largest number of copies.
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
        InputError: as for `own_part`; if the two tasks differ in class, encoder or in what they ask; and if there are
            not enough units for ``most`` copies.

    Example:
        >>> copies, table = find_copies(task, task, share=0.01, most=2)
        >>> np.intersect1d(copies[0].units["layer4.0"], copies[1].units["layer4.0"]).size
        0
        >>> table[["copy", "fall", "fall_so_far", "random_fall", "layer4.0"]].round(2)
    """
    tasks = prepared(task)
    (test,) = prepared(replace(test, sites=tasks[0].sites))
    check_alike([tasks[0], test], "The tasks of copies", "give both the same")
    # Before the first copy is found, because this raises an error at once if nothing can be tested.
    with test.running(gradients=True):
        tested = ImagesOfClass(test)
    n_units = tested.runs.n_gates
    if most * math.ceil(share * n_units) > n_units:
        raise InputError(
            f"Copies share no unit, but {most} copies with {share:g} of the {n_units} units each have more than all: "
            "give a smaller share, or a smaller number as most."
        )
    rng = np.random.default_rng(seed)
    copies = list[Circuit]()
    rows = list[dict[str, Any]]()
    while len(copies) < most:
        copy = own_part(tasks, share=share, without=copies)
        copies.append(copy)
        so_far = _together(copies)
        drawn = draw_random([copy, so_far], random_draws, rng)
        with test.running(gradients=True):
            of_class, of_others = _falls(tested, [copy, so_far, *drawn])
        # Each draw has random units for the copy, and then for all copies so far.
        by_chance = of_class[2:].reshape(random_draws, 2).mean(0)
        row: dict[str, Any] = {
            "copy": len(copies),
            "share": copy.size,
            "fall": of_class[0],
            "others_fall": of_others[0],
            "random_fall": by_chance[0],
            "fall_so_far": of_class[1],
            "others_fall_so_far": of_others[1],
            "random_fall_so_far": by_chance[1],
            "n_images": len(tested.own),
            "n_others": len(tested.others),
        }
        for site, units in copy.units.items():
            row[site] = len(units) / copy.count
        rows.append(row)
        if of_class[0] <= by_chance[0]:
            break
    # The images are the same for all copies, so it is told once.
    source = copies[0].source
    tell_seen(own_and_others(test, source), [source], "What a copy takes")
    return copies, pd.DataFrame(rows)


def _together(copies: Sequence[Circuit]) -> Circuit:
    """Return the circuit of the units of all copies."""
    units = dict[str, np.ndarray]()
    for site in copies[0].units:
        units[site] = np.concatenate([copy.units[site] for copy in copies])
    return replace(copies[0], units=units)


def _falls(
    images: ImagesOfClass, ablated: Sequence[Circuit]
) -> Float[np.ndarray, "2 sets"]:
    """Return how much the mean log-odds fall, of the class and of other classes, when each circuit is ablated."""
    device = images.runs.embeddings.device
    n_gates = images.runs.n_gates
    # The whole model also runs under gates, so that a fall is not a rounding error.
    sets = [torch.zeros(n_gates, dtype=torch.bool)]
    sets += [gates_on(images.runs, [circuit]) for circuit in ablated]
    means = list[Tensor]()
    for closed in sets:
        opened = (~closed).float().to(device)
        for places in (images.own, images.others):
            means.append(images.log_odds(places, opened).mean())
    odds = torch.stack(means).view(len(sets), 2).cpu().numpy()
    falls: np.ndarray = (odds[0] - odds[1:]).T
    return falls
