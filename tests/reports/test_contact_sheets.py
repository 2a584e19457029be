"""The contact sheet: where tiles go, what an empty place looks like, what is refused."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from circuitry.reports import contact_sheet
from circuitry.reports.contact_sheets import TILE
from circuitry.runs import InputError

RED, BLUE = (255, 0, 0), (0, 0, 255)


def filled(colour: tuple[int, int, int], size: tuple[int, int] = (20, 20)) -> Image.Image:
    return Image.new("RGB", size, colour)


def count(sheet: Image.Image, colour: tuple[int, int, int]) -> int:
    return int((np.asarray(sheet) == colour).all(axis=2).sum())


def box_of(sheet: Image.Image, colour: tuple[int, int, int]) -> tuple[int, int, int, int]:
    """left, top, right, bottom of the pixels of this colour."""
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


def test_a_missing_image_leaves_a_dash_and_labels_are_written() -> None:
    full = contact_sheet({("r", "c"): [filled((255, 255, 255))]}, ["r"], ["c"], per_cell=1)
    empty = contact_sheet({}, ["r"], ["c"], per_cell=1)
    assert full.size == empty.size
    y, x = np.nonzero((np.asarray(full) != np.asarray(empty)).any(axis=2))
    assert 0 < len(x) < 0.05 * TILE**2
    assert np.ptp(x) > np.ptp(y)  # a dash, not the box of a character that the font lacks
    assert (np.asarray(full) < 128).any()
    assert contact_sheet({}, ["a much longer label"], ["c"], per_cell=1).width > empty.width


@pytest.mark.parametrize(
    ("cells", "rows", "columns", "per_cell", "said"),
    [
        ({}, [], ["c"], 1, "0 rows"),
        ({}, ["r"], [], 1, "0 columns"),
        ({("fish", "oil"): [filled(RED)]}, ["fish"], ["real"], 1, "'fish', 'oil'"),
    ],
)
def test_what_cannot_be_shown_is_refused(
    cells: dict[tuple[str, str], list[Path | Image.Image]],
    rows: list[str],
    columns: list[str],
    per_cell: int,
    said: str,
) -> None:
    with pytest.raises(InputError, match=said):
        contact_sheet(cells, rows, columns, per_cell=per_cell)
