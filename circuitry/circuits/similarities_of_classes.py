"""One pass over the graphs of all classes that collects the similarities of several measures. No torch.

All graphs of a class (of all images in each domain, and of folds of the images) are compared with each other at once,
see `similarity_matrix`. The graphs of one fold in every domain stay in memory until the next few classes are compared
with them.
"""

from collections import Counter, defaultdict, deque
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise, product
from typing import Any, NamedTuple

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
from circuitry.comparison.fold_array import FOLDS, WHOLE
from circuitry.comparison.table import CHANCE, VALUES
from circuitry.runs.arguments import Count, Natural, Seed, checked
from circuitry.runs.errors import number_of

Node = tuple[str, int]
"""Domain and fold, `WHOLE` for all images."""
ByNode = Mapping[Node, AttributionGraph]
"""The graphs of a class."""

FEWEST_KEPT = 5
"""Fewest kept units of a site that counts in means over sites."""

_DRAWS_PER_CLASS = 4
"""Most draws of permuted units from one class, so that several classes contribute."""


@checked
@dataclass(frozen=True, kw_only=True)
class ReadingSettings:
    """Say how circuits are cut, and how their reference levels are measured.

    Example:
        >>> settings = circuitry.circuits.ReadingSettings(edges_per_node=5, chance_draws=4)
        >>> comparisons = circuitry.compare_domains(graphs, settings=settings)
    """

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
    """Columns of `FOLDS` that name the pairs, each [pairs]."""
    values: dict[Measure, dict[str | None, np.ndarray]]
    """By measure and site, each [pairs]."""

    def columns(self, measure: Measure) -> dict[str, np.ndarray]:
        """Return the columns of `FOLDS` by one measure, site after site."""
        by_site = self.values[measure]
        # Objects, since the site of a measure of whole circuits is None.
        sites = np.array(list(by_site), object)
        columns = {}
        for name, column in self.pairs.items():
            columns[name] = np.tile(column, len(sites))
        n_pairs = len(next(iter(self.pairs.values())))
        columns["site"] = np.repeat(sites, n_pairs)
        columns["value"] = np.concatenate(list(by_site.values()))
        return columns


