"""Figures of embedding spaces, from finished tables. Drawing computes nothing.

1. `embedding_maps`: the maps of several models side by side, points coloured by domain;
2. `separation_panels`: a panel per measure, a row per domain, in it a mark per model;
3. `measure_against_measure`: one measure over another, a line per domain from the first model to the last.
"""

from collections.abc import Mapping, Sequence

import pandas as pd
import plotly.graph_objects as go
from plotly.subplots import make_subplots

from circuitry.comparison.table import check_table
from circuitry.reports.figures.style import GREY, INK, Mark, faint, marked, marks_for, style
from circuitry.runs.errors import InputError

TEXT_SYMBOL = "x"
MODEL_SYMBOLS = ("circle", "circle-open", "square", "square-open", "diamond", "diamond-open")
"""In the panels colour is the domain's, and the symbol tells the model: filled the first, hollow the second."""


def embedding_maps(points: pd.DataFrame, *, marks: Mapping[str, Mark] | None = None) -> go.Figure:
    """Draw one map per model, side by side: images with the marks of their domains, texts as crosses.

    Args:
        points: columns ``model``, ``kind`` ("image" or "text"), ``domain`` (of a text its style, or empty), ``class``,
            ``x``, ``y``, ``method``: tables of `map_table`.
        marks: the look of every domain; by default ``domain_marks`` of the images'.

    Raises:
        InputError: a missing column, or no rows.
    """
    check_table(points, "points", ("model", "kind", "domain", "class", "x", "y", "method"), key=())
    points = points.fillna({"domain": ""})  # an empty name read from CSV
    images, texts = points[points["kind"] == "image"], points[points["kind"] == "text"]
    domains, models = sorted(set(images["domain"])), list(dict.fromkeys(points["model"]))
    looks = marks_for(domains, marks)
    methods = points.groupby("model")["method"].first()
    titles = [f"{model}<br>{faint(methods[model])}" for model in models]
    figure = make_subplots(rows=1, cols=len(models), subplot_titles=titles, horizontal_spacing=0.03)
    for column, model in enumerate(models, start=1):
        place = {"row": 1, "col": column}
        for domain in domains:
            rows = images[(images["model"] == model) & (images["domain"] == domain)]
            figure.add_trace(_image_points(rows, domain, looks[domain]), **place)
        for domain, rows in texts[texts["model"] == model].groupby("domain"):
            colour = looks[str(domain)].colour if domain in looks else INK
            figure.add_trace(_text_points(rows, str(domain), colour), **place)
    for domain in domains:  # keys without data: those of small, faint points are hard to see
        figure.add_scatter(**_key(domain, looks[domain].symbol, looks[domain].colour), legendgroup=domain)
    if len(texts):
        figure.add_scatter(**_key("texts", TEXT_SYMBOL, GREY), legendgroup="texts")
    style(figure, height=520)
    figure.update_layout(
        legend={"orientation": "h", "x": 0, "y": -0.02, "yanchor": "top", "itemsizing": "trace"},
        hovermode="closest",
        margin={"l": 10, "r": 10, "t": 60, "b": 20},
    )
    box = {"showticklabels": False, "showgrid": False, "showline": True, "mirror": True, "constrain": "domain"}
    figure.update_xaxes(**box, title_text=None)
    figure.update_yaxes(**box, title_text=None)
    for column, model in enumerate(models, start=1):
        across, up = (_around(points.loc[points["model"] == model, axis]) for axis in ("x", "y"))
        half = max(across[1], up[1])  # a square, so that all maps get boxes of one size
        figure.update_xaxes(range=[across[0] - half, across[0] + half], row=1, col=column)
        anchor = f"x{column if column > 1 else ''}"
        figure.update_yaxes(range=[up[0] - half, up[0] + half], scaleanchor=anchor, row=1, col=column)
    return figure


def _around(values: pd.Series) -> tuple[float, float]:
    """Middle and half width of an axis that holds the values with some room."""
    low, high = float(values.min()), float(values.max())
    return (low + high) / 2, 0.54 * (high - low) or 1.0


def _image_points(rows: pd.DataFrame, domain: str, mark: Mark) -> go.Scatter:
    return go.Scatter(
        name=domain,
        legendgroup=domain,
        showlegend=False,
        x=rows["x"],
        y=rows["y"],
        mode="markers",
        marker={"symbol": mark.symbol, "color": mark.colour, "size": 6, "opacity": 0.7},
        customdata=rows[["class"]],
        hovertemplate=f"<b>%{{customdata[0]}}</b>, {domain}<extra></extra>",
    )


