"""One pass over the graphs of all classes that fills the tables of several measures. No torch.

Of each class, all graphs (of all images in each domain, and of the parts of them) are compared with each other at once,
see `similarity_matrix`. For other classes one part in every domain is remembered, until the next few classes are there.
"""

from collections import Counter, defaultdict, deque
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from jaxtyping import Int

from circuitry.circuits.comparable import Comparable
from circuitry.circuits.graph import AttributionGraph
from circuitry.circuits.similarity import Matrices, Measure, mean_chance_overlap, permuted_units, similarity_matrices
from circuitry.circuits.site_marks import SiteMarks
from circuitry.comparison.compared_values import CHANCE, VALUES
from circuitry.comparison.parts import PARTS, WHOLE

Node = tuple[str, int]
"""Domain and part, `WHOLE` for all images."""
ByNode = Mapping[Node, AttributionGraph]
"""The graphs of a class."""

DRAWS_PER_CLASS = 4
"""Draws of permuted units that a class gives at most, so that several classes do."""


@dataclass(frozen=True, kw_only=True)
class ReadingSettings:
    """How circuits are cut, and what their similarities are read against."""

    edges_per_node: int = 3
    """Edges of the circuits; see `AttributionGraph.circuit`."""
    any_sign: bool = False
    """Whether edges may have a score of zero or less, as in the study."""
    all_sites: bool = False
    """Whether sites that repeat another or keep few units take part in means over sites, as in the study."""
    other_classes: int = 2
    """Other classes that a class is compared with."""
    chance_draws: int = 20
    """Draws of permuted units, for the chance of measures without a closed form."""
    seed: int = 0
    """Seed of the other classes and of the draws."""


