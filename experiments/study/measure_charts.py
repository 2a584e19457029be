"""Charts of measures: of circuits, representations and their relation to accuracy. Drawing computes nothing."""

from collections.abc import Iterable, Mapping

from circuitry.reports import with_intervals
from circuitry.reports.figures import faithfulness_curves, overlap_over_depth, style
from experiments.study.point_panels import Look, Options, finish_panels, point_panels
from experiments.study.run_tables import setting_family
from experiments.study.setting_charts import SETTING_SYMBOLS

import pandas as pd
import plotly.graph_objects as go
from plotly.subplots import make_subplots

QUALITY, _COST = "size to work, kept", "seconds"  # rows of the summary that are drawn


METHODS_DRAWN = (
    "iterative-fisher",
    "fisher",
    "learned",
    "gradient",
    "patching",
    "conductance",
    "exact",
    "site-path",
)
"""Names of methods in figures, in the order of their looks; ``exact`` is of edges. Two marks are left for others."""


def method_marks(methods: Iterable[str]) -> dict[str, style.Mark]:
    """Return a mark for every method, by its name: it looks the same in every figure, whatever is drawn beside it.

    A method that figures do not know takes, by alphabetical order, a mark that is left.

    Example:
        >>> method_marks(["gradient", "learned"])["gradient"] == method_marks(["gradient"])["gradient"]
        True
    """
    fixed = style.assign_looks(METHODS_DRAWN, style.MARKS, "methods")
    drawn = sorted(set(methods))
    marks = {name: fixed[name] for name in drawn if name in fixed}
    free = [*style.MARKS[len(fixed) :], *style.MARKS[: len(fixed)]]
    left = [mark for mark in free if mark not in marks.values()]
    unknown = [name for name in drawn if name not in fixed]
    return marks | style.assign_looks(unknown, left, "methods")


def cost_against_quality(
    summary: pd.DataFrame,
    *,
    quality: str = QUALITY,
    title: str = "Cost of a circuit and its smallest size",
) -> go.Figure:
    """Draw the size of circuits over their cost, a panel per setting; the size is a row of the summary.

    Sizes are medians, from the least class to the most, or where the table has them means with intervals.
    """
    note = (
        style.interval_note(summary)
        if "low" in summary
        else "medians; bars: from the least class to the most"
    )
    summary = summary.rename(columns={"least": "low", "most": "high"})
    random_units = quality.replace("kept", "random")
    paid = (
        summary[summary["what"] == _COST]
        .set_index(["setting", "method"])["value"]
        .rename("cost")
    )
    points = summary[summary["what"].isin([random_units, quality])].join(
        paid, on=["setting", "method"]
    )
    random = points["what"] == random_units
    points = points.assign(
        x=points["cost"],
        y=points["value"],
        panel=points["setting"],
        series=points["method"].mask(random, random_units),
        name=points["method"].mask(random, points["method"] + ", random units"),
        told=with_intervals(points, ".2f"),
    )
    hollow = {"symbol": "circle-open", "color": style.GREY}
    marks = method_marks(summary["method"])

    def look(rows: pd.DataFrame) -> Options:
        mark = marks[rows["series"].iloc[0]]
        return {"marker": mark.marker(11), "error_y": style.whiskers(rows, mark.colour)}

    looks: dict[str, Look] = {
        random_units: {"marker": {**hollow, "size": 8}},
        **dict.fromkeys(marks, look),
    }
    hover = f"<b>%{{customdata[0]}}</b><br>{_COST} %{{x:.3g}}<br>%{{customdata[1]}}"
    grid = {"height": 300, "gap": 80, "shared_yaxes": True, "horizontal_spacing": None}
    figure, _ = point_panels(points, looks, hover, ["name", "told"], grid)
    keys: dict[str, Options] = {
        method: {"marker": mark.marker(11)} for method, mark in marks.items()
    }
    keys["random units"] = {"marker": hollow}
    finish_panels(
        figure, keys, title, note, x=f"{_COST} (log)", y=quality.removesuffix(", kept")
    )
    figure.update_xaxes(type="log", dtick=1)
    return figure.update_yaxes(range=[0, 1.05])


