"""Similarities of every pair of several graphs, as a matrix for each measure.

Each graph is prepared once. Then one matrix product gives the values of all pairs. Depending on the measure, the
product counts common members of sets, multiplies counts of labels, or multiplies normalised scores. The graphs must
already be checked with `Comparable`. If a graph has no effect at a site, its kept units are arbitrary there. So in
every pair with this graph the node overlap of the site is NaN, and the other measures ignore the nodes and edges of the
site in both circuits.

Nodes have numbers: the number of a node is its index among all units of all sites. So two circuits can only be compared
if their sites have equally many units. The Weisfeiler-Lehman subtree kernel (Shervashidze et al. 2011, JMLR 12) is
computed as follows:

1. The first label of a node is its number, so only the same unit has the same label in two circuits.
2. Then ``depth`` times, each label becomes the pair (label, unordered labels of the node's successors), hashed to 64
   bits.
3. At each depth, a circuit is represented by the histogram of its labels. The kernel of two circuits is the sum over
   depths of the inner product of their histograms. It is divided by the geometric mean of the kernels of each circuit
   with itself.

Two different labels get the same hash with a probability of about 1e-12 in a pair of circuits of RN50.

Does not import torch.
"""

from collections.abc import Callable, Collection, Sequence
from functools import cache
from itertools import combinations_with_replacement, product
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int
from scipy import sparse, stats

from circuitry.circuits.graph import Circuit, Scores

_Matrix = Float[np.ndarray, "graphs graphs"]
_Histogram = tuple[np.ndarray, np.ndarray]
"""Sorted labels and their counts."""


class CircuitArrays(NamedTuple):
    """Nodes and edges of a circuit, as arrays of numbers.

    The number of a node is its index among all units of all sites.
    """

    nodes: Int[np.ndarray, " nodes"]
    """Number of each node."""
    tails: Int[np.ndarray, " edges"]
    """Number of the upstream node of each edge."""
    heads: Int[np.ndarray, " edges"]
    """Number of the downstream node of each edge."""
    n_units: int
    """Number of units of all sites together."""

    @property
    def edges(self) -> Int[np.ndarray, " edges"]:
        """A number for each edge, which is different for different pairs of nodes."""
        numbers: np.ndarray = self.tails * self.n_units + self.heads
        return numbers


_NO_UNITS = np.zeros(0, np.int64)


def node_overlap_matrices(
    circuits: Sequence[Circuit],
) -> dict[str | None, np.ndarray]:
    """Return, by site, the Jaccard index of the units of every pair of circuits."""
    matrices: dict[str | None, np.ndarray] = {}
    for site in circuits[0].source.inner_sites:
        units = []
        without_effect = []
        for circuit in circuits:
            units.append(circuit.units.get(site, _NO_UNITS))
            without_effect.append(site in circuit.source.sites_without_effect)
        # The overlap of a pair is arbitrary even if the units of only one circuit are arbitrary.
        unknown = np.logical_or.outer(without_effect, without_effect)
        matrices[site] = np.where(unknown, np.nan, jaccard_matrix(units))
    return matrices


def edge_jaccard_matrix(circuits: Sequence[Circuit]) -> _Matrix:
    """Return the Jaccard index of the edges of every pair of circuits."""

    def jaccard(arrays: Sequence[CircuitArrays]) -> list[np.ndarray]:
        return [jaccard_matrix([circuit.edges for circuit in arrays])]

    return _by_left_out(circuits, jaccard)[0]


def wl_matrices(circuits: Sequence[Circuit], depth: int) -> list[np.ndarray]:
    """Return a matrix for each depth from 0 to ``depth``: the normalised Weisfeiler-Lehman kernels of the circuits."""

    def kernels(arrays: Sequence[CircuitArrays]) -> list[np.ndarray]:
        histograms = [label_histograms(circuit, depth) for circuit in arrays]
        # Transposed: the histograms of all circuits at each level.
        products = [_products(of_level) for of_level in zip(*histograms, strict=True)]
        # The kernel of a depth counts equal labels of all levels up to this depth.
        return [_normalised(kernel) for kernel in np.cumsum(products, axis=0)]

    return _by_left_out(circuits, kernels)


def score_matrices(
    scores: Sequence[Scores], compare: Callable[[np.ndarray], np.ndarray]
) -> dict[str | None, np.ndarray]:
    """Return, by site, the similarities of the scores of all units, for every pair of graphs.

    Args:
        scores: The scores of the graphs.
        compare: Function that takes scores [graphs, units] and returns similarities [graphs, graphs].
    """
    matrices: dict[str | None, np.ndarray] = {}
    for site in scores[0].inner_sites:
        rows = np.stack([of_graph.node_scores[site] for of_graph in scores])
        # Scores may be in single precision, too coarse for sums over all units.
        matrices[site] = compare(rows.astype(float))
    return matrices


