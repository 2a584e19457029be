"""Similarities by group of classes in the study's form: a panel for all, the held-out and the seen classes.

Drawing computes nothing.
"""

import pandas as pd
import plotly.graph_objects as go

from circuitry.comparison.table import check_table
from circuitry.reports.figures import style
from circuitry.reports.figures.heatmaps import ROW, WIDTH_OF_CELLS, add_cells
from circuitry.reports.measure_names import measure_name
from circuitry.reports.sections.apart import APART_MARKS

GROUP_NAMES = {"all": "all classes", "held-out": "held-out classes (OOD)"}
"""Names of groups of classes; every other one has the classes that were not held out."""
SEEN = "other classes (ID)"
NATURAL = "real"
"""The domain of photographs, which comes first."""


def similarity_panels(table: pd.DataFrame, *, title: str) -> go.Figure:
    """Draw the similarities of domains: a row of panels for each measure, a column for each group of classes.

    Args:
        table: From `group_means`.
        title: Heading.
    """
    columns = ("measure", "group", "domain_a", "domain_b", "value")
    check_table(table, "groups", columns, columns[:-1])
    domains = sorted({*table["domain_a"], *table["domain_b"]}, key=lambda name: (name != NATURAL, name))
    looks = style.marks_for(domains, None)
    by_panel = table.groupby(["measure", "group"], sort=False)
    panels = [(str(measure), str(group), rows) for (measure, group), rows in by_panel]
    titles = [f"{measure_name(measure)}<br>{style.faint(_group_name(group))}" for measure, group, _ in panels]
    wide, tops = table["group"].nunique(), table.groupby("measure")["value"].max().to_dict()
    figure, places = style.small_multiples(
        titles, columns=wide, height=ROW * len(domains), gap=90, shared_yaxes=True, horizontal_spacing=0.08
    )
    for (measure, _, rows), place in zip(panels, places, strict=True):
        half = rows.pivot(index="domain_a", columns="domain_b", values="value").reindex(index=domains, columns=domains)
        matrix = half.combine_first(half.T).loc[domains, domains].rename_axis(index=None, columns=None)
        add_cells(figure, matrix, measure_name(measure), looks, place, WIDTH_OF_CELLS // wide, tops[measure])
    return style.lay_out(figure, title=title, subtitle="means over classes; columns in the order of the rows")


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
    looks = style.assign_looks(sorted(lines, key=lambda name: "with the others" not in name), APART_MARKS, "lines")
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
    return "<br>".join([_group_name(group), *map(style.faint, more)])


def _group_name(group: str) -> str:
    return GROUP_NAMES.get(group, SEEN)
