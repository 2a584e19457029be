"""Similarity of every two of several graphs at once, by each measure, as matrices. No torch.

What belongs to a single graph is computed once, and all pairs come out of one product of matrices: of members of sets,
of counts of labels, or of normalised scores. Graphs are those that `Comparable` has seen. Where a graph has no effect
at a site, which units it keeps is arbitrary: node overlap with it is NaN there, and nodes and edges of the site are
left out of both circuits of a pair.
"""

from collections.abc import Callable, Collection, Mapping, Sequence
from functools import cache
from itertools import combinations_with_replacement, product

import numpy as np
from jaxtyping import Bool, Float
from scipy import sparse, stats

from circuitry.circuits.circuit_arrays import CircuitArrays, circuit_arrays, label_histograms
from circuitry.circuits.graph import AttributionGraph, Circuit

Matrix = Float[np.ndarray, "graphs graphs"]


def node_overlap_matrices(graphs: Sequence[AttributionGraph]) -> dict[str | None, np.ndarray]:
    """Return, by site, the Jaccard index of the kept units of every two graphs."""
    found: dict[str | None, np.ndarray] = {}
    for site in graphs[0].inner_sites:
        unknown = np.array([site in graph.sites_without_effect for graph in graphs])
        overlap = _jaccard_matrix([graph.kept_units[site] for graph in graphs])
        found[site] = np.where(unknown | unknown[:, None], np.nan, overlap)
    return found


def edge_jaccard_matrix(circuits: Sequence[Circuit]) -> Matrix:
    """Return the Jaccard index of the edges of every two circuits."""
    return _by_left_out(circuits, lambda arrays: [_jaccard_matrix([one.edges for one in arrays])])[0]


def wl_matrices(circuits: Sequence[Circuit], depth: int) -> list[np.ndarray]:
    """Return the normalised Weisfeiler-Lehman kernel of every two circuits at depths 0 to ``depth``."""

    def kernels(arrays: Sequence[CircuitArrays]) -> list[np.ndarray]:
        histograms = [label_histograms(one, depth) for one in arrays]
        products = [_products([one[level] for one in histograms]) for level in range(depth + 1)]
        return [_normalised(kernel) for kernel in np.cumsum(products, axis=0)]

    return _by_left_out(circuits, kernels)


def score_matrices(graphs: Sequence[AttributionGraph], kind: str) -> dict[str | None, np.ndarray]:
    """Return, by site, Spearman's correlation or the cosine of the scores of all units of every two graphs."""
    return {
        site: _vector_matrix(np.stack([graph.node_scores[site] for graph in graphs]).astype(float), kind)
        for site in graphs[0].inner_sites
    }


def edge_spearman_matrix(graphs: Sequence[AttributionGraph]) -> Matrix:
    """Return Spearman's correlation of the edge scores of every two graphs, over the edges that either scores.

    The circuit shift score of arXiv 2604.08192, whose circuits score the same edges everywhere; here a graph has scores
    between its kept units only, and an edge that it does not score counts as 0.
    """
    sites = list(graphs[0].inner_sites)
    *first, n_units = np.cumsum([0, *(len(graphs[0].node_scores[site]) for site in sites)]).tolist()
    starts = dict(zip(sites, first, strict=True))
    scored = cache(lambda i, left_out: _scored_edges(graphs[i], starts, n_units, left_out))
    found = np.empty((len(graphs), len(graphs)))
    for i, j in combinations_with_replacement(range(len(graphs)), 2):
        left_out = graphs[i].sites_without_effect | graphs[j].sites_without_effect
        both = (scored(i, left_out), scored(j, left_out))
        edges = np.union1d(both[0][0], both[1][0])
        rows = np.zeros((2, len(edges)))
        for row, (numbers, scores) in zip(rows, both, strict=True):
            row[np.searchsorted(edges, numbers)] = scores
        found[i, j] = found[j, i] = _vector_matrix(rows, "spearman")[0, 1] if len(edges) else np.nan
    return found


def _scored_edges(
    graph: AttributionGraph, starts: Mapping[str, int], n_units: int, left_out: Collection[str]
) -> tuple[np.ndarray, np.ndarray]:
    """Return the numbers of all edges that a graph scores between the sites that are not left out, and their scores."""
    none = np.empty(0, np.int64)
    numbers, values = [none], [np.empty(0)]
    for (up, down), scores in graph.edge_scores.items():
        if up in left_out or down in left_out:
            continue
        tails, heads = starts[up] + graph.kept_units[up], starts[down] + graph.kept_units[down]
        numbers.append((tails[None, :] * n_units + heads[:, None]).ravel())
        values.append(scores.ravel())
    return np.concatenate(numbers), np.concatenate(values)


def _by_left_out(
    circuits: Sequence[Circuit], measure: Callable[[Sequence[CircuitArrays]], list[np.ndarray]]
) -> list[np.ndarray]:
    """Return matrices of circuits without the sites at which either of a pair has no effect."""
    own = [circuit.source.sites_without_effect for circuit in circuits]
    found: list[np.ndarray] = []
    for left_out in {a | b for a, b in product(set(own), repeat=2)}:
        matrices = measure([circuit_arrays(circuit, left_out) for circuit in circuits])
        chosen: Bool[np.ndarray, "graphs graphs"] = np.array([[a | b == left_out for b in own] for a in own])
        before = found or [np.full(matrix.shape, np.nan) for matrix in matrices]
        found = [np.where(chosen, new, old) for new, old in zip(matrices, before, strict=True)]
    return found


def _products(histograms: Sequence[tuple[np.ndarray, np.ndarray]]) -> np.ndarray:
    """Return the inner products of histograms: labels, each once, and how often each occurs."""
    labels = [labels for labels, _ in histograms]
    _, columns = np.unique(np.concatenate(labels), return_inverse=True)
    rows = np.repeat(np.arange(len(labels)), [len(one) for one in labels])
    counts = np.concatenate([counts for _, counts in histograms]).astype(float)
    width = int(columns.max(initial=-1)) + 1
    matrix = sparse.csr_array((counts, (rows, columns)), shape=(len(labels), max(width, 1)))
    products: np.ndarray = (matrix @ matrix.T).toarray()
    return products


def _jaccard_matrix(sets: Sequence[np.ndarray]) -> np.ndarray:
    """Return the Jaccard index of every two sets of numbers, each without repetition; NaN of two empty ones."""
    common = _products([(one, np.ones(len(one))) for one in sets])
    sizes = np.diag(common)
    union = sizes + sizes[:, None] - common
    return np.asarray(np.divide(common, union, out=np.full(union.shape, np.nan), where=union > 0))


def _normalised(kernel: np.ndarray) -> np.ndarray:
    """Return a kernel over the geometric mean of each with itself; NaN where one has nothing."""
    both = np.sqrt(np.outer(np.diag(kernel), np.diag(kernel)))  # of a graph with itself exactly its own
    return np.asarray(np.divide(kernel, both, out=np.full(kernel.shape, np.nan), where=both > 0))


def _vector_matrix(rows: Float[np.ndarray, "rows numbers"], kind: str) -> np.ndarray:
    """Return Spearman's correlation (NaN of constants) or the cosine (NaN of zeros) of every two rows."""
    if kind == "spearman":
        constant = np.ptp(rows, axis=1) == 0
        rows = stats.rankdata(rows, axis=1)
        rows = np.where(constant[:, None], 0.0, rows - rows.mean(1, keepdims=True))
    return np.asarray(_normalised(rows @ rows.T).clip(-1, 1))
