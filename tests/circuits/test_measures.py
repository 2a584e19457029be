"""Similarity of circuits against paper, GraKeL, scipy, and laws."""

import math
from collections.abc import Mapping
from dataclasses import replace
from itertools import combinations
from typing import Any

import networkx as nx
import numpy as np
import pytest
from grakel import Graph
from grakel.kernels import VertexHistogram, WeisfeilerLehman
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import spearmanr

from circuitry import AttributionGraph, compare, edge_jaccard, node_overlap, wl_kernel
from circuitry.circuits import (
    Completeness,
    Measure,
    chance_overlap,
    depth_bias,
    similarity,
)
from circuitry.circuits.budgets import strongest_units
from circuitry.circuits.measures import (
    MEASURES,
    mean_chance_overlap,
    permuted_units,
    similarity_matrices,
)
from circuitry.circuits.similarity_matrix import circuit_arrays
from tests.circuits.test_graph import small_graph

SITES = ("input", "a", "b", "c")


def random_graph(
    seed: int,
    class_name: str | None = "axe",
    domain: str | None = "real",
    *,
    units: int = 8,
    fraction: float = 0.4,
) -> AttributionGraph:
    rng = np.random.default_rng(seed)
    scores = {site: rng.normal(size=units) for site in SITES}
    kept = strongest_units(scores, fraction)
    edges = {
        pair: rng.normal(size=(len(kept[pair[1]]), len(kept[pair[0]])))
        for pair in (("a", "b"), ("b", "c"))
    }
    return AttributionGraph(
        SITES,
        scores,
        {site: Completeness(0.0, 0.0) for site in SITES},
        4,
        class_name,
        domain,
        kept_units=kept,
        edge_scores=edges,
    )


def chain(up: list[int], down: list[int], edges: list[list[float]]) -> AttributionGraph:
    """Kept units of two sites and the scores [down, up] between them."""
    scores = {"up": np.ones(6), "down": np.ones(6)}
    return AttributionGraph(
        ("up", "down"),
        scores,
        {site: Completeness(0.0, 0.0) for site in scores},
        1,
        kept_units={"up": np.array(up), "down": np.array(down)},
        edge_scores={("up", "down"): np.array(edges, dtype=float)},
    )


# Edges with one per node: first  up/0 -> down/0, up/1 -> down/1, up/1 -> down/2
#                          second up/0 -> down/0, up/0 -> down/1, up/2 -> down/3
FIRST = chain([0, 1], [0, 1, 2], [[1, 0], [0, 1], [0, 1]])
SECOND = chain([0, 2], [0, 1, 3], [[1, 0], [1, 0], [0, 1]])


def test_hand_worked_node_overlap() -> None:
    assert node_overlap(FIRST, SECOND) == {"up": 1 / 3, "down": 2 / 4}


def test_hand_worked_edge_jaccard() -> None:
    assert edge_jaccard(FIRST.circuit(1), SECOND.circuit(1)) == 1 / 5


@pytest.mark.parametrize(
    ("depth", "value"),
    [
        # Depth 0: five names each, common: up/0, down/0, down/1.
        (0, 3 / 5),
        # Depth 1: down/0 and down/1 have no successors and agree again; up/0 has (down/0) and (down/0, down/1). 3 + 2.
        (1, 5 / 10),
        # Depth 2 and 3: the same two.
        (2, 7 / 15),
        (3, 9 / 20),
    ],
)
def test_hand_worked_kernel(depth: int, value: float) -> None:
    assert wl_kernel(FIRST.circuit(1), SECOND.circuit(1), depth) == pytest.approx(
        value, abs=1e-12
    )


def test_the_kernel_follows_successors_and_not_predecessors() -> None:
    # The same names; down/0 has another predecessor. So up/0 and up/1 differ at depth 1, and down/0 does not.
    left, right = chain([0, 1], [0], [[1, 0]]), chain([0, 1], [0], [[0, 1]])
    assert wl_kernel(left.circuit(1), right.circuit(1), 1) == pytest.approx((3 + 1) / 6)


