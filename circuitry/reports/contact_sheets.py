"""A labelled grid of small images: what a data set looks like, at a glance."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from PIL import Image, ImageDraw, ImageFont, ImageOps

from circuitry.runs.errors import InputError
from circuitry.runs.given import Count, Names, checked

TILE, GAP = 64, 2
"""Side of a tile and pixels between tiles; between cells twice as many."""


@checked
def contact_sheet(
    cells: Mapping[tuple[str, str], Sequence[Path | Image.Image]],
    rows: Names,
    columns: Names,
    *,
    per_cell: Count = 2,
) -> Image.Image:
    """Return a grid with labels left and on top; cell (row, column) shows its first ``per_cell`` images.

    Images are fitted into squares and keep their shape. A place without an image shows a dash.

    Raises:
        InputError: for nothing to show, or a cell of no row or column.

    Example:
        >>> contact_sheet({("fish", "real"): [Path("a.png")]}, rows=["fish"], columns=["real", "sketch"])
    """
    if not rows or not columns or per_cell < 1:
        raise InputError(
            f"A contact sheet needs rows, columns and per_cell >= 1, but got {len(rows)} rows, {len(columns)} columns "
            f"and per_cell={per_cell}; pass what to show."
        )
    for row, column in cells:
        if row not in rows or column not in columns:
            raise InputError(
                f"The contact sheet has no row and column for the cell ({row!r}, {column!r}); add its labels or leave "
                "it out."
            )
    text = round(0.22 * TILE)
    font = ImageFont.load_default(size=text)
    margin = round(max(font.getlength(label) for label in rows)) + 4 * GAP
    header = text + 4 * GAP
    wide, high = per_cell * (TILE + GAP) + GAP, TILE + 2 * GAP
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
                corner = (margin + i * wide + k * (TILE + GAP), top)
                if k < len(images):
                    sheet.paste(_fitted(images[k]), corner)
                else:
                    centre = (corner[0] + TILE / 2, corner[1] + TILE / 2)
                    pen.text(centre, "-", fill="grey", font=font, anchor="mm")
    return sheet


def _fitted(image: Path | Image.Image) -> Image.Image:
    if not isinstance(image, Image.Image):
        with Image.open(image) as opened:
            return _fitted(opened)
    return ImageOps.pad(image.convert("RGB"), (TILE, TILE), color="white")
