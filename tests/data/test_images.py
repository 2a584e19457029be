"""Reading image files of every kind, many of them ahead of the consumer, and looking them up."""

import contextlib
import hashlib
import os
import re
from collections.abc import Callable, Iterable
from pathlib import Path

import numpy as np
import open_clip
import pytest
import torch
from PIL import EpsImagePlugin, Image
from torch import Tensor

from circuitry.data import (
    ImageRecord,
    decoding,
    file_check,
    image_listing,
    images,
    load_image,
)
from circuitry.data.decoding import numbered_batches, with_decoding
from circuitry.data.file_check import FileCheck
from circuitry.data.images import FORMATS, picture_formats, upright
from circuitry.runs import InputError


def pixel(image: Image.Image, x: int = 0, y: int = 0) -> tuple[int, ...]:
    value = image.getpixel((x, y))
    assert isinstance(value, tuple)
    return tuple(int(v) for v in value)


def to_tensor(image: Image.Image) -> Tensor:
    return torch.from_numpy(np.array(image)).permute(2, 0, 1).float()


def make_images(folder: Path, n: int) -> list[Path]:
    """n flat pictures, the i-th of grey level i."""
    paths = [folder / f"{i:03d}.png" for i in range(n)]
    for i, path in enumerate(paths):
        Image.new("RGB", (4, 3), (i, i, i)).save(path)
    return paths


@pytest.mark.parametrize(
    ("mode", "colour", "suffix", "expected"),
    [
        ("RGB", (200, 100, 50), "png", (200, 100, 50)),
        ("L", 77, "png", (77, 77, 77)),
        ("1", 1, "png", (255, 255, 255)),
        ("CMYK", (0, 255, 255, 0), "tif", (255, 0, 0)),
        ("RGBA", (200, 100, 50, 255), "png", (200, 100, 50)),
        ("RGBA", (0, 0, 0, 0), "png", (255, 255, 255)),
        ("RGBA", (0, 0, 0, 51), "png", (204, 204, 204)),
        ("LA", (0, 0), "png", (255, 255, 255)),
        ("LA", (90, 255), "png", (90, 90, 90)),
        ("I;16", 65535, "png", (255, 255, 255)),
        ("I;16", 257 * 100, "png", (100, 100, 100)),
        ("I;16", 257 * 100, "tif", (100, 100, 100)),
        ("I;16", 0, "tif", (0, 0, 0)),
        ("I", 257 * 100, "ppm", (100, 100, 100)),
    ],
)
def test_every_mode_becomes_rgb_over_white(
    mode: str,
    colour: int | tuple[int, ...],
    suffix: str,
    expected: tuple[int, ...],
    tmp_path: Path,
) -> None:
    path = tmp_path / f"image.{suffix}"
    Image.new(mode, (5, 4), colour).save(path)
    image = load_image(path)
    assert (image.mode, image.size, pixel(image)) == ("RGB", (5, 4), expected)


def test_transparent_palette_colour_is_white(tmp_path: Path) -> None:
    palette = Image.new("P", (2, 1))
    palette.putpalette([10, 20, 30, 40, 50, 60])
    palette.putpixel((1, 0), 1)
    palette.save(tmp_path / "p.png", transparency=1)
    image = load_image(tmp_path / "p.png")
    assert pixel(image) == (10, 20, 30)
    assert pixel(image, 1) == (255, 255, 255)


def test_cmyk_jpeg(tmp_path: Path) -> None:
    Image.new("CMYK", (8, 8), (0, 255, 255, 0)).save(tmp_path / "c.jpg", quality=100)
    red, green, blue = pixel(load_image(tmp_path / "c.jpg"))
    assert red > 245
    assert max(green, blue) < 10


def test_exif_orientation_is_applied(tmp_path: Path) -> None:
    picture = Image.new("RGB", (16, 8), "black")
    picture.paste((255, 255, 255), (0, 0, 8, 8))  # left half white
    exif = Image.Exif()
    exif[0x0112] = 6  # turned a quarter; left becomes top
    picture.save(tmp_path / "turned.jpg", exif=exif, quality=100)
    image = load_image(tmp_path / "turned.jpg")
    assert image.size == (8, 16)
    assert min(pixel(image, 4, 2)) > 240
    assert max(pixel(image, 4, 13)) < 15


POSTSCRIPT = (
    b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 8 8\n%%EndComments\nshowpage\n%%EOF\n"
)


