"""Panels of points with a legend below them. Most charts of the study are of this kind.

Drawing computes nothing: the caller gives a table of points.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from circuitry.reports.figures import style

import pandas as pd
import plotly.graph_objects as go

Options = Mapping[str, object]  # options of a trace of plotly
Look = Options | Callable[[pd.DataFrame], Options]
"""The options of a trace, or a function that returns the options for the rows of the trace."""


def point_panels(
    points: pd.DataFrame,
    looks: Mapping[str, Look],
    hover: str,
    more: Sequence[str],
    grid: Mapping[str, Any],
    panels: Sequence[str] | None = None,
) -> tuple[go.Figure, dict[str, dict[str, int]]]:
    """Draw the points of each series in each panel.

    Args:
        points: A row for each point, with the columns ``x``, ``y``, ``series`` and ``panel``.
        looks: A dictionary from each series to the options of its traces. Later series are drawn over earlier series.
        hover, more: See `style.add_points`.
        grid: Options of `style.small_multiples`. By default there are three columns.
        panels: Titles of the panels, which are values of the column ``panel`` (default: all, in their order).

    Returns:
        The figure, and a dictionary from each title to the row and column of its panel.
    """
    titles = list(panels or dict.fromkeys(points["panel"]))
    options = {"columns": 3, "horizontal_spacing": 0.04, **grid}
    figure, places = style.small_multiples(titles, **options)
    by_panel = dict(zip(titles, places, strict=True))
    for panel, place in by_panel.items():
        for name, look in looks.items():
            rows = points[(points["panel"] == panel) & (points["series"] == name)]
            # A trace without points would stand in the legend of figures that show names of traces.
            if rows.empty:
                continue
            looked = look(rows) if callable(look) else look
            trace = {"name": name, **looked, **place}
            style.add_points(figure, rows, "x", "y", more, hover, **trace)
    return figure, by_panel


def marker_keys(marks: Mapping[str, style.Mark], size: int) -> dict[str, Options]:
    """Return entries of a legend, which show a marker for each name."""
    return {name: {"marker": mark.marker(size)} for name, mark in marks.items()}


def finish_panels(
    figure: go.Figure,
    keys: Mapping[str, Options],
    title: str,
    subtitle: str | None = None,
    *,
    x: str | None = None,
    y: str | None = None,
) -> go.Figure:
    """Add the legend, the layout and the titles of the axes to a figure.

    Args:
        figure: The figure of `point_panels`.
        keys: A dictionary from the text of each entry of the legend to the options of its marker or line.
        title, subtitle: Titles of the figure.
        x, y: Titles of the axes. Only the panels of the first column have the title of the vertical axis.
    """
    # Entries are traces without points, since the traces with points are one for each panel.
    for name, look in keys.items():
        options = {"mode": "markers", "name": name, "showlegend": True, **look}
        figure.add_scatter(x=[None], y=[None], **options)
    style.lay_out(figure, title=title, subtitle=subtitle, legend=True)
    figure.update_xaxes(title_text=x)
    return figure.update_yaxes(title_text=y, col=1)
