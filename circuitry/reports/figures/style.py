"""Parts of every figure: a fixed mark per domain, names of measures, the layout, panels, legends, checks of tables."""

from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple, TypeVar

import numpy as np
import pandas as pd
import plotly.graph_objects as go
from plotly.subplots import make_subplots
from scipy.optimize import isotonic_regression

from circuitry.runs.errors import InputError, unknown_name

INK = "#22262b"
GREY = "#7c858e"
FAINT = "#e7e9ec"
NEGATIVE, NEUTRAL, POSITIVE = (
    "#eb9a6c",
    "#f7f9fb",
    "#5fabd9",
)  # ink stays readable on all of them
_Look = TypeVar("_Look")
FONT = (
    "system-ui, -apple-system, 'Segoe UI', Roboto, 'Helvetica Neue', Arial, sans-serif"
)


class Mark(NamedTuple):
    """How a domain looks in every figure: colour, plotly symbol, and the same symbol as a character."""

    colour: str  #: As CSS reads it.
    symbol: str  #: Name of plotly's marker.
    glyph: str  #: The symbol as a character, for texts.

    def marker(self, size: int, **more: object) -> dict[str, object]:
        """Return it as plotly's marker of points."""
        return {"symbol": self.symbol, "color": self.colour, "size": size, **more}

    def line(self, rows: pd.DataFrame) -> dict[str, object]:
        """Return it as the options of a line with points and, from ``low`` to ``high`` of the rows, `whiskers`."""
        return {
            "mode": "lines+markers",
            "line": {"color": self.colour, "width": 2.2},
            "marker": self.marker(9, line={"color": "white", "width": 1}),
            "error_y": whiskers(rows, self.colour),
        }


# Colours of Okabe & Ito and of Tol that differ from white and from ink. Symbols repeat the distinction for grey
# prints and for readers who see fewer colours.
MARKS = (
    Mark("#0072B2", "circle", "●"),
    Mark("#D55E00", "square", "■"),
    Mark("#009E73", "diamond", "◆"),
    Mark("#CC79A7", "triangle-up", "▲"),
    Mark("#E69F00", "triangle-down", "▼"),
    Mark("#56B4E9", "star", "★"),
    Mark("#882255", "circle-open", "○"),
    Mark("#999933", "square-open", "□"),
    Mark("#332288", "diamond-open", "◇"),
    Mark("#8C6D4F", "triangle-up-open", "△"),
)


METHODS_DRAWN = (
    *("iterative-fisher", "fisher", "learned", "gradient", "patching", "conductance"),
    *("exact", "site-path"),
)
"""Names of methods in figures, in the order of their looks; ``exact`` is of edges. Two marks are left for others."""


def method_marks(methods: Iterable[str]) -> dict[str, Mark]:
    """Return a mark for every method, by its name: it looks the same in every figure, whatever is drawn beside it.

    A method that figures do not know takes, by alphabetical order, a mark that is left.

    Example:
        >>> method_marks(["gradient", "learned"])["gradient"] == method_marks(["gradient"])["gradient"]
        True
    """
    names, fixed = sorted(set(methods)), assign_looks(METHODS_DRAWN, MARKS, "methods")
    found = {name: fixed[name] for name in names if name in fixed}
    free = [
        mark
        for mark in (*MARKS[len(fixed) :], *MARKS[: len(fixed)])
        if mark not in found.values()
    ]
    return found | assign_looks(
        (name for name in names if name not in fixed), free, "methods"
    )


def domain_marks(domains: Iterable[str]) -> dict[str, Mark]:
    """Return a mark for every domain, by alphabetical order, so that one set of domains always looks the same.

    Figures of a subset keep the looks of the whole when they are given the marks of the whole.

    Example:
        >>> marks = domain_marks(["sketch", "photo", "clipart"])
        >>> overlap_over_depth(depth.query("domain != 'clipart'"), sites, marks=marks)
    """
    return assign_looks(sorted(set(domains)), MARKS, "domains")


