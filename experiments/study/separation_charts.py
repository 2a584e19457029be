"""How do separate domains look? Charts of maps, and of measures by domain and model. Drawing computes no number."""

from collections.abc import Mapping, Sequence
from functools import partial

from circuitry.reports import with_intervals
from circuitry.reports.figures import style
from experiments.study.point_panels import Look, Options, finish_panels, point_panels

import pandas as pd
import plotly.graph_objects as go

MODEL_SYMBOLS = (
    "circle",
    "circle-open",
    "square",
    "square-open",
    "diamond",
    "diamond-open",
)
"""Symbols of models, filled and hollow by turns; the colour shows the domain."""
MANY = 1000  # points of a map with more points are drawn small

_GUESSING = {"color": style.INK, "dash": "dot", "width": 1.5}
_UNSEEN = {"size": 9, "opacity": 0}  # as large as the points of models
MODELS_SHARE = 0.7  # share of the height of a domain's row that its models take
PANELS = (
    "standardised distance",
    "silhouette by domain",
    "domain probe",
    "modality gap",
    "accuracy, seen classes",
    "accuracy, held-out classes",
)
"""Measures that are drawn, a panel for each, if a table has them."""


def panel_references(measures: pd.DataFrame, n_classes: int) -> dict[str, float]:
    """Return the chance level by measure."""
    references = {"domain probe": 0.5}  # of two answers: this domain, or another domain
    for name in measures["measure"].unique():
        if name.startswith("accuracy"):
            references[name] = 1 / n_classes
    return references


def embedding_maps(
    points: pd.DataFrame,
    *,
    title: str = "Images in the plane",
    marks: Mapping[str, style.Mark] | None = None,
) -> go.Figure:
    """Draw one map per model, in which each image has the mark of its domain.

    Args:
        points: Points of `map_table`, with the column model.
        marks: Marks of domains (default: the package's).
    """
    domains = sorted(set(points["domain"]))
    looks = style.marks_for(domains, marks)
    panels = points["model"] + "<br>" + points["method"].map(style.faint)
    size = 6 if panels.value_counts().max() <= MANY else 3
    faint = dict[str, Look]()
    keys = dict[str, Options]()
    for domain in domains:
        mark = looks[domain]
        # A click on a key hides the domain in all maps.
        group = {"legendgroup": domain}
        faint[domain] = {**group, "marker": mark.marker(size, opacity=0.7)}
        # Small, faint points would be hard to see as keys.
        keys[domain] = {"marker": mark.marker(9), **group}
    table = points.assign(panel=panels, series=points["domain"])
    grid = {"columns": 2, "height": 420, "gap": 70, "horizontal_spacing": 0.03}
    hover = "<b>%{customdata[0]}</b>, %{customdata[1]}"
    figure, places = point_panels(table, faint, hover, ["class", "domain"], grid)
    finish_panels(figure, keys, title)
    for panel, place in places.items():
        drawn = table[table["panel"] == panel][["x", "y"]]
        low = drawn.min()
        high = drawn.max()
        middle = (low + high) / 2
        # Both axes are as long as the longer one, with a margin; a single point has no extent.
        half = float(0.54 * (high - low).max()) or 1.0
        figure.update_xaxes(range=[middle["x"] - half, middle["x"] + half], **place)
        figure.update_yaxes(range=[middle["y"] - half, middle["y"] + half], **place)
    square = {
        "showticklabels": False,
        "showgrid": False,
        "showline": True,
        "mirror": True,
        "constrain": "domain",
    }
    figure.update_xaxes(**square).update_yaxes(**square)
    figure.update_layout(margin={"l": 10, "r": 10, "b": 40})
    return figure.for_each_yaxis(lambda axis: axis.update(scaleanchor=axis.anchor))


