"""One question, several methods: which units of an encoder do the work for some images?

A method proposes a circuit of any size; the circuit is then measured in ablated runs. With a wanted selectivity the
smallest size that reaches it is searched, each method by the same bisection of sizes.

| method | score of a unit | runs |
|---|---|---|
| ``site-path`` | integrated gradients at its site, the study's (`nodes`) | points x sites |
| ``input-path`` | gradients along a path of the image (`image_path`) | points |
| ``gradient`` | gradient x (baseline - activation), attribution patching | one |
| ``patching`` | exact effect of putting it to the baseline (`patching`) | one per unit |
| ``learned`` | how surely a mask keeps it that is learned as a whole (`masks`) | steps |

The first four rank units one by one, and keep the same share of every site; the last shares a circuit out over sites.

Which to take, by ``experiments/scoreboard.py`` (tables: ``experiments/results/scoreboard``): masks, the default, where
a circuit is to tell its class from others by itself, which no ranking reaches below most of the units, exact patching
included; the gradient, where single units are to be ranked as exact patching would, at the least cost. `extract` keeps
the site path, since it alone scores edges, and none of the other rankings gives circuits that work better. Masks are
not the only circuit that works: two seeds are more alike than other images or domains, yet not the same, and a mask is
to be read beside that ceiling (``experiments/shared_masks.py``).
"""

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from scipy.special import expit
from torch import Tensor

from circuitry.circuits.component_edges import in_stream
from circuitry.circuits.graph import IN_STREAM, AttributionGraph
from circuitry.circuits.nodes import NodeEffects, nodes_of
from circuitry.interventions.answers import default_answers
from circuitry.interventions.circuit_sets import take_kept_units, take_top_units
from circuitry.interventions.curves import FaithfulnessCurve
from circuitry.interventions.faithfulness import AblationSettings, measure_circuits
from circuitry.interventions.found_circuit import FoundCircuit, check_encoder
from circuitry.interventions.gates import GatedRuns
from circuitry.interventions.masks import LearnedMask, learn_masks
from circuitry.interventions.unit_scores import LEARNED, METHODS, SearchSettings, circuit_sites, score_units
from circuitry.models.baselines import AnyBaseline, Baseline, Counterfactual, as_baseline
from circuitry.models.batches import Images, checked_batches
from circuitry.models.encoder import Encoder
from circuitry.models.metrics import Metric, metric_name
from circuitry.runs.errors import InputError
from circuitry.runs.given import check_kinds, check_lists


def find_circuit(
    encoder: Encoder,
    images: Images,
    metric: Metric,
    *,
    method: str = LEARNED,
    size: float | None = None,
    selectivity: float | None = None,
    baseline: AnyBaseline = "zero",
    others: Images | None = None,
    settings: SearchSettings = SearchSettings(),
) -> FoundCircuit:
    """Find the units that do the work for some images while everything else is ablated.

    Args:
        encoder: The encoder under study.
        images: Images of one class, in a domain or over several, or of all classes of a domain: a tensor [B, 3, H, W]
            or an iterable of such batches, all of which are held.
        metric: Embeddings [B, D] -> one number per image.
        method: One of `METHODS`.
        size: Share of the units to keep, in (0, 1]; or
        selectivity: what the circuit is to reach on these images, as small as it can; see `FaithfulnessCurve`.
        baseline: What stands in for the other units; one with an activation for every image has them for the images
            and then for the others.
        others: Images of other classes, which selectivity needs and learned masks keep the answers on.
        settings: Sites, rules, masks; see `SearchSettings`.

    Returns:
        The circuit. Where a selectivity was not reached, or nothing is known of it, ``note`` says so.

    Raises:
        InputError: for another method, both or none of size and selectivity, a selectivity out of range, without others
            or of a class that the model does not tell from them, and what the methods raise.

    Example:
        >>> from circuitry.interventions import find_circuit
        >>> found = find_circuit(encoder, cats, class_logit(weights, 3), size=0.4, baseline=mean, others=not_cats)
        >>> found.table()    # faithfulness and selectivity of circuit, complement and random units
    """
    _check_method(method)
    if (size is None) == (selectivity is None):
        raise InputError("A circuit has a size or a selectivity to reach: give one of size= and selectivity=.")
    if selectivity is not None and others is None:
        raise InputError(
            "Selectivity compares images of the class with others, but there are none: give others=, or a size="
            " instead."
        )
    if selectivity is not None and not 0 < selectivity <= MOST_SELECTIVE:
        raise InputError(
            f"A selectivity is a share of the model's own, in (0, {MOST_SELECTIVE:g}], but {selectivity} was given: "
            "write 0.8 for 80 %."
        )
    search = _Search(encoder, images, metric, baseline, others, settings)
    return search.of_size(method, size) if size is not None else search.selective(method, selectivity or 0.0)


