"""Edges as one value, against lists sorted by hand, and what holds in resamples of folds, by enumeration."""

import itertools
from dataclasses import replace
from itertools import combinations

import networkx as nx
import numpy as np
import pytest

from circuitry import AttributionGraph
from circuitry.circuits.budgets import GLOBAL, SAME_SHARE, strongest_units
from circuitry.circuits.consensus import find_consensus
from circuitry.gates import Edges
from tests.circuits.test_measures import chain, random_graph

Edge = tuple[str, int, str, int]
UNITS = {"a": np.array([7, 2, 5]), "b": np.array([0, 4]), "c": np.array([1])}


def drawn(wiring: str = "stream") -> Edges:
    rng = np.random.default_rng(0)
    pairs = (
        list(combinations(UNITS, 2)) if wiring == "stream" else [("a", "b"), ("b", "c")]
    )
    scores = {
        (up, down): rng.normal(size=(len(UNITS[down]), len(UNITS[up])))
        for up, down in pairs
    }
    scores["a", "b"][0, 1] = np.nan
    return Edges(UNITS, scores)


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
            into = sorted(
                (edge for edge in every if edge[2:] == (site, unit)),
                key=lambda edge: -every[edge],
            )[:3]
            expected |= {edge for edge in into if any_sign or every[edge] > 0}
        found = edges.strongest(3, any_sign=any_sign)
        assert set(listed(found)) == expected
        assert found.count == len(expected)


def test_the_top_share_is_ranked_over_all_pairs() -> None:
    every = listed(drawn())
    order = sorted(every, key=lambda edge: -abs(every[edge]))
    assert set(listed(drawn().top(0.3))) == set(order[:3])
    assert drawn().top(0.01).count == 1
    assert drawn().without(drawn().top(0.3)).count == 7


def test_edges_among_units_without_each_and_at_random() -> None:
    edges, every = drawn(), listed(drawn())
    some = edges.among({"a": [2, 7], "c": np.array([1])})
    assert listed(some) == {
        edge: every[edge]
        for edge in every
        if edge[0] == "a" and edge[1] != 5 and edge[2] == "c"
    }
    left = [set(listed(one)) for one in edges.without_each()]
    assert sorted(next(iter(set(every) - one)) for one in left) == sorted(every)


def test_random_edges_are_as_many_and_in_a_chain_join_the_same_sites() -> None:
    for wiring in ("chain", "stream"):
        some = drawn(wiring).top(0.5)
        random = some.random(np.random.default_rng(1))
        assert set(listed(random)) != set(listed(some))
        assert sorted(listed(random).values()) == sorted(listed(some).values())
        if wiring == "chain":
            counts = [
                {pair: len(rows) for pair, (rows, _) in one.places.items()}
                for one in (random, some)
            ]
            assert counts[0] == counts[1]


def test_table_masks_and_networkx_hold_the_same_edges() -> None:
    edges, every = drawn(), listed(drawn())
    rows = edges.to_pandas().itertuples(index=False, name=None)
    assert {
        (up, int(u), down, int(d)): score for up, u, down, d, score in rows
    } == every
    masks = edges.masks({"a": 9, "b": 5, "c": 3})
    assert {
        (up, u, down, d)
        for (up, down), mask in masks.items()
        for d, u in np.argwhere(mask)
    } == set(every)
    graph = edges.to_networkx()
    assert nx.is_directed_acyclic_graph(graph)
    assert len(graph) == 6
    assert {(u, d): w for u, d, w in graph.edges(data="weight")} == {
        (f"{e[0]}/{e[1]}", f"{e[2]}/{e[3]}"): score for e, score in every.items()
    }


PAIRS = (("a", "b"), ("b", "c"))


def with_edges(
    seed: int, budget: str = SAME_SHARE
) -> tuple[AttributionGraph, list[AttributionGraph], dict[tuple[str, str], np.ndarray]]:
    """Three folds of 2, 3 and 4 images, their whole, and the scores of its edges on each fold."""
    rng = np.random.default_rng(seed)
    base = random_graph(seed)
    n = np.array([2, 3, 4])
    noisy = {s: v + rng.normal(size=(3, len(v))) for s, v in base.node_scores.items()}
    folds = [
        replace(
            base, node_scores={s: v[p] for s, v in noisy.items()}, n_images=int(count)
        )
        for p, count in enumerate(n)
    ]
    scores = {site: n @ values / 9 for site, values in noisy.items()}
    kept = strongest_units(scores, 0.4, budget)
    edges = {
        (up, down): rng.normal(size=(3, len(kept[down]), len(kept[up])))
        for up, down in PAIRS
    }
    whole_edges = {
        pair: np.tensordot(n / 9, values, 1) for pair, values in edges.items()
    }
    settings = base.settings | {"budget": budget}
    whole = replace(
        base,
        node_scores=scores,
        kept_units=kept,
        edge_scores=whole_edges,
        n_images=9,
        settings=settings,
    )
    return whole, folds, edges


