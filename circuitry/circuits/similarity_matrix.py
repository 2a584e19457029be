"""Similarity of every two of several graphs, by each measure, as matrices. No torch.

Each graph is prepared once, and one matrix product gives all pairs: of members of sets, of counts of labels, or of
normalised scores. `Comparable` must have checked the graphs. If a graph has no effect at a site, its kept units are
arbitrary: node overlap is NaN there, and both circuits of a pair lose the site's nodes and edges.

Circuits are compared by numbers. A node's number is its place among all units of all sites, so numbers of two circuits
mean the same units only if their sites have equally many units. The Weisfeiler-Lehman subtree kernel (Shervashidze et
al. 2011, JMLR 12):

1. labels start as the nodes' numbers, so only the same unit has the same label in two circuits;
2. ``depth`` times each becomes (label, labels of its successors without order), hashed to 64 bits;
3. a circuit is the histogram of its labels at each depth; the kernel sums the inner products of the histograms of two
   circuits over depths, divided by the geometric mean of each with itself.

Two different labels get the same hash with a probability of about 1e-12 in a pair of circuits of RN50.
"""

from collections.abc import Callable, Collection, Sequence
from functools import cache
from itertools import combinations_with_replacement, product
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Int
from scipy import sparse, stats

from circuitry.circuits.graph import Circuit, Scores

_Matrix = Float[np.ndarray, "graphs graphs"]
_Histogram = tuple[np.ndarray, np.ndarray]
"""Sorted labels and their counts."""


class CircuitArrays(NamedTuple):
    """Nodes and edges of a circuit by number."""

    nodes: Int[np.ndarray, " nodes"]
    tails: Int[np.ndarray, " edges"]
    heads: Int[np.ndarray, " edges"]
    n_units: int
    """Units of all sites together."""

    @property
    def edges(self) -> Int[np.ndarray, " edges"]:
        """A number for each edge."""
        numbers: np.ndarray = self.tails * self.n_units + self.heads
        return numbers


_NO_UNITS = np.zeros(0, np.int64)


def node_overlap_matrices(
    circuits: Sequence[Circuit],
) -> dict[str | None, np.ndarray]:
    """Return, by site, the Jaccard index of the units of every two circuits."""
    matrices: dict[str | None, np.ndarray] = {}
    for site in circuits[0].source.inner_sites:
        alike = [site in circuit.source.sites_without_effect for circuit in circuits]
        unknown = np.array(alike)
        units = [circuit.units.get(site, _NO_UNITS) for circuit in circuits]
        overlap = _jaccard_matrix(units)
        matrices[site] = np.where(unknown | unknown[:, None], np.nan, overlap)
    return matrices


def edge_jaccard_matrix(circuits: Sequence[Circuit]) -> _Matrix:
    """Return the Jaccard index of the edges of every two circuits."""
    return _by_left_out(
        circuits, lambda arrays: [_jaccard_matrix([one.edges for one in arrays])]
    )[0]


def wl_matrices(circuits: Sequence[Circuit], depth: int) -> list[np.ndarray]:
    """Return the normalised Weisfeiler-Lehman kernel of every two circuits at depths 0 to ``depth``."""

    def kernels(arrays: Sequence[CircuitArrays]) -> list[np.ndarray]:
        histograms = [label_histograms(one, depth) for one in arrays]
        products = [
            _products([one[level] for one in histograms]) for level in range(depth + 1)
        ]
        return [_normalised(kernel) for kernel in np.cumsum(products, axis=0)]

    return _by_left_out(circuits, kernels)


def score_matrices(
    scores: Sequence[Scores], compare: Callable[[np.ndarray], np.ndarray]
) -> dict[str | None, np.ndarray]:
    """Return, by site, how every two scores of all units compare."""
    return {
        site: compare(np.stack([one.node_scores[site] for one in scores]).astype(float))
        for site in scores[0].inner_sites
    }


def edge_spearman_matrix(circuits: Sequence[Circuit]) -> _Matrix:
    """Return Spearman's correlation of the edge scores of every two circuits, over the edges that either scores.

    The circuit shift score of arXiv 2604.08192, where all circuits score the same edges. Here scores are of edges
    between kept units only; other edges count as 0.
    """
    scored = cache(lambda i, left_out: _scored_edges(circuits[i], left_out))
    without = [circuit.source.sites_without_effect for circuit in circuits]
    matrix = np.empty((len(circuits), len(circuits)))
    for i, j in combinations_with_replacement(range(len(circuits)), 2):
        left_out = without[i] | without[j]
        both = (scored(i, left_out), scored(j, left_out))
        edges = np.union1d(both[0][0], both[1][0])
        rows = np.zeros((2, len(edges)))
        for row, (numbers, scores) in zip(rows, both, strict=True):
            row[np.searchsorted(edges, numbers)] = scores
        similar = spearman_matrix(rows)[0, 1] if len(edges) else np.nan
        matrix[i, j] = matrix[j, i] = similar
    return matrix


def _numbering(scores: Scores) -> tuple[dict[str, int], int]:
    """Return the number of each site's first unit, and how many units all sites have."""
    *first, n_units = np.cumsum(
        [0, *(len(scores.node_scores[site]) for site in scores.inner_sites)]
    ).tolist()
    return dict(zip(scores.inner_sites, first, strict=True)), n_units


