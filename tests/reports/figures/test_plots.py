"""Figures hold the numbers of the tables they are given."""

from itertools import pairwise

import networkx as nx
import numpy as np
import pandas as pd
import plotly.graph_objects as go
import pytest
from hypothesis import given
from hypothesis import strategies as st

from circuitry.reports.figures.circuit_pair import circuit_pair
from circuitry.reports.figures.line_labels import apart
from circuitry.reports.figures.plots import accuracy_bars, overlap_over_depth, similarity_heatmap
from circuitry.reports.figures.style import MARKS, domain_marks, translucent
from circuitry.runs.errors import InputError

SITES = ["act1", "layer1.0", "attnpool"]


@pytest.fixture
def accuracy() -> pd.DataFrame:
    return pd.DataFrame(
        {
            "domain": ["sketch", "sketch", "real"],
            "part": ["held-out", "seen", "seen"],
            "accuracy": [0.25, 0.625, 0.875],
            "balanced_accuracy": [0.2, 0.6, 0.8],
            "n_images": [40, 1200, 900],
            "n_classes": [2, 6, 8],
        }
    )


@pytest.fixture
def depth() -> pd.DataFrame:
    rows = [
        {"domain": domain, "site": site, "value": value, "low": value - 0.1, "high": value + 0.1}
        for domain, start in (("sketch", 0.4), ("real", 0.6))
        for site, value in zip(reversed(SITES), (start, start + 0.1, start + 0.2), strict=True)
    ]
    return pd.DataFrame(rows)


@pytest.fixture
def matrix() -> pd.DataFrame:
    names = ["real", "sketch"]
    return pd.DataFrame([[0.9, 0.3], [0.3, np.nan]], index=names, columns=names)


def named(figure: go.Figure, name: str) -> go.Scatter:
    return next(trace for trace in figure.data if trace.name == name)


def texts(figure: go.Figure) -> list[str]:
    return [annotation.text for annotation in figure.layout.annotations]


# Looks


def test_a_domain_looks_the_same_in_every_figure(
    accuracy: pd.DataFrame, depth: pd.DataFrame, matrix: pd.DataFrame
) -> None:
    colour = domain_marks(["sketch", "real"])["sketch"].colour
    bars = next(bar for bar in accuracy_bars(accuracy).data if bar.name == "seen classes")
    assert bars.marker.color[list(bars.x).index("sketch")] == colour
    assert named(overlap_over_depth(depth, SITES), "sketch").line.color == colour
    assert colour in similarity_heatmap(matrix, title="t", measure="m").layout.xaxis.ticktext[1]
    pair = circuit_pair(*circuits(), SITES, name_a="sketch", name_b="real", title="t")
    assert next(t for t in pair.data if (t.name or "").startswith("only sketch")).marker.color == colour


def test_marks_of_the_whole_are_kept_for_a_part(depth: pd.DataFrame) -> None:
    marks = domain_marks(["clipart", "real", "sketch"])
    figure = overlap_over_depth(depth[depth["domain"] == "sketch"], SITES, marks=marks)
    assert named(figure, "sketch").line.color == marks["sketch"].colour != domain_marks(["sketch"])["sketch"].colour


def test_marks_differ_and_run_out() -> None:
    assert len({mark.colour for mark in MARKS}) == len({mark.symbol for mark in MARKS}) == 10
    with pytest.raises(InputError, match=r"At most 10 domains .* 11 were given; draw fewer"):
        domain_marks([str(i) for i in range(11)])


def test_marks_that_miss_a_domain_are_refused(depth: pd.DataFrame) -> None:
    with pytest.raises(InputError, match="marks has no entry for real, only for sketch; make it with"):
        overlap_over_depth(depth, SITES, marks=domain_marks(["sketch"]))


def test_translucent_keeps_the_colour() -> None:
    assert translucent("#0072B2", 0.5) == "rgba(0,114,178,0.5)"


# Accuracy


