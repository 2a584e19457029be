"""How circuits are found: settings of an attribution, and the same as options of a command line."""

from dataclasses import dataclass
from typing import Any

from circuitry.circuits.quadrature import QuadratureRule, gauss_radau_rule, left_rule, parse_rule
from circuitry.models.baselines import (
    NAMES_OF_DATA,
    AnyBaseline,
    Baseline,
    BaselineName,
    Counterfactual,
    as_baseline,
)
from circuitry.runs.errors import InputError

STUDY_RULE = left_rule(10)
"""The study's quadrature rule."""
DEFAULT_RULE = gauss_radau_rule(5)
"""The rule of long runs: no worse than the study's for nodes and edges on each measured model, at half of its cost."""


@dataclass(frozen=True, eq=False)
class AttributionSettings:
    """How to attribute; the defaults are the study's but for the rule, see `DEFAULT_RULE` and `STUDY_RULE`.

    Raises:
        InputError: for a value outside its range, which is named.

    Example:
        >>> settings = AttributionSettings(rule=left_rule(10), baseline=mean_baseline(encoder, reference))
        >>> whole, halves = attribute_halves(encoder, images, metric, settings)
    """

    node_fraction: float = 0.1
    """Share of the units of a site that is kept, in (0, 1] (default: a tenth)."""
    rule: QuadratureRule = DEFAULT_RULE
    """Quadrature rule of the path integrals (default: `DEFAULT_RULE`)."""
    edge_rule: QuadratureRule | None = None
    """Quadrature rule of the edges (default: that of the nodes)."""
    baseline: AnyBaseline = "zero"
    """Where the paths end: ``"zero"``, a `Baseline`, or counterfactual images, see `circuitry.models.baselines`; for
    `extract` also a name of `circuitry.models.named_baselines` (default: zero)."""
    sites: tuple[str, ...] | None = None
    """Sites to score, in the encoder's order; edges run between consecutive ones (default: all)."""
    batch_size: int | None = None
    """Images at a time (default: as many as fit the memory budget, which also bounds a given number)."""
    memory_gib: float = 1.0
    """Budget for activations and gradients, in GiB; weights and scores come on top (default: 1)."""
    autocast: str | None = None
    """Lower precision of node scores where PyTorch deems it safe: ``bfloat16`` or ``float16`` (default: that of the
    weights). Edges keep theirs: squared distances of nearly equal activations would lose their digits."""

    def __post_init__(self) -> None:
        if not 0 < self.node_fraction <= 1:
            raise InputError(f"The fraction of units to keep lies in (0, 1], but {self.node_fraction} was given.")
        if self.autocast not in (None, "bfloat16", "float16"):
            raise InputError(f"Autocast is to bfloat16 or float16, but {self.autocast!r} was given.")
        if self.memory_gib <= 0:
            raise InputError(f"The memory budget is a positive number of GiB, but {self.memory_gib} was given.")
        if self.batch_size is not None and self.batch_size < 1:
            raise InputError(f"A batch has at least one image, but a batch size of {self.batch_size} was given.")
        if not (isinstance(self.baseline, str) and self.baseline in NAMES_OF_DATA):
            object.__setattr__(self, "baseline", as_baseline(self.baseline))

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
            "node_rule": self.rule.name,
            "edge_rule": (self.edge_rule or self.rule).name,
            "baseline": self.baseline if isinstance(self.baseline, str) else self.resolved_baseline.name,
            "autocast": self.autocast,
        }


@dataclass(frozen=True)
class CircuitSettings:
    """Options of a script, see `models.settings` and `AttributionSettings`."""

    node_fraction: float = 0.1
    """Share of the units of each site that is kept."""
    edges_per_node: int = 3
    """Most edges into a unit of a circuit."""
    rule: str = DEFAULT_RULE.name
    """Quadrature rule of node scores; left-10 is the study's, which costs more and is less exact."""
    edge_rule: str | None = None
    """Quadrature rule of edge scores where it differs."""
    sites: tuple[str, ...] | None = None
    """Sites to score, in the encoder's order (default: all)."""
    autocast: str | None = None
    """Lower precision of node scores: bfloat16 or float16; edges keep full precision."""

    def attribution(self, baseline: BaselineName = "zero") -> AttributionSettings:
        """Return the settings of an attribution with this baseline."""
        return AttributionSettings(
            node_fraction=self.node_fraction,
            rule=parse_rule(self.rule),
            edge_rule=None if self.edge_rule is None else parse_rule(self.edge_rule),
            baseline=baseline,
            sites=self.sites,
            autocast=self.autocast,
        )
