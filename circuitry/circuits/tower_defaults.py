"""Which quadrature rule a tower needs: defaults by kind of tower, and the error of a rule against a finer one.

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
"""Rules of nodes and edges for folders, by kind of tower: the cheapest of 14 whose error was at most 0.1, in the mean
over sites whose integral converges. On other circuits they err by .09 and .08 (a ResNet), .06 and .07
(EfficientNet-Lite0), .09 and .02 (a ViT, paths to mean-position): `experiments/benchmark_rules.py`."""

DEFAULT_SIZES = {"batch norms": 0.5, "depthwise convolutions": 0.35, "layer norms": 0.2}
"""Share of the components that a circuit keeps, by kind of tower; of channels it is `CHANNELS`."""
CHANNELS = 0.1
"""The study's share of channels."""

_Settings = TypeVar("_Settings", bound=AttributionSettings)


def kind_of(tower: nn.Module) -> str:
    """Return the kind of a tower, a name of `DEFAULT_RULES`."""
    if has_rescaling_norms(tower):
        return "layer norms"
    for module in tower.modules():
        # A group for each channel; a single channel is no sign of depthwise convolutions.
        if isinstance(module, nn.Conv2d) and module.groups == module.in_channels > 1:
            return "depthwise convolutions"
    return "batch norms"


def default_size(encoder: Encoder) -> float:
    """Return the share of an encoder's units that a circuit keeps."""
    return DEFAULT_SIZES[kind_of(encoder.tower)] if encoder.carried else CHANNELS


def default_sites(encoder: Encoder, budget: str) -> tuple[str, ...]:
    """Return the sites that are scored: with a global budget the sites that compute or have features, else all.

    If no site of the encoder computes or has features, all sites are scored.
    """
    if budget != GLOBAL:
        return encoder.sites
    # One cut ranks units of all sites together: a site that passes on the scores of another would count them twice.
    counted = {*counted_sites(encoder), *encoder.basis}
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
    # Methods that do not follow a path take one gradient.
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
        settings: Share of units to keep, and method of edges; the rules in it are not used.

    Returns:
        rule, kind, place, error. Of ``nodes`` (by site) and ``edges`` (by pair of sites) the error is the norm of the
        difference over the norm of the reference, without places that have no effect; of ``kept alike`` it is the share
        of a site's kept units that the reference keeps, too.

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
    """Return scores of edges by the name of their pair of sites."""
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
