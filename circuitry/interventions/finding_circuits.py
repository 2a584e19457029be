"""One question, several methods: which units of an encoder carry its answers for some images?

A method proposes a circuit of any size; the circuit is then measured in ablated runs. With a wanted selectivity the
smallest size that reaches it is searched, each method by the same bisection of sizes.

Methods score units one by one (`methods`), except for ``learned``. A ranking shares a circuit out over the sites in one
cut over all, with which it needs fewer units than with the same share of every site (`AttributionGraph.strongest` takes
either). A mask has counts of its own.

Which to take, by the scoreboard of a checkout (tables: ``experiments/results/scoreboard``): ``iterative-fisher``, the
default everywhere, at seconds a circuit; masks (``learned``), at minutes, where a circuit is to tell its class from
others by itself with the fewest units, from as many images of the class as there are; rankings need more, exact
patching included, and far more with the same share of every site; the gradient, where single units are to be ranked as
exact patching would, at the least cost. Masks are not the only circuit that works.
"""

import logging
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from typing import Annotated, Any

from circuitry.circuits.budgets import GLOBAL
from circuitry.circuits.circuit_settings import MaskSettings
from circuitry.circuits.graph import Circuit
from circuitry.circuits.methods import (
    ITERATIVE,
    METHODS,
    MethodName,
    without_others,
)
from circuitry.circuits.tower_defaults import default_size
from circuitry.circuits.unit_methods import SEARCHERS
from circuitry.circuits.unit_scores import rank_units
from circuitry.encoder.baselines import ZERO
from circuitry.encoder.task import Task
from circuitry.interventions.faithfulness import measure_circuits
from circuitry.interventions.intervention_settings import (
    AblationSettings,
    Selectivity,
)
from circuitry.runs.errors import InputError
from circuitry.runs.given import SOME, Share, checked

SMALLEST, ROUNDS = 0.05, 4
"""The smallest size that is tried for a selectivity, and the number of sizes."""

log = logging.getLogger(__name__)

Proposer = Callable[[Sequence[float]], list[Circuit]]
"""Makes the circuits of some sizes."""


@checked
def find_circuit(
    task: Task,
    *,
    method: MethodName = ITERATIVE,
    size: Share | None = None,
    selectivity: Selectivity | None = None,
    masks: MaskSettings = MaskSettings(),
) -> Circuit:
    """Find the units that carry the model's answers for some images while everything else is ablated.

    Args:
        task: Images of one class, in a domain or over several, or of all classes of a domain; with images of other
            classes, which selectivity needs, by which ``iterative-fisher`` ranks and on which learned masks keep the
            answers. Without them the gradient ranks, and the log tells so, and that the baseline is zero if it is. A
            baseline with an activation for every image has them for the images and then for the others.
        method: How units are chosen: ranked by one of the methods, as `attribute` and ``circuitry find`` do by default,
            or as a mask that is ``learned``, which takes minutes and needs the fewest units.
        size: Share of the units to keep, in (0, 1] (default: without a selectivity that of ``circuitry find``, by the
            kind of tower); or
        selectivity: what the circuit is to reach on these images, as small as it can; see `FaithfulnessCurve`.
        masks: Steps, images of a step and seed of ``learned``; other methods take none.

    Returns:
        The circuit. With a selectivity ``made_with`` has those that were tried, by size, and a ``note`` where none
        reached it.

    Raises:
        InputError: for another method, both size and selectivity, a selectivity out of range, without others or of a
            class that the model does not tell from them, and what the methods raise.

    Example:
        >>> circuit = circuitry.find_circuit(task, size=0.4)
        >>> round(circuit.size, 1)
        0.4
    """
    if size is not None and selectivity is not None:
        raise InputError(
            "A circuit has a size or a selectivity to reach: give one of size= and selectivity=."
        )
    if selectivity is not None and task.others is None:
        raise InputError(
            "Selectivity compares images of the class with others, but the task has no others: make it with "
            "Task(..., others=), or give a size="
        )
    propose = _proposer(task, method, masks)
    if selectivity is not None:
        return _smallest_that_reaches(selectivity, propose, partial(_selectivity, task))
    if size is None:
        size = default_size(task.encoder)
    return propose([size])[0]


@checked
def propose_circuits(
    task: Task,
    sizes: Annotated[Sequence[Share], SOME],
    *,
    method: MethodName = ITERATIVE,
    masks: MaskSettings = MaskSettings(),
) -> list[Circuit]:
    """Return one circuit of each size by one search, not measured: of one ranking, or of one training of masks.

    Args:
        task: As for method, masks and errors, see `find_circuit`.
        sizes: Shares of the units to keep; masks stay at each of them on the way from the largest to the smallest, and
            share out the steps.
    """
    return _proposer(task, method, masks)(sizes)


def _proposer(task: Task, method: str, masks: MaskSettings) -> Proposer:
    """Return what makes circuits of some sizes; a ranking, which all sizes share, is made once, here."""
    if task.others is None:
        method = without_others(method, ["this task"])
        _say_zero(task)
    if METHODS[method].learns_mask:
        search = SEARCHERS[method]
        return lambda sizes: search(task, sizes, masks)
    scores = rank_units(task, method)
    return lambda sizes: [scores.strongest(size, budget=GLOBAL) for size in sizes]


def _say_zero(task: Task) -> None:
    """Say that ablated units are zero, which a task without others has where no baseline is given."""
    if task.baseline is ZERO:
        log.warning(
            "This task has no images of other classes and the baseline 'zero', so all units outside a circuit are "
            "zero: give Task(..., others=, baseline='mean-position'), at which smaller circuits work, or another "
            "baseline."
        )


def _selectivity(task: Task, circuit: Circuit) -> float:
    """Return the selectivity of a circuit on a task's images, as a share of the model's own."""
    curve = measure_circuits(task, [circuit], AblationSettings(random_draws=0))
    reason = str(curve.to_pandas("selectivity")["reason"].iloc[0])
    if reason:
        raise InputError(
            f"The selectivity of a circuit is a share of the model's own, but {reason}: give images of the class "
            "that the model tells from the others, or a size= instead."
        )
    return float(curve.selectivity[0])


def _smallest_that_reaches(
    target: float, propose: Proposer, measure: Callable[[Circuit], float]
) -> Circuit:
    """Bisect the sizes, by their ratio, for the smallest circuit that reaches a selectivity."""
    low = SMALLEST
    high = 1.0
    tried = list[tuple[float, Circuit]]()
    for _ in range(ROUNDS):
        size = (low * high) ** 0.5
        (circuit,) = propose([size])
        reached = measure(circuit)
        tried.append((reached, circuit))
        if reached >= target:
            high = size
        else:
            low = size
    tried.sort(key=lambda pair: pair[1].count)
    selectivities = [[one.size, reached] for reached, one in tried]
    made_with: dict[str, Any] = {"selectivity": target, "tried": selectivities}
    enough = [circuit for reached, circuit in tried if reached >= target]
    if enough:
        return replace(enough[0], made_with=enough[0].made_with | made_with)
    best, circuit = max(tried, key=lambda pair: pair[0])
    made_with["note"] = (
        f"No circuit of the {len(tried)} sizes that were tried reached a selectivity of {target:.3g}; this one has "
        f"the largest, {best:.3g}."
    )
    return replace(circuit, made_with=circuit.made_with | made_with)
