"""One question, several methods: which units of an encoder carry its answers for some images?

A method proposes a circuit of any size; the circuit is then measured in ablated runs. With a wanted selectivity the
smallest size that reaches it is searched, each method by the same bisection of sizes.

| method | score of a unit | runs |
|---|---|---|
| ``site-path`` | integrated gradients at its site, the study's (`nodes`) | points x sites |
| ``input-path`` | gradients along a path of the image (`image_path`) | points |
| ``gradient`` | gradient x (baseline - activation), attribution patching | one |
| ``patching`` | exact effect of putting it to the baseline (`patching`) | one per unit |
| ``fisher`` | squared change of all answers, on images of the class and of others (`answers`) | one per image |
| ``learned`` | how surely a mask keeps it that is learned as a whole (`masks`) | steps |

All but the last rank units one by one; ``AblationSettings.budget`` shares a circuit out over the sites (`budgets`), by
default in one cut over all sites, with which every ranking needs fewer units than with the same share of every site. A
mask has counts of its own, which the budget ``learned`` gives the other methods.

Which to take, by ``circuitry scoreboard`` (tables: ``experiments/results/scoreboard``): masks, the default, where a
circuit is to tell its class from others by itself with the fewest units, from as many images of the class as there are;
rankings need more, exact patching included, and far more with the same share of every site; the gradient, where single
units are to be ranked as exact patching would, at the least cost. `extract` keeps the site path, since it alone scores
edges, and no other ranking gives circuits that work clearly better. Masks are not the only circuit that works: two
seeds are more alike than other images or domains, yet not the same, and a mask is to be read beside that ceiling
(``experiments/shared_masks.py``).
"""

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Annotated

import numpy as np

from circuitry.bases.residual import in_stream
from circuitry.circuits.budgets import GLOBAL, LEARNED, Budget, budget_name, shares_of
from circuitry.circuits.graph import IN_STREAM, AttributionGraph
from circuitry.circuits.methods import EFFECT, SCORED_BY, MethodName
from circuitry.circuits.nodes import NodeEffects, nodes_of
from circuitry.circuits.unit_scores import score_units
from circuitry.encoder.sites import INPUT
from circuitry.encoder.task import Task, with_others
from circuitry.interventions.circuit_sets import take_kept_units, take_top_units
from circuitry.interventions.curves import FaithfulnessCurve
from circuitry.interventions.faithfulness import AblationSettings, measure_circuits
from circuitry.interventions.found_circuit import FoundCircuit
from circuitry.interventions.masks import MaskSettings, gates_of, learn_masks
from circuitry.runs.errors import InputError
from circuitry.runs.given import ABOVE_ZERO, SOME, Share, between, checked

MOST_SELECTIVE = 1.5
"""A circuit may tell its class from others better than the model does, but a larger target is a mistake."""
Selectivity = Annotated[
    float,
    between(
        f"a share of the model's own selectivity in (0, {MOST_SELECTIVE:g}]",
        ABOVE_ZERO,
        MOST_SELECTIVE,
        "write 0.8 for 80 %",
    ),
]
SMALLEST, ROUNDS = 0.05, 4
"""The smallest size that is tried for a selectivity, and the number of sizes."""

Proposer = Callable[[Sequence[float]], list[AttributionGraph]]
"""Makes the circuits of some sizes."""


@checked
def find_circuit(
    task: Task,
    *,
    method: MethodName = LEARNED,
    size: Share | None = None,
    selectivity: Selectivity | None = None,
    masks: MaskSettings = MaskSettings(),
    settings: AblationSettings = AblationSettings(),
) -> FoundCircuit:
    """Find the units that carry the model's answers for some images while everything else is ablated.

    Args:
        task: Images of one class, in a domain or over several, or of all classes of a domain; with images of other
            classes, which selectivity needs and on which learned masks keep the answers. A baseline with an activation
            for every image has them for the images and then for the others.
        method: One of `METHODS`.
        size: Share of the units to keep, in (0, 1]; or
        selectivity: what the circuit is to reach on these images, as small as it can; see `FaithfulnessCurve`.
        masks: How masks are learned.
        settings: The ranking of units, random circuits beside those that are measured, and whether errors are kept.

    Returns:
        The circuit. Where a selectivity was not reached, or cannot be computed, ``note`` says so.

    Raises:
        InputError: for another method, both or none of size and selectivity, a selectivity out of range, without others
            or of a class that the model does not tell from them, and what the methods raise.

    Example:
        >>> from circuitry.interventions import find_circuit
        >>> task = Task(encoder, cats, class_logit(weights, 3), baseline="mean-position", others=not_cats)
        >>> found = find_circuit(task, size=0.4)
        >>> found.to_pandas()    # faithfulness and selectivity of circuit, complement and random units
    """
    if (size is None) == (selectivity is None):
        raise InputError("A circuit has a size or a selectivity to reach: give one of size= and selectivity=.")
    if size is not None:
        (graph,) = _proposer(task, method, masks, settings)([size])
        curve = _curve(task, [graph], settings)
        reason = _no_selectivity(curve)
        return FoundCircuit(graph, curve, f"There is no selectivity: {reason}." if reason else "")
    if task.others is None:
        raise InputError(
            "Selectivity compares images of the class with others, but the task has no others: make it with "
            "Task(..., others=), or give a size="
        )
    assert selectivity is not None  # there is no size
    return _bisect(task, selectivity, _proposer(task, method, masks, settings), settings)


