"""Charts of many settings, from finished tables: over how much was seen in training, and as dots side by side.

Drawing computes nothing.
"""

from collections.abc import Mapping, Sequence

from circuitry.comparison import check_table
from circuitry.reports.figures import style

import pandas as pd
import plotly.graph_objects as go

LABEL_GAP = 4.5
"""Percent between labels that stand above each other."""
_COLUMNS = 3
"""Most panels beside each other."""
_ACCURACIES = {"held_out": ("among all classes", "solid"), "alone": ("among held-out classes alone", "dot")}
"""Columns of `accuracy_kinds` that are drawn: the name of each and its line."""


def interpolation_lines(points: pd.DataFrame, *, axis: str, title: str, joined: bool = True) -> go.Figure:
    """Draw accuracy on held-out classes over how much was seen, a panel per test domain and model.

    Args:
        points: From `class_interpolations` or `domain_interpolations`.
        axis: What ``x`` is.
        title: Heading.
        joined: Whether the points of a line are joined and look alike; otherwise each has its ``label`` beside it.
    """
    key = ("panel", "line", "x")
    check_table(points, "interpolations", (*key, *_ACCURACIES, "chance", "chance_alone"), key)
    panels = list(dict.fromkeys(points["panel"]))
    lines = list(dict.fromkeys(points["line"])) if joined else [""]
    looks = style.assign_looks(lines, style.MARKS[6:], "lines")
    figure, places = style.small_multiples(panels, columns=_COLUMNS, height=280, gap=100, shared_yaxes=True)
    for panel, place in zip(panels, places, strict=True):
        for line in lines:
            rows = points[(points["panel"] == panel) & ((points["line"] == line) | (not joined))]
            for column, (name, dash) in _ACCURACIES.items():
                mark, first = looks[line], column == "held_out"
                figure.add_scatter(
                    x=rows["x"],
                    y=100 * rows[column],
                    mode="lines+markers" if joined else "markers",
                    line={"color": mark.colour, "dash": dash, "width": 2},
                    marker=mark.marker(8 if first else 6, opacity=1 if first else 0.5),
                    customdata=rows[["line"]],
                    hovertemplate=f"<b>%{{customdata[0]}}</b>, {name}<br>%{{x:g}}: %{{y:.1f}} %<extra></extra>",
                    showlegend=False,
                    **place,
                )
        if not joined:
            _add_labels(figure, points[points["panel"] == panel], place)
        for column, dash in (("chance", "solid"), ("chance_alone", "dot")):
            for chance in points.loc[points["panel"] == panel, column].dropna().round(6).unique():
                figure.add_hline(100 * chance, line={"color": style.GREY, "width": 1, "dash": dash}, **place)
    if joined:
        for line in lines:
            mark = looks[line]
            style.add_key(figure, line, mode="lines+markers", line={"color": mark.colour}, marker=mark.marker(8))
    for name, dash in _ACCURACIES.values():
        if joined:
            style.add_key(figure, name, mode="lines", line={"color": style.INK, "dash": dash})
        else:
            marker = {"size": 8, "opacity": 1 if dash == "solid" else 0.5, "color": style.INK}
            style.add_key(figure, name, mode="markers", marker=marker)
    style.add_key(figure, "guessing", mode="lines", line={"color": style.GREY, "width": 1})
    letters = None if joined else "letters: the first letters of the domains"
    style.lay_out(figure, title=title, subtitle=letters, legend=True)
    room = {} if joined else {"range": [points["x"].min() - 0.3, points["x"].max() + 1]}  # for names beside points
    figure.update_xaxes(title_text=axis, **room)
    figure.update_yaxes(range=[-4, 104])
    figure.update_yaxes(title_text="accuracy on held-out classes (%)", col=1)
    return figure


def _add_labels(figure: go.Figure, rows: pd.DataFrame, place: Mapping[str, int]) -> None:
    """Write the labels of points right of them, moved up and down so that none covers another."""
    looks = {"mode": "text", "textposition": "middle right", "textfont": {"size": 10, "color": style.GREY}}
    for _, own in rows.sort_values("held_out").groupby("x"):
        heights = style.apart((100 * own["held_out"]).tolist(), LABEL_GAP)
        beside = own["x"] + 0.06
        figure.add_scatter(x=beside, y=heights, text=own["label"], hoverinfo="skip", showlegend=False, **looks, **place)


def setting_dots(table: pd.DataFrame, *, axis: str, title: str, span: Sequence[float] | None = None) -> go.Figure:
    """Draw values by setting as dots, a mark for each ``series`` and a panel for each ``panel``.

    Args:
        table: Columns ``panel``, ``setting``, ``series``, ``value``; ``sd``, where there is one, is drawn as whiskers.
        axis: What ``value`` is.
        title: Heading.
        span: Range of the axis (default: that of the values).
    """
    key = ("panel", "setting", "series")
    check_table(table, "settings", (*key, "value"), key)
    panels, settings = (list(dict.fromkeys(table[name])) for name in ("panel", "setting"))
    looks: Mapping[str, style.Mark] = style.assign_looks(dict.fromkeys(table["series"]), style.MARKS, "series")
    figure, places = style.small_multiples(
        panels, columns=_COLUMNS, height=60 + 26 * len(settings), gap=90, shared_yaxes=True, horizontal_spacing=0.04
    )
    for panel, place in zip(panels, places, strict=True):
        for i, (series, mark) in enumerate(looks.items()):
            rows = table[(table["panel"] == panel) & (table["series"] == series)]
            rows = rows.assign(y=rows["setting"].map(settings.index) + 0.5 * ((i + 0.5) / len(looks) - 0.5))
            spread = {"array": rows["sd"], "color": mark.colour, "thickness": 1, "width": 0} if "sd" in rows else None
            figure.add_scatter(
                x=rows["value"],
                y=rows["y"],
                error_x=spread,
                mode="markers",
                marker=mark.marker(9),
                customdata=rows[["setting"]],
                hovertemplate=f"<b>%{{customdata[0]}}</b>, {series}<br>%{{x:.3g}}<extra></extra>",
                showlegend=False,
                **place,
            )
    for series, mark in looks.items():
        style.add_key(figure, series, mode="markers", marker=mark.marker(9))
    style.lay_out(figure, title=title, legend=True)
    figure.update_yaxes(tickvals=list(range(len(settings))), ticktext=settings, range=[len(settings) - 0.5, -0.5])
    figure.update_xaxes(title_text=axis, range=span)
    return figure
