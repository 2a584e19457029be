"""Charts of bars, from finished tables: accuracies by domain or setting, and what went into mixtures.

Drawing computes nothing. Everywhere the colour is the domain's; seen classes are solid, held-out ones hatched.
"""

from collections.abc import Mapping, Sequence
from itertools import product
from typing import Literal

import pandas as pd
import plotly.graph_objects as go

from circuitry.comparison.table import check_table
from circuitry.reports.figures import style
from circuitry.runs.errors import InputError
from circuitry.study.generalization import MODEL, check_like_classes, model_names

_PARTS = ("seen", "held-out")
KINDS = {
    "alone": ("among held-out classes alone", "diamond-open"),
    "own_style": ("texts in the images' own style", "x-thin"),
    "centred": ("scores centred within the domain", "circle-open"),
}
"""Columns of `accuracy_kinds` that explain accuracy on held-out classes: the name of each and its symbol."""
_VALUES = ("all", "seen", "held_out", *KINDS, "chance", "chance_alone")
_GUESSING: Mapping[str, str] = {"chance": "dot", "chance_alone": "dash"}
"""How the lines of guessing look, among all classes and among the held-out ones alone."""
_PERCENT = {"range": [0, 115], "tickvals": list(range(0, 101, 20)), "title_text": "accuracy, mean over classes (%)"}
MOST_COLUMNS = 3
"""Panels beside each other at most; further test domains go below."""
BASE = "base"
"""The part of a mixture that is the base set."""


def accuracy_bars(
    table: pd.DataFrame, *, title: str = "Accuracy by domain", marks: Mapping[str, style.Mark] | None = None
) -> go.Figure:
    """Draw the accuracy of every domain: bars of seen and held-out classes, and `KINDS` as points over the latter.

    Args:
        table: From `accuracy_kinds`, a row per domain.
        title, marks: Heading, and the looks of the domains.
    """
    check_table(table, "accuracy", ("domain", *_VALUES), key=("domain",))
    domains = list(table["domain"])
    looks = style.marks_for(domains, marks)
    figure, (place,) = style.small_multiples([""], columns=1, height=330)
    _add_bars(figure, place, table.set_index("domain"), [looks[domain].colour for domain in domains], "v")
    ticks = [style.marked(domain, looks[domain]) for domain in domains]
    figure.update_xaxes(tickvals=list(range(len(domains))), ticktext=ticks, title_text="domain", showgrid=False)
    figure.update_yaxes(**_PERCENT)
    _add_guessing(figure, table, "v")
    return _finish_accuracies(figure, table, title)


def settings_bars(
    table: pd.DataFrame,
    *,
    title: str = "Accuracy in the test domain, by what was trained on",
    marks: Mapping[str, style.Mark] | None = None,
) -> go.Figure:
    """Draw accuracy in the test domain by setting, as `accuracy_bars`: a panel per test domain and model.

    Args:
        table: From `accuracy_kinds`, of runs; whiskers are ``sd`` over seeds.
        title, marks: Heading, and the looks of the domains.

    Raises:
        InputError: For rows of a test domain that count other held-out classes than the others.
    """
    key = ("test_domain", *MODEL, "setting", "domain")
    check_table(table, "settings", (*key, *_VALUES, "sd", "held_out_classes"), key)
    tested = table[table["domain"] == table["test_domain"]].assign(name=lambda rows: model_names(rows))
    check_like_classes(tested)
    settings = list(dict.fromkeys(tested["setting"]))
    looks = style.marks_for(tested["test_domain"], marks)
    figure, places = panels_of_models(tested, "test domain ", height=40 + 34 * len(settings), gap=100)
    for (model, domain), place in places.items():
        rows = tested[(tested["name"] == model) & (tested["test_domain"] == domain)].set_index("setting")
        _add_bars(figure, place, rows.reindex(settings), [looks[domain].colour] * len(settings), "h")
    figure.update_yaxes(
        tickvals=list(range(len(settings))), ticktext=settings, range=[len(settings) - 0.5, -0.5], showgrid=False
    )
    figure.update_xaxes(**_PERCENT)
    _add_guessing(figure, tested, "h")
    return _finish_accuracies(figure, tested, title)


def panels_of_models(
    table: pd.DataFrame, what: str, *, height: int, gap: int
) -> tuple[go.Figure, dict[tuple[str, str], dict[str, int]]]:
    """Return a figure with a panel for every model and test domain, and the place of each (``name``, ``test_domain``).

    Models are rows and test domains columns; where those are more than fit beside each other, the other way round.
    """
    domains, models = sorted(set(table["test_domain"])), list(dict.fromkeys(table["name"]))
    if len(domains) <= MOST_COLUMNS or len(models) == 1:
        keys, columns = list(product(models, domains)), min(len(domains), MOST_COLUMNS)
    else:
        keys, columns = [(m, d) for d, m in product(domains, models)], min(len(models), MOST_COLUMNS)
    titles = [f"{what}{domain}" + (f"<br>{style.faint(model)}" if model else "") for model, domain in keys]
    figure, places = style.small_multiples(
        titles, columns=columns, height=height, gap=gap, shared_yaxes=True, horizontal_spacing=0.04
    )
    return figure, dict(zip(keys, places, strict=True))


