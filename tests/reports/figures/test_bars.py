"""Bars hold the numbers of their tables."""

import numpy as np
import plotly.graph_objects as go

from circuitry.reports.figures import accuracy_bars
from circuitry.reports.figures.bars import KINDS
from tests.reports.figures.made import ACCURACY


def drawn(figure: go.Figure) -> dict[str, list[float]]:
    return {
        t.name: list(t.y)
        for t in figure.data
        if t.name is not None and t.x[0] is not None
    }


def test_accuracy_bars_show_the_table() -> None:
    figure = accuracy_bars(ACCURACY)
    found = drawn(figure)
    assert found["seen classes"] == [62.5, 87.5]
    assert found["held-out classes"][0] == 25
    assert np.isnan(found["held-out classes"][1])
    points = {kind: found[name][0] for kind, (name, _) in KINDS.items()}
    assert points == {"alone": 75, "own_style": 50, "centred": 37.5}
    assert [name.partition("</span> ")[2] for name in figure.layout.xaxis.ticktext] == [
        "sketch",
        "real",
    ]
    (numbers,) = (
        trace.text
        for trace in figure.data
        if trace.type == "scatter" and trace.mode == "text"
    )
    assert list(numbers) == ["62 | 25", "88 | –"]
    assert sorted(shape.y0 for shape in figure.layout.shapes) == [12.5, 50]
    legend = [trace.name for trace in figure.data if trace.showlegend]
    assert {"guessing, 12 %", "guessing among held-out classes alone, 50 %"} <= set(
        legend
    )


def test_without_held_out_classes_there_is_one_bar() -> None:
    figure = accuracy_bars(ACCURACY.iloc[1:])
    assert drawn(figure) == {"seen classes": [87.5]}
    assert [trace.name for trace in figure.data if trace.showlegend] == [
        "all classes",
        "guessing, 12 %",
    ]
    assert [shape.y0 for shape in figure.layout.shapes] == [12.5]
