"""Charts of embedding separation: maps, and measures by domain and model. Drawing computes nothing."""

from collections.abc import Iterable, Mapping, Sequence

from circuitry.comparison import check_table
from circuitry.reports.figures import style

import pandas as pd
import plotly.graph_objects as go

MODEL_SYMBOLS = ("circle", "circle-open", "square", "square-open", "diamond", "diamond-open")
"""Colour shows the domain, the symbol the model: filled the first, hollow the second."""


MANY = 1000  # with more points in a map they are drawn small


_GUESSING = {"color": style.INK, "dash": "dot", "width": 1.5}


MODELS_SHARE = 0.7  # share of a domain's row over which its models are spread


PANELS = (
    "standardised distance",
    "silhouette by domain",
    "domain probe",
    "modality gap",
    "accuracy, seen classes",
    "accuracy, held-out classes",
)  # measures that are drawn, where a table has them


def panel_references(measures: pd.DataFrame, n_classes: int) -> dict[str, float]:
    """Return what guessing reaches, by measure."""
    accuracies = [name for name in dict.fromkeys(measures["measure"]) if name.startswith("accuracy")]
    return {"domain probe": 0.5} | dict.fromkeys(accuracies, 1 / n_classes)


def embedding_maps(
    points: pd.DataFrame, *, title: str = "Images in the plane", marks: Mapping[str, style.Mark] | None = None
) -> go.Figure:
    """Draw one map per model: all images with the marks of their domains."""
    check_table(points, "points", ("model", "kind", "domain", "class", "x", "y", "method"), key=())
    methods = points.groupby("model", sort=False)["method"].first()
    domains = sorted(set(points["domain"]))
    looks = style.marks_for(domains, marks)
    titles = [f"{model}<br>{style.faint(method)}" for model, method in methods.items()]
    figure, places = style.small_multiples(titles, columns=2, height=420, gap=70, horizontal_spacing=0.03)
    most = int(points.groupby("model").size().max())
    size = 6 if most <= MANY else 3
    square = {"showticklabels": False, "showgrid": False, "showline": True, "mirror": True, "constrain": "domain"}
    for model, place in zip(methods.index, places, strict=True):
        own = points[points["model"] == model]
        for domain, rows in own.groupby("domain"):
            hover, marker = f"<b>%{{customdata[0]}}</b>, {domain}", looks[str(domain)].marker(size, opacity=0.7)
            style.add_points(
                figure, rows, "x", "y", ["class"], hover, name=domain, legendgroup=domain, marker=marker, **place
            )
        low, high = own[["x", "y"]].min(), own[["x", "y"]].max()
        middle, half = (low + high) / 2, float(0.54 * (high - low).max()) or 1.0  # all maps get boxes of one size
        figure.update_xaxes(**square, range=[middle["x"] - half, middle["x"] + half], **place)
        figure.update_yaxes(**square, range=[middle["y"] - half, middle["y"] + half], **place)
    for domain in domains:  # small, faint points would be hard to see as keys
        style.add_key(figure, domain, mode="markers", marker=looks[domain].marker(9), legendgroup=domain)
    style.lay_out(figure, title=title, legend=True)
    figure.update_layout(margin={"l": 10, "r": 10, "b": 40})
    figure.for_each_yaxis(lambda axis: axis.update(scaleanchor=axis.anchor))
    return figure


def separation_panels(
    summary: pd.DataFrame,
    measures: Sequence[str],
    seeds: pd.DataFrame | None = None,
    references: Mapping[str, float] | None = None,
    *,
    title: str = "Each domain by several measures",
    marks: Mapping[str, style.Mark] | None = None,
) -> go.Figure:
    """Draw a panel per measure with a row per domain; the models lie beneath each other in it, the first on top."""
    names = ("measure", "model", "domain", "value", "low", "high")
    check_table(summary, "summary", names, key=("measure", "model", "domain"))
    style.need_values(summary, "summary", "measure", measures)
    symbols = style.assign_looks(summary["model"], MODEL_SYMBOLS, "models")
    domains = sorted(set(summary["domain"]))
    looks = style.marks_for(domains, marks)
    rows = {domain: row for row, domain in enumerate(domains)}
    placed, placed_seeds = (_placed(table, symbols, rows, looks) for table in (summary, seeds))
    titles = [style.capitalised(measure).replace(" ", "<br>", 1) for measure in measures]
    figure, places = style.small_multiples(
        titles, columns=3, height=34 * max(len(domains), 3), gap=80, shared_yaxes=True, horizontal_spacing=0.04
    )
    for measure, place in zip(measures, places, strict=True):
        if references and measure in references:
            # The range of an axis takes in a trace, not a shape, and leaves room around markers, also unseen ones.
            ends = pd.DataFrame({"value": references[measure], "height": [-0.5, len(domains) - 0.5]})
            look = {"mode": "lines+markers", "line": _GUESSING, "marker": {"size": 9, "opacity": 0}}
            hover = "guessing %{x:.3f}"
            style.add_points(figure, ends, "value", "height", [], hover, name="reference", **look, **place)
        own, strokes = (table[table["measure"] == measure] for table in (placed, placed_seeds))
        _add_models(figure, symbols, own, strokes, place)
    for model, symbol in symbols.items():
        style.add_key(figure, model, mode="markers", marker={"symbol": symbol, "color": style.INK, "size": 9})
    style.add_key(figure, "95 % interval", mode="lines", line={"color": style.GREY, "width": 1.3})
    if seeds is not None:
        style.add_key(figure, "one seed", mode="markers", marker=_stroke(style.INK))
    if references:
        style.add_key(figure, "guessing", mode="lines", line=_GUESSING)
    style.lay_out(figure, title=title, legend=True)
    ticks = {"tickvals": list(rows.values()), "ticktext": [style.marked(d, looks[d]) for d in domains]}
    figure.update_yaxes(**ticks, range=[len(domains) - 0.5, -0.5], showgrid=False)
    figure.update_xaxes(nticks=5, rangemode="tozero")
    return figure