def test_accuracy_bars_show_the_table(accuracy: pd.DataFrame) -> None:
    figure = accuracy_bars(accuracy, chance=1 / 8)
    seen, held_out = (
        next(bar for bar in figure.data if bar.name == f"{part} classes") for part in ("seen", "held-out")
    )
    assert list(seen.x) == ["sketch", "real"]
    assert list(seen.y) == [62.5, 87.5]
    assert list(seen.text) == ["62", "88"]
    assert held_out.y[0] == 25
    assert np.isnan(held_out.y[1])
    assert list(held_out.text) == ["25", ""]
    assert list(seen.customdata[0]) == [0.6, 1200, 6]
    assert "1,200 + 40" in figure.layout.xaxis.ticktext[0]
    assert figure.layout.shapes[0].y0 == figure.layout.shapes[0].y1 == 12.5
    assert texts(figure) == ["chance<br>12 %"]


def test_accuracy_without_chance_has_no_line(accuracy: pd.DataFrame) -> None:
    assert not accuracy_bars(accuracy).layout.shapes


@pytest.mark.parametrize("column", ["domain", "part", "accuracy", "balanced_accuracy", "n_images", "n_classes"])
def test_accuracy_names_the_missing_column(accuracy: pd.DataFrame, column: str) -> None:
    with pytest.raises(InputError, match=f"The accuracy table lacks the column {column}; it has "):
        accuracy_bars(accuracy.drop(columns=column))


def test_accuracy_refuses_other_rows(accuracy: pd.DataFrame) -> None:
    with pytest.raises(InputError, match='is "seen" or "held-out", not "unseen"'):
        accuracy_bars(accuracy.assign(part="unseen").drop_duplicates(["domain", "part"]))
    with pytest.raises(InputError, match="accuracy table has more than one row for sketch, held-out; average"):
        accuracy_bars(pd.concat([accuracy, accuracy.head(1)]))
    with pytest.raises(InputError, match="accuracy table has no rows"):
        accuracy_bars(accuracy.head(0))


# Depth


def test_depth_lines_follow_the_sites(depth: pd.DataFrame) -> None:
    ceiling = pd.DataFrame({"site": SITES, "value": [0.95, 0.9, 0.85]})
    chance = pd.DataFrame({"site": SITES[:2], "value": [0.1, 0.05]})
    figure = overlap_over_depth(depth, SITES, ceiling, chance, measure="cosine")
    line = named(figure, "real")
    assert list(line.x) == SITES
    assert line.y == pytest.approx([0.8, 0.7, 0.6])
    band = named(figure, "real interval")
    assert list(band.x) == SITES + SITES[::-1]
    assert band.y == pytest.approx([0.9, 0.8, 0.7, 0.5, 0.6, 0.7])
    assert list(named(figure, "split-half ceiling").y) == [0.95, 0.9, 0.85]
    assert list(named(figure, "chance").y)[:2] == [0.1, 0.05]
    assert figure.layout.yaxis.title.text == "cosine"
    low, high = figure.layout.yaxis.range
    assert low == 0
    assert high > 0.95
    assert [text.split(">")[-1].strip() or text for text in texts(figure)][1:3] == ["sketch", "real"]
    assert len(texts(figure)) == 4


def test_depth_shows_negative_values(depth: pd.DataFrame) -> None:
    moved = depth.assign(value=depth["value"] - 1, low=depth["low"] - 1, high=depth["high"] - 1)
    low, high = overlap_over_depth(moved, SITES).layout.yaxis.range
    assert low < -0.7
    assert high > -0.1


def test_depth_leaves_a_gap_where_a_domain_lacks_a_site(depth: pd.DataFrame) -> None:
    figure = overlap_over_depth(depth.drop(index=1), SITES)
    assert np.isnan(named(figure, "sketch").y[1])
    assert len(named(figure, "sketch interval").y) == 4


def test_depth_refuses_what_it_cannot_draw(depth: pd.DataFrame) -> None:
    with pytest.raises(InputError, match="The depth table lacks the column high; it has domain, site, value, low"):
        overlap_over_depth(depth.drop(columns="high"), SITES)
    with pytest.raises(InputError, match=r"no row for the site layer9; it has attnpool, layer1\.0, act1"):
        overlap_over_depth(depth, [*SITES, "layer9"])
    with pytest.raises(InputError, match="depth table has more than one row for sketch, attnpool"):
        overlap_over_depth(pd.concat([depth, depth]), SITES)
    with pytest.raises(InputError, match="The ceiling table lacks the column value"):
        overlap_over_depth(depth, SITES, ceiling=pd.DataFrame({"site": SITES}))
    with pytest.raises(InputError, match="The chance table lacks the column site"):
        overlap_over_depth(depth, SITES, chance=pd.DataFrame({"value": [0.1]}))


