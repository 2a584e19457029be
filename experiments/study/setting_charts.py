"""Charts of accuracies by setting: bars, lines, dots, and effective robustness. Drawing computes nothing."""

import textwrap
from collections.abc import Mapping, Sequence
from itertools import product

from circuitry.comparison import check_table
from circuitry.reports.figures import accuracy_panels, style
from experiments.study.run_tables import MODEL, check_like_classes, logit, model_names, setting_family

import pandas as pd
import plotly.graph_objects as go
from plotly.colors import sample_colorscale

MOST_COLUMNS = 3  # panels beside each other at most; further test domains go below
PARTS = ("seen", "held-out")
BASE = "base"  # the part of a mixture that is the base set


def settings_bars(
    table: pd.DataFrame,
    *,
    title: str = "Accuracy in the test domain, by what was trained on",
    marks: Mapping[str, style.Mark] | None = None,
) -> go.Figure:
    """Draw accuracy in the test domain by setting, as `accuracy_bars`: a panel per test domain and model."""
    key = ("test_domain", *MODEL, "setting", "domain")
    check_table(table, "settings", (*key, "held_out", "sd", "held_out_classes"), key)
    tested = table[table["domain"] == table["test_domain"]].assign(name=lambda rows: model_names(rows))
    check_like_classes(tested)
    settings = list(dict.fromkeys(tested["setting"]))
    looks = style.marks_for(tested["test_domain"], marks)
    keys, titles, columns = panels_of_models(tested, "test domain ")
    panels, colours = {}, {}
    for (model, domain), panel in zip(keys, titles, strict=True):
        rows = tested[(tested["name"] == model) & (tested["test_domain"] == domain)].set_index("setting")
        panels[panel], colours[panel] = rows.reindex(settings), looks[domain].colour
    return accuracy_panels(panels, colours, title=title, columns=columns)


def panels_of_models(table: pd.DataFrame, what: str) -> tuple[list[tuple[str, str]], list[str], int]:
    """Return the panels of every model and test domain: (``name``, ``test_domain``), titles, and how many in a row."""
    domains, models = sorted(set(table["test_domain"])), list(dict.fromkeys(table["name"]))
    if len(domains) <= MOST_COLUMNS or len(models) == 1:
        keys, columns = list(product(models, domains)), min(len(domains), MOST_COLUMNS)
    else:
        keys, columns = [(m, d) for d, m in product(domains, models)], min(len(models), MOST_COLUMNS)
    return keys, [f"{what}{domain}" + (f"<br>{style.faint(model)}" if model else "") for model, domain in keys], columns


def mixture_bars(summary: pd.DataFrame) -> go.Figure:
    """Draw the images of every mixture: a bar each, stacked by domain."""
    check_table(summary, "mixtures", ("mixture", "domain", "part", "images"), key=("mixture", "domain", "part"))
    mixtures = list(dict.fromkeys(summary["mixture"]))
    drawn = summary[summary["part"] != BASE]
    looks = style.domain_marks(drawn["domain"])
    figure = go.Figure()
    for domain in looks:
        for part in PARTS:
            rows = drawn[(drawn["domain"] == domain) & (drawn["part"] == part)]
            figure.add_bar(
                name=domain,
                showlegend=False,
                orientation="h",
                x=rows["images"],
                y=rows["mixture"],
                marker=style.part_filling(part, looks[domain].colour),
                hovertemplate=f"<b>%{{y}}</b><br>{domain}, {part} classes: %{{x:,}} images<extra></extra>",
            )
        style.add_key(figure, domain, "bar", orientation="h", marker=style.part_filling("seen", looks[domain].colour))
    style.add_key(figure, "held-out classes", "bar", orientation="h", marker=style.part_filling("held-out", style.GREY))
    bases = summary[summary["part"] == BASE].set_index("mixture")
    ticks = [
        f"{name}<br>{style.faint(f'+ {bases.images[name]:,} of {bases.domain[name]}')}" if name in bases.index else name
        for name in mixtures
    ]
    style.lay_out(figure, title="Images by mixture", height=190 + 34 * len(mixtures), legend=True)
    figure.update_layout(barmode="stack", bargap=0.3, legend_itemclick=False)
    figure.update_xaxes(title_text="images", tickformat=",")
    figure.update_yaxes(
        type="category", tickvals=mixtures, ticktext=ticks, categoryarray=mixtures, autorange="reversed", showgrid=False
    )
    return figure


LABEL_GAP = 4.5  # percent between labels that stand above each other
_COLUMNS = 3  # most panels beside each other
_ACCURACIES = {"held_out": ("among all classes", "solid"), "alone": ("among held-out classes alone", "dot")}
"""Columns of `accuracy_kinds` that are drawn: the name of each and its line."""


