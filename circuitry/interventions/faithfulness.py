"""Faithfulness: does a circuit alone do what the model does?

Metric and answers are measured with only a circuit kept, at the sizes of the MIB benchmark (Mueller et al. 2025, arXiv
2504.13151), beside everything but the circuit, random circuits and other classes' circuits of its size; see
`FaithfulnessCurve`.
"""

from collections.abc import Iterable, Sequence
from dataclasses import replace
from itertools import islice
from typing import Annotated

import numpy as np
import torch
from jaxtyping import Bool, Float

from circuitry.circuits.asked_alike import ANY_TEXTS, check_made_with, named_sites
from circuitry.circuits.budgets import SAME_SHARE
from circuitry.circuits.found_on import own_and_others, tell_seen
from circuitry.circuits.graph import Circuit, Scores
from circuitry.encoder.doubles import in_double
from circuitry.encoder.metrics import ClassLogit, checked_metric
from circuitry.encoder.modes import own_modes
from circuitry.encoder.task import Task, at_model_scale, with_others
from circuitry.interventions.curves import FaithfulnessCurve
from circuitry.interventions.intervention_settings import AblationSettings
from circuitry.interventions.kept_circuits import kept_embeddings
from circuitry.interventions.optimal_ablation import OPTIMAL, optimal_baseline
from circuitry.interventions.weights_touched import weights_touched
from circuitry.runs.errors import InputError
from circuitry.runs.given import SOME, checked
from circuitry.runs.progress import Bar

AT_ONCE = 64
"""Circuits that `measure_each` holds at once."""


@checked
def faithfulness_curve(
    task: Task,
    graph: Scores,
    settings: AblationSettings = AblationSettings(),
    foreign: Sequence[Scores] = (),
) -> FaithfulnessCurve:
    """Measure metric and answers with circuits of growing size kept, with all but them, and with random units.

    Args:
        task: Images to measure on (images without a part in the attribution are an independent test), with what
            ablated units are put to, and where. A graph of another class is a control. A baseline with an activation
            for every image has them for the images and then for the others.
        foreign: Attributions of other classes: is a circuit the class's own, or would another class's do as well?

    Raises:
        InputError: for a graph of another encoder or metric, sites that the graph lacks, and what `kept_embeddings`
            raises.

    Example:
        >>> curve = faithfulness_curve(Task(encoder, photos, metric), graph, AblationSettings(ranking="signed"))
        >>> curve.to_pandas()    # faithfulness and completeness with bands, and the random control
        >>> curve.to_pandas("selectivity")    # of a task with others: does the circuit tell the class from them?
        >>> curve.areas()    # CPR and CMD
    """
    tell_seen(own_and_others(task, graph), [graph], "Faithfulness")
    budget, sites = settings.budget or SAME_SHARE, named_sites(task)
    circuits, *others = (
        [
            one.strongest(share, settings.ranking, budget, sites)
            for share in settings.sizes
        ]
        for one in (graph, *foreign)
    )
    curve = measure_circuits(task, circuits, settings, others)
    sizes = tuple(map(float, settings.sizes))
    found = {"budget": budget, "size": graph.settings.get("size")}
    return replace(curve, sizes=sizes, settings=curve.settings | found)


