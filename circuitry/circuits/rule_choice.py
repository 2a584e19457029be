"""Which quadrature rule does a model need? Measured on a few of its images, against a rule with more points.

How sharply a metric turns on the path to the baseline, and so how many points it takes, is a property of the model:
what is exact enough on a small tower is not on another.

1. `RuleErrors` holds the scores of one circuit by the reference, and the relative error of another rule at each site,
   |scores - reference| / |reference|; edges are scored between the units that the reference keeps, so that their error
   is that of the rule alone;
2. `cheapest_rule` takes the mean over a few circuits and tries rules from the cheapest on, until one keeps the error
   that was asked for in the mean over the sites, for nodes and for edges apart; it names the sites that are above;
3. some sites are measured but do not count. The image is no node of a circuit. At the embedding with baseline
   zero, and wherever the embedding is proportional to the activation, a cosine has no scale, so it changes at the very
   end of the path alone, its gradient grows as 1 / (1 - t), and the integral does not converge. Which units are kept
   there is the same by every rule;
4. where the path is rough (piecewise linear networks, most of all at their first sites), errors of images are partly
   their own and cancel in the mean: a run over more images than it chose its rule by is left with less.
"""

import logging
from collections.abc import Callable, Iterator, Mapping, Sequence, Set
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Annotated, Any, NamedTuple

import numpy as np
import torch

from circuitry.circuits.budgets import strongest_units
from circuitry.circuits.circuit_settings import SQUARED, STUDY_RULE, AttributionSettings
from circuitry.circuits.edge_methods import edge_method, edge_rule, edges_between
from circuitry.circuits.nodes import node_effects, nodes_of
from circuitry.circuits.quadrature import QuadratureRule, midpoint_rule, parse_rule
from circuitry.models.sites import INPUT
from circuitry.models.task import Task
from circuitry.models.tower_digest import check_same_weights
from circuitry.runs.given import SOME, Count, Positive, checked

CANDIDATES = tuple(
    parse_rule(name)
    for name in (
        *("left-1", "gauss-radau-3", "midpoint-3", "gauss-legendre-4", "midpoint-4", "gauss-radau-5", "midpoint-5"),
        *("midpoint-6", "midpoint-8", "left-10", "midpoint-10", "midpoint-12", "midpoint-15", "midpoint-20"),
    )
)
"""Rules to choose from, in the order of their cost."""
REFERENCE = midpoint_rule(40)
"""What is taken for exact: twice as many points as any candidate has."""

log = logging.getLogger(__name__)


