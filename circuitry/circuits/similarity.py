"""How alike are two circuits? Node overlap, edge Jaccard, Weisfeiler-Lehman kernel, rank measures. No torch.

1. one pair of graphs: `node_overlap`, `edge_jaccard`, `wl_kernel`, `rank_similarity`;
2. a set of graphs: `compare`, every pair of domains of every class, as a tidy table;
3. what the numbers are read against: `compare_halves` (noise ceiling from two halves of the images) and
   `statistics.chance_overlap`;
4. `domain_matrix`: the table as domain-by-domain means.

A pair that cannot be formed (a class absent in one domain) is absent from the table, never zero.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import combinations, zip_longest
from typing import Literal, NamedTuple

import numpy as np
import pandas as pd
from scipy import stats
from scipy.stats import spearmanr

from circuitry.circuits.graph import AttributionGraph, Circuit
from circuitry.comparison.comparison import COMPARED, Comparison
from circuitry.models.sites import INPUT
from circuitry.runs.errors import InputError

MEASURES = ("node_overlap", "edge_jaccard", "wl_kernel", "spearman", "cosine")
"""``node_overlap``, ``spearman`` and ``cosine`` are per site, the others per circuit."""

PairValues = Mapping[str, float] | Mapping[None, float]
"""Similarity by site, or under None for the whole circuit."""


def node_overlap(a: AttributionGraph, b: AttributionGraph) -> dict[str, float]:
    """Return, per site, the Jaccard index |A & B| / |A | B| of the kept units; the image itself is left out.

    Raises:
        InputError: when the graphs have different sites.

    Example:
        >>> node_overlap(cat_in_photos, cat_in_sketches)["layer4.0"]
        0.19
    """
    _check_comparable(a, b)
    return {site: _jaccard(a.kept_units[site], b.kept_units[site]) for site in _inner(a)}


def edge_jaccard(a: Circuit, b: Circuit) -> float:
    """Return |E1 & E2| / |E1 | E2| over edges named by their two nodes; NaN when neither has an edge."""
    _check_comparable(a.source, b.source)
    return _jaccard(_edge_numbers(a), _edge_numbers(b))


def wl_kernel(a: Circuit, b: Circuit, depth: int = 1) -> float:
    """Return the normalised Weisfeiler-Lehman subtree kernel of two circuits, in [0, 1].

    Labels start as the node names; ``depth`` times each becomes (label, sorted labels of its successors).
    k sums, over depths 0..depth, the inner products of the label histograms, and is divided by
    sqrt(k(a, a) k(b, b)). (Shervashidze et al. 2011, JMLR 12.) Labels are 64-bit hashes: two different ones are taken
    for the same with a chance of about 1e-12 in a pair of circuits of RN50.

    Raises:
        InputError: for a negative depth or circuits of different sites.
    """
    _check_comparable(a.source, b.source)
    _check_depth(depth)
    return _kernel(_wl_histograms(a, depth), _wl_histograms(b, depth))


def rank_similarity(a: AttributionGraph, b: AttributionGraph, kind: Literal["spearman", "cosine"]) -> dict[str, float]:
    """Return, per site, Spearman's correlation or the cosine of the full score vectors: no cut-off needed.

    NaN where a score vector is constant (Spearman) or zero (cosine).
    """
    _check_comparable(a, b)
    return {site: _vector_similarity(a.node_scores[site], b.node_scores[site], kind) for site in _inner(a)}


def compare(
    graphs: Iterable[AttributionGraph] | Mapping[tuple[str, str], AttributionGraph],
    measure: str = "edge_jaccard",
    *,
    classes: Sequence[str] | None = None,
    edges_per_node: int = 3,
    depth: int = 1,
) -> pd.DataFrame:
    """Compare the circuits of each class between all pairs of domains.

    Args:
        graphs: Graphs that know their class and domain, e.g. what `extract` returns.
        measure: One of `MEASURES`.
        classes: A subset of the classes.
        edges_per_node: Edges of the circuits; see `AttributionGraph.circuit`.
        depth: Depth of the Weisfeiler-Lehman kernel.

    Returns:
        Tidy table: class, domain_a, domain_b, site (None for whole-circuit measures), value. Every unordered
        pair of domains once, in sorted order; pairs of which one is missing are absent.

    Raises:
        InputError: for an unknown measure or class, graphs without class or domain, or two of the same.

    Example:
        >>> table = compare(graphs, measure="node_overlap", classes=held_out)
        >>> domain_matrix(table)
    """
    wanted = Measure(measure, depth)
    return compare_all(graphs, [wanted], classes=classes, edges_per_node=edges_per_node)[wanted]


def compare_all(
    graphs: Iterable[AttributionGraph] | Mapping[tuple[str, str], AttributionGraph],
    measures: Sequence["Measure"],
    *,
    classes: Sequence[str] | None = None,
    edges_per_node: int = 3,
) -> dict["Measure", pd.DataFrame]:
    """Compare by several measures in one pass: a folder's graphs are read once, one class in memory at a time.

    Arguments, tables and errors are those of `compare`.

    Example:
        >>> kernels = [Measure("wl_kernel", depth) for depth in (1, 2, 3)]
        >>> tables = compare_all(GraphFolder("runs/x"), [Measure("edge_jaccard"), *kernels])
    """
    rows: dict[Measure, list[tuple[str, str, str, str | None, float]]] = {measure: [] for measure in measures}
    for class_name, by_domain in _by_class(graphs, classes):
        similarity = _Similarity(measures, edges_per_node)
        for domain_a, domain_b in combinations(sorted(by_domain), 2):
            for measure, values in similarity(by_domain[domain_a], by_domain[domain_b]).items():
                rows[measure] += [(class_name, domain_a, domain_b, site, value) for site, value in values.items()]
    columns = ["class", "domain_a", "domain_b", "site", "value"]
    return {measure: pd.DataFrame(found, columns=columns) for measure, found in rows.items()}


def compare_halves(
    halves: Iterable[tuple[AttributionGraph, AttributionGraph]],
    measure: str = "edge_jaccard",
    *,
    classes: Sequence[str] | None = None,
    edges_per_node: int = 3,
    depth: int = 1,
) -> pd.DataFrame:
    """Compare circuits from two disjoint halves of the images of the same class and domain: the noise ceiling.

    Returns:
        Tidy table: class, domain, site, value. No similarity between domains can be expected to exceed it.
        Each half has half the images, so it is a cautious ceiling for circuits from all of them.
    """
    wanted = Measure(measure, depth)
    return compare_all_halves(halves, [wanted], classes=classes, edges_per_node=edges_per_node)[wanted]


def compare_all_halves(
    halves: Iterable[tuple[AttributionGraph, AttributionGraph]],
    measures: Sequence["Measure"],
    *,
    classes: Sequence[str] | None = None,
    edges_per_node: int = 3,
) -> dict["Measure", pd.DataFrame]:
    """Compare halves by several measures in one pass, one pair in memory at a time; see `compare_halves`."""
    rows: dict[Measure, list[tuple[str | None, str | None, str | None, float]]] = {m: [] for m in measures}
    for a, b in halves:
        if classes is None or a.class_name in classes:
            for measure, values in _Similarity(measures, edges_per_node)(a, b).items():
                rows[measure] += [(a.class_name, a.domain, site, value) for site, value in values.items()]
    columns = ["class", "domain", "site", "value"]
    return {measure: pd.DataFrame(found, columns=columns) for measure, found in rows.items()}


class Measure(NamedTuple):
    """One of `MEASURES`, with the depth of a Weisfeiler-Lehman kernel."""

    name: str
    depth: int = 1


class _Similarity:
    """Several measures for many pairs: what belongs to a single circuit is computed once."""

    def __init__(self, measures: Sequence[Measure], edges_per_node: int) -> None:
        for measure in measures:
            if measure.name not in MEASURES:
                raise InputError(f"Unknown measure {measure.name!r}: choose one of {', '.join(MEASURES)}.")
            _check_depth(measure.depth)
        self.measures, self.edges_per_node = measures, edges_per_node
        self.deepest = max((m.depth for m in measures if m.name == "wl_kernel"), default=0)
        self.edges: dict[int, np.ndarray] = {}
        self.histograms: dict[int, list[Histogram]] = {}

    def __call__(self, a: AttributionGraph, b: AttributionGraph) -> dict[Measure, PairValues]:
        _check_comparable(a, b)
        return {measure: self._values(measure, a, b) for measure in self.measures}

    def _values(self, measure: Measure, a: AttributionGraph, b: AttributionGraph) -> PairValues:
        if measure.name == "node_overlap":
            return node_overlap(a, b)
        if measure.name == "edge_jaccard":
            return {None: _jaccard(self._edges(a), self._edges(b))}
        if measure.name == "wl_kernel":
            upto = slice(measure.depth + 1)
            return {None: _kernel(self._histograms(a)[upto], self._histograms(b)[upto])}
        return rank_similarity(a, b, "spearman" if measure.name == "spearman" else "cosine")

    def _edges(self, graph: AttributionGraph) -> np.ndarray:
        if id(graph) not in self.edges:
            self.edges[id(graph)] = _edge_numbers(graph.circuit(self.edges_per_node))
        return self.edges[id(graph)]

    def _histograms(self, graph: AttributionGraph) -> list["Histogram"]:
        if id(graph) not in self.histograms:
            self.histograms[id(graph)] = _wl_histograms(graph.circuit(self.edges_per_node), self.deepest)
        return self.histograms[id(graph)]


def _inner(graph: AttributionGraph) -> tuple[str, ...]:
    return tuple(site for site in graph.sites if site != INPUT)


def _jaccard(a: np.ndarray, b: np.ndarray) -> float:
    """Jaccard index of two sets of numbers, each without repetition."""
    common = len(np.intersect1d(a, b, assume_unique=True))
    union = len(a) + len(b) - common
    return common / union if union else float("nan")


def _edge_numbers(circuit: Circuit) -> np.ndarray:
    _, tails, heads = circuit.numbered
    units = sum(len(circuit.source.node_scores[site]) for site in _inner(circuit.source))
    numbers: np.ndarray = tails * units + heads
    return numbers


def _vector_similarity(x: np.ndarray, y: np.ndarray, kind: str) -> float:
    if kind == "spearman":
        constant = np.ptp(x) == 0 or np.ptp(y) == 0
        return float("nan") if constant else float(spearmanr(x, y).statistic)
    norms = float(np.linalg.norm(x) * np.linalg.norm(y))
    return float(x @ y) / norms if norms else float("nan")


Histogram = tuple[np.ndarray, np.ndarray]
"""Labels, sorted, and how often each occurs."""


def _check_depth(depth: int) -> None:
    if depth < 0:
        raise InputError(f"The depth of a Weisfeiler-Lehman kernel is 0 or more, but {depth} was given.")


def _wl_histograms(circuit: Circuit, depth: int) -> list[Histogram]:
    """Return the histogram of labels at each depth; equal labels have equal hashes in all circuits.

    A multiset of labels is hashed by the sum of its members' hashes, so that successors need no sorting.
    """
    numbers, tails, heads = circuit.numbered
    order = np.argsort(numbers)
    nodes = numbers[order].astype(np.uint64)
    tail, head = (np.searchsorted(numbers[order], ends) for ends in (tails, heads))
    labels = _scrambled(nodes)
    histograms = [np.unique(labels, return_counts=True)]
    for level in range(1, depth + 1):
        successors = np.zeros_like(labels)
        np.add.at(successors, tail, _scrambled(labels + np.uint64(level))[head])
        labels = _scrambled(labels * np.uint64(3) + successors)
        histograms.append(np.unique(labels, return_counts=True))
    return histograms


def _scrambled(x: np.ndarray) -> np.ndarray:
    """SplitMix64's finaliser, a bijection that looks random (Steele et al. 2014)."""
    x = x + np.uint64(0x9E3779B97F4A7C15)
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    scrambled: np.ndarray = x ^ (x >> np.uint64(31))
    return scrambled


