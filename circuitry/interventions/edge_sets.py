"""Circuits as sets of edges: those of a circuit, the strongest, all between some units, and random ones.

A set has a mask [down, up] over all units for every pair of sites that a graph's edges run between: neighbouring ones
in a chain, any two in heads and neurons or heads and MLPs (`circuits.stream_graph`). Where the ports of heads are
units, what leads from a port into its own head is always open and no edge of a set.
"""

from collections.abc import Iterator, Mapping, Sequence
from itertools import combinations, pairwise

import numpy as np
from jaxtyping import Bool

from circuitry.circuits.graph import BETWEEN_POSITIONS, IN_STREAM, AttributionGraph, Circuit
from circuitry.interventions.circuit_sets import check_ranking
from circuitry.models.stream_parts import PORTS
from circuitry.runs.errors import InputError
from circuitry.runs.given import check_kinds

Pair = tuple[str, str]
"""Upstream and downstream site."""

EdgeSet = Mapping[Pair, Bool[np.ndarray, "_ _"]]
"""Which edges are kept, [down, up] by pair of sites; of a pair that is not there, all."""


def no_edges(graph: AttributionGraph) -> dict[Pair, np.ndarray]:
    """Return the empty set of a graph's edges, between all sites but ports and their heads.

    Raises:
        InputError: for a graph that keeps positions apart.
    """
    check_kinds(graph=(graph, AttributionGraph))
    if graph.settings.get("edges") == BETWEEN_POSITIONS:
        raise InputError(
            "Edges are cut at all positions alike, but this graph keeps them apart: take the one of stream_graph."
        )
    inner = graph.inner_sites
    pairs = combinations(inner, 2) if graph.settings.get("edges") == IN_STREAM else pairwise(inner)
    return {
        (up, down): np.zeros((graph.n_units(down), graph.n_units(up)), dtype=bool)
        for up, down in graph.edge_scores or pairs
        if not _into_its_head(up, down)
    }


def take_edges(circuit: Circuit, *, keep_error: bool = False) -> dict[Pair, np.ndarray]:
    """Return a circuit's edges as an `EdgeSet`; with ``keep_error`` all edges of error units are kept, too.

    Edges into a port from which the circuit does not lead on into the head have no part in it and are left out.
    """
    check_kinds(circuit=(circuit, Circuit))
    source, kept, leads_on = circuit.source, no_edges(circuit.source), dict[str, np.ndarray]()
    for (up, down), (rows, columns) in circuit.edge_places.items():
        downs, ups = source.kept_units[down][rows], source.kept_units[up][columns]
        if (up, down) in kept:
            kept[up, down][downs, ups] = True
        else:
            leads_on[up] = np.isin(np.arange(source.n_units(up)), ups[ups == downs])
    for (_, down), mask in kept.items():
        mask[~leads_on.get(down, np.ones(len(mask), dtype=bool))] = False
    if keep_error:
        for (up, down), mask in kept.items():
            mask[:, len(source.node_scores[up]) :] = True
            mask[len(source.node_scores[down]) :] = True
    return kept


def edges_among(graph: AttributionGraph) -> dict[Pair, np.ndarray]:
    """Return all edges between the kept units of a graph: those that a mask on edges may choose from.

    Example:
        >>> found = find_circuit(encoder, cats, metric, size=0.2, others=not_cats)
        >>> learn_edges(encoder, cats, metric, edges_among(found.graph), [0.3], others=not_cats)
    """
    found = no_edges(graph)
    for pair, mask in found.items():
        mask[_kept(graph, pair)] = True
    return found


def strongest_edge_sets(
    graph: AttributionGraph, fractions: Sequence[float], ranking: str = "absolute"
) -> list[dict[Pair, np.ndarray]]:
    """Return the sets of a graph's strongest edges, ranked over all pairs of sites together.

    Args:
        graph: Edges that are scored.
        fractions: Shares of the scored edges, in (0, 1]; one edge at least.
        ranking: ``absolute``, or ``signed``: those that help most first.

    Raises:
        InputError: for a graph without edges, a fraction outside (0, 1], or another ranking.

    Example:
        >>> cut_embeddings(encoder, photos, strongest_edge_sets(graph, [0.05, 0.2]))
    """
    check_kinds(graph=(graph, AttributionGraph))
    check_ranking(ranking)
    pairs = [pair for pair in no_edges(graph) if pair in graph.edge_scores]
    if not pairs or not all(0 < fraction <= 1 for fraction in fractions):
        raise InputError(
            f"The strongest edges are shares in (0, 1] of a graph's scored edges, but {list(fractions)} was asked for "
            f"of {sum(graph.edge_scores[pair].size for pair in pairs)} edges."
        )
    scores = np.concatenate([graph.edge_scores[pair].ravel() for pair in pairs])
    order = np.argsort(-np.abs(scores) if ranking == "absolute" else -scores, kind="stable")
    ends = np.cumsum([graph.edge_scores[pair].size for pair in pairs])[:-1]
    found = []
    for fraction in fractions:
        chosen = np.zeros(len(scores), dtype=bool)
        chosen[order[: max(1, round(fraction * len(order)))]] = True
        kept = no_edges(graph)
        for pair, part in zip(pairs, np.split(chosen, ends), strict=True):
            kept[pair][_kept(graph, pair)] = part.reshape(graph.edge_scores[pair].shape)
        found.append(kept)
    return found


def random_edges(graph: AttributionGraph, edges: EdgeSet, rng: np.random.Generator) -> dict[Pair, np.ndarray]:
    """Return as many edges between the kept units of a graph, at random.

    In a chain as many between the same sites, since there is no way past a site; else as many in all.
    """
    found = {pair: mask.copy() for pair, mask in edges.items()}
    groups = [[pair] for pair in found] if set(found) <= set(pairwise(graph.inner_sites)) else [list(found)]
    for group in groups:
        places = [_kept(graph, pair) for pair in group]
        sizes = [found[pair][place].size for pair, place in zip(group, places, strict=True)]
        shuffled = rng.permutation(np.concatenate([found[p][q].ravel() for p, q in zip(group, places, strict=True)]))
        for pair, place, part in zip(group, places, np.split(shuffled, np.cumsum(sizes)[:-1]), strict=True):
            found[pair][place] = part.reshape(found[pair][place].shape)
    return found


def take_other_edges(edges: EdgeSet) -> dict[Pair, np.ndarray]:
    """Return the edges that a set leaves out, between the same sites."""
    return {pair: ~mask for pair, mask in edges.items()}


def without_each_edge(edges: EdgeSet, each: EdgeSet | None = None) -> Iterator[dict[Pair, np.ndarray]]:
    """Yield a set of edges without each of them, or of some of them, in turn."""
    for pair, mask in (edges if each is None else each).items():
        for down, up in np.argwhere(mask):
            left = edges[pair].copy()
            left[down, up] = False
            yield {**edges, pair: left}


def count_edges(edges: EdgeSet) -> int:
    """Return how many edges a set keeps."""
    return sum(int(mask.sum()) for mask in edges.values())


def _into_its_head(up: str, down: str) -> bool:
    """Say whether one site is a port of the heads at the other."""
    return up in [f"{down}.{port}" for port in PORTS]


def _kept(graph: AttributionGraph, pair: Pair) -> tuple[np.ndarray, ...]:
    """Return the places of the edges between kept units in a mask, in the order of the scores."""
    return np.ix_(graph.kept_units[pair[1]], graph.kept_units[pair[0]])
