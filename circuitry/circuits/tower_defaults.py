"""Defaults by kind of tower: quadrature rules and sizes. `relative_error` compares a rule with a finer rule.

Along the path to the baseline, the metric changes more sharply in some towers than in others. So the number of points
that a rule needs depends on the tower.
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
from circuitry.circuits.nodes import fold_effects, nodes_of
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
from circuitry.runs.arguments import SOME, checked

DEFAULT_RULES = {
    "batch norms": (midpoint_rule(5), gauss_radau_rule(3)),
    "depthwise convolutions": (midpoint_rule(15), gauss_radau_rule(3)),
    "layer norms": (gauss_radau_rule(3), midpoint_rule(3)),
}
"""Default rules for folders by kind of tower: the rule of nodes and the rule of edges. Each is the cheapest of 14 rules
whose error was at most 0.1, as a mean over the sites at which the integral converges. On other circuits the errors of
nodes and edges are .09 and .08 (a ResNet), .06 and .07 (EfficientNet-Lite0), .09 and .02 (a ViT, paths to
mean-position); see `experiments/benchmark_rules.py`."""

DEFAULT_SIZES = {"batch norms": 0.5, "depthwise convolutions": 0.35, "layer norms": 0.2}
"""Default size of a circuit by kind of tower, if the units are components of blocks (`in_components`). If the units are
channels, the default size is `CHANNELS`."""
CHANNELS = 0.1
"""Default size of a circuit of channels, as in the study."""

_Settings = TypeVar("_Settings", bound=AttributionSettings)


def kind_of(tower: nn.Module) -> str:
    """Return the kind of a tower, which is a key of `DEFAULT_RULES`."""
    if has_rescaling_norms(tower):
        return "layer norms"
    for module in tower.modules():
        # Depthwise: each channel is a group of its own. A convolution with a single channel does not count.
        if isinstance(module, nn.Conv2d) and module.groups == module.in_channels > 1:
            return "depthwise convolutions"
    return "batch norms"


def default_size(encoder: Encoder) -> float:
    """Return the default size of a circuit: the share of the encoder's units that it keeps."""
    return DEFAULT_SIZES[kind_of(encoder.tower)] if encoder.carried else CHANNELS


def default_sites(encoder: Encoder, budget: str) -> tuple[str, ...]:
    """Return the default sites to score.

    With a global budget these are the sites whose units count in the size of a circuit (`counted_sites`), and the sites
    in a feature basis. With any other budget, or if there are no such sites, these are all sites of the encoder.
    """
    if budget != GLOBAL:
        return encoder.sites
    # A global budget ranks the units of all sites together. A site that passes on the scores of another site would
    # count these scores twice.
    counted = {*counted_sites(encoder), *encoder.basis}
    return tuple(site for site in encoder.sites if site in counted) or encoder.sites


def with_size(settings: _Settings, encoder: Encoder) -> _Settings:
    """Return settings in which the size is the default of the encoder if it was None."""
    return replace(settings, size=settings.size or default_size(encoder))


def with_rules(settings: _Settings, encoder: Encoder) -> _Settings:
    """Return settings with the default size, and if they have no rule of nodes, with the default rules of the tower.

    The default rules are `DEFAULT_RULES`. An edge rule in the settings is not replaced.
    """
    settings = with_size(settings, encoder)
    if settings.rule is not None:
        return settings
    nodes, edges = DEFAULT_RULES[kind_of(encoder.tower)]
    # Methods of edges that do not integrate along a path compute one gradient.
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
    """Return how far scores by some quadrature rules are from the scores by a finer rule.

    A finer rule is close to the integral only if the integral converges. It does not converge if the embedding is
    proportional to the activation, or if the baseline before a layer norm is zero. To detect this, compare two fine
    rules: their scores differ if the integral does not converge.

    Args:
        task: The task. All of its images are used, several times.
        rules: Rules, or their names.
        reference: The finer rule. Edges are scored between the units that this rule keeps, so that the error of an edge
            only comes from the rule of edges.
        settings: Share of units to keep, budget, and method of edges. The rules in the settings are ignored.

    Returns:
        A table with the columns rule, kind, place and error. If kind is ``nodes`` (place is a site) or ``edges`` (place
        is a pair of sites), the error is the norm of the difference divided by the norm of the reference; places where
        the reference is zero are left out. If kind is ``kept alike`` (place is a site), the value is the share of the
        kept units of the site that the reference keeps, too.

    Example:
        >>> task = circuitry.Task(encoder, images, metric, sites=encoder.sites[-2:])
        >>> errors = circuitry.circuits.relative_error(task, ["left-2"], reference="midpoint-4")
        >>> list(errors.columns)
        ['rule', 'kind', 'place', 'error']
    """
    settings = settings or AttributionSettings()
    rows = []
    with task.running(gradients=True):
        exact_nodes = _nodes(task, reference)
        kept = _keep(task, exact_nodes, settings)
        exact_edges = _edges(task, kept, settings, reference)
        for rule in map(as_rule, rules):
            nodes = _nodes(task, rule)
            edges = _edges(task, kept, settings, rule)
            kept_alike = {}
            for site, units in _keep(task, nodes, settings).items():
                kept_alike[site] = float(np.isin(units, kept[site]).mean())
            by_kind = {
                "nodes": _errors(nodes, exact_nodes),
                "edges": _errors(edges, exact_edges),
                "kept alike": kept_alike,
            }
            for kind, by_place in by_kind.items():
                for place, error in by_place.items():
                    rows.append((rule.name, kind, place, error))
    return pd.DataFrame(rows, columns=["rule", "kind", "place", "error"])


def _nodes(task: Task, rule: AnyRule) -> dict[str, np.ndarray]:
    return nodes_of(task.encoder, fold_effects(task, as_rule(rule))[0].scores)


def _edges(
    task: Task,
    units: Mapping[str, np.ndarray],
    settings: AttributionSettings,
    rule: AnyRule,
) -> dict[str, np.ndarray]:
    """Return scores of edges by the name of the pair of sites, ``upstream->downstream``."""
    scores = score_edges(task, units, method=settings.edges, rule=rule).scores
    return {"->".join(pair): of_pair for pair, of_pair in scores.items()}


def _keep(
    task: Task, scores: Mapping[str, np.ndarray], settings: AttributionSettings
) -> dict[str, np.ndarray]:
    return strongest_units(
        scores, settings.size or default_size(task.encoder), settings.budget
    )


def _errors(
    scores: Mapping[str, np.ndarray], exact: Mapping[str, np.ndarray]
) -> dict[str, float]:
    errors = {}
    for place, of_place in exact.items():
        norm = np.linalg.norm(of_place)
        if norm:
            errors[place] = float(np.linalg.norm(scores[place] - of_place) / norm)
    return errors
