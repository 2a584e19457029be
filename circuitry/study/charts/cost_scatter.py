"""The chart of a scoreboard: what methods cost against how good their circuits are. Drawing computes nothing."""

from collections.abc import Mapping

import pandas as pd
import plotly.graph_objects as go

from circuitry.comparison.table import check_table
from circuitry.reports.figures import style

QUALITY = "size for 0.8, kept"


def cost_against_quality(
    summary: pd.DataFrame,
    *,
    quality: str = QUALITY,
    random: str | None = "size for 0.8, random",
    cost: str = "seconds",
    title: str = "What a circuit costs, and how small it works",
    label: str = "smallest share of units with selectivity 0.8",
    marks: Mapping[str, style.Mark] | None = None,
) -> go.Figure:
    """Draw quality over cost (log), a panel per setting and a point with its interval per method.

    Args:
        summary: Columns ``setting``, ``method``, ``what``, ``value``, ``low``, ``high``: the summary of a scoreboard.
        quality: What of it is the height.
        random: What of it random units reach, as hollow grey points; None for none.
        cost: What of it is the way to the right.
        label: Title of the vertical axis.

    Raises:
        InputError: for a table without quality or cost.
    """
    check_table(
        summary, "summary", ("setting", "method", "what", "value", "low", "high"), key=("setting", "method", "what")
    )
    style.need_values(summary, "summary", "what", (quality, cost))
    looks = style.marks_for(summary["method"], marks)
    settings = list(dict.fromkeys(summary["setting"]))
    figure, places = style.small_multiples(settings, columns=2, height=300, gap=80, shared_yaxes=True)
    paid = summary[summary["what"] == cost].set_index(["setting", "method"])["value"].rename("cost")
    for name in filter(None, (random, quality)):
        points = summary[summary["what"] == name].join(paid, on=["setting", "method"])
        for (setting, method), rows in points.groupby(["setting", "method"], sort=False):
            mark = looks[str(method)]
            drawn = {"symbol": "circle-open", "color": style.GREY, "size": 8} if name == random else mark.marker(11)
            style.add_points(
                figure,
                rows,
                "cost",
                "value",
                ["low", "high"],
                f"<b>{method}</b>{', random units' if name == random else ''}<br>{cost} %{{x:.3g}}"
                "<br>%{y:.2f}, interval %{customdata[0]:.2f} to %{customdata[1]:.2f}",
                marker=drawn,
                error_y=style.whiskers(rows, str(drawn["color"])) | {"visible": name == quality},
                **places[settings.index(str(setting))],
            )
    for method, mark in looks.items():
        if method in set(summary["method"]):
            style.add_key(figure, method, mode="markers", marker=mark.marker(11))
    if random is not None:
        style.add_key(figure, "random units", mode="markers", marker={"symbol": "circle-open", "color": style.GREY})
    style.lay_out(figure, title=title, subtitle=style.interval_note(summary), legend=True)
    figure.update_xaxes(type="log", dtick=1, title_text=f"{cost} (log)")
    figure.update_yaxes(range=[0, 1.05])
    figure.update_yaxes(title_text=label, col=1)
    return figure