def _kernel(a: Sequence[Histogram], b: Sequence[Histogram]) -> float:
    def inner(x: Sequence[Histogram], y: Sequence[Histogram]) -> int:
        total = 0
        for (labels_x, counts_x), (labels_y, counts_y) in zip(x, y, strict=True):
            _, in_x, in_y = np.intersect1d(labels_x, labels_y, assume_unique=True, return_indices=True)
            total += int(counts_x[in_x] @ counts_y[in_y])
        return total

    norms = [sum(int(counts @ counts) for _, counts in histograms) for histograms in (a, b)]
    return inner(a, b) / float(np.sqrt(norms[0] * norms[1]))


def _check_comparable(a: AttributionGraph, b: AttributionGraph) -> None:
    if a.sites != b.sites:
        different = next(
            (f"{x} and {y}" for x, y in zip(a.sites, b.sites, strict=False) if x != y),
            f"{len(a.sites)} and {len(b.sites)} in number",
        )
        raise InputError(
            f"Circuits are compared at the same sites, but these have different ones ({different}): "
            "attribute both with the same encoder and sites."
        )


def _by_class(
    graphs: Iterable[AttributionGraph] | Mapping[tuple[str, str], AttributionGraph],
    classes: Sequence[str] | None,
) -> Iterator[tuple[str, dict[str, AttributionGraph]]]:
    """Yield class and graphs by domain; those of a mapping are asked for class by class, the next one ahead."""
    if not isinstance(graphs, Mapping):
        graphs = _keyed(graphs)
    keys: dict[str, list[tuple[str, str]]] = {}
    for key in graphs:
        keys.setdefault(key[0], []).append(key)
    if unknown := [name for name in classes or () if name not in keys]:
        raise InputError(f"There is no graph of class {', '.join(unknown)}; the classes are {', '.join(sorted(keys))}.")

    def read(class_name: str) -> dict[str, AttributionGraph]:
        return {domain: graphs[name, domain] for name, domain in keys[class_name]}

    wanted = list(keys if classes is None else classes)
    with ThreadPoolExecutor(1) as pool:  # reading and checksums leave the interpreter free
        waiting = [pool.submit(read, name) for name in wanted[:1]]
        for name, following in zip_longest(wanted, wanted[1:]):
            by_domain = waiting.pop().result()
            if following is not None:
                waiting.append(pool.submit(read, following))
            yield name, by_domain


