"""Circuits as the page reads them: a script for each class, and one for each site, with its units. No torch.

A *series* is one circuit that the page can draw: of a domain, found on all images or on one part of them. Its arrays
have the kept units of all sites one after another, strongest first within a site, so that a smaller cut is the first
units of every site; `order` has them all, strongest first. The edges into each unit follow
each other by falling score; of circuits of parts their scores have one digit.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence

import numpy as np

from circuitry.circuits.consensus import Consensus, find_consensus
from circuitry.circuits.graph import AttributionGraph, Circuit
from circuitry.circuits.graph_folder import EDGES, GraphFolder
from circuitry.data.parts import Key
from circuitry.explorer.packing import one_digit

TWINS = 2
"""Parts of the images whose circuits are shown beside each other."""


Series = tuple[dict[str, object], dict[str, np.ndarray], AttributionGraph]
"""The header and the arrays of one circuit, as the page reads it, and its graph."""


def class_series(
    graphs: GraphFolder,
    sites: Sequence[str],
    class_name: str,
    edges_per_node: int,
    twins: bool,
) -> Iterator[Series]:
    """Yield the series of a class, at some sites: of each domain, and of its first parts (``twins``)."""
    for domain in (
        domain for domain in graphs.domains if (class_name, domain) in graphs
    ):
        circuit, parts = (
            graphs[class_name, domain].circuit(edges_per_node),
            graphs.parts(class_name, domain),
        )
        consensus = None
        if len(parts) > 1 and graphs.file(class_name, domain, EDGES).is_file():
            consensus = find_consensus(
                circuit, list(parts.values()), graphs.part_edges(class_name, domain)
            )
        yield _series(circuit, sites, domain, None, consensus)
        for part in list(parts)[:TWINS] if twins and len(parts) > 1 else ():
            yield _series(
                parts[part].circuit(edges_per_node), sites, domain, part, None
            )


def _series(
    circuit: Circuit,
    sites: Sequence[str],
    domain: str,
    part: int | None,
    consensus: Consensus | None,
) -> Series:
    graph = circuit.source
    assert isinstance(graph, AttributionGraph)  # circuits of a folder are cut of graphs
    nothing = np.zeros(0, np.int64)
    kept = [circuit.units.get(site, nothing) for site in sites]
    scores, ranked = (
        _joined(
            by[site][units]
            for site, units in zip(sites, kept, strict=True)
            if len(units)
        )
        for by in (graph.node_scores, graph.ranked_by)
    )
    first, n = (
        dict(zip(sites, np.cumsum([0, *map(len, kept)]), strict=False)),
        len(scores),
    )
    edges = circuit.its_edges
    places = edges.places
    up = _joined(
        first[above] + columns for (above, _), (_, columns) in places.items()
    ).astype(np.int64)
    down = _joined(
        first[below] + rows for (_, below), (rows, _) in places.items()
    ).astype(np.int64)
    weights = _joined(edges.scores[pair][place] for pair, place in places.items())
    order = np.lexsort((-weights, down))
    small = np.uint16 if n < 1 << 16 else np.uint32
    arrays = {
        "units": np.concatenate(kept).astype(
            np.uint32 if max(u.max(initial=0) for u in kept) >= 1 << 16 else np.uint16
        ),
        "counts": np.array([len(units) for units in kept], np.uint32),
        "scores": scores,
        "order": np.argsort(-np.abs(ranked), kind="stable").astype(small),
        "into": np.bincount(down, minlength=n).astype(np.uint16),
        "from": up[order].astype(small),
        "weights": weights[order] if part is None else one_digit(weights[order]),
    }
    if consensus is not None:
        arrays["unitStability"] = _bytes(
            np.concatenate([consensus.units[site] for site in sites])
        )
        arrays["edgeStability"] = _bytes(
            _joined(consensus.edges[pair] for pair in places)[order]
        )
    made: dict[str, object] = {"domain": domain, "part": part, "images": graph.n_images}
    return made | {"arrays": list(arrays)}, arrays, graph


def _joined(parts: Iterable[np.ndarray]) -> np.ndarray:
    return np.concatenate([np.zeros(0), *parts])


def _bytes(shares: np.ndarray) -> np.ndarray:
    """Return shares as bytes; 255 is all."""
    return np.round(shares * 255).astype(np.uint8)


_MOST = 31
"""Steps of an effect to each side of zero."""
_NOTHING = -128


class UnitTally:
    """Counts circuits by unit, and collects the units' effects, from the graphs of a folder one after another."""

    def __init__(self, keys: Sequence[Key]) -> None:
        self._column = {key: column for column, key in enumerate(keys)}
        self._scores: dict[str, np.ndarray] = {}
        self._kept: dict[str, np.ndarray] = {}

    def add(self, key: Key, graph: AttributionGraph) -> None:
        """Take in the graph of a class and domain."""
        for site in graph.inner_sites:
            units = len(graph.node_scores[site])
            if site not in self._scores:
                self._scores[site] = np.full(
                    (units, len(self._column)), np.nan, np.float32
                )
                self._kept[site] = np.zeros((units, len(self._column)), bool)
            self._scores[site][:, self._column[key]] = graph.node_scores[site]
            self._kept[site][graph.kept_units[site], self._column[key]] = True

    @property
    def classes(self) -> list[str]:
        """Classes that have a circuit, in order."""
        return list(dict.fromkeys(name for name, _ in self._column))

    @property
    def sizes(self) -> Mapping[str, int]:
        """Units by site, in order."""
        return {site: len(scores) for site, scores in self._scores.items()}

    def units_of(self, class_name: str) -> list[tuple[str, int]]:
        """Return the units, (site, unit), of the circuits of a class."""
        columns = [
            column for (name, _), column in self._column.items() if name == class_name
        ]
        by_site = {
            site: np.flatnonzero(kept[:, columns].any(1))
            for site, kept in self._kept.items()
        }
        return [(site, int(unit)) for site, units in by_site.items() for unit in units]

    def counts(self, site: str) -> np.ndarray:
        """Return in how many circuits each unit of a site is."""
        counts: np.ndarray = self._kept[site].sum(1).astype(np.uint16)
        return counts

    def site_arrays(self, site: str) -> dict[str, np.ndarray]:
        """Return the units that are in a circuit, their effects on all classes and domains, and the circuits.

        ``effects`` are whole numbers from -31 to 31, and 31 is the unit's ``scale``; -128 where there is no circuit.
        ``members`` are bits, the first circuit in the highest bit of the first byte.
        """
        units = np.flatnonzero(self._kept[site].any(1))
        scores = self._scores[site][units]
        scale = np.nanmax(np.abs(scores), 1, initial=0.0)
        safe = np.where(scale > 0, scale, 1.0)
        effects = np.round(
            np.nan_to_num(scores / safe[:, None] * _MOST, nan=_NOTHING)
        ).astype(np.int8)
        members = np.packbits(self._kept[site][units], axis=1)
        return {
            "units": units.astype(np.uint32),
            "effects": effects,
            "scale": scale,
            "members": members,
        }
