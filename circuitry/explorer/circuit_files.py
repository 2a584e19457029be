"""Circuits in the form that the page reads: arrays of the circuits of each class, and of the units of each site.

A *series* is a circuit that the page can draw. It is the circuit of a class in a domain, found on all images or on one
fold of the images. Its arrays have the kept units of the first site, then of the second site, and so on. Within a site
the strongest unit comes first. So the page gets a smaller circuit if it takes only the first units of every site. The
array ``order`` ranks the units of all sites together. Edges are sorted by the unit that they lead into. Edges into the
same unit are sorted by score, the largest score first. In circuits of folds, the scores of edges are rounded to one
digit.

Does not import torch.
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
"""Number of folds of the images whose circuits the page shows beside each other."""


class Series(NamedTuple):
    """One circuit in the form that the page reads."""

    header: dict[str, object]
    """Domain, fold, number of images, and names of the arrays."""
    arrays: dict[str, np.ndarray]
    """Units, scores and edges; see `series_of`."""
    graph: AttributionGraph
    """The graph from which the circuit was cut. It has the scores of all units."""


def class_series(
    graphs: GraphFolder,
    sites: Sequence[str],
    class_name: str,
    settings: ExplorerSettings,
) -> Iterator[Series]:
    """Yield the series of a class.

    For each domain, yield the circuit that was found on all images. If ``settings.twins`` is True, the circuits of the
    first `TWINS` folds of the images follow. The page shows these beside each other.

    Args:
        graphs: The folder of circuits.
        sites: The sites whose units are included.
        class_name: The class.
        settings: How much the page gets.
    """
    edges_per_node = settings.edges_per_node
    for domain in graphs.domains:
        if (class_name, domain) not in graphs:
            continue
        circuit = graphs[class_name, domain].circuit(edges_per_node)
        folds = graphs.folds(class_name, domain)
        # The stability of edges needs the edges of all folds, which an extraction may not have kept.
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
    """Return the series of a circuit.

    Args:
        circuit: The circuit.
        sites: The sites whose units are included.
        domain: Domain of the images on which the circuit was found.
        fold: Fold of the images on which the circuit was found (default: all images).
        consensus: How stable the units and edges are over folds (default: the series has no stability).

    Returns:
        The series. Its arrays are:

        - ``units``: the indices of the kept units within their sites;
        - ``counts``: the number of kept units of each site;
        - ``scores``: the score of each unit;
        - ``order``: the units from strongest to weakest;
        - ``into``: the number of edges that lead into each unit;
        - ``from``: the unit from which each edge comes;
        - ``weights``: the score of each edge;
        - ``unitStability`` and ``edgeStability``: the share of resamples that keep each unit and edge, if there is a
          consensus.

        In ``order`` and ``from``, a unit is given by its index in ``units``.
    """
    graph = circuit.source
    # Circuits in a folder are always cut from graphs.
    assert isinstance(graph, AttributionGraph)
    # The units of all sites are concatenated. ``first`` has the place of the first unit of each site.
    units: list[np.ndarray] = []
    scores: list[np.ndarray] = []
    ranked_by: list[np.ndarray] = []
    first: dict[str, int] = {}
    n_units = 0
    for site in sites:
        # A small circuit may have no unit at a site. Then ``circuit.units`` lacks the site.
        kept = circuit.units.get(site, np.zeros(0, np.int64))
        first[site] = n_units
        n_units += len(kept)
        units.append(kept)
        if len(kept):
            scores.append(graph.node_scores[site][kept])
            ranked_by.append(graph.ranked_by[site][kept])
    # ``up`` and ``down`` name the two ends of an edge by their places among the units of all sites.
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
    # Edges are sorted by the unit that they lead into, then by falling score. lexsort sorts by its last key first.
    order = np.lexsort((-weight, into))
    weight = weight[order]
    strongest_first = np.argsort(-np.abs(_joined(ranked_by)), kind="stable")
    arrays = {
        "units": _small(np.concatenate(units)),
        "counts": np.array([len(kept) for kept in units], np.uint32),
        "scores": _joined(scores),
        "order": _small(strongest_first, n_units),
        # From these counts the page computes where the edges into each unit begin.
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
    # The empty array is for circuits without edges, because numpy cannot concatenate an empty list.
    return np.concatenate([np.zeros(0), *arrays])


def _small(numbers: np.ndarray, limit: int | None = None) -> np.ndarray:
    """Return whole numbers as 16-bit integers if ``limit`` fits into 16 bits, and as 32-bit integers otherwise.

    Args:
        numbers: The numbers, which are not negative.
        limit: A bound that no number exceeds (default: the largest number).
    """
    largest = numbers.max(initial=0) if limit is None else limit
    return numbers.astype(np.uint16 if largest < 1 << 16 else np.uint32)


def _bytes(shares: np.ndarray) -> np.ndarray:
    """Return shares from 0 to 1 as bytes from 0 to 255."""
    return np.round(shares * 255).astype(np.uint8)


_MOST = 31
"""Largest absolute value of an effect that is stored as a whole number."""
_NOTHING = -128
"""The value that is stored in place of an effect that is unknown (NaN)."""


def site_effects(circuits: CircuitUnits, site: str) -> dict[str, np.ndarray]:
    """Return the units of a site that at least one circuit keeps, with their effects and the circuits that keep them.

    Returns:
        ``units``: the indices of the units. ``scale`` [units]: the largest absolute effect of each unit. ``effects``
        [units, circuits]: effects divided by the ``scale`` of the unit, as whole numbers from -31 to 31. A value of
        -128 means that the effect is unknown. ``members`` [units, bytes]: a bit for each circuit, which is 1 if the
        circuit keeps the unit. The first circuit has the highest bit of the first byte.
    """
    units = circuits.kept_by_any(site)
    scores = circuits.scores[site][units].astype(np.float32)
    scale = np.nanmax(np.abs(scores), 1, initial=0.0)
    # The effects of a unit without any effect are divided by 1.
    divisor = np.where(scale > 0, scale, 1.0)
    steps = scores / divisor[:, None] * _MOST
    steps = np.round(np.nan_to_num(steps, nan=_NOTHING))
    return {
        "units": units.astype(np.uint32),
        "effects": steps.astype(np.int8),
        "scale": scale,
        "members": np.packbits(circuits.kept[site][units], axis=1),
    }
