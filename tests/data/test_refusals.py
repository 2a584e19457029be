"""What the room of data refuses, and the names and values that the sentence holds."""

import io
import struct
import zlib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image

from circuitry.data import DomainFolder, ShuffledImages, item_column, load_image, part_numbers
from circuitry.data.decoding import numbered_batches
from circuitry.data.imagenet_classes import class_key, imagenet_index, study_held_out
from circuitry.data.names import chosen_names
from circuitry.runs import InputError
from tests.data.test_domains import touch, write_lists
from tests.data.test_images import make_images
from tests.data.test_parts import records_of


@pytest.fixture
def world(tmp_path: Path) -> Path:
    """Lists of two domains whose files are there, and folders of two other domains without lists in ``plain``."""
    lists = {"real": ["real/cello/c 1.png 0", "real/zebra/z.png 1"], "painting": ["painting/cello/c.png 0"]}
    write_lists(tmp_path, "test", lists)
    touch(tmp_path, *(line.rpartition(" ")[0] for lines in lists.values() for line in lines))
    touch(tmp_path, "plain/photo/owl/1.webp", "plain/sketch/owl/1.jpg", "empty/1.png")
    return tmp_path


def plain(root: Path) -> DomainFolder:
    return DomainFolder(root / "plain")


def with_list(root: Path, domain: str, *lines: str, **options: Any) -> DomainFolder:
    write_lists(root, "test", {domain: lines})
    return DomainFolder(root, **options)


def with_bytes(root: Path, name: str, content: bytes) -> Path:
    (root / name).write_bytes(content)
    return root / name


def with_folder(root: Path, name: str) -> DomainFolder:
    (root / name).unlink()
    (root / name).mkdir()
    return DomainFolder(root)


def with_table(root: Path, *rows: Sequence[str]) -> DomainFolder:
    columns = ["path", "class", "domain"][: len(rows[0]) if rows else 3]
    pd.DataFrame(rows, columns=columns).to_csv(root / "plain" / "images.csv", index=False)
    return DomainFolder(root / "plain" / "images.csv")


def with_items(root: Path) -> dict[str, str]:
    with_bytes(root, "pictures.tsv", b"path\tsource\na/axe/a_4.png\t\n")
    return item_column(root / "pictures.tsv", "source")


def saved(mode: str, value: float, kind: str, **options: Any) -> bytes:
    buffer = io.BytesIO()
    Image.new(mode, (2, 2), value).save(buffer, kind, **options)
    return buffer.getvalue()


def jpeg() -> bytes:
    buffer, noise = io.BytesIO(), np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    Image.fromarray(noise).save(buffer, "jpeg")
    return buffer.getvalue()


def broken_png() -> bytes:
    chunk = b"IHDR" + struct.pack(">IIBBBBB", 4, 4, 8, 2, 0, 0, 0)
    ihdr = struct.pack(">I", 13) + chunk + struct.pack(">I", zlib.crc32(chunk))
    return b"\x89PNG\r\n\x1a\n" + ihdr + struct.pack(">I", 8) + b"IDATgarbage!" + b"\0" * 4


def tensors(root: Path, change: Callable[[int], torch.Tensor]) -> object:
    """Read two images, the i-th of which becomes ``change(i)``."""
    return list(numbered_batches(make_images(root, 2), lambda image: change(int(np.asarray(image).max())), 2))


MALFORMED = (
    *("real/cello/c.png", "real/cello/c.png one", "real/c.png 0", "sketch/cello/c.png 0", "real//c.png 0", "0"),
    *("/real/cello/c.png 0", "../real/cello/c.png 0"),
)
OUTSIDE = (
    "real/cello/c\0.png 0",
    *("real/../../secret.png 0", "real/cello/../../../secret.png 0", "real/./c.png 0", "real/../c.png 0"),
    *(r"real/cello/..\..\secret.png 0", r"real/cello/\\host\c.png 0"),
)
LINES = [*((line, "<class>/<file>") for line in MALFORMED), *((line, "folder real") for line in OUTSIDE)]

