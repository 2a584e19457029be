"""Partners of pictures: exactly what is meant changes, and mistakes get a sentence."""

import re
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from circuitry.data import (
    DomainFolder,
    ImageRecord,
    in_grey,
    of_another_class,
    partners_in,
    with_blank,
    with_text,
)
from circuitry.runs import InputError
from tests.support.noise_images import write_noise

GREY = [128, 128, 128]


def red_picture(width: int = 60, height: int = 40) -> Image.Image:
    return Image.new("RGB", (width, height), (200, 30, 10))


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> DomainFolder:
    place = tmp_path_factory.mktemp("pictures")
    root = write_noise(place, ("real", "sketch"), ("axe", "cat", "key"), 3)
    return DomainFolder(root)


def test_a_text_is_black_on_white_and_the_rest_stays() -> None:
    picture = red_picture()
    before = np.asarray(picture).copy()
    after = np.asarray(with_text(picture, "dog", height=0.3, middle=0.75))
    changed = (after != before).any(2)
    rows = np.flatnonzero(changed.any(1))
    columns = np.flatnonzero(changed.any(0))
    assert (rows[0] + rows[-1]) / 2 == pytest.approx(40 * 0.75, abs=2)
    assert (columns[0] + columns[-1]) / 2 == pytest.approx(30, abs=2)
    label = after[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
    assert (label == 255).all(2).any()
    assert (label < 60).all(2).any()
    np.testing.assert_array_equal(np.asarray(picture), before)


def test_a_long_text_fits_into_the_width() -> None:
    after = np.asarray(with_text(red_picture(), "a very long sentence", height=1.0))
    assert 2 < (after == 255).all(2).any(1).sum() < 20


@pytest.mark.parametrize(
    ("blank", "of_object"), [("object", True), ("background", False)]
)
def test_a_mask_blanks_its_pixels_alone(blank: str, of_object: bool) -> None:
    picture = red_picture(3, 2)
    mask = np.array([[True, False, False], [True, True, False]])
    after = np.asarray(with_blank(picture, mask, blank))
    assert (after[mask == of_object] == GREY).all()
    assert (after[mask != of_object] == [200, 30, 10]).all()


def test_a_mask_of_another_size_is_refused_in_one_sentence() -> None:
    with pytest.raises(InputError) as refused:
        with_blank(red_picture(60, 40), np.ones((60, 40), bool))
    sentence = str(refused.value)
    assert "[40, 60]" in sentence
    assert "[60, 40]" in sentence
    assert "resize" in sentence
    assert sentence.count(".") == 1


def test_grey_has_the_luminance_of_the_picture() -> None:
    pixel = in_grey(red_picture()).getpixel((0, 0))
    # ITU-R 601-2: L = .299 R + .587 G + .114 B
    assert pixel == (round(0.299 * 200 + 0.587 * 30 + 0.114 * 10),) * 3


def test_partners_of_other_classes_are_of_the_domain_and_of_their_own_draw(
    pictures: DomainFolder,
) -> None:
    axes = pictures.select("axe", "real")
    partners = [of_another_class(pictures, axe) for axe in axes]
    assert {one.domain for one in partners} == {"real"}
    assert "axe" not in {one.class_name for one in partners}
    assert partners == [of_another_class(pictures, axe) for axe in axes]
    drawn = {of_another_class(pictures, axes[0], seed=seed) for seed in range(40)}
    assert len(drawn) == 6  # each picture of the two other classes
    assert of_another_class(pictures, axes[0], "key").class_name == "key"


@pytest.mark.parametrize("class_name", ["axe", "horse"])
def test_no_picture_of_the_class_is_refused(
    pictures: DomainFolder, class_name: str
) -> None:
    axe = pictures.select("axe", "real")[0]
    with pytest.raises(InputError, match=f"'axe'.*'real'.*'{class_name}'"):
        of_another_class(pictures, axe, class_name)


def test_a_folder_gives_each_picture_its_partner(
    pictures: DomainFolder, tmp_path: Path
) -> None:
    axes = pictures.select("axe", "real")

    def write(record: ImageRecord) -> None:
        file = tmp_path / record.relative
        file.parent.mkdir(parents=True, exist_ok=True)
        red_picture().save(file)

    for axe in axes[1:]:
        write(axe)
    with pytest.raises(InputError, match=f"1 picture of 3.*{axes[0].relative}"):
        partners_in(tmp_path, axes)
    write(axes[0])
    partners = partners_in(tmp_path, axes)
    assert [one.path for one in partners] == [tmp_path / axe.relative for axe in axes]
    assert [one.relative for one in partners] == [axe.relative for axe in axes]


@pytest.mark.parametrize("text", [" ", "", "\n"])
def test_a_text_of_no_letters_is_refused(text: str) -> None:
    with pytest.raises(InputError, match=re.escape(repr(text))):
        with_text(red_picture(), text)


def test_letters_that_nobody_can_read_are_refused() -> None:
    with pytest.raises(InputError, match=r"4 pixels.*'cup' gets 0\.6.*3 x 3"):
        with_text(red_picture(3, 3), "cup")


def test_a_text_of_two_lines_is_drawn() -> None:
    one = np.asarray(with_text(red_picture(), "a cup"))
    two = np.asarray(with_text(red_picture(), "a\ncup"))
    rows = [(found == 255).all(2).any(1).sum() for found in (one, two)]
    assert rows[1] > 1.5 * rows[0]
