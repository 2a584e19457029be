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
"""Functions of the package's methods that score edges between heads and whole MLPs, by name."""


def component_scorer(method: EdgeMethod) -> ComponentScorer:
    """Return the function of a method that scores edges between heads and whole MLPs.

    Raise `InputError` if the method has no such function.
    """
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

    The sites of the graph are the layers: ``embed``, then for each block ``blocks.i.attn`` (its heads) and
    ``blocks.i.mlp`` (one unit), and finally ``embedding``. With ``ports`` there are also the sites ``blocks.i.attn.q``,
    ``.k`` and ``.v``, whose units are the queries, keys and values of the heads. A node writes if it adds to the
    residual stream. Nodes are scored by

        score of a node that writes     = effect of cutting all edges out of it
        score of a node that only reads = effect of cutting all edges into it

    To first order the score of a node is the sum of the scores of these edges.

    Args:
        task: A task whose encoder is a transformer, either of whole stages or in heads and neurons. If an edge is cut,
            the later node receives what the earlier node adds to the stream at the baseline. The sites of the task are
            ignored: all edges are scored.
        method: One of `EDGE_METHODS` except for ``squared``. ``cuts`` runs the model once for every edge, and ignores
            ``rule``.
        rule: Points of the path, or the name of a rule. The default `PLAIN` is attribution patching.
        ports: If True, the query, key and value of a head are nodes of their own. If False, one node reads for all
            three.

    Raises:
        InputError: if there are no images, the metric returns a wrong shape, a gradient is not finite, the baseline
            does not fit, the method is unknown, an encoder of whole stages has hooks, or the tower is one that
            `ResidualStream.of` does not accept.

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
    """Return the graph of all heads and whole MLPs with the edges between them.

    Args:
        of_stream: Scores of all edges. Single neurons must not be components of their own.
        settings: Settings that the graph stores.
        ports: See `attribute_components`.
    """
    scores = np.nan_to_num(of_stream.scores)
    reads = _places(of_stream.readers, ports)
    writes = _places(of_stream.writers, False)
    components = (*of_stream.writers, *of_stream.readers)
    layers = list(dict.fromkeys(component.layer for component in components))
    # The layer of each site, in the order of the tower. The ports of a layer come before the site that writes.
    layer_of = dict[str, str]()
    for layer in layers:
        for port in (".q", ".k", ".v", ""):
            site = f"{layer}{port}"
            if site in reads or site in writes:
                layer_of[site] = layer
    nodes = dict[str, np.ndarray]()
    kept = dict[str, np.ndarray]()
    for site in layer_of:
        # The nodes of a site that writes are scored by their outgoing edges, even if the site also reads.
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
        # If the ports of a head are one node, the score of its edge is the sum of the scores of its ports.
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
    """Return, for each site, a list with an entry for each unit: the indices of the components that belong to the unit.

    A head that reads the stream consists of three components: its query, its key and its value. If ``ports`` is true,
    each of the three is a unit at a site of its own.

    Args:
        components: The components that read the residual stream, or those components that write to it.
        ports: See `attribute_components`.
    """
    by_unit: dict[str, dict[int, list[int]]] = {}
    for place, component in enumerate(components):
        site = component.layer
        if ports and component.port:
            site = f"{component.layer}.{component.port}"
        units = by_unit.setdefault(site, {})
        # A whole MLP has no index, and is the unit 0 of its site.
        units.setdefault(component.unit or 0, []).append(place)
    return {site: list(units.values()) for site, units in by_unit.items()}
