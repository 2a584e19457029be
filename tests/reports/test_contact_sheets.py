"""The contact sheet: where tiles go, what an empty place looks like, what is refused."""

from pathlib import Path

import numpy as np
from PIL import Image

from circuitry.reports import contact_sheet
from circuitry.reports.figures.pictures import TILE

RED, BLUE = (255, 0, 0), (0, 0, 255)


def filled(
    colour: tuple[int, int, int], size: tuple[int, int] = (20, 20)
) -> Image.Image:
    return Image.new("RGB", size, colour)


def count(sheet: Image.Image, colour: tuple[int, int, int]) -> int:
    return int((np.asarray(sheet) == colour).all(axis=2).sum())


def box_of(
    sheet: Image.Image, colour: tuple[int, int, int]
) -> tuple[int, int, int, int]:
    y, x = np.nonzero((np.asarray(sheet) == colour).all(axis=2))
    return int(x.min()), int(y.min()), int(x.max()) + 1, int(y.max()) + 1


def test_images_and_files_are_shown_at_their_row_and_column(tmp_path: Path) -> None:
    filled(BLUE).save(tmp_path / "blue.png")
    cells: dict[tuple[str, str], list[Path | Image.Image]] = {
        ("fish", "real"): [filled(RED)],
        ("house", "sketch"): [tmp_path / "blue.png"],
    }
    sheet = contact_sheet(cells, ["fish", "house"], ["real", "sketch"], per_cell=1)
    assert sheet.mode == "RGB"
    assert count(sheet, RED) == count(sheet, BLUE) == TILE**2
    red, blue = box_of(sheet, RED), box_of(sheet, BLUE)
    assert red[2] <= blue[0]
    assert red[3] <= blue[1]


def test_a_cell_shows_its_first_images_side_by_side_in_their_shape() -> None:
    cells = {("fish", "real"): [filled(RED), filled(BLUE, (40, 20)), filled(BLUE)]}
    sheet = contact_sheet(cells, ["fish"], ["real"])
    assert (count(sheet, RED), count(sheet, BLUE)) == (TILE**2, TILE**2 // 2)
    assert box_of(sheet, RED)[2] <= box_of(sheet, BLUE)[0]
    left, top, right, bottom = box_of(sheet, BLUE)
    assert (right - left, bottom - top) == (TILE, TILE // 2)