def measure_panels(table: pd.DataFrame, *, title: str) -> go.Figure:
    """Draw the value of every measure in every case."""
    cases = list(dict.fromkeys(table["case"]))
    measures = list(dict.fromkeys(table["measure"]))[::-1]
    figure = make_subplots(
        1, len(cases), shared_yaxes=True, subplot_titles=cases, horizontal_spacing=0.04
    )
    for column, case in enumerate(cases, start=1):
        rows = table[table["case"] == case].set_index("measure").reindex(measures)
        figure.add_scatter(
            x=rows["value"],
            y=[name.replace("_", " ") for name in measures],
            mode="markers+text",
            marker={"color": style.INK, "size": 9},
            text=[f"{value:.2f}" for value in rows["value"]],
            textposition=[
                "middle left" if value > 0.5 else "middle right"
                for value in rows["value"]
            ],
            customdata=rows[["n"]],
            hovertemplate="%{y}: %{x:.3f}, n = %{customdata[0]}<extra></extra>",
            showlegend=False,
            row=1,
            col=column,
        )
        figure.add_vline(
            x=rows["guessing"].iloc[0],
            line={"dash": "dot", "color": style.GREY},
            row=1,
            col=column,
        )
        figure.update_xaxes(
            title_text=rows["statistic"].iloc[0], range=[-0.05, 1.08], row=1, col=column
        )
    return style.lay_out(figure, title=title, height=420)


TARGET_MARKS = dict(
    zip(("class", "domain", "class across domains"), style.MARKS[6:9], strict=True)
)
"""Marks that few sets of domains reach, so that no target looks like a domain."""


def cka_over_depth(
    domains: pd.DataFrame, ceilings: pd.DataFrame, *, title: str
) -> go.Figure:
    """Draw each domain's mean linear CKA with the other domains over the sites, with its interval."""
    mine, parts = (table[table["kernel"] == "linear"] for table in (domains, ceilings))
    null, ceiling = (
        rows.groupby("site", sort=False)[column].mean().rename("value").reset_index()
        for rows, column in ((mine, "null_mean"), (parts, "value"))
    )
    measure = "CKA with the other domains, linear kernel"
    chance = "permuted classes"
    sites = list(null["site"])
    return overlap_over_depth(
        mine, sites, ceiling, null, measure=measure, chance_label=chance, title=title
    )


def probes_over_depth(sites: pd.DataFrame, *, title: str | None = None) -> go.Figure:
    """Draw the balanced accuracy of each target's probe over the sites, with its interval and what guessing reaches."""
    table = sites.rename(columns={"target": "domain"})
    order = list(dict.fromkeys(sites["site"]))
    measure = "balanced accuracy of a linear probe"
    figure = overlap_over_depth(
        table, order, measure=measure, title=title, marks=TARGET_MARKS
    )
    for chance, targets in sites.groupby("chance")["target"].unique().items():
        guessed = " and ".join(
            f"the {target}" for target in ("class", "domain") if target in targets
        )
        figure.add_hline(
            y=float(chance),  # type: ignore[arg-type]
            line={"color": style.GREY, "dash": "dot", "width": 1.5},
            annotation={
                "text": f"guessing {guessed}",
                "font": {"size": 11, "color": style.GREY},
            },
            annotation_position="top right",
        )
    return figure


GROUP_NAMES = {"all": "all classes", "held-out": "held-out classes (OOD)"}
"""Names of groups of classes; every other one has the classes that were not held out."""


def apart_panels(table: pd.DataFrame, *, measure: str, title: str) -> go.Figure:
    """Draw one domain with the others, and the others with each other, over the sites: a panel for each ``panel``."""
    sites, lines = (list(dict.fromkeys(table[name])) for name in ("site", "domain"))
    marks = style.assign_looks(
        sorted(lines, key=lambda name: "with the others" not in name),
        style.MARKS[6:8],
        "lines",
    )
    places = table["site"].map(sites.index) + 0.2 * (
        table["domain"].map(list(marks).index) - 0.5
    )
    points = table.assign(x=places, y=table["value"], series=table["domain"])
    looks = {line: mark.line for line, mark in marks.items()}
    hover = "<b>%{customdata[0]}</b><br>%{customdata[1]}: %{y:.3f}"
    grid = {"height": 300, "gap": 120}
    figure, _ = point_panels(
        points, looks, hover, ["domain", "site"], {"shared_yaxes": True, **grid}
    )
    keys = {
        line: {
            "mode": "lines+markers",
            "line": {"color": mark.colour},
            "marker": mark.marker(9),
        }
        for line, mark in marks.items()
    }
    finish_panels(figure, keys, title, style.interval_note(table), y=measure)
    figure.update_layout(margin_b=130)  # for the names of sites between axes and legend
    figure.update_xaxes(
        tickvals=[*range(len(sites))],
        ticktext=sites,
        tickangle=-90,
        tickfont_size=10,
        showgrid=False,
    )
    return figure.update_yaxes(rangemode="tozero")


