"""How similar are two circuits? Node overlap, edge Jaccard, Weisfeiler-Lehman kernel, rank measures. No torch.

`comparable` refuses graphs of different units, and graphs that were found in different ways. If all scores of a site
are zero, its kept units are arbitrary: node overlap there is NaN, and both circuits lose the site's nodes and edges.
The similarity of circuits without any effect is NaN.

A pair is the smallest `similarity_matrix`; `across_domains` compares sets of graphs. `chance_overlap` is the node
overlap of random units; `permuted_units` gives the chance of measures without a closed form.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import combinations_with_replacement

import numpy as np
from scipy import stats

from circuitry.circuits.comparable import check_comparable
from circuitry.circuits.graph import AttributionGraph, Circuit
from circuitry.circuits.similarity_matrix import (
    cosine_matrix,
    edge_jaccard_matrix,
    edge_spearman_matrix,
    node_overlap_matrices,
    score_matrices,
    spearman_matrix,
    wl_matrices,
)
from circuitry.runs.arguments import Natural, checked
from circuitry.runs.errors import InputError, shown, unknown_name
from circuitry.runs.leaves import Leaves
from circuitry.runs.provenance import digest

Matrices = dict[str | None, np.ndarray]
"""Similarities [graphs, graphs] by site, or under None for the whole circuit."""

AtDepths = Callable[[Sequence[Circuit], Sequence[int]], Sequence[Matrices]]
"""Circuits and depths -> the similarity of every two of the circuits, at each depth."""


def _without_depth(measure: Callable[[Sequence[Circuit]], Matrices]) -> AtDepths:
    return lambda circuits, depths: [measure(circuits)] * len(depths)


def _of_edges(measure: Callable[[Sequence[Circuit]], np.ndarray]) -> AtDepths:
    return _without_depth(lambda circuits: {None: measure(circuits)})


def _of_scores(compare: Callable[[np.ndarray], np.ndarray]) -> AtDepths:
    def measure(circuits: Sequence[Circuit]) -> Matrices:
        return score_matrices([circuit.source for circuit in circuits], compare)

    return _without_depth(measure)


def _kernels(circuits: Sequence[Circuit], depths: Sequence[int]) -> list[Matrices]:
    # Labels of one depth are made of those before, so the deepest kernel gives all.
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
"""How every two of some circuits are compared, by the name of the measure.

``node_overlap``, ``spearman`` and ``cosine`` are per site, the others per circuit.

``spearman`` and ``cosine`` compare all node scores and need no share of kept units; ``edge_spearman`` compares the
scores of the edges that either graph scores (the circuit shift score of arXiv 2604.08192). ``wl_kernel`` is the
study's. At depth 1 three quarters of it are names of nodes, so it ranks pairs of domains like node overlap (rank
correlation .99 on a small model) and adds no evidence to it.
"""


_BOUNDS: dict[str, tuple[float, float]] = {}
"""The smallest and the largest similarity by the name of a measure from outside; the package's own are in [-1, 1]."""
_ROUNDING = 1e-6
"""How far a similarity may be out of bounds by rounding."""


def register_measure(
    name: str,
    function: Callable[[Sequence[Circuit]], Matrices],
    *,
    bounds: tuple[float, float] = (0.0, 1.0),
) -> None:
    """Make a similarity of circuits known by a name: `similarity`, `compare`, `compare_domains` and reports take it.

    Args:
        name: Its name; a measure of the same name is replaced.
        function: From circuits, which are checked to be comparable, to the similarity of every two of them [circuits,
            circuits] by site, or under None for the whole circuit; NaN where it is undefined. The digest of its code
            goes into the comparisons that it makes, as for `register_method`.
        bounds: The smallest and the largest similarity, such as (-1.0, 1.0) for a correlation.

    Example:
        >>> def as_many_edges(circuits):
        ...     counts = np.array([circuit.count for circuit in circuits])
        ...     return {None: np.minimum.outer(counts, counts) / np.maximum.outer(counts, counts)}
        >>> register_measure("as_many_edges", as_many_edges)
        >>> list(circuitry.compare(graphs, "as_many_edges").columns)
        ['class', 'domain_a', 'domain_b', 'site', 'value']
    """
    MEASURES[name] = _without_depth(function)
    _BOUNDS[name] = bounds


def measure_code(name: str) -> str | dict[str, str]:
    """Identify the code of a measure, for the identity of comparisons.

    Returns:
        The name of a measure of the package; the digest of a function from outside; the unreadable places of such a
        function, where there are some.
    """
    leaves = Leaves()
    code = leaves.read(MEASURES[name], f"the measure {name!r}")
    # Two functions with the same readable places may still differ, so a digest would say too much.
    if leaves.unknown:
        return leaves.unknown
    return digest(code) if leaves.foreign else name


@checked
@dataclass(frozen=True)
class Measure:
    """Name one of `MEASURES`, with the depth of a Weisfeiler-Lehman kernel.

    Example:
        >>> circuitry.circuits.Measure("wl_kernel", depth=2).label
        'wl_kernel_depth_2'
    """

    name: str  #: A name of `MEASURES`.
    depth: Natural = 1
    """Rounds of relabelling; other measures than the kernel ignore it."""

    def __post_init__(self) -> None:
        if self.name not in MEASURES:
            raise unknown_name("measure", self.name, MEASURES)

    @property
    def label(self) -> str:
        """The name for tables and files: that of the measure, with a depth other than 1."""
        if self.name == "wl_kernel" and self.depth != 1:
            return f"{self.name}_depth_{self.depth}"
        return self.name