def _placed(
    table: pd.DataFrame | None, models: Iterable[str], rows: Mapping[str, int], looks: Mapping[str, style.Mark]
) -> pd.DataFrame:
    """Return the rows of a table that are drawn, with their heights and colours; none for no table."""
    if table is None:
        return pd.DataFrame(columns=["measure", "model"])
    order = list(models)
    shifts = {model: MODELS_SHARE * ((i + 0.5) / len(order) - 0.5) for i, model in enumerate(order)}
    own = table[table["domain"].isin(rows) & table["model"].isin(order)]
    colours = own["domain"].map({domain: looks[domain].colour for domain in rows})
    return own.assign(height=own["domain"].map(rows).astype(float) + own["model"].map(shifts), colour=colours)


def _add_models(
    figure: go.Figure, symbols: Mapping[str, str], summary: pd.DataFrame, seeds: pd.DataFrame, place: Mapping[str, int]
) -> None:
    """Draw the models of one panel, beneath each other: their seeds as strokes, then their values with intervals."""
    for model, symbol in symbols.items():
        own, strokes = (table[table["model"] == model] for table in (summary, seeds))
        if len(strokes):
            look = {"name": "seeds", "marker": _stroke(list(strokes["colour"]))}
            hover = "<b>%{customdata[0]}</b>, seed %{customdata[1]}: %{x:.3f}"
            style.add_points(figure, strokes, "value", "height", ["domain", "seed"], hover, **look, **place)
        outline = {"width": 2 if symbol.endswith("-open") else 0}
        style.add_points(
            figure,
            own,
            "value",
            "height",
            ["domain", "model", "low", "high"],
            "<b>%{customdata[0]}</b>, %{customdata[1]}: %{x:.3f}"
            "<br>interval %{customdata[2]:.3f} to %{customdata[3]:.3f}",
            name=model,
            marker={"symbol": symbol, "size": 9, "color": own["colour"], "line": outline},
            error_x=style.whiskers(own, style.GREY),
            **place,
        )


def _stroke(colour: str | list[str]) -> dict[str, object]:
    return {"symbol": "line-ns", "size": 9, "line": {"width": 1.5, "color": colour}}


def measure_against_measure(
    summary: pd.DataFrame, x: str, y: str, *, marks: Mapping[str, style.Mark] | None = None
) -> go.Figure:
    """Draw one measure over another, a line per domain from the first model (filled) to the last (hollow)."""
    check_table(summary, "summary", ("measure", "model", "domain", "value"), key=("measure", "model", "domain"))
    style.need_values(summary, "summary", "measure", (x, y))
    models = list(style.assign_looks(summary["model"], MODEL_SYMBOLS, "models"))
    looks = style.marks_for(summary["domain"], marks)
    wide = summary.pivot(index=["domain", "model"], columns="measure", values="value")[[x, y]].dropna()
    ends = {models[0]: "circle", models[-1]: "circle-open"}
    figure = go.Figure()
    for domain in sorted(set(wide.index.get_level_values("domain"))):
        rows, mark = wide.loc[domain].reindex(list(ends)).dropna().reset_index(), looks[domain]
        hollow = f"{mark.symbol}-dot" if mark.symbol.endswith("-open") else f"{mark.symbol}-open"
        symbols = [mark.symbol if model == models[0] else hollow for model in rows["model"]]
        style.add_points(
            figure,
            rows,
            x,
            y,
            ["model"],
            f"<b>{domain}</b>, %{{customdata[0]}}<br>{x} %{{x:.3f}}<br>{y} %{{y:.3f}}",
            name=domain,
            showlegend=True,
            mode="lines+markers",
            line={"color": mark.colour, "width": 1.5},
            marker=mark.marker(11, opacity=1, line={"width": 2, "color": mark.colour}) | {"symbol": symbols},
            cliponaxis=False,
        )
    for model, symbol in ends.items():
        style.add_key(figure, model, mode="markers", marker={"symbol": symbol, "color": style.INK, "size": 9})
    style.lay_out(figure, title=f"{style.capitalised(y)} against {x}", height=500, legend=True)
    figure.update_xaxes(title_text=x)
    figure.update_yaxes(title_text=y)
    return figure