def edge_spearman_matrix(circuits: Sequence[Circuit]) -> _Matrix:
    """Return Spearman's correlation of the edge scores of every pair of circuits.

    The correlation of a pair is taken over all edges that at least one of the two circuits scores. A circuit only
    scores edges between its kept units, so an edge that it does not score counts as 0. If all circuits score the same
    edges, this is the circuit shift score of arXiv 2604.08192.
    """
    scored = cache(lambda i, left_out: _scored_edges(circuits[i], left_out))
    without = [circuit.source.sites_without_effect for circuit in circuits]
    matrix = np.empty((len(circuits), len(circuits)))
    for i, j in combinations_with_replacement(range(len(circuits)), 2):
        left_out = without[i] | without[j]
        numbers_i, scores_i = scored(i, left_out)
        numbers_j, scores_j = scored(j, left_out)
        edges = np.union1d(numbers_i, numbers_j)
        similarity = np.nan
        if len(edges):
            rows = np.zeros((2, len(edges)))
            # The union is sorted, and an edge that a graph does not score stays 0.
            rows[0, np.searchsorted(edges, numbers_i)] = scores_i
            rows[1, np.searchsorted(edges, numbers_j)] = scores_j
            similarity = spearman_matrix(rows)[0, 1]
        matrix[i, j] = similarity
        matrix[j, i] = similarity
    return matrix


def _numbering(scores: Scores) -> tuple[dict[str, int], int]:
    """Return the number of the first unit of each site, and the total number of units.

    Units are numbered from 0, through all sites in turn.
    """
    starts = {}
    n_units = 0
    for site in scores.inner_sites:
        starts[site] = n_units
        n_units += len(scores.node_scores[site])
    return starts, n_units


def _scored_edges(
    circuit: Circuit, left_out: Collection[str]
) -> tuple[np.ndarray, np.ndarray]:
    """Return the numbers of all scored edges, and their scores, except for edges at the sites in ``left_out``.

    The number of an edge identifies it in every circuit, see `CircuitArrays.edges`.
    """
    starts, n_units = _numbering(circuit.source)
    edges = circuit.scored_edges
    # The lists start with empty arrays, because numpy cannot concatenate an empty list.
    numbers = [np.empty(0, np.int64)]
    values = [np.empty(0)]
    for (up, down), scores in edges.scores.items():
        if up not in left_out and down not in left_out:
            tails = starts[up] + edges.units[up]
            heads = starts[down] + edges.units[down]
            # The numbers of `CircuitArrays.edges`, in the layout [downstream, upstream] of the scores.
            numbers.append((tails[None, :] * n_units + heads[:, None]).ravel())
            values.append(scores.ravel())
    return np.concatenate(numbers), np.concatenate(values)


def _by_left_out(
    circuits: Sequence[Circuit],
    measure: Callable[[Sequence[CircuitArrays]], list[np.ndarray]],
) -> list[np.ndarray]:
    """Return the matrices of a measure, in which each pair of circuits is compared without some sites.

    These are the sites where one of the two circuits has no effect, because the scores of all units there are zero.

    Args:
        circuits: The circuits.
        measure: Takes the circuits as arrays. Returns one or several matrices [circuits, circuits] of similarities.
    """
    # Pairs of circuits by the set of sites that they leave out. Nearly always only the empty set occurs, so one call of
    # the measure gives all pairs. Each further set needs another call.
    without = [circuit.source.sites_without_effect for circuit in circuits]
    pairs: dict[frozenset[str], list[tuple[int, int]]] = {}
    for (i, of_i), (j, of_j) in product(enumerate(without), repeat=2):
        pairs.setdefault(of_i | of_j, []).append((i, j))
    joined: list[np.ndarray] = []
    for left_out, chosen in pairs.items():
        matrices = measure([circuit_arrays(circuit, left_out) for circuit in circuits])
        if not joined:
            joined = [np.full(matrix.shape, np.nan) for matrix in matrices]
        rows, columns = np.transpose(chosen)
        for matrix, whole in zip(matrices, joined, strict=True):
            whole[rows, columns] = matrix[rows, columns]
    return joined


def _products(histograms: Sequence[tuple[np.ndarray, np.ndarray]]) -> np.ndarray:
    """Return the inner products [histograms, histograms] of every pair of histograms."""
    # A sparse matrix [histograms, labels]. Labels are numbered first, since a label may be any of 2^64 hashes.
    labels, counts = zip(*histograms, strict=True)
    _, columns = np.unique(np.concatenate(labels), return_inverse=True)
    rows = np.repeat(np.arange(len(labels)), list(map(len, labels)))
    entries = np.concatenate(counts).astype(float)
    # At least one column, because all circuits may be empty, and scipy has no matrix without columns.
    width = max(columns.max(initial=-1) + 1, 1)
    matrix = sparse.csr_array((entries, (rows, columns)), shape=(len(labels), width))
    products: np.ndarray = (matrix @ matrix.T).toarray()
    return products


def jaccard_matrix(sets: Sequence[np.ndarray]) -> _Matrix:
    """Return the Jaccard index of every pair of sets of distinct numbers; NaN for two empty sets."""
    # A set is treated as a histogram in which each member counts once. So its product with itself is its size.
    common = _products([(members, np.ones(len(members))) for members in sets])
    sizes = np.diag(common)
    return _quotient(common, sizes + sizes[:, None] - common)


