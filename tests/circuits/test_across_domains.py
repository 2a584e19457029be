"""Sets of graphs compared between domains: their tables, a `Comparison` of each measure, other measures."""

import gc
import time
import weakref
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from circuitry import (
    AttributionGraph,
    Comparison,
    compare,
    compare_domains,
    edge_jaccard,
    node_overlap,
)
from circuitry.circuits import (
    Circuit,
    Measure,
    ReadingSettings,
    chance_overlap,
    register_measure,
    similarity,
)
from circuitry.circuits.across_domains import COMPARED
from circuitry.circuits.measures import MEASURES, Matrices
from circuitry.circuits.similarities_of_classes import SiteMarks
from circuitry.reports import Report
from circuitry.reports.sections.compared import add_summary
from tests.circuits.test_measures import random_graph


def graphs() -> list[AttributionGraph]:
    present = [("axe", d) for d in ("sketch", "real", "clipart")] + [
        ("fish", "real"),
        ("fish", "sketch"),
    ]
    return [random_graph(i, *key) for i, key in enumerate(present)]


def test_each_pair_of_domains_once_in_order_and_no_absent_pair() -> None:
    table = compare(graphs(), "edge_jaccard")
    assert list(table.columns) == ["class", "domain_a", "domain_b", "site", "value"]
    keys = table[["class", "domain_a", "domain_b"]].to_numpy().tolist()
    assert keys == [
        ["axe", "clipart", "real"],
        ["axe", "clipart", "sketch"],
        ["axe", "real", "sketch"],
        ["fish", "real", "sketch"],
    ]
    assert table["site"].isna().all()
    by_key = {(g.class_name, g.domain): g for g in graphs()}
    expected = [
        edge_jaccard(by_key[c, a].circuit(), by_key[c, b].circuit()) for c, a, b in keys
    ]
    assert table["value"].tolist() == expected
    assert len(set(expected)) > 1


def test_a_subset_of_classes() -> None:
    table = compare(graphs(), "node_overlap", classes=["fish"])
    assert table[["class", "site"]].to_numpy().tolist() == [["fish", s] for s in "abc"]


DOMAINS = ("clipart", "real", "sketch")
CLASSES = ("axe", "cat", "fish")
Graphs = dict[tuple[str, str], AttributionGraph]


def three_domains() -> Graphs:
    keys = [(c, d) for c in CLASSES for d in DOMAINS if (c, d) != ("fish", "sketch")]
    return {key: random_graph(i, *key) for i, key in enumerate(keys)}


def folds(class_name: str, domain: str) -> dict[int, AttributionGraph]:
    """Three folds; a fish has but one in clipart."""
    few = (class_name, domain) == ("fish", "clipart")
    seed = 10 * (CLASSES.index(class_name) * 3 + DOMAINS.index(domain)) + 100
    return {
        fold: random_graph(seed + fold, class_name, domain)
        for fold in range(1 if few else 3)
    }


def comparisons(**changes: Any) -> dict[str, Comparison]:
    groups = {"held-out": ["fish"], "none": [], "unknown": ["dog"]}
    return compare_domains(three_domains(), groups, folds=folds, **changes)


@pytest.mark.parametrize("measure", [*COMPARED, "edge_spearman"])
def test_every_measure_has_the_values_of_all_pairs(measure: str) -> None:
    found = comparisons(measures=[measure])[measure]
    assert found.measure == measure
    assert found.alike
    pd.testing.assert_frame_equal(found.values, compare(three_domains(), measure))
    assert found.sites == (("a", "b", "c") if measure == "node_overlap" else ())


def single(
    measure: str, a: AttributionGraph, b: AttributionGraph
) -> dict[str | None, float]:
    if measure == "node_overlap":
        return dict(node_overlap(a, b).items())
    return {None: edge_jaccard(a.circuit(), b.circuit())}


@pytest.mark.parametrize("measure", ["node_overlap", "edge_jaccard"])
def test_folds_are_compared_with_folds_of_other_numbers_by_enumeration(
    measure: str,
) -> None:
    found = comparisons(settings=ReadingSettings(other_classes=0))[measure].folds
    expected = []
    for name in CLASSES:
        nodes = {
            (d, p): g
            for d in DOMAINS
            if (name, d) in three_domains()
            for p, g in folds(name, d).items()
        }
        whole = {d: three_domains()[name, d] for d, _ in nodes}
        for (d, p), a in nodes.items():
            expected += [
                (name, name, d, d, p, -1, s, v)
                for s, v in single(measure, a, whole[d]).items()
            ]
            for (e, q), b in nodes.items():
                if p != q and (d < e or (d == e and p < q)):
                    expected += [
                        (name, name, d, e, p, q, s, v)
                        for s, v in single(measure, a, b).items()
                    ]
    rows = sorted(map(tuple, found.to_numpy().tolist()), key=str)
    for row, other in zip(rows, sorted(expected, key=str), strict=True):
        assert row[:7] == other[:7]
        assert row[7] == pytest.approx(other[7], nan_ok=True)


