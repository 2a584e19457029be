"""Scores of edges between units: `score_edges`. For edges between heads and whole MLPs see `component_graphs`.

The methods are the values of `methods.EDGE_METHODS`. Which one is the default depends on the encoder:

- ``squared``, the study's method, scores how far a unit of the next site moves (`chain_edges`). It is the default of a
  chain of sites without a residual stream that is carried past their units. All other methods score effects on the
  metric.
- ``gradient`` scores edges through the residual stream to first order (`stream_edges`). It is the default of heads and
  neurons that add up in the stream.
- ``exact-readers`` computes the later unit of an edge exactly, and takes only the network after this unit as linear.
  This needs a partial run for every earlier unit. It is the default if a stream is carried past the units, but the
  units do not add up in it: hidden channels, or heads with a norm after them. On ViT-B/32 with 399 kept units it takes
  26 s of one processor for an image, where ``gradient`` takes 4 s.
- ``cuts`` measures every edge in a run of its own (`edge_cuts`). Of the other methods, ``exact-readers`` agrees best
  with the measured values.

The score of an edge by ``cuts`` is what the metric loses if the edge is cut. The scores of all other methods only rank
edges. Even if they order edges as exact cuts do, their sizes are not the loss by a cut.
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
from circuitry.circuits.unit_gradients import unit_gradients
from circuitry.encoder.encoder import Encoder
from circuitry.encoder.sites import INPUT
from circuitry.encoder.task import Task
from circuitry.gates.edges import Edges, Pair
from circuitry.runs.arguments import checked
from circuitry.runs.errors import InputError, shown

SomeUnits = Mapping[str, Int[np.ndarray, " kept"]]
"""Indices of some units by site, with the sites in the encoder's order."""


def exact_readers(
    task: Task, units: SomeUnits, rule: QuadratureRule
) -> Mapping[Pair, np.ndarray]:
    """Score edges by the exact change of the later unit, multiplied with the gradient of the metric.

    If the units add to a residual stream, `unit_edges` scores the edges. If they do not, `reader_edges` does, and
    ``rule`` is ignored.
    """
    if in_stream(task.encoder):
        return unit_edges(partial(attributed, exact=BY_READER), task, units, rule)
    return reader_edges(task, units, rule)


def exact_cuts(
    task: Task, units: SomeUnits, rule: QuadratureRule
) -> Mapping[Pair, np.ndarray]:
    """Score each edge exactly, by a run of the model with this edge cut. ``rule`` is ignored."""
    pairs = joined_sites(task.encoder, task.sites)
    return cut_effects(task, Edges.between(units, pairs)).scores


EDGE_SCORERS: Mapping[str, EdgeScorer] = {
    SQUARED: chain_edges,
    GRADIENT: unit_gradients,
    EXACT_READERS: exact_readers,
    CUTS: exact_cuts,
}
"""Functions of the package's methods that score edges between units, by name."""


def component_scores(
    method: EdgeMethod, stream: ResidualStream, task: Task, rule: QuadratureRule
) -> StreamScores:
    """Return the scores of a registered method for the edges between the components of a stream.

    Raise `InputError` unless the method returns `StreamScores` of the right shape, finite for every edge.
    """
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
    """Return the scores of a registered method for the edges between some units, by pair of sites.

    Raise `InputError` unless the method returns finite scores of the right shapes for pairs of sites, the earlier site
    first.
    """
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
        # The pair consists of two sites, the earlier one first.
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
    """Score the edges between some units of neighbouring sites, or of sites that a residual stream joins.

    Args:
        task: Encoder, images, metric and baseline. An edge is scored by putting the upstream unit to its baseline.
        units: Indices of the units by site, in the encoder's order, such as the ``kept_units`` of a graph.
        method: One of `EDGE_METHODS`. Default: ``squared`` if no site of the encoder carries a stream past its units,
            otherwise ``gradient`` if the units add up in the stream, and ``exact-readers`` if they do not.
        rule: Points of the path, or the name of a rule. Default: midpoint-10 for ``squared``, one gradient for all
            other methods.

    Returns:
        The edges with their scores [units downstream, units upstream] by pair of sites.

    Raises:
        InputError: if the encoder's units cannot be scored by the method, a site or unit is unknown, the baseline does
            not fit, activations, gradients or scores are not finite, or hooks are set on an encoder in lower precision.

    Example:
        >>> edges = circuitry.score_edges(task, graph.kept_units)
        >>> strongest = edges.strongest(into=3).to_pandas()
    """
    chosen = edge_method(task.encoder, method)
    # No edge starts at the image, because its pixels are not nodes.
    units = {site: np.asarray(units[site]) for site in units if site != INPUT}
    # Scores of edges are small differences of two runs, which lower precision would drown.
    encoder = task.encoder.in_type_of_weights()
    task = replace(task, encoder=encoder, sites=tuple(units))
    # A method that does not integrate along a path gets the rule of one gradient, at the clean activation.
    default = DEFAULT_RULE if chosen.along_path else PLAIN
    given = default if rule is None else as_rule(rule)
    with task.running(gradients=True):
        scores = _scorer(chosen)(task, units, given)
    return Edges(units, scores)


