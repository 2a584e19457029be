"""The drawn data set: shapes that never change, drawings, styles, the folder on disk, what is refused."""

import os
import re
import zlib
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from jaxtyping import Float
from PIL import Image

from circuitry.runs import InputError
from experiments.drawn import DrawingSettings, draw_image, write_toy
from experiments.drawn.drawing import STYLES, TOY_CLASSES
from experiments.drawn.shapes import posed_drawing, shapes
from tests.support.extraction import contents


def pixels(image: Image.Image) -> Float[np.ndarray, "height width 3"]:
    return np.asarray(image, dtype=float) / 255


def write(root: Path, workers: int = 1, **changes: Any) -> Path:
    chosen: dict[str, Any] = {
        "classes": ("fish", "car"),
        "styles": ("sketch", "clipart"),
        "size": 24,
    }
    drawn = DrawingSettings(**({"n_train": 2, "n_test": 1} | chosen | changes))
    return write_toy(root, drawn, workers=workers, progress=False)


@pytest.mark.parametrize("style", STYLES)
def test_every_class_is_drawn_in_every_style(style: str) -> None:
    for class_name in TOY_CLASSES:
        image = draw_image(class_name, style, seed=1, size=48)
        assert (image.mode, image.size) == ("RGB", (48, 48))
        grey = pixels(image).mean(axis=2)
        assert grey.std() > 0.04, class_name
        # Something is drawn in the middle, not only a ground or a frame.
        assert np.ptp(grey[12:36, 12:36]) > 0.15, class_name


@pytest.mark.parametrize("style", STYLES)
def test_the_same_arguments_give_the_same_pixels_and_other_ones_do_not(
    style: str,
) -> None:
    first = draw_image("umbrella", style, seed=3).tobytes()
    assert draw_image("umbrella", style, seed=3).tobytes() == first
    others = [draw_image("umbrella", style, seed).tobytes() for seed in range(4, 14)]
    assert len({first, *others}) == 11


def test_size_changes_the_resolution_and_not_the_drawing() -> None:
    small, large = (
        draw_image("star", "clipart", 5, size=64),
        draw_image("star", "clipart", 5, size=128),
    )
    assert np.abs(pixels(small) - pixels(large.reduce(2))).mean() < 0.02


def test_a_seed_gives_the_same_thing_in_every_style() -> None:
    for seed in range(3):
        doodle, clip = (
            1 - pixels(draw_image("clock", style, seed)).mean(axis=2)
            for style in ("quickdraw", "clipart")
        )
        other = 1 - pixels(draw_image("clock", "clipart", seed + 10)).mean(axis=2)
        same, different = (
            np.corrcoef(doodle.ravel(), image.ravel())[0, 1] for image in (clip, other)
        )
        assert same > different


def statistics(style: str) -> dict[str, float]:
    images = np.stack(
        [
            pixels(draw_image(name, style, seed))
            for name in TOY_CLASSES
            for seed in range(3)
        ]
    )
    grey = images.mean(axis=3)
    return {
        "white": float((images.min(axis=3) > 0.96).mean()),
        "colour": float(np.ptp(images, axis=3).mean()),
        "grain": float(np.abs(np.diff(grey, axis=2)).clip(0, 0.1).mean()),
        "black": float((grey < 0.2).mean()),
    }


def test_styles_differ_the_way_their_names_say() -> None:
    found = {style: statistics(style) for style in STYLES}
    assert found["quickdraw"]["white"] > 0.7
    assert found["quickdraw"]["colour"] == 0
    assert found["quickdraw"]["black"] > 2 * found["sketch"]["black"]
    assert found["sketch"]["colour"] < 0.03
    assert found["real"]["white"] < 0.02
    assert found["painting"]["white"] < 0.05
    assert found["clipart"]["white"] > 0.3
    assert (
        min(
            found[style]["colour"]
            for style in ("clipart", "infograph", "painting", "real")
        )
        > 0.08
    )
    assert found["painting"]["grain"] > found["clipart"]["grain"]
    assert found["real"]["grain"] > found["clipart"]["grain"]


