"""How a circuit is found: settings of attributions, masks and own parts. No torch."""

from dataclasses import dataclass
from typing import Annotated, Any

import tyro

from circuitry.circuits.budgets import BUDGETS, GLOBAL, BudgetName
from circuitry.circuits.methods import (
    EDGE_METHODS,
    ITERATIVE,
    METHODS,
    EdgeMethodName,
    MethodName,
    method_code,
)
from circuitry.circuits.quadrature import (
    RULE_WORDS,
    QuadratureRule,
    midpoint_rule,
    parse_rule,
)
from circuitry.data.shared_options import option
from circuitry.runs.arguments import (
    ABOVE_ZERO,
    Count,
    Seed,
    Share,
    between,
    checked,
    one_of,
)

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
        EdgeMethodName | None,
        option(choices=tuple(EDGE_METHODS)),
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
        """Return the settings that change scores, in plain values; `Task.identity` has the rest."""
        # The rules that are meant, whether they were given or are defaults, so that two graphs compare equal.
        return {
            "size": self.size,
            "budget": self.budget,
            "method": self.method,
            "method_code": method_code(self.method),
            "node_rule": self.node_rule.name,
            "edge_rule": self.resolved_edge_rule.name,
            "edge_method": self.edges,
        }


MOST = 0.2
"""The largest share of the units that a class's own part has."""
OwnShare = Annotated[
    float,
    between(
        f"a share of the units in (0, {MOST:g}]", ABOVE_ZERO, MOST, "write 0.02 for 2 %"
    ),
]


@checked
@dataclass(frozen=True)
class MaskSettings:
    """How masks are learned.

    Example:
        >>> circuitry.circuits.MaskSettings(steps=100).batch_size
        24
    """

    steps: Count = 300
    """Steps of gradient descent for all sizes together."""
    batch_size: Count = 24
    """Images per step: half of them of the class, where there are others; then at least 2."""
    seed: Seed = 0
    """Seed of noise and minibatches."""
    autocast: Annotated[str | None, one_of("bfloat16", "float16")] = None
    """Lower precision of the runs while learning: ``bfloat16`` or ``float16``; masks are checked without it."""
