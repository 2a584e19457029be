"""One pass over the graphs of all classes that collects the similarities of several measures. No torch.

All graphs of a class (of all images in each domain, and of parts of the images) are compared with each other at once,
see `similarity_matrix`. The graphs of one part in every domain stay in memory until the next few classes are compared
with them.
"""

from collections import Counter, defaultdict, deque
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import NamedTuple

import numpy as np
import pandas as pd
from jaxtyping import Int

from circuitry.circuits.comparable import Comparable
from circuitry.circuits.graph import AttributionGraph
from circuitry.circuits.measures import (
    Matrices,
    Measure,
    mean_chance_overlap,
    permuted_units,
    similarity_matrices,
)
from circuitry.comparison.part_array import PARTS, WHOLE
from circuitry.comparison.table import CHANCE, VALUES
from circuitry.runs.errors import number_of
from circuitry.runs.given import Count, Natural, Seed, checked

Node = tuple[str, int]
"""Domain and part, `WHOLE` for all images."""
ByNode = Mapping[Node, AttributionGraph]
"""The graphs of a class."""

FEWEST_KEPT = 5
"""Fewest kept units of a site that counts in means over sites."""

_DRAWS_PER_CLASS = 4
"""Most draws of permuted units from one class, so that several classes contribute."""


@checked
@dataclass(frozen=True, kw_only=True)
class ReadingSettings:
    """How circuits are cut, and their reference levels."""

    edges_per_node: Count = 3
    """Edges of the circuits; see `AttributionGraph.circuit`."""
    any_sign: bool = False
    """Whether edges may have a score of zero or less, as in the study."""
    all_sites: bool = False
    """Whether sites that repeat another or keep few units count in means over sites, as in the study."""
    other_classes: Natural = 2
    """Other classes that each class is compared with."""
    chance_draws: Natural = 20
    """Draws of permuted units, for the chance of measures without a closed form."""
    seed: Seed = 0
    """Seed of the other classes and of the draws."""


class _Compared(NamedTuple):
    """The similarities of some pairs of graphs."""

    pairs: dict[str, np.ndarray]
    """Columns of `PARTS` that name the pairs, each [pairs]."""
    values: dict[Measure, dict[str | None, np.ndarray]]
    """By measure and site, each [pairs]."""

    def columns(self, measure: Measure) -> dict[str, np.ndarray]:
        """Return the columns of `PARTS` by one measure, site after site."""
        by_site = self.values[measure]
        sites = np.array(list(by_site), object)
        repeated = {
            name: np.tile(column, len(sites)) for name, column in self.pairs.items()
        }
        n = len(next(iter(self.pairs.values())))
        return {
            **repeated,
            "site": np.repeat(sites, n),
            "value": np.concatenate(list(by_site.values())),
        }


class ClassPass:
    """The similarities of several measures, collected class by class."""

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
        """Numbers of graphs by site, its number of units and the number of kept ones."""
        self._compared: dict[str, list[_Compared]] = {}

    def add(self, class_name: str, graphs: ByNode) -> None:
        """Compare the graphs of a class with each other and with graphs of the few classes before it."""
        for (_, part), graph in graphs.items():
            self._checked.add(graph)
            self.marks.add(graph)
            (self.n_images if part == WHOLE else self.n_per_part).append(graph.n_images)
        nodes = list(graphs)
        self._compare(
            (class_name, class_name),
            nodes,
            _pairs_of_a_class(nodes),
            list(graphs.values()),
        )
        parts = {node: graph for node, graph in graphs.items() if node[1] != WHOLE}
        for other, theirs in self._before:
            part = next(iter(theirs))[1]
            chosen = _one_part(parts, self._rng, without=part)
            both = [*theirs, *chosen]
            pairs = np.array(
                [
                    (i, j)
                    for i in range(len(theirs))
                    for j in range(len(theirs), len(both))
                ],
                int,
            )
            self._compare(
                (other, class_name),
                both,
                pairs.reshape(-1, 2),
                [*theirs.values(), *chosen.values()],
            )
        if chosen := _one_part(parts, self._rng):
            self._before.append((class_name, chosen))
        for graph in (parts or graphs).values():
            for site in graph.inner_sites:
                self._kept[site, len(graph.node_scores[site])][
                    len(graph.kept_units[site])
                ] += 1
        self._draw_chance(list((parts or graphs).values()))

    def values(self, measure: Measure, order: Iterable[str]) -> pd.DataFrame:
        """Return the similarities of all images, class by class in this order: columns `VALUES`."""
        table = self._table(measure, order)
        whole = table[(table["part_a"] == WHOLE) & (table["part_b"] == WHOLE)]
        return whole.rename(columns={"class_a": "class"})[list(VALUES)].reset_index(
            drop=True
        )

    def parts(self, measure: Measure, order: Iterable[str]) -> pd.DataFrame:
        """Return the similarities of parts, and of parts with all images: columns `PARTS`."""
        table = self._table(measure, order)
        return table[table["part_a"] != WHOLE].reset_index(drop=True)

    def chance(self, measure: Measure) -> pd.DataFrame:
        """Return the mean over draws of permuted units, for node overlap over pairs of graphs: columns site, value."""
        if measure.name == "node_overlap":
            found = [
                (site, mean_chance_overlap(n, kept))
                for (site, n), kept in self._kept.items()
            ]
            return pd.DataFrame(found, columns=list(CHANCE))
        means = pd.DataFrame(self._draws[measure]).mean()
        sites = [site if isinstance(site, str) else None for site in means.index]
        return pd.DataFrame(
            {"site": pd.Series(sites, dtype=object), "value": means.to_numpy(float)}
        )[list(CHANCE)]

    def _table(self, measure: Measure, order: Iterable[str]) -> pd.DataFrame:
        found = [
            one.columns(measure)
            for name in order
            for one in self._compared.get(name, ())
        ]
        if not found:
            return pd.DataFrame(columns=list(PARTS))
        columns = {name: np.concatenate([one[name] for one in found]) for name in PARTS}
        return pd.DataFrame(
            columns | {"site": pd.Series(columns["site"], dtype=object)}
        )

    def _matrices(
        self,
        graphs: Sequence[AttributionGraph],
        measures: Sequence[Measure] | None = None,
    ) -> dict[Measure, Matrices]:
        chosen = self.measures if measures is None else measures
        return similarity_matrices(
            graphs, chosen, self.settings.edges_per_node, self.settings.any_sign
        )

    def _compare(
        self,
        classes: tuple[str, str],
        nodes: Sequence[Node],
        pairs: Int[np.ndarray, "pairs 2"],
        graphs: Sequence[AttributionGraph],
    ) -> None:
        """Keep the similarities of some pairs of nodes; the first node of each is of the first class."""
        if not len(pairs):
            return
        domains, parts = (
            np.array([node[0] for node in nodes], object),
            np.array([node[1] for node in nodes]),
        )
        columns: dict[str, np.ndarray] = {}
        for side, name, places in zip("ab", classes, pairs.T, strict=True):
            columns |= {f"class_{side}": np.full(len(pairs), name, object)}
            columns |= {
                f"domain_{side}": domains[places],
                f"part_{side}": parts[places],
            }
        a, b = pairs.T
        values = {
            measure: {site: matrix[a, b] for site, matrix in found.items()}
            for measure, found in self._matrices(graphs).items()
        }
        self._compared.setdefault(classes[0], []).append(_Compared(columns, values))

    def _draw_chance(self, graphs: Sequence[AttributionGraph]) -> None:
        """Compare graphs of a class with graphs of the same class whose units are permuted."""
        drawn = [measure for measure in self.measures if measure.name != "node_overlap"]
        done = max(
            (len(self._draws[measure]) for measure in drawn),
            default=self.settings.chance_draws,
        )
        for _ in range(min(_DRAWS_PER_CLASS, self.settings.chance_draws - done)):
            a, b = self._rng.choice(len(graphs), 2)
            found = self._matrices(
                [graphs[a], permuted_units(graphs[b], self._rng)], drawn
            )
            for measure, matrices in found.items():
                self._draws[measure].append(
                    {site: float(matrix[0, 1]) for site, matrix in matrices.items()}
                )


