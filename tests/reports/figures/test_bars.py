"""Bars hold the numbers of their tables."""

import numpy as np
import pandas as pd
import plotly.graph_objects as go
import pytest

from circuitry.reports.figures.bars import accuracy_bars, mixture_bars
from circuitry.runs.errors import InputError

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


def texts(figure: go.Figure) -> list[str]:
    return [annotation.text for annotation in figure.layout.annotations]


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


def test_mixtures_refuse_bad_tables() -> None:
    with pytest.raises(
        InputError, match='The part of a row of the mixtures table is "seen", "held-out" or "base", not "new"'
    ):
        mixture_bars(SUMMARY.assign(part="new").drop_duplicates(["mixture", "domain", "part"]))
    with pytest.raises(InputError, match="The mixtures table lacks the column images"):
        mixture_bars(SUMMARY.drop(columns="images"))
    with pytest.raises(InputError, match="more than one row for low, real, seen"):
        mixture_bars(pd.concat([SUMMARY, SUMMARY]))
