"""What every figure shares: one fixed mark per domain, one layout, one check of tables."""

from collections.abc import Iterable, Mapping
from typing import NamedTuple

import plotly.graph_objects as go

from circuitry.runs.errors import InputError

INK = "#22262b"
GREY = "#7c858e"
FAINT = "#e7e9ec"
FONT = "system-ui, -apple-system, 'Segoe UI', Roboto, 'Helvetica Neue', Arial, sans-serif"


class Mark(NamedTuple):
    """How a domain looks in every figure: colour, plotly symbol, and the same symbol as a character."""

    colour: str
    symbol: str
    glyph: str


# Colours of Okabe & Ito and of Tol without those that vanish on white or pass for ink; the symbols repeat
# the distinction for grey prints and for readers who see fewer colours.
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
    """Give every domain its mark, by alphabetical order, so that one set of domains always looks the same.

    Figures of a subset keep the looks of the whole when they are given the marks of the whole.

    Raises:
        InputError: more domains than marks that can be told apart.

    Example:
        >>> marks = domain_marks(["sketch", "photo", "clipart"])
        >>> overlap_over_depth(depth.query("domain != 'clipart'"), sites, marks=marks)
    """
    names = sorted(set(domains))
    if len(names) > len(MARKS):
        raise InputError(
            f"At most {len(MARKS)} domains can be told apart in one figure, {len(names)} were given; "
            "draw fewer of them or pass your own marks."
        )
    return dict(zip(names, MARKS, strict=False))


def marks_for(domains: Iterable[str], marks: Mapping[str, Mark] | None) -> Mapping[str, Mark]:
    """The given marks, checked to cover ``domains``, or else those of ``domain_marks``."""
    names = sorted(set(domains))
    if marks is None:
        return domain_marks(names)
    if missing := [name for name in names if name not in marks]:
        raise InputError(
            f"marks has no entry for {', '.join(missing)}, only for {', '.join(marks)}; "
            "make it with domain_marks(all domains)."
        )
    return marks


def marked(domain: str, mark: Mark) -> str:
    """A tick or legend label: the coloured symbol of the domain, then its name in ink."""
    return f'<span style="color:{mark.colour}">{mark.glyph}</span> {domain}'


def faint(text: str) -> str:
    """The second line of a tick label: smaller and grey."""
    return f'<span style="color:{GREY};font-size:11px">{text}</span>'


def translucent(colour: str, opacity: float) -> str:
    """``#rrggbb`` as a CSS colour with the given opacity in 0..1."""
    red, green, blue = (int(colour[i : i + 2], 16) for i in (1, 3, 5))
    return f"rgba({red},{green},{blue},{opacity:g})"


def part_filling(part: str, colour: str | list[str]) -> dict[str, object]:
    """The marker of bars of a part: solid for seen classes, hatched for held-out ones."""
    solid = part == "seen"
    return {
        "color": colour if solid else "white",
        "line": {"color": colour, "width": 1.5},
        "pattern": {"shape": "" if solid else "/", "fgcolor": colour, "size": 6, "solidity": 0.35},
    }


def style(figure: go.Figure, *, height: int, title: str | None = None, subtitle: str | None = None) -> go.Figure:
    """Apply the common layout in place and return the figure; ``height`` in pixels, the width is free."""
    heading = {
        "text": title,
        "x": 0,
        "xref": "paper",
        "xanchor": "left",
        "font": {"size": 16},
        "subtitle": {"text": subtitle, "font": {"size": 12, "color": GREY}},
    }
    figure.update_layout(
        template="plotly_white",
        height=height,
        font={"family": FONT, "size": 13, "color": INK},
        title=heading if title else None,
        margin={"l": 70, "r": 20, "t": (80 if subtitle else 60) if title else 30, "b": 60},
        hoverlabel={"bgcolor": "white", "bordercolor": GREY, "font": {"family": FONT, "color": INK, "size": 12}},
        legend={"bgcolor": "rgba(255,255,255,0)"},
    )
    axis = {"automargin": True, "gridcolor": FAINT, "linecolor": GREY, "zeroline": False}
    figure.update_xaxes(**axis, title={"standoff": 12, "font": {"size": 13}})
    figure.update_yaxes(**axis, title={"standoff": 12, "font": {"size": 13}})
    return figure


def band(
    figure: go.Figure, x: Iterable[object], low: Iterable[float], high: Iterable[float], colour: str, name: str
) -> None:
    """Add an interval over x as a translucent area behind its line."""
    x, low, high = list(x), list(low), list(high)
    figure.add_scatter(
        name=name,
        x=[*x, *x[::-1]],
        y=[*high, *low[::-1]],
        mode="lines",
        line={"width": 0},
        fill="toself",
        fillcolor=translucent(colour, 0.13),
        hoverinfo="skip",
        showlegend=False,
    )