def assign_looks(
    names: Iterable[str], looks: Sequence[_Look], what: str
) -> dict[str, _Look]:
    """Return a look for every name, in order; refuse more names (``what`` they are) than looks."""
    known = list(dict.fromkeys(names))
    if len(known) > len(looks):
        raise InputError(
            f"A figure shows at most {len(looks)} {what}, but {len(known)} were given; draw fewer."
        )
    return dict(zip(known, looks, strict=False))


def marks_for(
    domains: Iterable[str], marks: Mapping[str, Mark] | None
) -> Mapping[str, Mark]:
    """Return the given marks, checked to cover ``domains``, or else the marks of `domain_marks`."""
    names = sorted(set(domains))
    if marks is None:
        return domain_marks(names)
    if missing := [name for name in names if name not in marks]:
        raise unknown_name("mark (see domain_marks) of", missing[0], marks)
    return marks


def marked(domain: str, mark: Mark) -> str:
    """Return a tick or legend label: the coloured symbol of the domain, then its name in ink."""
    return f'<span style="color:{mark.colour}">{mark.glyph}</span> {domain}'


def faint(text: str) -> str:
    """Return the second line of a tick label: smaller and grey."""
    return f'<span style="color:{GREY};font-size:11px">{text}</span>'


def part_filling(part: str, colour: str | list[str]) -> dict[str, object]:
    """Return the marker of bars of a part: solid for seen classes, hatched for held-out ones."""
    solid = part == "seen"
    return {
        "color": colour if solid else "white",
        "line": {"color": colour, "width": 1.5},
        "pattern": {
            "shape": "" if solid else "/",
            "fgcolor": colour,
            "size": 6,
            "solidity": 0.35,
        },
    }


def whiskers(rows: pd.DataFrame, colour: str) -> dict[str, object]:
    """Return the error bar from ``low`` to ``high`` around ``value``; none where they are NaN."""
    above, below = rows["high"] - rows["value"], rows["value"] - rows["low"]
    return {
        "type": "data",
        "array": above,
        "arrayminus": below,
        "color": colour,
        "thickness": 1.3,
        "width": 0,
    }


def interval_note(rows: pd.DataFrame) -> str | None:
    """Return what the whiskers are, where there is any."""
    return (
        "bars: 95 % intervals" if rows[["low", "high"]].notna().any(axis=None) else None
    )


def need_values(
    table: pd.DataFrame, name: str, column: str, wanted: Iterable[str]
) -> None:
    """Refuse a table that lacks a value to be drawn, and name the values that it has."""
    there = list(dict.fromkeys(map(str, table[column])))
    if absent := [value for value in wanted if value not in there]:
        raise unknown_name(f"{column} in the {name} table", absent[0], there)