def test_the_order_in_which_units_were_kept_means_nothing() -> None:
    # One circuit, its units ranked differently: up/0 leads to down/0, 1 and 2, which the kernel meets in another order.
    left, right = (
        chain([0], [0, 1, 2], [[1], [1], [1]]),
        chain([0], [2, 0, 1], [[1], [1], [1]]),
    )
    assert wl_kernel(left.circuit(1), right.circuit(1), 3) == 1
    assert edge_jaccard(left.circuit(1), right.circuit(1)) == 1
    assert node_overlap(left, right) == {"up": 1, "down": 1}
    graph, other = random_graph(0), random_graph(1)
    turned = replace(
        graph,
        kept_units={site: units[::-1] for site, units in graph.kept_units.items()},
        edge_scores={
            pair: scores[::-1, ::-1] for pair, scores in graph.edge_scores.items()
        },
    )
    for one in (graph, other):
        expected = similarity(graph, one, "edge_spearman")[None]
        assert similarity(turned, one, "edge_spearman")[None] == pytest.approx(expected)


def test_no_edges_at_all_have_no_jaccard_index() -> None:
    lone = replace(FIRST, edge_scores={})
    assert math.isnan(edge_jaccard(lone.circuit(), lone.circuit()))


def graph_kernel(a: nx.DiGraph, b: nx.DiGraph, depth: int) -> float:
    """GraKeL's; without a step it is that of the names of nodes."""
    graphs = [
        Graph(
            {node: list(one.successors(node)) for node in one},
            {node: node for node in one},
        )
        for one in (a, b)
    ]
    names = VertexHistogram(normalize=True)
    kernel = (
        WeisfeilerLehman(
            n_iter=depth, normalize=True, base_graph_kernel=VertexHistogram
        )
        if depth
        else names
    )
    return float(kernel.fit_transform(graphs)[0, 1])


seeds = st.integers(0, 10**6)
pairs = st.tuples(
    seeds,
    seeds,
    st.integers(3, 10),
    st.sampled_from([0.2, 0.4, 0.7, 1.0]),
    st.integers(1, 3),
)


@settings(deadline=None, max_examples=40)
@given(pairs, st.integers(0, 3))
def test_the_kernel_equals_grakels(
    drawn: tuple[int, int, int, float, int], depth: int
) -> None:
    seed_a, seed_b, units, fraction, k = drawn
    a, b = (
        random_graph(seed, units=units, fraction=fraction).circuit(k)
        for seed in (seed_a, seed_b)
    )
    assert wl_kernel(a, b, depth) == pytest.approx(
        graph_kernel(a.graph, b.graph, depth), abs=1e-12
    )


@settings(deadline=None, max_examples=40)
@given(pairs)
def test_overlaps_equal_sets_of_names(drawn: tuple[int, int, int, float, int]) -> None:
    seed_a, seed_b, units, fraction, k = drawn
    a, b = (
        random_graph(seed, units=units, fraction=fraction) for seed in (seed_a, seed_b)
    )
    nodes = [{n for n in g.circuit().graph.nodes if n.startswith("b/")} for g in (a, b)]
    assert node_overlap(a, b)["b"] == len(nodes[0] & nodes[1]) / len(
        nodes[0] | nodes[1]
    )
    edges = [set(g.circuit(k).graph.edges) for g in (a, b)]
    expected = (
        len(edges[0] & edges[1]) / len(edges[0] | edges[1])
        if edges[0] | edges[1]
        else math.nan
    )
    assert edge_jaccard(a.circuit(k), b.circuit(k)) == pytest.approx(
        expected, nan_ok=True
    )


def test_rank_measures_equal_scipy_and_numpy() -> None:
    a, b = random_graph(0), random_graph(1)
    x, y = a.node_scores["b"], b.node_scores["b"]
    assert similarity(a, b, "spearman")["b"] == pytest.approx(spearmanr(x, y).statistic)
    assert similarity(a, b, "cosine")["b"] == pytest.approx(
        x @ y / np.sqrt((x @ x) * (y @ y))
    )
    assert list(similarity(a, b, "cosine")) == ["a", "b", "c"]
    # FIRST scores are all one: no ranks, but a direction; zeros have neither.
    zeros = replace(FIRST, node_scores={site: np.zeros(6) for site in FIRST.sites})
    assert all(math.isnan(v) for v in similarity(FIRST, FIRST, "spearman").values())
    assert similarity(FIRST, FIRST, "cosine")["up"] == pytest.approx(1)
    assert all(math.isnan(v) for v in similarity(FIRST, zeros, "cosine").values())


