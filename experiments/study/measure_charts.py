"""Charts of measures: of circuits, representations and their relation to accuracy. Drawing computes nothing."""

from collections.abc import Mapping

from circuitry.comparison import check_table
from circuitry.reports.figures import faithfulness_curves, overlap_over_depth, style
from experiments.study.run_tables import setting_family
from experiments.study.setting_charts import SETTING_SYMBOLS

import pandas as pd
import plotly.graph_objects as go
from plotly.subplots import make_subplots

QUALITY, _RANDOM, _COST = "size for 0.8, kept", "size for 0.8, random", "seconds"  # rows of the summary that are drawn


def cost_against_quality(
    summary: pd.DataFrame,
    *,
    title: str = "Cost of a circuit and its smallest size",
    marks: Mapping[str, style.Mark] | None = None,
) -> go.Figure:
    """Draw the size of circuits over their cost, a panel per setting, a point with its interval per method."""
    check_table(
        summary, "summary", ("setting", "method", "what", "value", "low", "high"), key=("setting", "method", "what")
    )
    style.need_values(summary, "summary", "what", (QUALITY, _COST))
    looks = style.marks_for(summary["method"], marks)
    settings = list(dict.fromkeys(summary["setting"]))
    figure, places = style.small_multiples(settings, columns=3, height=300, gap=80, shared_yaxes=True)
    paid = summary[summary["what"] == _COST].set_index(["setting", "method"])["value"].rename("cost")
    for name in (_RANDOM, QUALITY):
        points = summary[summary["what"] == name].join(paid, on=["setting", "method"])
        for (setting, method), rows in points.groupby(["setting", "method"], sort=False):
            mark = looks[str(method)]
            drawn = {"symbol": "circle-open", "color": style.GREY, "size": 8} if name == _RANDOM else mark.marker(11)
            style.add_points(
                figure,
                rows,
                "cost",
                "value",
                ["low", "high"],
                f"<b>{method}</b>{', random units' if name == _RANDOM else ''}<br>{_COST} %{{x:.3g}}"
                "<br>%{y:.2f}, interval %{customdata[0]:.2f} to %{customdata[1]:.2f}",
                marker=drawn,
                error_y=style.whiskers(rows, str(drawn["color"])) | {"visible": name == QUALITY},
                **places[settings.index(str(setting))],
            )
    for method, mark in looks.items():
        if method in set(summary["method"]):
            style.add_key(figure, method, mode="markers", marker=mark.marker(11))
    style.add_key(figure, "random units", mode="markers", marker={"symbol": "circle-open", "color": style.GREY})
    style.lay_out(figure, title=title, subtitle=style.interval_note(summary), legend=True)
    figure.update_xaxes(type="log", dtick=1, title_text=f"{_COST} (log)")
    figure.update_yaxes(range=[0, 1.05])
    figure.update_yaxes(title_text="smallest share of units with selectivity 0.8", col=1)
    return figure


def measure_panels(table: pd.DataFrame, *, title: str) -> go.Figure:
    """Draw the value of every measure in every case."""
    check_table(table, "table", ("measure", "case", "statistic", "value", "guessing", "n"), key=("measure", "case"))
    cases = list(dict.fromkeys(table["case"]))
    measures = list(dict.fromkeys(table["measure"]))[::-1]
    figure = make_subplots(1, len(cases), shared_yaxes=True, subplot_titles=cases, horizontal_spacing=0.04)
    for column, case in enumerate(cases, start=1):
        rows = table[table["case"] == case].set_index("measure").reindex(measures)
        figure.add_scatter(
            x=rows["value"],
            y=[name.replace("_", " ") for name in measures],
            mode="markers+text",
            marker={"color": style.INK, "size": 9},
            text=[f"{value:.2f}" for value in rows["value"]],
            textposition=["middle left" if value > 0.5 else "middle right" for value in rows["value"]],
            customdata=rows[["n"]],
            hovertemplate="%{y}: %{x:.3f}, n = %{customdata[0]}<extra></extra>",
            showlegend=False,
            row=1,
            col=column,
        )
        figure.add_vline(x=rows["guessing"].iloc[0], line={"dash": "dot", "color": style.GREY}, row=1, col=column)
        figure.update_xaxes(title_text=rows["statistic"].iloc[0], range=[-0.05, 1.08], row=1, col=column)
    return style.lay_out(figure, title=title, height=420)


TARGET_MARKS = dict(zip(("class", "domain", "class across domains"), style.MARKS[6:9], strict=True))
"""Marks that few sets of domains reach, so that no target looks like a domain."""


def cka_over_depth(
    domains: pd.DataFrame, ceilings: pd.DataFrame | None = None, *, title: str | None = None
) -> go.Figure:
    """Draw each domain's mean linear CKA with the other domains over the sites, with its interval."""
    kernel = "linear"
    check_table(domains, "domains", ("site", "domain", "kernel", "null_mean"), key=("site", "domain", "kernel"))
    style.need_values(domains, "domains", "kernel", [kernel])
    mine = domains[domains["kernel"] == kernel]
    null = mine.groupby("site", sort=False)["null_mean"].mean().rename("value").reset_index()
    ceiling = None
    if ceilings is not None:
        check_table(ceilings, "ceilings", ("kernel", "site", "value"), key=())
        ceiling = ceilings[ceilings["kernel"] == kernel].groupby("site", sort=False)["value"].mean().reset_index()
    return overlap_over_depth(
        mine,
        list(null["site"]),
        ceiling,
        null,
        measure=f"CKA with the other domains, {kernel} kernel",
        chance_label="permuted classes",
        title=title,
    )