def _scorer(method: EdgeMethod) -> EdgeScorer:
    """Return the function of a method that scores edges between units."""
    if method.function is not None:
        return partial(_scores_from_outside, method)
    if method.components is not None:
        # In a stream, edges between units are edges between components if the units are components of their own.
        return partial(unit_edges, partial(component_scores, method))
    return EDGE_SCORERS[method.name]


def with_edges(task: Task, circuit: Circuit) -> Circuit:
    """Return the same circuit of units, with scores of the edges between its units.

    The scores are measured on the task's images of the class; see `score_edges`. The ``source`` of the returned circuit
    is a graph, which keeps the circuit's units and holds these scores. A smaller circuit gets the same scores from this
    graph without a run; see `AttributionGraph.among`.

    Example:
        >>> part = circuitry.circuits.with_edges(task, circuitry.own_part(task, share=0.02))
        >>> part.source.edges.count > 0
        True
        >>> smaller = part.source.strongest(0.01, "signed", "global")
        >>> part.source.among(smaller.units).edges.count < part.source.edges.count
        True
    """
    source = circuit.source
    # A graph lists the kept units of all its sites. A circuit may lack sites without kept units.
    nothing = np.zeros(0, np.int64)
    kept = {site: circuit.units.get(site, nothing) for site in source.inner_sites}
    # In one run, so that the identity of the model is read once.
    with task.encoder.running():
        check_made_with(task, [source], (*ANY_CLASS, "baseline"))
        edges = score_edges(own_images(task), kept)
    settings = source.settings | edges_made_with(task.encoder, AttributionSettings())
    graph = replace(source, settings=settings).keeping(kept, edges.scores)
    return replace(circuit, source=graph)


def edge_method(encoder: Encoder, name: str | None) -> EdgeMethod:
    """Return the method of edges with the given name, or the default of the encoder if it is None.

    Raise `InputError` if the method cannot score the edges of this encoder.
    """
    if in_stream(encoder):
        return EDGE_METHODS[name or GRADIENT]
    # The distance that the next site moves misses effects that a carried stream takes past this site.
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
    """Return the quadrature rule of edge scores.

    This is the ``edge_rule`` of the settings, if it is given. Otherwise a method of edges that integrates along a path
    gets the rule of the nodes, and any other method gets the rule of a single gradient.
    """
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
    """Score edges on each fold of the images, between the units of this fold; see `score_edges`.

    Args:
        task: A task whose images are a tensor, within ``task.running(gradients=True)``.
        units: For each fold, by its index: the indices of its units by site.
        settings: Settings with the method and the rule of edges.
        folds: Index of the fold of each image.

    Returns:
        For each fold, by its index: the scores by pair of sites.
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
    """Return the settings that determine the scores of edges, as values that JSON can hold.

    These are the names of the method of edges (``edge_method``) and of the quadrature rule of edge scores
    (``edge_rule``). For a registered method they also contain the digest of its code (``edge_method_code``).
    """
    method = edge_method(encoder, settings.edges)
    made_with: dict[str, Any] = {
        "edge_method": method.name,
        "edge_rule": rule_of_edges(encoder, settings).name,
    }
    if method.function is not None or method.components is not None:
        made_with["edge_method_code"] = code_of(method)
    return made_with
