"""Lesions as lines: what is left of right answers, over the share of units or over depth."""

import pandas as pd
import plotly.graph_objects as go

from circuitry.reports.figures import style


def lesion_lines(lines: pd.DataFrame, axis: str, title: str) -> go.Figure:
    """Draw a line with intervals for each kind of answers.

    Args:
        lines: Columns ``line`` (its name), ``place`` (on the axis: numbers, or words in order), ``value``, ``low``,
            ``high``.
        axis, title: Titles of the axis and of the figure.
    """
    looks = style.assign_looks(lines["line"], style.MARKS, "lines")
    figure = go.Figure()
    for name, rows in lines.groupby("line", sort=False):
        look = {"name": str(name), "showlegend": True, **looks[str(name)].line(rows)}
        style.add_points(figure, rows, "place", "value", [], f"<b>{name}</b><br>%{{x}}: %{{y:.2f}}", **look)
    style.lay_out(
        figure, title=title, subtitle="right answers that are left, share of the whole model's", height=440, legend=True
    )
    figure.update_xaxes(title_text=axis)
    figure.update_yaxes(title_text="right answers", range=[-0.04, 1.06])
    return figure
