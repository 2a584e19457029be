"""Lines over depth and over the size of a circuit hold the numbers of the tables they are given."""

from itertools import pairwise

import numpy as np
import pandas as pd
import plotly.graph_objects as go
import pytest
from hypothesis import given
from hypothesis import strategies as st

from circuitry.reports.figures import (
    domain_marks,
    faithfulness_curves,
    overlap_over_depth,
)
from circuitry.reports.figures.style import apart
from tests.reports.figures.made import DEPTH, SITES


def named(figure: go.Figure, name: str) -> go.Scatter:
    return next(trace for trace in figure.data if trace.name == name)


def texts(figure: go.Figure) -> list[str]:
    return [annotation.text for annotation in figure.layout.annotations]


def test_depth_lines_follow_the_sites() -> None:
    ceiling = pd.DataFrame({"site": SITES, "value": [0.95, 0.9, 0.85]})
    chance = pd.DataFrame({"site": SITES[:2], "value": [0.1, 0.05]})
    figure = overlap_over_depth(DEPTH, SITES, ceiling, chance, measure="cosine")
    line = named(figure, "real")
    assert (
        [figure.layout.xaxis.ticktext[round(x)] for x in line.x]
        == list(line.text)
        == SITES
    )
    assert line.y == pytest.approx([0.8, 0.7, 0.6])
    assert list(line.error_y.array) == pytest.approx([0.1] * 3)
    assert list(line.error_y.arrayminus) == pytest.approx([0.1] * 3)
    assert list(named(figure, "two folds, fewer images").y) == [0.95, 0.9, 0.85]
    assert list(named(figure, "chance").y)[:2] == [0.1, 0.05]
    assert figure.layout.yaxis.title.text == "cosine"
    low, high = figure.layout.yaxis.range
    assert low == 0
    assert high > 0.95
    assert [text.split(">")[-1].strip() or text for text in texts(figure)][1:3] == [
        "sketch",
        "real",
    ]
    assert len(texts(figure)) == 4


def test_depth_leaves_a_gap_where_a_domain_lacks_a_site() -> None:
    figure = overlap_over_depth(DEPTH.drop(index=1), SITES)
    assert np.isnan(named(figure, "sketch").y[1])
    assert np.isnan(named(figure, "sketch").error_y.array[1])


@given(st.lists(st.floats(-5, 5), max_size=12).map(sorted), st.floats(0.01, 2))
def test_labels_are_apart_and_keep_their_mean(values: list[float], gap: float) -> None:
    places = apart(values, gap)
    assert all(b - a >= gap - 1e-9 for a, b in pairwise(places))
    assert sum(places) == pytest.approx(sum(values), abs=1e-9)
    if all(b - a >= gap for a, b in pairwise(values)):
        assert places == pytest.approx(values)


SIZES = (
    ("kept", 1.0, 1.0),
    ("kept", 0.1, 0.6),
    ("random", 0.1, 0.2),
    ("random", 1.0, 1.0),
)
CURVES = pd.DataFrame(
    [
        (domain, *of, of[-1] - 0.1, of[-1] + 0.1)
        for domain in ("photo", "sketch")
        for of in SIZES
    ],
    columns=["domain", "circuit", "fraction", "value", "low", "high"],
)


def test_faithfulness_curves() -> None:
    figure = faithfulness_curves(CURVES)
    by_name = {trace.name: trace for trace in figure.data}
    assert (list(by_name["photo"].x), list(by_name["photo"].y)) == ([10, 100], [0.6, 1])
    assert list(by_name["sketch, random units"].y) == [0.2, 1]
    assert by_name["sketch, random units"].line.dash == "dot"
    assert (
        by_name["photo"].line.color == domain_marks(["photo", "sketch"])["photo"].colour
    )
    assert list(by_name["photo"].error_y.array) == pytest.approx([0.1, 0.1])
    assert list(by_name["photo"].error_y.arrayminus) == pytest.approx([0.1, 0.1])
    assert [trace.name for trace in figure.data if trace.showlegend is not False] == [
        "photo",
        "sketch",
        "random units",
    ]