def test_other_classes_are_a_sample_of_other_folds() -> None:
    found = comparisons(settings=ReadingSettings(other_classes=1))["edge_jaccard"].folds
    others = found[found["class_a"] != found["class_b"]]
    assert len(others.groupby(["class_a", "class_b"])) == len(CLASSES) - 1
    assert {"clipart", "real"} <= set(others["domain_a"]) & set(others["domain_b"])
    assert (others["domain_a"] == others["domain_b"]).any()
    assert (others["fold_a"] != others["fold_b"]).all()
    for (
        class_a,
        class_b,
        domain_a,
        domain_b,
        fold_a,
        fold_b,
        _,
        value,
    ) in others.to_numpy().tolist():
        a, b = folds(class_a, domain_a)[fold_a], folds(class_b, domain_b)[fold_b]
        assert value == pytest.approx(
            edge_jaccard(a.circuit(), b.circuit()), nan_ok=True
        )
    again = comparisons(settings=ReadingSettings(other_classes=1))["edge_jaccard"].folds
    pd.testing.assert_frame_equal(again, found)
    none = comparisons(settings=ReadingSettings(other_classes=0))["edge_jaccard"].folds
    assert (none["class_a"] == none["class_b"]).all()


def test_chance_is_that_of_random_units() -> None:
    found = comparisons(
        measures=[*COMPARED, "spearman"], settings=ReadingSettings(chance_draws=400)
    )
    few = comparisons(measures=["edge_jaccard"])["edge_jaccard"].chance
    for measure, comparison in found.items():
        assert comparison.chance["site"].tolist() == (
            list("abc") if comparison.sites else [None]
        ), measure
    kept = len(random_graph(0).kept_units["a"])
    assert (
        found["node_overlap"].chance["value"].tolist()
        == [chance_overlap(8, kept, kept)] * 3
    )
    assert 0 < few["value"].item() < 0.2
    assert found["spearman"].chance["value"].abs().max() < 0.4
    # Twelve draws, four of each class: an edge of a circuit is one of the other with a chance of about 12 / 64.
    assert found["edge_jaccard"].chance["value"].item() == pytest.approx(0.06, abs=0.05)


def test_chance_of_node_overlap_counts_what_every_fold_keeps() -> None:
    sizes = {"axe": 0.2, "fish": 0.4}
    found = compare_domains(
        {
            (name, d): random_graph(0, name, d, fraction=f)
            for name, f in sizes.items()
            for d in DOMAINS
        },
        folds=lambda name, d: {
            p: random_graph(p, name, d, fraction=sizes[name]) for p in range(4)
        },
        measures=["node_overlap"],
    )["node_overlap"]
    kept = [
        len(random_graph(0, fraction=f).kept_units["a"])
        for f in sizes.values()
        for _ in range(4 * len(DOMAINS))
    ]
    assert len(set(kept)) == len(sizes)
    expected = np.mean([chance_overlap(8, a, b) for a, b in combinations(kept, 2)])
    assert found.chance["value"].tolist() == pytest.approx([expected] * 3)


def test_measures_are_chosen_and_kernels_told_apart_by_depth() -> None:
    found = compare_domains(
        three_domains(),
        measures=["spearman", *(Measure("wl_kernel", d) for d in (1, 3))],
    )
    assert list(found) == ["spearman", "wl_kernel", "wl_kernel_depth_3"]
    pd.testing.assert_frame_equal(
        found["wl_kernel_depth_3"].values,
        compare(three_domains(), Measure("wl_kernel", 3)),
    )
    assert found["spearman"].folds.empty


@pytest.mark.parametrize("any_sign", [False, True])
def test_circuits_of_other_edges(any_sign: bool) -> None:
    found = comparisons(settings=ReadingSettings(edges_per_node=1, any_sign=any_sign))[
        "edge_jaccard"
    ]
    expected = compare(three_domains(), edges_per_node=1, any_sign=any_sign)
    pd.testing.assert_frame_equal(found.values, expected)
    assert found.about == {
        "measure_code": "edge_jaccard",
        "edges_per_node": 1,
        "any_sign": any_sign,
        "n": 4.0,
        "n_per_fold": 4.0,
    }


