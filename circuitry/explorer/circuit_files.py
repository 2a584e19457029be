"""Circuits as the page reads them: a script for each class, with its circuits in all domains. No torch.

A *series* is one circuit that the page can draw: of a domain, found on all images or on one part of them, in one of
several folders. Its arrays have the kept units of all sites one after another, strongest first within a site, so that a
smaller cut is the first units of every site. The edges into each unit follow each other by falling score; of circuits
of parts their scores have one digit.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import NamedTuple

import numpy as np

from circuitry.circuits.budgets import SAME_SHARE, strongest_units
from circuitry.circuits.consensus import Consensus, find_consensus
from circuitry.circuits.graph import AttributionGraph, Circuit
from circuitry.circuits.graph_folder import EDGES, GraphFolder
from circuitry.explorer.packing import one_digit

TWINS = 2
"""Parts of the images whose circuits are shown beside each other."""


class Series(NamedTuple):
    """One circuit as the page reads it."""

    header: Mapping[str, object]
    arrays: dict[str, np.ndarray]
    graph: AttributionGraph


def class_series(
    graphs: GraphFolder,
    variants: Mapping[str, GraphFolder],
    first: AttributionGraph,
    class_name: str,
    edges_per_node: int,
    twins: bool,
) -> Iterator[Series]:
    """Yield the series of a class: of each domain, of its first parts, and the same of the variants without parts.

    Args:
        graphs: The circuits.
        variants: Circuits that were found in another way, by what to call it.
        first: A graph of the circuits, which says at which sites, and how large, series are.
        class_name: The class.
        edges_per_node: Most edges into a unit.
        twins: Whether circuits of parts are among them.
    """
    sites = first.inner_sites
    for name, folder in {"": graphs, **variants}.items():
        for domain in folder.domains:
            if (class_name, domain) not in folder:
                continue
            circuit = _as_large(folder[class_name, domain], first).circuit(edges_per_node)
            parts = {} if name else folder.parts(class_name, domain)
            held = None
            if len(parts) > 1 and folder.file(class_name, domain, EDGES).is_file():
                held = find_consensus(circuit, list(parts.values()), folder.part_edges(class_name, domain))
            yield _series(circuit, sites, name, domain, None, held)
            for part in list(parts)[:TWINS] if twins and len(parts) > 1 else ():
                yield _series(parts[part].circuit(edges_per_node), sites, name, domain, part, None)


def _as_large(graph: AttributionGraph, other: AttributionGraph) -> AttributionGraph:
    """Return a graph with the share of units that another one keeps; without edges where it had another share.

    Variants of a run store all node scores, but keep one unit.
    """
    share, budget = other.settings.get("node_fraction"), other.settings.get("budget", SAME_SHARE)
    if share is None or graph.settings.get("node_fraction") == share:
        return graph
    return replace(graph, kept_units=strongest_units(graph.node_scores, share, budget), edge_scores={})


def _series(
    circuit: Circuit, sites: Sequence[str], variant: str, domain: str, part: int | None, held: Consensus | None
) -> Series:
    graph = circuit.source
    nothing = np.zeros(0, np.int64)
    kept = [circuit.units.get(site, nothing) for site in sites]
    first = dict(zip(sites, np.cumsum([0, *map(len, kept)]), strict=False))
    n = sum(map(len, kept))
    edges = circuit.its_edges
    places = edges.places
    up = _joined(first[above] + columns for (above, _), (_, columns) in places.items()).astype(np.int64)
    down = _joined(first[below] + rows for (_, below), (rows, _) in places.items()).astype(np.int64)
    scores = _joined(edges.scores[pair][place] for pair, place in places.items())
    order = np.lexsort((-scores, down))
    small = np.uint16 if n < 1 << 16 else np.uint32
    arrays = {
        "units": np.concatenate(kept).astype(
            np.uint32 if max(u.max(initial=0) for u in kept) >= 1 << 16 else np.uint16
        ),
        "counts": np.array([len(units) for units in kept], np.uint32),
        "scores": _joined(
            graph.node_scores[site][units] for site, units in zip(sites, kept, strict=True) if len(units)
        ),
        "into": np.bincount(down, minlength=n).astype(np.uint16),
        "from": up[order].astype(small),
        "weights": scores[order] if part is None else one_digit(scores[order]),
    }
    if held is not None:
        arrays["unitStability"] = _bytes(np.concatenate([held.units[site] for site in sites]))
        arrays["edgeStability"] = _bytes(_joined(held.edges[pair] for pair in places)[order])
    made = {"variant": variant, "domain": domain, "part": part, "images": graph.n_images, "arrays": list(arrays)}
    return Series(made, arrays, graph)


def _joined(parts: Iterable[np.ndarray]) -> np.ndarray:
    return np.concatenate([np.zeros(0), *parts])


def _bytes(shares: np.ndarray) -> np.ndarray:
    """Return shares as bytes; 255 is all."""
    return np.round(shares * 255).astype(np.uint8)
