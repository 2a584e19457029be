"""Figures of images: pixel attributions beside their images, and sheets of images."""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import plotly.graph_objects as go
from einops import reduce
from PIL import Image, ImageDraw, ImageFont, ImageOps

from circuitry.data.images import open_picture
from circuitry.interventions.explanation import Explanation
from circuitry.reports.figures import style
from circuitry.reports.figures.heatmaps import SIGNED
from circuitry.runs.arguments import Count, Names
from circuitry.runs.errors import InputError

IMAGE_SIDE = 112
"""Largest side of a drawn image in pixels."""
MAP_SIDE = 32
"""Largest side of a drawn map in pixels."""
DARKEST = 0.25
"""Factor of the pixels where a map is zero."""


def pixel_maps(
    images: np.ndarray, maps: Mapping[str, np.ndarray], *, names: Sequence[str]
) -> go.Figure:
    """Draw pixel attributions beside their images.

    Each image has a row, and each kind of map has a column. Every map has its own colour scale.

    Args:
        images: Images as bytes [images, height, width, 3]. They are drawn with at most 112 pixels a side.
        maps: Pixel attributions of all images [images, height, width], by the title of their column. A map is averaged
            over square blocks, so that it has at most 32 pixels a side. Without this average, a grid would hide the
            picture, because the gradients of a network vary with its strides.
        names: The name of each image.

    Example:
        >>> pictures = np.zeros((1, 64, 64, 3), np.uint8)
        >>> drawn = pixel_maps(pictures, {"logit": np.ones((1, 64, 64))}, names=["clock"])
        >>> [trace.type for trace in drawn.data]
        ['image', 'heatmap']
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
    figure, places = style.small_multiples(
        ["image", *maps] + [""] * columns * (len(images) - 1),
        columns=columns,
        height=190,
        gap=6,
        row_titles=list(names),
        horizontal_spacing=0.02,
    )
    traces: list[go.Image | go.Heatmap] = []
    for i, image in enumerate(images):
        small = _small(image, IMAGE_SIDE).astype(np.uint8)
        traces.append(go.Image(z=small, hoverinfo="skip"))
        for values in maps.values():
            small = _small(values[i], MAP_SIDE)
            # A few outliers would leave the rest pale.
            top = float(np.quantile(np.abs(small), 0.995)) or 1.0
            heat = go.Heatmap(z=small, zmin=-top, zmax=top, colorscale=SIGNED)
            traces.append(heat.update(showscale=False, hovertemplate=_HOVER))
    for trace, place in zip(traces, places, strict=True):
        figure.add_trace(trace, **place)
        height, width = np.shape(trace.z)[:2]
        figure.update_xaxes(range=[-0.5, width - 0.5], **place)
        figure.update_yaxes(range=[height - 0.5, -0.5], **place)
    style.lay_out(figure, title="Pixels for the class (blue) and against it (orange)")
    figure.update_layout(margin={"l": 10, "r": 30, "b": 10})
    figure.update_xaxes(visible=False, constrain="domain")
    figure.update_yaxes(visible=False, constrain="domain")
    # Pixels are squares.
    return figure.for_each_yaxis(lambda axis: axis.update(scaleanchor=axis.anchor))


def spotlight(picture: np.ndarray, values: np.ndarray) -> np.ndarray:
    """Return a picture as bytes [height, width, 3] that is dark except where a map is large.

    Args:
        picture: The picture as bytes [height, width, 3].
        values: The map [rows, columns] over the picture. Negative values are dark, as zero is.

    Example:
        >>> from circuitry.reports.figures.pictures import spotlight
        >>> white = np.full((4, 4, 3), 255, np.uint8)
        >>> spotlight(white, np.array([[1.0, 0.0]]))[0, :, 0].tolist()
        [255, 255, 64, 64]
    """
    light = np.maximum(values, 0) / (values.max() if values.max() > 0 else 1.0)
    height, width = picture.shape[:2]
    on_pixels = Image.fromarray(light.astype(np.float32)).resize(
        (width, height), Image.Resampling.NEAREST
    )
    shade = DARKEST + (1 - DARKEST) * np.asarray(on_pixels)[..., None]
    return np.asarray((picture * shade).round().astype(np.uint8))


def explanation_pictures(explanation: Explanation) -> dict[str, np.ndarray]:
    """Return the picture of an explanation by titles: as it is, by cells that matter, and by each unit with a map."""
    picture = explanation.picture
    drawn = {"picture": picture}
    for order, values in explanation.cells.items():
        drawn[order] = spotlight(picture, values)
    units = explanation.units
    for site, unit, effect in zip(
        units["site"], units["unit"], units["effect"], strict=True
    ):
        of_unit = explanation.maps.get((site, unit))
        title = f"{site}/{unit}<br>{effect:+.2f}"
        if of_unit is not None:
            drawn[title] = spotlight(picture, of_unit)
    return drawn


def explanation_drawing(explanation: Explanation) -> go.Figure:
    """Draw where an explanation's units are active: the picture, lit where the cells matter and where each unit is.

    Example:
        >>> why = circuitry.explain(clip, images[0], ["cup", "clock"], n_units=3)
        >>> explanation_drawing(why).data[0].type
        'image'
    """
    drawn = explanation_pictures(explanation)
    figure, places = style.small_multiples(
        list(drawn), columns=5, height=150, gap=48, horizontal_spacing=0.02
    )
    for pixels, place in zip(drawn.values(), places, strict=True):
        figure.add_trace(go.Image(z=pixels, hoverinfo="skip"), **place)
    title = f"Why '{explanation.text}'? Units with the largest effects, and where they are active"
    style.lay_out(figure, title=title)
    figure.update_layout(margin={"l": 10, "r": 10, "b": 10})
    figure.update_xaxes(visible=False)
    return figure.update_yaxes(visible=False)


_HOVER = "%{z:.2g}<extra></extra>"


def _small(picture: np.ndarray, most: int) -> np.ndarray:
    """Return the means over square blocks of pixels.

    Blocks are as large as needed to leave at most ``most`` pixels a side. Pixels at the end that do not fill a block
    are left out.
    """
    step = math.ceil(max(picture.shape[:2]) / most)
    height = picture.shape[0] // step * step
    width = picture.shape[1] // step * step
    blocks = "(h a) (w b) ... -> h w ..."
    return reduce(picture[:height, :width], blocks, np.mean, a=step, b=step)


TILE = 64
"""Side of a tile in pixels. A tile holds one image."""
GAP = 2
"""Number of pixels between two tiles of a cell. Between two cells there are twice as many."""


def contact_sheet(
    cells: Mapping[tuple[str, str], Sequence[Path | Image.Image]],
    rows: Names,
    columns: Names,
    *,
    per_cell: Count = 2,
) -> Image.Image:
    """Return a grid of images, with labels for its rows and columns.

    Each image is scaled to fit into a square without distortion. A place without an image shows a dash.

    Args:
        cells: Images, or paths of images, by (row, column). The first ``per_cell`` images of a cell are shown.
        rows: Labels of the rows, from the top.
        columns: Labels of the columns, from the left.

    Example:
        >>> picture = folder.select("clock", "real")[0].path
        >>> contact_sheet({("clock", "real"): [picture]}, rows=["clock"], columns=["real", "sketch"])
        <PIL.Image.Image image mode=RGB size=...>
    """
    unknown = [cell for cell in cells if cell[0] not in rows or cell[1] not in columns]
    if not rows or not columns or unknown:
        words = f", none for {unknown[0]}" if unknown else ""
        raise InputError(
            f"A contact sheet needs a row and a column for every cell, but {len(rows)} rows and {len(columns)} columns "
            f"were given{words}: give the labels of all cells."
        )
    size = round(0.22 * TILE)
    font = ImageFont.load_default(size=size)
    # Labels stand left of the rows and above the columns.
    left = round(max(font.getlength(label) for label in rows)) + 4 * GAP
    top = size + 4 * GAP
    wide = per_cell * (TILE + GAP) + GAP
    high = TILE + 2 * GAP
    shape = (left + len(columns) * wide, top + len(rows) * high)
    sheet = Image.new("RGB", shape, "white")
    pen = ImageDraw.Draw(sheet)

    def write(text: str, x: float, y: float, colour: str, anchor: str = "mm") -> None:
        pen.text((x, y), text, fill=colour, font=font, anchor=anchor)

    for i, column in enumerate(columns):
        write(column, left + (i + 0.5) * wide, top / 2, "black")
    for j, row in enumerate(rows):
        y = top + j * high
        write(row, left - 2 * GAP, top + (j + 0.5) * high, "black", "rm")
        for i, column in enumerate(columns):
            images = cells.get((row, column), ())
            for k in range(per_cell):
                x = left + i * wide + k * (TILE + GAP)
                if k < len(images):
                    sheet.paste(_fitted(images[k]), (x, y))
                else:
                    write("-", x + TILE / 2, y + TILE / 2, "grey")
    return sheet


def _fitted(image: Path | Image.Image) -> Image.Image:
    if not isinstance(image, Image.Image):
        with open_picture(image) as picture:
            return _fitted(picture)
    return ImageOps.pad(image.convert("RGB"), (TILE, TILE), color="white")
