"""Circuits as the page reads them: a script for each class, with its circuits in all domains. No torch.

A *series* is one circuit that the page can draw: of a domain, found on all images or on one part of them, in one of
several folders. Its arrays have the kept units of all sites one after another, strongest first within a site, so that a
smaller cut is the first units of every site. The edges into each unit follow each other by falling score; of circuits
of parts their scores have one digit.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace

import numpy as np

from circuitry.circuits.budgets import SAME_SHARE, strongest_units
from circuitry.circuits.consensus import Consensus, find_consensus
from circuitry.circuits.graph import AttributionGraph, Circuit
from circuitry.circuits.graph_folder import EDGES, GraphFolder
from circuitry.explorer.packing import one_digit

TWINS = 2
"""Parts of the images whose circuits are shown beside each other."""


Series = tuple[dict[str, object], dict[str, np.ndarray], AttributionGraph]
"""The header and the arrays of one circuit, as the page reads it, and its graph."""


def class_series(
    graphs: GraphFolder,
    variants: Mapping[str, GraphFolder],
    first: AttributionGraph,
    class_name: str,
    edges_per_node: int,
    twins: bool,
) -> Iterator[Series]:
    """Yield the series of a class: of each domain, of its first parts (``twins``), and of the variants without parts.

    All series have the sites and the share of units of ``first``, a graph of the circuits.
    """
    sites = first.inner_sites
    for name, folder in {"": graphs, **variants}.items():
        for domain in folder.domains:
            if (class_name, domain) not in folder:
                continue
            circuit = _as_large(folder[class_name, domain], first).circuit(edges_per_node)
            parts = {} if name else folder.parts(class_name, domain)
            consensus = None
            if len(parts) > 1 and folder.file(class_name, domain, EDGES).is_file():
                consensus = find_consensus(circuit, list(parts.values()), folder.part_edges(class_name, domain))
            yield _series(circuit, sites, name, domain, None, consensus)
            for part in list(parts)[:TWINS] if twins and len(parts) > 1 else ():
                yield _series(parts[part].circuit(edges_per_node), sites, name, domain, part, None)


def _as_large(graph: AttributionGraph, other: AttributionGraph) -> AttributionGraph:
    """Return a graph with the share of units that another one keeps; without edges where it had another share.

    Variants of a run store all node scores, but keep one unit.
    """
    share, budget = other.settings.get("node_fraction"), other.settings.get("budget", SAME_SHARE)
    if share is None or graph.settings.get("node_fraction") == share:
        return graph
    return replace(graph, kept_units=strongest_units(graph.ranked_by, share, budget), edge_scores={})


def _series(
    circuit: Circuit, sites: Sequence[str], variant: str, domain: str, part: int | None, consensus: Consensus | None
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
    if consensus is not None:
        arrays["unitStability"] = _bytes(np.concatenate([consensus.units[site] for site in sites]))
        arrays["edgeStability"] = _bytes(_joined(consensus.edges[pair] for pair in places)[order])
    made: dict[str, object] = {
        "variant": variant,
        "domain": domain,
        "part": part,
        "images": graph.n_images,
        "arrays": list(arrays),
    }
    return made, arrays, graph


def _joined(parts: Iterable[np.ndarray]) -> np.ndarray:
    return np.concatenate([np.zeros(0), *parts])


def _bytes(shares: np.ndarray) -> np.ndarray:
    """Return shares as bytes; 255 is all."""
    return np.round(shares * 255).astype(np.uint8)