def test_labels_of_crowded_ends_stay_within_the_axis() -> None:
    rows = [(domain, "a", 1 - 0.001 * i, 0.9, 1.0) for i, domain in enumerate("bcdefgh")]
    depth = pd.DataFrame(rows, columns=["domain", "site", "value", "low", "high"])
    chance = pd.DataFrame({"site": ["a"], "value": [0.0]})
    figure = overlap_over_depth(depth, ["a"], depth[:1][["site", "value"]], chance)
    low, high = figure.layout.yaxis.range
    places = [annotation.y for annotation in figure.layout.annotations]
    assert len(places) == 9
    assert low < min(places) < max(places) < high


@given(st.lists(st.floats(-5, 5), max_size=12).map(sorted), st.floats(0.01, 2))
def test_labels_are_apart_and_keep_their_mean(values: list[float], gap: float) -> None:
    places = apart(values, gap)
    assert all(b - a >= gap - 1e-9 for a, b in pairwise(places))
    assert sum(places) == pytest.approx(sum(values), abs=1e-9)
    if all(b - a >= gap for a, b in pairwise(values)):
        assert places == pytest.approx(values)


# Heatmap


def test_heatmap_shows_the_matrix_and_marks_the_ceilings(matrix: pd.DataFrame) -> None:
    matrix.index.name, matrix.columns.name = "circuit of", "images of"
    figure = similarity_heatmap(matrix, title="Edges", measure="Jaccard")
    (cells,) = figure.data
    np.testing.assert_array_equal(cells.z, matrix.to_numpy())
    assert list(cells.x) == list(cells.y) == ["real", "sketch"]
    assert (cells.zmin, cells.zmax) == (0, 0.9)
    assert [(shape.x0 + shape.x1) / 2 for shape in figure.layout.shapes] == [0]
    assert figure.layout.title.text == "Edges"
    assert figure.layout.title.subtitle.text == "Jaccard; dotted: split-half ceiling"
    assert (figure.layout.yaxis.title.text, figure.layout.xaxis.title.text) == ("circuit of", "images of")


def test_heatmap_with_another_or_no_diagonal_and_with_negative_values(matrix: pd.DataFrame) -> None:
    figure = similarity_heatmap(matrix, title="t", measure="faithfulness", diagonal="same domain")
    assert figure.layout.title.subtitle.text == "faithfulness; dotted: same domain"
    matrix = matrix.mask(np.eye(2, dtype=bool))
    figure = similarity_heatmap(-matrix, title="t", measure="rank correlation")
    assert (figure.data[0].zmin, figure.data[0].zmax) == (-0.3, 0.3)
    assert not figure.layout.shapes
    assert figure.layout.title.subtitle.text == "rank correlation"


def test_heatmap_refuses_other_shapes(matrix: pd.DataFrame) -> None:
    for wrong in (matrix.iloc[::-1], matrix.iloc[:1], matrix.iloc[[0, 0], [0, 0]]):
        with pytest.raises(
            InputError, match=r"the same domains, each once and in the same order, .*; it has rows (real|sketch)"
        ):
            similarity_heatmap(wrong, title="t", measure="m")
    with pytest.raises(InputError, match="it has rows none and columns none"):
        similarity_heatmap(pd.DataFrame(), title="t", measure="m")


# Circuits


def circuit(scores: dict[str, float], edges: dict[tuple[str, str], float]) -> nx.DiGraph:
    graph = nx.DiGraph()
    for name, score in scores.items():
        graph.add_node(name, score=score)
    for (upper, lower), weight in edges.items():
        graph.add_edge(upper, lower, weight=weight)
    return graph


