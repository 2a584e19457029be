"""How similar are two circuits? Node overlap, edge Jaccard, Weisfeiler-Lehman kernel, rank measures.

Graphs can only be compared if they have the same units and were found in the same way; `comparable` checks this. If all
scores of a site are zero in one of two circuits, its kept units are arbitrary. Then the node overlap of the site is
NaN, and the other measures ignore the nodes and edges of this site in both circuits. The similarity of circuits without
any effect is NaN.

This module compares two graphs; `similarity_matrix` computes all pairs of several graphs, and `across_domains` compares
sets of graphs. `chance_overlap` computes the chance level of node overlap, which is the expected overlap of random
units. `permuted_units` serves to estimate the chance level of measures without a closed form.

Does not import torch.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import combinations_with_replacement
from typing import Annotated

import numpy as np
from scipy import stats

from circuitry.circuits.comparable import check_comparable
from circuitry.circuits.graph import AttributionGraph, Circuit
from circuitry.circuits.returned_numbers import numbers_in
from circuitry.circuits.similarity_matrix import (
    cosine_matrix,
    edge_jaccard_matrix,
    edge_spearman_matrix,
    node_overlap_matrices,
    score_matrices,
    spearman_matrix,
    wl_matrices,
)
from circuitry.runs.arguments import SOME, Natural, checked
from circuitry.runs.errors import InputError, shown, unknown_name
from circuitry.runs.leaves import Leaves
from circuitry.runs.provenance import digest

Matrices = dict[str | None, np.ndarray]
"""Similarities [graphs, graphs] by site; the key None holds the similarities of whole circuits."""

AtDepths = Callable[[Sequence[Circuit], Sequence[int]], Sequence[Matrices]]
"""Takes circuits and depths. Returns, for each depth, the similarities of every pair of circuits."""


def _without_depth(measure: Callable[[Sequence[Circuit]], Matrices]) -> AtDepths:
    return lambda circuits, depths: [measure(circuits)] * len(depths)


def _of_edges(measure: Callable[[Sequence[Circuit]], np.ndarray]) -> AtDepths:
    return _without_depth(lambda circuits: {None: measure(circuits)})


def _of_scores(compare: Callable[[np.ndarray], np.ndarray]) -> AtDepths:
    def measure(circuits: Sequence[Circuit]) -> Matrices:
        return score_matrices([circuit.source for circuit in circuits], compare)

    return _without_depth(measure)


def _kernels(circuits: Sequence[Circuit], depths: Sequence[int]) -> list[Matrices]:
    # The labels of a depth are computed from the labels of the depth before, so one call gives all depths.
    kernels = wl_matrices(circuits, max(depths))
    return [{None: kernels[depth]} for depth in depths]


MEASURES: dict[str, AtDepths] = {
    "node_overlap": _without_depth(node_overlap_matrices),
    "edge_jaccard": _of_edges(edge_jaccard_matrix),
    "wl_kernel": _kernels,
    "spearman": _of_scores(spearman_matrix),
    "cosine": _of_scores(cosine_matrix),
    "edge_spearman": _of_edges(edge_spearman_matrix),
}
"""Functions that compare every pair of some circuits, by the name of the measure.

``node_overlap``, ``spearman`` and ``cosine`` have a value for each site. ``edge_jaccard``, ``wl_kernel`` and
``edge_spearman`` have one value for the whole circuit.

