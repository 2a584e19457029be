"""Charts of bars, from finished tables: accuracies by domain or setting, and what went into mixtures.

Drawing computes nothing. Everywhere the colour is the domain's; seen classes are solid, held-out ones hatched.
"""

from collections.abc import Mapping, Sequence
from itertools import product

import pandas as pd
import plotly.graph_objects as go

from circuitry.comparison.table import check_table
from circuitry.reports.figures import style
from circuitry.runs.errors import InputError
from circuitry.training.generalization import MODEL, model_names

PARTS = ("seen", "held-out")
KINDS = {
    "alone": ("among held-out classes alone", "diamond-open"),
    "own_style": ("texts in the images' own style", "x-thin"),
    "centred": ("scores centred within the domain", "circle-open"),
}
"""Columns of `told_apart` that say what accuracy on held-out classes mixes: what each is called, and its symbol."""
_WHISKERS = {"color": style.INK, "thickness": 1, "width": 3}
_VALUES = ("all", "seen", "held_out", *KINDS, "chance", "chance_alone")
BASE = "base"
"""The part of a mixture that is the base set."""


def accuracy_bars(
    table: pd.DataFrame, *, title: str = "Accuracy by domain", marks: Mapping[str, style.Mark] | None = None
) -> go.Figure:
    """Draw the accuracy of every domain: bars of seen and held-out classes, and `KINDS` as points over the latter.

    Args:
        table: From `told_apart`, a row per domain.
        title, marks: Heading, and the looks of the domains.
    """
    check_table(table, "accuracy", ("domain", *_VALUES), key=("domain",))
    domains = list(table["domain"])
    looks = style.marks_for(domains, marks)
    figure, (place,) = style.small_multiples([""], columns=1, height=310)
    ticks = [style.marked(domain, looks[domain]) for domain in domains]
    _add_bars(figure, place, table.set_index("domain"), ticks, [looks[domain].colour for domain in domains])
    figure.update_xaxes(title_text="domain")
    return _finish_accuracies(figure, table, title)


def settings_bars(
    table: pd.DataFrame,
    *,
    title: str = "Accuracy in the test domain, by what was trained on",
    marks: Mapping[str, style.Mark] | None = None,
) -> go.Figure:
    """Draw accuracy in the test domain by setting, as `accuracy_bars`: a column per test domain, a row per model.

    Args:
        table: From `told_apart`, of runs; whiskers are ``sd`` over seeds.
        title, marks: Heading, and the looks of the domains.
    """
    key = ("test_domain", *MODEL, "setting", "domain")
    check_table(table, "settings", (*key, *_VALUES, "sd"), key)
    tested = table[table["domain"] == table["test_domain"]].assign(name=lambda rows: model_names(rows))
    domains, models = sorted(set(tested["test_domain"])), list(dict.fromkeys(tested["name"]))
    settings = list(dict.fromkeys(tested["setting"]))
    looks = style.marks_for(domains, marks)
    titles = [
        f"test domain {domain}" + (f"<br>{style.faint(model)}" if model else "")
        for model in models
        for domain in domains
    ]
    figure, places = style.small_multiples(
        titles, columns=len(domains), height=270, gap=90, shared_yaxes=True, horizontal_spacing=0.03
    )
    for (model, domain), place in zip(product(models, domains), places, strict=True):
        rows = tested[(tested["name"] == model) & (tested["test_domain"] == domain)].set_index("setting")
        _add_bars(figure, place, rows.reindex(settings), settings, [looks[domain].colour] * len(settings))
    return _finish_accuracies(figure, tested, title)


def _add_bars(
    figure: go.Figure, place: Mapping[str, int], rows: pd.DataFrame, ticks: Sequence[str], colours: list[str]
) -> None:
    """Add the bars and points of one panel, a group for each row, at 0, 1, ..., with the numbers of the bars below."""
    parts, told = _parts(rows), [[name] for name in rows.index]
    numbers = (
        (100 * rows[list(parts)]).map(lambda value: f"{value:.0f}" if pd.notna(value) else "–").agg(" | ".join, axis=1)
    )
    labels = [f"{tick}<br>{style.faint(number)}" for tick, number in zip(ticks, numbers, strict=True)]
    figure.update_xaxes(tickvals=list(range(len(rows))), ticktext=labels, **place)
    for i, (column, part) in enumerate(parts.items()):
        shift = 0.4 * (i - (len(parts) - 1) / 2)
        at = [x + shift for x in range(len(rows))]
        deviation = rows["sd"] if column == "held_out" and "sd" in rows else pd.Series(float("nan"), rows.index)
        figure.add_bar(
            name=f"{part} classes", x=at, y=100 * rows[column], width=0.36, showlegend=False,
            marker=style.part_filling(part, colours),
            error_y={"array": 100 * deviation, "visible": bool(deviation.notna().any())} | _WHISKERS,
            customdata=told,
            hovertemplate=f"<b>%{{customdata[0]}}</b>, {part} classes<br>%{{y:.1f}} %<extra></extra>",
            **place,
        )  # fmt: skip
        if column == "held_out":
            for j, (kind, (name, symbol)) in enumerate(KINDS.items()):
                figure.add_scatter(
                    name=name, x=[x + 0.1 * (j - 1) for x in at], y=100 * rows[kind], mode="markers", showlegend=False,
                    marker=_point(symbol), cliponaxis=False, customdata=told,
                    hovertemplate=f"<b>%{{customdata[0]}}</b>, held-out classes<br>{name}: %{{y:.1f}} %<extra></extra>",
                    **place,
                )  # fmt: skip