def test_postscript_under_the_name_of_a_picture_starts_no_program(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ghostscript, picture = tmp_path / "bin" / "gs", tmp_path / "cat.png"
    ghostscript.parent.mkdir()
    ghostscript.write_text(f"#!/bin/sh\ntouch {tmp_path}/started\n")
    ghostscript.chmod(0o755)
    picture.write_bytes(POSTSCRIPT)
    monkeypatch.setenv("PATH", f"{ghostscript.parent}:{os.environ['PATH']}")
    monkeypatch.setattr(
        EpsImagePlugin, "gs_binary", None
    )  # it is looked for once in a process
    with pytest.raises(InputError) as refused:
        load_image(picture)
    assert not (tmp_path / "started").exists()
    assert all(word in str(refused.value) for word in ("cat.png", "formats", *FORMATS))
    with Image.open(picture) as opened, contextlib.suppress(Exception):
        opened.load()  # as Pillow does it by itself
    assert (tmp_path / "started").exists()


def test_pictures_are_opened_in_one_place() -> None:
    package = Path(images.__file__).parents[1]
    opening = [
        path
        for path in package.rglob("*.py")
        if re.search(r"\bImage\.open\(", path.read_text())
    ]
    assert opening == [Path(images.__file__)]


@pytest.mark.parametrize("kind", FORMATS)
def test_every_format_that_is_named_is_read(kind: str, tmp_path: Path) -> None:
    if kind not in picture_formats():
        pytest.skip(f"this Pillow has no {kind}")
    Image.new("RGB", (8, 8), (200, 100, 50)).save(tmp_path / "picture", kind)
    assert np.allclose(pixel(load_image(tmp_path / "picture")), (200, 100, 50), atol=3)


def numbers(batches: Iterable[tuple[list[int], Tensor]]) -> list[list[int]]:
    found = []
    for places, batch in batches:
        assert len(places) == len(batch)
        found.append(batch[:, 0, 0, 0].int().tolist())
        assert found[-1] == places
    return found


@pytest.mark.parametrize("batch_size", [1, 3, 7, 20])
def test_batches_hold_all_images_in_order(batch_size: int, tmp_path: Path) -> None:
    batches = numbers(numbered_batches(make_images(tmp_path, 7), to_tensor, batch_size))
    assert [len(batch) for batch in batches[:-1]] == [batch_size] * (len(batches) - 1)
    assert [number for batch in batches for number in batch] == list(range(7))


def test_unreadable_images_are_skipped_with_a_warning_or_refused(
    tmp_path: Path,
) -> None:
    paths = make_images(tmp_path, 6)
    paths[1].write_bytes(b"")
    paths[4].unlink()
    with pytest.warns(UserWarning, match="Skipped an image") as caught:
        assert numbers(numbered_batches(paths, to_tensor, 2)) == [[0, 2], [3, 5]]
    assert [
        name
        for name in ("001.png", "004.png")
        if name in str([str(one.message) for one in caught])
    ]
    assert len(caught) == 2
    batches = numbered_batches(paths, to_tensor, 1, strict=True)
    assert next(batches)[0] == [0]
    with pytest.raises(InputError, match=r"001\.png: the file is empty"):
        next(batches)


@pytest.mark.parametrize(
    ("error", "why"),
    [(MemoryError(), "MemoryError"), (RuntimeError("no room."), "no room")],
)
def test_images_that_cannot_be_preprocessed_are_left_out(
    error: Exception, why: str, tmp_path: Path
) -> None:
    def failing(image: Image.Image) -> Tensor:
        if pixel(image)[0] == 1:
            raise error
        return to_tensor(image)

    paths = make_images(tmp_path, 3)
    with pytest.warns(UserWarning, match=rf"001\.png: {why}"):
        assert numbers(numbered_batches(paths, failing, 2)) == [[0, 2]]
    with pytest.raises(InputError, match="Cannot preprocess") as refused:
        list(numbered_batches(paths, failing, 2, strict=True))
    assert refused.value.__cause__ is error


def test_images_too_long_and_thin_to_be_resized_are_left_out(tmp_path: Path) -> None:
    paths = make_images(tmp_path, 3)
    for path, size in zip(paths, ((65000, 1), (1, 65000), (1000, 1)), strict=True):
        Image.new("RGB", size).save(path)

    def resized(image: Image.Image) -> Tensor:
        assert max(image.size) <= 1000 * min(image.size)
        return to_tensor(image.resize((4, 4)))

    with pytest.warns(UserWarning, match=r"65000 x 1|1 x 65000") as caught:
        assert [places for places, _ in numbered_batches(paths, resized, 2)] == [[2]]
    assert len(caught) == 2


def test_a_listing_knows_each_file_by_size_and_content(tmp_path: Path) -> None:
    records = []
    for name, content in (("1.png", b"abc"), ("2.png", b"abd"), ("3.png", b"abc")):
        (tmp_path / name).write_bytes(content)
        records.append(
            ImageRecord(tmp_path / name, f"photo/cat/{name}", "photo", "cat")
        )
    records.append(ImageRecord(tmp_path / "4.png", "photo/cat/4.png", "photo", "cat"))
    found = image_listing(records)
    assert list(found) == [record.relative for record in records]
    assert (
        found["photo/cat/1.png"]
        == found["photo/cat/3.png"]
        == f"3 {hashlib.sha256(b'abc').hexdigest()[:16]}"
    )
    assert found["photo/cat/2.png"] != found["photo/cat/1.png"]
    assert found["photo/cat/4.png"] == "absent"


def test_as_stored_is_what_the_study_reads(tmp_path: Path) -> None:
    """Of files that it reads otherwise: turned, transparent, of one bit; and of one that it does not."""
    transform = open_clip.image_transform(16, is_train=False)
    noise = np.random.default_rng(0).integers(0, 256, (20, 30, 3), dtype=np.uint8)
    plain, exif = Image.fromarray(noise), Image.Exif()
    exif[0x0112] = 6
    alpha = plain.convert("RGBA")
    alpha.putalpha(Image.fromarray(noise[:, :, 0]))
    pictures = {
        "plain": plain,
        "alpha": alpha,
        "bit": plain.convert("1"),
        "palette": plain.convert("P"),
    }
    files = {name: tmp_path / f"{name}.png" for name in pictures} | {
        "turned": tmp_path / "turned.jpg"
    }
    plain.save(files["turned"], exif=exif)
    for name, picture in pictures.items():
        picture.save(files[name])

    def read(preprocess: Callable[[Image.Image], Tensor]) -> dict[str, Tensor]:
        ((_, batch),) = numbered_batches(list(files.values()), preprocess, batch_size=8)
        return dict(zip(files, batch, strict=True))

    stored, turned = read(with_decoding(transform, "as-stored")), read(transform)
    for name, path in files.items():
        assert torch.equal(stored[name], transform(Image.open(path))), (
            name
        )  # the study's data set, line for line
        assert torch.equal(stored[name], turned[name]) == (name == "plain"), name
        assert torch.equal(
            turned[name], transform(upright(Image.open(path)))
        )  # what trainings see
    assert with_decoding(with_decoding(transform, "as-stored"), "upright") is transform


@pytest.mark.parametrize("held", [1, 3, 5, 1000])
def test_files_are_found_whatever_memory_holds(
    held: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(file_check, "MOST_NAMES", held)
    there = {f"{folder}/{i}.png" for folder in "abc" for i in range(2)}
    for name in there:
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    asked = [
        f"{folder}/{i}.png"
        for i in (0, 2, 1)
        for folder in ("a", "b", "none", "c", "a/0.png")
    ] * 2
    check = FileCheck("skip", tmp_path)
    assert [name for name in asked if check.keeps(name)] == [
        name for name in asked if name in there
    ]
    assert check.missing.count == len(asked) - 12
    assert sum(len(names or ()) for names in check._listings.values()) <= held


def test_at_most_a_batch_is_decoded_in_advance(tmp_path: Path) -> None:
    seen: list[int] = []

    def recording(image: Image.Image) -> Tensor:
        seen.append(pixel(image)[0])
        return to_tensor(image)

    batches = numbered_batches(make_images(tmp_path, 40), recording, 4)
    next(batches)
    batches.close()  # type: ignore[attr-defined]
    assert len(seen) <= 4 + 4 + 2


def test_each_core_of_a_process_decodes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("LOCAL_WORLD_SIZE", raising=False)
    monkeypatch.setattr(decoding, "allowed_cores", lambda: 12)
    assert decoding.decoding_threads() == 12
    # torchrun says how many processes share the cores, and gives each one thread for sums.
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "4")
    assert decoding.decoding_threads() == 3
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "8")
    assert decoding.decoding_threads() == 2
