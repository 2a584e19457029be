"""Charts of the claims of the study: accuracy by setting with the models as points, and verdicts in every way to count.

Drawing computes nothing except the means over pairs of held-out classes, with their intervals.
"""

from collections.abc import Sequence

from circuitry.comparison import mean_interval
from circuitry.reports.figures import domain_marks, style
from experiments.study.claims import (
    AS_WRITTEN,
    BORNE_OUT,
    CASE,
    OPEN,
    PAIR,
    REFUTED,
    Claim,
)
from experiments.study.run_tables import SETTING_ORDER

import numpy as np
import pandas as pd
import plotly.graph_objects as go

_LOOKS = {BORNE_OUT: style.POSITIVE, OPEN: style.FAINT, REFUTED: style.NEGATIVE}
"""The colour of each verdict."""
_MARKS = {BORNE_OUT: "✓", OPEN: "?", REFUTED: "✗"}
"""The sign of each verdict, for readers who see no colours."""


def accuracy_by_mixture(
    accuracies: pd.DataFrame,
    between: pd.DataFrame,
    far: str,
    title: str = "Accuracy on held-out classes by mixture",
) -> go.Figure:
    """Draw accuracy on the held-out classes as a bar for each setting, in a panel for each test domain.

    Bars are means over pairs of held-out classes with Student's 95 % interval, and each point is a pair. Diamonds are
    means of the accuracies between the held-out classes alone.

    Args:
        accuracies: Columns `CASE`, setting, value, as `claims.accuracies` returns them.
        between: The same among the held-out classes alone.
        far: The domain whose panel comes first.
    """
    points, points_between = _percent_of_pairs(accuracies), _percent_of_pairs(between)
    domains = sorted(set(points["test_domain"]), key=lambda name: (name != far, name))
    settings = [name for name in SETTING_ORDER if name in set(points["setting"])]
    marks = domain_marks(domains)
    figure, places = style.small_multiples(
        domains,
        columns=len(domains),
        height=450,
        shared_yaxes=True,
        horizontal_spacing=0.03,
    )
    for domain, place in zip(domains, places, strict=True):
        of_domain = points[points["test_domain"] == domain]
        # A setting that was not trained for this domain has no place in its panel.
        known = [name for name in settings if name in set(of_domain["setting"])]
        rows = _means(of_domain, known)
        figure.add_bar(
            x=known,
            y=rows["value"],
            marker=style.group_filling("held-out", marks[domain].colour),
            error_y=style.whiskers(rows, style.INK),
            hovertemplate="%{x}: %{y:.0f} %<extra></extra>",
            showlegend=False,
            **place,
        )
        figure.add_scatter(
            x=of_domain["setting"],
            y=of_domain["value"],
            customdata=of_domain[[PAIR]],
            mode="markers",
            marker={"size": 5, "color": style.INK, "opacity": 0.45},
            hovertemplate="%{customdata[0]}: %{y:.0f} %<extra></extra>",
            showlegend=False,
            **place,
        )
        in_domain = points_between["test_domain"] == domain
        rows = _means(points_between[in_domain], known)
        figure.add_scatter(
            x=known,
            y=rows["value"],
            error_y=style.whiskers(rows, style.INK),
            mode="markers",
            marker={
                "size": 10,
                "symbol": "diamond",
                "color": "white",
                "line": {"width": 1.5, "color": style.INK},
            },
            hovertemplate="%{x}: %{y:.0f} %<extra></extra>",
            showlegend=False,
            **place,
        )
    subtitle = "Bars and points: held-out classes among all classes; ◇ between themselves alone"
    style.lay_out(figure, title=title, subtitle=subtitle)
    figure.update_xaxes(tickangle=-45)
    figure.update_yaxes(range=[-3, 103])
    return figure.update_yaxes(title_text="right answers, %", row=1, col=1)


def _percent_of_pairs(accuracies: pd.DataFrame) -> pd.DataFrame:
    """Return the mean accuracy of the models of each pair in percent: test_domain, setting, `PAIR`, value."""
    by_model = accuracies.groupby([*CASE, "setting"])["value"].mean().reset_index()
    by_pair = by_model.groupby(["test_domain", "setting", PAIR])["value"].mean()
    return (100 * by_pair).reset_index()


def _means(points: pd.DataFrame, settings: list[str]) -> pd.DataFrame:
    """Return the mean over pairs of each setting with its interval: value, low, high."""
    rows = list[tuple[float, float, float]]()
    for name in settings:
        values = points.loc[points["setting"] == name, "value"]
        rows.append(mean_interval(values.to_numpy(dtype=float)))
    table = pd.DataFrame(rows, columns=["value", "low", "high"], index=settings)
    return table.clip(0, 100)


def verdicts_by_way(
    judgements: pd.DataFrame,
    claims: Sequence[Claim],
    title: str = "Verdicts in every way to count",
) -> go.Figure:
    """Draw the verdict on each claim in each way to count as a cell; a way that does not apply leaves it empty.

    Args:
        judgements: Table of `claims.judged`.
        claims: The claims that were judged.
    """
    first = judgements[judgements["first"]]
    grid = first.pivot(index="claim", columns="way", values="verdict")
    ways = [
        AS_WRITTEN,
        *(name for name in dict.fromkeys(first["way"]) if name != AS_WRITTEN),
    ]
    known = [claim for claim in claims if grid.loc[claim.name].notna().any()]
    grid = grid.reindex(index=[claim.name for claim in known], columns=ways)
    places = {verdict: number for number, verdict in enumerate(_LOOKS)}
    numbers = grid.replace(places).to_numpy(dtype=float)
    steps = np.linspace(0, 1, len(_LOOKS) + 1)
    scale = list[list[object]]()
    for number, colour in enumerate(_LOOKS.values()):
        scale += [[steps[number], colour], [steps[number + 1], colour]]
    figure = go.Figure(
        go.Heatmap(
            z=numbers,
            x=ways,
            y=[claim.question for claim in known],
            text=grid.replace(_MARKS).fillna("").to_numpy(),
            texttemplate="%{text}",
            colorscale=scale,
            zmin=-0.5,
            zmax=len(_LOOKS) - 0.5,
            showscale=False,
            xgap=3,
            ygap=3,
            customdata=grid.fillna("does not apply").to_numpy(),
            hovertemplate="%{y}<br>%{x}: %{customdata}<extra></extra>",
        )
    )
    for verdict, colour in _LOOKS.items():
        name = f"{_MARKS[verdict]} {verdict}"
        marker = {"color": colour, "size": 12, "symbol": "square"}
        style.add_key(figure, name, "scatter", mode="markers", marker=marker)
    style.lay_out(figure, title=title, height=190 + 34 * len(known), legend=True)
    figure.update_xaxes(tickangle=-35, showgrid=False)
    return figure.update_yaxes(autorange="reversed", showgrid=False, automargin=True)
