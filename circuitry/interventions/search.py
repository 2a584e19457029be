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
from typing import Annotated, Any

from circuitry.circuits.budgets import GLOBAL
from circuitry.circuits.circuit_settings import AttributionSettings
from circuitry.circuits.graph import Circuit
from circuitry.circuits.methods import (
    ITERATIVE,
    LEARNED,
    MethodName,
    method_code,
    without_others,
)
from circuitry.circuits.rules import default_size
from circuitry.circuits.unit_scores import graph_of, score_parts, without_image
from circuitry.encoder.baselines import ZERO
from circuitry.encoder.task import Task
from circuitry.interventions.faithfulness import measure_circuits
from circuitry.interventions.intervention_settings import (
    AblationSettings,
    MaskSettings,
    Selectivity,
)
from circuitry.interventions.masks import learn_masks
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
        >>> from circuitry.interventions import find_circuit
        >>> task = Task(encoder, cats, class_logit(weights, 3), baseline="mean-position", others=not_cats)
        >>> circuit = find_circuit(task, size=0.4)
        >>> measure_circuits(unseen, [circuit]).to_pandas()    # beside its complement and random units
    """
    if size is not None and selectivity is not None:
        raise InputError(
            "A circuit has a size or a selectivity to reach: give one of size= and selectivity=."
        )
    if selectivity is None:
        size = default_size(task.encoder) if size is None else size
        return _proposer(task, method, masks)([size])[0]
    if task.others is None:
        raise InputError(
            "Selectivity compares images of the class with others, but the task has no others: make it with "
            "Task(..., others=), or give a size="
        )
    return _bisect(task, selectivity, _proposer(task, method, masks))


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
    """Return what makes circuits, with what all sizes share done."""
    if task.others is None:
        method = without_others(method, ["this task"])
        _say_zero(task)
    if method == LEARNED:
        return lambda sizes: learn_masks(task, sizes, masks).circuits
    with task.running(gradients=True):
        effects, _ = score_parts(
            without_image(task), AttributionSettings(method=method)
        )
    made = {
        "method": method,
        "method_code": method_code(method),
        "ranking": "absolute",
        "budget": GLOBAL,
    }
    graph = graph_of(task, effects, made | task.identity)

    def rank(sizes: Sequence[float]) -> list[Circuit]:
        taken = [graph.strongest(size, budget=GLOBAL) for size in sizes]
        return [
            replace(one, source=replace(graph, kept_units=dict(one.units)))
            for one in taken
        ]

    return rank


def _say_zero(task: Task) -> None:
    """Say that ablated units are zero, which a task without others has where no baseline is given."""
    if task.baseline is ZERO:
        log.warning(
            "This task has no images of other classes and the baseline 'zero', so all units outside a circuit are "
            "zero: give Task(..., others=, baseline='mean-position'), at which smaller circuits work, or another "
            "baseline."
        )


def _bisect(task: Task, target: float, propose: Proposer) -> Circuit:
    """Bisect the sizes, by their ratio, for the smallest that reaches a selectivity."""
    low, high, tried = SMALLEST, 1.0, list[tuple[float, Circuit]]()
    for _ in range(ROUNDS):
        size = (low * high) ** 0.5
        (circuit,) = propose([size])
        curve = measure_circuits(task, [circuit], AblationSettings(random_draws=0))
        if reason := str(curve.to_pandas("selectivity")["reason"].iloc[0]):
            raise InputError(
                f"The selectivity of a circuit is a share of the model's own, but {reason}: give images of the class "
                "that the model tells from the others, or a size= instead."
            )
        tried.append((float(curve.selectivity[0]), circuit))
        low, high = (low, size) if tried[-1][0] >= target else (size, high)
    tried.sort(key=lambda one: one[1].count)
    reached = [one for one in tried if one[0] >= target]
    best, circuit = reached[0] if reached else max(tried, key=lambda one: one[0])
    made_with: dict[str, Any] = {
        "selectivity": target,
        "tried": [[one.size, reaches] for reaches, one in tried],
    }
    if not reached:
        made_with["note"] = (
            f"No circuit of the {len(tried)} sizes that were tried reached a selectivity of {target:.3g}; this one has "
            f"the largest, {best:.3g}."
        )
    return replace(circuit, made_with=circuit.made_with | made_with)
