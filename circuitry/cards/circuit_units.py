"""The units of all circuits of a folder: their scores in every circuit, and the circuits that keep them. No torch."""

from collections.abc import Sequence

import numpy as np

from circuitry.circuits.graph import AttributionGraph
from circuitry.data.folds import Key


class CircuitUnits:
    """Tables of all circuits by site: a row for each unit of the site, a column for each circuit.

    Graphs are added one after another, so that a folder is read once and one graph at a time.
    """

    def __init__(self, keys: Sequence[Key]) -> None:
        self.keys = tuple(keys)
        """Class and domain of each circuit."""
        self.classes = tuple(dict.fromkeys(class_name for class_name, _ in keys))
        self.domains = tuple(dict.fromkeys(domain for _, domain in keys))
        self.scores: dict[str, np.ndarray] = {}
        """Scores [units, circuits] by site, NaN before the graph is added."""
        self.kept: dict[str, np.ndarray] = {}
        """Whether a circuit keeps a unit, [units, circuits] by site."""

    def add(self, key: Key, graph: AttributionGraph) -> None:
        """Fill the column of a class and domain from its graph."""
        column = self.keys.index(key)
        for site in graph.inner_sites:
            scores = graph.node_scores[site]
            # The first graph tells how many units a site has.
            if site not in self.scores:
                shape = (len(scores), len(self.keys))
                self.scores[site] = np.full(shape, np.nan, scores.dtype)
                self.kept[site] = np.zeros(shape, bool)
            self.scores[site][:, column] = scores
            self.kept[site][graph.kept_units[site], column] = True

    def kept_by_any(self, site: str) -> np.ndarray:
        """Return the numbers of the site's units that any circuit keeps, in ascending order."""
        return np.flatnonzero(self.kept[site].any(1))

    def units(self) -> dict[str, np.ndarray]:
        """Return the numbers of the units that any circuit keeps, by site; only sites that have such units."""
        units: dict[str, np.ndarray] = {}
        for site in self.kept:
            numbers = self.kept_by_any(site)
            if len(numbers):
                units[site] = numbers
        return units

    def kept_by_class(self, class_name: str) -> list[tuple[str, int]]:
        """Return (site, unit) of the units that the circuits of a class keep."""
        # A mask over the columns: the circuits of the class in all domains.
        of_class = [name == class_name for name, _ in self.keys]
        units: list[tuple[str, int]] = []
        for site, kept in self.kept.items():
            numbers = np.flatnonzero(kept[:, of_class].any(1))
            units += [(site, int(number)) for number in numbers]
        return units

    def by_class_and_domain(self, values: np.ndarray) -> np.ndarray:
        """Rearrange values [units, circuits] as [units, classes, domains].

        A class and domain without a circuit has NaN, or False among booleans.
        """
        shape = (len(values), len(self.classes), len(self.domains))
        nothing = False if values.dtype == bool else np.nan
        table = np.full(shape, nothing)
        for column, (class_name, domain) in enumerate(self.keys):
            row = self.classes.index(class_name)
            place = self.domains.index(domain)
            table[:, row, place] = values[:, column]
        return table
