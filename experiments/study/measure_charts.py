"""Charts of measures of circuits and representations, and of their relation to accuracy.

Drawing computes nothing except means over the rows of a table.
"""

from collections.abc import Iterable, Mapping

from circuitry.reports import with_intervals
from circuitry.reports.figures import faithfulness_curves, overlap_over_depth, style
from experiments.study.point_panels import (
    Look,
    Options,
    finish_panels,
    marker_keys,
    point_panels,
)
from experiments.study.run_tables import setting_family
from experiments.study.setting_charts import SETTING_SYMBOLS

import numpy as np
import pandas as pd
import plotly.graph_objects as go
from plotly.subplots import make_subplots

# Rows of the summary that are drawn: the smallest circuit that recovers the answers, and its cost.
QUALITY = "size to work, kept"
RANDOM_UNITS = "size to work, random"
_COST = "seconds"

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
"""Methods in the order of their marks; ``exact`` finds edges. Two marks are left for other methods."""


def method_marks(methods: Iterable[str]) -> dict[str, style.Mark]:
    """Return a dictionary from each method to its mark.

    A method of `METHODS_DRAWN` has the same mark in every figure. Other methods take, in alphabetical order, the marks
    that are left.

    Example:
        >>> method_marks(["gradient", "learned"])["gradient"] == method_marks(["gradient"])["gradient"]
        True
    """
    fixed = style.assign_looks(METHODS_DRAWN, style.MARKS, "methods")
    drawn = set(methods)
    marks = {name: fixed[name] for name in sorted(drawn & set(fixed))}
    # Marks of no method come first; a known method that is not drawn lends its mark only after these.
    free = [*style.MARKS[len(fixed) :], *style.MARKS[: len(fixed)]]
    left = [mark for mark in free if mark not in marks.values()]
    return marks | style.assign_looks(sorted(drawn - set(fixed)), left, "methods")


def cost_against_quality(
    summary: pd.DataFrame, title: str = "Cost of a circuit and its smallest size"
) -> go.Figure:
    """Draw the smallest size of circuits that work over their cost, a panel for each setting.

    Sizes are medians over classes. Bars reach from the smallest to the largest value of a class.

    Args:
        summary: Columns ``setting``, ``method``, ``what``, ``value``, ``least`` and ``most``.
        title: Title of the figure.
    """
    # The functions that draw bars and write texts expect intervals in columns of these names.
    summary = summary.rename(columns={"least": "low", "most": "high"})
    paid = summary.query("what == @_COST").set_index(["setting", "method"])["value"]
    sizes = summary[summary["what"].isin([RANDOM_UNITS, QUALITY])]
    points = sizes.join(paid.rename("cost"), on=["setting", "method"])
    random = points["what"] == RANDOM_UNITS
    points = points.assign(
        x=points["cost"],
        y=points["value"],
        panel=points["setting"],
        # Random units look alike, whatever method they stand beside.
        series=points["method"].mask(random, RANDOM_UNITS),
        name=points["method"].mask(random, points["method"] + ", random units"),
        told=with_intervals(points, ".2f"),
    )
    hollow = {"symbol": "circle-open", "color": style.GREY}
    marks = method_marks(summary["method"])

    def look(rows: pd.DataFrame) -> Options:
        """Return the options of a trace, whose bars depend on its rows."""
        mark = marks[rows["series"].iloc[0]]
        return {"marker": mark.marker(11), "error_y": style.whiskers(rows, mark.colour)}

    looks: dict[str, Look] = {RANDOM_UNITS: {"marker": {**hollow, "size": 8}}}
    looks |= dict.fromkeys(marks, look)
    hover = f"<b>%{{customdata[0]}}</b><br>{_COST} %{{x:.3g}}<br>%{{customdata[1]}}"
    grid = {"height": 300, "gap": 80, "shared_yaxes": True, "horizontal_spacing": None}
    figure, _ = point_panels(points, looks, hover, ["name", "told"], grid)
    keys = marker_keys(marks, 11)
    keys["random units"] = {"marker": hollow}
    note = "medians; bars: from the least class to the most"
    up = QUALITY.removesuffix(", kept")
    finish_panels(figure, keys, title, note, x=f"{_COST} (log)", y=up)
    # Costs of methods differ by factors of thousands.
    figure.update_xaxes(type="log", dtick=1)
    return figure.update_yaxes(range=[0, 1.05])


