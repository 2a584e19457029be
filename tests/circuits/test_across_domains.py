"""Sets of graphs compared between domains: tables, their order, and a `Comparison` of each measure."""

import gc
import weakref
from collections.abc import Iterator
from dataclasses import replace

import pandas as pd
import pytest

from circuitry import (
    AttributionGraph,
    Comparison,
    InputError,
    compare,
    compare_domains,
    compare_halves,
    edge_jaccard,
    node_overlap,
    wl_kernel,
)
from circuitry.circuits import Measure
from circuitry.circuits.across_domains import COMPARED
from circuitry.circuits.similarity import MEASURES, rank_similarity
from tests.circuits.test_similarity import FIRST, random_graph


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


# Comparisons

DOMAINS = ("clipart", "real", "sketch")
CLASSES = ("axe", "cat", "fish")
Graphs = dict[tuple[str, str], AttributionGraph]


def three_domains() -> Graphs:
    """Three classes in three domains; there is no sketch of a fish."""
    keys = [(c, d) for c in CLASSES for d in DOMAINS if (c, d) != ("fish", "sketch")]
    return {key: random_graph(i, *key) for i, key in enumerate(keys)}


def halves() -> list[tuple[AttributionGraph, AttributionGraph]]:
    return [(random_graph(50 + i, *key), random_graph(90 + i, *key)) for i, key in enumerate(three_domains())]


def comparisons() -> dict[str, Comparison]:
    return compare_domains(three_domains(), halves(), {"held-out": ["fish"], "none": [], "unknown": ["dog"]})


def test_every_measure_is_compared_with_its_ceiling() -> None:
    found = comparisons()
    assert tuple(found) == COMPARED
    for measure, comparison in found.items():
        assert comparison.measure == measure
        assert comparison.alike
        pd.testing.assert_frame_equal(comparison.values, compare(three_domains(), measure))
        pd.testing.assert_frame_equal(comparison.ceilings, compare_halves(halves(), measure))
    assert found["node_overlap"].sites == ("a", "b", "c")
    assert found["node_overlap"].chance["site"].tolist() == ["a", "b", "c"]
    assert found["edge_jaccard"].sites == ()
    assert found["edge_jaccard"].chance.empty


def test_measures_are_chosen_and_kernels_told_apart_by_depth() -> None:
    found = compare_domains(three_domains(), measures=["spearman", *(Measure("wl_kernel", d) for d in (1, 3))])
    assert list(found) == ["spearman", "wl_kernel", "wl_kernel_depth_3"]
    pd.testing.assert_frame_equal(found["wl_kernel_depth_3"].values, compare(three_domains(), "wl_kernel", depth=3))
    assert found["spearman"].ceilings.empty
    with pytest.raises(InputError, match="Unknown measure 'overlap'"):
        compare_domains(three_domains(), measures=["overlap"])
    with pytest.raises(InputError, match="is 0 or more, but -1"):
        Measure("wl_kernel", -1)


def test_circuits_of_more_edges() -> None:
    found = compare_domains(three_domains(), halves(), edges_per_node=1)["edge_jaccard"]
    pd.testing.assert_frame_equal(found.values, compare(three_domains(), edges_per_node=1))
    pd.testing.assert_frame_equal(found.ceilings, compare_halves(halves(), edges_per_node=1))
    assert found.about["edges_per_node"] == 1


def test_groups_hold_the_classes_that_are_there() -> None:
    for comparison in comparisons().values():
        assert comparison.groups == {"all": CLASSES, "held-out": ("fish",)}
    assert compare_domains(three_domains())["wl_kernel"].groups == {"all": CLASSES}


def test_a_comparison_needs_two_domains_of_a_class() -> None:
    lone = {("axe", "real"): random_graph(0, "axe", "real"), ("cat", "sketch"): random_graph(1, "cat", "sketch")}
    for few in (lone, {}):
        with pytest.raises(InputError, match="needs a class in at least two domains, but there is none: give"):
            compare_domains(few)


def test_graphs_are_given_free_as_soon_as_they_are_compared() -> None:
    alive: list[weakref.ref[AttributionGraph]] = []

    def pairs() -> Iterator[tuple[AttributionGraph, AttributionGraph]]:
        for i in range(4):
            pair = random_graph(2 * i, f"class {i}"), random_graph(2 * i + 1, f"class {i}")
            alive.extend(weakref.ref(graph) for graph in pair)
            yield pair
            del pair
            assert sum(one() is not None for one in alive) <= 3  # this pair in the caller's hands, and the very first

    gc.disable()
    try:
        compare_halves(pairs(), "wl_kernel")
    finally:
        gc.enable()
