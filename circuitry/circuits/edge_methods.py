"""Scores of edges: `score_edges` between units, `attribute_components` between heads and whole MLPs.

A method is a name of `EDGE_METHODS`. ``squared``, the study's: how far a unit moves at the next site (`chain_edges`);
the default of a chain whose sites carry nothing past their units. The others score effects on the metric. ``cuts``
takes an exact run for every edge (`edge_cuts`). ``exact-readers`` agrees best with these, but takes a partial run for
every unit: on ViT-B/32 with 399 kept units 26 s of a processor for an image, where ``gradient`` takes 4. It is the
default where sites carry a stream and units do not add up: hidden channels, or heads with a norm behind them. The rest
are gradients through the residual stream of heads and neurons that add up, whose default is ``gradient``
(`stream_edges`).

Scores rank edges and do not measure them: even where they order edges as exact cuts do, their sizes are not what the
metric loses by a cut. Only ``cuts`` are.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Annotated, Any

import numpy as np
import torch
from jaxtyping import Int
from torch import Tensor

from circuitry.bases.gated_reading import joined_sites
from circuitry.bases.residual import Component, ResidualStream, in_stream
from circuitry.circuits.chain_edges import chain_edges, reader_edges
from circuitry.circuits.circuit_settings import (
    DEFAULT_RULE,
    EDGE_METHODS,
    SQUARED,
    AttributionSettings,
)
from circuitry.circuits.edge_cuts import component_cuts, cut_effects
from circuitry.circuits.edges import Edges, Pair
from circuitry.circuits.graph import AttributionGraph, Circuit
from circuitry.circuits.made_with import ANY_CLASS, check_made_with
from circuitry.circuits.quadrature import AnyRule, QuadratureRule, as_rule
from circuitry.circuits.stream_edges import (
    ATTRIBUTED,
    PLAIN,
    StreamScores,
    stream_of,
    unit_edges,
)
from circuitry.circuits.unit_scores import own_images
from circuitry.encoder.encoder import Encoder
from circuitry.encoder.sites import INPUT
from circuitry.encoder.task import Task
from circuitry.runs.errors import InputError
from circuitry.runs.given import checked, one_of

EdgeEnds = Mapping[str, Int[np.ndarray, " kept"]]
"""By site."""

SCORERS: Mapping[
    str, Callable[[Task, EdgeEnds, QuadratureRule], Mapping[Pair, np.ndarray]]
] = {
    SQUARED: chain_edges,
    **{name: partial(unit_edges, score) for name, score in ATTRIBUTED.items()},
    "cuts": lambda task, units, _: (
        cut_effects(
            task, Edges.between(units, joined_sites(task.encoder, task.sites))
        ).scores
    ),
}
"""Methods that score edges between units; another one is another entry, and its name one of `EDGE_METHODS`."""
COMPONENT_SCORERS: Mapping[
    str, Callable[[ResidualStream, Task, QuadratureRule], StreamScores]
] = {
    **ATTRIBUTED,
    "cuts": lambda stream, task, _: component_cuts(stream, task),
}
"""Methods that score edges between heads and whole MLPs."""


@checked
def score_edges(
    task: Task,
    units: EdgeEnds,
    *,
    method: Annotated[str, one_of(*EDGE_METHODS)] | None = None,
    rule: AnyRule | None = None,
) -> Edges:
    """Score the edges between some units: of neighbouring sites, or of sites that a stream joins.

    Args:
        task: Its encoder has the sites; the baseline is what an upstream unit is put to.
        units: EdgeEnds by site, in the encoder's order, such as the ``kept_units`` of a graph.
        method: One of `EDGE_METHODS` (default: ``squared``; where sites carry a stream ``gradient``, or
            ``exact-readers`` where units do not add up).
        rule: Points of the path, or the rule's name (default: of ``squared`` midpoint-10, else one gradient).

    Raises:
        InputError: for a method that the encoder's units do not have, unknown sites or units, activations, gradients
            or scores that are not finite, or a baseline that does not fit.

    Example:
        >>> edges = score_edges(task, graph.kept_units, method="exact-readers")
        >>> edges.strongest(into=3).to_pandas()
    """
    method = edge_method(task.encoder, method)
    units = {
        site: np.asarray(of_site) for site, of_site in units.items() if site != INPUT
    }
    given = (
        (PLAIN if method != SQUARED else DEFAULT_RULE)
        if rule is None
        else as_rule(rule)
    )
    with task.running(gradients=True):
        score = (
            SCORERS[method]
            if method != "exact-readers" or in_stream(task.encoder)
            else reader_edges
        )
        scores = score(replace(task, sites=tuple(units)), units, given)
    return Edges(units, scores)


@checked
def attribute_components(
    task: Task,
    *,
    method: Annotated[str, one_of(*COMPONENT_SCORERS)] = "gradient",
    rule: AnyRule = PLAIN,
    ports: bool = False,
) -> AttributionGraph:
    """Score the heads and the whole MLPs of a transformer, and every edge between them and the embedding.

    Sites are the layers: ``embed``, of each block ``blocks.i.attn`` (its heads) and ``blocks.i.mlp`` (one unit), and
    ``embedding``. With ports apart, ``blocks.i.attn.q``, ``.k`` and ``.v`` hold what each head reads.

        node of a writer = effect of cutting all its edges;  node of another = effect of cutting all edges into it

    which to first order are the sums of those edges.

    Args:
        task: Its encoder is a transformer, as it is or in heads and neurons; the baseline is what a writer adds where
            its edge is cut. Its sites play no part: all edges are scored.
        method: One of `EDGE_METHODS` but ``squared``. With ``exact-softmax`` patterns change from those of the clean
            run; with ``gradient-dropping`` there is a backward pass for every block; ``cuts`` takes a run for every
            edge and no rule.
        rule: Points of the path, or the rule's name; `PLAIN` is attribution patching.
        ports: Whether the query, key and value of a head are nodes of their own; else one node reads for all three.

    Raises:
        InputError: for no images, a metric of the wrong shape, a gradient that is not finite, a baseline that does not
            fit, an unknown method, hooks on an encoder as it is, or a tower as in `ResidualStream.of`.

    Example:
        >>> task = Task(clip.encoder, photos, class_logit(weights, 3))
        >>> graph = attribute_components(task, method="exact-readers")
        >>> graph.edges.top(0.01).to_pandas()
    """
    stream, task = stream_of(task)
    rule = as_rule(rule)
    with task.running(gradients=True):
        found = COMPONENT_SCORERS[method](stream, task, rule)
    return as_graph(
        found, task.identity | {"edge_rule": rule.name, "edge_method": method}, ports
    )


def as_graph(
    found: StreamScores, settings: dict[str, Any], ports: bool = False
) -> AttributionGraph:
    """Return all heads and MLPs with the edges between them; no neurons are apart."""
    scores, layers = (
        np.nan_to_num(found.scores),
        list(dict.fromkeys(one.layer for one in (*found.writers, *found.readers))),
    )
    reads, writes = _places(found.readers, ports), _places(found.writers, False)
    layer_of = {
        f"{layer}{port}": layer for layer in layers for port in (".q", ".k", ".v", "")
    }
    sites = [site for site in layer_of if site in reads or site in writes]
    into = {
        site: np.stack([scores[rows].sum(0) for rows in units])
        for site, units in reads.items()
    }
    own = {
        site: found.into[np.concatenate(units)]
        for site, units in reads.items()
        if site not in writes
    }
    own |= {site: found.out_of[np.concatenate(units)] for site, units in writes.items()}
    nodes = {site: own[site] for site in sites}
    kept = {
        site: np.argsort(-np.abs(of_site), kind="stable")
        for site, of_site in nodes.items()
    }
    edges = {
        (up, down): into[down][:, np.concatenate(writes[up])][kept[down]][:, kept[up]]
        for down in sites
        for up in writes
        if down in into and layers.index(up) < layers.index(layer_of[down])
    }
    return AttributionGraph(
        tuple(sites), nodes, kept, edges, {}, found.n_images, settings=settings
    )


def _places(components: Sequence[Component], ports: bool) -> dict[str, list[list[int]]]:
    """Return the places of each unit's components by site, units in order."""
    found: dict[str, dict[int, list[int]]] = {}
    for place, one in enumerate(components):
        site = f"{one.layer}.{one.port}" if ports and one.port else one.layer
        found.setdefault(site, {}).setdefault(one.unit or 0, []).append(place)
    return {site: list(units.values()) for site, units in found.items()}


