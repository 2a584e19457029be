"""Charts of accuracies by setting: bars, lines, dots, and effective robustness. Drawing computes nothing."""

import textwrap
from collections.abc import Mapping, Sequence
from itertools import product

from circuitry.reports.figures import accuracy_panels, style
from experiments.study.point_panels import Look, Options, finish_panels, point_panels
from experiments.study.run_tables import (
    MODEL,
    check_like_classes,
    logit,
    model_names,
    setting_family,
)

import pandas as pd
import plotly.graph_objects as go
from plotly.colors import sample_colorscale

MOST_COLUMNS = 3  # panels beside each other at most; further test domains go below
BASE = "base"  # the part of a mixture that is the base set


def in_test_domain(table: pd.DataFrame) -> pd.DataFrame:
    """Return the rows of a table over models in which the domain is the test domain."""
    return table[table["domain"] == table["test_domain"]]


def settings_bars(
    table: pd.DataFrame,
    marks: Mapping[str, style.Mark],
    title: str = "Accuracy in the test domain by setting",
) -> go.Figure:
    """Draw accuracy in the test domain by setting, as `accuracy_bars`: a panel per test domain and model.

    Settings of one panel count the same held-out classes. Panels may not, since each model has its upper bound.
    """
    tested = in_test_domain(table)
    check_like_classes(tested, MODEL)
    tested, titles, columns = in_panels(tested, "test domain ")
    settings = list(dict.fromkeys(tested["setting"]))
    panels = {
        title: tested[tested["panel"] == title].set_index("setting").reindex(settings)
        for title in titles
    }
    colours = {title: marks[domain].colour for title, domain in titles.items()}
    return accuracy_panels(panels, colours, title=title, columns=columns)


def in_panels(
    table: pd.DataFrame, what: str
) -> tuple[pd.DataFrame, dict[str, str], int]:
    """Return the table with a ``panel`` per model and test domain, all panels with their domains, how many in a row."""

    def title(domain: str, model: str) -> str:
        return f"{what}{domain}" + (f"<br>{style.faint(model)}" if model else "")

    names = model_names(table)
    domains = sorted(set(table["test_domain"]))
    models = list(dict.fromkeys(names))
    if len(domains) <= MOST_COLUMNS or len(models) == 1:
        pairs = [(d, m) for m, d in product(models, domains)]
        columns = min(len(domains), MOST_COLUMNS)
    else:
        pairs = list(product(domains, models))
        columns = min(len(models), MOST_COLUMNS)
    panel = [title(d, m) for d, m in zip(table["test_domain"], names, strict=True)]
    return table.assign(panel=panel), {title(d, m): d for d, m in pairs}, columns


def mixture_bars(summary: pd.DataFrame) -> go.Figure:
    """Draw the images of every mixture: a bar each, stacked by domain."""
    mixtures = list(dict.fromkeys(summary["mixture"]))
    drawn = summary[summary["part"] != BASE]
    looks = style.domain_marks(drawn["domain"])
    figure = go.Figure()
    for domain, mark in looks.items():
        for part in ("seen", "held-out"):
            rows = drawn[(drawn["domain"] == domain) & (drawn["part"] == part)]
            figure.add_bar(
                name=domain,
                showlegend=False,
                orientation="h",
                x=rows["images"],
                y=rows["mixture"],
                marker=style.part_filling(part, mark.colour),
                hovertemplate=f"<b>%{{y}}</b><br>{domain}, {part} classes: %{{x:,}} images<extra></extra>",
            )
        style.add_key(
            figure,
            domain,
            "bar",
            orientation="h",
            marker=style.part_filling("seen", mark.colour),
        )
    style.add_key(
        figure,
        "held-out classes",
        "bar",
        orientation="h",
        marker=style.part_filling("held-out", style.GREY),
    )
    bases = {
        row.mixture: f"<br>{style.faint(f'+ {row.images:,} of {row.domain}')}"
        for row in summary[summary["part"] == BASE].itertuples()
    }
    ticks = {
        "tickvals": mixtures,
        "ticktext": [name + bases.get(name, "") for name in mixtures],
    }
    style.lay_out(
        figure, title="Images by mixture", height=190 + 34 * len(mixtures), legend=True
    )
    figure.update_layout(barmode="stack", bargap=0.3, legend_itemclick=False)
    figure.update_xaxes(title_text="images", tickformat=",")
    return figure.update_yaxes(
        type="category",
        **ticks,
        categoryarray=mixtures,
        autorange="reversed",
        showgrid=False,
    )


