"""Units and edges that hold in resamples of parts, against enumeration of all draws and cases worked out on paper."""

import itertools
from dataclasses import replace

import numpy as np
import pytest

from circuitry import AttributionGraph
from circuitry.circuits.budgets import GLOBAL, SAME_SHARE, strongest_units
from circuitry.circuits.consensus import find_consensus
from tests.circuits.test_measures import chain, random_graph

PAIRS = (("a", "b"), ("b", "c"))


def with_edges(
    seed: int, budget: str = SAME_SHARE
) -> tuple[AttributionGraph, list[AttributionGraph], dict[tuple[str, str], np.ndarray]]:
    """Three parts of 2, 3 and 4 images, their whole, and the scores of its edges on each part."""
    rng = np.random.default_rng(seed)
    base = random_graph(seed)
    n = np.array([2, 3, 4])
    noisy = {s: v + rng.normal(size=(3, len(v))) for s, v in base.node_scores.items()}
    parts = [
        replace(base, node_scores={s: v[p] for s, v in noisy.items()}, n_images=int(count)) for p, count in enumerate(n)
    ]
    scores = {site: n @ values / 9 for site, values in noisy.items()}
    kept = strongest_units(scores, 0.4, budget)
    edges = {(up, down): rng.normal(size=(3, len(kept[down]), len(kept[up]))) for up, down in PAIRS}
    whole_edges = {pair: np.tensordot(n / 9, values, 1) for pair, values in edges.items()}
    settings = base.settings | {"budget": budget}
    whole = replace(base, node_scores=scores, kept_units=kept, edge_scores=whole_edges, n_images=9, settings=settings)
    return whole, parts, edges


@pytest.mark.parametrize("budget", [SAME_SHARE, GLOBAL])
def test_stability_is_the_share_of_all_draws_by_enumeration(budget: str) -> None:
    whole, parts, edges = with_edges(5, budget)
    assert (len(set(map(len, whole.kept_units.values()))) > 1) is (budget == GLOBAL)
    circuit = whole.circuit(2)
    found = find_consensus(circuit, parts, edges)
    n = [2, 3, 4]
    held_units: dict[str, list[list[bool]]] = {"a": [], "b": [], "c": []}
    held_edges: dict[tuple[str, str], list[list[bool]]] = {pair: [] for pair in PAIRS}
    for draw in itertools.product(range(3), repeat=3):
        total = sum(n[p] for p in draw)
        drawn = {s: np.sum([n[p] * parts[p].node_scores[s] for p in draw], 0) / total for s in held_units}
        strongest = strongest_units(drawn, 0.4, budget)
        for site, rows in held_units.items():
            scores, units = drawn[site], whole.kept_units[site].tolist()
            rows.append([u in set(strongest[site]) and scores[u] * whole.node_scores[site][u] > 0 for u in units])
        for pair, rows in held_edges.items():
            scores = np.sum([n[p] * edges[pair][p] for p in draw], 0) / total
            cut = replace(whole, edge_scores=whole.edge_scores | {pair: scores}).circuit(2).its_edges.places[pair]
            there = set(zip(*(place.tolist() for place in cut), strict=True))
            places = zip(*(place.tolist() for place in circuit.its_edges.places[pair]), strict=True)
            rows.append([place in there for place in places])
    for site, rows in held_units.items():
        np.testing.assert_allclose(found.units[site], np.mean(rows, 0))
    for pair, rows in held_edges.items():
        np.testing.assert_allclose(found.edges[pair], np.mean(rows, 0))
    assert found.unit_stability == pytest.approx(np.concatenate([*found.units.values()]).mean())
    assert 0 < found.edge_stability < 1


def test_hand_worked_consensus() -> None:
    # Two parts of equal size; unit 0 has 3 and 1, unit 1 has 1 and 2, unit 2 has -1 and 0: units 0 and 1 are kept.
    # Draws: part 0 twice (1/4): 3, 1, -1, so 0 and 1; one of each (1/2): 2, 1.5, -.5; part 1 twice: 1, 2, 0. All hold.
    # With unit 2 at -1.5: part 0 twice keeps 0 and 2, so unit 1 holds in 3/4.
    whole = replace(
        chain([0, 1], [0], [[1, 2]]), node_scores={"up": np.array([2, 1.5, -0.75]), "down": np.array([1.0])}
    )
    parts = [
        replace(whole, node_scores={"up": np.array(scores), "down": np.array([1.0])})
        for scores in ([3, 1, -1.5], [1.0, 2, 0])
    ]
    # The edge from unit 0: -1 and 3: its sum is -2, 2 and 6, so it holds in 3/4; that from unit 1 always does.
    edges = {("up", "down"): np.array([[[-1.0, 4]], [[3, 4]]])}
    found = find_consensus(whole.circuit(2), parts, edges)
    assert found.units["up"].tolist() == [1, 0.75]
    assert dict(
        zip(found.circuit.its_edges.places["up", "down"][1].tolist(), found.edges["up", "down"], strict=True)
    ) == {0: 0.75, 1: 1}
    assert found.unit_stability == pytest.approx(2.75 / 3)
    assert found.edge_stability == 0.875
    assert set(found.graph(0.75).edges) == {("up/0", "down/0"), ("up/1", "down/0")}
    assert set(found.graph(0.9).nodes) == {"up/0", "down/0"}
    assert found.graph(0.5).nodes["up/1"]["stability"] == 0.75
    assert not found.graph(0.9).edges