def measure_panels(table: pd.DataFrame, *, title: str) -> go.Figure:
    """Draw the value of every measure, in a panel for every case."""
    cases = list(dict.fromkeys(table["case"]))
    # Plotly draws the first category at the bottom.
    measures = list(dict.fromkeys(table["measure"]))[::-1]
    figure = make_subplots(
        1, len(cases), shared_yaxes=True, subplot_titles=cases, horizontal_spacing=0.04
    )
    for column, case in enumerate(cases, start=1):
        place = {"row": 1, "col": column}
        rows = table[table["case"] == case].set_index("measure").reindex(measures)
        # A number stands on the side of its point that has more room.
        sides = np.where(rows["value"] > 0.5, "middle left", "middle right")
        figure.add_scatter(
            x=rows["value"],
            y=rows.index.str.replace("_", " "),
            mode="markers+text",
            marker={"color": style.INK, "size": 9},
            text=rows["value"].map("{:.2f}".format),
            textposition=sides,
            customdata=rows[["n"]],
            hovertemplate="%{y}: %{x:.3f}, n = %{customdata[0]}<extra></extra>",
            showlegend=False,
            **place,
        )
        dotted = {"dash": "dot", "color": style.GREY}
        figure.add_vline(rows["guessing"].iloc[0], line=dotted, **place)
        statistic = rows["statistic"].iloc[0]
        figure.update_xaxes(title_text=statistic, range=[-0.05, 1.08], **place)
    return style.lay_out(figure, title=title, height=420)


TARGETS = ("class", "domain", "class across domains")
TARGET_MARKS = dict(zip(TARGETS, style.MARKS[6:9], strict=True))
"""Marks of the targets of probes. Few figures have so many domains that a domain has one of these marks."""


def cka_over_depth(
    domains: pd.DataFrame, ceilings: pd.DataFrame, *, title: str
) -> go.Figure:
    """Draw the linear CKA of each domain with the other domains over the sites, with intervals.

    Args:
        domains: A row for each site, domain and kernel, with the mean CKA and its null.
        ceilings: The CKA of folds of the same images, for each site and kernel.
        title: Title of the figure.
    """
    domains = domains.query("kernel == 'linear'")
    ceilings = ceilings.query("kernel == 'linear'")
    # One line of permuted classes, and one of folds of the same images, for all domains.
    by_site = domains.groupby("site", sort=False)["null_mean"].mean()
    null = by_site.rename("value").reset_index()
    ceiling = ceilings.groupby("site", sort=False)["value"].mean().reset_index()
    return overlap_over_depth(
        domains,
        list(null["site"]),
        ceiling,
        null,
        measure="CKA with the other domains, linear kernel",
        chance_label="permuted classes",
        title=title,
    )


def probes_over_depth(sites: pd.DataFrame) -> go.Figure:
    """Draw the balanced accuracy of the probe of each target over the sites, with intervals and chance levels."""
    # The chart draws a line for each domain: here for each target.
    table = sites.rename(columns={"target": "domain"})
    order = list(dict.fromkeys(sites["site"]))
    measure = "balanced accuracy of a linear probe"
    figure = overlap_over_depth(table, order, measure=measure, marks=TARGET_MARKS)
    # Targets with equally many values have one chance level; "class across domains" has the chance level of the class.
    for chance, targets in sites.groupby("chance")["target"].unique().items():
        guessed = " and ".join(f"the {name}" for name in TARGETS[:2] if name in targets)
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
"""Names of groups of classes. Every other group has classes that were not held out."""


def apart_panels(table: pd.DataFrame, *, measure: str, title: str) -> go.Figure:
    """Draw over the sites how similar a domain is to the other domains, and how similar these are to each other.

    Args:
        table: Columns ``panel``, ``site``, ``domain`` (the name of a line), ``value``, ``low`` and ``high``.
        measure: Name of the measure of similarity.
        title: Title of the figure.
    """
    sites = list(dict.fromkeys(table["site"]))
    # The line of the domain that may lie apart comes first, so it has the same look in every figure.
    lines = list(dict.fromkeys(table["domain"]))
    lines.sort(key=lambda name: "with the others" not in name)
    marks = style.assign_looks(lines, style.MARKS[6:8], "lines")
    # The two points of a site are a fifth of a step apart, so that their bars do not cover each other.
    beside = 0.2 * (table["domain"].map(lines.index) - 0.5)
    places = table["site"].map(sites.index) + beside
    points = table.assign(x=places, y=table["value"], series=table["domain"])
    looks = {line: mark.line for line, mark in marks.items()}
    hover = "<b>%{customdata[0]}</b><br>%{customdata[1]}: %{y:.3f}"
    grid = {"height": 300, "gap": 120, "shared_yaxes": True}
    figure, _ = point_panels(points, looks, hover, ["domain", "site"], grid)
    keys: dict[str, Options] = {}
    for line, mark in marks.items():
        colour = {"color": mark.colour}
        keys[line] = {"mode": "lines+markers", "line": colour, "marker": mark.marker(9)}
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
    """Return the title of a panel: the name of a group of classes, then more lines in grey."""
    name = GROUP_NAMES.get(group, "other classes (ID)")
    return "<br>".join([name, *map(style.faint, more)])


ENOUGH = 10  # with fewer models, figure and report say so, whatever the p-value is