def keeping(seed: int, **kept: list[int]) -> AttributionGraph:
    made = random_graph(seed, units=20)
    units = made.kept_units | {
        site: np.array(of_site) for site, of_site in kept.items()
    }
    return replace(made, kept_units=units, edge_scores={})


@pytest.mark.parametrize(
    ("kept", "left_out"),
    [
        ({}, {}),
        ({"a": [1, 2, 3, 4, 5], "b": [5, 3, 1, 2, 4]}, {"b": "repeats a"}),
        ({"b": [1]}, {"b": "keeps 1 unit"}),
        ({"a": [0, 1], "b": [0, 1]}, {"a": "keeps 2 units", "b": "repeats a"}),
        # Few units everywhere are no reason to leave a site out.
        ({"a": [1], "b": [2], "c": [3]}, {}),
        ({"a": [1], "b": [1], "c": [3]}, {"b": "repeats a"}),
    ],
)
def test_sites_that_do_not_count(
    kept: dict[str, list[int]], left_out: dict[str, str]
) -> None:
    marks = SiteMarks()
    for seed in range(3):
        marks.add(keeping(seed, **kept))
    assert marks.left_out() == left_out
    if (
        "b" in left_out and len(kept) == 2
    ):  # a site repeats another only if it does in every graph
        marks.add(keeping(0, a=[1, 2, 3, 4, 5], b=[1, 2, 3, 4, 6]))
        assert left_out["b"] not in marks.left_out().values()


STYLES = ("clipart", "real", "sketch")
GRAPHS = {
    ("axe", domain): random_graph(i, "axe", domain, fraction=0.3 + 0.2 * i)
    for i, domain in enumerate(STYLES)
}


def as_many_edges(circuits: Sequence[Circuit]) -> Matrices:
    counts = np.array([one.count for one in circuits], float)
    return {
        None: np.minimum(counts, counts[:, None]) / np.maximum(counts, counts[:, None])
    }


def by_hand(a: str, b: str) -> float:
    few, many = sorted(
        len(GRAPHS["axe", domain].circuit(3).graph.edges) for domain in (a, b)
    )
    return few / many


def test_the_recipe_gives_the_measure_its_own_numbers(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr("circuitry.circuits.measures.MEASURES", dict(MEASURES))
    register_measure("as_many_edges", as_many_edges)
    a, b = (GRAPHS["axe", domain] for domain in ("clipart", "real"))
    assert 0 < by_hand("clipart", "real") < 1
    assert similarity(a, b, "as_many_edges") == {None: by_hand("clipart", "real")}
    found = compare_domains(GRAPHS, measures=["as_many_edges", "node_overlap"])
    pairs = [("clipart", "real"), ("clipart", "sketch"), ("real", "sketch")]
    for table in (found["as_many_edges"].values, compare(GRAPHS, "as_many_edges")):
        assert table["value"].tolist() == [by_hand(*pair) for pair in pairs]
    report = Report("A measure", "of one's own")
    add_summary(report, [found["as_many_edges"]])
    page = report.write(tmp_path / "page.html").read_text(encoding="utf-8")
    assert "as many edges" in page
    for domain in STYLES:
        mean = np.mean([by_hand(*pair) for pair in pairs if domain in pair])
        assert f"{mean:.3f}" in page, domain


def test_graphs_are_given_free_as_soon_as_they_are_compared() -> None:
    alive: list[weakref.ref[AttributionGraph]] = []

    class Lazy(Mapping[tuple[str, str], AttributionGraph]):
        def __getitem__(self, key: tuple[str, str]) -> AttributionGraph:
            time.sleep(0.01)  # reading takes longer than comparing
            graph = random_graph(len(alive), *key)
            alive.append(weakref.ref(graph))
            # Two classes in work (one is read ahead), and the first graph, that the others are checked against.
            assert sum(one() is not None for one in alive) <= 5
            return graph

        def __iter__(self) -> Iterator[tuple[str, str]]:
            return iter(
                [(f"class {i}", domain) for i in range(6) for domain in ("a", "b")]
            )

        def __len__(self) -> int:
            return 12

    gc.disable()
    try:
        compare_domains(Lazy(), measures=["wl_kernel"])
    finally:
        gc.enable()
