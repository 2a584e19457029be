"""Faithfulness: does a circuit alone do what the model does?

The metric and the answers are measured with only a circuit kept, at the sizes of the MIB benchmark (Mueller et al.
2025, arXiv 2504.13151). They are also measured with everything except the circuit, with random circuits, and with
circuits of other classes. Random circuits and circuits of other classes have the size of the circuit. See
`FaithfulnessCurve`.
"""

from collections.abc import Iterable, Sequence
from dataclasses import replace
from itertools import chain, islice
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
from circuitry.runs.arguments import SOME, checked
from circuitry.runs.errors import InputError
from circuitry.runs.plan import Forwards

AT_ONCE = 64
"""The number of circuits that `measure_each` holds in memory."""


@checked
def faithfulness_curve(
    task: Task,
    graph: Scores,
    settings: AblationSettings = AblationSettings(),
    foreign: Sequence[Scores] = (),
) -> FaithfulnessCurve:
    """Measure the metric and the answers with circuits of growing size kept.

    They are also measured with everything except each circuit, with random units, and with circuits of other classes.

    Args:
        task: The images to measure on, the baseline of ablated units, and the sites where units are ablated. To make an
            independent test, give images that were not used for the attribution. A baseline with one activation per
            image must list the activations of ``task.images`` first, then the activations of ``task.others``.
        graph: The attribution whose circuits are measured. The graph of another class serves as a control.
        settings: Sizes and ranking of the circuits, and the number and seed of random circuits.
        foreign: Attributions of other classes. Their circuits are measured for comparison: would one of them do as
            well?

    Raises:
        InputError: for a graph of another encoder or metric, for sites that the graph does not have, and the errors of
            `kept_embeddings`.

    Example:
        >>> settings = AblationSettings(sizes=(0.2, 0.5, 1.0), random_draws=1)
        >>> curve = faithfulness_curve(task, graph, settings)
        >>> curve
        FaithfulnessCurve of ...: 3 sizes, 4 images; ...
        >>> selectivity = curve.to_pandas("selectivity")
        >>> areas = curve.areas()
    """
    tell_seen(own_and_others(task, graph), [graph], "Faithfulness")
    budget = settings.budget or SAME_SHARE
    sites = named_sites(task)
    by_class = list[list[Circuit]]()
    for scores in (graph, *foreign):
        circuits = list[Circuit]()
        for share in settings.sizes:
            circuits.append(scores.strongest(share, settings.ranking, budget, sites))
        by_class.append(circuits)
    curve = measure_circuits(task, by_class[0], settings, by_class[1:])
    # The curve states the sizes that were asked for: a circuit consists of whole units, so its own share may differ.
    sizes = tuple(float(size) for size in settings.sizes)
    asked = {"budget": budget, "size": graph.settings.get("size")}
    return replace(curve, sizes=sizes, settings=curve.settings | asked)


def curve_forwards(
    n_images: int, sizes: Sequence[float], random_draws: int, n_foreign: int = 0
) -> Forwards:
    """Return what `faithfulness_curve` runs at most: equal circuits run once.

    Args:
        n_images: Number of images, of the class and of other classes.
        sizes: Sizes of the circuits.
        random_draws: Number of random circuits of every size.
        n_foreign: Number of other classes.
    """
    # The circuit of all units is the whole model, and its complement is nothing.
    n_parts = sum(size < 1 for size in sizes)
    n_circuits = 2 + n_parts * (2 + random_draws + n_foreign)
    return Forwards(alone=n_images * (1 + n_circuits))


