"""Similarity of circuits against paper, a naive kernel, scipy, and laws."""

import math
from collections import Counter
from dataclasses import replace

import networkx as nx
import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import spearmanr

from circuitry import (
    AttributionGraph,
    InputError,
    compare,
    compare_halves,
    domain_matrix,
    edge_jaccard,
    node_overlap,
    wl_kernel,
)
from circuitry.circuits.graph import Completeness, keep_units
from circuitry.circuits.similarity import MEASURES, rank_similarity

SITES = ("input", "a", "b", "c")


def random_graph(
    seed: int, class_name: str | None = "axe", domain: str | None = "real", *, units: int = 8, fraction: float = 0.4
) -> AttributionGraph:
    """A layered graph with random scores."""
    rng = np.random.default_rng(seed)
    scores = {site: rng.normal(size=units) for site in SITES}
    kept = {site: keep_units(v, fraction) for site, v in scores.items()}
    edges = {pair: rng.normal(size=(len(kept[pair[1]]), len(kept[pair[0]]))) for pair in (("a", "b"), ("b", "c"))}
    return AttributionGraph(
        SITES, scores, kept, edges, {site: Completeness(0.0, 0.0) for site in SITES}, 4, class_name, domain
    )


def chain(up: list[int], down: list[int], edges: list[list[float]]) -> AttributionGraph:
    """Kept units of two sites and the scores [down, up] between them."""
    scores = {"up": np.ones(6), "down": np.ones(6)}
    return AttributionGraph(
        ("up", "down"),
        scores,
        {"up": np.array(up), "down": np.array(down)},
        {("up", "down"): np.array(edges)},
        {site: Completeness(0.0, 0.0) for site in scores},
        1,
    )


# Edges with one per node: first  up/0 -> down/0, up/1 -> down/1, up/1 -> down/2
#                          second up/0 -> down/0, up/0 -> down/1, up/2 -> down/3
FIRST = chain([0, 1], [0, 1, 2], [[1, 0], [0, 1], [0, 1]])
SECOND = chain([0, 2], [0, 1, 3], [[1, 0], [1, 0], [0, 1]])


# By hand


def test_hand_worked_node_overlap() -> None:
    assert node_overlap(FIRST, SECOND) == {"up": 1 / 3, "down": 2 / 4}


def test_node_overlap_leaves_the_image_out() -> None:
    assert list(node_overlap(random_graph(0), random_graph(1))) == ["a", "b", "c"]


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
    assert wl_kernel(FIRST.circuit(1), SECOND.circuit(1), depth) == pytest.approx(value, abs=1e-12)


def test_the_kernel_follows_successors_and_not_predecessors() -> None:
    # The same names; down/0 has another predecessor. So up/0 and up/1 differ at depth 1, and down/0 does not.
    left, right = chain([0, 1], [0], [[1, 0]]), chain([0, 1], [0], [[0, 1]])
    assert wl_kernel(left.circuit(1), right.circuit(1), 1) == pytest.approx((3 + 1) / 6)


def test_the_order_in_which_units_were_kept_means_nothing() -> None:
    # One circuit, its units ranked differently: up/0 leads to down/0, 1 and 2, which the kernel meets in another order.
    left, right = chain([0], [0, 1, 2], [[1], [1], [1]]), chain([0], [2, 0, 1], [[1], [1], [1]])
    assert wl_kernel(left.circuit(1), right.circuit(1), 3) == 1
    assert edge_jaccard(left.circuit(1), right.circuit(1)) == 1
    assert node_overlap(left, right) == {"up": 1, "down": 1}


def test_no_edges_at_all_have_no_jaccard_index() -> None:
    lone = replace(FIRST, edge_scores={})
    assert math.isnan(edge_jaccard(lone.circuit(), lone.circuit()))


# Against independent computations