def _text_points(rows: pd.DataFrame, domain: str, colour: str) -> go.Scatter:
    return go.Scatter(
        name=f"texts, {domain}" if domain else "texts",
        legendgroup="texts",
        showlegend=False,
        x=rows["x"],
        y=rows["y"],
        mode="markers",
        marker={"symbol": TEXT_SYMBOL, "color": colour, "size": 8, "line": {"color": "white", "width": 1}},
        customdata=rows[["class"]],
        hovertemplate=f"text: <b>%{{customdata[0]}}</b>{f', {domain}' if domain else ''}<extra></extra>",
    )


def _key(name: str, symbol: str, colour: str) -> dict[str, object]:
    """An entry of the legend, a trace without data."""
    return {
        "name": name,
        "x": [None],
        "y": [None],
        "mode": "markers",
        "marker": {"symbol": symbol, "color": colour, "size": 9},
    }


def separation_panels(
    summary: pd.DataFrame,
    measures: Sequence[str],
    seeds: pd.DataFrame | None = None,
    references: Mapping[str, float] | None = None,
    *,
    columns: int = 3,
    marks: Mapping[str, Mark] | None = None,
) -> go.Figure:
    """Draw a panel per measure with a row per domain; the models lie beneath each other in it, the first on top.

    Args:
        summary: columns ``measure``, ``model``, ``domain``, ``value``, ``low``, ``high``: from `summarise`, without
            the rows of all domains together. Intervals are bars, where they are numbers.
        measures: the measures to draw, in this order.
        seeds: columns ``measure``, ``model``, ``domain``, ``seed``, ``value``: from `by_seed`, drawn as small points.
        references: a number by measure, drawn as a dotted line: chance.
        columns: panels in a row.
        marks: the look of every domain; by default ``domain_marks`` of the table's.

    Raises:
        InputError: a missing column, two rows for one mark, a measure that the table lacks, more models than symbols.
    """
    names = ("measure", "model", "domain", "value", "low", "high")
    check_table(summary, "summary", names, key=("measure", "model", "domain"))
    models, domains = list(dict.fromkeys(summary["model"])), sorted(set(summary["domain"]))
    _need(summary, measures, models)
    looks = marks_for(domains, marks)
    wide = min(columns, len(measures))
    high = -(-len(measures) // wide)
    figure = make_subplots(
        rows=high,
        cols=wide,
        subplot_titles=[(measure[0].upper() + measure[1:]).replace(" ", "<br>", 1) for measure in measures],
        shared_yaxes=True,
        horizontal_spacing=0.04,
        vertical_spacing=0.24 / high,
    )
    for i, measure in enumerate(measures):
        place = {"row": i // wide + 1, "col": i % wide + 1}
        if references and measure in references:
            figure.add_trace(_reference(references[measure], len(domains)), **place)
        for level, model in enumerate(models):
            rows = summary[(summary["measure"] == measure) & (summary["model"] == model)]
            heights = {domain: row + (level + 0.5) / len(models) * 0.7 - 0.35 for row, domain in enumerate(domains)}
            if seeds is not None:
                single = seeds[(seeds["measure"] == measure) & (seeds["model"] == model)]
                figure.add_trace(_seed_points(single[single["domain"].isin(domains)], heights, looks), **place)
            figure.add_trace(_model_points(rows, heights, looks, MODEL_SYMBOLS[level]), **place)
    for level, model in enumerate(models):
        figure.add_scatter(**_key(model, MODEL_SYMBOLS[level], INK))
    style(figure, height=110 + high * (80 + 34 * max(len(domains), 3)))
    figure.update_layout(
        legend={"orientation": "h", "x": 0, "y": 1, "yref": "container", "yanchor": "top"},
        hovermode="closest",
        margin={"t": 85, "b": 40},
    )
    figure.update_annotations(font_size=13)
    ticks = {"tickvals": list(range(len(domains))), "ticktext": [marked(d, looks[d]) for d in domains]}
    figure.update_yaxes(**ticks, range=[len(domains) - 0.5, -0.5], showgrid=False)
    figure.update_xaxes(nticks=5)
    return figure


def _need(summary: pd.DataFrame, measures: Sequence[str], models: Sequence[str]) -> None:
    if absent := [measure for measure in measures if measure not in set(summary["measure"])]:
        raise InputError(
            f"The summary table has no row for {', '.join(absent)}; it has "
            f"{', '.join(dict.fromkeys(summary['measure']))}."
        )
    if len(models) > len(MODEL_SYMBOLS):
        raise InputError(
            f"At most {len(MODEL_SYMBOLS)} models can be told apart in one figure, {len(models)} were given; "
            "draw fewer of them."
        )


def _reference(value: float, rows: int) -> go.Scatter:
    """A dotted line as a trace, which the range of its axis takes in; a shape would be left outside."""
    return go.Scatter(
        name="reference",
        showlegend=False,
        x=[value, value],
        y=[-0.5, rows - 0.5],
        mode="lines+markers",
        marker={"size": 9, "opacity": 0},  # unseen, but plotly leaves room around markers
        line={"color": INK, "dash": "dot", "width": 1.5},
        hovertemplate="reference %{x:.3f}<extra></extra>",
    )


def _seed_points(rows: pd.DataFrame, heights: Mapping[str, float], looks: Mapping[str, Mark]) -> go.Scatter:
    return go.Scatter(
        name="seeds",
        showlegend=False,
        x=rows["value"],
        y=[heights[domain] for domain in rows["domain"]],
        mode="markers",
        marker={"symbol": "line-ns", "size": 9}
        | {"line": {"width": 1.5, "color": [looks[domain].colour for domain in rows["domain"]]}},
        customdata=rows[["domain", "seed"]],
        hovertemplate="<b>%{customdata[0]}</b>, seed %{customdata[1]}: %{x:.3f}<extra></extra>",
    )


def _model_points(
    rows: pd.DataFrame, heights: Mapping[str, float], looks: Mapping[str, Mark], symbol: str
) -> go.Scatter:
    hollow = symbol.endswith("-open")
    return go.Scatter(
        name=str(rows["model"].iloc[0]) if len(rows) else "",
        showlegend=False,
        x=rows["value"],
        y=[heights[domain] for domain in rows["domain"]],
        mode="markers",
        marker={"symbol": symbol, "size": 9, "color": [looks[domain].colour for domain in rows["domain"]]}
        | {"line": {"width": 2 if hollow else 0}},
        error_x={"type": "data", "array": rows["high"] - rows["value"], "arrayminus": rows["value"] - rows["low"]}
        | {"color": GREY, "thickness": 1.2, "width": 0},
        customdata=rows[["domain", "model", "low", "high"]],
        hovertemplate="<b>%{customdata[0]}</b>, %{customdata[1]}: %{x:.3f}"
        "<br>interval %{customdata[2]:.3f} to %{customdata[3]:.3f}<extra></extra>",
    )


def measure_against_measure(
    summary: pd.DataFrame, x: str, y: str, *, marks: Mapping[str, Mark] | None = None
) -> go.Figure:
    """Draw one measure over another, a line per domain from the first model of the table (filled) to the last (hollow).

    Args:
        summary: columns ``measure``, ``model``, ``domain``, ``value``; domains that lack a value are left out.
        x: measure of the horizontal axis.
        y: measure of the vertical axis.
        marks: the look of every domain; by default ``domain_marks`` of the table's.

    Raises:
        InputError: a missing column, two rows for one point, a measure that the table lacks.
    """
    check_table(summary, "summary", ("measure", "model", "domain", "value"), key=("measure", "model", "domain"))
    models = list(dict.fromkeys(summary["model"]))
    _need(summary, (x, y), models)
    looks = marks_for(summary["domain"], marks)
    wide = summary.pivot(index=["domain", "model"], columns="measure", values="value")[[x, y]].dropna()
    ends = {models[0]: "circle", models[-1]: "circle-open"}
    figure = go.Figure()
    for domain in sorted(set(wide.index.get_level_values("domain"))):
        rows = wide.loc[domain].reindex(list(ends)).dropna()
        mark = looks[domain]
        hollow = f"{mark.symbol}-dot" if mark.symbol.endswith("-open") else f"{mark.symbol}-open"
        symbols = {models[-1]: hollow, models[0]: mark.symbol}
        figure.add_scatter(
            name=domain,
            x=rows[x],
            y=rows[y],
            mode="lines+markers",
            line={"color": mark.colour, "width": 1.5},
            marker={"symbol": [symbols[model] for model in rows.index], "size": 11, "color": mark.colour, "opacity": 1}
            | {"line": {"width": 2, "color": mark.colour}},
            cliponaxis=False,
            customdata=[[model] for model in rows.index],
            hovertemplate=f"<b>{domain}</b>, %{{customdata[0]}}<br>{x} %{{x:.3f}}<br>{y} %{{y:.3f}}<extra></extra>",
        )
    for model, symbol in ends.items():
        figure.add_scatter(**_key(model, symbol, INK))
    style(figure, height=460)
    figure.update_layout(legend={"orientation": "h", "x": 0, "y": -0.2, "yanchor": "top"}, hovermode="closest")
    figure.update_xaxes(title_text=x)
    figure.update_yaxes(title_text=y)
    return figure
