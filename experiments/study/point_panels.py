"""Panels of points with a legend below, which most charts of the study are. Drawing computes nothing."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from circuitry.reports.figures import style

import pandas as pd
import plotly.graph_objects as go

Options = Mapping[str, object]  # of a trace of plotly
Look = (
    Options | Callable[[pd.DataFrame], Options]
)  # the options, or what returns them for the rows of a trace


def point_panels(
    points: pd.DataFrame,
    looks: Mapping[str, Look],
    hover: str,
    more: Sequence[str],
    grid: Mapping[str, Any],
    panels: Sequence[str] | None = None,
) -> tuple[go.Figure, dict[str, dict[str, int]]]:
    """Draw the points ``x``, ``y`` of each ``series`` in each ``panel``, and return where each panel is.

    Args:
        points: A table of points.
        looks: How each series looks, in the order of drawing.
        hover, more: As of `style.add_points`.
        grid: Options of `style.small_multiples`; by default three columns.
        panels: Titles, which are values of the column ``panel`` (default: all, in their order).
    """
    titles = list(dict.fromkeys(points["panel"])) if panels is None else list(panels)
    figure, places = style.small_multiples(
        titles, **{"columns": 3, "horizontal_spacing": 0.04, **grid}
    )
    found = dict(zip(titles, places, strict=True))
    for panel, place in found.items():
        for name, look in looks.items():
            rows = points[(points["panel"] == panel) & (points["series"] == name)]
            if len(rows):
                options = {"name": name, **(look(rows) if callable(look) else look)}
                style.add_points(
                    figure, rows, "x", "y", more, hover, **options, **place
                )
    return figure, found


def finish_panels(
    figure: go.Figure,
    keys: Mapping[str, Options],
    title: str,
    subtitle: str | None = None,
    *,
    x: str | None = None,
    y: str | None = None,
) -> go.Figure:
    """Add a legend with these entries, the layout, and the titles of the axes."""
    for name, look in keys.items():
        figure.add_scatter(
            x=[None],
            y=[None],
            name=name,
            showlegend=True,
            **{"mode": "markers", **look},
        )
    style.lay_out(figure, title=title, subtitle=subtitle, legend=True)
    figure.update_xaxes(title_text=x)
    return figure.update_yaxes(title_text=y, col=1)