def _keyed(graphs: Iterable[AttributionGraph]) -> dict[tuple[str, str], AttributionGraph]:
    found: dict[tuple[str, str], AttributionGraph] = {}
    for graph in graphs:
        if graph.class_name is None or graph.domain is None:
            raise InputError(
                "Graphs to compare need a class and a domain, but one has none: set class_name and domain "
                "(dataclasses.replace), or make the graphs with extract()."
            )
        key = graph.class_name, graph.domain
        if key in found:
            raise InputError(f"Two graphs of class {key[0]!r} in domain {key[1]!r} were given.")
        found[key] = graph
    return found


def chance_overlap(units: int, kept_a: int, kept_b: int) -> float:
    """Return the expected Jaccard index of two independent random subsets of ``units``.

    The overlap i is hypergeometric; the Jaccard index of sizes a and b is i / (a + b - i).

    Raises:
        InputError: for subsets larger than the whole, or both empty.

    Example:
        >>> chance_overlap(units=512, kept_a=52, kept_b=52)
        0.0538...
    """
    if not (0 <= kept_a <= units and 0 <= kept_b <= units and kept_a + kept_b > 0):
        raise InputError(
            f"Two subsets of {units} units have between 0 and {units} members and not both 0, "
            f"but {kept_a} and {kept_b} were given."
        )
    i = np.arange(min(kept_a, kept_b) + 1)
    return float(stats.hypergeom.pmf(i, units, kept_a, kept_b) @ (i / (kept_a + kept_b - i)))


