"""One pass over the graphs of all classes, which collects the similarities by several measures.

A class has, in each domain, a graph of all images and graphs of folds of the images. All graphs of a class are compared
with each other at once, see `similarity_matrix`. A class is also compared with a few other classes: the graphs of one
of its folds in every domain stay in memory until the next few classes have been compared with them.

Does not import torch.
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
from circuitry.runs.identity import Across

Node = tuple[str, int]
"""Domain and index of the fold, which is `WHOLE` for the graph of all images."""
ByNode = Mapping[Node, AttributionGraph]
"""The graphs of a class, by domain and fold."""

FEWEST_KEPT = 5
"""A site counts in means over sites only if every graph keeps at least this number of units there."""

_DRAWS_PER_CLASS = 4
"""Largest number of draws of permuted units from one class, so that several classes contribute."""


@checked
@dataclass(frozen=True, kw_only=True)
class ReadingSettings:
    """Settings of a comparison: how circuits are cut, and how reference levels of their similarity are measured.

    Example:
        >>> settings = circuitry.circuits.ReadingSettings(edges_per_node=5, chance_draws=4)
        >>> comparisons = circuitry.compare_domains(graphs, settings=settings)
    """

    edges_per_node: Count = 3
    """Largest number of edges into each unit of a circuit; see `AttributionGraph.circuit`."""
    any_sign: bool = False
    """Whether circuits may contain edges with a score of zero or less, as in the study."""
    all_sites: bool = False
    """Whether means over sites include sites that repeat another site or keep few units, as in the study."""
    other_classes: Natural = 2
    """Number of other classes that each class is compared with."""
    chance_draws: Natural = 20
    """Number of draws of permuted units, which estimate the chance level of measures without a closed form."""
    seed: Seed = 0
    """Seed of the choice of other classes and of the draws."""


class _Compared(NamedTuple):
    """The similarities of some pairs of graphs."""

    pairs: dict[str, np.ndarray]
    """The columns of `FOLDS` that name the two graphs of each pair: arrays [pairs] by name."""
    values: dict[Measure, dict[str | None, np.ndarray]]
    """The similarities: arrays [pairs] by measure and site."""

    def columns(self, measure: Measure) -> dict[str, np.ndarray]:
        """Return the similarities by one measure as columns of a table, by the names in `FOLDS`.

        The table has the rows of all pairs at the first site, then the rows of all pairs at the next site, and so on.
        """
        by_site = self.values[measure]
        # An array of objects, because the site is None for measures of whole circuits.
        sites = np.array(list(by_site), object)
        columns = {}
        for name, column in self.pairs.items():
            columns[name] = np.tile(column, len(sites))
        n_pairs = len(next(iter(self.pairs.values())))
        columns["site"] = np.repeat(sites, n_pairs)
        columns["value"] = np.concatenate(list(by_site.values()))
        return columns


class ClassPass:
    """Collect the similarities by several measures, class by class.

    `add` takes the graphs of one class. After all classes, `values`, `folds` and `chance` return the similarities.
    """

    def __init__(
        self,
        measures: Sequence[Measure],
        settings: ReadingSettings,
        across: Across | None = None,
    ) -> None:
        self.measures = measures
        self.settings = settings
        self.marks = SiteMarks()
        self.n_images: list[int] = []
        self.n_per_fold: list[int] = []
        self.checked = Comparable(across)
        self._rng = np.random.default_rng(settings.seed)
        # A full deque drops its oldest class, so that few graphs stay in memory.
        self._before: deque[tuple[str, ByNode]] = deque(maxlen=settings.other_classes)
        self._draws = defaultdict[Measure, list[dict[str | None, float]]](list)
        self._kept = defaultdict[tuple[str, int], Counter[int]](Counter)
        """Number of graphs by (site, number of its units) and by the number of its kept units."""
        self._compared: dict[str, list[_Compared]] = {}

    def add(self, class_name: str, graphs: ByNode) -> None:
        """Compare the graphs of a class with each other and with graphs of other classes, and store the similarities.

        The other classes are the classes that were added last. The setting ``other_classes`` says how many there are.
        With other classes only graphs of folds are compared: one fold of each class, drawn at random.
        """
        folds = {}
        for node, graph in graphs.items():
            self.checked.add(graph)
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
            # The fold of this class has another index than the fold of the other class. Within a class, too, only folds
            # with different indices are compared, because folds with equal indices contain the same items.
            fold = next(iter(theirs))[1]
            chosen = _one_fold(folds, self._rng, without=fold)
            both = [*theirs, *chosen]
            places = product(range(len(theirs)), range(len(theirs), len(both)))
            pairs = np.array(list(places), int).reshape(-1, 2)
            compared = [*theirs.values(), *chosen.values()]
            self._compare((other, class_name), both, pairs, compared)
        if chosen := _one_fold(folds, self._rng):
            self._before.append((class_name, chosen))
        # If there are graphs of folds, chance level is measured on them, because circuits of fewer images differ more.
        drawn_from = list((folds or graphs).values())
        for graph in drawn_from:
            for site in graph.inner_sites:
                n_units = len(graph.node_scores[site])
                self._kept[site, n_units][len(graph.kept_units[site])] += 1
        self._draw_chance(drawn_from)

    def values(self, measure: Measure, order: Iterable[str]) -> pd.DataFrame:
        """Return a table of the similarities between graphs that were found on all images, with the columns `VALUES`.

        Similarities of graphs of folds are in the table of `folds`.

        Args:
            measure: The measure.
            order: The classes, in the order of the table.
        """
        table = self._table(measure, order)
        whole = table[(table["fold_a"] == WHOLE) & (table["fold_b"] == WHOLE)]
        whole = whole.rename(columns={"class_a": "class"})
        return whole[list(VALUES)].reset_index(drop=True)

    def folds(self, measure: Measure, order: Iterable[str]) -> pd.DataFrame:
        """Return a table of the similarities of graphs of folds, with the columns `FOLDS`.

        The graph of a fold is compared with the graph of another fold, or with the graph of all images.

        Args:
            measure: The measure.
            order: The classes, in the order of the table.
        """
        table = self._table(measure, order)
        return table[table["fold_a"] != WHOLE].reset_index(drop=True)

    def chance(self, measure: Measure) -> pd.DataFrame:
        """Return a table of the chance level of a measure, with the columns site and value.

        The level is the mean similarity of a graph and a graph whose units are permuted at random, over several draws.
        Node overlap needs no draws: its level is the expected overlap of random units, as a mean over pairs of graphs.
        """
        if measure.name == "node_overlap":
            # Node overlap has a closed form, so it needs no draws.
            rows = []
            for (site, n_units), kept in self._kept.items():
                rows.append((site, mean_chance_overlap(n_units, kept)))
            return pd.DataFrame(rows, columns=list(CHANCE))
        means = pd.DataFrame(self._draws[measure]).mean()
        # pandas may turn None, which is the site of whole circuits, into NaN. Here it is turned back.
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
        # A series of objects keeps None. Otherwise the table would turn None into NaN.
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
        """Compare graphs of one or two classes, and store the similarities of the chosen pairs.

        Args:
            classes: Class of the first graph of each pair, and class of the second graph.
            nodes: Domain and fold of each graph.
            pairs: Indices of the two graphs of each chosen pair.
            graphs: The graphs.
        """
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
            # Only the values of the wanted pairs are copied, so that the memory of the matrices is freed.
            values[measure] = {}
            for site, matrix in matrices.items():
                values[measure][site] = matrix[first, second]
        self._compared.setdefault(classes[0], []).append(_Compared(columns, values))

    def _draw_chance(self, graphs: Sequence[AttributionGraph]) -> None:
        """Compare graphs of a class with graphs of the same class whose units are permuted, and store the values."""
        drawn = [measure for measure in self.measures if measure.name != "node_overlap"]
        if not drawn:
            return
        # All measures share the draws, so all have the same number of draws.
        missing = self.settings.chance_draws - len(self._draws[drawn[0]])
        for _ in range(min(_DRAWS_PER_CLASS, missing)):
            a, b = self._rng.choice(len(graphs), 2)
            pair = [graphs[a], permuted_units(graphs[b], self._rng)]
            for measure, matrices in self._matrices(pair, drawn).items():
                draw = {site: float(matrix[0, 1]) for site, matrix in matrices.items()}
                self._draws[measure].append(draw)


class SiteMarks:
    """Find the sites that do not count in means over sites, because they repeat another site or keep few units.

    A stage without parameters that treats each channel separately, such as a pooling, passes on the scores of the site
    before. Then both sites keep the same units in every graph, and would count twice. A site with few kept units is
    left out because its overlap is coarse: with one kept unit it is 0 or 1.
    """

    def __init__(self) -> None:
        self._kept: dict[str, int] = {}
        """Smallest number of kept units in any graph, by site."""
        self._repeats: dict[str, str] | None = None
        """Name of the site before, for each site that has kept the same units as the site before in all graphs so far.
        None before the first graph."""

    def add(self, graph: AttributionGraph) -> None:
        """Take a graph into account: update the counts of kept units, and which sites repeat another site."""
        sites = graph.inner_sites
        kept = {site: np.sort(graph.kept_units[site]) for site in sites}
        for site, units in kept.items():
            self._kept[site] = min(len(units), self._kept.get(site, len(units)))
        # A site repeats another site only if it does so in every graph, so each graph can only remove pairs.
        before = self._repeats
        if before is None:
            before = {down: up for up, down in pairwise(sites)}
        self._repeats = {}
        for down, up in before.items():
            same_width = len(graph.node_scores[up]) == len(graph.node_scores[down])
            if same_width and np.array_equal(kept[up], kept[down]):
                self._repeats[down] = up

    def left_out(self) -> dict[str, str]:
        """Return the sites that do not count, each with the reason.

        If all sites would be left out, sites with few kept units count all the same.
        """
        repeats = self._repeats or {}
        few = {site for site, n in self._kept.items() if n < FEWEST_KEPT}
        # Otherwise there would be no site to take a mean over.
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
    """Return the pairs of graphs of a class to compare, as indices [pairs, 2] of two nodes.

    A node is a domain and the index of a fold, or `WHOLE` for the graph of all images. Three kinds of pairs are
    compared:

    - the graphs of all images of two domains;
    - the graphs of two folds with different indices i and j, within a domain or between two domains. Between two
      domains there are two such pairs: fold i of the first domain with fold j of the second, and fold j with fold i;
    - the graph of each fold with the graph of all images of its domain.
    """
    chosen = []
    for i, (domain, fold) in enumerate(nodes):
        for j, (other, other_fold) in enumerate(nodes):
            # The kind of the pair depends on which of the two are graphs of all images.
            if fold == WHOLE == other_fold:
                wanted = domain < other
            elif fold == WHOLE:
                wanted = False  # the pair occurs again in the other order
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
    """Return the graphs of one fold in every domain.

    The fold is drawn at random from all folds except for the fold with the index ``without``. The result is empty if
    there is no other fold.
    """
    folds = sorted({fold for _, fold in graphs} - {without})
    if not folds:
        return {}
    drawn = folds[rng.integers(len(folds))]
    return {node: graph for node, graph in graphs.items() if node[1] == drawn}
