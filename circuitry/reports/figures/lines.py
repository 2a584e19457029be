"""Draw lines and points from finished tables: over the depth of a model, or over the size of a circuit or lesion."""

import re
from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Annotated, Any

import numpy as np
import pandas as pd
import plotly.graph_objects as go

from circuitry.comparison.lesion_reading import RIGHT, LossMeasure
from circuitry.comparison.table import check_table
from circuitry.interventions.explanation import (
    DELETION,
    INSERTION,
    ORDERS,
    Explanation,
)
from circuitry.reports.figures import style
from circuitry.runs.arguments import SOME, Names

RANDOM_LINE = {"color": style.GREY, "width": 1.2, "dash": "dot"}

LINES_SHARE = 0.3
"""Share of the distance between two sites over which the lines of several domains are spread.

The lines are shifted against each other, so that their intervals do not overlap."""

LABELS_BELOW_EACH_OTHER = 21
"""Number of labels that fit below each other beside the axis. Labels that would overlap are moved apart."""


def overlap_over_depth(
    depth: pd.DataFrame,
    sites: Annotated[Names, SOME],
    ceiling: pd.DataFrame | None = None,
    chance: pd.DataFrame | None = None,
    *,
    measure: str = "node overlap (Jaccard index)",
    chance_label: str = "chance",
    title: str | None = None,
    marks: Mapping[str, style.Mark] | None = None,
) -> go.Figure:
    """Draw one line per domain over the sites, with error bars for the intervals.

    Args:
        depth: Columns ``domain``, ``site``, ``value``, ``low``, ``high`` (95 % interval). Rows of sites that are not in
            ``sites`` are ignored.
        sites: The sites to draw, from the image to the embedding.
        ceiling: Columns ``site``, ``value``: the similarity of two folds of one domain's images, as a dashed line.
        chance: Columns ``site``, ``value``: the chance level, such as the similarity of random units, as a dotted line.
        measure: Meaning of ``value``, for the title of the vertical axis.
        chance_label: Label of the dotted line.

    Example:
        >>> depth = pd.DataFrame({"domain": "real", "site": ["conv", "head"], "value": [0.4, 0.5]})
        >>> drawn = overlap_over_depth(depth.assign(low=0.3, high=0.6), ["conv", "head"])
        >>> drawn.layout.title.text
        'Node overlap (Jaccard index) by site'
    """
    columns = ("domain", "site", "value", "low", "high")
    check_table(depth, "depth", columns, key=("domain", "site"))
    style.need_values(depth, "depth", "site", sites)
    looks = style.marks_for(depth["domain"], marks)
    figure = go.Figure()
    drawn: list[pd.DataFrame] = []
    ends: list[tuple[float, str]] = []

    def add_line(rows: pd.DataFrame, name: str, label: str, **look: object) -> None:
        # References have no interval.
        interval = [column for column in ("low", "high") if column in rows]
        hover = f"<b>{name}</b><br>%{{text}}: %{{y:.3f}}"
        if interval:
            hover += "<br>interval %{customdata[0]:.3f} to %{customdata[1]:.3f}"
        look |= {"name": name, "text": rows["site"]}
        style.add_points(figure, rows, "place", "value", interval, hover, **look)
        drawn.append(rows)
        # A line that ends early is labelled at its last value.
        ends.append((rows["value"].ffill().iloc[-1], label))

    # References come first: the lines of domains lie over them.
    references = (
        ("ceiling", ceiling, "two folds, fewer images", "dash"),
        ("chance", chance, chance_label, "dot"),
    )
    for name, table, label, dash in references:
        if table is not None:
            check_table(table, name, ("site", "value"), key=("site",))
            rows = _along(table[["site", "value"]], sites)
            line = {"color": style.GREY, "dash": dash, "width": 2}
            grey = f'<span style="color:{style.GREY}">{label}</span>'
            add_line(rows, label, grey, mode="lines", line=line)
    domains = sorted(set(depth["domain"]))
    for i, domain in enumerate(domains):
        own = depth.loc[depth["domain"] == domain, list(columns[1:])]
        # Lines are shifted against each other by a fraction of the distance between sites, symmetrically around zero.
        rows = _along(own, sites, LINES_SHARE * ((i + 0.5) / len(domains) - 0.5))
        mark = looks[domain]
        add_line(rows, domain, style.marked(domain, mark), **mark.line(rows))
    heading = title or f"{style.capitalised(measure)} by site"
    note = style.interval_note(depth)
    style.lay_out(figure, title=heading, subtitle=note, height=500)
    _name_sites(figure, sites, _repeats(depth, sites))
    # The axis begins at zero, so that a short line is a small number; its ends have room for marks.
    values = pd.concat(drawn)[["value", "low", "high"]].to_numpy(dtype=float)
    low = min(0.0, float(np.nanmin(values)))
    high = float(np.nanmax(values))
    room = 0.06 * (high - low)
    if low < 0:
        low -= room
    high += room
    figure.update_yaxes(title_text=measure, range=[low, high])
    gap = (high - low) / LABELS_BELOW_EACH_OTHER
    label_ends(figure, ends, x=len(sites) - 1 + LINES_SHARE / 2, gap=gap)
    return figure


