"""Faithfulness: does a circuit alone do what the model does?

The metric is measured in ablated runs, over the sizes of the MIB benchmark (Mueller et al. 2025, arXiv 2504.13151),
beside the complement of every circuit and random circuits of its size; see `FaithfulnessCurve`.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, ClassVar

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor

from circuitry.circuits.graph import AttributionGraph
from circuitry.interventions.ablation import ablated_embeddings
from circuitry.interventions.circuit_sets import (
    KeptUnits,
    add_error_units,
    check_ranking,
    choose_sites,
    take_complement,
    take_top_units,
)
from circuitry.interventions.curves import FaithfulnessCurve
from circuitry.models.baselines import AnyBaseline, Baseline, Counterfactual, as_baseline, check_count
from circuitry.models.batches import Images
from circuitry.models.encoder import Encoder
from circuitry.models.metrics import Metric, checked_metric
from circuitry.runs.errors import InputError
from circuitry.runs.given import check_kinds, check_lists
from circuitry.runs.workers import Work

MIB_FRACTIONS = (0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0)
"""The circuit sizes of the MIB benchmark."""


@dataclass(frozen=True)
class AblationSettings:
    """What is kept in ablated runs, and what stands in for the rest."""

    HOW_TO_GET: ClassVar = "give AblationSettings(...), and images of other classes by name, others="

    baseline: AnyBaseline = "zero"
    """What stands in for the units outside a circuit; see `circuitry.models.baselines`."""
    sites: Sequence[str] | None = None
    """Sites to ablate at (default: all of the graph but `input`)."""
    ranking: str = "absolute"
    """Which units come first, see `circuit_sets.RANKINGS`."""
    fractions: Sequence[float] = MIB_FRACTIONS
    """Sizes of the circuits of a curve as shares of the units of every site, ascending in (0, 1]."""
    keep_error: bool = False
    """Whether circuits, random ones too, keep the error units of sites in a feature basis; else they are ablated.
    Marks et al. 2024 (arXiv 2403.19647) report both."""
    random_draws: int = 5
    """Random circuits of every size, nested like the circuit itself."""
    seed: int = 0
    """Seed of everything that is drawn."""

    def __post_init__(self) -> None:
        check_lists(sites=self.sites, fractions=self.fractions)
        if not self.fractions or list(self.fractions) != sorted(set(self.fractions)) or self.random_draws < 0:
            raise InputError(
                f"A curve needs ascending fractions and zero or more random draws, but {tuple(self.fractions)} and "
                f"{self.random_draws} were given."
            )
        check_ranking(self.ranking)
        object.__setattr__(self, "baseline", as_baseline(self.baseline))


def faithfulness_curve(
    encoder: Encoder,
    images: Images,
    metric: Metric,
    graph: AttributionGraph,
    settings: AblationSettings = AblationSettings(),
    *,
    others: Images | None = None,
    work: Work = Work(),
) -> FaithfulnessCurve:
    """Measure the metric with circuits of growing size kept, with all but them, and with random units.

    Args:
        encoder: The encoder under study.
        images: Images to measure on; not those of the attribution, if the circuit is to be tested on unseen ones.
        metric: Embeddings [B, D] -> one number per image.
        graph: The attribution that ranks the units.
        settings: Sizes, ranking, baseline; see `AblationSettings`. A baseline with an activation for every image has
            them for the images and then for the others.
        others: Images of other classes: the circuit should not answer its class for them; see `FaithfulnessCurve`.
        work: Memory and progress.

    Raises:
        InputError: for sites that the graph lacks, a baseline that does not fit the images, or what
            `ablated_embeddings` raises.

    Example:
        >>> curve = faithfulness_curve(encoder, photos, metric, graph, AblationSettings(ranking="signed"))
        >>> curve.table()    # faithfulness and completeness with bands, and the random control
        >>> curve.table("selectivity")    # with others=: does the circuit tell the class from other classes?
        >>> curve.areas()    # CPR and CMD
    """
    check_kinds(encoder=(encoder, Encoder), graph=(graph, AttributionGraph), settings=(settings, AblationSettings))
    sites = choose_sites(graph, settings.sites)
    circuits = [take_top_units(graph, fraction, settings.ranking, sites) for fraction in settings.fractions]
    curve = measure_circuits(encoder, images, metric, graph, circuits, settings, others=others, work=work)
    return replace(curve, fractions=tuple(map(float, settings.fractions)))


def measure_circuits(
    encoder: Encoder,
    images: Images,
    metric: Metric,
    graph: AttributionGraph,
    circuits: Sequence[Mapping[str, np.ndarray]],
    settings: AblationSettings = AblationSettings(),
    *,
    others: Images | None = None,
    work: Work = Work(),
) -> FaithfulnessCurve:
    """Measure the metric with each of some circuits kept, with all but it, and with random units.

    Args:
        encoder: As for images, metric, others, work and errors, see `faithfulness_curve`.
        graph: What has the units: their number by site, class and domain.
        circuits: Nodes by site, the smallest circuit first; a fraction is the share of all units that a circuit keeps.
        settings: Of these, baseline, sites, random draws and whether errors are kept.
    """
    check_kinds(encoder=(encoder, Encoder), graph=(graph, AttributionGraph), settings=(settings, AblationSettings))
    sites = choose_sites(graph, settings.sites)
    groups = _groups(encoder, graph, circuits, settings)
    arrays = measure_groups(partial(ablated_embeddings, encoder, work=work), groups, metric, images, others, settings)
    n_units = tuple(sum(len(circuit[site]) for site in sites) for circuit in circuits)
    return FaithfulnessCurve(
        fractions=tuple(n / sum(len(graph.node_scores[site]) for site in sites) for n in n_units),
        ranking=settings.ranking,
        n_units=n_units,
        **arrays,
        class_name=graph.class_name,
        domain=graph.domain,
        settings=curve_settings(settings, sites),
    )


def measure_groups(
    run: Callable[..., Tensor],
    groups: Mapping[str, Sequence[Any]],
    metric: Metric,
    images: Images,
    others: Images | None,
    settings: AblationSettings,
) -> dict[str, Any]:
    """Return the arrays of a curve: the metric of every image under every circuit.

    Args:
        run: Called with images, circuits and ``baseline=``, returns embeddings [circuits, images, d].
        groups: Circuits by the field of the curve that they are measured for: ``full`` and ``empty`` one each, ``kept``
            and ``complement`` one for each size, ``random`` one for each size of each draw.
        metric: As for images and others, see `faithfulness_curve`.
        settings: Of these, the baseline and the number of draws.
    """
    together = [circuit for group in groups.values() for circuit in group]
    values, own = measure_metric(run, together, metric, images, others, settings.baseline)
    ends = np.cumsum([len(group) for group in groups.values()])[:-1]
    measured = dict(zip(groups, np.split(values, ends), strict=True))
    return {
        "full": measured["full"][0],
        "empty": measured["empty"][0],
        "kept": measured["kept"],
        "complement": measured["complement"],
        "random": measured["random"].reshape(settings.random_draws, len(groups["kept"]), len(own)),
        "own": own,
        "group": np.zeros(len(own), dtype=np.int64),
    }


def measure_metric(
    run: Callable[..., Tensor],
    circuits: Sequence[Any],
    metric: Metric,
    images: Images,
    others: Images | None,
    baseline: AnyBaseline,
) -> tuple[Float[np.ndarray, "circuits images"], Bool[np.ndarray, " images"]]:
    """Return the metric of every image, and of the others, under every circuit, and which images are no others.

    Args:
        run: See `measure_groups`.
        circuits: What ``run`` takes.
        metric: As for images, others and baseline, see `faithfulness_curve`.
    """
    sets = [images] if others is None else [images, others]
    baselines = _baselines_of_sets(as_baseline(baseline), sets)
    found = [run(one, circuits, baseline=part) for one, part in zip(sets, baselines, strict=True)]
    values = np.stack([checked_metric(metric, e).cpu().double().numpy() for e in torch.cat(found, 1)])
    return values, np.arange(values.shape[1]) < found[0].shape[1]


def curve_settings(settings: AblationSettings, sites: Sequence[str]) -> dict[str, Any]:
    """Return what a curve keeps of how it was measured."""
    return {
        "baseline": as_baseline(settings.baseline).name,
        "seed": settings.seed,
        "sites": list(sites),
        "keep_error": settings.keep_error,
    }


def _baselines_of_sets(baseline: Baseline | Counterfactual, sets: Sequence[Images]) -> list[Baseline | Counterfactual]:
    """Return each set's part of a baseline: where it has an activation for every image, they go from set to set."""
    if baseline.n_images is None or len(sets) == 1:
        return [baseline] * len(sets)
    sizes = [len(one) for one in sets if isinstance(one, Tensor)]
    if len(sizes) < len(sets):
        raise InputError(
            f"The baseline {baseline.name!r} has an activation for every image, which goes with images and others "
            "given as tensors: stack their batches, or give a baseline for all images."
        )
    check_count(baseline, sum(sizes))
    ends = np.cumsum(sizes).tolist()
    return [baseline.select(slice(end - size, end)) for size, end in zip(sizes, ends, strict=True)]


def _groups(
    encoder: Encoder,
    graph: AttributionGraph,
    circuits: Sequence[Mapping[str, np.ndarray]],
    settings: AblationSettings,
) -> dict[str, list[KeptUnits]]:
    """Return circuits by the field of the curve they are measured for; see `measure_groups`."""
    sites = choose_sites(graph, settings.sites)
    rng = np.random.default_rng(settings.seed)
    orders = [
        {site: rng.permutation(len(graph.node_scores[site])) for site in sites} for _ in range(settings.random_draws)
    ]
    kept = [{site: circuit[site] for site in sites} for circuit in circuits]
    random = [{site: order[site][: len(units)] for site, units in c.items()} for order in orders for c in kept]
    if settings.keep_error:
        kept, random = ([add_error_units(encoder, circuit) for circuit in part] for part in (kept, random))
    everything = {site: np.arange(graph.n_units(site)) for site in sites}
    return {
        "full": [everything],
        "empty": [take_complement(everything, graph)],
        "kept": [*kept],
        "complement": [take_complement(circuit, graph) for circuit in kept],
        "random": [*random],
    }
