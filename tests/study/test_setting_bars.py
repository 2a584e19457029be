"""Bars of mixtures hold the numbers of their table, and every model and test domain has a panel."""

import pandas as pd
import pytest

from circuitry.runs import InputError
from experiments.study.setting_charts import mixture_bars, panels_of_models

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


@pytest.mark.parametrize(
    ("domains", "models", "columns"),
    [
        (2, 4, 2),  # models are rows
        (5, 1, 3),  # one model: test domains fill the rows
        (5, 2, 2),  # more test domains than fit: they are rows
    ],
)
def test_every_model_and_test_domain_has_a_panel(domains: int, models: int, columns: int) -> None:
    table = pd.DataFrame(
        [(f"d{d}", f"m{m}") for m in range(models) for d in range(domains)], columns=["test_domain", "name"]
    )
    keys, titles, wide = panels_of_models(table, "in ")
    assert len(set(keys)) == len(set(titles)) == domains * models
    assert wide == columns
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
    with pytest.raises(InputError, match='"new"'):
        mixture_bars(SUMMARY[:1].assign(part="new"))