@checked
def measure_circuits(
    task: Task,
    circuits: Annotated[Sequence[Circuit], SOME],
    settings: AblationSettings = AblationSettings(),
    foreign: Sequence[Sequence[Circuit]] = (),
    fitted: Task | None = None,
) -> FaithfulnessCurve:
    """Measure metric and answers with each of some circuits kept, with all but it, and with random units or edges.

    Args:
        task: See `faithfulness_curve`; of circuits of units its sites are those that are ablated, where it names some.
        circuits: The smallest first, of one source: all of units, or all of edges.
        settings: Random circuits.
        foreign: Circuits of other classes: of each class one as large as each circuit.
        fitted: A task whose images fit constants of optimal ablation for every circuit, random ones and other classes',
            too (`optimal_baseline`); such as the task that the circuits were found with.

    Returns:
        A curve whose sizes are shares of all units, or of all edges. Random circuits of units are nested like the
        circuits themselves.

    Example:
        >>> measure_circuits(Task(encoder, unseen, metric, baseline=mean), [graph.circuit(n) for n in (1, 3, 9)])
        >>> measure_circuits(unseen, [find_circuit(seen, size=0.4)]).to_pandas("selectivity")
    """
    source, sites = circuits[0].source, named_sites(task)
    check_made_with(
        task, [one.source for of_class in (circuits, *foreign) for one in of_class]
    )
    if fitted is not None:
        task.identity.check(
            fitted.identity,
            "the task",
            "the task that fits constants",
            (*ANY_TEXTS, "class_weights"),
        )
    if wrong := [
        len(of_class) for of_class in foreign if len(of_class) != len(circuits)
    ]:
        raise InputError(
            f"Another class has a circuit for each of the {len(circuits)} sizes, but {wrong[0]} were given."
        )
    of_edges = circuits[0].edges is not None

    def bare(some: Sequence[Circuit]) -> list[Circuit]:
        return (
            list(some) if of_edges or sites is None else [one.at(sites) for one in some]
        )

    kept = bare(circuits)
    nothing = kept[0].nothing()
    groups = {
        "full": [nothing.complement()],
        "empty": [nothing],
        "kept": kept,
        "complement": [circuit.complement() for circuit in kept],
        "random": draw_random(
            kept, settings.random_draws, np.random.default_rng(settings.seed)
        ),
        "foreign": [circuit for of_class in foreign for circuit in bare(of_class)],
    }
    values, own = measure_answers(
        task, [circuit for group in groups.values() for circuit in group]
    )
    parts = np.split(
        values, np.cumsum([len(group) for group in groups.values()])[:-1], axis=1
    )
    measured = dict(zip(groups, parts, strict=True))
    if fitted is not None:
        whole = groups["full"]
        for name in ("kept", "random", "foreign"):
            for place, one in enumerate(groups[name]):
                best = replace(task, baseline=optimal_baseline(fitted, one))
                measured[name][:, place] = measure_answers(best, [*whole, one])[0][:, 1]

    def by_size(name: str, n: int) -> np.ndarray:
        return measured[name].reshape(len(values), n, len(kept), len(own))

    return FaithfulnessCurve(
        sizes=tuple(circuit.size for circuit in kept),
        ranking="edges" if of_edges else settings.ranking,
        n_units=tuple(circuit.count for circuit in kept),
        full=measured["full"][:, 0],
        empty=measured["empty"][:, 0],
        kept=measured["kept"],
        complement=measured["complement"],
        random=by_size("random", settings.random_draws),
        foreign=by_size("foreign", len(foreign)),
        own=own,
        group=np.zeros(len(own), dtype=np.int64),
        class_name=source.class_name,
        domain=source.domain,
        settings={
            **task.identity,
            "baseline": task.baseline.name if fitted is None else OPTIMAL,
            "seed": settings.seed,
            "sites": list(sites or kept[0].units),
        },
        weights=weights_touched(task, kept),
    )


def draw_random(
    circuits: Sequence[Circuit], draws: int, rng: np.random.Generator
) -> list[Circuit]:
    """Return a random circuit as large as each circuit, draw by draw; random units of one draw are nested by size."""
    if circuits[0].edges is not None:
        return [circuit.random(rng) for _ in range(draws) for circuit in circuits]
    everything = circuits[0].nothing().complement()
    orders = [everything.random(rng).units for _ in range(draws)]
    return [
        replace(
            one,
            units={
                site: order[site][: len(units)] for site, units in one.units.items()
            },
        )
        for order in orders
        for one in circuits
    ]


@own_modes()
def measure_answers(
    task: Task, circuits: Sequence[Circuit]
) -> tuple[Float[np.ndarray, "numbers circuits images"], Bool[np.ndarray, " images"]]:
    """Return the `CURVE_NUMBERS` of every image, and of the others, under every circuit; the first is the whole model.

    Returns:
        Them, the metric alone where it has no candidate classes; and which images are of the class.
    """
    everything, n_own = with_others(task)
    metric, embeddings = (
        at_model_scale(task).metric,
        kept_embeddings(everything, circuits),
    )
    values = [
        torch.stack([in_double(checked_metric(metric, found)) for found in embeddings])
    ]
    if isinstance(metric, ClassLogit) and len(metric.weights) > 1:
        answers = torch.stack([metric.log_answers(found) for found in embeddings])
        kl = (answers[:1].exp() * (answers[:1] - answers)).sum(-1)
        values += [kl, in_double(metric.is_given(answers))]
    numbers = torch.stack([value.cpu() for value in values]).numpy()
    return numbers, np.arange(numbers.shape[-1]) < n_own


def measure_each(
    task: Task, circuits: Iterable[Circuit], total: int, what: str = "circuits"
) -> Float[np.ndarray, "circuits images"]:
    """Return the metric of every image, and of the others, under each of ``total`` circuits, with one bar for all."""
    left, parts = iter(circuits), list[np.ndarray]()
    quiet = replace(task, work=replace(task.work, progress=False))
    with Bar(
        total=total, desc=what, unit="circuit", disable=not task.work.progress
    ) as bar:
        while some := list(islice(left, AT_ONCE)):
            parts.append(measure_answers(quiet, some)[0][0])
            bar.update(len(some))
    return np.concatenate(parts)