LABEL_GAP = 4.5  # percent between labels that stand above each other
_ACCURACIES = {
    "held_out": ("among all classes", "solid"),
    "alone": ("among held-out classes alone", "dot"),
}
"""Columns of `accuracy_kinds` that are drawn: the name of each and its line."""


def interpolation_lines(
    points: pd.DataFrame, *, axis: str, title: str, joined: bool = True
) -> go.Figure:
    """Draw accuracy on held-out classes over how much was seen, a panel per test domain and model."""
    mode = "lines+markers" if joined else "markers"
    looks = dict[str, Look]()
    keys = dict[str, Options]()
    parts = []
    for line, mark in style.assign_looks(
        points["line"] if joined else [""], style.MARKS[6:], "lines"
    ).items():
        rows = points[points["line"] == line] if joined else points
        if joined:
            keys[line] = {
                "mode": mode,
                "line": {"color": mark.colour},
                "marker": mark.marker(8),
            }
        for column, (name, dash) in _ACCURACIES.items():
            size, opacity = (8, 1) if column == "held_out" else (6, 0.5)
            parts.append(
                rows.assign(kind=name, series=line + name, y=100 * rows[column])
            )
            stroke = {"color": mark.colour, "dash": dash, "width": 2}
            looks[line + name] = {
                "mode": mode,
                "line": stroke,
                "marker": mark.marker(size, opacity=opacity),
            }
    for name, dash in _ACCURACIES.values():
        marker = {
            "size": 8,
            "opacity": 1 if dash == "solid" else 0.5,
            "color": style.INK,
        }
        keys[name] = (
            {"mode": "lines", "line": {"color": style.INK, "dash": dash}}
            if joined
            else {"marker": marker}
        )
    keys["guessing"] = {"mode": "lines", "line": {"color": style.GREY, "width": 1}}
    hover = "<b>%{customdata[0]}</b>, %{customdata[1]}<br>%{x:g}: %{y:.1f} %"
    grid = {"height": 280, "gap": 100, "shared_yaxes": True, "horizontal_spacing": None}
    figure, places = point_panels(
        pd.concat(parts), looks, hover, ["line", "kind"], grid
    )
    for panel, place in places.items():
        rows = points[points["panel"] == panel]
        if not joined:
            _add_labels(figure, rows, place)
        for column, dash in (("chance", "solid"), ("chance_alone", "dot")):
            for chance in rows[column].dropna().round(6).unique():
                figure.add_hline(
                    100 * chance,
                    line={"color": style.GREY, "width": 1, "dash": dash},
                    **place,
                )
    letters = None if joined else "letters: the first letters of the domains"
    finish_panels(
        figure, keys, title, letters, x=axis, y="accuracy on held-out classes (%)"
    )
    if not joined:  # room for names beside points
        figure.update_xaxes(range=[points["x"].min() - 0.3, points["x"].max() + 1])
    return figure.update_yaxes(range=[-4, 104])


def _add_labels(
    figure: go.Figure, rows: pd.DataFrame, place: Mapping[str, int]
) -> None:
    """Write the labels of points right of them, moved up and down so that none covers another."""
    looks = {
        "mode": "text",
        "textposition": "middle right",
        "textfont": {"size": 10, "color": style.GREY},
    }
    for _, own in rows.sort_values("held_out").groupby("x"):
        heights = style.apart((100 * own["held_out"]).tolist(), LABEL_GAP)
        beside = own["x"] + 0.06
        figure.add_scatter(
            x=beside,
            y=heights,
            text=own["label"],
            hoverinfo="skip",
            showlegend=False,
            **looks,
            **place,
        )


def setting_dots(
    table: pd.DataFrame, *, axis: str, title: str, span: Sequence[float] | None = None
) -> go.Figure:
    """Draw values by setting as dots, a mark for each ``series`` and a panel for each ``panel``."""
    settings = list(dict.fromkeys(table["setting"]))
    marks = style.assign_looks(table["series"], style.MARKS, "series")
    beside = {
        name: 0.5 * ((i + 0.5) / len(marks) - 0.5) for i, name in enumerate(marks)
    }
    places = table["setting"].map(settings.index) + table["series"].map(beside)

    def look(rows: pd.DataFrame) -> Options:
        mark = marks[rows["series"].iloc[0]]
        bars = {"color": mark.colour, "thickness": 1, "width": 0}
        return {"marker": mark.marker(9)} | (
            {"error_x": {"array": rows["sd"], **bars}} if "sd" in rows else {}
        )

    hover = "<b>%{customdata[0]}</b>, %{customdata[1]}<br>%{x:.3g}"
    grid = {"height": 60 + 26 * len(settings), "gap": 90, "shared_yaxes": True}
    points = table.assign(x=table["value"], y=places)
    looks = dict.fromkeys(marks, look)
    figure, _ = point_panels(points, looks, hover, ["setting", "series"], grid)
    finish_panels(
        figure,
        {name: {"marker": mark.marker(9)} for name, mark in marks.items()},
        title,
        x=axis,
    )
    figure.update_yaxes(
        tickvals=list(range(len(settings))),
        ticktext=settings,
        range=[len(settings) - 0.5, -0.5],
    )
    return figure.update_xaxes(range=span)


