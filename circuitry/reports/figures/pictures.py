"""Charts over images: pixel attributions; and sheets of images."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import plotly.graph_objects as go
from einops import reduce
from PIL import Image, ImageDraw, ImageFont, ImageOps

from circuitry.data.images import open_picture
from circuitry.reports.figures import style
from circuitry.reports.figures.heatmaps import SIGNED
from circuitry.runs.errors import InputError
from circuitry.runs.given import Count, Names

IMAGE_SIDE, MAP_SIDE = 112, 32
"""Most pixels a side of images and maps as they are drawn."""


def pixel_maps(
    images: np.ndarray, maps: Mapping[str, np.ndarray], *, names: Sequence[str]
) -> go.Figure:
    """Draw pixel attributions beside their images: a row per image, a column per map, each map on its own scale.

    Args:
        images: Bytes [images, height, width, 3], drawn with at most 112 pixels a side.
        maps: Arrays [images, height, width] by the title of their column, drawn as means over blocks, at most 32 a
            side: strides and kinks leave a grid that hides the picture.
    """
    fits = (
        images.ndim == 4
        and images.shape[3] == 3
        and images.dtype == np.uint8
        and len(names) == len(images)
    )
    if not fits or any(values.shape != images.shape[:3] for values in maps.values()):
        shapes = ", ".join(str(list(values.shape)) for values in maps.values())
        raise InputError(
            "Pixel maps need images of bytes [images, height, width, 3], a name for each and maps [images, height, "
            f"width], but images {images.dtype} {list(images.shape)}, {len(names)} names and maps {shapes} were given."
        )
    columns = 1 + len(maps)
    titles = ["image", *maps] + [""] * columns * (len(images) - 1)
    figure, places = style.small_multiples(
        titles,
        columns=columns,
        height=190,
        gap=6,
        row_titles=list(names),
        horizontal_spacing=0.02,
    )
    for i, place in enumerate(places):
        row, column = divmod(i, columns)
        if column == 0:
            drawn = go.Image(
                z=_small(images[row], IMAGE_SIDE).astype(np.uint8), hoverinfo="skip"
            )
        else:
            small = _small(list(maps.values())[column - 1][row], MAP_SIDE)
            top = (
                float(np.quantile(np.abs(small), 0.995)) or 1.0
            )  # a few outliers would leave the rest pale
            drawn = go.Heatmap(
                z=small, zmin=-top, zmax=top, colorscale=SIGNED, showscale=False
            )
            drawn.hovertemplate = "%{z:.2g}<extra></extra>"
        figure.add_trace(drawn, **place)
        height, width = np.shape(drawn.z)[:2]
        figure.update_xaxes(range=[-0.5, width - 0.5], **place)
        figure.update_yaxes(range=[height - 0.5, -0.5], **place)
    style.lay_out(figure, title="Pixels for the class (blue) and against it (orange)")
    figure.update_layout(margin={"l": 10, "r": 30, "b": 10})
    figure.update_xaxes(visible=False, constrain="domain")
    figure.update_yaxes(visible=False, constrain="domain")
    return figure.for_each_yaxis(
        lambda axis: axis.update(scaleanchor=axis.anchor)
    )  # pixels are squares


def _small(picture: np.ndarray, most: int) -> np.ndarray:
    """Return means over square blocks so that no side has more than ``most`` pixels, without an unfilled last block."""
    step = -(-max(picture.shape[:2]) // most)
    height, width = (size // step * step for size in picture.shape[:2])
    return reduce(
        picture[:height, :width], "(h a) (w b) ... -> h w ...", np.mean, a=step, b=step
    )


TILE, GAP = 64, 2
"""Side of a tile and pixels between tiles; between cells twice as many."""


def contact_sheet(
    cells: Mapping[tuple[str, str], Sequence[Path | Image.Image]],
    rows: Names,
    columns: Names,
    *,
    per_cell: Count = 2,
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
    left, top = (
        round(max(font.getlength(label) for label in rows)) + 4 * GAP,
        text + 4 * GAP,
    )
    wide, high = per_cell * (TILE + GAP) + GAP, TILE + 2 * GAP
    sheet = Image.new(
        "RGB", (left + len(columns) * wide, top + len(rows) * high), "white"
    )
    pen = ImageDraw.Draw(sheet)
    for i, column in enumerate(columns):
        pen.text(
            (left + (i + 0.5) * wide, top / 2),
            column,
            fill="black",
            font=font,
            anchor="mm",
        )
    for j, row in enumerate(rows):
        pen.text(
            (left - 2 * GAP, top + (j + 0.5) * high),
            row,
            fill="black",
            font=font,
            anchor="rm",
        )
        for i, column in enumerate(columns):
            images = cells.get((row, column), ())
            for k in range(per_cell):
                x, y = left + i * wide + k * (TILE + GAP), top + j * high
                if k < len(images):
                    sheet.paste(_fitted(images[k]), (x, y))
                else:
                    pen.text(
                        (x + TILE / 2, y + TILE / 2),
                        "-",
                        fill="grey",
                        font=font,
                        anchor="mm",
                    )
    return sheet


def _fitted(image: Path | Image.Image) -> Image.Image:
    if not isinstance(image, Image.Image):
        with open_picture(image) as opened:
            return _fitted(opened)
    return ImageOps.pad(image.convert("RGB"), (TILE, TILE), color="white")