def chance_matrix(
    kinds: Sequence[Int[np.ndarray, " members"]], n_of_kind: Int[np.ndarray, " kinds"]
) -> _Matrix:
    """Return the Jaccard index that is expected for every pair of random sets; NaN for two empty sets.

    A random set has as many members of each kind as a given set. The expected sizes of intersection and union are
    summed over kinds, and then divided.

    Args:
        kinds: For each given set, the kind of each of its members. Kinds are numbered from 0.
        n_of_kind: The number of things of each kind, from which random members are drawn.
    """
    histograms = list[_Histogram]()
    for of_set in kinds:
        names, counts = np.unique(of_set, return_counts=True)
        # Two draws of k and l out of n have k l / n in common in the mean: products of counts over the root of n.
        histograms.append((names, counts / np.sqrt(n_of_kind[names])))
    common = _products(histograms)
    sizes = np.array([len(of_set) for of_set in kinds])
    return _quotient(common, sizes + sizes[:, None] - common)


def _normalised(kernel: np.ndarray) -> np.ndarray:
    """Return a kernel with each entry divided by the geometric mean of the diagonal entries of its row and its column.

    The result is NaN where one of these diagonal entries is zero.
    """
    # The root of the product, not the product of the roots, so that the diagonal is divided by exactly itself.
    both = np.sqrt(np.outer(np.diag(kernel), np.diag(kernel)))
    return _quotient(kernel, both)


def _quotient(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Return a / b; NaN where b is not positive."""
    quotient: np.ndarray = np.divide(a, b, out=np.full(b.shape, np.nan), where=b > 0)
    return quotient


def spearman_matrix(rows: Float[np.ndarray, "rows numbers"]) -> np.ndarray:
    """Return Spearman's correlation of every pair of rows; NaN if one of the rows is constant."""
    ranks = stats.rankdata(rows, axis=1)
    centred = ranks - ranks.mean(1, keepdims=True)
    # Centred ranks of a constant row may differ from 0 by rounding. Exact zeros make the cosine NaN.
    centred[np.ptp(rows, axis=1) == 0] = 0
    return cosine_matrix(centred)


def cosine_matrix(rows: Float[np.ndarray, "rows numbers"]) -> np.ndarray:
    """Return the cosine of every pair of rows; NaN if one of the rows is zero."""
    return np.asarray(_normalised(rows @ rows.T).clip(-1, 1))


def circuit_arrays(circuit: Circuit, without: Collection[str] = ()) -> CircuitArrays:
    """Return the nodes and edges of a circuit as numbers that identify them in every circuit.

    Nodes at the sites in ``without``, and edges that begin or end at these sites, are left out.
    """
    source = circuit.source
    starts, n_units = _numbering(source)
    numbers = {}
    for site, start in starts.items():
        if site in circuit.units and site not in without:
            numbers[site] = start + circuit.units[site]
    tails = [_NO_UNITS]
    heads = [_NO_UNITS]
    for (up, down), (rows, columns) in circuit.its_edges.places.items():
        if up in numbers and down in numbers:
            tails.append(numbers[up][columns])
            heads.append(numbers[down][rows])
    return CircuitArrays(
        np.concatenate([_NO_UNITS, *numbers.values()]),
        np.concatenate(tails),
        np.concatenate(heads),
        n_units,
    )


def label_histograms(circuit: CircuitArrays, depth: int) -> list[_Histogram]:
    """Return the histogram of the nodes' labels at each depth from 0 to ``depth``.

    Labels are hashed to 64 bits. A label has the same hash in every circuit, so histograms of several circuits can be
    compared. The labels of a node's successors are unordered, so they enter the new label as the sum of their hashes.
    """
    # Edges refer to nodes by their numbers. A search in the sorted numbers finds the indices.
    numbers = np.sort(circuit.nodes)
    tails = np.searchsorted(numbers, circuit.tails)
    heads = np.searchsorted(numbers, circuit.heads)
    labels = _scrambled(numbers.astype(np.uint64))
    histograms = [np.unique(labels, return_counts=True)]
    for level in range(1, depth + 1):
        # Sums wrap around at 2^64 on purpose. add.at is used because a unit may have several successors.
        successors = np.zeros_like(labels)
        np.add.at(successors, tails, _scrambled(labels + np.uint64(level))[heads])
        # Multiplication by the odd number 3 is a bijection. After it, label and successors cannot be exchanged.
        labels = _scrambled(labels * np.uint64(3) + successors)
        histograms.append(np.unique(labels, return_counts=True))
    return histograms


def _scrambled(x: np.ndarray) -> np.ndarray:
    """Return the SplitMix64 hash of each number, a bijection that looks random (Steele et al. 2014)."""
    x = x + np.uint64(0x9E3779B97F4A7C15)
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    scrambled: np.ndarray = x ^ (x >> np.uint64(31))
    return scrambled