class SiteMarks:
    """Sites that do not count in means over sites: they repeat another site, or keep few units.

    A stage without parameters that treats each channel separately (a pooling) passes on the scores of the site before:
    both keep the same units in every graph, and would count twice. At a site with one kept unit, overlap is 0 or 1.
    """

    def __init__(self) -> None:
        self._kept: dict[str, int] = {}
        """Fewest kept units by site."""
        self._repeats: dict[str, str] | None = None
        """The site before, by site that has kept the same units so far."""

    def add(self, graph: AttributionGraph) -> None:
        """Take a graph into account."""
        sites = graph.inner_sites
        for site in sites:
            self._kept[site] = min(
                len(graph.kept_units[site]),
                self._kept.get(site, len(graph.node_scores[site])),
            )
        pairs = (
            {down: up for up, down in pairwise(sites)}
            if self._repeats is None
            else self._repeats
        )
        kept = {site: np.sort(graph.kept_units[site]) for site in sites}
        self._repeats = {
            down: up
            for down, up in pairs.items()
            if len(graph.node_scores[up]) == len(graph.node_scores[down])
            and np.array_equal(kept[up], kept[down])
        }

    def left_out(self) -> dict[str, str]:
        """Return the sites that do not count, with the reason; few units are none if every site has few."""
        repeats = {
            site: f"repeats {before}" for site, before in (self._repeats or {}).items()
        }
        few = {
            site: f"keeps {number_of(n, 'unit')}"
            for site, n in self._kept.items()
            if n < FEWEST_KEPT
        }
        left_out = few | repeats
        if len(left_out) == len(self._kept):
            left_out = repeats
        return {site: left_out[site] for site in self._kept if site in left_out}


def _pairs_of_a_class(nodes: Sequence[Node]) -> Int[np.ndarray, "pairs 2"]:
    """Return the places of the pairs to compare.

    All images of two domains; different parts, of one domain in one order and of two domains in both; each part with
    all images of its domain.
    """
    chosen = []
    for i, (domain, part) in enumerate(nodes):
        for j, (other, other_part) in enumerate(nodes):
            wholes = part == WHOLE == other_part and domain < other
            parts = (
                WHOLE not in (part, other_part)
                and (domain, part) < (other, other_part)
                and part != other_part
            )
            upper = part != WHOLE == other_part and domain == other
            if wholes or upper or (parts and domain <= other):
                chosen.append((i, j))
    return np.array(chosen, int).reshape(-1, 2)


def _one_part(
    graphs: ByNode, rng: np.random.Generator, without: int | None = None
) -> dict[Node, AttributionGraph]:
    """Return the graphs of one part, drawn at random from all but one, in every domain."""
    parts = sorted({part for _, part in graphs} - {without})
    if not parts:
        return {}
    drawn = parts[rng.integers(len(parts))]
    return {node: graph for node, graph in graphs.items() if node[1] == drawn}
