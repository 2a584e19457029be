"""What is done to circuits alike, whether of units or of edges: all, the rest, random ones, one part less.

To become part of `circuit_sets` when edges are values of their own.
"""

from collections.abc import Iterator, Sequence

import numpy as np

from circuitry.circuits.graph import AttributionGraph
from circuitry.interventions.circuit_sets import add_error_units, take_complement
from circuitry.interventions.edge_sets import count_edges, random_edges, take_other_edges, without_each_edge
from circuitry.interventions.gated import Kept, is_edges
from circuitry.models.encoder import Encoder


def take_everything(graph: AttributionGraph, like: Kept) -> Kept:
    """Return all units, or all edges, between the sites of a circuit, error units included."""
    if is_edges(like):
        return {pair: np.ones_like(mask) for pair, mask in like.items()}
    return {site: np.arange(graph.n_units(site)) for site in like}


def leave_out(circuit: Kept, graph: AttributionGraph) -> Kept:
    """Return the units, or edges, that a circuit leaves out, between its sites."""
    return take_other_edges(circuit) if is_edges(circuit) else take_complement(circuit, graph)


def draw_random(graph: AttributionGraph, circuits: Sequence[Kept], draws: int, rng: np.random.Generator) -> list[Kept]:
    """Return random circuits as large as each of some, draw by draw.

    Units are as many at every site, nested from circuit to circuit; edges are drawn by `random_edges`.
    """
    if is_edges(circuits[0]):
        return [random_edges(graph, edges, rng) for _ in range(draws) for edges in circuits]
    orders = [{site: rng.permutation(len(graph.node_scores[site])) for site in circuits[0]} for _ in range(draws)]
    return [{site: order[site][: len(units)] for site, units in c.items()} for order in orders for c in circuits]


def add_errors(encoder: Encoder, circuit: Kept) -> Kept:
    """Return a circuit with all error units of its sites, or all edges from and into error units."""
    if not is_edges(circuit):
        return add_error_units(encoder, circuit)
    found = {pair: mask.copy() for pair, mask in circuit.items()}
    for (up, down), mask in found.items():
        for site, places in ((up, mask.T), (down, mask)):
            if site in encoder.error_units:
                places[encoder.error_units[site].start :] = True
    return found


def without_each(circuit: Kept) -> Iterator[Kept]:
    """Yield a circuit without each of its units, or edges, in turn."""
    if is_edges(circuit):
        yield from without_each_edge(circuit)
        return
    for site, units in circuit.items():
        for i in range(len(units)):
            yield {**circuit, site: np.delete(units, i)}


def count_parts(circuit: Kept) -> int:
    """Return the number of units, or edges."""
    return count_edges(circuit) if is_edges(circuit) else sum(map(len, circuit.values()))
