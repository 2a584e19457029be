"""Effects and memberships of every unit in all circuits, as the page reads them: a script for each site. No torch."""

from collections.abc import Mapping, Sequence

import numpy as np

from circuitry.circuits.graph import AttributionGraph
from circuitry.data.parts import Key

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
                self._scores[site] = np.full((units, len(self._column)), np.nan, np.float32)
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
        columns = [column for (name, _), column in self._column.items() if name == class_name]
        by_site = {site: np.flatnonzero(kept[:, columns].any(1)) for site, kept in self._kept.items()}
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
        effects = np.round(np.nan_to_num(scores / safe[:, None] * _MOST, nan=_NOTHING)).astype(np.int8)
        members = np.packbits(self._kept[site][units], axis=1)
        return {"units": units.astype(np.uint32), "effects": effects, "scale": scale, "members": members}
