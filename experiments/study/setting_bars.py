"""Bars of the study: accuracy in the test domain by setting, and what went into mixtures. Drawing computes nothing."""

from collections.abc import Mapping
from itertools import product

from circuitry.runs import InputError
from circuitry.comparison import check_table
from circuitry.reports.figures import accuracy_panels, style
from experiments.study.run_tables import MODEL, check_like_classes, model_names

import pandas as pd
import plotly.graph_objects as go

MOST_COLUMNS = 3
"""Panels beside each other at most; further test domains go below."""
PARTS = ("seen", "held-out")
BASE = "base"
"""The part of a mixture that is the base set."""


def settings_bars(
    table: pd.DataFrame,
    *,
    title: str = "Accuracy in the test domain, by what was trained on",
    marks: Mapping[str, style.Mark] | None = None,
) -> go.Figure:
    """Draw accuracy in the test domain by setting, as `accuracy_bars`: a panel per test domain and model.

    Args:
        table: From `kinds_of_runs`; whiskers are ``sd`` over seeds.
        title, marks: Heading, and the looks of the domains.

    Raises:
        InputError: For rows of a test domain that count other held-out classes than the others.
    """
    key = ("test_domain", *MODEL, "setting", "domain")
    check_table(table, "settings", (*key, "held_out", "sd", "held_out_classes"), key)
    tested = table[table["domain"] == table["test_domain"]].assign(name=lambda rows: model_names(rows))
    check_like_classes(tested)
    settings = list(dict.fromkeys(tested["setting"]))
    looks = style.marks_for(tested["test_domain"], marks)
    keys, titles, columns = panels_of_models(tested, "test domain ")
    panels, colours = {}, {}
    for (model, domain), panel in zip(keys, titles, strict=True):
        rows = tested[(tested["name"] == model) & (tested["test_domain"] == domain)].set_index("setting")
        panels[panel], colours[panel] = rows.reindex(settings), looks[domain].colour
    return accuracy_panels(panels, colours, title=title, columns=columns)


def panels_of_models(table: pd.DataFrame, what: str) -> tuple[list[tuple[str, str]], list[str], int]:
    """Return the panels of every model and test domain: (``name``, ``test_domain``), titles, and how many in a row.

    Models are rows and test domains columns; where those are more than fit beside each other, the other way round.
    """
    domains, models = sorted(set(table["test_domain"])), list(dict.fromkeys(table["name"]))
    if len(domains) <= MOST_COLUMNS or len(models) == 1:
        keys, columns = list(product(models, domains)), min(len(domains), MOST_COLUMNS)
    else:
        keys, columns = [(m, d) for d, m in product(domains, models)], min(len(models), MOST_COLUMNS)
    return keys, [f"{what}{domain}" + (f"<br>{style.faint(model)}" if model else "") for model, domain in keys], columns


def mixture_bars(summary: pd.DataFrame) -> go.Figure:
    """Draw the images of every mixture: a bar each, stacked by domain.

    The base set, often fifty times the rest, is not drawn: its size stands below the mixture's name.

    Args:
        summary: Columns ``mixture``, ``domain``, ``part`` ("seen", "held-out" or "base"), ``images``.

    Raises:
        InputError: for a part of another name.

    Example:
        >>> mixture_bars(pd.read_csv("runs/mixtures/images.csv"))
    """
    check_table(summary, "mixtures", ("mixture", "domain", "part", "images"), key=("mixture", "domain", "part"))
    if other := sorted(set(summary["part"]) - {*PARTS, BASE}):
        raise InputError(f'The part of a row of the mixtures table is seen, held-out or base, not "{other[0]}".')
    mixtures = list(dict.fromkeys(summary["mixture"]))
    drawn = summary[summary["part"] != BASE]
    looks = style.domain_marks(drawn["domain"])
    figure = go.Figure()
    for domain in looks:
        for part in PARTS:
            rows = drawn[(drawn["domain"] == domain) & (drawn["part"] == part)]
            figure.add_bar(
                name=domain,
                showlegend=False,
                orientation="h",
                x=rows["images"],
                y=rows["mixture"],
                marker=style.part_filling(part, looks[domain].colour),
                hovertemplate=f"<b>%{{y}}</b><br>{domain}, {part} classes: %{{x:,}} images<extra></extra>",
            )
        style.add_key(figure, domain, "bar", orientation="h", marker=style.part_filling("seen", looks[domain].colour))
    style.add_key(figure, "held-out classes", "bar", orientation="h", marker=style.part_filling("held-out", style.GREY))
    bases = summary[summary["part"] == BASE].set_index("mixture")
    ticks = [
        f"{name}<br>{style.faint(f'+ {bases.images[name]:,} of {bases.domain[name]}')}" if name in bases.index else name
        for name in mixtures
    ]
    style.lay_out(figure, title="Images by mixture", height=190 + 34 * len(mixtures), legend=True)
    figure.update_layout(barmode="stack", bargap=0.3, legend_itemclick=False)
    figure.update_xaxes(title_text="images", tickformat=",")
    figure.update_yaxes(
        type="category", tickvals=mixtures, ticktext=ticks, categoryarray=mixtures, autorange="reversed", showgrid=False
    )
    return figure
