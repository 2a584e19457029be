"""Which quadrature rule a tower needs: the defaults by kind of tower, and what a rule errs by against a finer one.

How sharply a metric turns on the path to the baseline, and so how many points it takes, is a property of the tower.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Annotated, TypeVar

import numpy as np
import pandas as pd
from torch import nn

from circuitry.circuits.budgets import GLOBAL, strongest_units
from circuitry.circuits.circuit_settings import AttributionSettings
from circuitry.circuits.edge_methods import edge_method, score_edges
from circuitry.circuits.nodes import nodes_of, part_effects
from circuitry.circuits.quadrature import (
    AnyRule,
    as_rule,
    gauss_radau_rule,
    midpoint_rule,
)
from circuitry.circuits.stream_edges import PLAIN
from circuitry.encoder.encoder import Encoder
from circuitry.encoder.norms import has_rescaling_norms
from circuitry.encoder.roles import counted_sites
from circuitry.encoder.task import Task
from circuitry.runs.given import SOME, checked

DEFAULT_RULES = {
    "batch norms": (midpoint_rule(5), gauss_radau_rule(3)),
    "depthwise convolutions": (midpoint_rule(15), gauss_radau_rule(3)),
    "layer norms": (gauss_radau_rule(3), midpoint_rule(3)),
}
"""Rules of nodes and edges for folders, by kind of tower: the cheapest of 14 whose error was at most 0.1, in the mean
over sites whose integral converges. On other circuits they err by .09 and .08 (a ResNet), .06 and .07
(EfficientNet-Lite0), .09 and .02 (a ViT, paths to mean-position): `experiments/benchmark_rules.py`."""

DEFAULT_SIZES = {"batch norms": 0.5, "depthwise convolutions": 0.35, "layer norms": 0.2}
"""Share of the parts of blocks that a circuit keeps, by kind of tower; of channels it is `CHANNELS`."""
CHANNELS = 0.1
"""The study's share of channels."""

_Settings = TypeVar("_Settings", bound=AttributionSettings)


def kind_of(tower: nn.Module) -> str:
    """Return the kind of a tower, a name of `DEFAULT_RULES`."""
    if has_rescaling_norms(tower):
        return "layer norms"
    convolutions = [
        module for module in tower.modules() if isinstance(module, nn.Conv2d)
    ]
    depthwise = any(one.groups == one.in_channels > 1 for one in convolutions)
    return "depthwise convolutions" if depthwise else "batch norms"


def default_size(encoder: Encoder) -> float:
    """Return the share of its units that a circuit keeps."""
    return DEFAULT_SIZES[kind_of(encoder.tower)] if encoder.carried else CHANNELS


def default_sites(encoder: Encoder, budget: str) -> tuple[str, ...]:
    """Return the sites that are scored: with one cut those that compute, if any do, or have features."""
    counted = {*counted_sites(encoder), *encoder.basis} if budget == GLOBAL else set()
    return tuple(site for site in encoder.sites if site in counted) or encoder.sites


def with_size(settings: _Settings, encoder: Encoder) -> _Settings:
    """Return settings with the default size where none is given."""
    return replace(settings, size=settings.size or default_size(encoder))


def with_rules(settings: _Settings, encoder: Encoder) -> _Settings:
    """Return settings with the default size, and rules of a folder where none is given."""
    settings = with_size(settings, encoder)
    if settings.rule is not None:
        return settings
    nodes, edges = DEFAULT_RULES[kind_of(encoder.tower)]
    if not edge_method(encoder, settings.edges).along_path:
        edges = PLAIN
    return replace(settings, rule=nodes, edge_rule=settings.edge_rule or edges)


@checked
def relative_error(
    task: Task,
    rules: Annotated[Sequence[AnyRule], SOME],
    reference: AnyRule = "midpoint-40",
    settings: AttributionSettings | None = None,
) -> pd.DataFrame:
    """Return how far the scores of a task by quadrature rules lie from those by a finer rule.

    A finer rule is near the integral only where the integral converges: not where an embedding is proportional to the
    activation, nor with a baseline of zero before a layer norm. There two fine rules differ, so compare two.

    Args:
        task: All its images take part; they can be gone over more than once.
        rules: Rules, or their names.
        reference: The finer rule. Edges are scored between the units that it keeps, so their error is the rule's alone.
        settings: Their share of units, and method of edges, are taken.

    Returns:
        rule, kind, place, error. Of ``nodes`` (by site) and ``edges`` (by pair of sites) the error is the norm of the
        difference over the norm of the reference, without places that have no effect; of ``kept alike`` it is the share
        of a site's kept units that the reference keeps, too.

    Example:
        >>> relative_error(Task(clip.encoder, photos, class_logit(weights, 0)), ["midpoint-5", "left-10"])
    """
    settings = settings or AttributionSettings()
    with task.running(gradients=True):
        exact, kept = (found := _nodes(task, reference)), _keep(task, found, settings)
        exact_edges = score_edges(
            task, kept, method=settings.edges, rule=reference
        ).scores
        rows = []
        for rule in map(as_rule, rules):
            scores = _nodes(task, rule)
            edges = score_edges(task, kept, method=settings.edges, rule=rule).scores
            alike = {
                s: float(np.isin(units, kept[s]).mean())
                for s, units in _keep(task, scores, settings).items()
            }
            by_pair, exact_pairs = (
                {"->".join(pair): e for pair, e in of.items()}
                for of in (edges, exact_edges)
            )
            found_by = {
                "nodes": _errors(scores, exact),
                "edges": _errors(by_pair, exact_pairs),
                "kept alike": alike,
            }
            rows += [
                (rule.name, kind, place, e)
                for kind, by in found_by.items()
                for place, e in by.items()
            ]
    return pd.DataFrame(rows, columns=["rule", "kind", "place", "error"])


def _nodes(task: Task, rule: AnyRule) -> dict[str, np.ndarray]:
    return nodes_of(task.encoder, part_effects(task, as_rule(rule))[0].scores)


def _keep(
    task: Task, scores: Mapping[str, np.ndarray], settings: AttributionSettings
) -> dict[str, np.ndarray]:
    return strongest_units(
        scores, settings.size or default_size(task.encoder), settings.budget
    )


def _errors(
    found: Mapping[str, np.ndarray], exact: Mapping[str, np.ndarray]
) -> dict[str, float]:
    norms = {place: np.linalg.norm(scores) for place, scores in exact.items()}
    return {
        place: float(np.linalg.norm(found[place] - exact[place]) / norm)
        for place, norm in norms.items()
        if norm
    }