@checked
def measure_circuits(
    task: Task,
    circuits: Annotated[Sequence[Circuit], SOME],
    settings: AblationSettings = AblationSettings(),
    foreign: Sequence[Sequence[Circuit]] = (),
    fitted: Task | None = None,
) -> FaithfulnessCurve:
    """Measure the metric and the answers with each circuit kept.

    They are also measured with everything except each circuit, with random units or edges, and with circuits of other
    classes.

    Args:
        task: As for `faithfulness_curve`. If the task names sites, only units of these sites are ablated. Circuits of
            edges ignore the sites of the task.
        circuits: Circuits in ascending size, cut from the same graph. Either all are circuits of units, or all are
            circuits of edges.
        settings: The number and seed of the random circuits.
        foreign: Circuits of other classes: for each class a list that has, for each of ``circuits``, a circuit of the
            same size.
        fitted: A task whose images are used to fit the constants of optimal ablation (`optimal_baseline`), such as the
            task used to find the circuits. Constants are fitted for every circuit, including random circuits and
            circuits of other classes. If it is None, ablated units have the baseline of ``task``.

    Returns:
        A curve whose sizes are shares of all units, or of all edges. Random circuits of units are nested like the
        circuits themselves.

    Example:
        >>> settings = AblationSettings(random_draws=1)
        >>> curve = measure_circuits(task, [graph.circuit(n) for n in (1, 3)], settings)
        >>> curve.kept.shape    # numbers of an image, circuits, images and others
        (3, 2, 10)
    """
    source = circuits[0].source
    sites = named_sites(task)
    of_edges = circuits[0].edges is not None
    _check_circuits(task, circuits, foreign, fitted)
    if sites is not None and not of_edges:
        circuits = [circuit.at(sites) for circuit in circuits]
        foreign = [[circuit.at(sites) for circuit in group] for group in foreign]
    nothing = circuits[0].nothing()
    rng = np.random.default_rng(settings.seed)
    groups = {
        "full": [nothing.complement()],
        "empty": [nothing],
        "kept": list(circuits),
        "complement": [circuit.complement() for circuit in circuits],
        "random": draw_random(circuits, settings.random_draws, rng),
        "foreign": list(chain.from_iterable(foreign)),
    }
    # All groups are measured in one call, so that equal circuits, such as the largest and the whole model, run once.
    values, own = measure_answers(task, list(chain.from_iterable(groups.values())))
    ends = np.cumsum([len(group) for group in groups.values()])
    pieces = np.split(values, ends[:-1], axis=1)
    measured = dict(zip(groups, pieces, strict=True))
    if fitted is not None:
        # Constants are fitted for one circuit, so circuits with constants cannot share a batch.
        for name in ("kept", "random", "foreign"):
            for place, circuit in enumerate(groups[name]):
                best = replace(task, baseline=optimal_baseline(fitted, circuit))
                # The whole model comes first, because KL is measured from it.
                answers, _ = measure_answers(best, [*groups["full"], circuit])
                measured[name][:, place] = answers[:, 1]
    # [numbers, draws or classes, sizes, images]. Shapes are stated in full, because an array may be empty.
    n = len(values)
    by_size = (len(circuits), len(own))
    return FaithfulnessCurve(
        sizes=tuple(circuit.size for circuit in circuits),
        ranking="edges" if of_edges else settings.ranking,
        n_units=tuple(circuit.count for circuit in circuits),
        full=measured["full"][:, 0],
        empty=measured["empty"][:, 0],
        kept=measured["kept"],
        complement=measured["complement"],
        random=measured["random"].reshape(n, settings.random_draws, *by_size),
        foreign=measured["foreign"].reshape(n, len(foreign), *by_size),
        own=own,
        group=np.zeros(len(own), dtype=np.int64),
        class_name=source.class_name,
        domain=source.domain,
        settings={
            **task.identity,
            "baseline": task.baseline.name if fitted is None else OPTIMAL,
            "seed": settings.seed,
            "sites": list(sites or circuits[0].units),
        },
    )