def as_measure(measure: str | Measure) -> Measure:
    """Return the measure of a name, at depth 1; return a `Measure` as it is."""
    return Measure(measure) if isinstance(measure, str) else measure


@checked
def node_overlap(
    a: AttributionGraph | Circuit, b: AttributionGraph | Circuit
) -> dict[str, float]:
    """Return, per site, the Jaccard index ``|A & B| / |A | B|`` of the kept units; the image itself is left out.

    NaN at sites without effect in either circuit.

    Raises:
        InputError: for graphs that cannot be compared: of other sites, units, settings or models, or not finite.

    Example:
        >>> circuitry.node_overlap(graph, graph)["layer3.0"]
        1.0
    """
    # Edges play no role here, so a graph becomes a circuit of units alone.
    if isinstance(a, AttributionGraph):
        a = a.circuit(None)
    if isinstance(b, AttributionGraph):
        b = b.circuit(None)
    check_comparable(a.source, b.source)
    matrices = node_overlap_matrices([a, b])
    return {str(site): float(matrix[0, 1]) for site, matrix in matrices.items()}


@checked
def edge_jaccard(a: Circuit, b: Circuit) -> float:
    """Return the Jaccard index ``|E1 & E2| / |E1 | E2|`` of the edges, named by their two nodes, in [0, 1].

    Edges of sites without effect in either circuit are left out; NaN when neither circuit has an edge.

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

    It counts units, and trees of edges of up to ``depth`` steps onward from a unit, that both have (Shervashidze et
    al. 2011, JMLR 12; the steps are in `similarity_matrix`). Sites without effect in either circuit are left out; NaN
    when nothing is left.

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
    """Return the similarity of two graphs by any of `MEASURES`: by site, or under None for the whole circuit.

    NaN where the measure is undefined: for constant scores (``spearman``, ``edge_spearman``), or all zeros
    (``cosine``).

    Example:
        >>> round(circuitry.circuits.similarity(graph, graph, "spearman")["layer3.0"], 6)
        1.0
    """
    wanted = as_measure(measure)
    check_comparable(a, b)
    matrices = similarity_matrices([a, b], [wanted])[wanted]
    return {site: float(matrix[0, 1]) for site, matrix in matrices.items()}


def depth_bias(graph: AttributionGraph) -> float:
    """Return the logarithm of the ratio of the score mass in the deeper half of the sites to that in the other half.

    The mass of a site is the sum of the absolute scores of its units; the image, and the middle site of an odd number
    of sites, count for neither half. Positive: the circuit is deep. After the dependency depth bias of arXiv
    2604.08192. NaN where a half has no effect.

    Example:
        >>> isinstance(circuitry.circuits.depth_bias(graph), float)
        True
    """
    graph.check_finite()
    mass = [float(np.abs(graph.node_scores[site]).sum()) for site in graph.inner_sites]
    half = len(mass) // 2
    shallow = sum(mass[:half])
    # Not mass[-half:], which would be everything where half is 0.
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
    """Return the similarity of every two graphs that `Comparable` has checked, by several measures.

    Circuits are cut as by `AttributionGraph.circuit`.
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
            matrices[measure] = _as_matrices(name, at_depth, len(circuits))
    return {measure: matrices[measure] for measure in measures}


def _as_matrices(name: str, given: object, n_circuits: int) -> Matrices:
    """Return the similarities that a measure returned, as arrays; refuse any that are not of all pairs.

    The measure may come from outside, and return anything.
    """
    if not isinstance(given, Mapping) or not given:
        raise _no_similarities(name, n_circuits, f"it returned {shown(given)}")
    low, high = _BOUNDS.get(name, (-1.0, 1.0))
    matrices: Matrices = {}
    for site, values in given.items():
        where = "for the whole circuit" if site is None else f"at {site}"
        matrix = np.asarray(values)
        # b, i, u, f: truth values, whole numbers with and without sign, floating point.
        if matrix.dtype.kind not in "biuf" or matrix.shape != (n_circuits, n_circuits):
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
            )
        matrices[site] = matrix.astype(float)
    return matrices


def _no_similarities(name: str, n_circuits: int, given: str) -> InputError:
    return InputError(
        f"Expected the measure {name!r} to return the similarities [{n_circuits}, {n_circuits}] of every two of "
        f"{n_circuits} circuits by site, or under None for the whole circuit, but {given}: correct its function, or "
        "give register_measure its bounds."
    )


def permuted_units(
    graph: AttributionGraph, rng: np.random.Generator
) -> AttributionGraph:
    """Return a graph with its units permuted at random within each site: equal strengths, other units.

    Its similarity to another graph is chance.
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
    # Blocks of edge scores stay: rows and columns are kept units, whose order stays.
    return replace(
        graph,
        node_scores=scores,
        importance=importance or None,
        kept_units=kept_units,
    )


def chance_overlap(units: Natural, kept_a: int, kept_b: int) -> float:
    """Return the expected Jaccard index of two independent random subsets of ``units``.

    The overlap i is hypergeometric; the Jaccard index of sizes a and b is i / (a + b - i).

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
    """Return the mean of `chance_overlap` over all pairs of subsets, given the number of subsets by size.

    A single subset counts as two of its size. NaN if no pair has a member.
    """
    total = 0.0
    n_pairs = 0
    for a, b in combinations_with_replacement(kept, 2):
        if a != b:
            n_of_sizes = kept[a] * kept[b]
        else:
            n_of_sizes = kept[a] * (kept[a] - 1) // 2
            # A single subset has no pair, but an expected overlap with another of its size.
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
