"""How a circuit is found: settings of attributions, masks and own parts. Does not import torch."""

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
)

DEFAULT_RULE = midpoint_rule(10)
"""The default rule of a single graph; for the defaults of folders see `DEFAULT_RULES`."""

UnitMethod = Annotated[MethodName, option(choices=tuple(METHODS))]
Rule = Annotated[QuadratureRule | None, option(parse_rule, RULE_WORDS)]


@checked
@dataclass(frozen=True)
class AttributionSettings:
    """Settings of an attribution.

    Some defaults differ from the settings of the ICML paper ("the study"). If the option ``--study`` is given, a
    command uses the settings of the study instead of the defaults.

    Example:
        >>> settings = AttributionSettings(size=0.05, rule=left_rule(10))
        >>> graph = attribute(encoder, images, metric, rule=settings.rule)
    """

    size: Share | None = None
    """Share of the units to keep (default: depends on the kinds of tower and units, see `DEFAULT_SIZES`)."""
    budget: Annotated[BudgetName, option(choices=BUDGETS)] = GLOBAL
    """How the size is shared out over the sites. global: one ranking of the units of all sites. same-share, as in the
    study: the same share at every site."""
    rule: Rule = None
    """Quadrature rule of node scores, such as midpoint-10; the study used left-10 (default: midpoint-10 for a single
    graph; for a folder it depends on the kind of tower, see `DEFAULT_RULES`)."""
    edge_rule: Rule = None
    """Quadrature rule of edge scores (default: the rule of the nodes for a single graph; for a folder it depends on the
    kind of tower; methods of edges that do not integrate along a path compute one gradient)."""
    edges: Annotated[
        EdgeMethodName | None,
        option(choices=tuple(EDGE_METHODS)),
        tyro.conf.arg(name="edge-method"),
    ] = None
    """How edges are scored, see `EDGE_METHODS` (default: squared if no site carries a stream past its units, otherwise
    gradient if the units add up in the stream, and exact-readers if they do not)."""
    method: UnitMethod = ITERATIVE
    """How units are ranked: each by a score, or all together by a learned mask; see `METHODS`. If there are no images
    of other classes, gradient is used instead of fisher and iterative-fisher."""

    @property
    def node_rule(self) -> QuadratureRule:
        """The rule of node scores: ``rule``, or midpoint-10 if it is None."""
        return self.rule or DEFAULT_RULE

    @property
    def resolved_edge_rule(self) -> QuadratureRule:
        """The rule of edge scores: ``edge_rule``, or the rule of the nodes if it is None."""
        return self.edge_rule or self.node_rule

    def as_dict(self) -> dict[str, Any]:
        """Return the settings that change scores, as plain values.

        What the task determines, such as the model and the metric, is not among them: see `Task.identity`.
        """
        # Defaults are resolved, so that settings are equal whether a rule was given or is the default.
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
"""The largest share of the units that a class's own part may have."""
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
    """Number of steps of gradient descent, for all sizes together."""
    batch_size: Count = 24
    """Number of images per step. If there are images of other classes, half of the images are of the class, and the
    number must be at least 2."""
    seed: Seed = 0
    """Seed of the noise and of the draws of images."""