def _scored_edges(
    circuit: Circuit, left_out: Collection[str]
) -> tuple[np.ndarray, np.ndarray]:
    """Return the numbers and scores of all edges that have some, except for edges at the sites left out."""
    starts, n_units = _numbering(circuit.source)
    edges = circuit.scored_edges
    numbers = [np.empty(0, np.int64)]
    values = [np.empty(0)]
    for (up, down), scores in edges.scores.items():
        if up not in left_out and down not in left_out:
            tails = starts[up] + edges.units[up]
            heads = starts[down] + edges.units[down]
            numbers.append((tails[None, :] * n_units + heads[:, None]).ravel())
            values.append(scores.ravel())
    return np.concatenate(numbers), np.concatenate(values)


def _by_left_out(
    circuits: Sequence[Circuit],
    measure: Callable[[Sequence[CircuitArrays]], list[np.ndarray]],
) -> list[np.ndarray]:
    """Return matrices of pairs of circuits, each without the sites where one of the two has no effect."""
    own = [circuit.source.sites_without_effect for circuit in circuits]
    found: list[np.ndarray] = []
    for left_out in {a | b for a, b in product(set(own), repeat=2)}:
        matrices = measure([circuit_arrays(circuit, left_out) for circuit in circuits])
        chosen: Bool[np.ndarray, "graphs graphs"] = np.array(
            [[a | b == left_out for b in own] for a in own]
        )
        before = found or [np.full(matrix.shape, np.nan) for matrix in matrices]
        found = [
            np.where(chosen, new, old)
            for new, old in zip(matrices, before, strict=True)
        ]
    return found


def _products(histograms: Sequence[tuple[np.ndarray, np.ndarray]]) -> np.ndarray:
    """Return the inner products of histograms."""
    labels = [labels for labels, _ in histograms]
    _, columns = np.unique(np.concatenate(labels), return_inverse=True)
    rows = np.repeat(np.arange(len(labels)), [len(one) for one in labels])
    counts = np.concatenate([counts for _, counts in histograms]).astype(float)
    width = int(columns.max(initial=-1)) + 1
    matrix = sparse.csr_array(
        (counts, (rows, columns)), shape=(len(labels), max(width, 1))
    )
    products: np.ndarray = (matrix @ matrix.T).toarray()
    return products


def _jaccard_matrix(sets: Sequence[np.ndarray]) -> np.ndarray:
    """Return the Jaccard index of every two sets of numbers (each number once); NaN of two empty sets."""
    common = _products([(one, np.ones(len(one))) for one in sets])
    sizes = np.diag(common)
    union = sizes + sizes[:, None] - common
    return np.asarray(
        np.divide(common, union, out=np.full(union.shape, np.nan), where=union > 0)
    )


def _normalised(kernel: np.ndarray) -> np.ndarray:
    """Return a kernel divided by the geometric mean of both diagonal values; NaN where one is zero."""
    both = np.sqrt(
        np.outer(np.diag(kernel), np.diag(kernel))
    )  # on the diagonal exactly the value itself
    return np.asarray(
        np.divide(kernel, both, out=np.full(kernel.shape, np.nan), where=both > 0)
    )


def spearman_matrix(rows: Float[np.ndarray, "rows numbers"]) -> np.ndarray:
    """Return Spearman's correlation of every two rows, NaN of constants."""
    constant = np.ptp(rows, axis=1) == 0
    ranks = stats.rankdata(rows, axis=1)
    return cosine_matrix(
        np.where(constant[:, None], 0.0, ranks - ranks.mean(1, keepdims=True))
    )


def cosine_matrix(rows: Float[np.ndarray, "rows numbers"]) -> np.ndarray:
    """Return the cosine of every two rows, NaN of zeros."""
    return np.asarray(_normalised(rows @ rows.T).clip(-1, 1))


def circuit_arrays(circuit: Circuit, without: Collection[str] = ()) -> CircuitArrays:
    """Return a circuit in numbers, without some sites: their nodes, and the edges that begin or end there."""
    source = circuit.source
    starts, n_units = _numbering(source)
    numbers = {
        site: start + circuit.units[site]
        for site, start in starts.items()
        if site in circuit.units and site not in without
    }
    nodes, tails, heads = [*numbers.values()], [], []
    for (up, down), (rows, columns) in circuit.its_edges.places.items():
        if up in numbers and down in numbers:
            tails.append(numbers[up][columns])
            heads.append(numbers[down][rows])
    none = np.empty(0, np.int64)
    joined = [np.concatenate([none, *parts]) for parts in (nodes, tails, heads)]
    return CircuitArrays(joined[0], joined[1], joined[2], n_units)


def label_histograms(circuit: CircuitArrays, depth: int) -> list[_Histogram]:
    """Return the histogram of labels at each depth; equal labels have equal hashes in all circuits.

    A multiset of labels is hashed by the sum of its members' hashes, so that successors need no sorting.
    """
    order = np.argsort(circuit.nodes)
    numbers = circuit.nodes[order]
    tail, head = (
        np.searchsorted(numbers, ends) for ends in (circuit.tails, circuit.heads)
    )
    labels = _scrambled(numbers.astype(np.uint64))
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
