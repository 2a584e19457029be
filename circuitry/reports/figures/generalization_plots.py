"""Figures of generalization from finished tables: settings side by side, and effective robustness."""

import math
from collections.abc import Mapping

import pandas as pd
import plotly.graph_objects as go
from plotly.subplots import make_subplots

from circuitry.comparison.table import check_table
from circuitry.reports.figures.style import GREY, INK, MARKS, Mark, marks_for, part_filling, style

PARTS = {"seen": "other classes", "held-out": "held-out classes"}
TICKS = (0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 0.8, 0.9, 0.95, 0.98, 0.99)
"""Accuracies that are written on logit axes."""


def settings_bars(
    table: pd.DataFrame, chance: float | None = None, *, marks: Mapping[str, Mark] | None = None
) -> go.Figure:
    """Draw accuracy in the test domain by setting: other classes (solid) beside held-out ones (hatched).

    Args:
        table: as `generalization.settings_table` returns it; bars are ``mean``, whiskers ``sd``, dots the seeds.
        chance: accuracy of guessing, a fraction.
        marks: the look of every test domain.

    Raises:
        InputError: a missing column, or two rows for one bar.
    """
    columns = ("test_domain", "setting", "domain", "part", "mean", "sd", "values")
    check_table(table, "settings", columns, ("test_domain", "setting", "domain", "part"))
    domains = sorted(set(table["test_domain"]))
    looks = marks_for(domains, marks)
    titles = [f"test domain {domain}" for domain in domains]
    figure = make_subplots(1, len(domains), shared_yaxes=True, subplot_titles=titles, horizontal_spacing=0.03)
    for column, domain in enumerate(domains, start=1):
        rows = table[(table["test_domain"] == domain) & (table["domain"] == domain)]
        settings = list(dict.fromkeys(rows["setting"]))
        for part, name in PARTS.items():
            part_rows = rows[rows["part"] == part].set_index("setting").reindex(settings)
            figure.add_bar(
                x=settings,
                y=100 * part_rows["mean"],
                error_y={"array": 100 * part_rows["sd"].fillna(0), "color": INK, "thickness": 1, "width": 3},
                marker=part_filling(part, looks[domain].colour),
                name=name,
                offsetgroup=part,
                customdata=part_rows["values"],
                hovertemplate=f"<b>%{{x}}</b>, {name}<br>%{{y:.1f}} %<br>seeds: %{{customdata}}<extra>{domain}</extra>",
                showlegend=False,
                row=1,
                col=column,
            )
        if chance is not None:
            figure.add_hline(100 * chance, line={"color": INK, "dash": "dot", "width": 1}, row=1, col=column)
    for part, name in PARTS.items():  # the colour of a bar is its domain's, so the legend explains the filling
        figure.add_bar(x=[None], y=[None], name=name, offsetgroup=part, marker=part_filling(part, GREY))
    style(figure, height=430)
    figure.update_layout(
        barmode="group",
        bargap=0.25,
        legend={"orientation": "h", "x": 0, "y": 1.12, "yanchor": "bottom", "itemclick": False},
        margin_t=95,
    )
    if chance is not None:
        place = {"x": 1, "xref": "paper", "xanchor": "left", "xshift": 4, "y": 100 * chance, "showarrow": False}
        figure.add_annotation(text=f"chance<br>{100 * chance:.2g} %", align="left", font_size=12, **place)
        figure.update_layout(margin_r=70)
    figure.update_xaxes(type="category", tickangle=-35, showgrid=False)
    figure.update_yaxes(range=[0, 105])
    figure.update_yaxes(title_text="accuracy, mean over classes (%)", col=1)
    return figure


def robustness_scatter(points: pd.DataFrame, natural: str = "real") -> go.Figure:
    """Draw accuracy in the test domain against that on photographs, every checkpoint a point, logit axes.

    Args:
        points: as `generalization.effective_robustness` returns them; the line is drawn where it could be fitted.
        natural: name of the natural domain.

    Raises:
        InputError: a missing column, or two rows for one point.
    """
    columns = ("test_domain", "setting", "run", "epoch", "natural", "test", "expected")
    check_table(points, "robustness", columns, ("test_domain", "run", "epoch"))
    points = points.astype({"natural": float, "test": float, "expected": float})
    domains = sorted(set(points["test_domain"]))
    settings = list(dict.fromkeys(points["setting"]))
    figure = make_subplots(1, len(domains), shared_yaxes=True, subplot_titles=domains, horizontal_spacing=0.04)
    for column, domain in enumerate(domains, start=1):
        rows = points[points["test_domain"] == domain]
        fitted = rows.dropna(subset="expected").sort_values("natural")
        if len(fitted):
            line = {"color": GREY, "width": 1.5}
            name = "natural-only models"
            figure.add_scatter(
                x=fitted["natural"].map(_logit), y=fitted["expected"].map(_logit), mode="lines", line=line, row=1,
                col=column, name=f"line of {name}", legendgroup="line", showlegend=column == 1, hoverinfo="skip",
            )  # fmt: skip
        for setting, mark in zip(settings, MARKS, strict=False):
            chosen = rows[rows["setting"] == setting]
            figure.add_scatter(
                x=chosen["natural"].map(_logit),
                y=chosen["test"].map(_logit),
                mode="markers",
                marker={"color": mark.colour, "symbol": mark.symbol, "size": 8},
                name=setting,
                legendgroup=setting,
                showlegend=column == 1,
                customdata=chosen[["run", "epoch", "natural", "test"]],
                hovertemplate="<b>%{customdata[0]}</b>, epoch %{customdata[1]}<br>" + natural + " %{customdata[2]:.1%}"
                f"<br>{domain} %{{customdata[3]:.1%}}<extra></extra>",
                row=1,
                col=column,
            )
    style(figure, height=430)
    axis: Mapping[str, object] = {"tickvals": [_logit(t) for t in TICKS], "ticktext": [f"{100 * t:g}" for t in TICKS]}
    figure.update_xaxes(**axis, title_text=f"accuracy on {natural} (%)")
    figure.update_yaxes(**axis)
    figure.update_yaxes(title_text="accuracy in the test domain (%)", col=1)
    figure.update_layout(margin_t=60)
    return figure


def _logit(accuracy: float) -> float:
    inside = min(max(accuracy, 0.004), 0.996)  # zero and one are drawn at the edge
    return math.log(inside / (1 - inside))
