"""What tests do to circuits of units and of edges alike: keep, leave out, draw at random, take one part away."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, overload

import numpy as np

from circuitry.circuits.edges import Edges
from circuitry.circuits.graph import AttributionGraph
from circuitry.interventions.circuit_sets import KeptUnits, take_complement
from circuitry.interventions.gated import Kept

UnitsOrEdges = Mapping[str, np.ndarray] | Edges
"""A circuit: numbers of units by site, or edges."""


@overload
def as_kept(graph: AttributionGraph, circuit: Mapping[str, np.ndarray], keep_error: bool = ...) -> KeptUnits: ...


@overload
def as_kept(graph: AttributionGraph, circuit: UnitsOrEdges, keep_error: bool = ...) -> Kept: ...


def as_kept(graph: AttributionGraph, circuit: UnitsOrEdges, keep_error: bool = False) -> Kept:
    """Return what a run keeps of a circuit; with ``keep_error`` error units too, or all edges from and into them."""
    sites = circuit.units if isinstance(circuit, Edges) else circuit
    n_nodes = {site: len(graph.node_scores[site]) for site in sites}
    if not isinstance(circuit, Edges):
        ends = {site: graph.n_units(site) if keep_error else n for site, n in n_nodes.items()}
        return {s: np.append(units, np.arange(n_nodes[s], ends[s])).astype(np.int64) for s, units in circuit.items()}
    masks = circuit.masks({site: graph.n_units(site) for site in sites})
    for (up, down), mask in masks.items() if keep_error else ():
        mask[:, n_nodes[up] :] = True
        mask[n_nodes[down] :] = True
    return masks


def leave_out(kept: Kept, graph: AttributionGraph) -> Kept:
    """Return what is not kept between the same sites."""
    named: Any = kept
    if any(isinstance(key, tuple) for key in named):
        return {pair: ~mask for pair, mask in named.items()}
    return take_complement(named, graph)


def take_everything(kept: Kept, graph: AttributionGraph) -> Kept:
    """Return all units at the sites of what is kept, or all edges between them, error units included."""
    named: Any = kept
    return leave_out({key: np.zeros_like(some) if isinstance(key, tuple) else [] for key, some in named.items()}, graph)


def draw_random(
    graph: AttributionGraph, circuits: Sequence[UnitsOrEdges], draws: int, rng: np.random.Generator
) -> list[UnitsOrEdges]:
    """Return random circuits as large as each of some, draw by draw.

    Units are as many at every site, nested from circuit to circuit; for edges see `Edges.random`.
    """
    if isinstance(circuits[0], Edges):
        return [edges.random(rng) for _ in range(draws) for edges in circuits if isinstance(edges, Edges)]
    units: list[Any] = list(circuits)
    orders = [{site: rng.permutation(len(graph.node_scores[site])) for site in units[0]} for _ in range(draws)]
    return [{site: order[site][: len(some)] for site, some in one.items()} for order in orders for one in units]


def without_each(circuit: UnitsOrEdges) -> Iterator[UnitsOrEdges]:
    """Yield a circuit without each of its units, or edges, in turn."""
    if isinstance(circuit, Edges):
        yield from circuit.without_each()
        return
    for site, units in circuit.items():
        for i in range(len(units)):
            yield {**circuit, site: np.delete(units, i)}


def count_parts(circuit: UnitsOrEdges) -> int:
    """Return the number of units, or edges."""
    return circuit.count if isinstance(circuit, Edges) else sum(map(len, circuit.values()))


def count_edges(kept: Kept) -> int:
    """Return the number of edges that a run keeps of all units, error units included."""
    masks: Any = kept
    return sum(int(mask.sum()) for mask in masks.values())
