"""What all figures share: marks of domains, names of measures, layout, panels, legends, and checks of tables."""

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple, TypeVar

import numpy as np
import pandas as pd
import plotly.graph_objects as go
from plotly.subplots import make_subplots
from scipy.optimize import isotonic_regression

from circuitry.runs.errors import InputError, unknown_name

# INK is for text and lines, GREY for references, FAINT for grids.
INK = "#22262b"
GREY = "#7c858e"
FAINT = "#e7e9ec"
# Text in ink is readable on these three colours.
NEGATIVE = "#eb9a6c"
NEUTRAL = "#f7f9fb"
POSITIVE = "#5fabd9"
_Look = TypeVar("_Look")
FONT = (
    "system-ui, -apple-system, 'Segoe UI', Roboto, 'Helvetica Neue', Arial, sans-serif"
)


class Mark(NamedTuple):
    """How a domain looks in every figure: colour, plotly symbol, and the same symbol as a character.

    Example:
        >>> from circuitry.reports.figures import Mark
        >>> Mark("#0072B2", "circle", "●").marker(9)
        {'symbol': 'circle', 'color': '#0072B2', 'size': 9}
    """

    colour: str  #: Colour in the notation of CSS.
    symbol: str  #: Name of the symbol in plotly.
    glyph: str  #: The symbol as a character, for use in text.

    def marker(self, size: int, **more: object) -> dict[str, object]:
        """Return plotly's marker options for points in the look of this mark. ``more`` are further options."""
        return {"symbol": self.symbol, "color": self.colour, "size": size, **more}

    def line(self, rows: pd.DataFrame) -> dict[str, object]:
        """Return plotly's options for a line with points in the look of this mark.

        The line has error bars from the columns ``low`` to ``high`` of the rows; see `whiskers`.
        """
        return {
            "mode": "lines+markers",
            "line": {"color": self.colour, "width": 2.2},
            "marker": self.marker(9, line={"color": "white", "width": 1}),
            "error_y": whiskers(rows, self.colour),
        }


# Colours of Okabe & Ito and of Tol that differ from white and from ink. Each colour has a symbol of its own, so that
# grey prints, and readers who see fewer colours, also distinguish the domains.
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


def domain_marks(domains: Iterable[str]) -> dict[str, Mark]:
    """Return a mark (colour and symbol) for every domain.

    Marks are assigned to the domains in alphabetical order, so the same set of domains always has the same marks. To
    draw only some of the domains with the same marks, compute the marks of all domains, and give them to the figure.

    Example:
        >>> domain_marks(["sketch", "real"])["real"].symbol
        'circle'
    """
    return assign_looks(sorted(set(domains)), MARKS, "domains")


def assign_looks(
    names: Iterable[str], looks: Sequence[_Look], what: str
) -> dict[str, _Look]:
    """Return a dictionary from each distinct name to one of the looks, in the order of the names.

    Args:
        names: Names of the things to draw, such as domains or lines.
        looks: How the things can be drawn, such as marks or colours.
        what: What the names are, in the plural, for the error message.

    Raises:
        InputError: if there are more names than looks.
    """
    distinct = list(dict.fromkeys(names))
    if len(distinct) > len(looks):
        raise InputError(
            f"A figure shows at most {len(looks)} {what}, but {len(distinct)} were given; draw fewer."
        )
    # There may be more looks than names.
    return dict(zip(distinct, looks, strict=False))


def marks_for(
    domains: Iterable[str], marks: Mapping[str, Mark] | None
) -> Mapping[str, Mark]:
    """Return the given marks, or `domain_marks` of the domains if ``marks`` is None.

    Raises:
        InputError: if the given marks lack a domain.
    """
    names = sorted(set(domains))
    if marks is None:
        return domain_marks(names)
    if missing := [name for name in names if name not in marks]:
        raise unknown_name("mark (see domain_marks) of", missing[0], marks)
    return marks


