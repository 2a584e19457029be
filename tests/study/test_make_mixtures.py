"""The script that makes mixtures: every setting, base sets, ImageNet-Sketch, validation tables, and what it refuses."""

import csv
import gzip
import json
import random
import shutil
from dataclasses import replace
from itertools import product
from pathlib import Path
from types import ModuleType

import pandas as pd
import pytest

from circuitry.data import ImageRecord, caption
from circuitry.data.captions import image_rng
from circuitry.runs import InputError
from circuitry.training.trainer_table import read_description
from experiments.study.mixture_files import (
    SKETCH_PATTERNS,
    sketch_caption,
    sketch_captions,
    stream_captions,
)
from experiments.study.selection import SketchSet
from experiments.study.study_set import BASIC
from tests.conftest import shared
from tests.study.test_files import DOMAINS, naive_lists, naive_mixture
from tests.study.test_files import root as root
from tests.support.scripts import program_module, study_config


@pytest.fixture(scope="module")
def module() -> ModuleType:
    """The script, drawing no pictures."""
    loaded = program_module("mixtures")
    vars(loaded)["write_figure"] = lambda figure, stem: (
        [Path(f"{stem}.html")] if figure.data else []
    )
    return loaded


def images_in(path: Path) -> list[str]:
    """Paths of a table, from the third last folder on."""
    with open(path, encoding="utf-8", newline="") as file:
        return [
            "/".join(row["filepath"].split("/")[-3:])
            for row in csv.DictReader(file, delimiter="\t")
        ]


def test_the_whole_set_of_one_test_domain(
    module: ModuleType, root: Path, tmp_path: Path
) -> None:
    test, held_out = (
        "painting",
        ("aircraft_carrier", "axe", "bed"),
    )  # those of the study's that the data has
    module.main(
        module.Config(
            root, tmp_path, test_domain=test, all=True, validation_split="test"
        )
    )
    expected = {
        "natural-only": ("natural-only", "0"),
        **{f"{name}-{test}": (name, "0") for name in BASIC},
    }
    for end, p in product(("-low", ""), ("0.05", "0.1", "0.2", "0.4", "0.6", "0.8")):
        expected[f"class-interpolation-{p}{end}-{test}"] = (
            f"class{end or '-interpolation'}",
            p,
        )
    listed = pd.read_csv(tmp_path / "mixtures.csv")
    assert listed["mixture"].tolist() == list(expected)
    assert listed["without_caption"].eq(0).all()
    assert (
        listed["study_file"][2] == "dn-captions-train-lso-cipqrs-nopaintingclasses.tsv"
    )
    for name, (setting, p) in expected.items():
        assert images_in(tmp_path / f"{name}.tsv") == naive_mixture(
            root, setting, test, p, held_out=held_out
        )
    held = tuple(f"{test}/{name}" for name in held_out)
    validation = [
        path for path in naive_lists(root, "test") if not path.startswith(held)
    ]
    for setting in ("cg-high", "aligned"):
        assert images_in(tmp_path / f"{setting}-{test}-validation.tsv") == validation
    told = [
        read_description(tmp_path / f"{setting}-{test}.tsv")
        for setting in ("cg-high", "aligned")
    ]
    assert [about["captions"] for about in told] == [
        "standard (by-image)",
        "aligned (by-image)",
    ]
    assert [(about["caption_source"], about["seed"]) for about in told] == [
        ("by-image", 0)
    ] * 2
    plain, aligned = (
        pd.read_csv(tmp_path / f"{s}-{test}.tsv", sep="\t")
        for s in ("cg-high", "aligned")
    )
    assert plain["filepath"].tolist() == aligned["filepath"].tolist()
    assert aligned["title"].str.contains("image|picture").all()
    assert not plain["title"].str.contains("image|picture").all()