def _parts(table: pd.DataFrame) -> dict[str, str]:
    """Return the columns that are bars and their parts: seen and held-out classes, or all where none is held out."""
    there = {
        column: part for column, part in (("seen", "seen"), ("held_out", "held-out")) if table[column].notna().any()
    }
    return there if "held_out" in there else {"all": "seen"}


def _point(symbol: str) -> dict[str, object]:
    return {"symbol": symbol, "size": 9, "color": style.INK, "line": {"color": style.INK, "width": 1.6}}


def _finish_accuracies(figure: go.Figure, table: pd.DataFrame, title: str) -> go.Figure:
    """Put what stands beside each other below, percent at the left, and guessing as lines."""
    parts = _parts(table)
    for column, part in parts.items():
        name = "all classes" if column == "all" else f"{part} classes"
        style.add_key(figure, name, "bar", marker=style.part_filling(part, style.GREY))
    lines = {"chance": ("chance", "dot")}
    if "held_out" in parts:
        for name, symbol in KINDS.values():
            style.add_key(figure, f"held-out, {name}", mode="markers", marker=_point(symbol))
        lines["chance_alone"] = ("chance among<br>held-out alone", "dash")
    style.lay_out(figure, title=title, legend=True)
    figure.update_layout(barmode="overlay", legend_itemclick=False, margin_r=110)
    figure.update_xaxes(showgrid=False)
    figure.update_yaxes(range=[0, 105], tickvals=list(range(0, 101, 20)))
    figure.update_yaxes(title_text="accuracy, mean over classes (%)", col=1)
    for column, (name, dash) in lines.items():
        for chance in sorted(set(table[column].dropna().round(6))):
            line = {"color": style.INK if dash == "dot" else style.GREY, "dash": dash, "width": 1.2}
            figure.add_hline(100 * chance, line=line, row="all", col="all")
            at = {"x": 1, "xref": "paper", "xanchor": "left", "xshift": 4, "y": 100 * chance, "yref": "y"}
            text = f"{name}<br>{100 * chance:.2g} %"
            figure.add_annotation(text=text, align="left", font_size=11, showarrow=False, **at)
    return figure


def _check_parts(table: pd.DataFrame, name: str, parts: Sequence[str]) -> None:
    if other := sorted(set(table["part"]) - set(parts)):
        *first, last = (f'"{part}"' for part in parts)
        raise InputError(f'The part of a row of the {name} table is {", ".join(first)} or {last}, not "{other[0]}".')


def mixture_bars(
    summary: pd.DataFrame, *, title: str = "Images by mixture", marks: Mapping[str, style.Mark] | None = None
) -> go.Figure:
    """Draw what went into every mixture: a bar each, stacked by domain.

    The base set is named with its size below the mixture's name and not drawn, since it is often fifty times the rest.

    Args:
        summary: Columns ``mixture``, ``domain``, ``part`` ("seen", "held-out" or "base"), ``images``.

    Raises:
        InputError: for a part of another name.

    Example:
        >>> mixture_bars(pd.read_csv("runs/mixtures/mixtures.csv"))
    """
    check_table(summary, "mixtures", ("mixture", "domain", "part", "images"), key=("mixture", "domain", "part"))
    _check_parts(summary, "mixtures", (*PARTS, BASE))
    mixtures = list(dict.fromkeys(summary["mixture"]))
    drawn = summary[summary["part"] != BASE]
    looks = style.marks_for(drawn["domain"], marks)
    figure = go.Figure()
    for domain in sorted(set(drawn["domain"])):
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
    style.lay_out(figure, title=title, height=190 + 34 * len(mixtures), legend=True)
    figure.update_layout(barmode="stack", bargap=0.3, legend_itemclick=False)
    figure.update_xaxes(title_text="images", tickformat=",")
    figure.update_yaxes(
        type="category", tickvals=mixtures, ticktext=ticks, categoryarray=mixtures, autorange="reversed", showgrid=False
    )
    return figure
