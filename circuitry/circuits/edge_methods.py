"""Scores of edges between units: `score_edges`. For edges between heads and whole MLPs see `component_graphs`.

A method is a value of `methods.EDGE_METHODS`. ``squared``, the study's: how far a unit moves at the next site
(`chain_edges`); the default of a chain whose sites carry nothing past their units. The others score effects on the
metric. ``cuts`` takes an exact run for every edge (`edge_cuts`). ``exact-readers`` agrees best with these, but takes a
partial run for every unit: on ViT-B/32 with 399 kept units 26 s of a processor for an image, where ``gradient`` takes
4. It is the default where sites carry a stream and units do not add up: hidden channels, or heads with a norm behind
them. ``gradient``, through the residual stream, is the default of heads and neurons that add up (`stream_edges`).

Scores rank edges and do not measure them: even where they order edges as exact cuts do, their sizes are not what the
metric loses by a cut. Only ``cuts`` are.
"""

from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
import torch
from jaxtyping import Int
from torch import Tensor

from circuitry.bases.gated_reading import joined_sites
from circuitry.bases.residual import ResidualStream, in_stream
from circuitry.circuits.asked_alike import ANY_CLASS, check_made_with
from circuitry.circuits.chain_edges import chain_edges, reader_edges
from circuitry.circuits.circuit_settings import DEFAULT_RULE, AttributionSettings
from circuitry.circuits.edge_cuts import cut_effects
from circuitry.circuits.graph import Circuit
from circuitry.circuits.methods import (
    CUTS,
    EDGE_METHODS,
    EXACT_READERS,
    GRADIENT,
    SQUARED,
    EdgeMethod,
    EdgeMethodName,
    EdgeScorer,
    code_of,
)
from circuitry.circuits.narrowed_tasks import own_images
from circuitry.circuits.quadrature import AnyRule, QuadratureRule, as_rule
from circuitry.circuits.returned_numbers import numbers_in
from circuitry.circuits.stream_edges import (
    BY_READER,
    PLAIN,
    StreamScores,
    attributed,
    unit_edges,
)
from circuitry.encoder.encoder import Encoder
from circuitry.encoder.sites import INPUT
from circuitry.encoder.task import Task
from circuitry.gates.edges import Edges, Pair
from circuitry.runs.arguments import checked
from circuitry.runs.errors import InputError, shown

SomeUnits = Mapping[str, Int[np.ndarray, " kept"]]
"""Numbers of some units by site, in the encoder's order."""


def exact_readers(
    task: Task, units: SomeUnits, rule: QuadratureRule
) -> Mapping[Pair, np.ndarray]:
    """Score edges by runs of the later unit, in a chain and in a stream."""
    if in_stream(task.encoder):
        return unit_edges(partial(attributed, exact=BY_READER), task, units, rule)
    return reader_edges(task, units, rule)


def exact_cuts(
    task: Task, units: SomeUnits, rule: QuadratureRule
) -> Mapping[Pair, np.ndarray]:
    """Score edges by a run for each; no rule takes part."""
    pairs = joined_sites(task.encoder, task.sites)
    return cut_effects(task, Edges.between(units, pairs)).scores


EDGE_SCORERS: Mapping[str, EdgeScorer] = {
    SQUARED: chain_edges,
    GRADIENT: partial(unit_edges, attributed),
    EXACT_READERS: exact_readers,
    CUTS: exact_cuts,
}
"""The package's methods that score edges between units."""


def component_scores(
    method: EdgeMethod, stream: ResidualStream, task: Task, rule: QuadratureRule
) -> StreamScores:
    """Call a method from outside; refuse an answer that is no scores of the edges of a stream."""
    assert method.components is not None
    given = method.components(stream, task, rule)
    if not isinstance(given, StreamScores):
        raise _no_scores(method, f"its components returned {shown(given)}")
    scores = np.asarray(given.scores)
    if scores.shape != tuple(stream.edges.shape):
        raise _no_scores(
            method, f"its components returned an array {list(scores.shape)}"
        )
    if not np.isfinite(scores[stream.edges.numpy()]).all():
        raise _no_scores(method, "some scores of its components are NaN or infinite")
    return given


def _scores_from_outside(
    method: EdgeMethod, task: Task, units: SomeUnits, rule: QuadratureRule
) -> dict[Pair, np.ndarray]:
    """Call a method from outside; refuse an answer that is no scores of edges between the units."""
    assert method.function is not None
    # Checked here, so that every later step can trust the scores, whoever wrote the function.
    given: object = method.function(task, units, rule)
    if not isinstance(given, Mapping) or not given:
        raise _no_scores(method, f"it returned {shown(given)}")
    scores = dict[Pair, np.ndarray]()
    places = {site: place for place, site in enumerate(units)}
    for pair, values in given.items():
        known = isinstance(pair, tuple) and set(places).issuperset(pair)
        if not known or len(pair) != 2 or places[pair[0]] >= places[pair[1]]:
            raise _no_scores(method, f"there are some at {shown(pair)}")
        # From here on the pair is one of two sites, the earlier one first.
        where = "->".join(pair)
        block = numbers_in(values)
        if block is None:
            raise _no_scores(method, f"at {where} it returned {shown(values)}")
        if block.shape != (len(units[pair[1]]), len(units[pair[0]])):
            raise _no_scores(
                method, f"at {where} it returned an array {list(block.shape)}"
            )
        if not np.isfinite(block).all():
            raise _no_scores(method, f"at {where} some are NaN or infinite")
        scores[pair] = block
    return scores


