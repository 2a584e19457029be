"""How do accuracies depend on the setting? Charts with bars, lines and dots. Drawing computes no number."""

import textwrap
from collections.abc import Iterable, Mapping, Sequence
from itertools import product

from circuitry.reports.figures import accuracy_panels, style
from experiments.study.point_panels import (
    Look,
    Options,
    finish_panels,
    marker_keys,
    point_panels,
)
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

MOST_COLUMNS = 3  # the most panels in a row
BASE = "base"  # value of the column ``group`` for images of the base set of a mixture


def in_test_domain(table: pd.DataFrame) -> pd.DataFrame:
    """Return the rows of a table in which the domain is the test domain."""
    return table[table["domain"] == table["test_domain"]]


def settings_bars(
    table: pd.DataFrame,
    marks: Mapping[str, style.Mark],
    title: str = "Accuracy in the test domain by setting",
) -> go.Figure:
    """Draw accuracy in the test domain by setting as `accuracy_bars`, a panel for each test domain and kind of model.

    All settings of one panel must count the same held-out classes. Panels may count different classes, because each
    kind of model has its own upper bound.
    """
    tested = in_test_domain(table)
    check_like_classes(tested, MODEL)
    tested, titles, columns = in_panels(tested, "test domain ")
    settings = list(dict.fromkeys(tested["setting"]))
    panels = dict[str, pd.DataFrame]()
    colours = dict[str, str]()
    for panel, domain in titles.items():
        rows = tested[tested["panel"] == panel].set_index("setting")
        # A setting that a panel lacks stays an empty place, so that bars of all panels are in line.
        panels[panel] = rows.reindex(settings)
        colours[panel] = marks[domain].colour
    return accuracy_panels(panels, colours, title=title, columns=columns)


def in_panels(
    table: pd.DataFrame, what: str
) -> tuple[pd.DataFrame, dict[str, str], int]:
    """Put the rows of a table into panels, one for each test domain and kind of model.

    Args:
        what: Words in front of the name of the test domain in the title of a panel.

    Returns:
        The table with the column ``panel``, the test domain of each panel in the order of drawing, and the number of
        panels in a row. Panels of models that a domain lacks are among them, and stay empty.
    """

    def title(domain: str, model: str) -> str:
        # The name is empty if there is one kind of model.
        if not model:
            return f"{what}{domain}"
        return f"{what}{domain}<br>{style.faint(model)}"

    names = model_names(table)
    domains = sorted(set(table["test_domain"]))
    models = list(dict.fromkeys(names))
    # A row of panels is of one model if all domains fit into a row, and otherwise of one domain.
    if len(domains) <= MOST_COLUMNS or len(models) == 1:
        in_row = len(domains)
        pairs = [(domain, model) for model, domain in product(models, domains)]
    else:
        in_row = len(models)
        pairs = list(product(domains, models))
    panels = {title(domain, model): domain for domain, model in pairs}
    panel = list(map(title, table["test_domain"], names))
    return table.assign(panel=panel), panels, min(in_row, MOST_COLUMNS)


def mixture_bars(summary: pd.DataFrame) -> go.Figure:
    """Draw the number of images of every mixture as a bar, stacked by domain and group of classes."""
    mixtures = list(dict.fromkeys(summary["mixture"]))
    drawn = summary[summary["group"] != BASE]
    looks = style.domain_marks(drawn["domain"])
    figure = go.Figure()
    for domain, mark in looks.items():
        for group in ("seen", "held-out"):
            rows = drawn[(drawn["domain"] == domain) & (drawn["group"] == group)]
            figure.add_bar(
                name=domain,
                showlegend=False,
                orientation="h",
                x=rows["images"],
                y=rows["mixture"],
                marker=style.group_filling(group, mark.colour),
                hovertemplate=f"<b>%{{y}}</b><br>{domain}, {group} classes: %{{x:,}} images<extra></extra>",
            )
        filling = style.group_filling("seen", mark.colour)
        style.add_key(figure, domain, "bar", orientation="h", marker=filling)
    filling = style.group_filling("held-out", style.GREY)
    style.add_key(figure, "held-out classes", "bar", orientation="h", marker=filling)
    # A base set has a hundred times as many images, so it is written instead of drawn.
    told = {name: name for name in mixtures}
    for row in summary[summary["group"] == BASE].itertuples():
        base = style.faint(f"+ {row.images:,} of {row.domain}")
        told[row.mixture] = f"{row.mixture}<br>{base}"
    height = 190 + 34 * len(mixtures)
    style.lay_out(figure, title="Images by mixture", height=height, legend=True)
    figure.update_layout(barmode="stack", bargap=0.3, legend_itemclick=False)
    figure.update_xaxes(title_text="images", tickformat=",")
    return figure.update_yaxes(
        type="category",
        tickvals=mixtures,
        ticktext=list(told.values()),
        categoryarray=mixtures,
        autorange="reversed",
        showgrid=False,
    )


