"""The units in all circuits of a folder. Does not import torch.

For each unit, `CircuitUnits` holds the score of the unit in every circuit, and which circuits keep the unit.
"""

from collections.abc import Sequence

import numpy as np

from circuitry.circuits.graph import AttributionGraph
from circuitry.data.folds import Key


class CircuitUnits:
    """A table for each site, with a row for each unit of the site and a column for each circuit.

    Graphs are added one after another. So each graph of a folder is read once, and only one graph is in memory.
    """

    def __init__(self, keys: Sequence[Key]) -> None:
        self.keys = tuple(keys)
        """Class and domain of each circuit."""
        self.classes = tuple(dict.fromkeys(class_name for class_name, _ in keys))
        self.domains = tuple(dict.fromkeys(domain for _, domain in keys))
        self.scores: dict[str, np.ndarray] = {}
        """Scores [units, circuits] by site. A column is NaN until the graph of its circuit is added."""
        self.kept: dict[str, np.ndarray] = {}
        """Whether each circuit keeps each unit: masks [units, circuits] by site."""

    def add(self, key: Key, graph: AttributionGraph) -> None:
        """Fill the column of a circuit with the scores of its graph, and mark the units that the circuit keeps.

        Args:
            key: Class and domain of the circuit.
            graph: The graph with the scores and the kept units.
        """
        column = self.keys.index(key)
        for site in graph.inner_sites:
            scores = graph.node_scores[site]
            # The number of units of a site is known from the first graph.
            if site not in self.scores:
                shape = (len(scores), len(self.keys))
                self.scores[site] = np.full(shape, np.nan, scores.dtype)
                self.kept[site] = np.zeros(shape, bool)
            self.scores[site][:, column] = scores
            self.kept[site][graph.kept_units[site], column] = True

    def kept_by_any(self, site: str) -> np.ndarray:
        """Return the indices of the units at a site that at least one circuit keeps, in ascending order."""
        return np.flatnonzero(self.kept[site].any(1))

    def units(self) -> dict[str, np.ndarray]:
        """Return the indices of the units that at least one circuit keeps, by site.

        Sites without such units are left out.
        """
        units: dict[str, np.ndarray] = {}
        for site in self.kept:
            numbers = self.kept_by_any(site)
            if len(numbers):
                units[site] = numbers
        return units

    def kept_by_class(self, class_name: str) -> list[tuple[str, int]]:
        """Return (site, unit) for each unit that at least one circuit of a class keeps."""
        # A mask over the columns: the circuits of the class in all domains.
        of_class = [name == class_name for name, _ in self.keys]
        units: list[tuple[str, int]] = []
        for site, kept in self.kept.items():
            numbers = np.flatnonzero(kept[:, of_class].any(1))
            units += [(site, int(number)) for number in numbers]
        return units

    def by_class_and_domain(self, values: np.ndarray) -> np.ndarray:
        """Rearrange values [units, circuits] as [units, classes, domains].

        If a class has no circuit in a domain, its values in this domain are NaN, or False if ``values`` is boolean.
        """
        shape = (len(values), len(self.classes), len(self.domains))
        nothing = False if values.dtype == bool else np.nan
        table = np.full(shape, nothing)
        for column, (class_name, domain) in enumerate(self.keys):
            row = self.classes.index(class_name)
            place = self.domains.index(domain)
            table[:, row, place] = values[:, column]
        return table