def _no_scores(method: EdgeMethod, given: str) -> InputError:
    return InputError(
        f"Expected the method {method.name!r} to return finite scores [units downstream, units upstream] by (upstream, "
        f"downstream) pair of sites, but {given}: correct its function; EdgeMethod says what it returns."
    )


@checked
def score_edges(
    task: Task,
    units: SomeUnits,
    *,
    method: EdgeMethodName | None = None,
    rule: AnyRule | None = None,
) -> Edges:
    """Score the edges between some units: of neighbouring sites, or of sites that a stream joins.

    Args:
        task: Its encoder has the sites; an upstream unit is put to its baseline.
        units: Numbers of units by site, in the encoder's order, such as the ``kept_units`` of a graph.
        method: One of `EDGE_METHODS` (default: ``squared``; where sites carry a stream ``gradient``, or
            ``exact-readers`` where units do not add up).
        rule: Points of the path, or the rule's name (default: of ``squared`` midpoint-10, else one gradient).

    Raises:
        InputError: for a method that the encoder's units do not have, unknown sites or units, activations, gradients
            or scores that are not finite, or a baseline that does not fit.

    Example:
        >>> edges = circuitry.score_edges(task, graph.kept_units)
        >>> strongest = edges.strongest(into=3).to_pandas()
    """
    chosen = edge_method(task.encoder, method)
    # No edge leads from the image, whose pixels are no nodes.
    units = {site: np.asarray(units[site]) for site in units if site != INPUT}
    # A method that takes no path gets one gradient, at the clean activation.
    default = DEFAULT_RULE if chosen.along_path else PLAIN
    given = default if rule is None else as_rule(rule)
    with task.running(gradients=True):
        scores = _scorer(chosen)(replace(task, sites=tuple(units)), units, given)
    return Edges(units, scores)


def _scorer(method: EdgeMethod) -> EdgeScorer:
    """Return the function of a method that scores edges between units."""
    if method.function is not None:
        return partial(_scores_from_outside, method)
    if method.components is not None:
        # In a stream edges between units are edges between components, with these units apart.
        return partial(unit_edges, partial(component_scores, method))
    return EDGE_SCORERS[method.name]


def with_edges(task: Task, circuit: Circuit) -> Circuit:
    """Return a circuit of units whose source is a graph, with scores of the edges between them; see `score_edges`.

    Example:
        >>> part = circuitry.own_part(task)
        >>> circuitry.circuits.with_edges(task, part).source.edges.count > 0
        True
    """
    source = circuit.source
    check_made_with(task, [source], (*ANY_CLASS, "baseline"))
    # A graph has units at all its sites, a circuit only where it keeps some.
    nothing = np.zeros(0, np.int64)
    kept = {site: circuit.units.get(site, nothing) for site in source.inner_sites}
    edges = score_edges(own_images(task), kept)
    settings = source.settings | edges_made_with(task.encoder, AttributionSettings())
    graph = replace(source, settings=settings).keeping(kept, edges.scores)
    return replace(circuit, source=graph)


def edge_method(encoder: Encoder, name: str | None) -> EdgeMethod:
    """Return the method that scores the edges of an encoder, by its name or the default."""
    if in_stream(encoder):
        return EDGE_METHODS[name or GRADIENT]
    # Distances of the next site do not see an effect that a carried stream takes past it.
    default = EXACT_READERS if encoder.carried else SQUARED
    method = EDGE_METHODS[name or default]
    if method.in_stream:
        of_chains = [repr(m.name) for m in EDGE_METHODS.values() if not m.in_stream]
        raise InputError(
            f"Edges are scored by {name!r} between heads and neurons that add to a residual stream, but this encoder's "
            f"units are not: give clip.in_components().encoder of a ViT, or one of {', '.join(of_chains)}."
        )
    return method


def rule_of_edges(encoder: Encoder, settings: AttributionSettings) -> QuadratureRule:
    """Return the rule of the edges: that of the settings, one gradient through a stream, else that of the nodes."""
    if settings.edge_rule is not None:
        return settings.edge_rule
    along_path = edge_method(encoder, settings.edges).along_path
    return settings.node_rule if along_path else PLAIN


def fold_edges(
    task: Task,
    units: Mapping[int, SomeUnits],
    settings: AttributionSettings,
    folds: Int[np.ndarray, " images"],
) -> dict[int, Mapping[Pair, np.ndarray]]:
    """Return the scores of `score_edges` between the units of each fold of the images.

    Args:
        task: Its images are a tensor, and gradients run.
        units: Units by site, of each fold.
        settings: Their method and rule are taken.
    """
    images = task.images
    assert isinstance(images, Tensor)
    method = edge_method(task.encoder, settings.edges).name
    rule = rule_of_edges(task.encoder, settings)
    scores = dict[int, Mapping[Pair, np.ndarray]]()
    for fold, of_fold in units.items():
        members = torch.from_numpy(np.flatnonzero(folds == fold))
        some = task.of_some(images, members)
        scores[fold] = score_edges(some, of_fold, method=method, rule=rule).scores
    return scores


def edges_made_with(encoder: Encoder, settings: AttributionSettings) -> dict[str, Any]:
    """Return method and rule of the edges in plain values; for a registered method also the digest of its code."""
    method = edge_method(encoder, settings.edges)
    made_with: dict[str, Any] = {
        "edge_method": method.name,
        "edge_rule": rule_of_edges(encoder, settings).name,
    }
    if method.function is not None or method.components is not None:
        made_with["edge_method_code"] = code_of(method)
    return made_with
