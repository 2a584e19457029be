"""How circuits are found: settings of an attribution, and of a folder of them."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar

import tyro

from circuitry.circuits.budgets import BUDGETS, SAME_SHARE
from circuitry.circuits.methods import SITE_PATH, MethodName
from circuitry.circuits.quadrature import RULE_WORDS, QuadratureRule, left_rule, midpoint_rule, parse_rule
from circuitry.data.parts import DEFAULT_PARTS, ItemKey, item_column
from circuitry.models.folder_work import FolderSettings
from circuitry.models.options import option
from circuitry.runs.given import DISTINCT, Positive, Share, at_least, checked, one_of
from circuitry.runs.presets import StudySettings

STUDY_RULE = left_rule(10)
"""The study's quadrature rule."""
SQUARED = "squared"
"""The study's score of edges: squared movements between neighbouring sites."""
EDGE_METHODS = (
    *(SQUARED, "gradient", "exact-readers", "exact-softmax", "gradient-dropping", "atp-star", "relp"),
    *("relp-with-patterns", "cuts"),
)
"""Names of methods that score edges; see `edge_methods`."""
DEFAULT_RULE = midpoint_rule(10)
"""The rule where none is given. How many points a model needs is a property of the model: see `cheapest_rule`."""

Rule = Annotated[QuadratureRule | None, option(parse_rule, RULE_WORDS)]


@checked
@dataclass(frozen=True)
class AttributionSettings(StudySettings):
    """How to attribute; the defaults are the study's except for the rule, see `AttributionSettings.study`.

    Raises:
        InputError: for a value outside its range, which is named.

    Example:
        >>> settings = AttributionSettings.study(node_fraction=0.05)
        >>> graph = attribute(encoder, images, metric, rule=settings.rule)
    """

    STUDY: ClassVar[Mapping[str, Any]] = {"rule": STUDY_RULE}

    node_fraction: Annotated[Share, tyro.conf.arg(name="size")] = 0.1
    """Share of the units to keep."""
    budget: Annotated[str, one_of(*BUDGETS)] = SAME_SHARE
    """How a size is shared out over the sites: same-share, of every site, or global, by the scores of all sites
    together."""
    rule: Rule = None
    """Quadrature rule of node scores, such as midpoint-10, or left-10, the study's (default: midpoint-10 for a single
    graph; for a folder the cheapest that keeps the rule error on a few images of the model)."""
    edge_rule: Rule = None
    """Quadrature rule of edge scores (default: that of the nodes; through a residual stream one gradient)."""
    edges: Annotated[str | None, one_of(*EDGE_METHODS), tyro.conf.arg(name="edge-method")] = None
    """How edges are scored, see `EDGE_METHODS` (default: squared; in heads and neurons gradient)."""
    rule_error: Positive = 0.1
    """Largest relative error, mean over sites, of the rule that is chosen for a folder; see `cheapest_rule`."""
    method: MethodName = SITE_PATH
    """How units are chosen: by a score of each, or learned together as a mask; see `METHODS`."""
    autocast: Annotated[str | None, one_of("bfloat16", "float16")] = None
    """Lower precision where PyTorch deems it safe, of node scores (default: that of the weights). Edges keep theirs:
    squared distances of nearly equal activations would lose their digits."""

    @property
    def node_rule(self) -> QuadratureRule:
        """The rule of the nodes."""
        return self.rule or DEFAULT_RULE

    @property
    def resolved_edge_rule(self) -> QuadratureRule:
        """The rule of the edges: their own, or else that of the nodes."""
        return self.edge_rule or self.node_rule

    def as_dict(self) -> dict[str, Any]:
        """Return what changes the scores, in plain values; `Task.made_with` has the rest."""
        return {
            "node_fraction": self.node_fraction,
            "budget": self.budget,
            "method": self.method,
            "node_rule": self.node_rule.name,
            "edge_rule": self.resolved_edge_rule.name,
            "edge_method": self.edges,
            "autocast": self.autocast,
        }


@checked
@dataclass(frozen=True)
class ExtractionSettings(AttributionSettings, FolderSettings):
    """How to find the circuits of a whole data set; see `extract`.

    Raises:
        InputError: for a value outside its range, which is named.
    """

    STUDY: ClassVar[Mapping[str, Any]] = {"baseline": "zero"}

    sites: Annotated[tuple[str, ...] | None, DISTINCT] = None
    """Sites: those to score, in the encoder's order; edges run between consecutive ones (default: all)."""
    parts: Annotated[int, at_least(2)] = DEFAULT_PARTS
    """Parts of the images of a class in a domain, cut by item: the similarity of parts is the ceiling."""
    items: Annotated[ItemKey | None, option(item_column, "LISTING COLUMN", 2)] = None
    """A listing of the images and its column that names what an image shows (default: the name of the file)."""