def propose_circuits(
    encoder: Encoder,
    images: Images,
    metric: Metric,
    sizes: Sequence[float],
    *,
    method: str = LEARNED,
    baseline: AnyBaseline = "zero",
    others: Images | None = None,
    settings: SearchSettings = SearchSettings(),
) -> list[AttributionGraph]:
    """Return one circuit of each size by one search, not measured: of one ranking, or of one training of masks.

    Args:
        encoder: As for images, metric, baseline, others, settings and errors, see `find_circuit`.
        sizes: Shares of the units to keep; masks stay at each of them on the way from the largest to the smallest, and
            share out the steps.
        method: One of `METHODS`.
    """
    _check_method(method)
    check_lists(sizes=sizes)
    found = _Search(encoder, images, metric, baseline, others, settings).proposer(method)(sizes)
    return [graphs[0] for graphs in found]


def _check_method(method: str) -> None:
    if method not in METHODS:
        raise InputError(f"Circuits are found by one of {', '.join(METHODS)}, but {method!r} was asked for.")


MOST_SELECTIVE = 1.5
"""A circuit may tell its class from others better than the model does, but more than this is a slip of the pen."""

Proposer = Callable[[Sequence[float]], list[list[AttributionGraph]]]
"""Makes the circuits of some sizes; of masks for each also those of the other restarts, best first."""


