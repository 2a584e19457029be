"""The figure of mixtures holds the numbers of its table."""

import pandas as pd
import pytest

from circuitry.reports.figures.mixture_plots import mixture_bars
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


def test_bars_hold_the_table() -> None:
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
    legend = [bar.name for bar in figure.data if bar.showlegend is not False]
    assert legend == ["clipart", "real", "sketch", "held-out classes"]


def test_bad_tables() -> None:
    with pytest.raises(InputError, match='The part of a row of mixtures is "seen", "held-out" or "base", not "new"'):
        mixture_bars(SUMMARY.assign(part="new").drop_duplicates(["mixture", "domain", "part"]))
    with pytest.raises(InputError, match="The mixtures table lacks the column images"):
        mixture_bars(SUMMARY.drop(columns="images"))
    with pytest.raises(InputError, match="more than one row for low, real, seen"):
        mixture_bars(pd.concat([SUMMARY, SUMMARY]))