@settings(deadline=None, max_examples=10)
@given(pairs)
def test_every_measure_is_symmetric_and_one_for_the_same(
    drawn: tuple[int, int, int, float, int],
) -> None:
    seed_a, seed_b, units, fraction, k = drawn
    a = random_graph(seed_a, "axe", "real", units=units, fraction=fraction)
    b = random_graph(seed_b, "axe", "sketch", units=units, fraction=fraction)
    for measure in MEASURES:
        least = -1 if measure in ("spearman", "cosine", "edge_spearman") else 0

        def values(
            x: AttributionGraph, y: AttributionGraph, measure: str = measure
        ) -> list[float]:
            named = [replace(x, domain="a"), replace(y, domain="b")]
            return list(compare(named, Measure(measure, 2), edges_per_node=k)["value"])

        found = np.array(values(a, b))
        assert found == pytest.approx(np.array(values(b, a)), abs=1e-12, nan_ok=True)
        assert all(
            value == pytest.approx(1) or math.isnan(value) for value in values(a, a)
        )
        assert (
            np.isnan(found) | ((least - 1e-12 <= found) & (found <= 1 + 1e-12))
        ).all()


def test_a_score_of_zero_or_less_is_no_edge_unless_asked_for() -> None:
    graph = chain([0, 1], [0, 1, 2], [[0.5, -1.0], [0.0, -0.5], [2.0, 1.0]])
    edges = set(graph.circuit(2).graph.edges)
    assert edges == {("up/0", "down/0"), ("up/0", "down/2"), ("up/1", "down/2")}
    assert "6 edges" in repr(graph.circuit(2, any_sign=True))
    assert "3 edges" in repr(graph.circuit(2))
    assert len(graph.circuit(2, any_sign=True).graph.edges) == 6
    assert (
        edge_jaccard(
            graph.circuit(2), chain([0, 1], [0, 1, 2], [[1, 0]] * 3).circuit(2)
        )
        == 2 / 4
    )


def test_hand_worked_edge_spearman() -> None:
    # Edges scored by either: 0->0, 1->0, 0->1, 1->1, 0->2, 1->2 by the first; 0->0, 2->0, 0->1, 2->1, 0->3, 2->3 by the
    # second; 10 together. First: 0->0: 3, 1->0: 1, 0->1: 2, the others 0. Second: 0->0: 5, 0->1: 4, 2->3: 1, else 0.
    first = chain([0, 1], [0, 1, 2], [[3, 1], [2, 0], [0, 0]])
    second = chain([0, 2], [0, 1, 3], [[5, 0], [4, 0], [0, 1]])
    x, y = [3, 1, 2, 0, 0, 0, 0, 0, 0, 0], [5, 0, 4, 0, 0, 0, 0, 0, 0, 1]
    assert similarity(first, second, "edge_spearman")[None] == pytest.approx(
        spearmanr(x, y).statistic
    )
    # On paper: ranks of both are 10, 9 and 8 of three edges and the mean of the others, 4, of seven; ranks less 5.5 are
    # (4.5, 2.5, 3.5, -1.5 seven times) and (4.5, -1.5, 3.5, -1.5 five times... and 2.5 for 2->3).
    products = 4.5 * 4.5 + 2.5 * -1.5 + 3.5 * 3.5 + -1.5 * 2.5 + 6 * 1.5 * 1.5
    expected = products / (4.5**2 + 2.5**2 + 3.5**2 + 7 * 1.5**2)
    assert similarity(first, second, "edge_spearman")[None] == pytest.approx(expected)
    assert similarity(first, first, "edge_spearman")[None] == pytest.approx(1)
    assert math.isnan(
        similarity(first, chain([0, 1], [0, 1, 2], [[1, 1]] * 3), "edge_spearman")[None]
    )


def test_hand_worked_depth_bias() -> None:
    scores = {
        "input": np.array([9.0]),
        "a": np.array([1.0, -1.0]),
        "b": np.array([50.0]),
        "c": np.array([-8.0, 0.0]),
    }
    graph = replace(random_graph(0), node_scores=scores, kept_units={}, edge_scores={})
    assert depth_bias(graph) == pytest.approx(
        math.log(8 / 2)
    )  # b, in the middle, is neither shallow nor deep
    assert depth_bias(
        replace(graph, sites=("a", "c"), node_scores={s: scores[s] for s in "ac"})
    ) == pytest.approx(math.log(4))
    assert math.isnan(
        depth_bias(replace(graph, node_scores=scores | {"a": np.zeros(2)}))
    )