class ClassPass:
    """The tables of several measures, filled class by class.

    Args:
        measures: The measures.
        settings: How circuits are cut, and what else they are compared with.
    """

    def __init__(self, measures: Sequence[Measure], settings: ReadingSettings) -> None:
        self.measures, self.settings = measures, settings
        self.marks = SiteMarks()
        self.n_images: list[int] = []
        self.n_per_part: list[int] = []
        self._checked = Comparable()
        self._rng = np.random.default_rng(settings.seed)
        self._before: deque[tuple[str, ByNode]] = deque(maxlen=settings.other_classes)
        self._draws = {measure: list[dict[str | None, float]]() for measure in measures}
        self._kept = defaultdict[tuple[str, int], Counter[int]](Counter)
        """How many graphs keep how many units, by site and its number of units."""
        self._rows = {measure: dict[str, list[pd.DataFrame]]() for measure in measures}

    def add(self, class_name: str, graphs: ByNode) -> None:
        """Compare the graphs of a class with each other and with those of a few classes before it."""
        for (_, part), graph in graphs.items():
            self._checked.add(graph)
            self.marks.add(graph)
            (self.n_images if part == WHOLE else self.n_per_part).append(graph.n_images)
        nodes = list(graphs)
        self._compare((class_name, class_name), nodes, _pairs_of_a_class(nodes), list(graphs.values()))
        parts = {node: graph for node, graph in graphs.items() if node[1] != WHOLE}
        for other, theirs in self._before:
            part = next(iter(theirs))[1]
            chosen = _one_part(parts, self._rng, without=part)
            both = [*theirs, *chosen]
            pairs = np.array([(i, j) for i in range(len(theirs)) for j in range(len(theirs), len(both))], int)
            self._compare((other, class_name), both, pairs.reshape(-1, 2), [*theirs.values(), *chosen.values()])
        if chosen := _one_part(parts, self._rng):
            self._before.append((class_name, chosen))
        for graph in (parts or graphs).values():
            for site in graph.inner_sites:
                self._kept[site, len(graph.node_scores[site])][len(graph.kept_units[site])] += 1
        self._draw_chance(list((parts or graphs).values()))

    def values(self, measure: Measure, order: Iterable[str]) -> pd.DataFrame:
        """Return the similarities of all images, class by class in this order: columns `VALUES`."""
        table = self._table(measure, order)
        whole = table[(table["part_a"] == WHOLE) & (table["part_b"] == WHOLE)]
        return whole.rename(columns={"class_a": "class"})[list(VALUES)].reset_index(drop=True)

    def parts(self, measure: Measure, order: Iterable[str]) -> pd.DataFrame:
        """Return the similarities of parts, and of parts with the whole: columns `PARTS`."""
        table = self._table(measure, order)
        return table[table["part_a"] != WHOLE].reset_index(drop=True)

    def chance(self, measure: Measure) -> pd.DataFrame:
        """Return the mean over draws of permuted units, for node overlap over pairs of graphs: columns site, value."""
        if measure.name == "node_overlap":
            found = [(site, mean_chance_overlap(n, kept)) for (site, n), kept in self._kept.items()]
            return pd.DataFrame(found, columns=list(CHANCE))
        means = pd.DataFrame(self._draws[measure]).mean()
        sites = [site if isinstance(site, str) else None for site in means.index]
        return pd.DataFrame({"site": pd.Series(sites, dtype=object), "value": means.to_numpy(float)})[list(CHANCE)]

    def _table(self, measure: Measure, order: Iterable[str]) -> pd.DataFrame:
        rows = [table for name in order for table in self._rows[measure].get(name, ())]
        return pd.concat(rows, ignore_index=True) if rows else pd.DataFrame(columns=list(PARTS))

    def _matrices(
        self, graphs: Sequence[AttributionGraph], measures: Sequence[Measure] | None = None
    ) -> dict[Measure, Matrices]:
        chosen = self.measures if measures is None else measures
        return similarity_matrices(graphs, chosen, self.settings.edges_per_node, self.settings.any_sign)

    def _compare(
        self,
        classes: tuple[str, str],
        nodes: Sequence[Node],
        pairs: Int[np.ndarray, "pairs 2"],
        graphs: Sequence[AttributionGraph],
    ) -> None:
        """Keep the rows of some pairs of nodes, of which the first is of the first class."""
        if not len(pairs):
            return
        domains, parts = np.array([node[0] for node in nodes], object), np.array([node[1] for node in nodes])
        a, b = pairs.T
        columns = {"class_a": classes[0], "class_b": classes[1], "domain_a": domains[a], "domain_b": domains[b]}
        columns |= {"part_a": parts[a], "part_b": parts[b]}
        for measure, found in self._matrices(graphs).items():
            for site, matrix in found.items():
                named = pd.Series([site] * len(a), dtype=object)
                rows = pd.DataFrame({**columns, "site": named, "value": matrix[a, b]})
                self._rows[measure].setdefault(classes[0], []).append(rows)

    def _draw_chance(self, graphs: Sequence[AttributionGraph]) -> None:
        """Compare graphs of a class with others of it whose units are permuted."""
        drawn = [measure for measure in self.measures if measure.name != "node_overlap"]
        done = max((len(self._draws[measure]) for measure in drawn), default=self.settings.chance_draws)
        for _ in range(min(DRAWS_PER_CLASS, self.settings.chance_draws - done)):
            a, b = self._rng.choice(len(graphs), 2)
            found = self._matrices([graphs[a], permuted_units(graphs[b], self._rng)], drawn)
            for measure, matrices in found.items():
                self._draws[measure].append({site: float(matrix[0, 1]) for site, matrix in matrices.items()})


def _pairs_of_a_class(nodes: Sequence[Node]) -> Int[np.ndarray, "pairs 2"]:
    """Return the pairs of places to compare.

    All images of two domains; different parts: of one domain in one order, of two domains in both; each part with all
    images of its domain.
    """
    chosen = []
    for i, (domain, part) in enumerate(nodes):
        for j, (other, other_part) in enumerate(nodes):
            wholes = part == WHOLE == other_part and domain < other
            parts = WHOLE not in (part, other_part) and (domain, part) < (other, other_part) and part != other_part
            upper = part != WHOLE == other_part and domain == other
            if wholes or upper or (parts and domain <= other):
                chosen.append((i, j))
    return np.array(chosen, int).reshape(-1, 2)


def _one_part(graphs: ByNode, rng: np.random.Generator, without: int | None = None) -> dict[Node, AttributionGraph]:
    """Return the graphs of one part, drawn at random from all but one, in every domain."""
    parts = sorted({part for _, part in graphs} - {without})
    if not parts:
        return {}
    drawn = parts[rng.integers(len(parts))]
    return {node: graph for node, graph in graphs.items() if node[1] == drawn}