class RuleErrors:
    """The errors of rules on one circuit, site by site.

    Args:
        task: What the circuit is of; all images take part.
        settings: Their share of units, rule of edges and precision are taken.
        reference: The rule that is taken for exact.

    Example:
        >>> errors = RuleErrors(Task(encoder, images, class_logit(weights, 0)))
        >>> errors.nodes(midpoint_rule(5))["layer3.0"]
    """

    @checked
    def __init__(
        self, task: Task, settings: AttributionSettings | None = None, reference: QuadratureRule = REFERENCE
    ) -> None:
        self.task = replace(task, work=replace(task.work, progress=False))
        self.settings = settings or AttributionSettings()
        self.reference, self.n_images = reference, 0
        self._model = task.encoder.digest

    @checked
    def nodes(self, rule: QuadratureRule) -> dict[str, float]:
        """Return the relative error of a rule by site; sites without any effect are left out."""
        return self.compare_nodes(rule)[0]

    @checked
    def compare_nodes(self, rule: QuadratureRule) -> tuple[dict[str, float], dict[str, float]]:
        """Return `nodes`, and by site the share of the kept units that the reference keeps too."""
        scores, exact = self._score_nodes(rule), self._exact_nodes
        kept = self._keep(scores)
        alike = {site: float(np.isin(kept[site], units).mean()) for site, units in self._kept.items()}
        return _relative_errors(scores, exact), alike

    @checked
    def edges(self, rule: QuadratureRule) -> dict[str, float]:
        """Return the relative error of a rule by pair of sites, named ``upstream->downstream``."""
        return _relative_errors(self._score_edges(rule), self._exact_edges)

    @cached_property
    def asked_at(self) -> tuple[str, ...]:
        """Sites of nodes where the integral converges: not the image, nor where half of the path changes nothing."""
        task, sites = self.task, [site for site in self.task.sites if site != INPUT]
        with task.running():
            batch = next(task.batches())
            clean = batch.clean(sites)
            ends = batch.ends(clean)
            value = task.metric(task.encoder(batch.images))
            halves = {s: task.metric(task.encoder(clean[s].lerp(ends[s], 0.5), start=s)) for s in sites}
        rounding = 100 * torch.finfo(value.dtype).eps * float(value.abs().max())
        return tuple(site for site in sites if float((halves[site] - value).abs().max()) > rounding)

    @cached_property
    def _exact_nodes(self) -> dict[str, np.ndarray]:
        return self._score_nodes(self.reference)

    @cached_property
    def _kept(self) -> dict[str, np.ndarray]:
        return self._keep(self._exact_nodes)

    @cached_property
    def _exact_edges(self) -> dict[str, np.ndarray]:
        return self._score_edges(self.reference)

    def _keep(self, scores: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        return strongest_units(scores, self.settings.node_fraction, self.settings.budget)

    def _score_nodes(self, rule: QuadratureRule) -> dict[str, np.ndarray]:
        with self._running():
            found = node_effects(self.task, rule, self.settings.autocast)
        self.n_images = found.n_images
        return nodes_of(self.task.encoder, found.scores)

    @contextmanager
    def _running(self) -> Iterator[None]:
        """Run the task with gradients, as long as the model is that of the reference."""
        with self.task.running(gradients=True):
            check_same_weights(self._model, self.task.encoder.digest, "a reference of rules")
            yield

    def _score_edges(self, rule: QuadratureRule) -> dict[str, np.ndarray]:
        with self._running():
            found = edges_between(self.task, self._kept, self.settings, rule)
        return {f"{up}->{down}": scores for (up, down), scores in found.items()}


def _relative_errors(found: Mapping[str, np.ndarray], exact: Mapping[str, np.ndarray]) -> dict[str, float]:
    norms = {place: np.linalg.norm(scores) for place, scores in exact.items()}
    return {place: float(np.linalg.norm(found[place] - exact[place]) / norm) for place, norm in norms.items() if norm}


class MeasuredRule(NamedTuple):
    """A rule and its errors."""

    rule: QuadratureRule
    errors: dict[str, float]
    """Relative error by site, or by pair of sites; mean over the circuits that it was measured on."""
    asked_at: tuple[str, ...]
    """Where the error is asked for: at nodes without the sites whose integral does not converge, at all edges."""

    @property
    def cost(self) -> float:
        """Runs per site beside those of the study's rule; the point t = 0 comes with the clean run."""
        return self.rule.n_runs / STUDY_RULE.n_runs

    @property
    def mean(self) -> float:
        """Mean error over the places that it is asked for at; 0 where there are none."""
        return float(np.mean([self.errors[place] for place in self.asked_at])) if self.asked_at else 0.0

    @property
    def left_out(self) -> tuple[str, ...]:
        """The places that the error is not asked for at."""
        return tuple(place for place in self.errors if place not in self.asked_at)

    @property
    def worst(self) -> str | None:
        """The place with the largest error, of those that it is asked for at."""
        return max(self.asked_at, key=lambda place: self.errors[place], default=None)

    def as_dict(self) -> dict[str, Any]:
        """Return the rule and its errors in plain values."""
        errors = {place: _rounded(value) for place, value in self.errors.items()}
        return {
            "rule": self.rule.name,
            "cost": _rounded(self.cost),
            "error": _rounded(self.mean),
            "worst": self.worst,
            "errors": errors,
        }


@checked
@dataclass(frozen=True)
class RuleChoice:
    """The rules of a model's nodes and edges, and the errors that are left by them."""

    asked: float
    """Largest relative error, mean over sites, that was asked for."""
    nodes: MeasuredRule
    edges: MeasuredRule
    reference: str
    """Name of the rule that was taken for exact."""
    n_circuits: int
    n_images: Count
    """Images in all circuits that it was measured on."""

    @property
    def keeps(self) -> bool:
        """Whether the error that is left is what was asked for, or less."""
        return max(self.nodes.mean, self.edges.mean) <= self.asked

    def as_dict(self) -> dict[str, Any]:
        """Return what graphs and manifests keep of the choice, in plain values; see `describe_rule`."""
        return {
            "asked": self.asked,
            "reference": self.reference,
            "n_circuits": self.n_circuits,
            "n_images": self.n_images,
            "nodes": self.nodes.as_dict(),
            "edges": self.edges.as_dict(),
        }


@checked
def cheapest_rule(
    circuits: Annotated[Sequence[RuleErrors], SOME],
    error: Positive,
    candidates: Annotated[Sequence[QuadratureRule], SOME] = CANDIDATES,
) -> RuleChoice:
    """Return the cheapest quadrature rules that keep an error, in the mean over a few circuits of one encoder.

    Args:
        circuits: The errors on each circuit. A rule of the edges in their settings is measured and kept,
            and so is the one gradient of edges through a residual stream.
        error: Largest relative error of the scores of a site, and of the edges between two, in the mean over these.
        candidates: Rules to choose from, the cheapest first; the last one where none keeps the error.

    Raises:
        InputError: as `attribute`, and for an error that is not positive.

    Example:
        >>> choice = cheapest_rule([RuleErrors(Task(clip.encoder, images, class_logit(weights, 0)))], error=0.05)
        >>> attribute(clip.encoder, images, metric, rule=choice.nodes.rule, edge_rule=choice.edges.rule)
        >>> choice.nodes.errors    # by site
    """
    settings = circuits[0].settings
    diverging = {site for circuit in circuits for site in circuit.task.encoder.sites if site not in circuit.asked_at}
    encoder = circuits[0].task.encoder
    fixed = settings.edge_rule is not None or edge_method(encoder, settings) != SQUARED
    edge_rules = [edge_rule(encoder, settings)] if fixed else candidates
    nodes = _first_that_keeps(error, candidates, [circuit.nodes for circuit in circuits], diverging)
    edges = _first_that_keeps(error, edge_rules, [circuit.edges for circuit in circuits], set())
    for kind, found in (("scores", nodes), ("edges", edges)):
        above = {place: found.errors[place] for place in found.asked_at if found.errors[place] > error}
        if above:
            log.warning(
                "The error of the %s by %s is %.2g in the mean over sites%s, but above %.2g at %s.",
                *(kind, found.rule.name, found.mean),
                f" ({', '.join(out)} left aside: no node, or the integral diverges)" if (out := found.left_out) else "",
                error,
                ", ".join(f"{place} ({value:.3g})" for place, value in above.items()),
            )
    n_images = sum(circuit.n_images for circuit in circuits)
    return RuleChoice(error, nodes, edges, circuits[0].reference.name, len(circuits), n_images)


def _first_that_keeps(
    error: float,
    candidates: Annotated[Sequence[QuadratureRule], SOME],
    measures: Sequence[Callable[[QuadratureRule], dict[str, float]]],
    diverging: Set[str],
) -> MeasuredRule:
    """Return the first candidate that keeps the error, or the last one."""
    for rule in candidates:
        by_circuit = [measure(rule) for measure in measures]
        places = dict.fromkeys(place for errors in by_circuit for place in errors)
        errors = {place: float(np.mean([e[place] for e in by_circuit if place in e])) for place in places}
        found = MeasuredRule(rule, errors, tuple(place for place in places if place not in diverging))
        if found.mean <= error:
            break
    return found


def _rounded(value: float) -> float:
    return float(f"{value:.3g}")
