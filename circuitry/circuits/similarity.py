"""How alike are two circuits? Node overlap, edge Jaccard, Weisfeiler-Lehman kernel, rank measures. No torch.

Graphs that mean different units, or were found in different ways, are refused (`comparable`). Where all scores of a
site are zero, which units were kept is arbitrary: node overlap there is NaN, and nodes and edges of the site are left
out of both circuits. Of circuits without any effect nothing is left, and their similarity is NaN.

Sets of graphs are compared by `across_domains`; what random circuits reach is `chance_overlap`.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Literal

import numpy as np
import pandas as pd
from scipy import stats

from circuitry.circuits.circuit_arrays import check_depth, circuit_arrays, histogram_kernel, label_histograms
from circuitry.circuits.comparable import check_comparable
from circuitry.circuits.graph import AttributionGraph, Circuit
from circuitry.runs.errors import InputError

MEASURES = ("node_overlap", "edge_jaccard", "wl_kernel", "spearman", "cosine")
"""``node_overlap``, ``spearman`` and ``cosine`` are per site, the others per circuit."""

PairValues = Mapping[str, float] | Mapping[None, float]
"""Similarity by site, or under None for the whole circuit."""


@dataclass(frozen=True)
class Measure:
    """One of `MEASURES`, with the depth of a Weisfeiler-Lehman kernel."""

    name: str
    depth: int = 1

    def __post_init__(self) -> None:
        if self.name not in MEASURES:
            raise InputError(f"Unknown measure {self.name!r}: choose one of {', '.join(MEASURES)}.")
        check_depth(self.depth)

    @property
    def label(self) -> str:
        """The name for tables and files: that of the measure, with a depth other than 1."""
        return self.name if self.name != "wl_kernel" or self.depth == 1 else f"{self.name}_depth_{self.depth}"


def node_overlap(a: AttributionGraph, b: AttributionGraph) -> dict[str, float]:
    """Return, per site, the Jaccard index |A & B| / |A | B| of the kept units; the image itself is left out.

    NaN at sites where one of the two has no effect.

    Raises:
        InputError: for graphs that cannot be compared: of other sites, units, settings or models, or not finite.

    Example:
        >>> node_overlap(cat_in_photos, cat_in_sketches)["layer4.0"]
        0.19
    """
    check_comparable(a, b)
    return _node_overlap(a, b)


def edge_jaccard(a: Circuit, b: Circuit) -> float:
    """Return |E1 & E2| / |E1 | E2| over edges named by their two nodes; NaN when neither has an edge.

    Edges of sites where one of the two has no effect are left out.

    Raises:
        InputError: as `node_overlap`, and for circuits with other numbers of edges per node.
    """
    _check_circuits(a, b)
    left_out = _without_effect(a.source, b.source)
    return _jaccard(*(circuit_arrays(circuit, left_out).edges for circuit in (a, b)))


def wl_kernel(a: Circuit, b: Circuit, depth: int = 1) -> float:
    """Return the normalised Weisfeiler-Lehman subtree kernel of two circuits, in [0, 1].

    See `circuit_arrays`. Sites where one of the two has no effect are left out; NaN when nothing is left.

    Raises:
        InputError: for a negative depth, and as `edge_jaccard`.
    """
    _check_circuits(a, b)
    check_depth(depth)
    left_out = _without_effect(a.source, b.source)
    return histogram_kernel(*(label_histograms(circuit_arrays(circuit, left_out), depth) for circuit in (a, b)))


def rank_similarity(a: AttributionGraph, b: AttributionGraph, kind: Literal["spearman", "cosine"]) -> dict[str, float]:
    """Return, per site, Spearman's correlation or the cosine of the full score vectors: no cut-off needed.

    NaN where a score vector is constant (Spearman) or zero (cosine).

    Raises:
        InputError: as `node_overlap`.
    """
    check_comparable(a, b)
    return _rank_similarity(a, b, kind)


class PairSimilarity:
    """Several measures for many pairs of comparable graphs: what belongs to a single circuit is computed once."""

    def __init__(self, measures: Sequence[Measure], edges_per_node: int) -> None:
        self.measures = measures
        deepest = max((m.depth for m in measures if m.name == "wl_kernel"), default=0)
        # Without a way back to self, so that the graphs go with it, not when the garbage collector comes by.
        arrays = cache(lambda graph, left_out: circuit_arrays(graph.circuit(edges_per_node), left_out))
        self._arrays = arrays
        self._histograms = cache(lambda graph, left_out: label_histograms(arrays(graph, left_out), deepest))

    def __call__(self, a: AttributionGraph, b: AttributionGraph) -> dict[Measure, PairValues]:
        """Return the values of all measures for two graphs that `Comparable` has seen."""
        return {measure: self._values(measure, a, b) for measure in self.measures}

    def _values(self, measure: Measure, a: AttributionGraph, b: AttributionGraph) -> PairValues:
        left_out = _without_effect(a, b)
        if measure.name == "node_overlap":
            return _node_overlap(a, b)
        if measure.name == "edge_jaccard":
            return {None: _jaccard(*(self._arrays(graph, left_out).edges for graph in (a, b)))}
        if measure.name == "wl_kernel":
            upto = slice(measure.depth + 1)
            return {None: histogram_kernel(*(self._histograms(graph, left_out)[upto] for graph in (a, b)))}
        return _rank_similarity(a, b, measure.name)


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
    sizes = [(site, len(graph.node_scores[site]), len(graph.kept_units[site])) for site in graph.inner_sites]
    return pd.DataFrame([(site, chance_overlap(n, k, k)) for site, n, k in sizes], columns=["site", "value"])


def _check_circuits(a: Circuit, b: Circuit) -> None:
    check_comparable(a.source, b.source)
    if a.edges_per_node != b.edges_per_node:
        raise InputError(
            "Circuits are compared with equally many edges per node, but these have "
            f"{a.edges_per_node} and {b.edges_per_node}: cut both out alike."
        )


def _without_effect(a: AttributionGraph, b: AttributionGraph) -> frozenset[str]:
    return a.sites_without_effect | b.sites_without_effect


def _node_overlap(a: AttributionGraph, b: AttributionGraph) -> dict[str, float]:
    left_out = _without_effect(a, b)
    return {
        site: float("nan") if site in left_out else _jaccard(a.kept_units[site], b.kept_units[site])
        for site in a.inner_sites
    }


def _rank_similarity(a: AttributionGraph, b: AttributionGraph, kind: str) -> dict[str, float]:
    compare = _spearman if kind == "spearman" else _cosine
    return {site: compare(a.node_scores[site], b.node_scores[site]) for site in a.inner_sites}


def _jaccard(a: np.ndarray, b: np.ndarray) -> float:
    """Jaccard index of two sets of numbers, each without repetition."""
    common = len(np.intersect1d(a, b, assume_unique=True))
    union = len(a) + len(b) - common
    return common / union if union else float("nan")


def _spearman(x: np.ndarray, y: np.ndarray) -> float:
    constant = np.ptp(x) == 0 or np.ptp(y) == 0
    return float("nan") if constant else float(stats.spearmanr(x, y).statistic)


def _cosine(x: np.ndarray, y: np.ndarray) -> float:
    norms = float(np.linalg.norm(x) * np.linalg.norm(y))
    return float(x @ y) / norms if norms else float("nan")
