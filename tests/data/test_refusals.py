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
from PIL import Image, ImageFile

from circuitry.data import (
    DomainFolder,
    ShuffledImages,
    fold_numbers,
    image_listing,
    item_column,
    load_image,
)
from circuitry.data.decoding import numbered_batches
from circuitry.data.imagenet_classes import class_key, imagenet_index, study_held_out
from circuitry.data.names import chosen_names
from circuitry.runs import InputError
from tests.data.test_domains import touch, write_lists
from tests.data.test_folds import records_of
from tests.data.test_images import make_images


@pytest.fixture
def world(tmp_path: Path) -> Path:
    """Lists of two domains whose files are there, and folders of two other domains without lists in ``plain``."""
    lists = {
        "real": ["real/cello/c 1.png 0", "real/zebra/z.png 1"],
        "painting": ["painting/cello/c.png 0"],
    }
    write_lists(tmp_path, "test", lists)
    touch(
        tmp_path,
        *(line.rpartition(" ")[0] for lines in lists.values() for line in lines),
    )
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


def with_table(root: Path, *rows: Sequence[str], label: str = "item") -> DomainFolder:
    columns = ["path", "class", "domain", label][: len(rows[0]) if rows else 3]
    pd.DataFrame(rows, columns=columns).to_csv(
        root / "plain" / "images.csv", index=False
    )
    return DomainFolder(root / "plain" / "images.csv")


def with_items(root: Path, lines: bytes = b"a/axe/a_4.png\t\n") -> dict[str, str]:
    with_bytes(root, "pictures.tsv", b"path\tsource\n" + lines)
    return item_column(root / "pictures.tsv", "source")


def saved(mode: str, value: float, kind: str, **options: Any) -> bytes:
    buffer = io.BytesIO()
    Image.new(mode, (2, 2), value).save(buffer, kind, **options)
    return buffer.getvalue()


def jpeg() -> bytes:
    buffer, noise = (
        io.BytesIO(),
        np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8),
    )
    Image.fromarray(noise).save(buffer, "jpeg")
    return buffer.getvalue()


def broken_png() -> bytes:
    chunk = b"IHDR" + struct.pack(">IIBBBBB", 4, 4, 8, 2, 0, 0, 0)
    ihdr = struct.pack(">I", 13) + chunk + struct.pack(">I", zlib.crc32(chunk))
    return (
        b"\x89PNG\r\n\x1a\n" + ihdr + struct.pack(">I", 8) + b"IDATgarbage!" + b"\0" * 4
    )


def tensors(root: Path, change: Callable[[int], torch.Tensor]) -> object:
    """Read two images, the i-th of which becomes ``change(i)``."""
    return list(
        numbered_batches(
            make_images(root, 2), lambda image: change(int(np.asarray(image).max())), 2
        )
    )


MALFORMED = (
    *(
        "real/cello/c.png",
        "real/cello/c.png one",
        "real/c.png 0",
        "sketch/cello/c.png 0",
        "real//c.png 0",
        "0",
    ),
    *("/real/cello/c.png 0", "../real/cello/c.png 0"),
)
OUTSIDE = (
    "real/cello/c\0.png 0",
    *(
        "real/../../secret.png 0",
        "real/cello/../../../secret.png 0",
        "real/./c.png 0",
        "real/../c.png 0",
    ),
    *(r"real/cello/..\..\secret.png 0", r"real/cello/\\host\c.png 0"),
)
LINES = [
    *((line, "<class>/<file>") for line in MALFORMED),
    *((line, "folder real") for line in OUTSIDE),
]

