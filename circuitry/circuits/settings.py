"""How circuits are found, as options of a command line; see `models.settings`."""

from dataclasses import dataclass

from circuitry.circuits.attribution import DEFAULT_RULE, AttributionSettings
from circuitry.circuits.quadrature import parse_rule
from circuitry.models.baselines import BaselineName


@dataclass(frozen=True)
class CircuitSettings:
    """How circuits are found; see `AttributionSettings`."""

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