def circuits() -> tuple[nx.DiGraph, nx.DiGraph]:
    """Shared: three nodes and one edge. Only in A: one node, two edges. Only in B: two nodes, one edge."""
    a = circuit(
        {"act1/0": -0.5, "layer1.0/3": 0.2, "layer1.0/4": 0.1, "attnpool/7": 0.3},
        {("act1/0", "layer1.0/3"): 0.01, ("act1/0", "layer1.0/4"): 0.02, ("layer1.0/4", "attnpool/7"): 0.03},
    )
    b = circuit(
        {"act1/0": -0.4, "layer1.0/3": 0.25, "layer1.0/5": 0.9, "layer1.0/6": 0.05, "attnpool/7": 0.1},
        {("act1/0", "layer1.0/3"): 0.04, ("layer1.0/5", "attnpool/7"): 0.05},
    )
    return a, b


def drawn(figure: go.Figure, kind: str) -> tuple[go.Scatter, go.Scatter]:
    edges, nodes = (trace for trace in figure.data if trace.legendgroup == kind)
    return edges, nodes


def ends(edges: go.Scatter) -> set[tuple[float, float]]:
    return {(edges.x[i], edges.x[i + 10]) for i in range(0, len(edges.x), 12)}


def test_circuit_pair_sorts_nodes_and_edges_into_shared_and_not() -> None:
    figure = circuit_pair(*circuits(), SITES, name_a="real", name_b="sketch", title="axe")
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
    assert edges.text[1] == "act1/0 → layer1.0/3<br>weight 0.01 in real<br>weight 0.04 in sketch"
    assert ends(edges) == {(0.0, 1.0)}
    assert ends(drawn(figure, "a")[0]) == {(0.0, 1.0), (1.0, 2.0)}
    assert figure.layout.title.text == "axe"
    assert [tick.split(">")[-2].removesuffix("</span") for tick in figure.layout.xaxis.ticktext] == [
        "1 / 1",
        "1 / 4",
        "1 / 1",
    ]


def test_circuit_lanes_do_not_mix_and_the_strongest_is_next_to_the_middle() -> None:
    figure = circuit_pair(*circuits(), SITES, name_a="real", name_b="sketch", title="t")
    rows = {kind: drawn(figure, kind)[1].y for kind in ("a", "b", "shared")}
    assert min(rows["a"]) > max(rows["shared"])
    assert min(rows["shared"]) > max(rows["b"])
    strong, weak = rows["b"]
    assert "layer1.0/5" in drawn(figure, "b")[1].text[0]
    assert strong > weak


def test_too_many_nodes_leave_the_strongest_and_say_so() -> None:
    figure = circuit_pair(*circuits(), SITES, name_a="real", name_b="sketch", title="t", max_nodes=4)
    assert figure.layout.title.subtitle.text == "drawn: the 2 strongest units of every site, 4 of 6 nodes"
    assert [text.split("</b>")[0] for text in drawn(figure, "b")[1].text] == ["<b>layer1.0/5"]
    assert list(drawn(figure, "a")[1].x) == [None]
    assert drawn(figure, "a")[1].name == "only real: 1 node, 2 edges"
    assert len(drawn(figure, "a")[0].x) == 0
    whole = circuit_pair(*circuits(), SITES, name_a="real", name_b="sketch", title="t", max_nodes=6)
    assert whole.layout.title.subtitle.text is None


def test_circuit_pair_refuses_what_it_cannot_draw() -> None:
    a, b = circuits()

    def draw(first: nx.DiGraph, second: nx.DiGraph = b, name_b: str = "sketch") -> go.Figure:
        return circuit_pair(first, second, SITES, name_a="real", name_b=name_b, title="t")

    with pytest.raises(InputError, match='need different names, both are "real"'):
        draw(a, name_b="real")
    with pytest.raises(InputError, match=r'"layer9/0" is of no listed site; the sites are act1, layer1\.0, attn'):
        draw(circuit({"layer9/0": 1.0}, {}))
    with pytest.raises(InputError, match="Both circuits are empty"):
        draw(nx.DiGraph(), nx.DiGraph())
    a.add_edge("act1/0", "attnpool/7")
    with pytest.raises(InputError, match='edge "act1/0" -> "attnpool/7" has no attribute "weight"'):
        draw(a)
    a.add_node("act1/9")
    with pytest.raises(InputError, match='node "act1/9" has no attribute "score"'):
        draw(a)