REFUSALS: list[tuple[Callable[[Path], object], tuple[str, ...]]] = [
    # Sources of images
    (lambda w: DomainFolder(w / "none"), ("none does not exist",)),
    (lambda w: DomainFolder(w / "empty"), ("<domain>/<class>/<file>",)),
    (
        lambda w: DomainFolder(w / "painting_test.txt"),
        ("a folder of domains", "painting_test.txt is a file"),
    ),
    (lambda w: DomainFolder(w, split="val"), ("<domain>_val.txt", "the splits test ")),
    (
        lambda w: DomainFolder(w, domains=["paintings"]),
        ("domain 'paintings'", "painting"),
    ),
    (lambda w: DomainFolder(w, classes=["dog"]), ("class 'dog'", "cello, zebra")),
    (lambda w: DomainFolder(w, domains=[]), ("at least one domain",)),
    (
        lambda w: DomainFolder({"photo": w / "plain" / "photo", "drawn": w / "plain"}),
        ("drawn", "no images"),
    ),
    (
        lambda w: DomainFolder({"photo": w / "plain" / "photo", "drawn": w / "absent"}),
        ("drawn", "absent"),
    ),
    (lambda w: plain(w).select("owl", "sketch", 0), ("at least 1", "0")),
    (lambda w: plain(w).select("owls", "sketch"), ("class 'owls'", "owl")),
    (
        lambda w: plain(w).select("owl", "clipart"),
        ("domain 'clipart'", "photo, sketch"),
    ),
    (lambda w: ShuffledImages(w, first=("lion",)), ("'lion'",)),
    (lambda w: ShuffledImages(w).select("dog", "real"), ("'dog'",)),
    # Lists and tables
    *(
        (
            lambda w, line=line, m=m: with_list(
                w, "real", "real/cello/c 1.png 0", "", line, missing_files=m
            ),
            words,
        )
        for line, why in LINES
        for m, words in (
            ("refuse", ("real_test.txt, line 3", why, repr(line))),
            ("unchecked", ("line 3", why)),
        )
    ),
    (
        lambda w: with_list(w, "real", *["real/cello/c 1.png 0"] * 2),
        ("real_test.txt names real/cello/c 1.png", "one"),
    ),
    (
        lambda w: with_list(w, "painting", "painting/cello/c.png 1"),
        ("class 'cello' the label 0", " 1"),
    ),
    (
        lambda w: with_list(w, "painting", "painting/harp/c.png 0"),
        ("label 0 to class 'cello'", "'harp'"),
    ),
    (
        lambda w: with_list(
            w, "clipart", *(f"clipart/cello/{i}.png 0" for i in range(7))
        ),
        (
            "name 7 files that do not exist",
            "clipart/cello/0.png",
            "clipart/cello/4.png; complete",
        ),
    ),
    (
        lambda w: DomainFolder(
            with_bytes(w, "real_test.txt", b"real/caf\xe9/1.png 0\n").parent
        ),
        ("UTF-8", "byte 8"),
    ),
    (
        lambda w: with_folder(w, "real/cello/c 1.png"),
        ("name 1 files that do not exist", "real/cello/c 1.png"),
    ),
    (
        lambda w: with_folder(w, "real_test.txt"),
        ("Expected a text file", "real_test.txt is a folder"),
    ),
    (lambda w: with_table(w, ("photo/owl/1.webp", "owl")), ("domain", "add domain")),
    (lambda w: with_table(w, ("photo/owl/1.webp", "owl", "")), ("ow 1", "empty")),
    (
        lambda w: with_table(w, ("photo/owl/1.webp", "owl", "a/b")),
        ("ow 1", "slashes", "a/b"),
    ),
    (
        lambda w: with_table(w, *[("photo/owl/1.webp", "owl", "photo")] * 2),
        ("photo/owl/1.webp", "twice"),
    ),
    (
        lambda w: with_table(w, ("photo/owl/7.webp", "owl", "photo")),
        ("1 files that do not exist", "7.webp"),
    ),
    (lambda w: with_table(w), ("no images",)),
    # Files of images
    (lambda w: load_image(w / "none.png"), ("none.png: there is no such file",)),
    (lambda w: load_image(w), ("it is a folder",)),
    *(
        (
            lambda w, content=content: load_image(with_bytes(w, "bad.jpg", content())),
            ("Cannot read", "bad.jpg: ", why),
        )
        for content, why in (
            (bytes, "the file is empty"),
            (lambda: b"<html>404</html>", "not an image"),
            (lambda: jpeg()[:1500], "truncated"),
            (broken_png, "broken"),
            (lambda: saved("F", 0.5, "tiff"), "floating-point numbers"),
            (lambda: saved("I", 200, "tiff"), "32-bit integers"),
            (lambda: saved("I;16", 4095, "tiff"), "4095 of 65535"),
        )
    ),
    (
        lambda w: tensors(w, lambda i: torch.ones(3, 2, 2) * 1j),
        ("real numbers", "000.png", "complex64"),
    ),
    (
        lambda w: tensors(w, lambda i: torch.ones(3, 2 + i, 2)),
        ("001.png", "(3, 3, 2) after (3, 2, 2)"),
    ),
    # Folds and names
    (
        lambda w: fold_numbers(records_of({"a": [4]}), 2, with_items(w)),
        ("a/axe/a_4.png",),
    ),
    (
        lambda w: [with_items(w), item_column(w / "pictures.tsv", "item")],
        ("path or filepath and item", "path, source"),
    ),
    (lambda w: with_items(w, b'"a'), ("pictures.tsv", "cannot be read")),
    (lambda w: with_items(w, b"a.png\tx\na.png\ty\n"), ("a.png", "several")),
    (lambda w: imagenet_index([f"n{i:08d}" for i in range(999)]), ("1000 ", " 999")),
    (lambda w: study_held_out(["cat"]), ("15 classes", "--held-out")),
    (
        lambda w: chosen_names("held-out class", ["dog"], ["axe", "bed"], class_key),
        ("held-out class 'dog'", "axe, bed"),
    ),
]


