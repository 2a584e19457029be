"""Bars of accuracies on seen and held-out classes, from finished tables of `accuracy_kinds`.

Everywhere the colour is the domain's; seen classes are solid, held-out ones hatched.
"""

from collections.abc import Mapping
from typing import Literal

import pandas as pd
import plotly.graph_objects as go

from circuitry.comparison.table import check_table
from circuitry.reports.figures import style

KINDS = {
    "alone": ("among held-out classes alone", "diamond-open"),
    "own_style": ("texts in the images' own style", "x-thin"),
    "centred": ("scores centred within the domain", "circle-open"),
}
"""Columns of `accuracy_kinds` that explain accuracy on held-out classes: the name of each and its symbol."""
_VALUES = ("all", "seen", "held_out", *KINDS, "chance", "chance_alone")
_GUESSING = {
    column: {"color": style.INK, "dash": dash, "width": 1.2}
    for column, dash in (("chance", "dot"), ("chance_alone", "dash"))
}
"""How the lines of guessing look, among all classes and among the held-out ones alone."""
_PERCENT = {
    "range": [0, 115],
    "tickvals": list(range(0, 101, 20)),
    "title_text": "accuracy, mean over classes (%)",
}


def accuracy_bars(
    table: pd.DataFrame,
    *,
    title: str = "Accuracy by domain",
    marks: Mapping[str, style.Mark] | None = None,
) -> go.Figure:
    """Draw the accuracy of every domain: bars of seen and held-out classes, and `KINDS` as points over the latter.

    Args:
        table: From `accuracy_kinds`, a row per domain.
    """
    check_table(table, "accuracy", ("domain", *_VALUES), key=("domain",))
    domains = list(table["domain"])
    looks = style.marks_for(domains, marks)
    figure, (place,) = style.small_multiples([""], columns=1, height=330)
    _add_bars(
        figure,
        place,
        table.set_index("domain"),
        [looks[domain].colour for domain in domains],
        "v",
    )
    ticks = [style.marked(domain, looks[domain]) for domain in domains]
    figure.update_xaxes(
        tickvals=list(range(len(domains))),
        ticktext=ticks,
        title_text="domain",
        showgrid=False,
    )
    figure.update_yaxes(**_PERCENT)
    _add_guessing(figure, table, "v")
    return _finish_accuracies(figure, table, title)


def accuracy_panels(
    panels: Mapping[str, pd.DataFrame],
    colours: Mapping[str, str],
    *,
    title: str,
    columns: int = 3,
) -> go.Figure:
    """Draw accuracies as `accuracy_bars`, of several models: a panel for each title, a group of bars for each row.

    Args:
        panels: Title -> rows of `accuracy_kinds` by the name of each row; all panels have the same names. Whiskers are
            ``sd``.
    """
    table = pd.concat(panels.values())
    check_table(table, "accuracy", _VALUES, key=())
    names = list(next(iter(panels.values())).index)
    figure, places = style.small_multiples(
        list(panels),
        columns=columns,
        height=40 + 34 * len(names),
        gap=100,
        shared_yaxes=True,
        horizontal_spacing=0.04,
    )
    for (panel, rows), place in zip(panels.items(), places, strict=True):
        _add_bars(figure, place, rows, [colours[panel]] * len(names), "h")
    figure.update_yaxes(
        tickvals=list(range(len(names))),
        ticktext=names,
        range=[len(names) - 0.5, -0.5],
        showgrid=False,
    )
    figure.update_xaxes(**_PERCENT)
    _add_guessing(figure, table, "h")
    return _finish_accuracies(figure, table, title)


def _add_bars(
    figure: go.Figure,
    place: Mapping[str, int],
    rows: pd.DataFrame,
    colours: list[str],
    orientation: Literal["v", "h"],
) -> None:
    """Add the bars and points of one panel, a group for each row, at 0, 1, ..., and the numbers of the bars."""
    parts, told = _parts(rows), [[name] for name in rows.index]
    at, value, end = (
        ("x", "y", "top center") if orientation == "v" else ("y", "x", "middle right")
    )
    for i, (column, part) in enumerate(parts.items()):
        groups = [
            group + 0.4 * (i - (len(parts) - 1) / 2) for group in range(len(rows))
        ]
        whiskers = {}
        if column == "held_out" and "sd" in rows and rows["sd"].notna().any():
            whiskers = {
                f"error_{value}": {
                    "array": 100 * rows["sd"],
                    "color": style.INK,
                    "thickness": 1,
                    "width": 3,
                }
            }
        figure.add_bar(
            **{at: groups, value: 100 * rows[column]}, **whiskers, orientation=orientation, width=0.36,
            showlegend=False, name=f"{part} classes", marker=style.part_filling(part, colours), customdata=told,
            hovertemplate=f"<b>%{{customdata[0]}}</b>, {part} classes<br>%{{{value}:.1f}} %<extra></extra>", **place,
        )  # fmt: skip
        for j, (kind, (name, symbol)) in enumerate(
            KINDS.items() if column == "held_out" else ()
        ):
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
    return (
        {"seen": "seen", "held_out": "held-out"}
        if table["held_out"].notna().any()
        else {"all": "seen"}
    )


def _point(symbol: str) -> dict[str, object]:
    return {
        "symbol": symbol,
        "size": 9,
        "color": style.INK,
        "line": {"color": style.INK, "width": 1.6},
    }


def _add_guessing(
    figure: go.Figure, table: pd.DataFrame, orientation: Literal["v", "h"]
) -> None:
    """Add lines at what guessing reaches, among all classes and among the held-out ones alone."""
    add = figure.add_hline if orientation == "v" else figure.add_vline
    for column, line in _GUESSING.items():
        for chance in sorted(set(table[column].dropna().round(6))):
            add(100 * chance, line=line, row="all", col="all")


def _finish_accuracies(figure: go.Figure, table: pd.DataFrame, title: str) -> go.Figure:
    """Explain bars, points and lines below the panels."""
    parts = _parts(table)
    for column, part in parts.items():
        name = "all classes" if column == "all" else f"{part} classes"
        style.add_key(figure, name, "bar", marker=style.part_filling(part, style.GREY))
    for name, symbol in (
        look for kind, look in KINDS.items() if table[kind].notna().any()
    ):
        style.add_key(
            figure, f"held-out, {name}", mode="markers", marker=_point(symbol)
        )
    for column, line in _GUESSING.items():
        chances = " or ".join(
            f"{100 * chance:.2g} %"
            for chance in sorted(set(table[column].dropna().round(6)))
        )
        name = (
            "guessing"
            if column == "chance"
            else "guessing among held-out classes alone"
        )
        if chances:
            style.add_key(figure, f"{name}, {chances}", mode="lines", line=line)
    style.lay_out(figure, title=title, legend=True)
    figure.update_layout(barmode="overlay", legend_itemclick=False)
    return figure
