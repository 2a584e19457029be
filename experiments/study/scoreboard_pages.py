"""The sections of a scoreboard: the cost of methods that find circuits, and how small and selective these are."""

from collections.abc import Mapping
from typing import Any

from circuitry.reports import Finding, Report
from circuitry.reports.figures import faithfulness_curves, style
from circuitry.reports.sections.compared import with_intervals
from circuitry.reports.sections.findings import ANOTHER_MODEL, NO, UNKNOWN, YES
from experiments.study.cost_scatter import QUALITY, cost_against_quality

import pandas as pd
import plotly.graph_objects as go

_SHOWN = ("size for 0.5, kept", QUALITY, "size for 0.8, random", "CPR", "CMD", "rank correlation", "seconds", "GFLOP")
"""Rows of the summary that are columns of the table."""


def scoreboard_findings(summary: pd.DataFrame) -> list[Finding]:
    """Say whether the smallest circuits that tell their class from others are small, and whether one method finds them.

    Each method takes part with its best budget. Takes the table ``summary`` of a scoreboard.
    """
    kept = summary[summary["what"] == QUALITY].dropna(subset="value").sort_values("value", kind="stable")
    question = "Are there small circuits that tell their class from others?"
    if kept.empty:
        return [Finding(f"{question} {UNKNOWN}: no selectivity is known.", "", "Images of other classes.")]
    best, setting = kept.iloc[0], ["baseline", "metric"]
    random = summary[summary["what"] == QUALITY.replace("kept", "random")]
    random = random[(random[[*setting, "method", "budget"]] == best[[*setting, "method", "budget"]]).all(axis=1)]
    beside = f", as many random units at every site with {_share(random.iloc[0])}" if len(random) else ""
    told = NO if best["value"] >= 1 else YES if (random["low"] > best["high"]).any() else UNKNOWN
    alike = kept[(kept[setting] == best[setting]).all(axis=1)].drop_duplicates("method")
    others = alike[alike["method"] != best["method"]]
    first = YES if len(others) and best["high"] < others["low"].min() else UNKNOWN
    names = [
        f"{method} ({budget})" if budget != method else method
        for method, budget in zip(alike["method"], alike["budget"], strict=True)
    ]
    needs = ", ".join(f"{name} {_share(row)}" for name, (_, row) in zip(names, alike.iterrows(), strict=True))
    measured = f"{best['baseline']} baseline, {best['metric']}"
    return [
        Finding(
            f"{question} {told}: the circuits of {names[0]} reach a selectivity of 0.8 with {_share(best)} of the "
            f"units{beside} ({measured}).",
            f"Means over {best['n_classes']} classes with Student's 95 % intervals, on images that the circuits were "
            "not found on. 100 %: no smaller circuit reaches it.",
            f"Other classes, sizes or baselines; {ANOTHER_MODEL}.",
        ),
        Finding(
            f"Does one method find the smallest? {first}: share of the units that each needs, {needs} ({measured}).",
            "A method is first where its interval lies below those of all others; each has its best budget.",
            f"More classes; {ANOTHER_MODEL}.",
        ),
    ]


def _share(row: "pd.Series[Any]") -> str:
    interval = "" if pd.isna(row["low"]) else f" [{row['low']:.0%}, {row['high']:.0%}]"
    return f"{row['value']:.0%}{interval}"


def add_scoreboard(report: Report, tables: Mapping[str, pd.DataFrame]) -> None:
    """Add the sections of a scoreboard, from its tables ``summary``, ``curves`` and ``planted``."""
    summary = with_settings(tables["summary"])
    report.section("What does a circuit cost, and how small can it be?")
    report.figure(
        cost_against_quality(summary, marks=style.domain_marks(summary["method"])),
        "Processor seconds for one circuit, and the smallest share of units with selectivity 0.8 from that size on, on "
        "images that the circuit was not found on; 1 if no size on the grid reaches it. Hollow: as many random units "
        "at every site. Means over classes.",
    )
    shown = summary[summary["what"].isin(_SHOWN)]
    wide = shown.assign(cell=with_intervals(shown)).pivot(index=["setting", "method"], columns="what", values="cell")
    report.table(
        wide.reindex(columns=list(_SHOWN)).rename_axis(columns=None).reset_index(),
        "Each method, means over classes with Student's 95 % intervals. CPR: area under faithfulness; CMD: area of "
        "|1 - faithfulness|; both over MIB's sizes where the grid has them, else over the grid. Rank correlation: of "
        "unit scores with exact patching.",
    )
    report.section("How selective and how faithful are the circuits?")
    curves = with_settings(tables["curves"])
    for measure in ("selectivity", "faithfulness"):
        for setting in dict.fromkeys(curves["setting"]):
            part = curves[(curves["measure"] == measure) & (curves["setting"] == setting)]
            if part["value"].notna().any():
                report.figure(size_curves(part, measure, f"{measure}, {setting}"), f"{setting}: {measure} over size.")
    report.section("Do the methods find what was planted?")
    planted = tables["planted"].pivot(index="method", columns=["network", "kind", "site"], values="auroc")
    report.table(
        planted.set_axis(planted.columns.map(" ".join), axis=1).reset_index(),
        "Area under the ROC curve of finding the planted units and edges (into the site), site by site; 0.5 is chance.",
    )


def with_settings(table: pd.DataFrame) -> pd.DataFrame:
    """Return a table with a column ``setting``: baseline, metric and, where there are several, budget in words.

    Methods that have a budget of their own are in the settings of all budgets.
    """
    named = table.assign(setting=table["baseline"] + " baseline, " + table["metric"])
    own = named["budget"] == named["method"]
    budgets = named.loc[~own, "budget"].unique()
    if len(budgets) < 2:
        return named
    parts = [(budget, named.loc[own | (named["budget"] == budget)]) for budget in budgets]
    several: pd.DataFrame = pd.concat(
        [part.assign(setting=part["setting"] + f", budget {budget}") for budget, part in parts]
    )
    return several


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