def test_folder_layout(tmp_path: Path) -> None:
    root = write(tmp_path / "toy")
    names = [f"{number:06d}.png" for number in range(3)]
    images = {
        f"{s}/{c}/{s}_{n}"
        for s, c, n in product(("clipart", "sketch"), ("car", "fish"), names)
    }
    lists = {
        f"{style}_{split}.txt"
        for style, split in product(("clipart", "sketch"), ("train", "test"))
    }
    assert {name for name in contents(root) if not name.startswith("checksums/")} == (
        images | lists | {"captions.tsv", "manifest.json"}
    )
    assert (root / "sketch_train.txt").read_text() == (
        "sketch/car/sketch_000000.png 0\nsketch/car/sketch_000001.png 0\n"
        "sketch/fish/sketch_000000.png 1\nsketch/fish/sketch_000001.png 1\n"
    )
    assert (root / "sketch_test.txt").read_text() == (
        "sketch/car/sketch_000002.png 0\nsketch/fish/sketch_000002.png 1\n"
    )
    header, *lines = (root / "captions.tsv").read_text().splitlines()
    assert header == "filepath\ttitle"
    assert {line.split("\t")[0] for line in lines} == images
    assert all(
        line.split("\t")[0].split("/")[1] in line.split("\t")[1] for line in lines
    )
    with Image.open(root / "sketch/fish/sketch_000000.png") as image:
        assert (image.mode, image.size) == ("RGB", (24, 24))


def test_the_folder_does_not_depend_on_workers_and_no_image_occurs_twice(
    tmp_path: Path,
) -> None:
    one = contents(write(tmp_path / "one", n_train=30, n_test=5))
    two = contents(write(tmp_path / "two", n_train=30, n_test=5, workers=2))
    assert one == two
    images = [data for name, data in one.items() if name.endswith(".png")]
    assert len(set(images)) == len(images) == 140


def test_seeds_do_not_overlap(tmp_path: Path) -> None:
    first, second = (
        contents(write(tmp_path / f"{seed}", seed=seed)) for seed in (0, 1)
    )
    assert first.keys() == second.keys()
    pngs = [
        data
        for folder in (first, second)
        for name, data in folder.items()
        if name.endswith(".png")
    ]
    assert len(set(pngs)) == len(pngs)
    assert first["captions.tsv"] != second["captions.tsv"]


def test_a_subset_and_test_images_alone_are_those_of_the_whole_set(
    tmp_path: Path,
) -> None:
    whole, alone = (
        contents(write(tmp_path / "a")),
        contents(write(tmp_path / "b", n_train=0, first=2)),
    )
    part = contents(write(tmp_path / "part", classes=("fish",), styles=("sketch",)))
    assert (
        part["sketch/fish/sketch_000002.png"] == whole["sketch/fish/sketch_000002.png"]
    )
    names = {name for name in alone if name.endswith(("png", "_test.txt"))}
    assert len(names) == 4 + 2
    assert all(alone[name] == whole[name] for name in names)
    captions = {
        text.splitlines()[-1] for text in (alone["captions.tsv"], whole["captions.tsv"])
    }
    assert len(captions) == 1


@pytest.mark.parametrize(
    "path", ["clipart/lion/clipart_001_000001.jpg", "clipart_train.txt", "notes.txt"]
)
def test_a_folder_with_other_files_is_refused_and_untouched(
    tmp_path: Path, path: str
) -> None:
    (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
    (tmp_path / path).write_text("precious")
    with pytest.raises(InputError, match=re.escape(path)):
        write(tmp_path)
    assert contents(tmp_path) == {path: b"precious"}
    with pytest.raises(InputError, match=re.escape(path)):  # a file is no folder
        write(tmp_path / path)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"classes": ("fish", "lion")}, "'lion'"),
        ({"styles": ("oil",)}, "'oil'"),
        ({"styles": ("real", "real")}, "'real' twice"),
        ({"n_train": 0, "n_test": 0}, "n_train=0, n_test=0"),
        ({"n_train": 1_000_000}, "1000000"),
        ({"size": 8}, "at least 16 as size, but 8"),
    ],
)
def test_impossible_settings_are_refused(
    tmp_path: Path, changes: dict[str, Any], words: str
) -> None:
    with pytest.raises(InputError, match=words):
        write(tmp_path, **changes)
    assert not os.listdir(tmp_path)


