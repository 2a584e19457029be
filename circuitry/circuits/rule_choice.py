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
4. an error is promised only where two references agree, with as many points at other places (`SECOND_REFERENCE`
   looks nearer to the ends of the path). Where they differ by more than half of the error that was asked for, the
   distance to a reference says nothing about the distance to the integral. With baseline zero a layer norm does that:
   scaling an activation changes little until its very end, where no reference looks;
5. where the path is rough (piecewise linear networks, most of all at their first sites), errors of images are partly
   their own and cancel in the mean: a run over more images than it chose its rule by is left with less.
"""

import logging
from collections.abc import Callable, Mapping, Sequence, Set
from dataclasses import dataclass
from typing import Annotated, Any, NamedTuple

import numpy as np

from circuitry.circuits.circuit_settings import SQUARED, STUDY_RULE
from circuitry.circuits.edge_methods import edge_method, rule_of_edges
from circuitry.circuits.quadrature import QuadratureRule, parse_rule
from circuitry.circuits.rule_errors import SECOND_REFERENCE, RuleErrors
from circuitry.circuits.rule_report import references_agree
from circuitry.runs.given import SOME, Count, Positive, checked
from circuitry.runs.progress import Bar

CANDIDATES = tuple(
    parse_rule(name)
    for name in (
        *("left-1", "gauss-radau-3", "midpoint-3", "gauss-legendre-4", "midpoint-4", "gauss-radau-5", "midpoint-5"),
        *("midpoint-6", "midpoint-8", "left-10", "midpoint-10", "midpoint-12", "midpoint-15", "midpoint-20"),
    )
)
"""Rules to choose from, in the order of their cost."""
log = logging.getLogger(__name__)


class MeasuredRule(NamedTuple):
    """A rule and its errors."""

    rule: QuadratureRule
    errors: dict[str, float]
    """Relative error by site, or by pair of sites; mean over the circuits that it was measured on."""
    asked_at: tuple[str, ...]
    """Where the error is asked for: at nodes without the sites whose integral does not converge, at all edges."""
    references_differ: float
    """How far the second reference lies from the reference, as the error of a rule."""

    @property
    def cost(self) -> float:
        """Runs per site beside those of the study's rule; the point t = 0 comes with the clean run."""
        return self.rule.n_runs / STUDY_RULE.n_runs

    @property
    def mean(self) -> float:
        """Mean error over the places that it is asked for at; 0 where there are none."""
        return _mean_at(self.errors, self.asked_at)

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
            "references_differ": _rounded(self.references_differ),
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
    def promises(self) -> bool:
        """Whether the references agree, so that the errors are those of the integral."""
        return references_agree(self.asked, max(self.nodes.references_differ, self.edges.references_differ))

    @property
    def keeps(self) -> bool:
        """Whether the error that is left is promised, and what was asked for or less."""
        return self.promises and max(self.nodes.mean, self.edges.mean) <= self.asked

    def as_dict(self) -> dict[str, Any]:
        """Return what graphs and manifests keep of the choice, in plain values; see `describe_rule`."""
        return {
            "asked": self.asked,
            "reference": self.reference,
            "second_reference": SECOND_REFERENCE.name,
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
    fixed = settings.edge_rule is not None or edge_method(encoder, settings.edges) != SQUARED
    edge_rules = [rule_of_edges(encoder, settings)] if fixed else candidates
    most = len(circuits) * sum(rule.n_runs for rule in (*[SECOND_REFERENCE] * 4, *candidates, *edge_rules))
    with Bar(total=most, desc="rules, at most", unit="point", disable=not circuits[0].progress) as bar:
        nodes = _first_that_keeps(error, candidates, [circuit.nodes for circuit in circuits], diverging, bar)
        edges = _first_that_keeps(error, edge_rules, [circuit.edges for circuit in circuits], set(), bar)
    for kind, found in (("scores", nodes), ("edges", edges)):
        above = {place: found.errors[place] for place in found.asked_at if found.errors[place] > error}
        if not references_agree(error, found.references_differ):
            log.warning(
                "No error of the %s is promised: the references %s and %s differ by %.2g in the mean over sites, so "
                "the integral is not resolved. Take another baseline than %s, such as mean-position.",
                *(kind, circuits[0].reference.name, SECOND_REFERENCE.name, found.references_differ),
                circuits[0].task.baseline.name,
            )
        elif above:
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
    bar: Bar,
) -> MeasuredRule:
    """Return the first candidate that keeps the error, or the last one."""
    second = _mean_errors(SECOND_REFERENCE, measures, bar)
    asked_at = tuple(place for place in second if place not in diverging)
    for rule in candidates:
        errors = _mean_errors(rule, measures, bar)
        if _mean_at(errors, asked_at) <= error:
            break
    return MeasuredRule(rule, errors, asked_at, _mean_at(second, asked_at))


def _mean_errors(
    rule: QuadratureRule, measures: Sequence[Callable[[QuadratureRule], dict[str, float]]], bar: Bar
) -> dict[str, float]:
    """Return the error of a rule at each place, in the mean over circuits."""
    by_circuit = list[dict[str, float]]()
    for measure in measures:
        by_circuit.append(measure(rule))
        bar.update(2 * rule.n_runs if rule is SECOND_REFERENCE else rule.n_runs)  # the reference is run before it
    places = dict.fromkeys(place for errors in by_circuit for place in errors)
    return {place: float(np.mean([errors[place] for errors in by_circuit if place in errors])) for place in places}


def _mean_at(errors: Mapping[str, float], places: Sequence[str]) -> float:
    return float(np.mean([errors[place] for place in places])) if places else 0.0


def _rounded(value: float) -> float:
    return float(f"{value:.3g}")
