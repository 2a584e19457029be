"""Captions of whole data sets: one random stream through all lists, tables and what they may name, ImageNet-Sketch."""

import gzip
import json
import random
import shutil
from pathlib import Path

import pytest

from circuitry.data import DomainFolder, ImageRecord, caption, image_rng
from circuitry.runs import InputError
from circuitry.training import read_captions
from experiments.study.mixture_files import (
    SKETCH_PATTERNS,
    Captioning,
    first_of,
    sketch_caption,
    sketch_captions,
    stream_captions,
)
from experiments.study.selection import SketchSet
from tests.conftest import shared
from tests.study.test_files import DOMAINS
from tests.study.test_files import root as root


def unpacked(name: str) -> list[str]:
    with gzip.open(shared(f"golden/study_data/{name}.gz"), "rt", encoding="utf-8") as file:
        return file.read().splitlines()


@pytest.fixture(scope="module")
def study_lists(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The twelve lists of the lent listing, and nothing else."""
    folder = tmp_path_factory.mktemp("lists")
    for domain in DOMAINS:
        for split in ("train", "test"):
            lines = unpacked(f"{domain}_{split}.txt")
            (folder / f"{domain}_{split}.txt").write_text("\n".join(lines) + "\n")
    return folder


@pytest.mark.parametrize("kind", ["captions", "aligned"])
def test_captions_equal_the_studys(kind: str, study_lists: Path) -> None:
    captions = stream_captions(study_lists, aligned=kind == "aligned")
    compared = 0
    for domain in DOMAINS:
        for split in ("train", "test"):
            for line in unpacked(f"{kind}_{domain}_{split}.tsv"):
                path, _, expected = line.split("\t")
                assert captions[split][path] == expected
                compared += 1
    assert compared == sum(map(len, captions.values())) == 13853


def test_one_stream_goes_through_all_lists(root: Path) -> None:
    rng = random.Random(7)
    expected: dict[str, dict[str, str]] = {"train": {}, "test": {}}
    for domain in DOMAINS:
        for split, captions in expected.items():
            for line in (root / f"{domain}_{split}.txt").read_text().splitlines():
                path = line.split(" ")[0]
                captions[path] = caption(path.split("/")[1], domain, rng)
    assert stream_captions(root, 7) == expected


def test_files_that_are_missing_shift_no_caption(root: Path, tmp_path: Path) -> None:
    for path in root.glob("*_*.txt"):
        shutil.copy(path, tmp_path)
    assert stream_captions(tmp_path) == stream_captions(root)


# --- where captions come from ----------------------------------------------------------------------------------------


def test_origins_give_their_captions(root: Path, tmp_path: Path) -> None:
    record = DomainFolder(root, split="test", domains=["sketch"]).records[1]
    by_image = Captioning(root, "by-image", 3).of("test", aligned=True)
    assert callable(by_image)
    assert by_image(record) == caption(record.class_name, "sketch", image_rng(record.relative, 3), aligned=True)
    stream = Captioning(root, "stream", 3)
    assert stream.of("train") == stream_captions(root, 3)["train"]
    assert stream.of("test", aligned=True) == stream_captions(root, 3, aligned=True)["test"]
    with pytest.raises(InputError, match=r"'val'.*train, test"):
        stream.of("val")
    assert Captioning(root, "file").of("test") == read_captions(root)
    with pytest.raises(InputError, match="--aligned-captions"):
        Captioning(root, "file").of("test", aligned=True)
    (tmp_path / "aligned.tsv").write_text(f"filepath\ttitle\n{record.relative}\tan image of a axe\n")
    aligned = Captioning(root, "file", aligned_captions=tmp_path / "aligned.tsv").of("test", aligned=True)
    assert aligned == {record.relative: "an image of a axe"}


# --- ImageNet-Sketch -------------------------------------------------------------------------------------------------


def test_captions_of_imagenet_sketch_by_stream_and_by_image() -> None:
    images = [ImageRecord(Path(f"/x/n{i}/{k}.JPEG"), f"n{i}/{k}.JPEG", "sketch", f"n{i}") for i in (0, 1) for k in "ab"]
    sketches = SketchSet(images, {"n0": "tench", "n1": "goldfish"}, frozenset(["n1"]))
    rng = random.Random(42)
    names = ("tench", "tench", "goldfish", "goldfish")
    drawn = {image.relative: sketch_caption(name, rng) for image, name in zip(images, names, strict=True)}
    assert sketch_captions(sketches, "stream") == drawn
    by_image = sketch_captions(sketches, "file", 5)
    assert by_image["n1/b.JPEG"] == sketch_caption("goldfish", image_rng("n1/b.JPEG", 5))
    both = first_of({"n0/a.JPEG": "known"}, {"n0/b.JPEG": "other"})
    assert [both(image) for image in images[:3]] == ["known", "other", ""]


def test_captions_of_imagenet_sketch() -> None:
    found = {sketch_caption("zebra", image_rng(path)) for path in (f"sketch/zebra/{i}.png" for i in range(1200))}
    heads = ["zebra", "a zebra", "the zebra"]
    for word, a in (("drawing", "a"), ("sketch", "a"), ("image", "an")):
        heads += [f"zebra {word}", f"{word} of a zebra", f"{word} of the zebra"]
        heads += [f"a zebra {word}", f"{a} {word} of a zebra", f"{a} {word} of the zebra"]
    assert len(heads) == 21
    assert found == {head + end for head in heads for end in ("", ".")}
    assert sketch_caption("tench", image_rng("n01440764/sketch_1.JPEG")) == "a sketch of the tench"  # for ever
    lent = json.loads(shared("facts/study_texts.json").read_text())
    assert list(SKETCH_PATTERNS) == lent["imagenet_sketch_patterns"]
