"""Charts of many settings: a panel per test domain, every point where its table says."""

import pandas as pd
import pytest

from experiments.study.setting_charts import interpolation_lines, setting_dots

POINTS = pd.DataFrame(
    [
        (panel, line, x, 0.1 + x / 10, 0.3 + x / 10, 0.0625, 0.25)
        for panel in ("clipart", "sketch")
        for line in ("CG low", "CG high")
        for x in (0.0, 1.0)
    ],
    columns=["panel", "line", "x", "held_out", "alone", "chance", "chance_alone"],
)


def test_interpolations_have_a_panel_for_each_test_domain() -> None:
    figure = interpolation_lines(POINTS, axis="share", title="title")
    drawn = [trace for trace in figure.data if trace.x[0] is not None]
    assert len(drawn) == 2 * 2 * 2  # panels, lines, among all and among held-out classes alone
    assert list(drawn[0].y) == pytest.approx([10, 20])
    assert list(drawn[1].y) == pytest.approx([30, 40])
    assert [note.text for note in figure.layout.annotations] == ["clipart", "sketch"]
    assert len(figure.layout.shapes) == 2 * 2  # guessing, in each panel
    near = POINTS[(POINTS["x"] == 1) & (POINTS["panel"] == "sketch")].assign(label=["c q", "p"])
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