def test_imagenet_captions_come_first(
    module: ModuleType, root: Path, tmp_path: Path
) -> None:
    """ImageNet-Captions of 40 images, every tenth without its file."""
    images, out = tmp_path / "imagenet", tmp_path / "out"
    entries = []
    for i in range(40):
        entries.append(
            {
                "filename": f"n{i % 4}_{i}.JPEG",
                "wnid": f"n{i % 4}",
                "title": f"photo {i}",
                "tags": ["tag"],
            }
        )
        if i % 10:
            (images / f"n{i % 4}").mkdir(exist_ok=True, parents=True)
            (images / f"n{i % 4}" / f"n{i % 4}_{i}.JPEG").touch()
    (tmp_path / "captions.json").write_text(json.dumps(entries))
    name = "imagenet-captions"
    base = {
        "base": (f"{name}={tmp_path / 'captions.json'}",),
        "base_images": (f"{name}={images}",),
    }
    config = module.Config(
        root, out, "cg-low", "sketch", held_out=("axe",), **base, seed=1
    )
    with pytest.raises(InputError, match=r"cg-low-sketch\.tsv.* 4 .*n0/n0_0\.JPEG"):
        module.main(config)
    assert not list(out.iterdir())
    module.main(
        replace(config, missing_files="skip", base_validation=(f"{name}=0.25",))
    )
    train, validation = (
        out / f"{name}-cg-low-sketch{part}.tsv" for part in ("", "-validation")
    )
    both = [read_description(path) for path in (train, validation)]
    totals = [sum(described["counts"][name].values()) for described in both]
    assert sum(totals) == 36
    assert 0 < totals[1] < 20
    assert sum(described["left_out"]["missing_files"] for described in both) == 4
    lines = train.read_text().splitlines()
    assert lines[1].endswith("; tag")
    assert len(lines) == 1 + both[0]["images"]
    assert images_in(train)[totals[0] :] == naive_mixture(
        root, "cg-low", "sketch", held_out=("axe",)
    )
    assert pd.read_csv(out / "images.csv").query("group == 'base'")[
        "images"
    ].tolist() == [totals[0]]


def test_sketches_come_into_the_finished_mixture(
    module: ModuleType, root: Path, tmp_path: Path
) -> None:
    """Five images of the class 25, which has no partner, and one of 403, which has; then many of 26, without, too."""
    folder, out = tmp_path / "imagenet-sketch", tmp_path / "out"
    for i in range(1000):
        (folder / f"n{i:08d}").mkdir(parents=True)
    for name in (
        *(f"n00000025/sketch_{i}.JPEG" for i in range(5)),
        "n00000403/sketch_0.JPEG",
    ):
        (folder / name).touch()
    config = module.Config(
        root, out, "cg-high", "sketch", imagenet_sketch=folder, held_out=("axe",)
    )
    for setting in ("natural-only", "leave-out", "cg-high"):
        plain = naive_mixture(root, setting, "sketch", held_out=("axe",))
        module.main(replace(config, setting=setting))
        path = (
            out
            / f"{setting if setting == 'natural-only' else f'{setting}-sketch'}-imagenet-sketch.tsv"
        )
        gone = set(random.Random(42).sample(range(len(plain)), 5))
        images = images_in(path)
        assert images[:-5] == [image for i, image in enumerate(plain) if i not in gone]
        assert [image.split("/", 1)[1] for image in images[-5:]] == [
            f"n00000025/sketch_{i}.JPEG" for i in range(5)
        ]
        assert path.read_text().count("fire salamander") == 5
        told = read_description(path)
        assert told["counts"]["sketch"]["n00000025"] == 5
        assert (told["sketches"], told["test_domain"]) == ("imagenet-sketch", "sketch")
    told = read_description(out / "cg-high-sketch-imagenet-sketch-0.5.tsv")
    assert told["images"] == len(plain)
    assert len(told["counts"]["sketch"].keys() - {"n00000025"}) == 1  # of three


def unpacked(name: str) -> list[str]:
    with gzip.open(
        shared(f"golden/study_data/{name}.gz"), "rt", encoding="utf-8"
    ) as file:
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


def test_one_stream_goes_through_all_lists_whatever_files_exist(
    root: Path, tmp_path: Path
) -> None:
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