def interpolation_lines(points: pd.DataFrame, *, axis: str, title: str, joined: bool = True) -> go.Figure:
    """Draw accuracy on held-out classes over how much was seen, a panel per test domain and model."""
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
    """Draw values by setting as dots, a mark for each ``series`` and a panel for each ``panel``."""
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


LINE = {"color": style.GREY, "width": 1.5}
SETTING_SYMBOLS = (
    *("cross", "x", "pentagon", "hourglass", "bowtie", "hexagram", "triangle-left", "triangle-right", "star-diamond"),
    "octagon",
)  # symbols of settings, which look like no domain

TICKS = (0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 0.8, 0.9, 0.95, 0.98, 0.99)  # accuracies that are written on logit axes


def robustness_scatter(
    points: pd.DataFrame,
    natural: str = "real",
    *,
    title: str = "Accuracy in the test domain against that on photographs",
) -> go.Figure:
    """Draw accuracy in the test domain against that in the natural one, every checkpoint a point, logit axes."""
    key = ("test_domain", "held_out_classes", "run", "epoch")
    columns = (*key, *MODEL, "setting", "natural", "test", "line", "expected", "n_natural", "n_test")
    check_table(points, "robustness", columns, key)
    check_like_classes(points)
    points = points.astype({"natural": float, "test": float, "expected": float})
    points = points.assign(
        at=logit(points["natural"], points["n_natural"]),
        height=logit(points["test"], points["n_test"]),
        on_line=logit(points["expected"], points["n_test"]),
        name=model_names(points),
        family=points["setting"].map(setting_family),
    )
    shapes = style.assign_looks(points["family"], SETTING_SYMBOLS, "settings")
    shades = sample_colorscale("Viridis", [0.9 * i / max(len(shapes) - 1, 1) for i in range(len(shapes))])
    symbols = {name: (shape, shade) for (name, shape), shade in zip(shapes.items(), shades, strict=True)}
    keys, titles, wide = panels_of_models(points, "")
    figure, places = style.small_multiples(
        titles, columns=wide, height=300, gap=100, shared_yaxes=True, horizontal_spacing=0.04
    )
    for (model, domain), place in zip(keys, places, strict=True):
        rows = points[(points["test_domain"] == domain) & (points["name"] == model)]
        if len(rows):
            _add_robustness(figure, place, rows, symbols, f"{natural} %{{customdata[2]:.1%}}<br>{domain}")
    for setting, (symbol, shade) in symbols.items():
        style.add_key(figure, setting, mode="markers", marker={"symbol": symbol, "color": shade, "size": 10})
    if points["expected"].notna().any():
        style.add_key(figure, "line of models of photographs alone", mode="lines", line=LINE)
    style.lay_out(
        figure, title=title, subtitle="logit axes; none or all right: drawn half an image inwards", legend=True
    )
    ticks, many = pd.Series(TICKS), pd.Series([10**6] * len(TICKS))  # so many images that no tick is moved
    written = {"tickvals": logit(ticks, many), "ticktext": [f"{100 * tick:g}" for tick in TICKS]}
    figure.update_xaxes(**written, title_text=f"accuracy on {natural} (%)")
    figure.update_yaxes(**written)
    figure.update_yaxes(title_text="accuracy in the test domain (%)", col=1)
    return figure


def _add_robustness(
    figure: go.Figure, place: Mapping[str, int], rows: pd.DataFrame, symbols: Mapping[str, tuple[str, str]], told: str
) -> None:
    """Add one panel: the line, or why there is none, and the checkpoints of every setting."""
    fitted = rows.dropna(subset="expected").sort_values("natural")
    if len(fitted):
        figure.add_scatter(
            x=fitted["at"], y=fitted["on_line"], mode="lines", line=LINE, hoverinfo="skip", showlegend=False, **place
        )
    else:
        words = "<br>".join(textwrap.wrap(f"line {rows['line'].iloc[0]}", 50))
        corner = {"x": 0.02, "y": 0.98, "xref": "x domain", "yref": "y domain", "xanchor": "left", "yanchor": "top"}
        figure.add_annotation(text=style.faint(words), align="left", showarrow=False, **corner, **place)
    for setting, (symbol, shade) in symbols.items():
        style.add_points(
            figure,
            rows[rows["family"] == setting],
            "at",
            "height",
            ["run", "epoch", "natural", "test"],
            f"<b>%{{customdata[0]}}</b>, epoch %{{customdata[1]}}<br>{told} %{{customdata[3]:.1%}}",
            name=setting,
            marker={"symbol": symbol, "color": shade, "size": 9},
            **place,
        )