def marked(domain: str, mark: Mark) -> str:
    """Return the label of a domain for a tick or a legend: its symbol in colour, and then its name."""
    return f'<span style="color:{mark.colour}">{mark.glyph}</span> {domain}'


def faint(text: str) -> str:
    """Return text in small grey letters, for the second line of a label."""
    return f'<span style="color:{GREY};font-size:11px">{text}</span>'


def group_filling(group: str, colour: str | list[str]) -> dict[str, object]:
    """Return the plotly marker of bars: solid for seen classes, hatched for held-out classes.

    Args:
        group: ``seen`` for seen classes. Every other word means held-out classes.
        colour: One colour, or the colour of each bar.
    """
    pattern = {"shape": "/", "fgcolor": colour, "size": 6, "solidity": 0.35}
    filling = {"color": "white", "pattern": pattern}
    if group == "seen":
        filling = {"color": colour}
    return {"line": {"color": colour, "width": 1.5}, **filling}


def whiskers(rows: pd.DataFrame, colour: str) -> dict[str, object]:
    """Return plotly's options for error bars that reach from ``low`` to ``high`` around ``value``.

    A row with unknown bounds has no error bar.
    """
    return {
        "type": "data",
        "array": rows["high"] - rows["value"],
        "arrayminus": rows["value"] - rows["low"],
        "color": colour,
        "thickness": 1.3,
        "width": 0,
    }


def interval_note(rows: pd.DataFrame) -> str | None:
    """Return the note that explains the error bars; None if no row has a known bound."""
    known = rows[["low", "high"]].notna().any(axis=None)
    return "bars: 95 % intervals" if known else None


def need_values(
    table: pd.DataFrame, name: str, column: str, wanted: Iterable[str]
) -> None:
    """Raise `InputError` if a wanted value does not occur in a column. The message lists the values of the column.

    Args:
        name: Name of the table in the message.
        wanted: The values that must occur.
    """
    values = list(dict.fromkeys(map(str, table[column])))
    if absent := [value for value in wanted if value not in values]:
        raise unknown_name(f"{column} in the {name} table", absent[0], values)


def small_multiples(
    titles: Sequence[str], *, columns: int, height: int, gap: int = 0, **options: object
) -> tuple[go.Figure, list[dict[str, int]]]:
    """Return a figure with an empty panel for each title.

    Args:
        titles: Titles of the panels, row by row; ``<br>`` separates lines.
        columns: Largest number of panels in a row.
        height: Height of a panel in pixels.
        gap: Pixels between two rows, for ticks and titles.
        options: Further options of plotly's ``make_subplots``.

    Returns:
        The figure, and the row and column of each panel as options for ``add_trace``.
    """
    wide = min(columns, len(titles))
    rows = math.ceil(len(titles) / wide)
    drawn = rows * height + (rows - 1) * gap
    # plotly refuses a gap of one row, which may be more than its height.
    spacing = gap / drawn if rows > 1 else 0
    figure = make_subplots(
        rows, wide, subplot_titles=titles, vertical_spacing=spacing, **options
    )
    figure.update_annotations(font_size=13)
    # Room above the first row for the title with the most lines.
    lines = 0
    if any(titles):
        lines = 1 + max(title.count("<br>") for title in titles)
    figure.update_layout(height=drawn, margin_t=20 * lines)
    # plotly counts rows and columns from 1.
    places = []
    for i in range(len(titles)):
        row, column = divmod(i, wide)
        places.append({"row": row + 1, "col": column + 1})
    return figure, places


def apart(values: Sequence[float], gap: float) -> list[float]:
    """Move values so that neighbours are at least ``gap`` apart, and return the moved values.

    The sum of the squared distances by which values are moved is as small as possible.

    Args:
        values: Values in ascending order.
        gap: Smallest distance between two neighbours.
    """
    if not values:
        return []
    # After subtracting i * gap from value i, the values must not decrease: this is isotonic regression.
    steps = gap * np.arange(len(values))
    fitted = isotonic_regression(np.array(values) - steps)
    return list((fitted.x + steps).tolist())