# Class -> numbers of pieces and points, and a checksum of the points, over the seeds 0 to 4.
DRAWN: dict[str, tuple[int, int, float]] = {
    "airplane": (30, 370, -151.62407275300805),
    "anchor": (30, 270, 55.96262270218077),
    "apple": (20, 525, -395.03044890212715),
    "axe": (17, 386, -129.66526254404488),
    "bicycle": (90, 595, 379.13844172826657),
    "butterfly": (55, 1100, 474.0976964920482),
    "candle": (29, 402, -303.7332035418826),
    "car": (55, 690, 355.9829571454634),
    "castle": (54, 437, -35.460387726119606),
    "chair": (44, 114, 116.47690826807226),
    "clock": (73, 542, -109.00187861542037),
    "crown": (45, 705, 38.72942291467677),
    "cup": (26, 537, -186.73093408720575),
    "duck": (27, 924, -208.0960498973139),
    "eyeglasses": (35, 1195, 368.57052473738105),
    "fish": (42, 783, 107.57068877725307),
    "flower": (54, 999, -652.9144164452268),
    "guitar": (35, 498, 586.9743505756552),
    "hammer": (15, 330, -238.73751789832585),
    "hourglass": (36, 647, 305.9477907077791),
    "house": (52, 200, 212.39942469287234),
    "ice_cream": (37, 494, -450.069521657667),
    "key": (30, 272, -108.18400555927883),
    "ladder": (41, 82, 40.60560909652428),
    "lighthouse": (45, 354, 267.9367845127216),
    "mushroom": (25, 620, -15.80195704271123),
    "octopus": (65, 1560, -559.8385354333277),
    "pear": (20, 621, 154.2863351455757),
    "pencil": (31, 153, 219.82794355093304),
    "rabbit": (51, 1087, 181.085943159566),
    "sailboat": (29, 294, 252.60125518475044),
    "scissors": (35, 470, 372.2351040110027),
    "snail": (35, 845, 411.5852813327626),
    "snowman": (65, 761, -233.79490808228184),
    "star": (13, 95, -15.88393654346536),
    "sword": (23, 216, 288.6249597623442),
    "teapot": (31, 601, -146.23834310262728),
    "tree": (24, 536, -540.3926399783135),
    "umbrella": (22, 668, -763.5400493643809),
    "windmill": (84, 372, 60.06854465890204),
}


@pytest.mark.parametrize("class_name", sorted(shapes()))
def test_drawings_are_fixed_for_all_time(class_name: str) -> None:
    """Models are published that were trained on them; whoever changes one adds to DRAWINGS."""
    pieces = [
        piece
        for seed in range(5)
        for piece in posed_drawing(
            class_name, np.random.default_rng([seed, zlib.crc32(class_name.encode())])
        )
    ]
    points = np.concatenate([piece.points for piece in pieces])
    weights = 1 + np.arange(points.size).reshape(points.shape) % 7
    colours = np.array([piece.colour for piece in pieces]).sum() + sum(
        piece.width for piece in pieces
    )
    *numbers, checksum = DRAWN[class_name]
    assert [len(pieces), len(points)] == numbers
    assert float((points * weights).sum() + colours) == pytest.approx(
        checksum, abs=1e-9
    )


def test_the_second_version_has_sparser_doodles_and_photographs_on_plain_grounds() -> (
    None
):
    keys = [(name, seed) for name in ("car", "fish", "snail") for seed in range(6)]
    ink = [
        [
            1 - pixels(draw_image(name, "quickdraw", seed, version=v)).mean()
            for name, seed in keys
        ]
        for v in (1, 2)
    ]
    assert np.mean(ink[1]) < 0.75 * np.mean(ink[0])
    corners = [
        [
            pixels(draw_image(name, "real", seed, version=v))[:6, :6].std()
            for name, seed in keys
        ]
        for v in (1, 2)
    ]
    plain = [
        sum(deviation < 0.03 for deviation in of_version) for of_version in corners
    ]
    assert plain[1] >= plain[0] + 3
    same = [
        pixels(draw_image("fish", style, 1, version=v))
        for style in ("clipart", "sketch")
        for v in (1, 2)
    ]
    np.testing.assert_array_equal(same[::2], same[1::2])