def test_captions_of_imagenet_sketch() -> None:
    images = [
        ImageRecord(Path(f"/x/n1/{k}.JPEG"), f"n1/{k}.JPEG", "sketch", "n1")
        for k in "ab"
    ]
    found = sketch_captions(
        SketchSet(images, {"n1": "goldfish"}, frozenset()), 5, stream=False
    )
    assert found == {
        f"n1/{k}.JPEG": sketch_caption("goldfish", image_rng(f"n1/{k}.JPEG", 5))
        for k in "ab"
    }
    captions = {
        sketch_caption("zebra", image_rng(path))
        for path in (f"sketch/zebra/{i}.png" for i in range(1200))
    }
    heads = [pattern.format("zebra").removesuffix(".") for pattern in SKETCH_PATTERNS]
    assert captions == {head + end for head in heads for end in ("", ".")}
    assert (
        sketch_caption("tench", image_rng("n01440764/sketch_1.JPEG"))
        == "a sketch of the tench"
    )  # for ever
    assert (
        list(SKETCH_PATTERNS)
        == json.loads(shared("facts/study_texts.json").read_text())[
            "imagenet_sketch_patterns"
        ]
    )


def golden(name: str) -> list[tuple[str, str]]:
    """Path and caption of each image in a mixture of the study's own scripts."""
    rows = [line.split("\t") for line in unpacked(f"mixture_{name}.tsv")]
    return [(path, caption) for path, caption in rows]


def test_mixtures_equal_the_studys(
    module: ModuleType, study_lists: Path, tmp_path: Path
) -> None:
    """On a root with nothing but lists, and ImageNet-Sketch of empty files."""
    for line in unpacked("in_sketch_captions.tsv")[1:]:
        file = tmp_path / line.split("\t")[0]
        file.parent.mkdir(parents=True, exist_ok=True)
        file.touch()
    config = study_config(
        "mixtures", "--data", str(study_lists), imagenet_sketch=tmp_path / "sketch", all=True,
        missing_files="unchecked", test_domain="sketch", out=tmp_path / "out",
    )  # fmt: skip
    module.main(config)
    listed = pd.read_csv(tmp_path / "out" / "mixtures.csv").set_index("study_file")[
        "table"
    ]
    compared = 0
    for file in sorted(shared("golden/study_data").glob("mixture_*.tsv.gz")):
        name = file.name.removeprefix("mixture_").removesuffix(".tsv.gz")
        table = tmp_path / "out" / listed[f"dn-captions-train-lso-{name}.tsv"]
        with open(table, encoding="utf-8", newline="") as opened:
            captions = [row["title"] for row in csv.DictReader(opened, delimiter="\t")]
        found, expected = (
            list(zip(images_in(table), captions, strict=True)),
            golden(name),
        )
        if name.endswith("thirtyp"):
            check_thirty_percent(found, expected)
        else:
            assert found == expected, name
        compared += 1
    assert compared == 14


def check_thirty_percent(
    found: list[tuple[str, str]], expected: list[tuple[str, str]]
) -> None:
    """17 of the 99 classes were drawn from an unordered set; the 82 before them and all else must be equal."""

    def classes(rows: list[tuple[str, str]]) -> list[str]:
        return list(
            dict.fromkeys(
                path.split("/")[1] for path, _ in rows if path.startswith("sketch/")
            )
        )

    def others(rows: list[tuple[str, str]]) -> list[tuple[str, str]]:
        return [
            row
            for row in rows
            if not row[0].startswith("sketch/") or row[0].endswith(".JPEG")
        ]

    ours, theirs = (
        [name for name in classes(rows) if name[0] != "n"] for rows in (found, expected)
    )
    assert ours[:82] == theirs[:82]
    assert len(ours) == len(theirs) == 99
    assert set(ours) <= set(
        classes(golden("cipqrs-nosketchclasses-with-in-sketches-fiftyp"))
    )
    assert len(found) == len(expected)
    assert others(found) == others(
        expected
    )  # since the 17 classes have as many images as the study's 17 here