def _along(
    table: pd.DataFrame, sites: Sequence[str], shift: float = 0.0
) -> pd.DataFrame:
    """Return a table with one row for each site, in the order of the sites.

    A site that the given table lacks has NaN. The new column ``place`` has the place of the site on the axis: 0, 1,
    2, ..., plus ``shift``.
    """
    rows = table.set_index("site").reindex(list(sites)).reset_index()
    return rows.assign(place=np.arange(len(sites)) + shift)


def _name_sites(
    figure: go.Figure, sites: Sequence[str], notes: Mapping[str, str]
) -> None:
    """Label the places 0, 1, 2, ... of the axis with the names of the sites.

    Args:
        notes: Notes by site. A note is written below the name of the site.
    """
    names = []
    for site in sites:
        note = f"<br>{style.faint(notes[site])}" if site in notes else ""
        names.append(f"{site}{note}")
    figure.update_xaxes(
        title_text="site, from the image to the embedding",
        tickvals=list(range(len(sites))),
        ticktext=names,
        range=[-0.6, len(sites) - 0.4],
        showgrid=False,
    )


def _repeats(depth: pd.DataFrame, sites: Sequence[str]) -> dict[str, str]:
    """Return a note for each site that has the same numbers as the site before, by the name of the site.

    Two sites have the same numbers, for example, if the second only pools the first.
    """
    numbers = ["value", "low", "high"]
    wide = depth.pivot(index="site", columns="domain", values=numbers)
    wide = wide.reindex(list(sites))
    # Row by row: the numbers of the site before.
    before = wide.shift()
    # A number that is unknown at both sites repeats, too.
    same = (wide.eq(before) | (wide.isna() & before.isna())).all(axis=1)
    return {site: f"repeats {last}" for last, site in pairwise(sites) if same[site]}


def label_ends(
    figure: go.Figure, ends: Sequence[tuple[float, str]], *, x: float, gap: float
) -> None:
    """Write the label of each line at its end, and make room for the labels.

    Labels that would be closer than ``gap`` are moved apart. A label of an unknown value is left out.

    Args:
        ends: Last value and label of each line.
        x: Place on the horizontal axis. The labels are written to the right of this place.
        gap: Smallest distance between two labels, in units of the vertical axis.
    """
    ordered = sorted(end for end in ends if np.isfinite(end[0]))
    if not ordered:
        return
    # Labels of close lines would cover each other.
    places = style.apart([value for value, _ in ordered], gap)
    for place, (_, label) in zip(places, ordered, strict=True):
        figure.add_annotation(
            x=x, y=place, text=label, xanchor="left", xshift=8, showarrow=False
        )
    # plotly leaves out a label beyond the end of the axis.
    low, high = figure.layout.yaxis.range
    low = min(low, places[0] - gap / 2)
    figure.update_yaxes(range=[low, max(high, places[-1] + gap / 2)])
    # The margin is in pixels, seven for a character; tags take no room.
    longest = max(len(re.sub("<[^>]*>", "", label)) for _, label in ordered)
    figure.update_layout(margin_r=7 * longest)


