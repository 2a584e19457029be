"""Edge scores of a residual stream as an `AttributionGraph`: heads, whole MLPs, and all edges between them.

Sites are the layers: ``embed``, of each block ``blocks.i.attn`` (its heads) and ``blocks.i.mlp`` (one unit), and
``embedding``. With ports apart, ``blocks.i.attn.q``, ``.k`` and ``.v`` hold what each head reads, and an edge leads
from each to its head.

    node of a writer = effect of cutting all its edges;  node of another = effect of cutting all edges into it

which to first order are the sums of those edges.
"""

from typing import Any

import numpy as np

from circuitry.circuits.edges import Edges
from circuitry.circuits.graph import IN_STREAM, AttributionGraph
from circuitry.circuits.quadrature import AnyRule, as_rule
from circuitry.circuits.stream_edges import GRADIENT, PLAIN, EdgeMatrix, StreamMethod, edge_matrix, stream_of
from circuitry.encoder.task import Task
from circuitry.runs.given import checked


@checked
def score_edges(
    task: Task,
    *,
    method: str = GRADIENT,
    rule: AnyRule = PLAIN,
    path: str = "inputs",
    ports: bool = False,
) -> AttributionGraph:
    """Score every edge between the heads, the MLPs and the embedding of a transformer.

    Args:
        task: Its encoder is a transformer, as it is or in heads and neurons; the baseline is what a writer adds where
            its edge is cut. Its sites play no part: all edges are scored.
        method: ``gradient``, a name of `corrections`, or ``cuts``. With ``exact-softmax`` patterns change from those of
            the clean run; with ``gradient-dropping`` there is a backward pass for every block; ``cuts`` takes a run for
            every edge and no rule.
        rule: Points of the path, or the rule's name; `PLAIN` is attribution patching.
        path: ``inputs``, the line of the stream before the first block, or ``activations``: for each stage (the heads
            of a block, its MLP, the embedding) the line of what it alone reads: a run for every stage and point, with
            the method ``gradient`` alone.
        ports: Whether the query, key and value of a head are nodes of their own; else one node reads for all three.

    Raises:
        InputError: for no images, a metric of the wrong shape, a gradient that is not finite, a baseline that does not
            fit, an unknown path or method, hooks on an encoder as it is, or a tower as in `ResidualStream.of`.

    Example:
        >>> task = Task(clip.encoder, photos, class_logit(weights, 3))
        >>> graph = score_edges(task, method="exact-readers")
        >>> graph.edges.top(0.01).to_pandas()
    """
    stream, task = stream_of(task)
    rule = as_rule(rule)
    found = edge_matrix(stream, task, StreamMethod(method, rule, path))
    settings = task.made_with | {"edge_rule": rule.name, "path": path, "edge_method": method, "edges": IN_STREAM}
    return as_graph(found, settings, ports)


def as_graph(found: EdgeMatrix, settings: dict[str, Any], ports: bool = False) -> AttributionGraph:
    """Return all heads and MLPs with the edges between them; no neurons are apart."""
    scores = np.nan_to_num(found.scores)
    reads, writes = _by_site(found.readers, ports), _by_site(found.writers, False)
    sites = sorted({*reads, *writes}, key=_order_of_site)
    into = {site: np.stack([scores[rows].sum(0) for rows in units]) for site, units in reads.items()}
    own = {site: found.into[np.concatenate(units)] for site, units in reads.items() if site not in writes}
    nodes = own | {site: found.out_of[np.concatenate(units)] for site, units in writes.items()}
    nodes = {site: nodes[site] for site in sites}
    kept = {site: np.argsort(-np.abs(of_site), kind="stable") for site, of_site in nodes.items()}
    edges = {
        (up, down): into[down][:, np.concatenate(writes[up])]
        for down in sites
        for up in writes
        if down in into and _order_of_site(up) < _order_of_site(down)
    }
    if ports:
        heads = [site for site in writes if site.endswith(".attn")]
        edges |= {(f"{site}.{port}", site): np.diag(nodes[f"{site}.{port}"]) for site in heads for port in "qkv"}
    ordered = {(up, down): of_pair[kept[down]][:, kept[up]] for (up, down), of_pair in edges.items()}
    return AttributionGraph(tuple(sites), nodes, kept, ordered, {}, found.n_images, settings=settings)


@checked
def edge_names(edges: Edges) -> list[tuple[str, str]]:
    """Return the names (writer, reader) of the edges of `score_edges`, row by row of `Edges.to_pandas`.

    Example:
        >>> edges = score_edges(task, ports=True).edges
        >>> names, scores = edge_names(edges), edges.to_pandas()["score"]
        >>> edges_by_position(task, [names[scores.argmax()]])
    """
    table = edges.to_pandas()
    ends = [zip(table[f"{end}_site"], table[f"{end}_unit"], strict=True) for end in ("upstream", "downstream")]
    writers, readers = ([_name(site, unit) for site, unit in of_end] for of_end in ends)
    return list(zip(writers, readers, strict=True))


def _name(site: str, unit: int) -> str:
    first, attn, port = site.partition(".attn")
    return f"{first}.attn.{unit}{port}" if attn else site


def _by_site(names: tuple[str, ...], ports: bool) -> dict[str, list[list[int]]]:
    """Return the places of each unit's rows by site, units in order."""
    found: dict[str, dict[int, list[int]]] = {}
    for place, name in enumerate(names):
        parts = name.split(".")
        unit = int(parts[3]) if len(parts) > 3 else 0
        site = ".".join([*parts[:3], *parts[4:][: int(ports)]])
        found.setdefault(site, {}).setdefault(unit, []).append(place)
    return {site: [units[unit] for unit in sorted(units)] for site, units in found.items()}


def _order_of_site(site: str) -> tuple[int, int]:
    """Return where a site stands: block, and port, heads or MLP within it."""
    if not site.startswith("blocks."):
        return (-1, 0) if site == "embed" else (10**9, 0)
    _, block, kind = site.split(".", 2)
    return int(block), ("attn.q", "attn.k", "attn.v", "attn", "mlp").index(kind)
