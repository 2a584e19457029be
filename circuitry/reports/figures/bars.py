"""Bars of accuracies on seen and held-out classes, from tables of `accuracy_kinds`.

Images of held-out classes were left out of training, perhaps in one domain only. Bars of seen classes are solid, and
bars of held-out classes are hatched. The colour of a bar shows the domain, or the panel if there are several panels.
"""

from collections.abc import Callable, Mapping
from typing import Literal

import numpy as np
import pandas as pd
import plotly.graph_objects as go

from circuitry.comparison.table import check_table
from circuitry.reports.figures import style

KINDS = {
    "alone": ("among held-out classes alone", "diamond-open"),
    "own_style": ("texts in the images' own style", "x-thin"),
    "centred": ("scores centred within the domain", "circle-open"),
}
"""Kinds of accuracy that explain the accuracy on held-out classes: name and symbol by column of `accuracy_kinds`."""
_VALUES = ("all", "seen", "held_out", *KINDS, "chance", "chance_alone")
_GUESSING = {
    "chance": ("guessing", {"color": style.INK, "dash": "dot", "width": 1.2}),
    "chance_alone": (
        "guessing among held-out classes alone",
        {"color": style.INK, "dash": "dash", "width": 1.2},
    ),
}
"""Name and look of the lines at chance level, by column: chance among all classes, or among held-out classes alone."""
_PERCENT = {
    # Room above 100 for the numbers of the bars.
    "range": [0, 115],
    "tickvals": list(range(0, 101, 20)),
    "title_text": "accuracy, mean over classes (%)",
}


def accuracy_bars(
    table: pd.DataFrame,
    *,
    marks: Mapping[str, style.Mark] | None = None,
) -> go.Figure:
    """Draw the accuracy of every domain as bars: one bar for seen classes, and one for held-out classes.

    Points on the bars of held-out classes show three more accuracies on these classes (`KINDS`): if only held-out
    classes compete, with class texts in the style of the images, and after the scores of each class were centred within
    the domain. If no class is held out, there is one bar for all classes.

    Args:
        table: Table from `accuracy_kinds`, with one row for each domain.

    Example:
        >>> columns = ["all", "seen", "held_out", "alone", "own_style", "centred", "chance", "chance_alone"]
        >>> table = pd.DataFrame(0.5, index=range(2), columns=columns).assign(domain=["real", "sketch"])
        >>> accuracy_bars(table).layout.title.text
        'Accuracy by domain'
    """
    check_table(table, "accuracy", ("domain", *_VALUES), key=("domain",))
    looks = style.marks_for(table["domain"], marks)
    figure, (place,) = style.small_multiples([""], columns=1, height=330)
    colours = [looks[domain].colour for domain in table["domain"]]
    _add_bars(figure, place, table.set_index("domain"), colours, "v")
    ticks = [style.marked(domain, looks[domain]) for domain in table["domain"]]
    figure.update_xaxes(
        tickvals=list(range(len(table))),
        ticktext=ticks,
        title_text="domain",
        showgrid=False,
    )
    figure.update_yaxes(**_PERCENT)
    title = "Accuracy by domain"
    return _finish_accuracies(figure, table, title, figure.add_hline)