def faithfulness_curves(
    curves: pd.DataFrame,
    *,
    measure: str = "faithfulness",
    title: str | None = None,
    marks: Mapping[str, style.Mark] | None = None,
) -> go.Figure:
    """Draw faithfulness or selectivity over the size of the circuit.

    Each domain has a line with intervals. A dotted line shows the same measure for as many random units as the circuit
    has.

    Args:
        curves: Columns ``domain``, ``circuit``, ``fraction``, ``value``, ``low``, ``high``, for one ranking of units
            and one measure; see `curves_by_domain`. Rows are drawn if their ``circuit`` is ``kept`` (the circuit
            itself) or ``random`` (random units). Other rows are ignored.
        measure: Name of the measure in ``value``.

    Example:
        >>> sizes = {"domain": "real", "circuit": "kept", "fraction": [0.1, 1.0], "value": [0.6, 1.0]}
        >>> drawn = faithfulness_curves(pd.DataFrame(sizes).assign(low=0.5, high=1.0))
        >>> drawn.data[0].name
        'real'
    """
    columns = ("domain", "circuit", "fraction", "value", "low", "high")
    check_table(curves, "curves", columns, key=("domain", "circuit", "fraction"))
    style.need_values(curves, "curves", "circuit", ["kept"])
    looks = style.marks_for(curves["domain"], marks)
    table = curves.assign(percent=100 * curves["fraction"]).sort_values("fraction")
    random: dict[str, Any] = {"mode": "lines", "line": RANDOM_LINE}
    figure = go.Figure()
    # Random units first, so that they cover no circuit.
    for name in ("random", "kept"):
        for domain, rows in table[table["circuit"] == name].groupby("domain"):
            if name == "random":
                look: dict[str, Any] = {"name": f"{domain}, random units", **random}
            else:
                line = looks[str(domain)].line(rows)
                look = {"name": str(domain), "showlegend": True, **line}
            hover = f"<b>{domain}</b>, {name}<br>%{{x:.3g}} % of units: %{{y:.3f}}"
            style.add_points(figure, rows, "percent", "value", [], hover, **look)
    if "random" in set(curves["circuit"]):
        style.add_key(figure, "random units", **random)
    heading = title or f"{style.capitalised(measure)} by size of the circuit"
    note = style.interval_note(curves)
    style.lay_out(figure, title=heading, subtitle=note, height=500, legend=True)
    # Nothing kept, and the whole model.
    for level in (0, 1):
        figure.add_hline(y=level, line={"color": style.GREY, "width": 1})
    # Sizes differ by factors, so the axis is logarithmic.
    figure.update_xaxes(
        title_text="units kept at every site (%)",
        type="log",
        tickvals=[0.1, 1, 10, 100],
    )
    return figure.update_yaxes(title_text=measure)


def lesion_lines(
    lines: pd.DataFrame, axis: str, title: str, measure: LossMeasure = RIGHT
) -> go.Figure:
    """Draw lines with intervals that show what lesions take, or what they leave.

    Args:
        lines: Columns ``line`` (name of the line that the row belongs to), ``place`` (value on the horizontal axis: a
            number, or a word), ``value``, ``low``, ``high``. Words are drawn in the order of the rows.
        axis: Title of the horizontal axis.
        measure: What the values measure (default: the share of right answers that is left).

    Example:
        >>> lines = pd.DataFrame({"line": "own class", "place": [1, 2], "value": [0.4, 0.1]})
        >>> lesion_lines(lines.assign(low=0.0, high=0.5), "ablated units (%)", "Lesions").data[0].name
        'own class'
    """
    looks = style.assign_looks(lines["line"], style.MARKS, "lines")
    figure = go.Figure()
    for name, rows in lines.groupby("line", sort=False):
        look = {"name": str(name), "showlegend": True, **looks[str(name)].line(rows)}
        hover = f"<b>{name}</b><br>%{{x}}: %{{y:.2f}}"
        style.add_points(figure, rows, "place", "value", [], hover, **look)
    note = f"{measure.name}, mean over classes with 95 % intervals"
    style.lay_out(figure, title=title, subtitle=note, height=440, legend=True)
    figure.update_xaxes(title_text=axis)
    figure.update_yaxes(title_text=measure.name)
    if measure.is_share:
        figure.update_yaxes(range=[-0.04, 1.06])
    return figure


PANELS_IN_A_ROW = 4

_AGREE = {"color": style.GREY, "width": 1}