``spearman`` and ``cosine`` compare all node scores, so they do not depend on the share of kept units. ``edge_spearman``
compares the scores of the edges that at least one of the two graphs scores (the circuit shift score of arXiv
2604.08192). ``wl_kernel`` is the study's measure. At depth 1 three quarters of its value come from the names of nodes.
So it ranks pairs of domains like node overlap does (rank correlation .99 on a small model), and is no additional
evidence.
"""


_BOUNDS: dict[str, tuple[float, float]] = {}
"""The smallest and the largest possible similarity by the name of a registered measure. Measures of the package are in
[-1, 1]."""
_ROUNDING = 1e-6
"""How far rounding may move a similarity out of its bounds."""


@checked
def register_measure(
    name: Annotated[str, SOME],
    function: Callable[[Sequence[Circuit]], Matrices],
    *,
    bounds: tuple[float, float] = (0.0, 1.0),
) -> None:
    """Register a measure of similarity, so that `similarity`, `compare`, `compare_domains` and reports accept its name.

    Args:
        name: Name of the measure. It replaces a measure of the same name.
        function: Takes a list of circuits, which are already checked to be comparable. Returns a dictionary of matrices
            [circuits, circuits] with the similarity of every pair: one matrix per site, or a single matrix with the key
            None for whole circuits. A matrix is symmetric. NaN marks an undefined similarity. Comparisons with this
            measure store a digest of the function's code, as graphs do for `register_method`.
        bounds: The smallest and the largest possible similarity, such as (-1.0, 1.0) for a correlation.

    Example:
        >>> def as_many_edges(circuits):
        ...     counts = np.array([circuit.count for circuit in circuits])
        ...     return {None: np.minimum.outer(counts, counts) / np.maximum.outer(counts, counts)}
        >>> register_measure("as_many_edges", as_many_edges)
        >>> list(circuitry.compare(graphs, "as_many_edges").columns)
        ['class', 'domain_a', 'domain_b', 'site', 'value']
    """
    low, high = bounds
    # NaN is not below anything.
    if not low < high:
        raise InputError(
            f"Expected the smallest and the largest similarity as bounds, but {bounds} was given for the measure "
            f"{name!r}: give two numbers, the smaller one first."
        )
    MEASURES[name] = _without_depth(function)
    _BOUNDS[name] = bounds


def measure_code(name: str) -> str | dict[str, str]:
    """Return the entry that identifies the code of a measure in the identity of a comparison.

    Returns:
        For a measure of the package, its name. For a registered measure, the digest of its function; or if some values
        that the function uses cannot be read, a dictionary that names these values.
    """
    leaves = Leaves()
    code = leaves.read(MEASURES[name], f"the measure {name!r}")
    # Functions with the same readable values may still differ in the unreadable values, so no digest is returned.
    if leaves.unknown:
        return leaves.unknown
    return digest(code) if leaves.foreign else name


@checked
@dataclass(frozen=True)
class Measure:
    """A measure of similarity, given by its name in `MEASURES`.

    The depth is used only by the Weisfeiler-Lehman kernel (``wl_kernel``). All other measures ignore it.

    Example:
        >>> circuitry.circuits.Measure("wl_kernel", depth=2).label
        'wl_kernel_depth_2'
    """

    name: str  #: A name of `MEASURES`.
    depth: Natural = 1
    """Number of relabelling rounds of the kernel. All other measures ignore it."""

    def __post_init__(self) -> None:
        if self.name not in MEASURES:
            raise unknown_name("measure", self.name, MEASURES)

    @property
    def label(self) -> str:
        """The name in tables and files.

        It is the name of the measure. If the measure is the Weisfeiler-Lehman kernel and its depth is not 1, the depth
        is appended.
        """
        if self.name == "wl_kernel" and self.depth != 1:
            return f"{self.name}_depth_{self.depth}"
        return self.name


def as_measure(measure: str | Measure) -> Measure:
    """Return the measure with the given name, at depth 1. A `Measure` is returned unchanged."""
    return Measure(measure) if isinstance(measure, str) else measure


@checked
def node_overlap(
    a: AttributionGraph | Circuit, b: AttributionGraph | Circuit
) -> dict[str, float]:
    """Return, for each site, the Jaccard index ``|A & B| / |A | B|`` of the kept units; the image itself is left out.

    The index is NaN at a site where all scores of one of the circuits (or of both) are zero, because its kept units are
    arbitrary there.

    Raises:
        InputError: if the graphs cannot be compared, because they differ in sites, units, settings or model, or because
            a score is not finite.

    Example:
        >>> circuitry.node_overlap(graph, graph)["layer3.0"]
        1.0
    """
    # Edges are ignored, so a graph becomes a circuit without edges.
    if isinstance(a, AttributionGraph):
        a = a.circuit(None)
    if isinstance(b, AttributionGraph):
        b = b.circuit(None)
    check_comparable(a.source, b.source)
    matrices = node_overlap_matrices([a, b])
    return {str(site): float(matrix[0, 1]) for site, matrix in matrices.items()}


@checked
def edge_jaccard(a: Circuit, b: Circuit) -> float:
    """Return the Jaccard index ``|E1 & E2| / |E1 | E2|`` of the edges of two circuits, in [0, 1].

    Two edges are the same if they join the same two nodes. Edges at a site where all scores of one of the circuits are
    zero are left out. The index is NaN if neither circuit has any edges left.

    Example:
        >>> photos, sketches = graphs["clock", "real"], graphs["clock", "sketch"]
        >>> 0 <= circuitry.edge_jaccard(photos.circuit(3), sketches.circuit(3)) <= 1
        True
    """
    _check_circuits(a, b)
    return float(edge_jaccard_matrix([a, b])[0, 1])


@checked
def wl_kernel(a: Circuit, b: Circuit, depth: Natural = 1) -> float:
    """Return the normalised Weisfeiler-Lehman subtree kernel of two circuits, in [0, 1].

    The kernel counts what both circuits have: units, and trees of edges that lead onward from a unit for up to
    ``depth`` steps (Shervashidze et al. 2011, JMLR 12; `similarity_matrix` describes the computation). A site where all
    scores of one of the circuits are zero is left out. The kernel is NaN if one of the circuits has no units left.

    Example:
        >>> circuitry.wl_kernel(circuit, circuit, depth=1)
        1.0
    """
    _check_circuits(a, b)
    return float(wl_matrices([a, b], depth)[depth][0, 1])


@checked
def similarity(
    a: AttributionGraph, b: AttributionGraph, measure: str | Measure
) -> dict[str | None, float]:
    """Return the similarity of two graphs by any of `MEASURES`, for each site or under None for the whole circuit.

    The similarity is NaN where it is undefined, for example if all scores of one of the graphs are equal (``spearman``,
    ``edge_spearman``) or zero (``cosine``).

    Example:
        >>> round(circuitry.circuits.similarity(graph, graph, "spearman")["layer3.0"], 6)
        1.0
    """
    wanted = as_measure(measure)
    check_comparable(a, b)
    matrices = similarity_matrices([a, b], [wanted])[wanted]
    return {site: float(matrix[0, 1]) for site, matrix in matrices.items()}


def depth_bias(graph: AttributionGraph) -> float:
    """Return log(mass of the deeper half of the sites / mass of the earlier half).

    The mass of a site is the sum of the absolute scores of its units. The image is ignored, and so is the middle site
    if the number of sites is odd. A positive value means that the circuit is deep. The value is NaN if one of the
    halves has mass zero. The measure follows the dependency depth bias of arXiv 2604.08192.

    Example:
        >>> isinstance(circuitry.circuits.depth_bias(graph), float)
        True
    """
    graph.check_finite()
    mass = [float(np.abs(graph.node_scores[site]).sum()) for site in graph.inner_sites]
    half = len(mass) // 2
    shallow = sum(mass[:half])
    # Not mass[-half:], which would be the whole list if half is 0.
    deep = sum(mass[len(mass) - half :])
    if not shallow or not deep:
        return float("nan")
    return float(np.log(deep / shallow))


def similarity_matrices(
    graphs: Sequence[AttributionGraph],
    measures: Sequence[Measure],
    edges_per_node: int = 3,
    any_sign: bool = False,
) -> dict[Measure, Matrices]:
    """Return the similarities of every pair of graphs, for each of several measures.

    The graphs must already be checked with `Comparable`.

    Args:
        graphs: The graphs.
        measures: The measures.
        edges_per_node, any_sign: How a circuit is cut out of each graph; see `AttributionGraph.circuit`.
    """
    circuits = [graph.circuit(edges_per_node, any_sign=any_sign) for graph in graphs]
    # One call for all depths of a measure: the kernel makes its labels once.
    by_name: dict[str, list[Measure]] = {}
    for measure in measures:
        by_name.setdefault(measure.name, []).append(measure)
    matrices: dict[Measure, Matrices] = {}
    for name, of_depths in by_name.items():
        returned = MEASURES[name](circuits, [measure.depth for measure in of_depths])
        for measure, at_depth in zip(of_depths, returned, strict=True):
            matrices[measure] = _as_matrices(name, at_depth, circuits)
    return {measure: matrices[measure] for measure in measures}


def _as_matrices(name: str, given: object, circuits: Sequence[Circuit]) -> Matrices:
    """Return the similarities that a measure returned, as arrays [circuits, circuits] by site.

    The measure may be registered from outside, and its function may return anything. So raise `InputError` unless it
    returned numbers for all pairs of circuits, within the bounds of the measure.
    """
    n_circuits = len(circuits)
    if not isinstance(given, Mapping) or not given:
        raise _no_similarities(name, n_circuits, f"it returned {shown(given)}")
    sites = set(circuits[0].source.node_scores)
    if set(given) != {None} and not sites.issuperset(given):
        elsewhere = [site for site in given if site not in sites]
        raise _no_similarities(
            name, n_circuits, f"it returned some for {shown(elsewhere[0])}"
        )
    low, high = _BOUNDS.get(name, (-1.0, 1.0))
    matrices: Matrices = {}
    for site, values in given.items():
        where = "for the whole circuit" if site is None else f"at {site}"
        matrix = numbers_in(values)
        if matrix is None or matrix.shape != (n_circuits, n_circuits):
            raise _no_similarities(
                name, n_circuits, f"{where} it returned {shown(values)}"
            )
        # NaN, which is allowed, is neither below nor above a bound.
        outside = matrix[(matrix < low - _ROUNDING) | (matrix > high + _ROUNDING)]
        if len(outside):
            raise _no_similarities(
                name,
                n_circuits,
                f"{where} one is {float(outside[0]):.4g}, out of its bounds {low:g} and {high:g}",
                ", or give register_measure its bounds",
            )
        if not np.allclose(matrix, matrix.T, rtol=0, atol=_ROUNDING, equal_nan=True):
            raise _no_similarities(
                name, n_circuits, f"{where} the two orders of a pair differ"
            )
        matrices[site] = matrix.astype(float)
    return matrices


def _no_similarities(
    name: str, n_circuits: int, given: str, or_else: str = ""
) -> InputError:
    return InputError(
        f"Expected the measure {name!r} to return the similarities [{n_circuits}, {n_circuits}] of every two of "
        f"{n_circuits} circuits by site, or under None for the whole circuit, but {given}: correct its "
        f"function{or_else}."
    )


def permuted_units(
    graph: AttributionGraph, rng: np.random.Generator
) -> AttributionGraph:
    """Return a graph whose units are permuted at random within each site.

    The scores of a site stay the same numbers, but they belong to other units. So the similarity of this graph to
    another graph is at chance level.
    """
    scores = dict(graph.node_scores)
    importance = dict(graph.importance or {})
    kept_units = dict(graph.kept_units)
    for site in graph.node_scores:
        # Unit i becomes unit places[i], so the new unit j takes the values of unit old[j].
        places = rng.permutation(len(scores[site]))
        old = np.argsort(places)
        scores[site] = scores[site][old]
        if site in importance:
            importance[site] = importance[site][old]
        if site in kept_units:
            kept_units[site] = places[kept_units[site]]
    # The blocks of edge scores do not change: their rows and columns are the kept units, which stay in their order.
    return replace(
        graph,
        node_scores=scores,
        importance=importance or None,
        kept_units=kept_units,
    )


def chance_overlap(units: Natural, kept_a: int, kept_b: int) -> float:
    """Return the expected Jaccard index of two independent random subsets of a site's units.

    The number i of common units has a hypergeometric distribution. The Jaccard index of subsets of the sizes a and b is
    i / (a + b - i).

    Args:
        units: Number of units of the site.
        kept_a, kept_b: Numbers of units in the two subsets.

    Example:
        >>> circuitry.circuits.chance_overlap(units=512, kept_a=52, kept_b=52)
        0.0539...
    """
    if not (0 <= kept_a <= units and 0 <= kept_b <= units and kept_a + kept_b > 0):
        raise InputError(
            f"Two subsets of {units} units need 0 to {units} members, and one of them at least 1, but {kept_a} and "
            f"{kept_b} were given."
        )
    overlap = np.arange(min(kept_a, kept_b) + 1)
    probability = stats.hypergeom.pmf(overlap, units, kept_a, kept_b)
    return float(probability @ (overlap / (kept_a + kept_b - overlap)))


def mean_chance_overlap(units: int, kept: Mapping[int, int]) -> float:
    """Return the mean of `chance_overlap` over all pairs of several subsets, such as the kept units of several graphs.

    If there is only one subset, the result is its `chance_overlap` with another subset of the same size. The mean is
    NaN if all subsets are empty.

    Args:
        units: Number of units of the site.
        kept: A mapping from the size of subsets to the number of subsets of this size.
    """
    total = 0.0
    n_pairs = 0
    for a, b in combinations_with_replacement(kept, 2):
        if a != b:
            n_of_sizes = kept[a] * kept[b]
        else:
            n_of_sizes = kept[a] * (kept[a] - 1) // 2
            # A single subset forms no pair, so its expected overlap with another subset of the same size is taken.
            if len(kept) == 1 and not n_of_sizes:
                n_of_sizes = 1
        # Two empty subsets have no Jaccard index.
        if a + b and n_of_sizes:
            total += n_of_sizes * chance_overlap(units, a, b)
            n_pairs += n_of_sizes
    return total / n_pairs if n_pairs else float("nan")


def _check_circuits(a: Circuit, b: Circuit) -> None:
    check_comparable(a.source, b.source)
    for name in ("edges_per_node", "any_sign"):
        of_a = a.made_with.get(name)
        of_b = b.made_with.get(name)
        if of_a != of_b:
            raise InputError(
                f"Compared circuits are cut alike, but these have {name} {of_a} and {of_b}: cut both with one."
            )