@checked
def propose_circuits(
    task: Task,
    sizes: Annotated[Sequence[Share], SOME],
    *,
    method: MethodName = LEARNED,
    masks: MaskSettings = MaskSettings(),
    settings: AblationSettings = AblationSettings(),
) -> list[AttributionGraph]:
    """Return one circuit of each size by one search, not measured: of one ranking, or of one training of masks.

    Args:
        task: As for method, masks, settings and errors, see `find_circuit`.
        sizes: Shares of the units to keep; masks stay at each of them on the way from the largest to the smallest, and
            share out the steps.
    """
    return _proposer(task, method, masks, settings)(sizes)


def _proposer(task: Task, method: str, masks: MaskSettings, settings: AblationSettings) -> Proposer:
    """Return what makes circuits, with what all sizes share done."""
    if method == LEARNED:
        if settings.budget not in (None, LEARNED):
            raise InputError(
                f"A learned mask has its own counts, but the budget {budget_name(settings.budget)!r} was given: leave "
                "it out, or rank the units by another method."
            )
        return lambda sizes: _learned(task, sizes, masks, settings)
    effects = NodeEffects(score_units(task, method), {}, with_others(task)[1])
    graph = _graph(task, effects, method, SCORED_BY.get(method, EFFECT), settings)

    def rank(sizes: Sequence[float]) -> list[AttributionGraph]:
        budgets: Sequence[Budget] = [settings.budget or GLOBAL] * len(sizes)
        if settings.budget == LEARNED:
            n_units = {site: len(scores) for site, scores in graph.node_scores.items()}
            budgets = [shares_of(take_kept_units(one), n_units) for one in _learned(task, sizes, masks, settings)]
        taken = zip(sizes, budgets, strict=True)
        return [replace(graph, kept_units=take_top_units(graph, n, settings.ranking, None, b)) for n, b in taken]

    return rank


def _learned(
    task: Task, sizes: Sequence[float], masks: MaskSettings, settings: AblationSettings
) -> list[AttributionGraph]:
    """Return masks as graphs, whose scores are the gates that training ended with."""
    found = learn_masks(task, sizes, masks, keep_error=settings.keep_error)
    gates = gates_of(found)
    effects = NodeEffects(gates, {}, with_others(task)[1])
    graph = _graph(task, effects, LEARNED, SCORED_BY[LEARNED], settings)
    graph = replace(graph, settings=graph.settings | {"lost": found.lost, "steps": found.steps, "seed": masks.seed})
    units = [{site: np.flatnonzero(chosen) for site, chosen in kept.items()} for kept in found.kept]
    return [replace(graph, kept_units={s: u[np.argsort(-gates[s][u])] for s, u in kept.items()}) for kept in units]


def _graph(
    task: Task, effects: NodeEffects, method: str, scored_by: str, settings: AblationSettings
) -> AttributionGraph:
    """Return scores of all units as a graph that keeps none yet."""
    made_with = {"method": method, "scored_by": scored_by, "ranking": settings.ranking, **task.made_with}
    made_with["budget"] = budget_name(settings.budget or (LEARNED if method == LEARNED else GLOBAL))
    made_with |= {"edges": IN_STREAM} if in_stream(task.encoder) else {}
    errors = {s: effects.scores[s][u.start :] for s, u in task.encoder.error_units.items() if s in effects.scores}
    nodes, sites = nodes_of(task.encoder, effects.scores), tuple(site for site in task.sites if site != INPUT)
    complete, n_images = effects.completeness, effects.n_images
    return AttributionGraph(sites, nodes, {}, {}, complete, n_images, settings=made_with, error_scores=errors)


def _bisect(task: Task, target: float, propose: Proposer, settings: AblationSettings) -> FoundCircuit:
    """Bisect the sizes, by their ratio, for the smallest that reaches a selectivity."""
    low, high, tried = SMALLEST, 1.0, list[tuple[float, AttributionGraph]]()
    for _ in range(ROUNDS):
        size = (low * high) ** 0.5
        (graph,) = propose([size])
        curve = _curve(task, [graph], replace(settings, random_draws=0))
        if reason := _no_selectivity(curve):
            raise InputError(
                f"The selectivity of a circuit is a share of the model's own, but {reason}: give images of the class "
                "that the model tells from the others, or a size= instead."
            )
        tried.append((float(curve.selectivity[0]), graph))
        low, high = (low, size) if tried[-1][0] >= target else (size, high)
    tried.sort(key=lambda one: sum(map(len, one[1].kept_units.values())))
    reached = [one for one in tried if one[0] >= target]
    best, graph = reached[0] if reached else max(tried, key=lambda one: one[0])
    missed = (
        f"No circuit of the {len(tried)} sizes that were tried reached a selectivity of {target:.3g}; this one has the "
        f"largest, {best:.3g}. The curve has all of them."
    )
    return FoundCircuit(graph, _curve(task, [one[1] for one in tried], settings), "" if reached else missed)


def _curve(task: Task, graphs: Sequence[AttributionGraph], settings: AblationSettings) -> FaithfulnessCurve:
    return measure_circuits(task, graphs[0], [take_kept_units(graph) for graph in graphs], settings)


def _no_selectivity(curve: FaithfulnessCurve) -> str:
    """Return why a curve has no selectivity; empty where it has one."""
    return str(curve.to_pandas("selectivity")["reason"].iloc[0])
