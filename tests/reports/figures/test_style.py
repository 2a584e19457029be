"""A domain looks the same in every figure, and marks can be told apart."""

import inspect

import pandas as pd
import plotly.graph_objects as go
import pytest

import circuitry.reports
from circuitry.reports import figures
from circuitry.reports.figures import accuracy_bars, circuit_pair, domain_marks, overlap_over_depth, similarity_heatmap
from circuitry.reports.figures.style import MARKS, lay_out, small_multiples, translucent
from circuitry.runs import InputError
from tests.reports.figures.conftest import SITES
from tests.reports.figures.test_circuit_graphs import circuits


def named(figure: go.Figure, name: str) -> go.Scatter:
    return next(trace for trace in figure.data if trace.name == name)


def test_a_domain_looks_the_same_in_every_figure(
    accuracy: pd.DataFrame, depth: pd.DataFrame, matrix: pd.DataFrame
) -> None:
    colour = domain_marks(["sketch", "real"])["sketch"].colour
    bars = next(bar for bar in accuracy_bars(accuracy).data if bar.name == "seen classes")
    assert bars.marker.color[list(accuracy["domain"]).index("sketch")] == colour
    assert named(overlap_over_depth(depth, SITES), "sketch").line.color == colour
    assert colour in similarity_heatmap(matrix, title="t", measure="m").layout.xaxis.ticktext[1]
    pair = circuit_pair(*circuits(), SITES, name_a="sketch", name_b="real", title="t")
    assert next(t for t in pair.data if (t.name or "").startswith("only sketch")).marker.color == colour


def test_marks_of_the_whole_are_kept_for_a_part(depth: pd.DataFrame) -> None:
    marks = domain_marks(["clipart", "real", "sketch"])
    figure = overlap_over_depth(depth[depth["domain"] == "sketch"], SITES, marks=marks)
    assert named(figure, "sketch").line.color == marks["sketch"].colour != domain_marks(["sketch"])["sketch"].colour


def test_marks_differ_run_out_and_must_fit(depth: pd.DataFrame) -> None:
    assert len({mark.colour for mark in MARKS}) == len({mark.symbol for mark in MARKS}) == 10
    with pytest.raises(InputError, match=r"10 domains.*11"):
        domain_marks([str(i) for i in range(11)])
    with pytest.raises(InputError, match=r"real.*sketch"):
        overlap_over_depth(depth, SITES, marks=domain_marks(["sketch"]))


def test_translucent_keeps_the_colour() -> None:
    assert translucent("#0072B2", 0.5) == "rgba(0,114,178,0.5)"


def test_charts_are_public() -> None:
    assert "figures" in dir(circuitry.reports)  # so that `circuitry.reports.figures` needs no import of its own
    assert figures.circuit_pair is circuit_pair
    for name in dir(figures):
        assert inspect.getdoc(getattr(figures, name)), name


def test_every_figure_has_a_heading(accuracy: pd.DataFrame, depth: pd.DataFrame, matrix: pd.DataFrame) -> None:
    assert accuracy_bars(accuracy).layout.title.text == "Accuracy by domain"
    assert overlap_over_depth(depth, SITES, measure="node overlap").layout.title.text == "Node overlap by site"
    assert overlap_over_depth(depth, SITES, title="Which?").layout.title.text == "Which?"


def test_panels_fill_their_rows_and_keep_their_gaps() -> None:
    figure, places = small_multiples(["a", "b<br>c", "d"], columns=2, height=100, gap=50)
    assert places == [{"row": 1, "col": 1}, {"row": 1, "col": 2}, {"row": 2, "col": 1}]
    low, high = figure.layout.yaxis.domain
    assert figure.layout.height == 250
    assert (high - low) * 250 == pytest.approx(100)
    assert lay_out(figure, title="t").layout.height == 250 + figure.layout.margin.t + figure.layout.margin.b
    assert figure.layout.margin.t > lay_out(small_multiples(["a"], columns=1, height=30)[0], title="t").layout.margin.t