REFUSALS: list[tuple[Callable[[Path], object], tuple[str, ...]]] = [
    # Sources of images
    (lambda w: DomainFolder(w / "none"), ("none does not exist",)),
    (lambda w: DomainFolder(w / "empty"), ("<domain>/<class>/<file>",)),
    (lambda w: DomainFolder(w / "painting_test.txt"), ("a folder of domains", "painting_test.txt is a file")),
    (lambda w: DomainFolder(w, split="val"), ("<domain>_val.txt", "the splits test ")),
    (lambda w: DomainFolder(w, domains=["paintings"]), ("domain 'paintings'", "painting")),
    (lambda w: DomainFolder(w, classes=["dog"]), ("class 'dog'", "cello, zebra")),
    (lambda w: DomainFolder(w, domains=[]), ("at least one domain",)),
    (lambda w: DomainFolder({"photo": w / "plain" / "photo", "drawn": w / "plain"}), ("drawn", "no images")),
    (lambda w: DomainFolder({"photo": w / "plain" / "photo", "drawn": w / "absent"}), ("drawn", "absent")),
    (lambda w: plain(w).select("owl", "sketch", 0), ("at least 1", "0")),
    (lambda w: plain(w).select("owls", "sketch"), ("class 'owls'", "owl")),
    (lambda w: plain(w).select("owl", "clipart"), ("domain 'clipart'", "photo, sketch")),
    (lambda w: ShuffledImages(w, first=("lion",)), ("'lion'",)),
    (lambda w: ShuffledImages(w).select("dog", "real"), ("'dog'",)),
    # Lists and tables
    *(
        (lambda w, line=line, m=m: with_list(w, "real", "real/cello/c 1.png 0", "", line, missing_files=m), words)
        for line, why in LINES
        for m, words in (("refuse", ("real_test.txt, line 3", why, repr(line))), ("unchecked", ("line 3", why)))
    ),
    (lambda w: with_list(w, "painting", "painting/cello/c.png 1"), ("class 'cello' the label 0", " 1")),
    (lambda w: with_list(w, "painting", "painting/harp/c.png 0"), ("label 0 to class 'cello'", "'harp'")),
    (
        lambda w: with_list(w, "clipart", *(f"clipart/cello/{i}.png 0" for i in range(7))),
        ("name 7 files that do not exist", "clipart/cello/0.png", "clipart/cello/4.png; complete"),
    ),
    (lambda w: DomainFolder(with_bytes(w, "real_test.txt", b"real/caf\xe9/1.png 0\n").parent), ("UTF-8", "byte 8")),
    (lambda w: with_folder(w, "real/cello/c 1.png"), ("name 1 files that do not exist", "real/cello/c 1.png")),
    (lambda w: with_folder(w, "real_test.txt"), ("Expected a text file", "real_test.txt is a folder")),
    (lambda w: with_table(w, ("photo/owl/1.webp", "owl")), ("domain", "add domain")),
    (lambda w: with_table(w, ("photo/owl/1.webp", "owl", "")), ("ow 1", "empty")),
    (lambda w: with_table(w, ("photo/owl/1.webp", "owl", "a/b")), ("ow 1", "slashes", "a/b")),
    (lambda w: with_table(w, *[("photo/owl/1.webp", "owl", "photo")] * 2), ("photo/owl/1.webp", "twice")),
    (lambda w: with_table(w, ("photo/owl/7.webp", "owl", "photo")), ("1 files that do not exist", "7.webp")),
    (lambda w: with_table(w), ("no images",)),
    # Files of images
    (lambda w: load_image(w / "none.png"), ("none.png: there is no such file",)),
    (lambda w: load_image(w), ("it is a folder",)),
    *(
        (lambda w, content=content: load_image(with_bytes(w, "bad.jpg", content())), ("Cannot read", "bad.jpg: ", why))
        for content, why in (
            (bytes, "the file is empty"),
            (lambda: b"<html>404</html>", "not an image"),
            (lambda: jpeg()[:1500], "truncated"),
            (broken_png, "broken"),
            (lambda: saved("F", 0.5, "tiff"), "floating-point numbers"),
            (lambda: saved("I", 1 << 20, "tiff"), "32-bit integers"),
        )
    ),
    (lambda w: tensors(w, lambda i: torch.ones(3, 2, 2) * 1j), ("real numbers", "000.png", "complex64")),
    (lambda w: tensors(w, lambda i: torch.ones(3, 2 + i, 2)), ("001.png", "(3, 3, 2) after (3, 2, 2)")),
    # Parts and names
    (lambda w: part_numbers(records_of({"a": [4]}), 2, with_items(w)), ("a/axe/a_4.png",)),
    (lambda w: [with_items(w), item_column(w / "pictures.tsv", "item")], ("path or filepath and item", "path, source")),
    (lambda w: imagenet_index([f"n{i:08d}" for i in range(999)]), ("1000 ", " 999")),
    (lambda w: study_held_out(["cat"]), ("15 classes", "--held-out")),
    (
        lambda w: chosen_names("held-out class", ["dog"], ["axe", "bed"], class_key),
        ("held-out class 'dog'", "axe, bed"),
    ),
]


@pytest.mark.parametrize(("use", "words"), REFUSALS)
def test_refusals(use: Callable[[Path], object], words: tuple[str, ...], world: Path) -> None:
    with pytest.raises(InputError) as refused:
        use(world)
    assert all(word in str(refused.value) for word in words), refused.value
