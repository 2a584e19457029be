"""Overlaps of parts across the halves of the images, and chance of edges against edges of permuted units."""

from collections.abc import Mapping

import numpy as np
import pytest

from circuitry import AttributionGraph, Circuit
from circuitry.data.folds import Key
from circuitry.interventions import part_overlaps

N_UNITS = {"first": 8, "second": 10, "third": 6}


def part(units: Mapping[str, list[int]], n_images: int = 8) -> Circuit:
    """Return a part of three sites, with all edges between the units of consecutive sites."""
    kept = {site: np.array(of_site) for site, of_site in units.items()}
    edges = dict[tuple[str, str], np.ndarray]()
    for pair in (("first", "second"), ("second", "third")):
        edges[pair] = np.ones((len(kept[pair[1]]), len(kept[pair[0]])))
    scores = {site: np.arange(n, dtype=float) + 1 for site, n in N_UNITS.items()}
    graph = AttributionGraph(
        tuple(N_UNITS), scores, {}, n_images, kept_units=kept, edge_scores=edges
    )
    return Circuit(graph, kept)


ONE = {"first": [0, 1], "second": [0, 1, 2], "third": [0]}
OTHER = {"first": [1, 2], "second": [1, 2, 3], "third": [0, 1]}
INK, OIL, DOG = ("cat", "ink"), ("cat", "oil"), ("dog", "ink")


def test_parts_of_one_class_are_compared_across_the_halves() -> None:
    first = {INK: part(ONE), OIL: part(OTHER), DOG: part(OTHER)}
    second: dict[Key, Circuit] = {INK: part(OTHER, n_images=6), DOG: part(ONE)}
    table = part_overlaps(first, second=second)
    keys = ["class_a", "domain_a", "half_a", "class_b", "domain_b", "half_b"]
    assert table[keys].to_numpy().tolist() == [
        [*INK, 1, *INK, 2],  # the two ceilings
        [*DOG, 1, *DOG, 2],
        [*INK, 2, *OIL, 1],  # oil has no second part
        [*INK, 1, *DOG, 1],  # two classes, of the first halves
        [*OIL, 1, *DOG, 1],
    ]
    assert table["n_a"].tolist() == [8, 8, 6, 8, 8]
    assert table["n_b"].tolist() == [6, 8, 8, 8, 8]
    # Of ink's second part and oil's first part all units are the same, of the two parts of ink 4 of 9.
    assert table["overlap"].tolist() == pytest.approx([4 / 9, 4 / 9, 1, 4 / 9, 1])
    alone = part_overlaps({INK: first[INK], OIL: first[OIL]})
    assert alone[["half_a", "half_b"]].to_numpy().tolist() == [[1, 1]]


def edges_of(units: Mapping[str, np.ndarray]) -> set[tuple[str, int, int]]:
    edges = set[tuple[str, int, int]]()
    for up, down in (("first", "second"), ("second", "third")):
        edges |= {(up, int(u), int(d)) for u in units[up] for d in units[down]}
    return edges


def test_chance_of_edges_is_that_of_edges_whose_units_are_permuted() -> None:
    table = part_overlaps({INK: part(ONE), OIL: part(OTHER)})
    rng = np.random.default_rng(0)
    common = list[int]()
    for _ in range(4000):
        permuted = dict[str, np.ndarray]()
        for site, units in OTHER.items():
            permuted[site] = rng.permutation(N_UNITS[site])[units]
        given = {site: np.array(units) for site, units in ONE.items()}
        common.append(len(edges_of(given) & edges_of(permuted)))
    n_edges = 2 * 3 + 3 * 1 + 2 * 3 + 3 * 2
    mean = float(np.mean(common))
    chance = table.at[0, "edges_chance"]
    assert chance == pytest.approx(mean / (n_edges - mean), rel=0.05)
    # 6 edges and 6 edges among 8 x 10 pairs of units, 3 and 6 among 10 x 6.
    expected = 6 * 6 / 80 + 3 * 6 / 60
    assert chance == pytest.approx(expected / (n_edges - expected))
