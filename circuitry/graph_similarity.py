"""How alike are two circuits? Node overlap, edge Jaccard, Weisfeiler-Lehman kernel, rank measures. No torch.

1. one pair of graphs: `node_overlap`, `edge_jaccard`, `wl_kernel`, `rank_similarity`;
2. a set of graphs: `compare`, every pair of domains of every class, as a tidy table;
3. what the numbers are read against: `compare_halves` (noise ceiling from two halves of the images) and
   `statistics.chance_overlap`;
4. `domain_matrix`: the table as domain-by-domain means.

A pair that cannot be formed (a class absent in one domain) is absent from the table, never zero.
"""

from collections import Counter
from collections.abc import Hashable, Iterable, Mapping, Sequence
from itertools import combinations
from typing import Literal

import numpy as np
import pandas as pd
from scipy.stats import spearmanr

from circuitry.circuit import INPUT, AttributionGraph, Circuit
from circuitry.errors import InputError

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
    return {site: _jaccard(set(a.kept_units[site].tolist()), set(b.kept_units[site].tolist())) for site in _inner(a)}


def edge_jaccard(a: Circuit, b: Circuit) -> float:
    """Return |E1 & E2| / |E1 | E2| over edges named by their two nodes; NaN when neither has an edge."""
    _check_comparable(a.source, b.source)
    return _jaccard(set(a.graph.edges), set(b.graph.edges))


def wl_kernel(a: Circuit, b: Circuit, depth: int = 1) -> float:
    """Return the normalised Weisfeiler-Lehman subtree kernel of two circuits, in [0, 1].

    Labels start as the node names; ``depth`` times each becomes (label, sorted labels of its successors).
    k sums, over depths 0..depth, the inner products of the label histograms, and is divided by
    sqrt(k(a, a) k(b, b)). (Shervashidze et al. 2011, JMLR 12.)

    Raises:
        InputError: for a negative depth or circuits of different sites.
    """
    _check_comparable(a.source, b.source)
    names: dict[Hashable, int] = {}
    return _kernel(_wl_histogram(a, depth, names), _wl_histogram(b, depth, names))


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
    by_class = _by_class(graphs, classes)
    rows: list[tuple[str, str, str, str | None, float]] = []
    for class_name, by_domain in by_class.items():
        similarity = _Similarity(measure, edges_per_node, depth)
        for domain_a, domain_b in combinations(sorted(by_domain), 2):
            values = similarity(by_domain[domain_a], by_domain[domain_b])
            rows += [(class_name, domain_a, domain_b, site, value) for site, value in values.items()]
    return pd.DataFrame(rows, columns=["class", "domain_a", "domain_b", "site", "value"])


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
    rows: list[tuple[str | None, str | None, str | None, float]] = []
    for a, b in halves:
        if classes is None or a.class_name in classes:
            values = _Similarity(measure, edges_per_node, depth)(a, b)
            rows += [(a.class_name, a.domain, site, value) for site, value in values.items()]
    return pd.DataFrame(rows, columns=["class", "domain", "site", "value"])


def domain_matrix(
    table: pd.DataFrame, ceilings: pd.DataFrame | None = None, *, normalise: bool = False
) -> pd.DataFrame:
    """Return the symmetric domain-by-domain mean of a `compare` table over classes and sites.

    Args:
        table: From `compare`.
        ceilings: From `compare_halves`; their means go onto the diagonal, which is NaN otherwise.
        normalise: Divide each cell by the geometric mean of its two domains' ceilings: 1 then means as alike
            as two halves of the same images.

    Raises:
        InputError: for ``normalise`` without ceilings.
    """
    means = both_directions(table).groupby(["domain", "other"])["value"].mean().unstack()
    domains = sorted({*means.index, *(() if ceilings is None else ceilings["domain"])})
    matrix = means.reindex(index=domains, columns=domains).to_numpy(dtype=float, copy=True)
    if ceilings is not None:
        diagonal = ceilings.groupby("domain")["value"].mean().reindex(domains).to_numpy(dtype=float)
        np.fill_diagonal(matrix, diagonal)
        if normalise:
            matrix /= np.sqrt(np.outer(diagonal, diagonal))
    elif normalise:
        raise InputError("A normalised matrix is divided by noise ceilings, but none were given.")
    return pd.DataFrame(matrix, index=domains, columns=domains)


def both_directions(table: pd.DataFrame) -> pd.DataFrame:
    """Return a `compare` table with every pair in both orders: columns class, domain, other, site, value."""
    forth = table.rename(columns={"domain_a": "domain", "domain_b": "other"})
    back = table.rename(columns={"domain_b": "domain", "domain_a": "other"})
    return pd.concat([forth, back], ignore_index=True)[["class", "domain", "other", "site", "value"]]