def add_points(
    figure: go.Figure,
    rows: pd.DataFrame,
    x: str,
    y: str,
    more: Sequence[str],
    hover: str,
    **looks: object,
) -> None:
    """Add the rows of a table to a figure as points. By default the points have no entry in the legend.

    Args:
        x: Column with the horizontal places.
        y: Column with the vertical places.
        more: Further columns. The hover text can show them as ``customdata``.
        hover: Hover text of a point, as a plotly template.
        looks: Options of plotly's ``add_scatter``, such as the row and column of a panel.
    """
    options = {"mode": "markers", "showlegend": False} | looks
    if more:
        options["customdata"] = rows[list(more)]
    # Otherwise plotly adds the name of the trace.
    hover = f"{hover}<extra></extra>"
    figure.add_scatter(x=rows[x], y=rows[y], hovertemplate=hover, **options)


def add_key(
    figure: go.Figure, name: str, kind: str = "scatter", **looks: object
) -> None:
    """Add an entry to the legend that does not belong to a single trace of the figure.

    Args:
        name: Text of the entry.
        kind: Type of the plotly trace whose symbol the entry shows.
        looks: Options of this trace.
    """
    # plotly makes legend entries only for traces. This trace has a single empty point, so it shows nothing.
    entry = {"type": kind, "name": name, "x": [None], "y": [None], "showlegend": True}
    figure.add_trace({**entry, **looks})


def lay_out(
    figure: go.Figure,
    *,
    title: str,
    height: int | None = None,
    subtitle: str | None = None,
    legend: bool = False,
) -> go.Figure:
    """Apply the common layout to a figure in place, and return the figure. The width adapts to the page.

    Args:
        height: Height of the figure in pixels. By default, room for the heading and the legend is added to the height
            of the panels, which `small_multiples` has set.
        subtitle: Second line of the heading.
        legend: Whether to show a legend below the axes.
    """
    # Pixels for the heading and its second line, and for the legend below the axes.
    top = (74 if subtitle else 52) + (figure.layout.margin.t or 0)
    bottom = 90 if legend else 60
    heading = {
        "text": title,
        "subtitle": {"text": subtitle, "font": {"size": 12, "color": GREY}},
        "font": {"size": 16},
        "x": 0,
        "xref": "paper",
        "xanchor": "left",
        "y": 1,
        "yref": "container",
        "yanchor": "top",
        "pad": {"t": 14},
    }
    figure.update_layout(
        template="plotly_white",
        height=height or figure.layout.height + top + bottom,
        font={"family": FONT, "size": 13, "color": INK},
        title=heading,
        margin={"l": 70, "r": 20, "t": top, "b": bottom},
        hoverlabel={
            "bgcolor": "white",
            "bordercolor": GREY,
            "font": {"family": FONT, "color": INK, "size": 12},
        },
        hovermode="closest",
        showlegend=legend,
        legend={
            "bgcolor": "rgba(255,255,255,0)",
            "itemsizing": "trace",
            "orientation": "h",
            "x": 0,
            "y": 0,
            "yref": "container",
            "yanchor": "bottom",
            "traceorder": "normal",
        },
    )
    axis = {
        "automargin": True,
        "gridcolor": FAINT,
        "linecolor": GREY,
        "zeroline": False,
        "title": {"standoff": 12, "font": {"size": 13}},
    }
    figure.update_xaxes(**axis)
    return figure.update_yaxes(**axis, ticklabelstandoff=4)


def capitalised(text: str) -> str:
    """Return the text with a capital first letter, as headings have it."""
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
"""Names of measures in figures and sentences. Other measures keep their name, with spaces for underscores."""


def measure_name(measure: str) -> str:
    """Return the name of a measure in figures and sentences.

    Example:
        >>> measure_name("edge_jaccard")
        'edge Jaccard index'
    """
    of_depth = measure.replace("wl_kernel_depth_", "Weisfeiler-Lehman kernel, depth ")
    return MEASURE_NAMES.get(measure, of_depth.replace("_", " "))
