"""Charts over images: effects by position, moves between positions, pixel attributions; and sheets of images.

Drawing computes nothing.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated

import numpy as np
import plotly.graph_objects as go
from einops import reduce
from jaxtyping import Num
from PIL import Image, ImageDraw, ImageFont, ImageOps

from circuitry.encoder.tokens import TokenGrid
from circuitry.reports.figures import style
from circuitry.reports.figures.heatmaps import SIGNED
from circuitry.runs.errors import InputError
from circuitry.runs.given import FINITE, Count, Names

IMAGE_SIDE, MAP_SIDE = 112, 32
"""Most pixels a side of images and maps as they are drawn."""


def position_heatmap(effects: Num[np.ndarray, "..."], image: np.ndarray, *, title: str, measure: str) -> go.Figure:
    """Draw the effects of a site's positions over the image they come from.

    Args:
        effects: [height, width] of a site, e.g. ``PatchEffects.scores[site]``; the tokens of a transformer go in as
            a grid, without the class token: `TokenGrid.patches`.
        image: The image as bytes [height, width, 3], of any size.
        measure: What the numbers are, with their unit.
    """
    if effects.ndim != 2 or not effects.size:
        raise InputError(
            f"Effects over an image are a grid [height, width], but have shape {list(effects.shape)}: drop the class "
            "token and reshape the others."
        )
    style.check_image(image)
    height, width = image.shape[:2]
    step_down, step_right = height / effects.shape[0], width / effects.shape[1]
    top = float(np.nanmax(np.abs(effects))) or 1.0
    figure, places = style.small_multiples(["", ""], columns=2, height=320, horizontal_spacing=0.04)
    for place in places:
        figure.add_trace(go.Image(z=image, hoverinfo="skip"), **place)
    heat = go.Heatmap(
        z=effects,
        x0=step_right / 2 - 0.5,
        dx=step_right,
        y0=step_down / 2 - 0.5,
        dy=step_down,
        zmin=-top,
        zmax=top,
        colorscale=SIGNED,
        opacity=0.7,
        colorbar={"title": {"text": measure, "side": "right"}, "thickness": 12, "exponentformat": "power"},
        hovertemplate=f"{measure} %{{z:.4f}}<extra></extra>",
    )
    figure.add_trace(heat, **places[1])
    style.lay_out(figure, title=title, subtitle=measure)
    figure.update_xaxes(range=[-0.5, width - 0.5])
    figure.update_yaxes(range=[height - 0.5, -0.5])
    return _as_pictures(figure)


def _as_pictures(figure: go.Figure) -> go.Figure:
    """Hide the axes of all panels and give their pixels one size in both directions."""
    figure.update_xaxes(visible=False, constrain="domain")
    figure.update_yaxes(visible=False, constrain="domain")
    figure.for_each_yaxis(lambda axis: axis.update(scaleanchor=axis.anchor))
    return figure


def pixel_maps(images: np.ndarray, maps: Mapping[str, np.ndarray], *, names: Sequence[str]) -> go.Figure:
    """Draw pixel attributions beside their images: a row per image, a column per map, each map on its own scale.

    Args:
        images: Bytes [images, height, width, 3], drawn with at most 112 pixels a side.
        maps: Arrays [images, height, width] by the title of their column, drawn as means over blocks, at most 32 a
            side: strides and kinks leave a grid that hides the picture.
    """
    fits = images.ndim == 4 and images.shape[3] == 3 and images.dtype == np.uint8 and len(names) == len(images)
    if not fits or any(values.shape != images.shape[:3] for values in maps.values()):
        shapes = ", ".join(str(list(values.shape)) for values in maps.values())
        raise InputError(
            "Pixel maps need images of bytes [images, height, width, 3], a name for each and maps [images, height, "
            f"width], but images {images.dtype} {list(images.shape)}, {len(names)} names and maps {shapes} were given."
        )
    columns = 1 + len(maps)
    titles = ["image", *maps] + [""] * columns * (len(images) - 1)
    figure, places = style.small_multiples(
        titles, columns=columns, height=190, gap=6, row_titles=list(names), horizontal_spacing=0.02
    )
    for i, place in enumerate(places):
        row, column = divmod(i, columns)
        if column == 0:
            drawn = go.Image(z=_small(images[row], IMAGE_SIDE).astype(np.uint8), hoverinfo="skip")
        else:
            small = _small(list(maps.values())[column - 1][row], MAP_SIDE)
            top = float(np.quantile(np.abs(small), 0.995)) or 1.0  # a few outliers would leave the rest pale
            drawn = go.Heatmap(z=small, zmin=-top, zmax=top, colorscale=SIGNED, showscale=False)
            drawn.hovertemplate = "%{z:.2g}<extra></extra>"
        figure.add_trace(drawn, **place)
        height, width = np.shape(drawn.z)[:2]
        figure.update_xaxes(range=[-0.5, width - 0.5], **place)
        figure.update_yaxes(range=[height - 0.5, -0.5], **place)
    style.lay_out(figure, title="Pixels for the class (blue) and against it (orange)")
    figure.update_layout(margin={"l": 10, "r": 30, "b": 10})
    return _as_pictures(figure)


def _small(picture: np.ndarray, most: int) -> np.ndarray:
    """Return means over square blocks so that no side has more than ``most`` pixels, without an unfilled last block."""
    step = -(-max(picture.shape[:2]) // most)
    height, width = (size // step * step for size in picture.shape[:2])
    return reduce(picture[:height, :width], "(h a) (w b) ... -> h w ...", np.mean, a=step, b=step)


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


TILE, GAP = 64, 2
"""Side of a tile and pixels between tiles; between cells twice as many."""


def contact_sheet(
    cells: Mapping[tuple[str, str], Sequence[Path | Image.Image]], rows: Names, columns: Names, *, per_cell: Count = 2
) -> Image.Image:
    """Return a grid with labels left and on top; cell (row, column) shows its first ``per_cell`` images.

    Images are fitted into squares and keep their shape. A place without an image shows a dash.

    Example:
        >>> contact_sheet({("fish", "real"): [Path("a.png")]}, rows=["fish"], columns=["real", "sketch"])
    """
    unknown = [cell for cell in cells if cell[0] not in rows or cell[1] not in columns]
    if not rows or not columns or unknown:
        raise InputError(
            f"A contact sheet needs a row and a column for every cell, but {len(rows)} rows and {len(columns)} columns "
            f"were given{f', none for {unknown[0]}' if unknown else ''}: give the labels of all cells."
        )
    text = round(0.22 * TILE)
    font = ImageFont.load_default(size=text)
    left, top = round(max(font.getlength(label) for label in rows)) + 4 * GAP, text + 4 * GAP
    wide, high = per_cell * (TILE + GAP) + GAP, TILE + 2 * GAP
    sheet = Image.new("RGB", (left + len(columns) * wide, top + len(rows) * high), "white")
    pen = ImageDraw.Draw(sheet)
    for i, column in enumerate(columns):
        pen.text((left + (i + 0.5) * wide, top / 2), column, fill="black", font=font, anchor="mm")
    for j, row in enumerate(rows):
        pen.text((left - 2 * GAP, top + (j + 0.5) * high), row, fill="black", font=font, anchor="rm")
        for i, column in enumerate(columns):
            images = cells.get((row, column), ())
            for k in range(per_cell):
                x, y = left + i * wide + k * (TILE + GAP), top + j * high
                if k < len(images):
                    sheet.paste(_fitted(images[k]), (x, y))
                else:
                    pen.text((x + TILE / 2, y + TILE / 2), "-", fill="grey", font=font, anchor="mm")
    return sheet


def _fitted(image: Path | Image.Image) -> Image.Image:
    if not isinstance(image, Image.Image):
        with Image.open(image) as opened:
            return _fitted(opened)
    return ImageOps.pad(image.convert("RGB"), (TILE, TILE), color="white")