LABEL_GAP = 4.5  # least distance of two labels above each other, in percent of accuracy
_ACCURACIES = {
    "held_out": ("among all classes", "solid"),
    "alone": ("among held-out classes alone", "dot"),
}
"""Takes a column of `accuracy_kinds`. Returns its name in words, and the dash of its line."""


def interpolation_lines(
    points: pd.DataFrame, *, axis: str, title: str, joined: bool = True
) -> go.Figure:
    """Draw accuracy on held-out classes over how much was seen, a panel for each value of the column ``panel``.

    Args:
        points: A row for each setting: columns panel, line, x, the accuracies, their chance levels, and perhaps label.
        axis: Title of the horizontal axis.
        joined: True joins the points of each ``line``. False writes their labels beside the points.
    """
    mode = "lines+markers"
    lines: Iterable[str] = points["line"]
    # Points that are not joined have one look, and their names stand beside them.
    if not joined:
        mode = "markers"
        lines = [""]
    looks = dict[str, Look]()
    keys = dict[str, Options]()
    tables = []
    for line, mark in style.assign_looks(lines, style.MARKS[6:], "lines").items():
        rows = points
        if joined:
            rows = points[points["line"] == line]
            colour = {"color": mark.colour}
            keys[line] = {"mode": mode, "line": colour, "marker": mark.marker(8)}
        for column, (name, dash) in _ACCURACIES.items():
            of_kind = rows.assign(kind=name, series=line + name, y=100 * rows[column])
            tables.append(of_kind)
            stroke = {"color": mark.colour, "dash": dash, "width": 2}
            # The study reports accuracy among all classes: accuracy among held-out classes alone is fainter.
            marker = mark.marker(6, opacity=0.5)
            if column == "held_out":
                marker = mark.marker(8, opacity=1)
            looks[line + name] = {"mode": mode, "line": stroke, "marker": marker}
    for name, dash in _ACCURACIES.values():
        if joined:
            stroke = {"color": style.INK, "dash": dash}
            keys[name] = {"mode": "lines", "line": stroke}
        else:
            opacity = 1 if dash == "solid" else 0.5
            keys[name] = {"marker": {"size": 8, "opacity": opacity, "color": style.INK}}
    keys["guessing"] = {"mode": "lines", "line": {"color": style.GREY, "width": 1}}
    hover = "<b>%{customdata[0]}</b>, %{customdata[1]}<br>%{x:g}: %{y:.1f} %"
    grid = {"height": 280, "gap": 100, "shared_yaxes": True, "horizontal_spacing": None}
    figure, places = point_panels(
        pd.concat(tables), looks, hover, ["line", "kind"], grid
    )
    for panel, place in places.items():
        rows = points[points["panel"] == panel]
        if not joined:
            _add_labels(figure, rows, place)
        for column, dash in (("chance", "solid"), ("chance_alone", "dot")):
            stroke = {"color": style.GREY, "width": 1, "dash": dash}
            # Rounding makes one line of means whose last digits differ.
            for chance in rows[column].dropna().round(6).unique():
                figure.add_hline(100 * chance, line=stroke, **place)
    letters = None if joined else "letters: the first letters of the domains"
    up = "accuracy on held-out classes (%)"
    finish_panels(figure, keys, title, letters, x=axis, y=up)
    # Labels beside the last points need room.
    if not joined:
        figure.update_xaxes(range=[points["x"].min() - 0.3, points["x"].max() + 1])
    return figure.update_yaxes(range=[-4, 104])


def _add_labels(
    figure: go.Figure, rows: pd.DataFrame, place: Mapping[str, int]
) -> None:
    """Write the label of each point to its right, moved up or down so that no label covers another label."""
    looks = {
        "mode": "text",
        "textposition": "middle right",
        "textfont": {"size": 10, "color": style.GREY},
    }
    # Only labels at one place of the axis can cover each other; `apart` takes heights in rising order.
    for _, above in rows.sort_values("held_out").groupby("x"):
        heights = style.apart((100 * above["held_out"]).tolist(), LABEL_GAP)
        figure.add_scatter(
            x=above["x"] + 0.06,
            y=heights,
            text=above["label"],
            hoverinfo="skip",
            showlegend=False,
            **looks,
            **place,
        )