def separation_panels(
    summary: pd.DataFrame,
    measures: Sequence[str],
    seeds: pd.DataFrame | None,
    references: Mapping[str, float],
    *,
    title: str = "Each domain by several measures",
    marks: Mapping[str, style.Mark] | None = None,
) -> go.Figure:
    """Draw a panel per measure, with a row per domain. The models lie below each other in a row, the first on top.

    Args:
        summary: Table of `summarise`.
        measures: Measures in the order of their panels.
        seeds: Table of `by_seed`, drawn as short strokes; `None` draws no strokes.
        references: Chance levels by measure, drawn as dotted lines.
        marks: Marks of domains (default: the package's).
    """
    symbols = style.assign_looks(summary["model"], MODEL_SYMBOLS, "models")
    domains = sorted(set(summary["domain"]))
    looks = style.marks_for(domains, marks)
    # Chance levels are traces and not shapes, because the range of an axis takes in traces alone. Their unseen markers
    # make plotly leave as much room as around the points of models.
    ends = list[dict[str, object]]()
    for name, value in references.items():
        told = f"{value:.3f}"
        end = {"measure": name, "x": value, "domain": "guessing", "told": told}
        for y in (-0.5, len(domains) - 0.5):
            ends.append({**end, "y": y, "series": "guessing"})
    # The models of a domain share its row, evenly, so that they do not cover each other.
    shifts = {
        model: MODELS_SHARE * ((i + 0.5) / len(symbols) - 0.5)
        for i, model in enumerate(symbols)
    }
    drawn = [summary.assign(series=summary["model"], told=with_intervals(summary))]
    if seeds is not None:
        values = seeds["value"].map("{:.3f}".format)
        strokes = seeds.assign(
            series=seeds["model"] + ", seeds",
            told=values + ", seed " + seeds["seed"].astype(str),
        )
        # The table by seed also has the row of all domains together.
        drawn.append(strokes[strokes["domain"].isin(domains)])
    table = pd.concat(drawn)
    table = table.assign(
        x=table["value"],
        y=table["domain"].map(domains.index) + table["model"].map(shifts),
        colour=table["domain"].map(lambda domain: looks[domain].colour),
    )
    table = pd.concat([pd.DataFrame(ends), table])
    styles: dict[str, Look] = {
        "guessing": {"mode": "lines+markers", "line": _GUESSING, "marker": _UNSEEN}
    }
    # Seeds come first, so that the points of a model lie on top of its strokes.
    for model, symbol in symbols.items():
        styles[f"{model}, seeds"] = _seed_strokes
        styles[model] = partial(_model_points, symbol)
    # A title takes two lines, so that it is no wider than its panel.
    titles = {
        measure: style.capitalised(measure).replace(" ", "<br>", 1)
        for measure in measures
    }
    table = table.assign(panel=table["measure"].map(titles))
    hover = "<b>%{customdata[0]}</b>, %{customdata[1]}: %{customdata[2]}"
    grid = {"height": 34 * max(len(domains), 3), "gap": 80, "shared_yaxes": True}
    figure, _ = point_panels(
        table, styles, hover, ["domain", "model", "told"], grid, list(titles.values())
    )
    keys: dict[str, Options] = {}
    for model, symbol in symbols.items():
        keys[model] = {"marker": {"symbol": symbol, "color": style.INK, "size": 9}}
    bar = {"color": style.GREY, "width": 1.3}
    keys["95 % interval"] = {"mode": "lines", "line": bar}
    if seeds is not None:
        keys["one seed"] = {"marker": _stroke(style.INK)}
    keys["guessing"] = {"mode": "lines", "line": _GUESSING}
    finish_panels(figure, keys, title)
    figure.update_yaxes(
        tickvals=list(range(len(domains))),
        ticktext=[style.marked(domain, looks[domain]) for domain in domains],
        range=[len(domains) - 0.5, -0.5],
        showgrid=False,
    )
    return figure.update_xaxes(nticks=5, rangemode="tozero")


def _seed_strokes(rows: pd.DataFrame) -> dict[str, object]:
    """Return the look of the seeds of a model: strokes in the colours of their domains."""
    return {"marker": _stroke(list(rows["colour"]))}


def _model_points(symbol: str, rows: pd.DataFrame) -> dict[str, object]:
    """Return the look of the points of a model, with their intervals."""
    # Without an outline a hollow symbol would be too thin to show its colour.
    outline = {"width": 2 if symbol.endswith("-open") else 0}
    marker = {"symbol": symbol, "size": 9, "color": rows["colour"], "line": outline}
    return {"marker": marker, "error_x": style.whiskers(rows, style.GREY)}


def _stroke(colour: str | list[str]) -> dict[str, object]:
    """Return a marker that is a short upright stroke."""
    return {"symbol": "line-ns", "size": 9, "line": {"width": 1.5, "color": colour}}