def probes_over_depth(sites: pd.DataFrame, *, title: str | None = None) -> go.Figure:
    """Draw the balanced accuracy of each target's probe over the sites, with its interval and what guessing reaches."""
    check_table(sites, "sites", ("site", "target", "chance"), key=("site", "target"))
    table = sites.rename(columns={"target": "domain"})
    order = list(dict.fromkeys(sites["site"]))
    measure = "balanced accuracy of a linear probe"
    figure = overlap_over_depth(table, order, measure=measure, title=title, marks=TARGET_MARKS)
    for chance, targets in sites.groupby("chance")["target"].unique().items():
        guessed = " and ".join(f"the {target}" for target in ("class", "domain") if target in targets)
        figure.add_hline(
            y=float(chance),  # type: ignore[arg-type]
            line={"color": style.GREY, "dash": "dot", "width": 1.5},
            annotation={"text": f"guessing {guessed}", "font": {"size": 11, "color": style.GREY}},
            annotation_position="top right",
        )
    return figure


GROUP_NAMES = {"all": "all classes", "held-out": "held-out classes (OOD)"}
"""Names of groups of classes; every other one has the classes that were not held out."""


def apart_panels(table: pd.DataFrame, *, measure: str, title: str) -> go.Figure:
    """Draw one domain with the others, and the others with each other, over the sites: a panel for each ``panel``."""
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


ENOUGH = 10  # with fewer models, figure and report say so, whatever p is


def relation_panels(
    points: pd.DataFrame,
    relations: pd.DataFrame,
    names: Mapping[str, str],
    accuracy: str,
    *,
    title: str,
    marks: Mapping[str, style.Mark] | None = None,
) -> go.Figure:
    """Draw an accuracy of models against each of some other numbers, a panel for each."""
    check_table(points, "points", ("run", "setting", "test_domain", accuracy), key=("run", "test_domain"))
    drawn = {column: name for column, name in names.items() if column in points and points[column].notna().any()}
    shapes = style.assign_looks(points["setting"].map(setting_family), SETTING_SYMBOLS, "settings")
    looks = style.marks_for(points["test_domain"], marks)
    rho = relations[relations["with"] == accuracy].set_index("what")["rho"]
    titles = [f"{name}<br>{style.faint(_told(rho, column))}" for column, name in drawn.items()]
    figure, places = style.small_multiples(titles, columns=3, height=220, gap=110, horizontal_spacing=0.08)
    called = accuracy.replace("_", " ")
    for column, place in zip(drawn, places, strict=True):
        for (domain, setting), rows in points.groupby(["test_domain", "setting"], sort=False):
            symbol = shapes[setting_family(str(setting))]
            marker = {"color": looks[str(domain)].colour, "symbol": symbol, "size": 9}
            hover = f"<b>%{{customdata[0]}}</b>, {domain}<br>{drawn[column]} %{{x:.3f}}<br>{called} %{{y:.1%}}"
            style.add_points(figure, rows, column, accuracy, ["run"], hover, marker=marker, **place)
        figure.update_xaxes(nticks=5, **place)
    for setting, symbol in shapes.items():
        style.add_key(figure, setting, mode="markers", marker={"symbol": symbol, "color": style.GREY, "size": 9})
    for domain in dict.fromkeys(points["test_domain"]):
        style.add_key(figure, domain, mode="markers", marker={"color": looks[domain].colour, "size": 9})
    n = points["run"].nunique()
    few = "" if n >= ENOUGH else ", too few for a conclusion"
    style.lay_out(figure, title=title, subtitle=f"{n} models{few}; colour: test domain, symbol: setting", legend=True)
    figure.update_yaxes(tickformat=".0%", rangemode="tozero")
    figure.update_yaxes(title_text=f"accuracy, {called}", col=1)
    return figure


def _told(rho: "pd.Series[float]", column: str) -> str:
    value = rho.get(column)
    return "no correlation" if value is None or pd.isna(value) else f"ρ {value:+.2f}"


def size_curves(curves: pd.DataFrame, measure: str, title: str) -> go.Figure:
    """Draw a measure over the size of the circuit, a line per method, random units dotted."""
    table = curves.rename(columns={"method": "domain", "size": "fraction"})
    figure = faithfulness_curves(table, measure=measure, title=title)
    figure.update_xaxes(title_text="units kept (%)", type="linear", tickvals=None)
    return figure


def size_panels(curves: pd.DataFrame, measure: str, title: str) -> go.Figure:
    """Draw `size_curves` in a panel for each ``panel``; all panels have the same methods."""
    panels = list(dict.fromkeys(curves["panel"]))
    figure, places = style.small_multiples(panels, columns=2, height=360, gap=100, shared_yaxes=True)
    for panel, place in zip(panels, places, strict=True):
        for trace in size_curves(curves[curves["panel"] == panel], measure, "").data:
            figure.add_trace(trace.update(showlegend=bool(trace.showlegend) and place == places[0]), **place)
    style.lay_out(figure, title=title, subtitle=style.interval_note(curves), legend=True)
    for level in (0, 1):
        figure.add_hline(y=level, line={"color": style.GREY, "width": 1})
    figure.update_xaxes(title_text="units kept (%)", matches="x")
    return figure.update_yaxes(title_text=measure, col=1)