def test_permuted_units_are_as_strong_but_others() -> None:
    graph = random_graph(3, units=9)
    other = permuted_units(graph, np.random.default_rng(0))
    for site in SITES:
        assert sorted(other.node_scores[site]) == sorted(graph.node_scores[site])
        strongest = graph.node_scores[site][graph.kept_units[site]].tolist()
        assert other.node_scores[site][other.kept_units[site]].tolist() == strongest
    assert all(
        scores is graph.edge_scores[pair] for pair, scores in other.edge_scores.items()
    )
    draws = [permuted_units(graph, np.random.default_rng(seed)) for seed in range(400)]
    kept = len(graph.kept_units["a"])
    mean = np.mean([node_overlap(graph, draw)["a"] for draw in draws])
    assert mean == pytest.approx(chance_overlap(9, kept, kept), abs=0.03)


@settings(deadline=None)
@given(st.integers(1, 6), st.data())
def test_chance_equals_the_mean_over_all_pairs_of_subsets(
    units: int, data: st.DataObject
) -> None:
    a = data.draw(st.integers(0, units))
    b = data.draw(st.integers(0 if a else 1, units))
    # By symmetry the first subset may be held fixed, but the definition does not say so: both are enumerated.
    values = [
        len(set(x) & set(y)) / len(set(x) | set(y))
        for x in combinations(range(units), a)
        for y in combinations(range(units), b)
    ]
    assert chance_overlap(units, a, b) == pytest.approx(np.mean(values))


def test_chance_of_several_graphs_is_the_mean_over_pairs_of_their_numbers() -> None:
    expected = np.mean([chance_overlap(4, 2, 2), *[chance_overlap(4, 2, 3)] * 2])
    assert mean_chance_overlap(4, {2: 2, 3: 1}) == pytest.approx(expected)
    # 2 of 4: overlap 0, 1, 2 with probability 1/6, 4/6, 1/6 and Jaccard 0, 1/3, 1.
    assert (
        mean_chance_overlap(4, {2: 1})
        == mean_chance_overlap(4, {2: 2})
        == pytest.approx(4 / 18 + 1 / 6)
    )
    assert math.isnan(mean_chance_overlap(4, {0: 2}))


def test_arrays_without_a_site_have_neither_its_nodes_nor_its_edges() -> None:
    # Numbers: conv 0..3, head 4..6.
    circuit = small_graph().circuit(1, any_sign=True)
    arrays = circuit_arrays(circuit)
    assert arrays.nodes.tolist() == [1, 3, 5, 6, 4]
    assert list(zip(arrays.tails.tolist(), arrays.heads.tolist(), strict=True)) == [
        (1, 5),
        (3, 6),
        (1, 4),
    ]
    assert arrays.n_units == 7
    left = circuit_arrays(circuit, ["head"])
    assert (left.nodes.tolist(), left.tails.tolist(), left.n_units) == ([1, 3], [], 7)


@settings(deadline=None, max_examples=8)
@given(st.lists(seeds, min_size=3, max_size=5, unique=True), st.booleans())
def test_matrices_hold_the_values_of_pairs(drawn: list[int], dead: bool) -> None:
    graphs = [random_graph(seed, units=6) for seed in drawn]
    if dead:  # at one site the first graph has no effect, at another the second
        for graph, site in zip(graphs, ("a", "c"), strict=False):
            graph.node_scores[site][:] = 0
    measures = [Measure(name) for name in MEASURES] + [Measure("wl_kernel", 3)]
    found = similarity_matrices(graphs, measures, edges_per_node=2)
    for i, a in enumerate(graphs):
        for j, b in enumerate(graphs):
            x, y = a.circuit(2), b.circuit(2)
            direct: dict[Measure, Mapping[Any, float]] = dict(
                zip(
                    measures,
                    (
                        node_overlap(a, b),
                        {None: edge_jaccard(x, y)},
                        {None: wl_kernel(x, y)},
                        similarity(a, b, "spearman"),
                        similarity(a, b, "cosine"),
                        similarity(a, b, "edge_spearman"),
                        {None: wl_kernel(x, y, 3)},
                    ),
                    strict=True,
                )
            )
            for measure, matrices in found.items():
                values = {site: matrix[i, j] for site, matrix in matrices.items()}
                assert values == pytest.approx(
                    direct[measure], nan_ok=True, abs=1e-12
                ), measure
