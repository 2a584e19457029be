"""Bars hold the numbers of their tables."""

import numpy as np
import pandas as pd
import plotly.graph_objects as go
import pytest
from experiments.study.bars import panels_of_models

from circuitry.reports.figures import accuracy_bars
from circuitry.reports.figures.bars import KINDS
from experiments.study.setting_bars import mixture_bars

SUMMARY = pd.DataFrame(
    [
        ("low", "real", "seen", 5),
        ("low", "real", "held-out", 2),
        ("low", "sketch", "seen", 4),
        ("low", "cc3m", "base", 3_000_000),
        ("high", "real", "seen", 3),
        ("high", "clipart", "held-out", 8),
    ],
    columns=["mixture", "domain", "part", "images"],
)


def drawn(figure: go.Figure) -> dict[str, list[float]]:
    """Return the values of every trace that draws data and no text."""
    return {t.name: list(t.y) for t in figure.data if t.name is not None and t.x[0] is not None}


def test_accuracy_bars_show_the_table(accuracy: pd.DataFrame) -> None:
    figure = accuracy_bars(accuracy)
    found = drawn(figure)
    assert found["seen classes"] == [62.5, 87.5]
    assert found["held-out classes"][0] == 25
    assert np.isnan(found["held-out classes"][1])
    points = {kind: found[name][0] for kind, (name, _) in KINDS.items()}
    assert points == {"alone": 75, "own_style": 50, "centred": 37.5}
    assert [name.partition("</span> ")[2] for name in figure.layout.xaxis.ticktext] == ["sketch", "real"]
    (numbers,) = (trace.text for trace in figure.data if trace.type == "scatter" and trace.mode == "text")
    assert list(numbers) == ["62 | 25", "88 | –"]
    assert sorted(shape.y0 for shape in figure.layout.shapes) == [12.5, 50]
    legend = [trace.name for trace in figure.data if trace.showlegend]
    assert {"guessing, 12 %", "guessing among held-out classes alone, 50 %"} <= set(legend)


def test_without_held_out_classes_there_is_one_bar(accuracy: pd.DataFrame) -> None:
    figure = accuracy_bars(accuracy.iloc[1:])
    assert drawn(figure) == {"seen classes": [87.5]}
    assert [trace.name for trace in figure.data if trace.showlegend] == ["all classes", "guessing, 12 %"]
    assert [shape.y0 for shape in figure.layout.shapes] == [12.5]


@pytest.mark.parametrize(
    ("domains", "models", "grid"),
    [
        (2, 4, (4, 2)),  # models are rows
        (5, 1, (2, 3)),  # one model: test domains fill the rows
        (5, 2, (5, 2)),  # more test domains than fit: they are rows
    ],
)
def test_every_model_and_test_domain_has_a_panel(domains: int, models: int, grid: tuple[int, int]) -> None:
    table = pd.DataFrame(
        [(f"d{d}", f"m{m}") for m in range(models) for d in range(domains)], columns=["test_domain", "name"]
    )
    figure, places = panels_of_models(table, "in ", height=100, gap=50)
    assert len(places) == domains * models
    assert len({tuple(place.values()) for place in places.values()}) == domains * models
    assert tuple(max(place[side] for place in places.values()) for side in ("row", "col")) == grid
    titles = {annotation.text for annotation in figure.layout.annotations}
    assert any(title.startswith("in d1<br>") and "m0" in title for title in titles)


def test_mixtures_hold_the_table() -> None:
    figure = mixture_bars(SUMMARY)
    drawn = {
        (mixture, bar.name, "held-out" if bar.marker.pattern.shape else "seen", images)
        for bar in figure.data
        if len(bar.x) and bar.x[0] is not None
        for mixture, images in zip(bar.y, bar.x, strict=True)
    }
    assert drawn == {tuple(row) for row in SUMMARY[SUMMARY["part"] != "base"].to_numpy().tolist()}
    assert figure.layout.barmode == "stack"
    ticks = dict(zip(figure.layout.yaxis.tickvals, figure.layout.yaxis.ticktext, strict=True))
    assert "3,000,000 of cc3m" in ticks["low"]
    assert ticks["high"] == "high"
    colours = {bar.name: bar.marker.line.color for bar in figure.data}
    assert len(set(colours.values())) == 4  # three domains, and grey for the legend's held-out classes
    # Only entries without data are drawn in the legend, also of a domain all of whose classes are held out.
    legend = [bar.name for bar in figure.data if bar.showlegend is not False and bar.x[0] is None]
    assert legend == ["clipart", "real", "sketch", "held-out classes"]