def small_multiples(
    titles: Sequence[str], *, columns: int, height: int, gap: int = 0, **options: object
) -> tuple[go.Figure, list[dict[str, int]]]:
    """Return a figure with an empty panel per title, row by row, and each one's row and column for ``add_trace``.

    A panel is ``height`` pixels high, with ``gap`` pixels between rows, for ticks and titles (``<br>`` between lines);
    ``options`` are those of plotly's ``make_subplots``.
    """
    wide = min(columns, len(titles))
    rows = -(-len(titles) // wide)
    drawn = rows * height + (rows - 1) * gap
    spacing = (
        gap / drawn if rows > 1 else 0
    )  # of one row the gap may be more than its height
    figure = make_subplots(
        rows, wide, subplot_titles=titles, vertical_spacing=spacing, **options
    )
    figure.update_annotations(font_size=13)
    lines = max(1 + title.count("<br>") for title in titles) if any(titles) else 0
    figure.update_layout(height=drawn, margin_t=20 * lines)
    return figure, [
        {"row": i // wide + 1, "col": i % wide + 1} for i in range(len(titles))
    ]


def apart(values: Sequence[float], gap: float) -> list[float]:
    """Return ascending values moved as little as possible (least squares) until neighbours are ``gap`` apart.

    Subtracting ``i * gap`` turns the task into isotonic regression.
    """
    if not values:
        return []
    steps = gap * np.arange(len(values))
    places: list[float] = (
        isotonic_regression(np.array(values) - steps).x + steps
    ).tolist()
    return places


def add_points(
    figure: go.Figure,
    rows: pd.DataFrame,
    x: str,
    y: str,
    more: Sequence[str],
    hover: str,
    **looks: object,
) -> None:
    """Add the rows of a table as points, without an entry of the legend unless ``looks`` say so.

    ``x`` and ``y`` are columns, ``more`` further columns that the text ``hover`` names as ``customdata``, ``looks``
    options of plotly's ``add_scatter``, such as the row and column of a panel.
    """
    options = {"mode": "markers", "showlegend": False} | looks
    custom = rows[list(more)] if more else None
    figure.add_scatter(
        x=rows[x],
        y=rows[y],
        customdata=custom,
        hovertemplate=f"{hover}<extra></extra>",
        **options,
    )


def add_key(
    figure: go.Figure, name: str, kind: str = "scatter", **looks: object
) -> None:
    """Add an entry of the legend without data, where no trace shows alone what the entry explains."""
    figure.add_trace(
        {
            "type": kind,
            "name": name,
            "x": [None],
            "y": [None],
            "showlegend": True,
            **looks,
        }
    )


def lay_out(
    figure: go.Figure,
    *,
    title: str,
    height: int | None = None,
    subtitle: str | None = None,
    legend: bool = False,
) -> go.Figure:
    """Apply the common layout in place, with the legend, if any, below the axes, and return the figure.

    The width is free; the height (in pixels) is by default that of `small_multiples` with room for what surrounds them.
    """
    top = (74 if subtitle else 52) + (figure.layout.margin.t or 0)
    bottom = 90 if legend else 60
    at_the_top = {"y": 1, "yref": "container", "yanchor": "top", "pad": {"t": 14}}
    heading = {
        "text": title,
        "x": 0,
        "xref": "paper",
        "xanchor": "left",
        "font": {"size": 16},
        **at_the_top,
    }
    below = {
        "orientation": "h",
        "x": 0,
        "y": 0,
        "yref": "container",
        "yanchor": "bottom",
        "traceorder": "normal",
    }
    figure.update_layout(
        template="plotly_white",
        height=height or figure.layout.height + top + bottom,
        font={"family": FONT, "size": 13, "color": INK},
        title=heading
        | {"subtitle": {"text": subtitle, "font": {"size": 12, "color": GREY}}},
        margin={"l": 70, "r": 20, "t": top, "b": bottom},
        hoverlabel={
            "bgcolor": "white",
            "bordercolor": GREY,
            "font": {"family": FONT, "color": INK, "size": 12},
        },
        hovermode="closest",
        showlegend=legend,
        legend={"bgcolor": "rgba(255,255,255,0)", "itemsizing": "trace", **below},
    )
    axis = {
        "automargin": True,
        "gridcolor": FAINT,
        "linecolor": GREY,
        "zeroline": False,
    }
    figure.update_xaxes(**axis, title={"standoff": 12, "font": {"size": 13}})
    figure.update_yaxes(
        **axis, title={"standoff": 12, "font": {"size": 13}}, ticklabelstandoff=4
    )
    return figure


def capitalised(text: str) -> str:
    """Return the text with a large first letter, as headings have it."""
    return text[:1].upper() + text[1:]


MEASURE_NAMES = {
    "edge_jaccard": "edge Jaccard index",
    "wl_kernel": "Weisfeiler-Lehman kernel, depth 1",
    "spearman": "Spearman's correlation of scores",
    "cosine": "cosine of scores",
    "edge_spearman": "Spearman's correlation of edge scores",
    "cka_linear": "CKA, linear kernel",
    "cka_rbf": "CKA, rbf kernel",
}
"""Names of measures in figures and sentences; other measures are named as their files, with spaces."""


def measure_name(measure: str) -> str:
    """Return the name of a measure in figures and sentences."""
    of_depth = measure.replace("wl_kernel_depth_", "Weisfeiler-Lehman kernel, depth ")
    return MEASURE_NAMES.get(measure, of_depth.replace("_", " "))