def accuracy_panels(
    panels: Mapping[str, pd.DataFrame],
    colours: Mapping[str, str],
    *,
    title: str,
    columns: int = 3,
) -> go.Figure:
    """Draw accuracies as `accuracy_bars` does, but in several panels, for example to compare models.

    Args:
        panels: Tables of `accuracy_kinds` by the title of their panel. Each row becomes a group of bars. The index has
            the names of the rows, and is the same in all tables. Values in the column ``sd`` (standard deviations over
            seeds) are drawn as error bars of held-out classes.
        colours: The colour of each panel, by its title.
        columns: Largest number of panels in a row.

    Example:
        >>> columns = ["all", "seen", "held_out", "alone", "own_style", "centred", "chance", "chance_alone"]
        >>> rows = pd.DataFrame(0.5, index=["rn-tiny", "vit-tiny"], columns=columns)
        >>> accuracy_panels({"sketch": rows}, {"sketch": "#0072B2"}, title="Two models").layout.title.text
        'Two models'
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
    # Downwards, so that the first row of the table is on top.
    figure.update_yaxes(
        tickvals=list(range(len(names))),
        ticktext=names,
        range=[len(names) - 0.5, -0.5],
        showgrid=False,
    )
    figure.update_xaxes(**_PERCENT)
    return _finish_accuracies(figure, table, title, figure.add_vline)


def _add_bars(
    figure: go.Figure,
    place: Mapping[str, int],
    rows: pd.DataFrame,
    colours: list[str],
    orientation: Literal["v", "h"],
) -> None:
    """Add the bars and points of one panel, and the values of the bars as text.

    Each row of the table becomes a group of bars. The groups stand at 0, 1, 2, ... on the axis.

    Args:
        figure: The figure, which has the panel already.
        place: The row and the column of the panel, as options for ``add_trace``.
        rows: The table, with a row for each group of bars.
        colours: The colour of each group.
        orientation: ``v`` for vertical bars, ``h`` for horizontal bars.
    """
    # Names of plotly's options along the groups and along the values, and where the numbers of the bars stand.
    at = "x"
    value = "y"
    end = "top center"
    if orientation == "h":
        at = "y"
        value = "x"
        end = "middle right"
    percent = 100 * rows.select_dtypes("number")
    options = {"customdata": [[name] for name in rows.index], **place}
    groups = np.arange(len(rows))
    bars = _bars(rows)

    def add_points(column: str, places: np.ndarray) -> None:
        name, symbol = KINDS[column]
        hover = f"<b>%{{customdata[0]}}</b>, held-out<br>{name}: %{{{value}:.1f}} %<extra></extra>"
        figure.add_scatter(
            **{at: places, value: percent[column]}, mode="markers", name=name, marker=_point(symbol),
            cliponaxis=False, showlegend=False, hovertemplate=hover, **options,
        )  # fmt: skip

    for i, (column, classes) in enumerate(bars.items()):
        # Bars of a group lie beside each other, centred on its tick.
        places = groups + 0.4 * (i - (len(bars) - 1) / 2)
        # Only bars of held-out classes have whiskers. These bars are the result; more whiskers would be crowded.
        whiskers = {}
        if column == "held_out" and "sd" in rows and rows["sd"].notna().any():
            whiskers = {"array": percent["sd"], "color": style.INK, "thickness": 1, "width": 3}  # fmt: skip
        name = f"{classes} classes"
        hover = (
            f"<b>%{{customdata[0]}}</b>, {name}<br>%{{{value}:.1f}} %<extra></extra>"
        )
        figure.add_bar(
            **{at: places, value: percent[column], f"error_{value}": whiskers}, orientation=orientation, width=0.36,
            showlegend=False, name=name, marker=style.group_filling(classes, colours), hovertemplate=hover, **options,
        )  # fmt: skip
        if column == "held_out":
            for j, kind in enumerate(KINDS):
                add_points(kind, places + 0.1 * (j - 1))
    numbers = percent[list(bars)].map("{:.0f}".format).replace("nan", "–")
    figure.add_scatter(
        **{at: groups, value: [102] * len(rows)}, mode="text", text=numbers.agg(" | ".join, axis=1), textposition=end,
        textfont={"size": 11, "color": style.GREY}, cliponaxis=False, hoverinfo="skip", showlegend=False, **place,
    )  # fmt: skip


def _bars(table: pd.DataFrame) -> dict[str, str]:
    """Return a dictionary from each column that is drawn as bars to a word for its classes: seen or held-out.

    If no class is held out, all classes were seen, and there is one bar for all classes.
    """
    if table["held_out"].notna().any():
        return {"seen": "seen", "held_out": "held-out"}
    return {"all": "seen"}


def _point(symbol: str) -> dict[str, object]:
    line = {"color": style.INK, "width": 1.6}
    return {"symbol": symbol, "size": 9, "color": style.INK, "line": line}


def _finish_accuracies(
    figure: go.Figure, table: pd.DataFrame, title: str, add_line: Callable[..., object]
) -> go.Figure:
    """Add lines at chance level, a legend below the panels, and the common layout to a figure of accuracies.

    Args:
        add_line: Method of the figure that draws a line across all panels: ``add_hline`` or ``add_vline``.
    """
    for column, classes in _bars(table).items():
        name = "all classes" if column == "all" else f"{classes} classes"
        style.add_key(
            figure, name, "bar", marker=style.group_filling(classes, style.GREY)
        )
    for column, (name, symbol) in KINDS.items():
        if table[column].notna().any():
            name = f"held-out, {name}"
            style.add_key(figure, name, mode="markers", marker=_point(symbol))
    for column, (name, line) in _GUESSING.items():
        chances = sorted(set(table[column].dropna().round(6)))
        # Domains with unequal numbers of classes have unequal chance levels, and so several lines.
        for chance in chances:
            add_line(100 * chance, line=line, row="all", col="all")
        if chances:
            said = " or ".join(f"{100 * chance:.2g} %" for chance in chances)
            style.add_key(figure, f"{name}, {said}", mode="lines", line=line)
    style.lay_out(figure, title=title, legend=True)
    return figure.update_layout(barmode="overlay", legend_itemclick=False)
