"""Scores of single units by every method that ranks them one by one, and the settings of a search for circuits."""

from collections.abc import Sequence
from dataclasses import dataclass, field

from torch import Tensor

from circuitry.circuits.image_path import image_path_effects
from circuitry.circuits.nodes import NodeEffects, node_effects
from circuitry.circuits.quadrature import QuadratureRule, left_rule, midpoint_rule
from circuitry.circuits.settings import DEFAULT_RULE
from circuitry.interventions.answers import Answers
from circuitry.interventions.circuit_sets import check_ranking
from circuitry.interventions.found_circuit import FoundCircuit
from circuitry.interventions.masks import MaskSettings
from circuitry.interventions.patching import patch_effects
from circuitry.models.baselines import AnyBaseline
from circuitry.models.encoder import Encoder, checked_sites
from circuitry.models.metrics import Metric
from circuitry.models.sites import INPUT
from circuitry.models.task import Task
from circuitry.runs.errors import InputError
from circuitry.runs.workers import Work

RANKINGS_BY = ("site-path", "input-path", "gradient", "patching")
"""Methods that rank units one by one; see `search`."""
LEARNED = "learned"
METHODS = (*RANKINGS_BY, LEARNED)


@dataclass(frozen=True, eq=False)
class SearchSettings:
    """How a circuit is searched, beyond method and size."""

    sites: Sequence[str] | None = None
    """Sites of the circuit, in the encoder's order (default: all but `input`)."""
    rule: QuadratureRule | None = None
    """Quadrature rule of the paths (default: `DEFAULT_RULE` for sites, two midpoints for the image)."""
    ranking: str = "absolute"
    """Which units of a ranking come first; see `circuit_sets.RANKINGS`."""
    masks: MaskSettings = field(default_factory=MaskSettings)
    """How masks are learned."""
    answers: Answers | None = None
    """What learned masks keep of the embeddings (default: `class_answers` of a `class_logit`, of other metrics the
    metric); for all classes of a domain give `all_answers`."""
    start: str | FoundCircuit | None = None
    """What learned masks start from: one of the other methods, or a circuit (default: see `importance`)."""
    keep_error: bool = False
    """Whether the error units of feature bases stay; see `AblationSettings`."""
    least: float = 0.05
    """Smallest size that is tried for a selectivity."""
    rounds: int = 4
    """Sizes that are tried for a selectivity."""
    random_draws: int = 5
    """Random circuits beside each that was tried."""
    seed: int = 0
    """Seed of the random circuits."""
    work: Work = field(default_factory=Work)
    """Memory and progress."""

    def __post_init__(self) -> None:
        if not 0 < self.least < 1 or self.rounds < 1:
            raise InputError(
                f"Sizes are searched from a least in (0, 1), one at least, but least={self.least} and "
                f"rounds={self.rounds} were given."
            )
        if isinstance(self.start, str) and self.start not in RANKINGS_BY:
            raise InputError(f"Masks start from one of {', '.join(RANKINGS_BY)}, but {self.start!r} was given.")
        check_ranking(self.ranking)


def score_units(
    encoder: Encoder,
    images: Tensor,
    metric: Metric,
    method: str,
    baseline: AnyBaseline = "zero",
    settings: SearchSettings = SearchSettings(),
) -> NodeEffects:
    """Return the scores of all units, error units too, by one of the methods that rank them one by one."""
    sites, work = circuit_sites(encoder, settings.sites), settings.work
    if method == "patching":
        found = patch_effects(encoder, images, metric, baseline=baseline, sites=sites, work=work)
        return NodeEffects(found.scores, {}, found.n_images)
    rules = {"site-path": DEFAULT_RULE, "input-path": midpoint_rule(2), "gradient": left_rule(1)}
    rule = rules[method] if settings.rule is None or method == "gradient" else settings.rule
    task = Task(encoder, images, metric, baseline=baseline, sites=sites, work=work)
    effects = node_effects if method == "site-path" else image_path_effects
    with task.running(gradients=True):
        return effects(task, rule)


def circuit_sites(encoder: Encoder, sites: Sequence[str] | None) -> tuple[str, ...]:
    if sites is not None and INPUT in sites:
        raise InputError("The image itself is no node of a circuit and is never ablated: leave out 'input'.")
    return checked_sites(encoder, sites or [site for site in encoder.sites if site != INPUT])