def chance_node_overlap(graph: AttributionGraph) -> pd.DataFrame:
    """Return the expected node overlap of two random circuits of this one's sizes: columns site, value."""
    rows = [
        (site, chance_overlap(len(graph.node_scores[site]), len(kept), len(kept)))
        for site, kept in graph.kept_units.items()
        if site != INPUT
    ]
    return pd.DataFrame(rows, columns=["site", "value"])


def compare_domains(
    graphs: Mapping[tuple[str, str], AttributionGraph],
    halves: Iterable[tuple[AttributionGraph, AttributionGraph]],
    groups: Mapping[str, Sequence[str]] | None = None,
    *,
    edges_per_node: int = 3,
) -> Comparison:
    """Compare the circuits of every class between all pairs of domains with every measure of `COMPARED`.

    Args:
        graphs: From `extract`.
        halves: ``graphs.halves()``.
        groups: Further groups of classes, e.g. those held out of training; empty ones are left out.
        edges_per_node: Edges of the circuits; see `AttributionGraph.circuit`.

    Raises:
        InputError: when no class has circuits in two domains.

    Example:
        >>> graphs = extract(clip, images, "runs/x")
        >>> comparison = compare_domains(graphs, graphs.halves(), {"held-out": ["fish", "key"]})
        >>> comparison.matrix("edge_jaccard")
    """
    measures = [Measure(name) for name in COMPARED]
    tables = compare_all(graphs, measures, edges_per_node=edges_per_node)
    similarity = {measure.name: table for measure, table in tables.items()}
    if similarity["edge_jaccard"].empty:
        raise InputError(
            "A comparison needs a class with circuits in at least two domains, but there is none: "
            "give more domains, or classes that have images in them."
        )
    known = {class_name for class_name, _ in graphs}
    first = next(iter(graphs.values()))
    all_groups = {"all": tuple(sorted(known))}
    for name, classes in (groups or {}).items():
        if present := tuple(c for c in classes if c in known):
            all_groups[name] = present
    return Comparison(
        tuple(site for site in first.sites if site != INPUT),
        similarity,
        {m.name: t for m, t in compare_all_halves(halves, measures, edges_per_node=edges_per_node).items()},
        chance_node_overlap(first),
        all_groups,
    )