def with_edges(task: Task, circuit: Circuit) -> Circuit:
    """Return a circuit of units whose source keeps them, with scores of the edges between them; see `score_edges`."""
    check_made_with(task, [circuit.source], (*ANY_CLASS, "baseline"))
    source, nothing = circuit.source, np.zeros(0, np.int64)
    kept = {site: circuit.units.get(site, nothing) for site in source.inner_sites}
    scores = dict(score_edges(own_images(task), kept).scores)
    settings = source.settings | edges_made_with(task.encoder, AttributionSettings())
    return replace(
        circuit,
        source=replace(source, kept_units=kept, edge_scores=scores, settings=settings),
    )


def edge_method(encoder: Encoder, name: str | None) -> str:
    """Return the method that scores the edges of an encoder, by its name or the default."""
    streams = in_stream(encoder)
    if name not in (None, SQUARED, "exact-readers", "cuts") and not streams:
        raise InputError(
            f"Edges are scored by {name!r} between heads and neurons that add to a residual stream, but this encoder's "
            f"units are not: give clip.in_components().encoder of a ViT, or {SQUARED!r}, 'exact-readers' or 'cuts'."
        )
    return name or (
        "gradient" if streams else "exact-readers" if encoder.carried else SQUARED
    )


def rule_of_edges(encoder: Encoder, settings: AttributionSettings) -> QuadratureRule:
    """Return the rule of the edges: that of the settings, one gradient through a stream, else that of the nodes."""
    streams = edge_method(encoder, settings.edges) != SQUARED
    return settings.edge_rule or (PLAIN if streams else settings.node_rule)


def part_edges(
    task: Task,
    units: Mapping[int, EdgeEnds],
    settings: AttributionSettings,
    parts: Int[np.ndarray, " images"],
) -> dict[int, Mapping[Pair, np.ndarray]]:
    """Return the scores of `score_edges` between the units of each part of the images.

    Args:
        task: Its images are a tensor, and gradients run.
        units: EdgeEnds by site, of each part.
        settings: Their method and rule are taken.
    """
    method, rule, images = (
        edge_method(task.encoder, settings.edges),
        rule_of_edges(task.encoder, settings),
        task.images,
    )
    assert isinstance(images, Tensor)
    members = {part: torch.from_numpy(np.flatnonzero(parts == part)) for part in units}
    tasks = {part: task.of_some(images, chosen) for part, chosen in members.items()}
    return {
        part: score_edges(tasks[part], units[part], method=method, rule=rule).scores
        for part in units
    }


def edges_made_with(encoder: Encoder, settings: AttributionSettings) -> dict[str, Any]:
    """Return how edges are scored, in plain values."""
    method = edge_method(encoder, settings.edges)
    return {"edge_method": method, "edge_rule": rule_of_edges(encoder, settings).name}
