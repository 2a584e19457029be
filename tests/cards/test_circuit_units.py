"""Tables of the units of several circuits against the graphs that they are made of."""

import numpy as np

from circuitry.cards.circuit_units import CircuitUnits
from tests.circuits.test_measures import random_graph

KEYS = [("cat", "real"), ("cat", "sketch"), ("fish", "sketch")]


def test_tables_hold_scores_and_members_of_every_circuit() -> None:
    graphs = {
        key: random_graph(seed, *key, units=8, fraction=0.25)
        for seed, key in enumerate(KEYS)
    }
    circuits = CircuitUnits(KEYS)
    for key, graph in graphs.items():
        circuits.add(key, graph)
    assert circuits.classes == ("cat", "fish")
    assert circuits.domains == ("real", "sketch")
    for site in graphs[KEYS[0]].inner_sites:
        kept = [set(graph.kept_units[site].tolist()) for graph in graphs.values()]
        assert circuits.kept_by_any(site).tolist() == sorted(set.union(*kept))
        scores = circuits.by_class_and_domain(circuits.scores[site])
        members = circuits.by_class_and_domain(circuits.kept[site])
        # No circuit of fish in photographs was added.
        assert np.isnan(scores[:, 1, 0]).all()
        assert not members[:, 1, 0].any()
        for (class_name, domain), graph in graphs.items():
            row = circuits.classes.index(class_name)
            column = circuits.domains.index(domain)
            of_circuit = graph.node_scores[site]
            assert scores[:, row, column].tolist() == of_circuit.tolist()
            numbers = np.flatnonzero(members[:, row, column])
            assert set(numbers.tolist()) == set(graph.kept_units[site].tolist())
    fish = graphs["fish", "sketch"]
    of_fish = {
        (site, unit)
        for site in fish.inner_sites
        for unit in fish.kept_units[site].tolist()
    }
    assert set(circuits.kept_by_class("fish")) == of_fish