def naive_kernel(a: nx.DiGraph, b: nx.DiGraph, depth: int) -> float:
    """Labels written out in full, histogram by histogram, as the definition reads."""

    def histograms(graph: nx.DiGraph) -> list[Counter[str]]:
        labels = {node: node for node in graph}
        found = [Counter(labels.values())]
        for _ in range(depth):
            below = {node: sorted(labels[s] for s in graph.successors(node)) for node in graph}
            labels = {node: f"<{labels[node]}|{';'.join(below[node])}>" for node in graph}
            found.append(Counter(labels.values()))
        return found

    def inner(x: list[Counter[str]], y: list[Counter[str]]) -> int:
        return sum(p[label] * q[label] for p, q in zip(x, y, strict=True) for label in p.keys() | q.keys())

    x, y = histograms(a), histograms(b)
    return inner(x, y) / math.sqrt(inner(x, x) * inner(y, y))


seeds = st.integers(0, 10**6)
pairs = st.tuples(seeds, seeds, st.integers(3, 10), st.sampled_from([0.2, 0.4, 0.7, 1.0]), st.integers(1, 3))


@settings(deadline=None, max_examples=40)
@given(pairs, st.integers(0, 3))
def test_the_kernel_equals_the_naive_one(drawn: tuple[int, int, int, float, int], depth: int) -> None:
    seed_a, seed_b, units, fraction, k = drawn
    a, b = (random_graph(seed, units=units, fraction=fraction).circuit(k) for seed in (seed_a, seed_b))
    assert wl_kernel(a, b, depth) == pytest.approx(naive_kernel(a.graph, b.graph, depth), abs=1e-12)


@settings(deadline=None, max_examples=40)
@given(pairs)
def test_overlaps_equal_sets_of_names(drawn: tuple[int, int, int, float, int]) -> None:
    seed_a, seed_b, units, fraction, k = drawn
    a, b = (random_graph(seed, units=units, fraction=fraction) for seed in (seed_a, seed_b))
    nodes = [{n for n in g.circuit().graph.nodes if n.startswith("b/")} for g in (a, b)]
    assert node_overlap(a, b)["b"] == len(nodes[0] & nodes[1]) / len(nodes[0] | nodes[1])
    edges = [set(g.circuit(k).graph.edges) for g in (a, b)]
    assert edge_jaccard(a.circuit(k), b.circuit(k)) == len(edges[0] & edges[1]) / len(edges[0] | edges[1])


def test_rank_measures_equal_scipy_and_numpy() -> None:
    a, b = random_graph(0), random_graph(1)
    x, y = a.node_scores["b"], b.node_scores["b"]
    assert rank_similarity(a, b, "spearman")["b"] == pytest.approx(spearmanr(x, y).statistic)
    assert rank_similarity(a, b, "cosine")["b"] == pytest.approx(x @ y / np.sqrt((x @ x) * (y @ y)))
    assert list(rank_similarity(a, b, "cosine")) == ["a", "b", "c"]


def test_rank_measures_of_vectors_without_ranks_are_missing() -> None:
    # FIRST scores are all one: no ranks, but a direction; zeros have neither.
    zeros = replace(FIRST, node_scores={site: np.zeros(6) for site in FIRST.sites})
    assert all(math.isnan(v) for v in rank_similarity(FIRST, FIRST, "spearman").values())
    assert rank_similarity(FIRST, FIRST, "cosine")["up"] == pytest.approx(1)
    assert all(math.isnan(v) for v in rank_similarity(FIRST, zeros, "cosine").values())


# Laws


@settings(deadline=None, max_examples=25)
@given(pairs)
def test_every_measure_is_symmetric_and_one_for_the_same(drawn: tuple[int, int, int, float, int]) -> None:
    seed_a, seed_b, units, fraction, k = drawn
    a = random_graph(seed_a, "axe", "real", units=units, fraction=fraction)
    b = random_graph(seed_b, "axe", "sketch", units=units, fraction=fraction)
    for measure in MEASURES:
        least = -1 if measure in ("spearman", "cosine") else 0

        def values(x: AttributionGraph, y: AttributionGraph, measure: str = measure) -> list[float]:
            return list(compare_halves([(x, y)], measure, edges_per_node=k, depth=2)["value"])

        assert values(a, b) == pytest.approx(values(b, a), abs=1e-12)
        assert values(a, a) == pytest.approx([1] * len(values(a, a)))
        assert all(least - 1e-12 <= value <= 1 + 1e-12 for value in values(a, b))


