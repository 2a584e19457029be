"""A sheet of images by row and column. Drawing computes nothing."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from PIL import Image, ImageDraw, ImageFont, ImageOps

from circuitry.runs.errors import InputError
from circuitry.runs.given import Count, Names

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
