"""Where a head moves information in an image, as arrows over it. No torch."""

from typing import Annotated

import numpy as np
import plotly.graph_objects as go
from jaxtyping import Num

from circuitry.encoder.tokens import TokenGrid
from circuitry.reports.figures import style
from circuitry.runs.errors import InputError
from circuitry.runs.given import FINITE

WIDEST, THINNEST = 9.0, 1.5
"""Width of arrows in pixels."""
DRAWN = 12
"""Most moves that are drawn."""


def position_moves(
    moves: Annotated[Num[np.ndarray, "..."], FINITE], image: np.ndarray, grid: TokenGrid, *, title: str, measure: str
) -> go.Figure:
    """Draw the strongest moves between the tokens of an image as arrows over it, and moves that stay as rings.

    Tokens without a place in the image, such as the class token, stand at its left.

    Args:
        moves: [to, from] by token; an edge of an image from `moves_between_positions`.
        image: The image as bytes [height, width, 3], of any size.
        grid: Where the tokens lie; `Encoder.token_grid`.
        measure: What the numbers are, with their unit.
    """
    if moves.shape != (len(grid), len(grid)):
        raise InputError(
            f"Moves go to and from each of {len(grid)} tokens, but numbers of shape {list(moves.shape)} were given."
        )
    style.check_image(image)
    places = _places(grid, *image.shape[:2])
    figure = go.Figure(go.Image(z=image, hoverinfo="skip", opacity=0.55))
    for name, (x, y) in zip(grid.first, places, strict=False):
        label = {"text": name, "textposition": "bottom center", "mode": "markers+text", "showlegend": False}
        marker = {"symbol": "square", "size": 16, "color": style.FAINT, "line": {"color": style.GREY, "width": 1}}
        figure.add_scatter(x=[x], y=[y], marker=marker, hoverinfo="skip", **label)
    top = float(np.abs(moves).max()) or 1.0
    strongest = np.argsort(-np.abs(moves), axis=None, kind="stable")[:DRAWN]
    for place in strongest[::-1].tolist():  # the strongest on top
        to, source = divmod(place, len(grid))
        if value := float(moves[to, source]):
            figure.add_trace(_move(places[source], places[to], value, abs(value) / top, measure))
    for name, colour in (("above zero", style.POSITIVE), ("below zero", style.NEGATIVE)):
        style.add_key(figure, name, mode="lines", line={"color": colour, "width": 5})
    height, width = image.shape[:2]
    left = places[0][0] * 1.8 if grid.first else -0.5
    style.lay_out(figure, title=title, subtitle=f"{measure}; strongest {len(strongest)}", height=480, legend=True)
    figure.update_xaxes(range=[left, width - 0.5], visible=False, constrain="domain")
    return figure.update_yaxes(
        range=[height - 0.5, -0.5], visible=False, constrain="domain", scaleanchor="x", automargin=False
    )


def _places(grid: TokenGrid, height: int, width: int) -> list[tuple[float, float]]:
    """Return x and y of each token in pixels of the image."""
    down, right = height / grid.height, width / grid.width
    step = height / max(len(grid.first), 1)
    first = [(-right, (i + 0.5) * step - 0.5) for i in range(len(grid.first))]
    patches = [
        ((column + 0.5) * right - 0.5, (row + 0.5) * down - 0.5)
        for row in range(grid.height)
        for column in range(grid.width)
    ]
    return [*first, *patches]


def _move(source: tuple[float, float], to: tuple[float, float], value: float, share: float, measure: str) -> go.Scatter:
    """Return an arrow, or a ring where it stays."""
    colour = style.POSITIVE if value > 0 else style.NEGATIVE
    thick = THINNEST + (WIDEST - THINNEST) * share
    told = {"hovertemplate": f"{measure} {value:.4f}<extra></extra>", "showlegend": False, "opacity": 0.9}
    if source == to:
        ring = {"symbol": "circle-open", "size": 22, "color": colour, "line": {"width": thick}}
        return go.Scatter(x=[to[0]], y=[to[1]], mode="markers", marker=ring, **told)
    size = [0, 12 + 2 * thick]
    head = {"symbol": "arrow", "size": size, "angleref": "previous", "color": colour, "line": {"width": 0}}
    line = {"color": colour, "width": thick}
    return go.Scatter(x=[source[0], to[0]], y=[source[1], to[1]], mode="lines+markers", marker=head, line=line, **told)
