"""Graphs of heads and whole MLPs: `attribute_components` scores every edge between them; see `edge_methods`."""

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np

from circuitry.bases.residual import Component, ResidualStream
from circuitry.circuits.edge_cuts import component_cuts
from circuitry.circuits.edge_methods import component_scores
from circuitry.circuits.graph import AttributionGraph
from circuitry.circuits.methods import (
    CUTS,
    EDGE_METHODS,
    EXACT_READERS,
    GRADIENT,
    EdgeMethod,
    EdgeMethodName,
)
from circuitry.circuits.quadrature import AnyRule, QuadratureRule, as_rule
from circuitry.circuits.stream_edges import (
    BY_READER,
    PLAIN,
    StreamScores,
    attributed,
    stream_of,
)
from circuitry.encoder.task import Task
from circuitry.gates.edges import Pair
from circuitry.runs.arguments import checked
from circuitry.runs.errors import InputError

ComponentScorer = Callable[[ResidualStream, Task, QuadratureRule], StreamScores]

COMPONENT_SCORERS: Mapping[str, ComponentScorer] = {
    GRADIENT: attributed,
    EXACT_READERS: partial(attributed, exact=BY_READER),
    CUTS: lambda stream, task, _: component_cuts(stream, task),
}
"""The package's methods that score edges between heads and whole MLPs."""


def component_scorer(method: EdgeMethod) -> ComponentScorer:
    """Return the function of a method that scores edges between heads and whole MLPs; refuse a method without one."""
    if method.components is not None:
        return partial(component_scores, method)
    if method.name not in COMPONENT_SCORERS:
        raise InputError(
            f"Edges between heads and MLPs are scored by {', '.join(map(repr, COMPONENT_SCORERS))} or an EdgeMethod "
            f"with components, but {method.name!r} was given: choose another method."
        )
    return COMPONENT_SCORERS[method.name]


@checked
def attribute_components(
    task: Task,
    *,
    method: EdgeMethodName = GRADIENT,
    rule: AnyRule = PLAIN,
    ports: bool = False,
) -> AttributionGraph:
    """Score the heads and the whole MLPs of a transformer, and every edge between them and the embedding.

    Sites are the layers: ``embed``, of each block ``blocks.i.attn`` (its heads) and ``blocks.i.mlp`` (one unit), and
    ``embedding``. With ports apart, ``blocks.i.attn.q``, ``.k`` and ``.v`` hold what each head reads.

        score of a node that writes     = effect of cutting all its edges
        score of a node that only reads = effect of cutting all edges into it

    To first order these are sums of the scores of the edges.

    Args:
        task: Its encoder is a transformer, as it is or in heads and neurons; where an edge is cut, the writer's
            addition is that at the baseline. The task's sites play no part: all edges are scored.
        method: One of `EDGE_METHODS` but ``squared``; ``cuts`` takes a run for every edge and no rule.
        rule: Points of the path, or the rule's name; `PLAIN` is attribution patching.
        ports: Whether the query, key and value of a head are nodes of their own; else one node reads for all three.

    Raises:
        InputError: for no images, a metric of the wrong shape, a gradient that is not finite, a baseline that does not
            fit, an unknown method, hooks on an encoder as it is, or a tower as in `ResidualStream.of`.

    Example:
        >>> of_vit = circuitry.Task(vit.encoder, images, circuitry.class_logit(vit.text_weights(folder.classes), 1))
        >>> graph = circuitry.circuits.attribute_components(of_vit)
        >>> strongest = graph.edges.top(0.01).to_pandas()
    """
    stream, task = stream_of(task)
    rule = as_rule(rule)
    score = component_scorer(EDGE_METHODS[method])
    with task.running(gradients=True):
        scores = score(stream, task, rule)
    settings = task.identity | {"edge_rule": rule.name, "edge_method": method}
    return as_graph(scores, settings, ports)


def as_graph(
    of_stream: StreamScores, settings: dict[str, Any], ports: bool = False
) -> AttributionGraph:
    """Return all heads and MLPs with the edges between them; no neurons are apart."""
    scores = np.nan_to_num(of_stream.scores)
    reads = _places(of_stream.readers, ports)
    writes = _places(of_stream.writers, False)
    components = (*of_stream.writers, *of_stream.readers)
    layers = list(dict.fromkeys(component.layer for component in components))
    # The layer of each site, in the order of the tower; the ports of a layer come before what it writes.
    layer_of = dict[str, str]()
    for layer in layers:
        for port in (".q", ".k", ".v", ""):
            site = f"{layer}{port}"
            if site in reads or site in writes:
                layer_of[site] = layer
    nodes = dict[str, np.ndarray]()
    kept = dict[str, np.ndarray]()
    for site in layer_of:
        # A site that writes has the effect of its edges out, even where it reads, too.
        if site in writes:
            nodes[site] = of_stream.out_of[np.concatenate(writes[site])]
        else:
            nodes[site] = of_stream.into[np.concatenate(reads[site])]
        # Kept units are listed from the strongest on, as in every graph.
        kept[site] = np.argsort(-np.abs(nodes[site]), kind="stable")
    edges = dict[Pair, np.ndarray]()
    for down in layer_of:
        if down not in reads:
            continue
        # Where the ports of a head are one node, its score is the sum of theirs.
        into = np.stack([scores[rows].sum(0) for rows in reads[down]])
        for up in writes:
            if layers.index(up) < layers.index(layer_of[down]):
                of_writers = into[:, np.concatenate(writes[up])]
                edges[up, down] = of_writers[kept[down]][:, kept[up]]
    return AttributionGraph(
        tuple(layer_of),
        nodes,
        {},
        of_stream.n_images,
        settings=settings,
        kept_units=kept,
        edge_scores=edges,
    )


def _places(components: Sequence[Component], ports: bool) -> dict[str, list[list[int]]]:
    """Return the places of each unit's components by site, units in order."""
    by_unit: dict[str, dict[int, list[int]]] = {}
    for place, component in enumerate(components):
        site = component.layer
        if ports and component.port:
            site = f"{component.layer}.{component.port}"
        units = by_unit.setdefault(site, {})
        # A whole MLP has no number, and is the unit 0 of its site.
        units.setdefault(component.unit or 0, []).append(place)
    return {site: list(units.values()) for site, units in by_unit.items()}
