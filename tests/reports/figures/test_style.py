"""A domain looks the same in every figure, and marks can be told apart."""

import plotly.graph_objects as go

from circuitry.reports.figures import (
    accuracy_bars,
    circuit_pair,
    domain_marks,
    overlap_over_depth,
    similarity_heatmap,
)
from tests.reports.figures.made import ACCURACY, DEPTH, MATRIX, SITES
from tests.reports.figures.test_circuit_graphs import circuits


def named(figure: go.Figure, name: str) -> go.Scatter:
    return next(trace for trace in figure.data if trace.name == name)


def test_a_domain_looks_the_same_in_every_figure() -> None:
    colour = domain_marks(["sketch", "real"])["sketch"].colour
    bars = next(
        bar for bar in accuracy_bars(ACCURACY).data if bar.name == "seen classes"
    )
    assert bars.marker.color[list(ACCURACY["domain"]).index("sketch")] == colour
    assert named(overlap_over_depth(DEPTH, SITES), "sketch").line.color == colour
    assert (
        colour
        in similarity_heatmap(MATRIX, title="t", measure="m").layout.xaxis.ticktext[1]
    )
    pair = circuit_pair(*circuits(), SITES, name_a="sketch", name_b="real", title="t")
    assert (
        next(
            t for t in pair.data if (t.name or "").startswith("only sketch")
        ).marker.color
        == colour
    )


def test_marks_of_the_whole_are_kept_for_a_part() -> None:
    marks = domain_marks(["clipart", "real", "sketch"])
    figure = overlap_over_depth(DEPTH[DEPTH["domain"] == "sketch"], SITES, marks=marks)
    assert (
        named(figure, "sketch").line.color
        == marks["sketch"].colour
        != domain_marks(["sketch"])["sketch"].colour
    )