class _Similarity:
    """One measure for many pairs: what belongs to a single circuit is computed once."""

    def __init__(self, measure: str, edges_per_node: int, depth: int) -> None:
        if measure not in MEASURES:
            raise InputError(f"Unknown measure {measure!r}: choose one of {', '.join(MEASURES)}.")
        self.measure, self.edges_per_node, self.depth = measure, edges_per_node, depth
        self.names: dict[Hashable, int] = {}
        self.edges: dict[int, set[tuple[str, str]]] = {}
        self.histograms: dict[int, Counter[int]] = {}

    def __call__(self, a: AttributionGraph, b: AttributionGraph) -> PairValues:
        _check_comparable(a, b)
        if self.measure == "node_overlap":
            return node_overlap(a, b)
        if self.measure == "edge_jaccard":
            return {None: _jaccard(self._edges(a), self._edges(b))}
        if self.measure == "wl_kernel":
            return {None: _kernel(self._histogram(a), self._histogram(b))}
        return rank_similarity(a, b, "spearman" if self.measure == "spearman" else "cosine")

    def _edges(self, graph: AttributionGraph) -> set[tuple[str, str]]:
        if id(graph) not in self.edges:
            self.edges[id(graph)] = set(graph.circuit(self.edges_per_node).graph.edges)
        return self.edges[id(graph)]

    def _histogram(self, graph: AttributionGraph) -> Counter[int]:
        if id(graph) not in self.histograms:
            circuit = graph.circuit(self.edges_per_node)
            self.histograms[id(graph)] = _wl_histogram(circuit, self.depth, self.names)
        return self.histograms[id(graph)]


def _inner(graph: AttributionGraph) -> tuple[str, ...]:
    return tuple(site for site in graph.sites if site != INPUT)


def _jaccard(
    a: set[Hashable] | set[int] | set[tuple[str, str]], b: set[Hashable] | set[int] | set[tuple[str, str]]
) -> float:
    union = len(a | b)
    return len(a & b) / union if union else float("nan")


def _vector_similarity(x: np.ndarray, y: np.ndarray, kind: str) -> float:
    if kind == "spearman":
        constant = np.ptp(x) == 0 or np.ptp(y) == 0
        return float("nan") if constant else float(spearmanr(x, y).statistic)
    norms = float(np.linalg.norm(x) * np.linalg.norm(y))
    return float(x @ y) / norms if norms else float("nan")


def _wl_histogram(circuit: Circuit, depth: int, names: dict[Hashable, int]) -> Counter[int]:
    """Return the counts of all labels of all depths; ``names`` numbers them, shared by what is compared."""
    if depth < 0:
        raise InputError(f"The depth of a Weisfeiler-Lehman kernel is 0 or more, but {depth} was given.")
    graph = circuit.graph

    def number(depth_and_label: Hashable) -> int:
        return names.setdefault(depth_and_label, len(names))

    labels = {node: number((0, node)) for node in graph}
    histogram = Counter(labels.values())
    for level in range(1, depth + 1):
        labels = {
            node: number((level, labels[node], tuple(sorted(labels[s] for s in graph.successors(node)))))
            for node in graph
        }
        histogram.update(labels.values())
    return histogram


def _kernel(a: Counter[int], b: Counter[int]) -> float:
    def inner(x: Counter[int], y: Counter[int]) -> int:
        return sum(count * y[label] for label, count in x.items())

    return inner(a, b) / float(np.sqrt(inner(a, a) * inner(b, b)))


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
) -> dict[str, dict[str, AttributionGraph]]:
    values = graphs.values() if isinstance(graphs, Mapping) else graphs
    found: dict[str, dict[str, AttributionGraph]] = {}
    for graph in values:
        if graph.class_name is None or graph.domain is None:
            raise InputError(
                "Graphs to compare need a class and a domain, but one has none: set class_name and domain "
                "(dataclasses.replace), or make the graphs with extract()."
            )
        by_domain = found.setdefault(graph.class_name, {})
        if graph.domain in by_domain:
            raise InputError(f"Two graphs of class {graph.class_name!r} in domain {graph.domain!r} were given.")
        by_domain[graph.domain] = graph
    if classes is None:
        return found
    unknown = [name for name in classes if name not in found]
    if unknown:
        raise InputError(
            f"There is no graph of class {', '.join(unknown)}; the classes are {', '.join(sorted(found))}."
        )
    return {name: found[name] for name in classes}
