"""The chart of a scoreboard: the cost of methods against the size of their circuits. Drawing computes nothing."""

from collections.abc import Mapping

from circuitry.comparison import check_table
from circuitry.reports.figures import style

import pandas as pd
import plotly.graph_objects as go

QUALITY, _RANDOM, _COST = "size for 0.8, kept", "size for 0.8, random", "seconds"
"""Rows of the summary that are drawn."""


def cost_against_quality(
    summary: pd.DataFrame,
    *,
    title: str = "Cost of a circuit and its smallest size",
    marks: Mapping[str, style.Mark] | None = None,
) -> go.Figure:
    """Draw the size of circuits over their cost, a panel per setting, a point with its interval per method.

    Random units are hollow grey points.

    Args:
        summary: Columns ``setting``, ``method``, ``what``, ``value``, ``low``, ``high``: the summary of a scoreboard.
        title, marks: Heading, and the looks of the methods.

    Raises:
        InputError: for a table without size or cost.
    """
    check_table(
        summary, "summary", ("setting", "method", "what", "value", "low", "high"), key=("setting", "method", "what")
    )
    style.need_values(summary, "summary", "what", (QUALITY, _COST))
    looks = style.marks_for(summary["method"], marks)
    settings = list(dict.fromkeys(summary["setting"]))
    figure, places = style.small_multiples(settings, columns=3, height=300, gap=80, shared_yaxes=True)
    paid = summary[summary["what"] == _COST].set_index(["setting", "method"])["value"].rename("cost")
    for name in (_RANDOM, QUALITY):
        points = summary[summary["what"] == name].join(paid, on=["setting", "method"])
        for (setting, method), rows in points.groupby(["setting", "method"], sort=False):
            mark = looks[str(method)]
            drawn = {"symbol": "circle-open", "color": style.GREY, "size": 8} if name == _RANDOM else mark.marker(11)
            style.add_points(
                figure,
                rows,
                "cost",
                "value",
                ["low", "high"],
                f"<b>{method}</b>{', random units' if name == _RANDOM else ''}<br>{_COST} %{{x:.3g}}"
                "<br>%{y:.2f}, interval %{customdata[0]:.2f} to %{customdata[1]:.2f}",
                marker=drawn,
                error_y=style.whiskers(rows, str(drawn["color"])) | {"visible": name == QUALITY},
                **places[settings.index(str(setting))],
            )
    for method, mark in looks.items():
        if method in set(summary["method"]):
            style.add_key(figure, method, mode="markers", marker=mark.marker(11))
    style.add_key(figure, "random units", mode="markers", marker={"symbol": "circle-open", "color": style.GREY})
    style.lay_out(figure, title=title, subtitle=style.interval_note(summary), legend=True)
    figure.update_xaxes(type="log", dtick=1, title_text=f"{_COST} (log)")
    figure.update_yaxes(range=[0, 1.05])
    figure.update_yaxes(title_text="smallest share of units with selectivity 0.8", col=1)
    return figure