@pytest.mark.parametrize(("use", "words"), REFUSALS)
def test_refusals(
    use: Callable[[Path], object],
    words: tuple[str, ...],
    world: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(
        ImageFile, "LOAD_TRUNCATED_IMAGES", True
    )  # as another library may do
    with pytest.raises(InputError) as refused:
        use(world)
    assert all(word in str(refused.value) for word in words), refused.value
    assert ImageFile.LOAD_TRUNCATED_IMAGES


def with_files(root: Path, *names: str) -> object:
    touch(root / "plain", *names)
    return plain(root)


def with_pictures(root: Path, source: Callable[[Path], Any]) -> object:
    """Ask for the content of pictures of a source that is made in a folder of two equal pictures and another one."""
    touch(root, "photo/owl/none.png")
    first, second, other = make_images(root / "photo" / "owl", 3)
    second.unlink()
    second.symlink_to(first)
    table = [
        (str(first), "owl", "ink"),
        (str(first), "axe", "ink"),
        (str(other), "axe", "ink"),
    ]
    return image_listing(
        DomainFolder(
            source(root) or pd.DataFrame(table, columns=["path", "class", "domain"])
        ).records
    )


SEVERAL = "keep each picture once"
TOLD: list[tuple[Callable[[Path], object], tuple[str, ...]]] = [
    (
        lambda w: with_files(
            w,
            "photo/owl/a.txt",
            "photo/owl/.b.png",
            "photo/Thumbs.db",
            "photo/owl/c.npy",
        ),
        (),
    ),
    (
        lambda w: with_files(
            w, "photo/owl/old/1.png", "photo/owl/2.heic", "photo/owl/3", "4.png"
        ),
        ("over 4", "old/1.png"),
    ),
    (lambda w: with_list(w / "plain", "photo", "photo/owl/1.webp 0"), ()),
    (
        lambda w: [
            with_files(w, "photo/owl/2.png"),
            with_list(w / "plain", "photo", "photo/owl/1.webp 0"),
        ],
        ("1 of the 3",),
    ),
    (
        lambda w: with_list(w, "real", "real/cello/c 1.png 0", "real/zebra/z.png 17"),
        ("0, 17", "not 0 to 1"),
    ),
    (
        lambda w: with_table(
            w, ("photo/owl/1.webp", "owl", "photo", "7"), label="label"
        ),
        ("not read: label",),
    ),
    (
        lambda w: with_table(
            w, ("photo/owl/1.webp", "owl", "photo", "x"), label="item"
        ),
        (),
    ),
    (
        lambda w: with_pictures(w, lambda root: root / "photo"),
        ("1 of 4", "0 of them are in another class", SEVERAL),
    ),
    (
        lambda w: with_pictures(w, lambda root: None),
        ("1 of 3", "1 of them are in another class", SEVERAL),
    ),
    (
        lambda w: with_pictures(
            w, lambda root: {"a": root / "photo", "b": root / "photo"}
        ),
        ("5 of 8", SEVERAL),
    ),
]


@pytest.mark.parametrize(("use", "words"), TOLD)
def test_what_is_passed_over_or_said_twice_is_told_once(
    use: Callable[[Path], object],
    words: tuple[str, ...],
    world: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    for _ in range(2):
        use(world)
    assert len(caplog.messages) == bool(words), caplog.messages
    assert all(word in caplog.text for word in words), caplog.text
