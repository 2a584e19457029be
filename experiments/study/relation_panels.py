"""Numbers of trained models against each other, a point for each model and test domain. Drawing computes nothing."""

from collections.abc import Mapping

from circuitry.comparison import check_table
from circuitry.reports.figures import style
from experiments.study.robustness_lines import SETTING_SYMBOLS
from experiments.study.run_tables import setting_family

import pandas as pd
import plotly.graph_objects as go

ENOUGH = 10
"""With fewer models, figure and report say so, whatever p is."""


def relation_panels(
    points: pd.DataFrame,
    relations: pd.DataFrame,
    names: Mapping[str, str],
    accuracy: str,
    *,
    title: str,
    marks: Mapping[str, style.Mark] | None = None,
) -> go.Figure:
    """Draw an accuracy of models against each of some other numbers, a panel for each.

    Args:
        points: Columns ``run``, ``setting``, ``test_domain``, ``in_domain``, the accuracy and the keys of ``names``.
        relations: From `relate_over_models`; the correlation is written over its panel.
        names: The columns drawn from left to right and their names; columns without a number are left out.
        accuracy: Column of the accuracy.

    Raises:
        InputError: for a table without one of the columns, or more kinds of settings than symbols.
    """
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