def _check_circuits(
    task: Task,
    circuits: Sequence[Circuit],
    foreign: Sequence[Sequence[Circuit]],
    fitted: Task | None,
) -> None:
    """Check that circuits fit a task, and that the circuits of other classes have the same number of sizes.

    Args:
        task: The task.
        circuits: The circuits, one for each size.
        foreign: For each of the other classes, the list of its circuits.
        fitted: The task on whose images constants of optimal ablation are fitted, or None. It is checked, too.

    Raises:
        InputError: if a circuit or ``fitted`` has another model or metric than the task, or if one of the other classes
            does not have a circuit for each size.
    """
    sources = [circuit.source for circuit in chain(circuits, *foreign)]
    check_made_with(task, sources)
    if fitted is not None:
        task.identity.check(
            fitted.identity,
            "the task",
            "the task that fits constants",
            (*ANY_TEXTS, "class_weights"),
        )
    for of_class in foreign:
        if len(of_class) != len(circuits):
            raise InputError(
                f"Another class has a circuit for each of the {len(circuits)} sizes, but {len(of_class)} were given."
            )


def draw_random(
    circuits: Sequence[Circuit], draws: int, rng: np.random.Generator
) -> list[Circuit]:
    """Return random circuits of the same sizes as ``circuits``.

    A draw consists of one random circuit for each of ``circuits``. In a draw of circuits of units, each larger random
    circuit contains all smaller random circuits.

    Args:
        circuits: Circuits of units or of edges.
        draws: The number of draws.
        rng: The generator.

    Returns:
        All circuits of the first draw, then all circuits of the second draw, and so on.
    """
    if circuits[0].edges is not None:
        return [circuit.random(rng) for _ in range(draws) for circuit in circuits]
    everything = circuits[0].nothing().complement()
    drawn = list[Circuit]()
    for _ in range(draws):
        order = everything.random(rng).units
        for circuit in circuits:
            units = dict[str, np.ndarray]()
            for site, of_site in circuit.units.items():
                units[site] = order[site][: len(of_site)]
            drawn.append(replace(circuit, units=units))
    return drawn


@own_modes()
def measure_answers(
    task: Task, circuits: Sequence[Circuit]
) -> tuple[Float[np.ndarray, "numbers circuits images"], Bool[np.ndarray, " images"]]:
    """Return the `CURVE_NUMBERS` of every image under every circuit.

    Args:
        task: The images to measure on.
        circuits: The circuits. The first circuit has to be the whole model, because KL is measured from it.

    Returns:
        The numbers [numbers, circuits, images], images of the class first and then images of other classes. If the
        metric has no candidate classes, the only number is the metric. The second array says for each image whether it
        is of the class.
    """
    everything, n_own = with_others(task)
    metric = at_model_scale(task).metric
    embeddings = kept_embeddings(everything, circuits)
    # Double precision, because nearly equal numbers are subtracted later.
    values = [
        torch.stack(
            [in_double(checked_metric(metric, of_run)) for of_run in embeddings]
        )
    ]
    if isinstance(metric, ClassLogit) and len(metric.weights) > 1:
        answers = torch.stack([metric.log_answers(of_run) for of_run in embeddings])
        # KL(whole model || run) of the candidate classes; log_answers are log probabilities.
        kl = (answers[:1].exp() * (answers[:1] - answers)).sum(-1)
        values += [kl, in_double(metric.is_given(answers))]
    numbers = torch.stack([value.cpu() for value in values]).numpy()
    return numbers, np.arange(numbers.shape[-1]) < n_own


def measure_each(
    task: Task, circuits: Iterable[Circuit], total: int, what: str = "circuits"
) -> Float[np.ndarray, "circuits images"]:
    """Return the metric of every image under each circuit, with one progress bar for all circuits.

    Circuits may be given as an iterator. For example, there are thousands of circuits that lack one unit each, which
    would not fit in memory at once.

    Args:
        task: The images to measure on.
        circuits: The circuits.
        total: The number of circuits, for the bar.
        what: The name of the bar.

    Returns:
        The metric [circuits, images], images of the class first and then images of other classes.
    """
    left = iter(circuits)
    pieces = list[np.ndarray]()
    quiet = replace(task, work=replace(task.work, progress=False))
    with task.bar(what, "circuit", total) as bar:
        while batch := list(islice(left, AT_ONCE)):
            numbers, _ = measure_answers(quiet, batch)
            pieces.append(numbers[0])
            bar.update(len(batch))
    return np.concatenate(pieces)