def relation_panels(
    points: pd.DataFrame,
    relations: pd.DataFrame,
    names: Mapping[str, str],
    accuracy: str,
    *,
    title: str,
    marks: Mapping[str, style.Mark] | None = None,
) -> go.Figure:
    """Draw an accuracy of models against other numbers of the models, a panel for each number.

    Args:
        points: A row for each model, with the columns ``run``, ``setting``, ``test_domain``, the accuracy and the
            numbers.
        relations: Rank correlations, with the columns ``what``, ``with`` and ``rho``.
        names: A dictionary from the column of each number to its name in the figure.
        accuracy: Column of the accuracy.
        title: Title of the figure.
        marks: Looks of domains (default: in the order of the table).
    """
    rho = relations[relations["with"] == accuracy].set_index("what")["rho"]
    titles = dict[str, str]()
    for what, name in names.items():
        if what in points:
            defined = pd.notna(rho.get(what))
            told = f"ρ {rho[what]:+.2f}" if defined else "no correlation"
            titles[what] = f"{name}<br>{style.faint(told)}"
    models = points.assign(setting=points["setting"].map(setting_family))
    shapes = style.assign_looks(models["setting"], SETTING_SYMBOLS, "settings")
    domain_looks = style.marks_for(points["test_domain"], marks)
    # Colour and symbol tell two things, so that every pair of test domain and setting is a series.
    looks = dict[str, Look]()
    pairs = models[["test_domain", "setting"]].drop_duplicates()
    for domain, setting in pairs.itertuples(index=False):
        colour = domain_looks[domain].colour
        marker = {"color": colour, "symbol": shapes[setting], "size": 9}
        looks[f"{domain}, {setting}"] = {"marker": marker}
    series = models["test_domain"] + ", " + models["setting"]
    models = models.assign(series=series, y=points[accuracy])
    # A row for each point: `melt` puts the numbers of a model, which are columns, under each other.
    about = ["run", "test_domain", "series", "y"]
    long = models.melt(about, list(titles), "panel", "x").dropna(subset="x")
    long = long.replace({"panel": titles})
    called = accuracy.replace("_", " ")
    n = points["run"].nunique()
    hover = f"<b>%{{customdata[0]}}</b>, %{{customdata[1]}}<br>%{{x:.3f}}<br>{called} %{{y:.1%}}"
    grid = {"height": 220, "gap": 110, "horizontal_spacing": 0.08}
    figure, places = point_panels(long, looks, hover, ["run", "test_domain"], grid)
    keys: dict[str, Options] = {}
    for setting, symbol in shapes.items():
        keys[setting] = {"marker": {"symbol": symbol, "color": style.GREY, "size": 9}}
    for domain in points["test_domain"].unique():
        keys[domain] = {"marker": {"color": domain_looks[domain].colour, "size": 9}}
    few = "" if n >= ENOUGH else ", too few for a conclusion"
    subtitle = f"{n} models{few}; colour: test domain, symbol: setting"
    finish_panels(figure, keys, title, subtitle, y=f"accuracy, {called}")
    # The numbers of two panels have other units, so each has its own axis.
    for place in places.values():
        figure.update_xaxes(nticks=5, **place)
    return figure.update_yaxes(tickformat=".0%", rangemode="tozero")


def size_curves(curves: pd.DataFrame, measure: str, title: str) -> go.Figure:
    """Draw a measure over the size of the circuit: a line for each method, and dotted lines for random units."""
    table = curves.rename(columns={"method": "domain", "size": "fraction"})
    marks = method_marks(curves["method"])
    called = measure.replace("kl", "KL")
    figure = faithfulness_curves(table, measure=called, title=title, marks=marks)
    # Circuits of a scoreboard are large: the logarithmic axis of the chart would crowd them.
    return figure.update_xaxes(
        title_text="units kept (%)", type="linear", tickvals=None
    )


def size_panels(curves: pd.DataFrame, measure: str, title: str) -> go.Figure:
    """Draw `size_curves` in a panel for each value of the column ``panel``; a method has one mark in all panels."""
    panels = list(dict.fromkeys(curves["panel"]))
    named = set[str]()
    figure, places = style.small_multiples(
        panels, columns=3, height=330, gap=100, shared_yaxes=True
    )
    for panel, place in zip(panels, places, strict=True):
        for trace in size_curves(curves[curves["panel"] == panel], measure, "").data:
            # A method has one entry in the legend, of the first panel that draws it.
            trace.showlegend = bool(trace.showlegend) and trace.name not in named
            if trace.showlegend:
                named.add(trace.name)
            figure.add_trace(trace, **place)
    style.lay_out(
        figure, title=title, subtitle=style.interval_note(curves), legend=True
    )
    for level in (0, 1):
        figure.add_hline(y=level, line={"color": style.GREY, "width": 1})
    figure.update_xaxes(title_text="units kept (%)", matches="x")
    return figure.update_yaxes(title_text=measure.replace("kl", "KL"), col=1)
