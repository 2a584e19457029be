"""Drawings of circuits hold the nodes and edges of their graphs."""

from itertools import combinations

import numpy as np
import plotly.graph_objects as go

from circuitry import AttributionGraph, Circuit
from circuitry.circuits import Completeness
from circuitry.gates import Edges
from circuitry.reports.figures import circuit_drawing, circuit_pair
from circuitry.reports.figures.circuit_graphs import MOST_ALONE
from tests.circuits.test_graph import small_graph
from tests.reports.figures.made import SITES


def circuit(scores: dict[str, float], edges: dict[tuple[str, str], float]) -> Circuit:
    units: dict[str, list[int]] = {
        site: [] for site in dict.fromkeys(name.rpartition("/")[0] for name in scores)
    }
    for name in scores:
        units[name.rpartition("/")[0]].append(int(name.rpartition("/")[2]))
    nodes = {
        site: np.array([scores.get(f"{site}/{unit}", 0.0) for unit in range(80)])
        for site in units
    }
    kept = {site: np.array(some) for site, some in units.items()}
    found = {
        (up, down): np.array(
            [
                [edges.get((f"{up}/{a}", f"{down}/{b}"), np.nan) for a in units[up]]
                for b in units[down]
            ]
        )
        for up, down in combinations(units, 2)
    }
    source = AttributionGraph(
        sites=tuple(units),
        node_scores=nodes,
        kept_units=kept,
        edge_scores={},
        completeness={},
        n_images=1,
        settings={},
    )
    return Circuit(source, kept, Edges(kept, found))


def circuits() -> tuple[Circuit, Circuit]:
    """Shared: three nodes and one edge. Only in A: one node, two edges. Only in B: two nodes, one edge."""
    a = circuit(
        {"act1/0": -0.5, "layer1.0/3": 0.2, "layer1.0/4": 0.1, "attnpool/7": 0.3},
        {
            ("act1/0", "layer1.0/3"): 0.01,
            ("act1/0", "layer1.0/4"): 0.02,
            ("layer1.0/4", "attnpool/7"): 0.03,
        },
    )
    b = circuit(
        {
            "act1/0": -0.4,
            "layer1.0/3": 0.25,
            "layer1.0/5": 0.9,
            "layer1.0/6": 0.05,
            "attnpool/7": 0.1,
        },
        {("act1/0", "layer1.0/3"): 0.04, ("layer1.0/5", "attnpool/7"): 0.05},
    )
    return a, b


def drawn(figure: go.Figure, kind: str) -> tuple[go.Scatter, go.Scatter]:
    edges, nodes = (trace for trace in figure.data if trace.legendgroup == kind)
    return edges, nodes


def ends(edges: go.Scatter) -> set[tuple[float, float]]:
    return {(edges.x[i], edges.x[i + 10]) for i in range(0, len(edges.x), 12)}


def test_circuit_pair_sorts_nodes_and_edges_into_shared_and_not() -> None:
    figure = circuit_pair(
        *circuits(), SITES, name_a="real", name_b="sketch", title="axe"
    )
    labels = [drawn(figure, kind)[1].name for kind in ("a", "b", "shared")]
    assert labels == [
        "only real: 1 node, 2 edges",
        "only sketch: 2 nodes, 1 edge",
        "shared: 3 nodes, 1 edge",
    ]
    edges, nodes = drawn(figure, "shared")
    assert set(nodes.text) == {
        "<b>act1/0</b><br>score -0.5 in real<br>score -0.4 in sketch",
        "<b>layer1.0/3</b><br>score 0.2 in real<br>score 0.25 in sketch",
        "<b>attnpool/7</b><br>score 0.3 in real<br>score 0.1 in sketch",
    }
    assert (
        edges.text[1]
        == "act1/0 → layer1.0/3<br>weight 0.01 in real<br>weight 0.04 in sketch"
    )
    assert ends(edges) == {(0.0, 1.0)}
    assert ends(drawn(figure, "a")[0]) == {(0.0, 1.0), (1.0, 2.0)}


def test_circuit_lanes_do_not_mix_and_the_strongest_is_next_to_the_middle() -> None:
    figure = circuit_pair(*circuits(), SITES, name_a="real", name_b="sketch", title="t")
    rows = {kind: drawn(figure, kind)[1].y for kind in ("a", "b", "shared")}
    assert min(rows["a"]) > max(rows["shared"])
    assert min(rows["shared"]) > max(rows["b"])
    strong, weak = rows["b"]
    assert "layer1.0/5" in drawn(figure, "b")[1].text[0]
    assert strong > weak


def test_one_circuit_has_what_works_for_the_metric_above_what_works_against_it() -> (
    None
):
    graph = circuit(
        {"act1/0": 0.5, "layer1.0/3": 0.2, "layer1.0/4": -0.1, "layer1.0/5": 0.3},
        {
            ("act1/0", "layer1.0/3"): 0.01,
            ("act1/0", "layer1.0/5"): 0.01,
            ("act1/0", "layer1.0/4"): -0.02,
        },
    )
    figure = circuit_drawing(graph, SITES, title="axe")
    labels = {trace.legendgroup: trace.name for trace in figure.data if trace.name}
    assert labels == {
        "a": "for the metric: 3 nodes, 2 edges",
        "b": "against it: 1 node, 1 edge",
    }
    edges, nodes = drawn(figure, "a")
    assert {text.split("<br>")[1].split(" in ")[0] for text in nodes.text} == {
        "score 0.5",
        "score 0.2",
        "score 0.3",
    }
    assert min(nodes.y) > max(drawn(figure, "b")[1].y)
    by_name = {
        text.split("</b>")[0]: y for text, y in zip(nodes.text, nodes.y, strict=True)
    }
    assert (
        by_name["<b>layer1.0/5"] < by_name["<b>layer1.0/3"]
    )  # the stronger is nearer to the middle
    assert ends(edges) == {(0.0, 1.0)}
    assert "1 / 1" in figure.layout.xaxis.ticktext[0]
    assert "2 / 3" in figure.layout.xaxis.ticktext[1]


def test_of_a_large_circuit_the_strongest_units_are_drawn_and_the_stronger_larger() -> (
    None
):
    scores = {f"act1/{unit}": 1.0 / (1 + unit) for unit in range(2 * MOST_ALONE)}
    (nodes,) = [
        trace
        for trace in circuit_drawing(circuit(scores, {}), SITES).data
        if trace.name and trace.text
    ]
    assert len(nodes.x) == MOST_ALONE
    assert list(nodes.marker.size) == sorted(nodes.marker.size, reverse=True)


def test_doubtful_sites_are_marked() -> None:
    graph = small_graph(completeness={"head": Completeness(4.0, 2.0)})
    drawn = circuit_drawing(graph.circuit())
    ticks = {tick.split(" ")[0] for tick in drawn.layout.xaxis.ticktext}
    assert ticks == {"conv", "head!"}
    assert "!" in drawn.layout.title.subtitle.text
