"""Circuits as the page reads them: a script for each class, and one for each site, with its units. No torch.

A *series* is one circuit that the page can draw: the circuit of a class in a domain, found on all images or on one fold
of them. Its arrays hold the kept units of all sites one after another. Within a site the strongest unit comes first, so
the first units of every site are a smaller cut. `order` ranks the units of all sites together. Edges are sorted by the
unit that they lead into, then by falling score. Scores of edges have one digit in circuits of folds.
"""

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np

from circuitry.cards.circuit_units import CircuitUnits
from circuitry.circuits.consensus import Consensus, find_consensus
from circuitry.circuits.graph import AttributionGraph, Circuit
from circuitry.circuits.graph_folder import EDGES, GraphFolder
from circuitry.explorer.explorer_settings import ExplorerSettings
from circuitry.explorer.packing import one_digit

TWINS = 2
"""Folds of the images whose circuits are shown beside each other."""


class Series(NamedTuple):
    """One circuit, as the page reads it."""

    header: dict[str, object]
    arrays: dict[str, np.ndarray]
    graph: AttributionGraph
    """The graph that the circuit was cut from, with the scores of all units."""


def class_series(
    graphs: GraphFolder,
    sites: Sequence[str],
    class_name: str,
    settings: ExplorerSettings,
) -> Iterator[Series]:
    """Yield the series of a class, at some sites: of each domain, and of its first folds for the twin view."""
    edges_per_node = settings.edges_per_node
    for domain in graphs.domains:
        if (class_name, domain) not in graphs:
            continue
        circuit = graphs[class_name, domain].circuit(edges_per_node)
        folds = graphs.folds(class_name, domain)
        # Stability of edges takes the edges of the folds, which an extraction may not have kept.
        consensus = None
        has_edges = graphs.file(class_name, domain, EDGES).is_file()
        if len(folds) > 1 and has_edges:
            edges = graphs.fold_edges(class_name, domain)
            consensus = find_consensus(circuit, list(folds.values()), edges)
        yield series_of(circuit, sites, domain, consensus=consensus)
        # Twins show how much a circuit varies between two folds of the same images.
        if settings.twins and len(folds) > 1:
            for fold in list(folds)[:TWINS]:
                twin = folds[fold].circuit(edges_per_node)
                yield series_of(twin, sites, domain, fold)


def series_of(
    circuit: Circuit,
    sites: Sequence[str],
    domain: str,
    fold: int | None = None,
    consensus: Consensus | None = None,
) -> Series:
    """Return the series of a circuit: its units and edges, and how stable they are."""
    graph = circuit.source
    # Circuits of a folder are cut of graphs.
    assert isinstance(graph, AttributionGraph)
    # Units of all sites one after another; ``first`` has the place at which those of a site begin.
    units: list[np.ndarray] = []
    scores: list[np.ndarray] = []
    ranked_by: list[np.ndarray] = []
    first: dict[str, int] = {}
    n_units = 0
    for site in sites:
        # A small cut may have no unit at a site, which is then absent.
        kept = circuit.units.get(site, np.zeros(0, np.int64))
        first[site] = n_units
        n_units += len(kept)
        units.append(kept)
        if len(kept):
            scores.append(graph.node_scores[site][kept])
            ranked_by.append(graph.ranked_by[site][kept])
    # The place of an edge's ends among the units of all sites.
    edges = circuit.its_edges
    up: list[np.ndarray] = []
    down: list[np.ndarray] = []
    weights: list[np.ndarray] = []
    stability: list[np.ndarray] = []
    for pair, (rows, columns) in edges.places.items():
        above, below = pair
        up.append(first[above] + columns)
        down.append(first[below] + rows)
        weights.append(edges.scores[pair][rows, columns])
        if consensus is not None:
            stability.append(consensus.edges[pair])
    into = _joined(down).astype(np.int64)
    weight = _joined(weights)
    # By the unit that an edge leads into, then by falling score: numpy sorts by the last key first.
    order = np.lexsort((-weight, into))
    weight = weight[order]
    strongest_first = np.argsort(-np.abs(_joined(ranked_by)), kind="stable")
    arrays = {
        "units": _small(np.concatenate(units)),
        "counts": np.array([len(kept) for kept in units], np.uint32),
        "scores": _joined(scores),
        "order": _small(strongest_first, n_units),
        # How many edges lead into each unit says where its edges begin.
        "into": np.bincount(into, minlength=n_units).astype(np.uint16),
        "from": _small(_joined(up)[order], n_units),
        "weights": weight if fold is None else one_digit(weight),
    }
    if consensus is not None:
        of_units = np.concatenate([consensus.units[site] for site in sites])
        arrays["unitStability"] = _bytes(of_units)
        arrays["edgeStability"] = _bytes(_joined(stability)[order])
    header: dict[str, object] = {
        "domain": domain,
        "fold": fold,
        "images": graph.n_images,
        "arrays": list(arrays),
    }
    return Series(header, arrays, graph)


def _joined(arrays: Sequence[np.ndarray]) -> np.ndarray:
    # An empty array first, since a circuit may have no edge.
    return np.concatenate([np.zeros(0), *arrays])


def _small(numbers: np.ndarray, limit: int | None = None) -> np.ndarray:
    """Return whole numbers in two bytes if the largest fits, else in four; ``limit`` stands for the largest."""
    largest = numbers.max(initial=0) if limit is None else limit
    return numbers.astype(np.uint16 if largest < 1 << 16 else np.uint32)


def _bytes(shares: np.ndarray) -> np.ndarray:
    """Return shares as bytes; 255 is all."""
    return np.round(shares * 255).astype(np.uint8)


_MOST = 31
"""Steps of an effect to each side of zero."""
_NOTHING = -128
"""Step of a class and domain without a circuit."""


def site_effects(circuits: CircuitUnits, site: str) -> dict[str, np.ndarray]:
    """Return the units of a site that any circuit keeps, with their effects and the circuits that keep them.

    Returns:
        ``units``: their numbers. ``effects`` [units, circuits]: whole numbers from -31 to 31, where 31 stands for the
        unit's ``scale``, and -128 for no circuit. ``members``: a bit for each circuit, the first circuit in the highest
        bit of the first byte.
    """
    units = circuits.kept_by_any(site)
    scores = circuits.scores[site][units].astype(np.float32)
    scale = np.nanmax(np.abs(scores), 1, initial=0.0)
    # A unit without an effect anywhere is divided by 1.
    divisor = np.where(scale > 0, scale, 1.0)
    steps = scores / divisor[:, None] * _MOST
    steps = np.round(np.nan_to_num(steps, nan=_NOTHING))
    return {
        "units": units.astype(np.uint32),
        "effects": steps.astype(np.int8),
        "scale": scale,
        "members": np.packbits(circuits.kept[site][units], axis=1),
    }