@pytest.mark.parametrize("budget", [SAME_SHARE, GLOBAL])
def test_stability_is_the_share_of_all_draws_by_enumeration(budget: str) -> None:
    whole, folds, edges = with_edges(5, budget)
    assert (len(set(map(len, whole.kept_units.values()))) > 1) is (budget == GLOBAL)
    circuit = whole.circuit(2)
    found = find_consensus(circuit, folds, edges)
    n = [2, 3, 4]
    held_units: dict[str, list[list[bool]]] = {"a": [], "b": [], "c": []}
    held_edges: dict[tuple[str, str], list[list[bool]]] = {pair: [] for pair in PAIRS}
    for draw in itertools.product(range(3), repeat=3):
        total = sum(n[p] for p in draw)
        drawn = {
            s: np.sum([n[p] * folds[p].node_scores[s] for p in draw], 0) / total
            for s in held_units
        }
        strongest = strongest_units(drawn, 0.4, budget)
        for site, rows in held_units.items():
            scores, units = drawn[site], whole.kept_units[site].tolist()
            rows.append(
                [
                    u in set(strongest[site])
                    and scores[u] * whole.node_scores[site][u] > 0
                    for u in units
                ]
            )
        for pair, rows in held_edges.items():
            scores = np.sum([n[p] * edges[pair][p] for p in draw], 0) / total
            cut = (
                replace(whole, edge_scores=whole.edge_scores | {pair: scores})
                .circuit(2)
                .its_edges.places[pair]
            )
            there = set(zip(*(place.tolist() for place in cut), strict=True))
            places = zip(
                *(place.tolist() for place in circuit.its_edges.places[pair]),
                strict=True,
            )
            rows.append([place in there for place in places])
    for site, rows in held_units.items():
        np.testing.assert_allclose(found.units[site], np.mean(rows, 0))
    for pair, rows in held_edges.items():
        np.testing.assert_allclose(found.edges[pair], np.mean(rows, 0))
    assert found.unit_stability == pytest.approx(
        np.concatenate([*found.units.values()]).mean()
    )
    assert 0 < found.edge_stability < 1
    alike = {pair: np.stack([scores] * 6) for pair, scores in whole.edge_scores.items()}
    same = find_consensus(circuit, [replace(whole, n_images=2)] * 6, alike)
    assert (same.unit_stability, same.edge_stability) == pytest.approx((1, 1))


def test_hand_worked_consensus() -> None:
    # Two folds of equal size; unit 0 has 3 and 1, unit 1 has 1 and 2, unit 2 has -1 and 0: units 0 and 1 are kept.
    # Draws: fold 0 twice (1/4): 3, 1, -1, so 0 and 1; one of each (1/2): 2, 1.5, -.5; fold 1 twice: 1, 2, 0. All hold.
    # With unit 2 at -1.5: fold 0 twice keeps 0 and 2, so unit 1 holds in 3/4.
    whole, *folds = (
        replace(
            chain([0, 1], [0], [[1, 2]]),
            node_scores={"up": np.array(scores), "down": np.array([1.0])},
        )
        for scores in ([2, 1.5, -0.75], [3, 1, -1.5], [1.0, 2, 0])
    )
    # The edge from unit 0: -1 and 3: its sum is -2, 2 and 6, so it holds in 3/4; that from unit 1 always does.
    edges = {("up", "down"): np.array([[[-1.0, 4]], [[3, 4]]])}
    found = find_consensus(whole.circuit(2), folds, edges)
    assert found.units["up"].tolist() == [1, 0.75]
    upstream = found.circuit.its_edges.places["up", "down"][1].tolist()
    assert dict(zip(upstream, found.edges["up", "down"], strict=True)) == {
        0: 0.75,
        1: 1,
    }
    assert found.unit_stability == pytest.approx(2.75 / 3)
    assert found.edge_stability == 0.875


def test_a_consensus_keeps_by_importance_and_compares_the_signs_of_effects() -> None:
    # Ranked as above: unit 0 is kept in every draw, unit 1 not where fold 0 is drawn twice (1/4). The effect of unit 0
    # has the sign of the whole where fold 0 is drawn twice alone, that of unit 1 in all other draws.
    ranks, effects = (
        ([2, 1.5, 0.75], [3, 1, 1.5], [1, 2, 0]),
        ([1, -1, 0], [1, 1, 0], [-3, -3, 0]),
    )
    whole, *folds = (
        replace(
            chain([0, 1], [0], [[1, 2]]),
            node_scores={"up": np.array(effect, float), "down": np.array([1.0])},
            importance={"up": np.array(rank, float), "down": np.array([1.0])},
        )
        for rank, effect in zip(ranks, effects, strict=True)
    )
    found = find_consensus(
        whole.circuit(2), folds, {("up", "down"): np.ones((2, 1, 2))}
    )
    assert found.units["up"].tolist() == [0.25, 0.75]