def group_panel(group: str, *more: str) -> str:
    """Return the title of a panel of a group of classes."""
    return "<br>".join(
        [GROUP_NAMES.get(group, "other classes (ID)"), *map(style.faint, more)]
    )


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
    rho = relations[relations["with"] == accuracy].set_index("what")["rho"]
    told = {
        what: "no correlation" if pd.isna(rho.get(what)) else f"ρ {rho[what]:+.2f}"
        for what in names
    }
    told = {
        what: f"{names[what]}<br>{style.faint(text)}"
        for what, text in told.items()
        if what in points
    }
    models = points.assign(setting=points["setting"].map(setting_family))
    shapes = style.assign_looks(models["setting"], SETTING_SYMBOLS, "settings")
    colours = {
        name: mark.colour
        for name, mark in style.marks_for(points["test_domain"], marks).items()
    }
    looks = {
        f"{domain}, {setting}": {
            "marker": {"color": colours[domain], "symbol": shapes[setting], "size": 9}
        }
        for domain, setting in models[["test_domain", "setting"]]
        .drop_duplicates()
        .itertuples(index=False)
    }
    models = models.assign(
        series=models["test_domain"] + ", " + models["setting"], y=points[accuracy]
    )
    long = models.melt(
        ["run", "test_domain", "series", "y"], list(told), "panel", "x"
    ).dropna(subset="x")
    called = accuracy.replace("_", " ")
    n = points["run"].nunique()
    hover = f"<b>%{{customdata[0]}}</b>, %{{customdata[1]}}<br>%{{x:.3f}}<br>{called} %{{y:.1%}}"
    grid = {"height": 220, "gap": 110, "horizontal_spacing": 0.08}
    figure, places = point_panels(
        long.replace({"panel": told}), looks, hover, ["run", "test_domain"], grid
    )
    keys: dict[str, Options]
    keys = {
        name: {"marker": {"symbol": symbol, "color": style.GREY, "size": 9}}
        for name, symbol in shapes.items()
    }
    tested = dict.fromkeys(points["test_domain"])
    keys |= {
        domain: {"marker": {"color": colours[domain], "size": 9}} for domain in tested
    }
    subtitle = f"{n} models{'' if n >= ENOUGH else ', too few for a conclusion'}; colour: test domain, symbol: setting"
    finish_panels(figure, keys, title, subtitle, y=f"accuracy, {called}")
    for place in places.values():
        figure.update_xaxes(nticks=5, **place)
    return figure.update_yaxes(tickformat=".0%", rangemode="tozero")


def size_curves(curves: pd.DataFrame, measure: str, title: str) -> go.Figure:
    """Draw a measure over the size of the circuit, a line per method, random units dotted."""
    table = curves.rename(columns={"method": "domain", "size": "fraction"})
    marks = method_marks(curves["method"])
    figure = faithfulness_curves(
        table, measure=measure.replace("kl", "KL"), title=title, marks=marks
    )
    return figure.update_xaxes(
        title_text="units kept (%)", type="linear", tickvals=None
    )


def size_panels(curves: pd.DataFrame, measure: str, title: str) -> go.Figure:
    """Draw `size_curves` in a panel for each ``panel``; a method looks alike in all."""
    panels = list(dict.fromkeys(curves["panel"]))
    named = set[str]()
    figure, places = style.small_multiples(
        panels, columns=3, height=330, gap=100, shared_yaxes=True
    )
    for panel, place in zip(panels, places, strict=True):
        for trace in size_curves(curves[curves["panel"] == panel], measure, "").data:
            figure.add_trace(
                trace.update(
                    showlegend=bool(trace.showlegend) and trace.name not in named
                ),
                **place,
            )
            named |= {trace.name} if trace.showlegend else set()
    style.lay_out(
        figure, title=title, subtitle=style.interval_note(curves), legend=True
    )
    for level in (0, 1):
        figure.add_hline(y=level, line={"color": style.GREY, "width": 1})
    figure.update_xaxes(title_text="units kept (%)", matches="x")
    return figure.update_yaxes(title_text=measure.replace("kl", "KL"), col=1)