def attribution_against_patching(
    points: pd.DataFrame,
    sites: Annotated[Names, SOME],
    correlations: pd.DataFrame | None = None,
) -> go.Figure:
    """Draw the attributed scores of units against their exact effects, in a panel for each site.

    The exact effect of a unit is measured by activation patching. For a point on the grey line, the score equals the
    exact effect.

    Args:
        points: Columns ``site``, ``unit``, ``top``, ``attributed``, ``exact``, from `AttributionCheck`. Units with the
            largest scores (``top`` is True) are filled points, and random units are hollow points.
        sites: The sites to draw. Each site has a panel.
        correlations: Columns ``site``, ``sample``, ``spearman``, ``pearson``. The correlations of the random units
            (``sample`` is ``random``) are written above the panel of the site.

    Example:
        >>> points = pd.DataFrame({"site": "conv", "unit": [0, 1], "top": [True, False]})
        >>> points = points.assign(attributed=[0.5, 0.1], exact=[0.4, 0.1])
        >>> attribution_against_patching(points, ["conv"]).layout.title.text
        'Attributed scores against exact effects'
    """
    columns = ("site", "unit", "top", "attributed", "exact")
    check_table(points, "points", columns, key=("site", "unit"))
    style.need_values(points, "points", "site", sites)
    titles = {site: f"{site}<br>" for site in sites}
    if correlations is not None:
        numbers = ["site", "pearson", "spearman"]
        keys = ("site", "sample")
        check_table(correlations, "correlations", (*numbers, "sample"), key=keys)
        random = correlations.loc[correlations["sample"] == "random", numbers]
        for site, pearson, spearman in random.to_numpy():
            if site in titles:
                titles[site] += style.faint(f"r {pearson:.2f}, ρ {spearman:.2f}")
    figure, places = style.small_multiples(
        list(titles.values()),
        columns=PANELS_IN_A_ROW,
        height=170,
        gap=85,
        horizontal_spacing=0.07,
    )
    hover = "unit %{customdata[0]}<br>attributed %{x:.4f}<br>exact %{y:.4f}"
    agree: dict[str, Any] = {"mode": "lines", "line": _AGREE}
    for site, place in zip(sites, places, strict=True):
        rows = points[points["site"] == site]
        scores = rows[["attributed", "exact"]].to_numpy(dtype=float)
        ends = [float(scores.min()), float(scores.max())]
        figure.add_scatter(
            x=ends, y=ends, hoverinfo="skip", showlegend=False, **agree, **place
        )
        symbols = np.where(rows["top"], "circle", "circle-open")
        look = {"name": site, "marker": _dot(symbols, size=6), **place}
        style.add_points(figure, rows, "attributed", "exact", ["unit"], hover, **look)
    for name, symbol in (
        ("largest scores", "circle"),
        ("random units", "circle-open"),
    ):
        style.add_key(figure, name, mode="markers", marker=_dot(symbol))
    style.add_key(figure, "exact = attributed", **agree)
    style.lay_out(figure, title="Attributed scores against exact effects", legend=True)
    figure.update_xaxes(nticks=4, exponentformat="power")
    figure.update_yaxes(nticks=5, exponentformat="power")
    # The lowest panel of each column has the title of its axis.
    for place in places[-min(PANELS_IN_A_ROW, len(sites)) :]:
        figure.update_xaxes(title_text="attributed", **place)
    return figure.update_yaxes(title_text="exact (patching)", col=1)


def _dot(symbol: object, **more: object) -> dict[str, object]:
    return {"color": style.INK, "symbol": symbol, **more}


def cell_curves(explanation: Explanation) -> go.Figure:
    """Draw the log-odds of an explanation while cells of its picture are deleted (left) and inserted (right).

    Example:
        >>> why = circuitry.explain(clip, images[0], ["cup", "clock"], n_units=3)
        >>> len(cell_curves(why).data)
        8
    """
    looks = dict(zip(ORDERS, style.MARKS, strict=False))
    titles = {DELETION: "cells deleted (%)", INSERTION: "cells inserted (%)"}
    figure, places = style.small_multiples([""] * 2, columns=2, height=210)
    for (change, title), place in zip(titles.items(), places, strict=True):
        for order, mark in looks.items():
            curves = explanation.curves
            rows = curves[(curves["order"] == order) & (curves["change"] == change)]
            figure.add_scatter(
                x=100 * rows["share"],
                y=rows["log_odds"],
                name=order,
                mode="lines+markers",
                line={"color": mark.colour, "width": 1.6},
                marker=mark.marker(6),
                showlegend=change == DELETION,
                **place,
            )
        figure.update_xaxes(title_text=title, **place)
    figure.update_yaxes(title_text="log-odds", col=1)
    title = "Which cells of the picture hold the answer?"
    return style.lay_out(figure, title=title, legend=True)