# Tables


def graphs() -> list[AttributionGraph]:
    """Two classes in three domains; the second class is absent in one of them."""
    present = [("axe", d) for d in ("sketch", "real", "clipart")] + [("fish", "real"), ("fish", "sketch")]
    return [random_graph(i, *key) for i, key in enumerate(present)]


def test_each_pair_of_domains_once_in_order_and_no_absent_pair() -> None:
    table = compare(graphs(), "edge_jaccard")
    assert list(table.columns) == ["class", "domain_a", "domain_b", "site", "value"]
    assert table[["class", "domain_a", "domain_b"]].to_numpy().tolist() == [
        ["axe", "clipart", "real"],
        ["axe", "clipart", "sketch"],
        ["axe", "real", "sketch"],
        ["fish", "real", "sketch"],
    ]
    assert table["site"].isna().all()
    by_key = {(g.class_name, g.domain): g for g in graphs()}
    expected = [
        edge_jaccard(by_key[c, a].circuit(), by_key[c, b].circuit())
        for c, a, b in table[["class", "domain_a", "domain_b"]].itertuples(index=False)
    ]
    assert table["value"].tolist() == expected
    assert len(set(expected)) > 1


@pytest.mark.parametrize("measure", MEASURES)
def test_a_table_holds_the_values_of_its_measure(measure: str) -> None:
    a, b = random_graph(0, "axe", "a"), random_graph(1, "axe", "b")
    table = compare([b, a], measure, edges_per_node=2, depth=3)
    direct: dict[str, dict[str, float] | float] = {
        "node_overlap": node_overlap(a, b),
        "edge_jaccard": edge_jaccard(a.circuit(2), b.circuit(2)),
        "wl_kernel": wl_kernel(a.circuit(2), b.circuit(2), 3),
        "spearman": rank_similarity(a, b, "spearman"),
        "cosine": rank_similarity(a, b, "cosine"),
    }
    value = direct[measure]
    if isinstance(value, dict):
        assert dict(zip(table["site"], table["value"], strict=True)) == pytest.approx(value)
    else:
        assert table["value"].tolist() == pytest.approx([value])


def test_a_mapping_and_a_list_of_graphs_are_the_same() -> None:
    mapping = {(str(g.class_name), str(g.domain)): g for g in graphs()}
    pd.testing.assert_frame_equal(compare(mapping), compare(graphs()))
    pd.testing.assert_frame_equal(compare(iter(graphs())), compare(graphs()))


def test_a_subset_of_classes() -> None:
    table = compare(graphs(), "node_overlap", classes=["fish"])
    assert table[["class", "site"]].to_numpy().tolist() == [["fish", s] for s in "abc"]


def test_what_cannot_be_compared_says_why() -> None:
    with pytest.raises(InputError, match="Unknown measure 'jaccard': choose one of node_overlap, edge_jaccard, wl"):
        compare(graphs(), "jaccard")
    with pytest.raises(InputError, match="no graph of class cat; the classes are axe, fish"):
        compare(graphs(), classes=["axe", "cat"])
    with pytest.raises(InputError, match="Two graphs of class 'axe' in domain 'sketch'"):
        compare([*graphs(), graphs()[0]])
    for nameless in (random_graph(0, None), random_graph(0, "axe", None)):
        with pytest.raises(InputError, match="need a class and a domain, but one has none: set class_name and domain"):
            compare([nameless])
    with pytest.raises(InputError, match="depth of a Weisfeiler-Lehman kernel is 0 or more, but -1"):
        wl_kernel(FIRST.circuit(), FIRST.circuit(), -1)
    with pytest.raises(InputError, match="at least one edge per node, but 0"):
        compare(graphs(), edges_per_node=0)


