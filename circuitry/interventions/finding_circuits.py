"""Find the units of an encoder that carry its answers for some images, by one of several methods.

A method proposes a circuit of any size, and the circuit is then measured in ablated runs. If a selectivity is asked for
instead of a size, a bisection finds the smallest of a few sizes that reaches the selectivity. The bisection is the same
for all methods.

Most methods score units one by one (`methods`). Their circuits consist of the units with the largest scores over all
sites together. Such a circuit needs fewer units than a circuit that keeps the same share of every site
(`AttributionGraph.strongest` offers both). The method ``learned`` trains a mask, which chooses all units of the circuit
together. It also learns how many units to keep at each site.

The scoreboard in the repository (``experiments/results/scoreboard``) helps to choose the method:

- ``iterative-fisher``, the default, takes seconds for a circuit.
- ``learned`` takes minutes. It needs the fewest units to separate the class from other classes with the circuit alone.
  Give it all the images of the class that there are.
- All other rankings, including exact patching, need more units.
- The gradient is the cheapest method. It ranks single units in nearly the same order as exact patching does.

Different circuits may all carry the answers for the same images. A mask finds one of them.
"""

import logging
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from typing import Annotated, Any

from circuitry.circuits.budgets import GLOBAL
from circuitry.circuits.circuit_settings import AttributionSettings, MaskSettings
from circuitry.circuits.graph import Circuit
from circuitry.circuits.masks import mask_forwards
from circuitry.circuits.methods import (
    ITERATIVE,
    METHODS,
    MethodName,
    without_others,
)
from circuitry.circuits.tower_defaults import default_size
from circuitry.circuits.unit_methods import SEARCHERS, Counts
from circuitry.circuits.unit_scores import rank_units, scoring_forwards
from circuitry.encoder.baselines import ZERO
from circuitry.encoder.task import Task
from circuitry.interventions.faithfulness import curve_forwards, measure_circuits
from circuitry.interventions.intervention_settings import (
    AblationSettings,
    Selectivity,
)
from circuitry.runs.arguments import SOME, Share, checked
from circuitry.runs.errors import InputError
from circuitry.runs.plan import Forwards

SMALLEST = 0.05
"""The smallest size that is tried when a selectivity is asked for."""
ROUNDS = 4
"""The number of sizes that are tried when a selectivity is asked for."""

log = logging.getLogger(__name__)

Proposer = Callable[[Sequence[float]], list[Circuit]]
"""A function that takes sizes and returns one circuit for each size."""


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
        task: Images of one class, from one domain or from several, or of all classes of a domain. The methods
            ``iterative-fisher`` and ``learned`` need images of other classes (``others``). If the task has no
            ``others``, the gradient replaces both methods, and the log says so. A selectivity needs ``others``, too. A
            baseline with one activation per image must list the activations of ``task.images`` first, then the
            activations of ``task.others``.
        method: Name of the method, see `METHODS`. The method ``learned`` trains a mask, which chooses the units. Every
            other method scores the units, and the circuit consists of the units with the largest scores over all sites
            together.
        size: Share of the units to keep, in (0, 1]. The default is the size of ``circuitry find``, which depends on the
            kind of tower.
        selectivity: Give this instead of a size to find the smallest circuit that reaches this selectivity on these
            images; see `FaithfulnessCurve`.
        masks: Steps, images per step and seed of ``learned``; all other methods ignore them.

    Returns:
        The circuit. If a selectivity is given, ``made_with`` has the size and selectivity of every circuit that was
        tried, and a ``note`` if no circuit reached the selectivity.

    Raises:
        InputError: if the method is unknown; if both a size and a selectivity are given; if a selectivity is out of
            range; if a selectivity is given, but the task has no ``others``; or if a selectivity is given, but the
            model itself does not separate the class from ``others``. The errors of the methods are raised, too.

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
    """Find one circuit for each size, in a single search.

    All circuits come from one ranking of the units, or from one training of masks. The circuits are not measured. For
    ``task``, ``method``, ``masks`` and errors see `find_circuit`.

    Args:
        sizes: Shares of the units to keep. The training of masks goes from the largest size to the smallest, and
            divides its steps among the sizes.

    Example:
        >>> small, large = propose_circuits(task, [0.1, 0.4])
        >>> small.count < large.count
        True
    """
    return _proposer(task, method, masks)(sizes)


