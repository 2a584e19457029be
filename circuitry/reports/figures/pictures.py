"""Figures of images: an explained picture, and sheets of images."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import plotly.graph_objects as go
from PIL import Image, ImageDraw, ImageFont, ImageOps

from circuitry.data.images import open_picture
from circuitry.interventions.explanation import Explanation
from circuitry.reports.figures import style
from circuitry.runs.arguments import Count, Names
from circuitry.runs.errors import InputError

DARKEST = 0.25
"""Factor of the pixels where a map is zero."""


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