@pytest.mark.parametrize(
    ("sites", "words"),
    [(("input", "a", "b", "d"), "c and d"), (("input", "a", "b"), "4 and 3 in number")],
)
def test_circuits_at_different_sites_are_refused(sites: tuple[str, ...], words: str) -> None:
    graph = random_graph(0)
    other = replace(random_graph(1, domain="sketch"), sites=sites)
    for use in (
        lambda: node_overlap(graph, other),
        lambda: edge_jaccard(graph.circuit(), other.circuit()),
        lambda: wl_kernel(graph.circuit(), other.circuit()),
        lambda: rank_similarity(graph, other, "cosine"),
        lambda: compare([graph, other]),
    ):
        with pytest.raises(InputError, match=rf"different ones \({words}\): attribute both with the same encoder"):
            use()


def test_halves_are_compared_class_by_class() -> None:
    halves = [
        (random_graph(i, c, d), random_graph(i + 9, c, d)) for i, (c, d) in enumerate([("axe", "p"), ("fox", "q")])
    ]
    table = compare_halves(halves, "edge_jaccard", edges_per_node=2)
    assert list(table.columns) == ["class", "domain", "site", "value"]
    assert table[["class", "domain"]].to_numpy().tolist() == [["axe", "p"], ["fox", "q"]]
    assert table["value"].tolist() == [edge_jaccard(a.circuit(2), b.circuit(2)) for a, b in halves]
    assert compare_halves(halves, classes=["fox"])["class"].tolist() == ["fox"]
    with pytest.raises(InputError, match="Unknown measure 'x'"):
        compare_halves(halves, "x")


# Domain by domain

TABLE = pd.DataFrame(
    [
        ("axe", "clipart", "real", None, 0.2),
        ("axe", "clipart", "sketch", None, 0.4),
        ("axe", "real", "sketch", None, 0.6),
        ("fish", "real", "sketch", None, 0.1),
    ],
    columns=["class", "domain_a", "domain_b", "site", "value"],
)
CEILINGS = pd.DataFrame(
    [
        ("axe", "clipart", None, 0.5),
        ("axe", "real", None, 0.7),
        ("fish", "real", None, 0.9),
        ("axe", "sketch", None, 0.2),
    ],
    columns=["class", "domain", "site", "value"],
)


def test_hand_worked_matrix() -> None:
    matrix = domain_matrix(TABLE)
    assert list(matrix.index) == list(matrix.columns) == ["clipart", "real", "sketch"]
    nan = math.nan
    np.testing.assert_allclose(matrix, [[nan, 0.2, 0.4], [0.2, nan, 0.35], [0.4, 0.35, nan]])


def test_ceilings_go_onto_the_diagonal_and_normalise() -> None:
    np.testing.assert_allclose(np.diag(domain_matrix(TABLE, CEILINGS)), [0.5, 0.8, 0.2])
    normalised = domain_matrix(TABLE, CEILINGS, normalise=True)
    np.testing.assert_allclose(np.diag(normalised), 1)
    assert normalised.loc["clipart", "real"] == pytest.approx(0.2 / math.sqrt(0.5 * 0.8))
    assert normalised.loc["sketch", "real"] == pytest.approx(0.35 / math.sqrt(0.2 * 0.8))


def test_a_domain_that_shares_no_class_stays_in_the_matrix() -> None:
    matrix = domain_matrix(TABLE.iloc[[0]], CEILINGS)
    assert matrix.isna().to_numpy().tolist()[2] == [True, True, False]  # that of sketch


def test_normalising_needs_ceilings() -> None:
    with pytest.raises(InputError, match="divided by noise ceilings, but none were given"):
        domain_matrix(TABLE, normalise=True)
