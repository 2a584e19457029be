"""A labelled grid of small images: what a data set looks like, at a glance."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from PIL import Image, ImageDraw, ImageFont, ImageOps

from circuitry.runs.errors import InputError

GAP = 2
"""Pixels between tiles; between cells twice as many."""


def contact_sheet(
    cells: Mapping[tuple[str, str], Sequence[Path | Image.Image]],
    rows: Sequence[str],
    columns: Sequence[str],
    *,
    per_cell: int = 2,
    tile: int = 64,
) -> Image.Image:
    """Return a grid with labels left and on top; cell (row, column) shows its first ``per_cell`` images.

    Images are fitted into squares of ``tile`` pixels, keeping their shape. A place without an image stays blank with a
    dash.

    Raises:
        InputError: for nothing to show, or a cell that belongs to no row or column.

    Example:
        >>> contact_sheet({("fish", "real"): [Path("a.png")]}, rows=["fish"], columns=["real", "sketch"])
    """
    if not rows or not columns or per_cell < 1 or tile < 1:
        raise InputError(
            "A contact sheet needs at least one row, one column, per_cell >= 1 and tile >= 1, but got "
            f"{len(rows)} rows, {len(columns)} columns, per_cell={per_cell}, tile={tile}; pass what to show."
        )
    for row, column in cells:
        if row not in rows or column not in columns:
            raise InputError(
                f"The cell ({row!r}, {column!r}) is in no row and column of the contact sheet; "
                "add its labels to rows and columns or leave the cell out."
            )
    text = max(round(tile * 0.22), 10)
    font = ImageFont.load_default(size=text)
    margin = round(max(font.getlength(label) for label in rows)) + 4 * GAP
    header = text + 4 * GAP
    wide, high = per_cell * (tile + GAP) + GAP, tile + 2 * GAP
    sheet = Image.new("RGB", (margin + len(columns) * wide, header + len(rows) * high), "white")
    pen = ImageDraw.Draw(sheet)
    for i, column in enumerate(columns):
        pen.text((margin + (i + 0.5) * wide, header / 2), column, fill="black", font=font, anchor="mm")
    for j, row in enumerate(rows):
        top = header + j * high
        pen.text((margin - 2 * GAP, top + high / 2), row, fill="black", font=font, anchor="rm")
        for i, column in enumerate(columns):
            images = cells.get((row, column), ())
            for k in range(per_cell):
                corner = (margin + i * wide + k * (tile + GAP), top)
                if k < len(images):
                    sheet.paste(_fitted(images[k], tile), corner)
                else:
                    centre = (corner[0] + tile / 2, corner[1] + tile / 2)
                    pen.text(centre, "-", fill="grey", font=font, anchor="mm")
    return sheet


def _fitted(image: Path | Image.Image, tile: int) -> Image.Image:
    if isinstance(image, Image.Image):
        return ImageOps.pad(image.convert("RGB"), (tile, tile), color="white")
    with Image.open(image) as opened:
        return ImageOps.pad(opened.convert("RGB"), (tile, tile), color="white")
