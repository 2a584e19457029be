"""Edges as one value, against lists of edges sorted by hand."""

from itertools import combinations

import networkx as nx
import numpy as np
import pytest

from circuitry.circuits import Edges

Edge = tuple[str, int, str, int]
UNITS = {"a": np.array([7, 2, 5]), "b": np.array([0, 4]), "c": np.array([1])}


def drawn(wiring: str = "stream") -> Edges:
    rng = np.random.default_rng(0)
    pairs = list(combinations(UNITS, 2)) if wiring == "stream" else [("a", "b"), ("b", "c")]
    scores = {(up, down): rng.normal(size=(len(UNITS[down]), len(UNITS[up]))) for up, down in pairs}
    scores["a", "b"][0, 1] = np.nan
    return Edges(UNITS, scores, "stream" if wiring == "stream" else "chain")


def listed(edges: Edges) -> dict[Edge, float]:
    return {
        (up, int(u), down, int(d)): scores[i, j]
        for (up, down), scores in edges.scores.items()
        for i, d in enumerate(edges.units[down])
        for j, u in enumerate(edges.units[up])
        if not np.isnan(scores[i, j])
    }


def test_the_strongest_into_each_unit_come_from_any_site() -> None:
    edges, every = drawn(), listed(drawn())
    assert edges.count == len(every) == 10
    for any_sign in (False, True):
        expected = set()
        for site, unit in (("b", 0), ("b", 4), ("c", 1)):
            into = sorted((edge for edge in every if edge[2:] == (site, unit)), key=lambda edge: -every[edge])[:3]
            expected |= {edge for edge in into if any_sign or every[edge] > 0}
        found = edges.strongest(3, any_sign=any_sign)
        assert set(listed(found)) == expected
        assert found.count == len(expected)


@pytest.mark.parametrize("by", ["absolute", "signed"])
def test_the_top_share_is_ranked_over_all_pairs(by: str) -> None:
    every = listed(drawn())
    order = sorted(every, key=lambda edge: -(abs(every[edge]) if by == "absolute" else every[edge]))
    assert set(listed(drawn().top(0.3, by))) == set(order[:3])
    assert drawn().top(0.01, by).count == 1
    assert drawn().without(drawn().top(0.3, by)).count == 7


def test_edges_among_units_without_each_and_at_random() -> None:
    edges, every = drawn(), listed(drawn())
    some = edges.among({"a": [2, 7], "c": np.array([1])})
    assert listed(some) == {edge: every[edge] for edge in every if edge[0] == "a" and edge[1] != 5 and edge[2] == "c"}
    left = [set(listed(one)) for one in edges.without_each()]
    assert sorted(next(iter(set(every) - one)) for one in left) == sorted(every)


def test_random_edges_are_as_many_and_in_a_chain_join_the_same_sites() -> None:
    for wiring in ("chain", "stream"):
        some = drawn(wiring).top(0.5)
        random = some.random(np.random.default_rng(1))
        assert set(listed(random)) != set(listed(some))
        assert sorted(listed(random).values()) == sorted(listed(some).values())
        if wiring == "chain":
            counts = [{pair: len(rows) for pair, (rows, _) in one.places.items()} for one in (random, some)]
            assert counts[0] == counts[1]


def test_table_masks_and_networkx_hold_the_same_edges() -> None:
    edges, every = drawn(), listed(drawn())
    rows = edges.to_pandas().itertuples(index=False, name=None)
    assert {(up, int(u), down, int(d)): score for up, u, down, d, score in rows} == every
    masks = edges.masks({"a": 9, "b": 5, "c": 3})
    assert {(up, u, down, d) for (up, down), mask in masks.items() for d, u in np.argwhere(mask)} == set(every)
    graph = edges.to_networkx()
    assert nx.is_directed_acyclic_graph(graph)
    assert len(graph) == 6
    assert {(u, d): w for u, d, w in graph.edges(data="weight")} == {
        (f"{e[0]}/{e[1]}", f"{e[2]}/{e[3]}"): score for e, score in every.items()
    }


def test_all_edges_of_a_wiring() -> None:
    assert Edges.between(UNITS, "chain").count == 3 * 2 + 2
    assert Edges.between(UNITS, "stream").count == 3 * 2 + 3 + 2
