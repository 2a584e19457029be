"""Faithfulness: does a circuit alone do what the model does?

The metric is measured with only a circuit kept, at the sizes of the MIB benchmark (Mueller et al. 2025, arXiv
2504.13151), beside everything but the circuit and random circuits of its size; see `FaithfulnessCurve`.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from typing import Annotated, ClassVar

import numpy as np
from jaxtyping import Bool, Float

from circuitry.circuits.budgets import LEARNED, SAME_SHARE, Budget, budget_name, check_budget
from circuitry.circuits.edges import Edges
from circuitry.circuits.graph import AttributionGraph
from circuitry.encoder.metrics import checked_metric
from circuitry.encoder.modes import own_modes
from circuitry.encoder.task import Task, with_others
from circuitry.interventions.circuit_sets import RANKINGS, check_made_with, circuit_sites, take_top_units
from circuitry.interventions.curves import FaithfulnessCurve
from circuitry.interventions.gated import Kept, kept_embeddings
from circuitry.interventions.kept_sets import (
    UnitsOrEdges,
    as_kept,
    count_edges,
    count_parts,
    draw_random,
    leave_out,
    take_everything,
)
from circuitry.runs.errors import InputError
from circuitry.runs.given import SOME, Natural, Seed, Share, checked, one_of
from circuitry.runs.progress import Bar

MIB_FRACTIONS = (0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0)
"""The circuit sizes of the MIB benchmark."""
AT_ONCE = 64
"""Circuits that `measure_each` holds at once."""


@checked
@dataclass(frozen=True)
class AblationSettings:
    """Which circuits are measured, and beside which random ones."""

    HOW_TO_GET: ClassVar = "give AblationSettings(...)"

    ranking: Annotated[str, one_of(*RANKINGS)] = "absolute"
    """Which units come first, see `circuit_sets.RANKINGS`."""
    budget: Budget | None = None
    """How the size of a circuit is shared out over the sites, see `circuitry.circuits.budgets` (default of curves: the
    same share of every site, the study's; of `find_circuit`: global, and of a mask its own counts)."""
    fractions: Annotated[Sequence[Share], SOME] = MIB_FRACTIONS
    """Sizes of the circuits of a curve as shares of the units, ascending in (0, 1]."""
    keep_error: bool = False
    """Whether circuits, random ones too, keep the error units of sites in a feature basis; else they are ablated.
    Marks et al. 2024 (arXiv 2403.19647) report both."""
    random_draws: Natural = 5
    """Random circuits of every size, nested like the circuit itself."""
    seed: Seed = 0
    """Seed of the random circuits."""

    def __post_init__(self) -> None:
        if list(self.fractions) != sorted(set(self.fractions)):
            raise InputError(f"A curve needs ascending fractions, but {tuple(self.fractions)} was given: sort them.")
        if self.budget not in (None, LEARNED):
            check_budget(self.budget)


@checked
def faithfulness_curve(
    task: Task, graph: AttributionGraph, settings: AblationSettings = AblationSettings()
) -> FaithfulnessCurve:
    """Measure the metric with circuits of growing size kept, with all but them, and with random units.

    Args:
        task: Images to measure on (images without a part in the attribution are an independent test), with what
            ablated units are put to, and where. A graph of another class is a control. A baseline with an activation
            for every image has them for the images and then for the others.
        graph: The attribution that ranks the units.
        settings: Sizes, ranking, random circuits.

    Raises:
        InputError: for a graph of another encoder or metric, sites that the graph lacks, and what `kept_embeddings`
            raises.

    Example:
        >>> curve = faithfulness_curve(Task(encoder, photos, metric), graph, AblationSettings(ranking="signed"))
        >>> curve.to_pandas()    # faithfulness and completeness with bands, and the random control
        >>> curve.to_pandas("selectivity")    # of a task with others: does the circuit tell the class from them?
        >>> curve.areas()    # CPR and CMD
    """
    sites = circuit_sites(task, graph)
    budget = settings.budget or SAME_SHARE
    circuits = [take_top_units(graph, share, settings.ranking, sites, budget) for share in settings.fractions]
    curve = measure_circuits(task, graph, circuits, settings)
    fractions = tuple(map(float, settings.fractions))
    return replace(curve, fractions=fractions, settings=curve.settings | {"budget": budget_name(budget)})


@checked
def measure_circuits(
    task: Task,
    graph: AttributionGraph,
    circuits: Sequence[UnitsOrEdges],
    settings: AblationSettings = AblationSettings(),
) -> FaithfulnessCurve:
    """Measure the metric with each of some circuits kept, with all but it, and with random units or edges.

    Args:
        task: See `faithfulness_curve`.
        graph: Has the units, class and domain of the circuits.
        circuits: Units by site, or `Edges`, the smallest circuit first.
        settings: Random circuits, and whether errors are kept.

    Returns:
        A curve whose fractions are shares of all units, or of all edges. Random circuits are those of `draw_random`.

    Example:
        >>> circuits = [graph.edges.top(share) for share in (0.05, 0.1, 0.2)]
        >>> measure_circuits(Task(encoder, unseen, metric, baseline=mean), graph, circuits).to_pandas()
    """
    if not circuits:
        raise InputError("A curve is measured of at least one circuit, but none was given.")
    check_made_with(task, [graph])
    sites, of_edges = circuit_sites(task, graph), isinstance(circuits[0], Edges)
    bare = [one if isinstance(one, Edges) else {site: one[site] for site in sites} for one in circuits]
    drawn = draw_random(graph, bare, settings.random_draws, np.random.default_rng(settings.seed))
    kept, random = ([as_kept(graph, one, settings.keep_error) for one in some] for some in (bare, drawn))
    everything = take_everything(kept[0], graph)
    groups = {
        "full": [everything],
        "empty": [leave_out(everything, graph)],
        "kept": kept,
        "complement": [leave_out(circuit, graph) for circuit in kept],
        "random": random,
    }
    values, own = measure_metric(task, [circuit for group in groups.values() for circuit in group])
    parts = np.split(values, np.cumsum([len(group) for group in groups.values()])[:-1])
    measured = dict(zip(groups, parts, strict=True))
    sizes = tuple(count_parts(circuit) for circuit in bare)
    total = count_edges(everything) if of_edges else sum(len(graph.node_scores[site]) for site in sites)
    return FaithfulnessCurve(
        fractions=tuple(n / total for n in sizes),
        ranking="edges" if of_edges else settings.ranking,
        n_units=sizes,
        full=measured["full"][0],
        empty=measured["empty"][0],
        kept=measured["kept"],
        complement=measured["complement"],
        random=measured["random"].reshape(settings.random_draws, len(kept), len(own)),
        own=own,
        group=np.zeros(len(own), dtype=np.int64),
        class_name=graph.class_name,
        domain=graph.domain,
        settings={
            "baseline": task.baseline.name,
            "seed": settings.seed,
            "sites": sites,
            "keep_error": settings.keep_error,
        },
    )


@own_modes()
def measure_metric(
    task: Task, circuits: Sequence[Kept]
) -> tuple[Float[np.ndarray, "circuits images"], Bool[np.ndarray, " images"]]:
    """Return the metric of every image, and of the others, under every circuit, and which images are of the class."""
    everything, n_own = with_others(task)
    embeddings = kept_embeddings(everything, circuits)
    values = np.stack([checked_metric(task.metric, e).cpu().double().numpy() for e in embeddings])
    return values, np.arange(values.shape[1]) < n_own


def measure_each(
    task: Task, circuits: Iterable[Kept], total: int, what: str = "circuits"
) -> Float[np.ndarray, "circuits images"]:
    """Return the metric of every image, and of the others, under each of ``total`` circuits, with one bar for all."""
    left, parts = iter(circuits), list[np.ndarray]()
    quiet = replace(task, work=replace(task.work, progress=False))
    with Bar(total=total, desc=what, unit="circuit", disable=not task.work.progress) as bar:
        while some := list(islice(left, AT_ONCE)):
            parts.append(measure_metric(quiet, some)[0])
            bar.update(len(some))
    return np.concatenate(parts)
