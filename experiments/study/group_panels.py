"""Similarities by group of classes in the study's form: a panel for all, the held-out and the seen classes.

Drawing computes nothing.
"""

from circuitry.comparison import check_table
from circuitry.reports.figures import style

import pandas as pd
import plotly.graph_objects as go

GROUP_NAMES = {"all": "all classes", "held-out": "held-out classes (OOD)"}
"""Names of groups of classes; every other one has the classes that were not held out."""


def apart_panels(table: pd.DataFrame, *, measure: str, title: str) -> go.Figure:
    """Draw one domain with the others, and the others with each other, over the sites: a panel for each ``panel``.

    Args:
        table: Columns ``panel``, ``group``, ``domain`` (the two lines), ``site`` in order, ``value``, ``low``,
            ``high``: tables of `apart_over_depth`, or of `compare_representations`.
        measure: What ``value`` is.
        title: Heading.
    """
    check_table(table, "depth", ("panel", "domain", "site", "value", "low", "high"), ("panel", "domain", "site"))
    sites, lines, panels = (list(dict.fromkeys(table[name])) for name in ("site", "domain", "panel"))
    looks = style.assign_looks(sorted(lines, key=lambda name: "with the others" not in name), style.MARKS[6:8], "lines")
    figure, places = style.small_multiples(
        panels, columns=3, height=300, gap=120, shared_yaxes=True, horizontal_spacing=0.04
    )
    for panel, place in zip(panels, places, strict=True):
        for i, (line, mark) in enumerate(looks.items()):
            rows = table[(table["panel"] == panel) & (table["domain"] == line)]
            rows = rows.assign(place=rows["site"].map(sites.index) + 0.2 * (i - 0.5))
            hover = f"<b>{line}</b><br>%{{customdata[0]}}: %{{y:.3f}}"
            style.add_points(figure, rows, "place", "value", ["site"], hover, **mark.line(rows), **place)
    for line, mark in looks.items():
        style.add_key(figure, line, mode="lines+markers", line={"color": mark.colour}, marker=mark.marker(9))
    style.lay_out(figure, title=title, subtitle=style.interval_note(table), legend=True)
    figure.update_layout(margin_b=130)  # for the names of sites between axes and legend
    figure.update_xaxes(
        tickvals=list(range(len(sites))), ticktext=sites, tickangle=-90, tickfont_size=10, showgrid=False
    )
    figure.update_yaxes(rangemode="tozero")
    figure.update_yaxes(title_text=measure, col=1)
    return figure


def group_panel(group: str, *more: str) -> str:
    """Return the title of a panel of a group of classes."""
    return "<br>".join([GROUP_NAMES.get(group, "other classes (ID)"), *map(style.faint, more)])
