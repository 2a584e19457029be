"""How circuits are found: settings of an attribution, and the same as options of a command line."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from circuitry.circuits.quadrature import QuadratureRule, left_rule, midpoint_rule, parse_rule
from circuitry.models.baselines import (
    NAMES_OF_DATA,
    AnyBaseline,
    Baseline,
    BaselineName,
    Counterfactual,
    as_baseline,
)
from circuitry.runs.errors import InputError
from circuitry.runs.given import check_kinds, check_lists
from circuitry.runs.presets import StudySettings

STUDY_RULE = left_rule(10)
"""The study's quadrature rule."""
DEFAULT_RULE = midpoint_rule(10)
"""The rule where none is given. How many points a model needs is a property of the model: see `cheapest_rule`."""


@dataclass(frozen=True, eq=False)
class AttributionSettings(StudySettings):
    """How to attribute; the defaults are the study's but for the rule, see `AttributionSettings.study`.

    Raises:
        InputError: for a value outside its range, which is named.

    Example:
        >>> settings = AttributionSettings.study(baseline=mean_baseline(encoder, reference))
        >>> graph = attribute(encoder, images, metric, rule=settings.rule)
    """

    STUDY: ClassVar[Mapping[str, Any]] = {"rule": STUDY_RULE}

    node_fraction: float = 0.1
    """Share of the units of a site that is kept, in (0, 1] (default: a tenth)."""
    rule: QuadratureRule | None = None
    """Quadrature rule of the path integrals (default: `DEFAULT_RULE`; `extract` chooses by ``rule_error``)."""
    edge_rule: QuadratureRule | None = None
    """Quadrature rule of the edges (default: that of the nodes)."""
    rule_error: float = 0.1
    """Largest relative error, mean over sites, of the rule that `extract` chooses where none is given (default: a
    tenth); see `cheapest_rule`."""
    baseline: AnyBaseline = "zero"
    """Where the paths end: ``"zero"``, a `Baseline`, or counterfactual images, see `circuitry.models.baselines`; for
    `extract` also a name of `circuitry.models.named_baselines` (default: zero)."""
    sites: tuple[str, ...] | None = None
    """Sites to score, in the encoder's order; edges run between consecutive ones (default: all)."""
    autocast: str | None = None
    """Lower precision of node scores where PyTorch deems it safe: ``bfloat16`` or ``float16`` (default: that of the
    weights). Edges keep theirs: squared distances of nearly equal activations would lose their digits."""

    def __post_init__(self) -> None:
        if not 0 < self.node_fraction <= 1:
            raise InputError(f"The fraction of units to keep lies in (0, 1], but {self.node_fraction} was given.")
        if not self.rule_error > 0:
            raise InputError(f"The error of a rule is a positive number, but {self.rule_error} was given.")
        for name, rule in (("rule", self.rule), ("edge_rule", self.edge_rule)):
            if rule is not None:
                check_kinds(**{name: (rule, QuadratureRule)})
        check_lists(sites=self.sites)
        if self.autocast not in (None, "bfloat16", "float16"):
            raise InputError(f"Autocast is to bfloat16 or float16, but {self.autocast!r} was given.")
        if not (isinstance(self.baseline, str) and self.baseline in NAMES_OF_DATA):
            object.__setattr__(self, "baseline", as_baseline(self.baseline))

    @property
    def node_rule(self) -> QuadratureRule:
        """The rule of the nodes, the default one where none is given."""
        return self.rule or DEFAULT_RULE

    @property
    def resolved_edge_rule(self) -> QuadratureRule:
        """The rule of the edges: their own, or else that of the nodes."""
        return self.edge_rule or self.node_rule

    @property
    def resolved_baseline(self) -> Baseline | Counterfactual:
        """The baseline as an object."""
        return as_baseline(self.baseline)

    def as_dict(self) -> dict[str, Any]:
        """Return what changes the scores, as plain values; what only changes the speed is left out.

        The ``settings`` of a graph add what `attribute` was given: metric, digests of the baseline and of the model,
        feature bases, and sites where hooks of the caller acted.
        """
        return {
            "node_fraction": self.node_fraction,
            "node_rule": self.node_rule.name,
            "edge_rule": self.resolved_edge_rule.name,
            "baseline": self.baseline if isinstance(self.baseline, str) else self.resolved_baseline.name,
            "autocast": self.autocast,
        }


@dataclass(frozen=True)
class CircuitSettings(StudySettings):
    """Options of a script, see `models.settings` and `AttributionSettings`."""

    STUDY: ClassVar[Mapping[str, Any]] = {"rule": STUDY_RULE.name}

    node_fraction: float = 0.1
    """Share of the units of each site that is kept."""
    edges_per_node: int = 3
    """Most edges into a unit of a circuit."""
    rule: str | None = None
    """Quadrature rule of node scores, such as midpoint-10 or left-10, the study's (default: the cheapest that keeps
    rule-error on a few images of this model)."""
    edge_rule: str | None = None
    """Quadrature rule of edge scores where it differs."""
    rule_error: float = 0.1
    """Largest relative error, mean over sites, of a rule that is chosen."""
    sites: tuple[str, ...] | None = None
    """Sites to score, in the encoder's order (default: all)."""
    autocast: str | None = None
    """Lower precision of node scores: bfloat16 or float16; edges keep full precision."""

    def attribution(self, baseline: BaselineName = "zero") -> AttributionSettings:
        """Return the settings of an attribution with this baseline."""
        return AttributionSettings(
            node_fraction=self.node_fraction,
            rule=None if self.rule is None else parse_rule(self.rule),
            edge_rule=None if self.edge_rule is None else parse_rule(self.edge_rule),
            rule_error=self.rule_error,
            baseline=baseline,
            sites=self.sites,
            autocast=self.autocast,
        )