LINE = {"mode": "lines", "line": {"color": style.GREY, "width": 1.5}}
SETTING_SYMBOLS = (
    "cross",
    "x",
    "pentagon",
    "hourglass",
    "bowtie",
    "hexagram",
    "triangle-left",
    "triangle-right",
    "star-diamond",
    "octagon",
)  # symbols of settings, which look like no domain

TICKS = (
    0.01,
    0.02,
    0.05,
    0.1,
    0.2,
    0.5,
    0.8,
    0.9,
    0.95,
    0.98,
    0.99,
)  # accuracies that are written on logit axes
_LINE_NAME = "line of models of photographs alone"


def robustness_scatter(
    points: pd.DataFrame,
    natural: str = "real",
    title: str = "Accuracy in the test domain against that on photographs",
) -> go.Figure:
    """Draw accuracy in the test domain against that in the natural one, every checkpoint a point, logit axes."""
    check_like_classes(points)
    points = points.astype({"natural": float, "test": float, "expected": float})
    points, panels, columns = in_panels(points, "")
    points = points.assign(
        x=logit(points["natural"], points["n_natural"]),
        y=logit(points["test"], points["n_test"]),
        series=points["setting"].map(setting_family),
    )
    symbols = style.assign_looks(points["series"], SETTING_SYMBOLS, "settings")
    shades = sample_colorscale(
        "Viridis", [0.9 * i / max(len(symbols) - 1, 1) for i in range(len(symbols))]
    )
    markers = {
        name: {"symbol": symbol, "color": shade}
        for (name, symbol), shade in zip(symbols.items(), shades, strict=True)
    }
    fitted = points.dropna(subset="expected").sort_values("natural")
    fitted = fitted.assign(
        y=logit(fitted["expected"], fitted["n_test"]), series=_LINE_NAME
    )
    lines: dict[str, Options] = {_LINE_NAME: LINE} if len(fitted) else {}
    looks = lines | {
        name: {"marker": {**marker, "size": 9}} for name, marker in markers.items()
    }
    hover = (
        f"<b>%{{customdata[0]}}</b>, epoch %{{customdata[1]}}<br>{natural} %{{customdata[2]:.1%}}"
        "<br>%{customdata[3]} %{customdata[4]:.1%}"
    )
    more = ["run", "epoch", "natural", "test_domain", "test"]
    grid = {"columns": columns, "height": 300, "gap": 100, "shared_yaxes": True}
    figure, places = point_panels(
        pd.concat([fitted, points]), looks, hover, more, grid, list(panels)
    )
    corner = {
        "x": 0.02,
        "y": 0.98,
        "xref": "x domain",
        "yref": "y domain",
        "xanchor": "left",
        "yanchor": "top",
    }
    for panel, rows in points[~points["panel"].isin(fitted["panel"])].groupby(
        "panel", sort=False
    ):
        words = "<br>".join(textwrap.wrap(f"line {rows['line'].iloc[0]}", 50))
        figure.add_annotation(
            text=style.faint(words),
            align="left",
            showarrow=False,
            **corner,
            **places[str(panel)],
        )
    keys = {
        name: {"marker": {**marker, "size": 10}} for name, marker in markers.items()
    } | lines
    subtitle = "logit axes; none or all right: drawn half an image inwards"
    up = "accuracy in the test domain (%)"
    finish_panels(figure, keys, title, subtitle, x=f"accuracy on {natural} (%)", y=up)
    many = pd.Series([10**6] * len(TICKS))  # so many images that no tick is moved
    written = {
        "tickvals": logit(pd.Series(TICKS), many),
        "ticktext": [f"{100 * tick:g}" for tick in TICKS],
    }
    return figure.update_xaxes(**written).update_yaxes(**written)