class ClassPass:
    """The similarities of several measures, collected class by class."""

    def __init__(self, measures: Sequence[Measure], settings: ReadingSettings) -> None:
        self.measures = measures
        self.settings = settings
        self.marks = SiteMarks()
        self.n_images: list[int] = []
        self.n_per_fold: list[int] = []
        self._checked = Comparable()
        self._rng = np.random.default_rng(settings.seed)
        # A full deque drops its oldest class, so that few graphs stay in memory.
        self._before: deque[tuple[str, ByNode]] = deque(maxlen=settings.other_classes)
        self._draws = defaultdict[Measure, list[dict[str | None, float]]](list)
        self._kept = defaultdict[tuple[str, int], Counter[int]](Counter)
        """Numbers of graphs by site, its number of units and the number of kept ones."""
        self._compared: dict[str, list[_Compared]] = {}

    def add(self, class_name: str, graphs: ByNode) -> None:
        """Compare the graphs of a class with each other and with graphs of the few classes before it."""
        folds = {}
        for node, graph in graphs.items():
            self._checked.add(graph)
            self.marks.add(graph)
            if node[1] == WHOLE:
                self.n_images.append(graph.n_images)
            else:
                self.n_per_fold.append(graph.n_images)
                folds[node] = graph
        nodes = list(graphs)
        own = list(graphs.values())
        self._compare((class_name, class_name), nodes, _pairs_of_a_class(nodes), own)
        for other, theirs in self._before:
            # A fold of another number, as in comparisons within a class, where equal numbers share items.
            fold = next(iter(theirs))[1]
            chosen = _one_fold(folds, self._rng, without=fold)
            both = [*theirs, *chosen]
            places = product(range(len(theirs)), range(len(theirs), len(both)))
            pairs = np.array(list(places), int).reshape(-1, 2)
            compared = [*theirs.values(), *chosen.values()]
            self._compare((other, class_name), both, pairs, compared)
        if chosen := _one_fold(folds, self._rng):
            self._before.append((class_name, chosen))
        # Chance is a reference for folds, where there are some: circuits of fewer images differ more.
        drawn_from = list((folds or graphs).values())
        for graph in drawn_from:
            for site in graph.inner_sites:
                n_units = len(graph.node_scores[site])
                self._kept[site, n_units][len(graph.kept_units[site])] += 1
        self._draw_chance(drawn_from)

    def values(self, measure: Measure, order: Iterable[str]) -> pd.DataFrame:
        """Return the similarities of all images, class by class in this order: columns `VALUES`."""
        table = self._table(measure, order)
        whole = table[(table["fold_a"] == WHOLE) & (table["fold_b"] == WHOLE)]
        whole = whole.rename(columns={"class_a": "class"})
        return whole[list(VALUES)].reset_index(drop=True)

    def folds(self, measure: Measure, order: Iterable[str]) -> pd.DataFrame:
        """Return the similarities of folds, and of folds with all images: columns `FOLDS`."""
        table = self._table(measure, order)
        return table[table["fold_a"] != WHOLE].reset_index(drop=True)

    def chance(self, measure: Measure) -> pd.DataFrame:
        """Return the mean over draws of permuted units, for node overlap over pairs of graphs: columns site, value."""
        if measure.name == "node_overlap":
            # This one has a closed form, so it needs no draws.
            rows = []
            for (site, n_units), kept in self._kept.items():
                rows.append((site, mean_chance_overlap(n_units, kept)))
            return pd.DataFrame(rows, columns=list(CHANCE))
        means = pd.DataFrame(self._draws[measure]).mean()
        # pandas may turn None, the site of whole circuits, into NaN: turn it back.
        sites = means.index.to_numpy(object, copy=True)
        sites[pd.isna(sites)] = None
        return pd.DataFrame(
            {"site": pd.Series(sites, dtype=object), "value": means.to_numpy(float)},
            columns=list(CHANCE),
        )

    def _table(self, measure: Measure, order: Iterable[str]) -> pd.DataFrame:
        blocks = []
        for name in order:
            compared = self._compared.get(name, ())
            blocks += [of_pairs.columns(measure) for of_pairs in compared]
        if not blocks:
            return pd.DataFrame(columns=list(FOLDS))
        columns: dict[str, Any] = {}
        for name in FOLDS:
            columns[name] = np.concatenate([block[name] for block in blocks])
        # A series of objects keeps None, which a table would otherwise turn into NaN.
        columns["site"] = pd.Series(columns["site"], dtype=object)
        return pd.DataFrame(columns)

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
        domains = np.array([domain for domain, _ in nodes], object)
        folds = np.array([fold for _, fold in nodes])
        first, second = pairs.T
        columns: dict[str, np.ndarray] = {}
        for side, name, places in (
            ("a", classes[0], first),
            ("b", classes[1], second),
        ):
            columns[f"class_{side}"] = np.full(len(pairs), name, object)
            columns[f"domain_{side}"] = domains[places]
            columns[f"fold_{side}"] = folds[places]
        values: dict[Measure, Matrices] = {}
        for measure, matrices in self._matrices(graphs).items():
            # Copies of the wanted pairs alone, so that the matrices are let go.
            values[measure] = {}
            for site, matrix in matrices.items():
                values[measure][site] = matrix[first, second]
        self._compared.setdefault(classes[0], []).append(_Compared(columns, values))

    def _draw_chance(self, graphs: Sequence[AttributionGraph]) -> None:
        """Compare graphs of a class with graphs of the same class whose units are permuted."""
        drawn = [measure for measure in self.measures if measure.name != "node_overlap"]
        if not drawn:
            return
        # All measures share their draws, so each has equally many.
        missing = self.settings.chance_draws - len(self._draws[drawn[0]])
        for _ in range(min(_DRAWS_PER_CLASS, missing)):
            a, b = self._rng.choice(len(graphs), 2)
            pair = [graphs[a], permuted_units(graphs[b], self._rng)]
            for measure, matrices in self._matrices(pair, drawn).items():
                draw = {site: float(matrix[0, 1]) for site, matrix in matrices.items()}
                self._draws[measure].append(draw)


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
        kept = {site: np.sort(graph.kept_units[site]) for site in sites}
        for site, units in kept.items():
            self._kept[site] = min(len(units), self._kept.get(site, len(units)))
        # A site repeats another if it does so in every graph: each graph can only take pairs away.
        before = self._repeats
        if before is None:
            before = {down: up for up, down in pairwise(sites)}
        self._repeats = {}
        for down, up in before.items():
            same_width = len(graph.node_scores[up]) == len(graph.node_scores[down])
            if same_width and np.array_equal(kept[up], kept[down]):
                self._repeats[down] = up

    def left_out(self) -> dict[str, str]:
        """Return the sites that do not count, with the reason; few units are none if every site has few."""
        repeats = self._repeats or {}
        few = {site for site, n in self._kept.items() if n < FEWEST_KEPT}
        # A mean over no site at all would say nothing.
        if len(few | repeats.keys()) == len(self._kept):
            few = set()
        left_out = {}
        for site, n_kept in self._kept.items():
            if site in repeats:
                left_out[site] = f"repeats {repeats[site]}"
            elif site in few:
                left_out[site] = f"keeps {number_of(n_kept, 'unit')}"
        return left_out


def _pairs_of_a_class(nodes: Sequence[Node]) -> Int[np.ndarray, "pairs 2"]:
    """Return the places of the pairs to compare.

    These are: all images of two domains; folds of different numbers, once within a domain, and in both ways between two
    domains; each fold with all images of its domain.
    """
    chosen = []
    for i, (domain, fold) in enumerate(nodes):
        for j, (other, other_fold) in enumerate(nodes):
            # Exactly one of three kinds, by how many of the two are graphs of all images.
            if fold == WHOLE == other_fold:
                wanted = domain < other
            elif fold == WHOLE:
                wanted = False  # it comes up again in the other order
            elif other_fold == WHOLE:
                wanted = domain == other
            elif domain == other:
                wanted = fold < other_fold
            else:
                wanted = domain < other and fold != other_fold
            if wanted:
                chosen.append((i, j))
    return np.array(chosen, int).reshape(-1, 2)


def _one_fold(
    graphs: ByNode, rng: np.random.Generator, without: int | None = None
) -> dict[Node, AttributionGraph]:
    """Return the graphs of a fold in every domain; it is drawn at random from all folds but ``without``."""
    folds = sorted({fold for _, fold in graphs} - {without})
    if not folds:
        return {}
    drawn = folds[rng.integers(len(folds))]
    return {node: graph for node, graph in graphs.items() if node[1] == drawn}
