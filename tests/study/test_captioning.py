"""Captions of whole data sets: one random stream through all lists, ImageNet-Sketch."""

import gzip
import json
import random
import shutil
from itertools import product
from pathlib import Path

import pytest

from circuitry.data import ImageRecord, caption, image_rng
from circuitry.runs import InputError
from experiments.study.mixture_files import SKETCH_PATTERNS, sketch_caption, sketch_captions, stream_captions
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
    for domain, split in product(DOMAINS, ("train", "test")):
        for line in unpacked(f"{kind}_{domain}_{split}.tsv"):
            path, _, expected = line.split("\t")
            assert captions[split][path] == expected
            compared += 1
    assert compared == sum(map(len, captions.values())) == 13853


def test_one_stream_goes_through_all_lists_whatever_files_exist(root: Path, tmp_path: Path) -> None:
    rng = random.Random(7)
    expected: dict[str, dict[str, str]] = {"train": {}, "test": {}}
    for domain, split in product(DOMAINS, ("train", "test")):
        shutil.copy(root / f"{domain}_{split}.txt", tmp_path)
        for line in (root / f"{domain}_{split}.txt").read_text().splitlines():
            path = line.split(" ")[0]
            expected[split][path] = caption(path.split("/")[1], domain, rng)
    assert stream_captions(root, 7) == stream_captions(tmp_path, 7) == expected
    (tmp_path / "real_test.txt").unlink()
    with pytest.raises(InputError, match=r"12 lists.*lacks 1, such as real_test\.txt"):
        stream_captions(tmp_path)


def test_captions_of_imagenet_sketch_by_stream_and_by_image() -> None:
    images = [ImageRecord(Path(f"/x/n{i}/{k}.JPEG"), f"n{i}/{k}.JPEG", "sketch", f"n{i}") for i in (0, 1) for k in "ab"]
    sketches = SketchSet(images, {"n0": "tench", "n1": "goldfish"}, frozenset(["n1"]))
    rng = random.Random(42)
    names = ("tench", "tench", "goldfish", "goldfish")
    drawn = {image.relative: sketch_caption(name, rng) for image, name in zip(images, names, strict=True)}
    assert sketch_captions(sketches, stream=True) == drawn
    by_image = sketch_captions(sketches, 5, stream=False)
    assert by_image["n1/b.JPEG"] == sketch_caption("goldfish", image_rng("n1/b.JPEG", 5))


def test_captions_of_imagenet_sketch() -> None:
    found = {sketch_caption("zebra", image_rng(path)) for path in (f"sketch/zebra/{i}.png" for i in range(1200))}
    heads = [pattern.format("zebra").removesuffix(".") for pattern in SKETCH_PATTERNS]
    assert found == {head + end for head in heads for end in ("", ".")}
    assert sketch_caption("tench", image_rng("n01440764/sketch_1.JPEG")) == "a sketch of the tench"  # for ever
    assert list(SKETCH_PATTERNS) == json.loads(shared("facts/study_texts.json").read_text())["imagenet_sketch_patterns"]
