"""Find the units of an encoder that carry its answers for some images, by one of several methods.

A method proposes a circuit of any size; the circuit is then measured in ablated runs. For a wanted selectivity the
smallest size that reaches it is searched, by the same bisection of sizes for each method.

Most methods score units one by one (`methods`). Their circuit is one cut of the ranking over all sites, which needs
fewer units than the same share of every site (`AttributionGraph.strongest` takes either). A mask (``learned``) decides
by itself how many units it keeps at each site.

The scoreboard of a checkout (``experiments/results/scoreboard``) tells which method to choose:

- ``iterative-fisher``, the default: seconds a circuit;
- ``learned``: minutes a circuit, and the fewest units with which a circuit alone tells its class from others. It needs
  as many images of the class as there are;
- the other rankings, exact patching included: more units;
- the gradient: the cheapest, for a ranking of single units like that of exact patching.

Several circuits may work for one question; a mask is one of them.
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
from circuitry.runs.arguments import SOME, Share, checked
from circuitry.runs.errors import InputError

SMALLEST = 0.05
"""The smallest size that is tried for a selectivity."""
ROUNDS = 4
"""The number of sizes that are tried."""

log = logging.getLogger(__name__)

Proposer = Callable[[Sequence[float]], list[Circuit]]
"""Makes a circuit of each of some sizes."""


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
        task: Images of one class, in a domain or over several, or of all classes of a domain. Images of other classes
            (``others``) are needed for a selectivity, for ``iterative-fisher`` and for learned masks. Without them
            the gradient ranks, and the log says so. If the baseline has an activation for every image, it has them
            for the images and then for the others.
        method: How units are chosen: ranked by one of the methods, or as a mask that is ``learned``.
        size: Share of the units to keep, in (0, 1]. Default: the size of ``circuitry find``, by the kind of tower.
        selectivity: In place of a size: find the smallest circuit that reaches this selectivity on these images; see
            `FaithfulnessCurve`.
        masks: Steps, images of a step and seed of ``learned``; other methods ignore them.

    Returns:
        The circuit. With a selectivity, ``made_with`` has the size and selectivity of every circuit that was tried,
        and a ``note`` where none reached it.

    Raises:
        InputError: for an unknown method, both size and selectivity, a selectivity that is out of range, or without
            others, or of a class that the model does not tell from them, and the errors of the methods.

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
    """Find one circuit of each size in one search: of one ranking, or of one training of masks.

    The circuits are not measured. For ``task``, ``method``, ``masks`` and errors see `find_circuit`.

    Args:
        sizes: Shares of the units to keep. The training of a mask goes from the largest size to the smallest, and
            shares its steps out among them.

    Example:
        >>> small, large = propose_circuits(task, [0.1, 0.4])
        >>> small.count < large.count
        True
    """
    return _proposer(task, method, masks)(sizes)


def _proposer(task: Task, method: str, masks: MaskSettings) -> Proposer:
    """Return a function that makes circuits of some sizes."""
    if task.others is None:
        method = without_others(method, ["this task"])
        _say_zero(task)
    search = SEARCHERS.get(method)
    # A method from outside, even in the place of one of the package, scores units, which are then ranked.
    if search is not None and METHODS[method].function is None:
        # A mask is trained for its sizes, so each call trains anew.
        return lambda sizes: search(task, sizes, masks)
    # All sizes cut the same ranking: the passes through the model are made once, here.
    scores = rank_units(task, method)
    return lambda sizes: [scores.strongest(size, budget=GLOBAL) for size in sizes]


def _say_zero(task: Task) -> None:
    """Warn where ablated units are zero, the default baseline of a task without others."""
    if task.baseline is ZERO:
        log.warning(
            "This task has no images of other classes and the baseline 'zero', so all units outside a circuit are "
            "zero: give Task(..., others=, baseline='mean-position'), at which smaller circuits work, or another "
            "baseline."
        )


def _selectivity(task: Task, circuit: Circuit) -> float:
    """Return the selectivity of a circuit on a task's images, as a share of the model's own."""
    # No random circuits: the search looks at the circuit's value alone.
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
    """Bisect the sizes for the smallest circuit that reaches a selectivity."""
    low = SMALLEST
    high = 1.0
    tried = list[tuple[float, Circuit]]()
    for _ in range(ROUNDS):
        # The geometric mean: between 5 % and 100 %, an error of size counts as a ratio.
        size = (low * high) ** 0.5
        circuit = propose([size])[0]
        reached = measure(circuit)
        tried.append((reached, circuit))
        if reached >= target:
            high = size
        else:
            low = size
    # By units and not by the size that was asked for: a mask may keep fewer units.
    tried.sort(key=lambda pair: pair[1].count)
    selectivities = [[circuit.size, reached] for reached, circuit in tried]
    made_with: dict[str, Any] = {"selectivity": target, "tried": selectivities}
    for reached, circuit in tried:
        if reached >= target:
            return replace(circuit, made_with=circuit.made_with | made_with)
    best, circuit = max(tried, key=lambda pair: pair[0])
    made_with["note"] = (
        f"No circuit of the {len(tried)} sizes that were tried reached a selectivity of {target:.3g}; this one has "
        f"the largest, {best:.3g}."
    )
    return replace(circuit, made_with=circuit.made_with | made_with)
