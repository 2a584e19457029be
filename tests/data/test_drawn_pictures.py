"""The drawn pictures of the package are those that the painter draws, and few enough to be shipped."""

from itertools import product

import numpy as np
import pytest
from PIL import Image

from circuitry.data import (
    DRAWN_CLASSES,
    DRAWN_IMAGES,
    DRAWN_STYLES,
    drawn_images,
    load_image,
)
from circuitry.runs import InputError
from experiments.drawn import TOY_CLASSES, draw_image
from experiments.drawn.drawing import captions, image_of
from experiments.drawn.tiny_clips import SHIPPED


def test_all_things_are_there_in_three_styles() -> None:
    pictures = drawn_images()
    assert pictures.all_classes == DRAWN_CLASSES == TOY_CLASSES
    assert pictures.domains == DRAWN_STYLES
    assert (pictures.counts() == SHIPPED.n_test).all(axis=None)
    assert drawn_images(classes=["car"], domains=["real"]).label("car") == 2
    with pytest.raises(InputError, match=r"sketch.*clipart, quickdraw, real"):
        drawn_images(domains=["sketch"])


@pytest.mark.parametrize("style", DRAWN_STYLES)
def test_pictures_are_those_that_the_painter_draws(style: str) -> None:
    for place, name in enumerate(DRAWN_CLASSES):
        path, seed = image_of(SHIPPED, style, name, SHIPPED.n_train + place)
        painted = draw_image(name, style, seed)
        shipped = load_image(DRAWN_IMAGES / path)
        assert shipped.size == (64, 64)
        # Another processor rounds in another way.
        difference = np.asarray(shipped, np.int64) - np.asarray(painted, np.int64)
        assert np.abs(difference).max() <= 2


def test_pictures_are_plain_and_take_at_most_4_megabytes() -> None:
    sizes = [path.stat().st_size for path in DRAWN_IMAGES.rglob("*") if path.is_file()]
    assert sum(sizes) < 4e6
    for style, name in product(DRAWN_STYLES, DRAWN_CLASSES):
        for path in (DRAWN_IMAGES / style / name).iterdir():
            with Image.open(path) as picture:
                assert (picture.format, picture.mode) == ("PNG", "RGB")


def test_captions_have_the_words_of_all_styles() -> None:
    lines = (DRAWN_IMAGES / "captions.tsv").read_text(encoding="utf-8").splitlines()
    drawn = captions(SHIPPED).splitlines()
    assert len(lines) == 1 + 6 * len(DRAWN_CLASSES) * SHIPPED.n_test
    assert set(lines) <= set(drawn)