def _add_bars(
    figure: go.Figure, place: Mapping[str, int], rows: pd.DataFrame, colours: list[str], orientation: Literal["v", "h"]
) -> None:
    """Add the bars and points of one panel, a group for each row, at 0, 1, ..., and the numbers of the bars."""
    parts, told = _parts(rows), [[name] for name in rows.index]
    at, value, end = ("x", "y", "top center") if orientation == "v" else ("y", "x", "middle right")
    for i, (column, part) in enumerate(parts.items()):
        groups = [group + 0.4 * (i - (len(parts) - 1) / 2) for group in range(len(rows))]
        whiskers = {}
        if column == "held_out" and "sd" in rows and rows["sd"].notna().any():
            whiskers = {f"error_{value}": {"array": 100 * rows["sd"], "color": style.INK, "thickness": 1, "width": 3}}
        figure.add_bar(
            **{at: groups, value: 100 * rows[column]}, **whiskers, orientation=orientation, width=0.36,
            showlegend=False, name=f"{part} classes", marker=style.part_filling(part, colours), customdata=told,
            hovertemplate=f"<b>%{{customdata[0]}}</b>, {part} classes<br>%{{{value}:.1f}} %<extra></extra>", **place,
        )  # fmt: skip
        for j, (kind, (name, symbol)) in enumerate(KINDS.items() if column == "held_out" else ()):
            figure.add_scatter(
                **{at: [group + 0.1 * (j - 1) for group in groups], value: 100 * rows[kind]}, mode="markers", name=name,
                marker=_point(symbol), cliponaxis=False, showlegend=False, customdata=told,
                hovertemplate=f"<b>%{{customdata[0]}}</b>, held-out<br>{name}: %{{{value}:.1f}} %<extra></extra>",
                **place,
            )  # fmt: skip
    numbers = (
        (100 * rows[list(parts)])
        .map(lambda number: "–" if pd.isna(number) else f"{number:.0f}")
        .agg(" | ".join, axis=1)
    )
    figure.add_scatter(
        **{at: list(range(len(rows))), value: [102] * len(rows)}, mode="text", text=numbers, textposition=end,
        textfont={"size": 11, "color": style.GREY}, cliponaxis=False, hoverinfo="skip", showlegend=False, **place,
    )  # fmt: skip


def _parts(table: pd.DataFrame) -> dict[str, str]:
    """Return the columns that are bars and their parts: seen and held-out classes, or all where none is held out."""
    return {"seen": "seen", "held_out": "held-out"} if table["held_out"].notna().any() else {"all": "seen"}


def _point(symbol: str) -> dict[str, object]:
    return {"symbol": symbol, "size": 9, "color": style.INK, "line": {"color": style.INK, "width": 1.6}}


def _add_guessing(figure: go.Figure, table: pd.DataFrame, orientation: Literal["v", "h"]) -> None:
    """Add lines at what guessing reaches, among all classes and among the held-out ones alone."""
    for column, dash in _GUESSING.items():
        for chance in sorted(set(table[column].dropna().round(6))):
            line = {"color": style.INK, "dash": dash, "width": 1.2}
            add = figure.add_hline if orientation == "v" else figure.add_vline
            add(100 * chance, line=line, row="all", col="all")


def _finish_accuracies(figure: go.Figure, table: pd.DataFrame, title: str) -> go.Figure:
    """Explain bars, points and lines below the panels."""
    parts = _parts(table)
    for column, part in parts.items():
        name = "all classes" if column == "all" else f"{part} classes"
        style.add_key(figure, name, "bar", marker=style.part_filling(part, style.GREY))
    for name, symbol in (look for kind, look in KINDS.items() if table[kind].notna().any()):
        style.add_key(figure, f"held-out, {name}", mode="markers", marker=_point(symbol))
    for column, dash in _GUESSING.items():
        chances = " or ".join(f"{100 * chance:.2g} %" for chance in sorted(set(table[column].dropna().round(6))))
        name = "guessing" if column == "chance" else "guessing among held-out classes alone"
        if chances:
            line = {"color": style.INK, "dash": dash, "width": 1.2}
            style.add_key(figure, f"{name}, {chances}", mode="lines", line=line)
    style.lay_out(figure, title=title, legend=True)
    figure.update_layout(barmode="overlay", legend_itemclick=False)
    return figure


def _check_parts(table: pd.DataFrame, name: str, parts: Sequence[str]) -> None:
    if other := sorted(set(table["part"]) - set(parts)):
        *first, last = (f'"{part}"' for part in parts)
        raise InputError(f'The part of a row of the {name} table is {", ".join(first)} or {last}, not "{other[0]}".')


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
    _check_parts(summary, "mixtures", (*_PARTS, BASE))
    mixtures = list(dict.fromkeys(summary["mixture"]))
    drawn = summary[summary["part"] != BASE]
    looks = style.domain_marks(drawn["domain"])
    figure = go.Figure()
    for domain in looks:
        for part in _PARTS:
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