def search_forwards(
    counts: Counts,
    method: str,
    masks: MaskSettings = MaskSettings(),
    *,
    selectivity: bool = False,
) -> Forwards:
    """Return what `find_circuit` runs at most.

    Args:
        counts: Numbers of images, sites and units.
        method: Name of the method.
        masks: Steps of ``learned``.
        selectivity: Whether a selectivity is asked for instead of a size.
    """
    found = scoring_forwards(AttributionSettings(method=method), counts)
    if METHODS[method].learns_mask:
        found = mask_forwards(counts.own, counts.others, masks)
    if not selectivity:
        return found
    # A ranking is made once, and a mask is learned for each size that is tried.
    n_searches = ROUNDS if METHODS[method].learns_mask else 1
    n_images = counts.own + counts.others
    measured = curve_forwards(n_images, [SMALLEST], random_draws=0)
    return found * n_searches + measured * ROUNDS


def _proposer(task: Task, method: str, masks: MaskSettings) -> Proposer:
    """Return a function that takes sizes and returns one circuit for each size."""
    if task.others is None:
        method = without_others(method, ["this task"])
        _say_zero(task)
    search = SEARCHERS.get(method)
    # A method that a user registered scores units, which are then ranked, even if it replaces a method of the package.
    if search is not None and METHODS[method].function is None:
        # A mask is trained for the given sizes, so each call starts a new training.
        return lambda sizes: search(task, sizes, masks)
    # The circuits of all sizes come from the same ranking, so the passes through the model are made once, here.
    scores = rank_units(task, method)
    return lambda sizes: [scores.strongest(size, budget=GLOBAL) for size in sizes]


def _say_zero(task: Task) -> None:
    """Warn if the baseline of a task without images of other classes is zero, which is the default."""
    if task.baseline is ZERO:
        log.warning(
            "This task has no images of other classes and the baseline 'zero', so all units outside a circuit are "
            "zero: give Task(..., others=, baseline='mean-position'), at which smaller circuits work, or another "
            "baseline."
        )


def _selectivity(task: Task, circuit: Circuit) -> float:
    """Return the selectivity of a circuit on a task's images, which is 1 for the whole model.

    Raises:
        InputError: if the model itself does not separate the class from the other images.
    """
    # Random circuits are not measured, because the search needs only the value of the circuit.
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
    """Return the smallest of the tried circuits that reaches a selectivity; the sizes to try are chosen by bisection.

    If no circuit reaches the selectivity, the circuit with the largest selectivity is returned, with a note.
    """
    low = SMALLEST
    high = 1.0
    tried = list[tuple[float, Circuit]]()
    for _ in range(ROUNDS):
        # The geometric mean: sizes between 5 % and 100 % differ by ratios.
        size = (low * high) ** 0.5
        circuit = propose([size])[0]
        reached = measure(circuit)
        tried.append((reached, circuit))
        if reached >= target:
            high = size
        else:
            low = size
    # Sorted by the number of units and not by the size that was asked for, because a mask may keep fewer units.
    tried.sort(key=lambda pair: pair[1].count)
    selectivities = [[circuit.size, reached] for reached, circuit in tried]
    made_with: dict[str, Any] = {"selectivity": target, "tried": selectivities}
    # A selectivity may be NaN, which reaches nothing.
    for reached, circuit in tried:
        if reached >= target:
            return replace(circuit, made_with=circuit.made_with | made_with)
    best, circuit = max(tried, key=lambda pair: pair[0])
    made_with["note"] = (
        f"No circuit of the {len(tried)} sizes that were tried reached a selectivity of {target:.3g}; this one has "
        f"the largest, {best:.3g}."
    )
    return replace(circuit, made_with=circuit.made_with | made_with)
