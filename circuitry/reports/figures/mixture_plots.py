"""Figures of training distributions, from the finished table of ``mixture_summary``. Drawing computes nothing."""

from collections.abc import Mapping

import pandas as pd
import plotly.graph_objects as go

from circuitry.comparison.table import check_table
from circuitry.reports.figures.style import GREY, Mark, faint, marks_for, part_filling, style
from circuitry.runs.errors import InputError

PARTS = ("seen", "held-out", "base")


def mixture_bars(summary: pd.DataFrame, *, marks: Mapping[str, Mark] | None = None) -> go.Figure:
    """Draw what went into every mixture: a bar each, stacked by domain, held-out classes hatched.

    The base set is named with its size below the mixture's name and not drawn, since it is often fifty times the rest.

    Args:
        summary: columns ``mixture``, ``domain``, ``part`` ("seen", "held-out" or "base"), ``images``.
        marks: the look of every domain; by default ``domain_marks`` of the table's.

    Raises:
        InputError: a missing column, a part of another name, two rows for one piece of a bar.

    Example:
        >>> mixture_bars(pd.read_csv("runs/mixtures/mixtures.csv"))
    """
    check_table(summary, "mixtures", ("mixture", "domain", "part", "images"), key=("mixture", "domain", "part"))
    if other := sorted(set(summary["part"]) - set(PARTS)):
        raise InputError(f'The part of a row of mixtures is "seen", "held-out" or "base", not "{other[0]}".')
    mixtures = list(dict.fromkeys(summary["mixture"]))
    drawn = summary[summary["part"] != "base"]
    looks = marks_for(drawn["domain"], marks)
    figure = go.Figure()
    for domain in sorted(set(drawn["domain"])):
        for part in PARTS[:2]:
            rows = drawn[(drawn["domain"] == domain) & (drawn["part"] == part)]
            figure.add_bar(
                name=domain,
                legendgroup=domain,
                showlegend=part == "seen",
                orientation="h",
                x=rows["images"],
                y=rows["mixture"],
                marker=part_filling(part, looks[domain].colour),
                hovertemplate=f"<b>%{{y}}</b><br>{domain}, {part} classes: %{{x:,}} images<extra></extra>",
            )
    figure.add_bar(name="held-out classes", x=[None], y=[None], orientation="h", marker=part_filling("held-out", GREY))
    style(figure, height=150 + 34 * len(mixtures))
    bases = summary[summary["part"] == "base"].set_index("mixture")
    ticks = [
        f"{name}<br>{faint(f'+ {bases.images[name]:,} of {bases.domain[name]}')}" if name in bases.index else name
        for name in mixtures
    ]
    figure.update_layout(
        barmode="stack",
        bargap=0.3,
        legend={"orientation": "h", "x": 0, "y": 1, "yanchor": "bottom", "traceorder": "normal", "itemclick": False},
        margin_t=60,
    )
    figure.update_xaxes(title_text="images", tickformat=",")
    figure.update_yaxes(
        type="category", tickvals=mixtures, ticktext=ticks, categoryarray=mixtures, autorange="reversed", showgrid=False
    )
    return figure
