"""Charts of the study draw the numbers of their tables."""

import numpy as np
import pandas as pd
import pytest

from experiments.study.measure_charts import cost_against_quality, measure_panels
from experiments.study.setting_charts import interpolation_lines, mixture_bars, panels_of_models, setting_dots

# Cost scatter


VALUES = {"seconds": (2.0, 30.0), "size for 0.8, kept": (0.9, 0.4), "size for 0.8, random": (1.0, 0.95)}
COSTS = pd.DataFrame(
    [
        {"setting": setting, "method": m, "what": what, "value": v, "low": v - 0.1, "high": v + 0.1}
        for setting in ("zero, logit", "mean, margin")
        for what, values in VALUES.items()
        for m, v in zip(("gradient", "learned"), values, strict=True)
    ]
)


def test_a_point_for_each_method_and_its_random_units_in_a_panel_for_each_setting() -> None:
    figure = cost_against_quality(COSTS)
    points = [trace for trace in figure.data if trace.x[0] is not None]
    drawn = {(trace.xaxis, float(trace.x[0]), float(trace.y[0])) for trace in points}
    assert drawn == {
        (axis, cost, height)
        for axis in ("x", "x2")
        for what in ("size for 0.8, kept", "size for 0.8, random")
        for cost, height in zip(VALUES["seconds"], VALUES[what], strict=True)
    }
    bars = {float(trace.y[0]): bool(trace.error_y.visible) for trace in points}
    assert bars == {0.9: True, 0.4: True, 1.0: False, 0.95: False}
    np.testing.assert_allclose(points[-1].error_y.array, 0.1)
    assert {trace.name for trace in figure.data if trace.showlegend} == {"gradient", "learned", "random units"}


# Measure panels


def test_a_panel_for_each_case_and_a_point_for_each_measure() -> None:
    rows = [(m, c, "s", 0.25 * i, 0.5, 4) for i, (m, c) in enumerate((m, c) for m in "ab" for c in ("one", "two"))]
    table = pd.DataFrame(rows, columns=["measure", "case", "statistic", "value", "guessing", "n"])
    figure = measure_panels(table, title="Measures")
    assert figure.layout.title.text == "Measures"
    assert [list(trace.x) for trace in figure.data] == [[0.5, 0.0], [0.75, 0.25]]
    assert [list(trace.y) for trace in figure.data] == [["b", "a"]] * 2
    assert {note.text for note in figure.layout.annotations} >= {"one", "two"}


# Setting bars


MIXED = pd.DataFrame(
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
    figure = mixture_bars(MIXED)
    drawn = {
        (mixture, bar.name, "held-out" if bar.marker.pattern.shape else "seen", images)
        for bar in figure.data
        if len(bar.x) and bar.x[0] is not None
        for mixture, images in zip(bar.y, bar.x, strict=True)
    }
    assert drawn == {tuple(row) for row in MIXED[MIXED["part"] != "base"].to_numpy().tolist()}
    assert figure.layout.barmode == "stack"
    ticks = dict(zip(figure.layout.yaxis.tickvals, figure.layout.yaxis.ticktext, strict=True))
    assert "3,000,000 of cc3m" in ticks["low"]
    assert ticks["high"] == "high"
    colours = {bar.name: bar.marker.line.color for bar in figure.data}
    assert len(set(colours.values())) == 4  # three domains, and grey for the legend's held-out classes
    # Only entries without data are drawn in the legend, also of a domain all of whose classes are held out.
    legend = [bar.name for bar in figure.data if bar.showlegend is not False and bar.x[0] is None]
    assert legend == ["clipart", "real", "sketch", "held-out classes"]


# Setting lines


DOTS = pd.DataFrame(
    [
        (panel, line, x, 0.1 + x / 10, 0.3 + x / 10, 0.0625, 0.25)
        for panel in ("clipart", "sketch")
        for line in ("CG low", "CG high")
        for x in (0.0, 1.0)
    ],
    columns=["panel", "line", "x", "held_out", "alone", "chance", "chance_alone"],
)


def test_interpolations_have_a_panel_for_each_test_domain() -> None:
    figure = interpolation_lines(DOTS, axis="share", title="title")
    drawn = [trace for trace in figure.data if trace.x[0] is not None]
    assert len(drawn) == 2 * 2 * 2  # panels, lines, among all and among held-out classes alone
    assert list(drawn[0].y) == pytest.approx([10, 20])
    assert list(drawn[1].y) == pytest.approx([30, 40])
    assert [note.text for note in figure.layout.annotations] == ["clipart", "sketch"]
    assert len(figure.layout.shapes) == 2 * 2  # guessing, in each panel
    near = DOTS[(DOTS["x"] == 1) & (DOTS["panel"] == "sketch")].assign(label=["c q", "p"])
    figure = interpolation_lines(near, axis="x", title="t", joined=False)
    labels = [trace for trace in figure.data if trace.mode == "text"]
    assert [list(trace.text) for trace in labels] == [["c q", "p"]]
    assert labels[0].y[1] - labels[0].y[0] >= 4.5  # apart, although the points are one


def test_dots_of_a_setting_lie_beside_each_other() -> None:
    table = pd.DataFrame(
        [("sketch", setting, series, 0.5, 0.1) for setting in ("cg-low", "cg-high") for series in ("top-1", "top-5")],
        columns=["panel", "setting", "series", "value", "sd"],
    )
    figure = setting_dots(table, axis="accuracy", title="title", span=(0.0, 1.0))
    drawn = [trace for trace in figure.data if trace.x[0] is not None]
    assert [trace.name for trace in figure.data if trace.showlegend] == ["top-1", "top-5"]
    assert list(drawn[0].y) == pytest.approx([-0.125, 0.875])
    assert list(drawn[1].y) == pytest.approx([0.125, 1.125])
    assert list(figure.layout.yaxis.ticktext) == ["cg-low", "cg-high"]
    assert list(drawn[0].error_x.array) == [0.1, 0.1]
    assert setting_dots(table[:1], axis="accuracy", title="title").layout.height > 60  # one setting in one panel