class _Search:
    """The images and everything else that all sizes share."""

    def __init__(
        self,
        encoder: Encoder,
        images: Images,
        metric: Metric,
        baseline: AnyBaseline,
        others: Images | None,
        settings: SearchSettings,
    ) -> None:
        check_kinds(encoder=(encoder, Encoder))
        self.encoder, self.metric, self.settings = encoder, metric, settings
        self.images = _held(images, "images")
        self.others = None if others is None else _held(others, "images of other classes")
        self.baseline: Baseline | Counterfactual = as_baseline(baseline)
        self.sites = circuit_sites(encoder, settings.sites)
        if isinstance(settings.start, FoundCircuit):
            check_encoder(encoder, settings.start.graph)
        self.ablation = AblationSettings(
            self.baseline,
            self.sites,
            settings.ranking,
            (1.0,),
            settings.keep_error,
            settings.random_draws,
            settings.seed,
        )

    def of_size(self, method: str, size: float) -> FoundCircuit:
        ((graph, *restarts),) = self.proposer(method)([size])
        curve = self._curve([graph], self.ablation)
        reason = _no_selectivity(curve)
        return FoundCircuit(graph, curve, f"Selectivity is not known: {reason}." if reason else "", tuple(restarts))

    def selective(self, method: str, target: float) -> FoundCircuit:
        """Bisect the sizes, by their ratio, for the smallest that reaches the target."""
        propose, quick = self.proposer(method), replace(self.ablation, random_draws=0)
        low, high, tried = self.settings.least, 1.0, list[tuple[float, list[AttributionGraph]]]()
        for _ in range(self.settings.rounds):
            size = (low * high) ** 0.5
            (graphs,) = propose([size])
            curve = self._curve(graphs[:1], quick)
            if reason := _no_selectivity(curve):
                raise InputError(
                    f"The selectivity of a circuit is a share of the model's own, but {reason}: it does not tell these "
                    "images from the others; give images that it recognises, or a size= instead."
                )
            tried.append((float(curve.selectivity[0]), graphs))
            low, high = (low, size) if tried[-1][0] >= target else (size, high)
        tried.sort(key=lambda one: sum(map(len, one[1][0].kept_units.values())))
        reached = [one for one in tried if one[0] >= target]
        best, graphs = reached[0] if reached else max(tried, key=lambda one: one[0])
        missed = (
            f"A selectivity of {target:.3g} was not reached at any of the {len(tried)} sizes that were tried; this is "
            f"the circuit with the largest, {best:.3g}: the curve has all of them."
        )
        curve = self._curve([one[1][0] for one in tried], self.ablation)
        return FoundCircuit(graphs[0], curve, "" if reached else missed, tuple(graphs[1:]))

    def proposer(self, method: str) -> Proposer:
        """Return what makes circuits, with what all sizes share done."""
        if method == LEARNED:
            return self._learner()
        scores = self._scores(method)
        scored_by = f"effect on the {metric_name(self.metric)}"

        def rank(sizes: Sequence[float]) -> list[list[AttributionGraph]]:
            graph = self._graph(method, scored_by, scores)
            return [[replace(graph, kept_units=take_top_units(graph, size, self.settings.ranking))] for size in sizes]

        return rank

    def _scores(self, method: str) -> NodeEffects:
        baseline = self.baseline if self.baseline.n_images is None else self.baseline.select(slice(len(self.images)))
        return score_units(self.encoder, self.images, self.metric, method, baseline, self.settings)

    def _learner(self) -> Proposer:
        encoder, settings, start = self.encoder, self.settings, self.settings.start
        everything = self.images if self.others is None else torch.cat([self.images, self.others])
        own = np.arange(len(everything)) < len(self.images)
        first = start.graph.node_scores if isinstance(start, FoundCircuit) else None
        if isinstance(start, str):
            first = nodes_of(encoder, self._scores(start).scores)
        fixed = {site: np.full(len(units), settings.keep_error) for site, units in self._errors().items()}
        answers = settings.answers or default_answers(self.metric)

        def learn(sizes: Sequence[float]) -> list[list[AttributionGraph]]:
            with encoder.frozen(), encoder.fast(), encoder.differentiable():
                runs = GatedRuns(encoder, everything, self.sites, self.baseline, settings.work.memory_gib)
                masks = learn_masks(
                    runs, answers, own, sizes, settings.masks, fixed=fixed, start=first, progress=settings.work.progress
                )
            places: list[int] = np.argsort(np.argsort(-np.asarray(sizes), kind="stable")).tolist()
            return [[self._masked(mask, place) for mask in masks] for place in places]

        return learn

    def _masked(self, mask: LearnedMask, place: int) -> AttributionGraph:
        """Return a mask as a graph, whose scores are the gates that training ended with."""
        gates = {site: expit(scores.astype(float)) for site, scores in mask.scores.items()}
        unlearned = {site: np.zeros(len(units)) for site, units in self._errors().items()}
        scores = {site: np.append(gate, unlearned.get(site, ())) for site, gate in gates.items()}
        graph = self._graph(LEARNED, "gate of the mask", NodeEffects(scores, {}, len(self.images)))
        graph.settings.update(lost=mask.lost, steps=mask.steps, seed=mask.seed)
        kept = {site: np.flatnonzero(chosen) for site, chosen in mask.path[place].items()}
        return replace(graph, kept_units={site: units[np.argsort(-gates[site][units])] for site, units in kept.items()})

    def _graph(self, method: str, scored_by: str, effects: NodeEffects) -> AttributionGraph:
        nodes = nodes_of(self.encoder, effects.scores)
        settings: dict[str, Any] = {
            "method": method,
            "scored_by": scored_by,
            "ranking": self.settings.ranking,
            "baseline": self.baseline.name,
            "baseline_digest": self.baseline.digest,
            "metric": metric_name(self.metric),
            "model_digest": self.encoder.digest,
            "basis": self.encoder.basis,
            "hooked_sites": list(self.encoder.hooked_sites),
        }
        settings |= {"edges": IN_STREAM} if in_stream(self.encoder) else {}
        errors = {site: effects.scores[site][units.start :] for site, units in self._errors().items()}
        complete = effects.completeness
        return AttributionGraph(
            self.sites, nodes, {}, {}, complete, effects.n_images, settings=settings, error_scores=errors
        )

    def _errors(self) -> dict[str, range]:
        return {site: units for site, units in self.encoder.error_units.items() if site in self.sites}

    def _curve(self, graphs: Sequence[AttributionGraph], settings: AblationSettings) -> FaithfulnessCurve:
        circuits = [take_kept_units(graph) for graph in graphs]
        return measure_circuits(
            self.encoder,
            self.images,
            self.metric,
            graphs[0],
            circuits,
            settings,
            others=self.others,
            work=self.settings.work,
        )


def _no_selectivity(curve: FaithfulnessCurve) -> str:
    """Return why a curve has no selectivity; empty where it has one."""
    return str(curve.table("selectivity", resamples=1)["reason"].iloc[0])


def _held(images: Images, what: str) -> Tensor:
    batches = list(checked_batches(images))
    if not sum(map(len, batches)):
        raise InputError(f"A circuit is found on {what}, but there were none: give at least one.")
    return torch.cat(batches)
