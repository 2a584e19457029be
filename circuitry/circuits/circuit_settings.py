"""How a circuit is found: settings of an attribution. No torch."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any

import tyro

from circuitry.circuits.budgets import BUDGETS, GLOBAL, BudgetName
from circuitry.circuits.methods import ITERATIVE, METHODS, MethodName, method_code
from circuitry.circuits.quadrature import (
    RULE_WORDS,
    QuadratureRule,
    left_rule,
    midpoint_rule,
    parse_rule,
)
from circuitry.data.shared_options import option
from circuitry.runs.given import Share, checked, one_of

STUDY_RULE = left_rule(10)
"""The study's quadrature rule."""
SQUARED = "squared"
"""The study's score of edges: squared movements between neighbouring sites."""
EDGE_WORDS: Mapping[str, str] = {
    SQUARED: "how far the later unit moves when the earlier one goes to the baseline",
    "gradient": "by one gradient",
    "exact-readers": "the later unit is run without it, and what follows is taken as linear",
    "exact-softmax": "by a gradient that counts the change of attention patterns themselves",
    "gradient-dropping": "by gradients that leave out one block after the other",
    "atp-star": "by gradients that count the change of attention patterns and leave out one block after the other",
    "relp": "by relevance, with norms and attention patterns as constants",
    "relp-with-patterns": "by relevance, with norms as constants",
    "path-by-layer": "by gradients along a path of what each layer reads",
    "cuts": "measured, by a run for each edge",
}
"""How a method scores an edge, as reports say it, by its name."""
EDGE_METHODS = tuple(EDGE_WORDS)
"""Names of methods that score edges; see `edge_methods`."""
DEFAULT_RULE = midpoint_rule(10)
"""The rule of a single graph where none is given; for folders see `DEFAULT_RULES`."""

UnitMethod = Annotated[MethodName, option(choices=tuple(METHODS))]
Rule = Annotated[QuadratureRule | None, option(parse_rule, RULE_WORDS)]


@checked
@dataclass(frozen=True)
class AttributionSettings:
    """How to attribute; the study's settings are those of ``--study``.

    Example:
        >>> settings = AttributionSettings(size=0.05, rule=left_rule(10))
        >>> graph = attribute(encoder, images, metric, rule=settings.rule)
    """

    size: Share | None = None
    """Share of the units to keep (default: by the kind of tower and unit, see `DEFAULT_SIZES`)."""
    budget: Annotated[BudgetName, option(choices=BUDGETS)] = GLOBAL
    """How a size is shared out over the sites: global, in one cut over all of them, or same-share, the study's, of
    every site."""
    rule: Rule = None
    """Quadrature rule of node scores, such as midpoint-10, or left-10, the study's (default: midpoint-10 for a single
    graph; for a folder by the kind of tower, see `DEFAULT_RULES`)."""
    edge_rule: Rule = None
    """Quadrature rule of edge scores (default: that of the nodes, in a folder by the kind of tower; through a
    residual stream one gradient)."""
    edges: Annotated[
        str | None,
        one_of(*EDGE_METHODS),
        option(choices=EDGE_METHODS),
        tyro.conf.arg(name="edge-method"),
    ] = None
    """How edges are scored, see `EDGE_METHODS` (default: squared; where sites carry a stream gradient, or
    exact-readers where units do not add up)."""
    method: UnitMethod = ITERATIVE
    """How units are ranked: by a score of each, or learned together as a mask; see `METHODS`. Without images of other
    classes the gradient takes the place of Fisher's methods."""

    @property
    def node_rule(self) -> QuadratureRule:
        """The rule of the nodes."""
        return self.rule or DEFAULT_RULE

    @property
    def resolved_edge_rule(self) -> QuadratureRule:
        """The rule of the edges: their own, or else that of the nodes."""
        return self.edge_rule or self.node_rule

    def as_dict(self) -> dict[str, Any]:
        """Return what changes the scores, in plain values; `Task.identity` has the rest."""
        return {
            "size": self.size,
            "budget": self.budget,
            "method": self.method,
            "method_code": method_code(self.method),
            "node_rule": self.node_rule.name,
            "edge_rule": self.resolved_edge_rule.name,
            "edge_method": self.edges,
        }


def describe_edges(settings: Mapping[str, Any]) -> str:
    """Return sentences on the edges of a graph and what their scores say, from its settings."""
    method = settings.get("edge_method") or SQUARED
    measured = method == "cuts"
    if method == SQUARED:
        rule = settings.get("edge_rule", "an unknown rule")
        joined = f"units of neighbouring sites; an edge's score says {EDGE_WORDS[SQUARED]}, integrated by {rule}"
    else:
        joined = (
            "units where a later one reads what an earlier one wrote, also of sites further apart; an edge's score "
            f"{'is' if measured else 'estimates'} what the metric loses when the later unit alone misses that "
            f"({EDGE_WORDS[method]})"
        )
    limit = (
        ""
        if measured
        else " Scores of edges rank them and do not measure what a cut costs."
    )
    return f"Edges join kept {joined}. Each unit keeps its few strongest incoming edges.{limit}"