def setting_dots(
    table: pd.DataFrame, *, axis: str, title: str, span: Sequence[float] | None = None
) -> go.Figure:
    """Draw values by setting as dots, with a mark for each ``series`` and a panel for each ``panel`` of the table.

    Args:
        span: Ends of the horizontal axis (default: the ends of the values).
    """
    settings = list(dict.fromkeys(table["setting"]))
    marks = style.assign_looks(table["series"], style.MARKS, "series")
    # The series of a setting share half of its row, evenly.
    shifts = {
        name: 0.5 * ((i + 0.5) / len(marks) - 0.5) for i, name in enumerate(marks)
    }
    places = table["setting"].map(settings.index) + table["series"].map(shifts)

    def look(rows: pd.DataFrame) -> Options:
        mark = marks[rows["series"].iloc[0]]
        if "sd" not in rows:  # shared features have no spread over seeds
            return {"marker": mark.marker(9)}
        bars = {"array": rows["sd"], "color": mark.colour, "thickness": 1, "width": 0}
        return {"marker": mark.marker(9), "error_x": bars}

    hover = "<b>%{customdata[0]}</b>, %{customdata[1]}<br>%{x:.3g}"
    grid = {"height": 60 + 26 * len(settings), "gap": 90, "shared_yaxes": True}
    points = table.assign(x=table["value"], y=places)
    looks = dict.fromkeys(marks, look)
    figure, _ = point_panels(points, looks, hover, ["setting", "series"], grid)
    finish_panels(figure, marker_keys(marks, 9), title, x=axis)
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
)
"""Symbols of settings, which differ from the symbols of domains."""

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
)
"""Accuracies at the ticks of logit axes."""
_LINE_NAME = "line of models of photographs alone"


def robustness_scatter(
    points: pd.DataFrame,
    title: str = "Accuracy in the test domain against that on photographs",
) -> go.Figure:
    """Draw accuracy in the test domain against accuracy in the natural domain, both on logit axes.

    Args:
        points: Table of `effective_robustness`: each checkpoint is a point.
    """
    check_like_classes(points)
    natural = points["photographs"].iloc[0]
    points = points.astype({"natural": float, "test": float, "expected": float})
    points, panels, columns = in_panels(points, "")
    points = points.assign(
        x=logit(points["natural"], points["n_natural"]),
        y=logit(points["test"], points["n_test"]),
        series=points["setting"].map(setting_family),
    )
    symbols = style.assign_looks(points["series"], SETTING_SYMBOLS, "settings")
    # The last tenth of the scale is a yellow that is hard to see on white.
    steps = [0.9 * i / max(len(symbols) - 1, 1) for i in range(len(symbols))]
    shades = sample_colorscale("Viridis", steps)
    # A line joins its points from left to right.
    fitted = points.dropna(subset="expected").sort_values("natural")
    y = logit(fitted["expected"], fitted["n_test"])
    fitted = fitted.assign(y=y, series=_LINE_NAME)
    lines = dict[str, Options]()
    if len(fitted):
        lines[_LINE_NAME] = LINE
    looks = dict(lines)
    keys = dict[str, Options]()
    for (name, symbol), shade in zip(symbols.items(), shades, strict=True):
        marker = {"symbol": symbol, "color": shade}
        looks[name] = {"marker": {**marker, "size": 9}}
        keys[name] = {"marker": {**marker, "size": 10}}
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
    # A panel without a line says why.
    unfitted = points[~points["panel"].isin(fitted["panel"])]
    for panel, rows in unfitted.groupby("panel", sort=False):
        words = "<br>".join(textwrap.wrap(f"line {rows['line'].iloc[0]}", 50))
        figure.add_annotation(
            text=style.faint(words),
            align="left",
            showarrow=False,
            **corner,
            **places[str(panel)],
        )
    subtitle = "logit axes; none or all right: drawn half an image inwards"
    across = f"accuracy on {natural} (%)"
    up = "accuracy in the test domain (%)"
    finish_panels(figure, keys | lines, title, subtitle, x=across, y=up)
    # `logit` moves accuracies inwards by half an image; of a million images that moves no tick.
    places_of_ticks = logit(pd.Series(TICKS), 10**6)
    texts = [f"{100 * tick:g}" for tick in TICKS]
    figure.update_xaxes(tickvals=places_of_ticks, ticktext=texts)
    return figure.update_yaxes(tickvals=places_of_ticks, ticktext=texts)
