"""The script that makes mixtures: every setting, base sets, ImageNet-Sketch, validation tables, and what it refuses."""

import csv
import json
import random
import sys
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any

import pandas as pd
import pytest

from circuitry.runs import InputError, run_script
from circuitry.training import read_description
from experiments.study.study_set import BASIC
from tests.conftest import shared
from tests.study.test_captioning import study_lists as study_lists
from tests.study.test_captioning import unpacked
from tests.study.test_files import naive_lists, naive_mixture
from tests.study.test_files import root as root
from tests.support.scripts import program_module, study_config


@pytest.fixture(scope="module")
def module() -> ModuleType:
    """The script, drawing no pictures."""
    loaded = program_module("mixtures")
    vars(loaded)["write_figure"] = lambda figure, stem: [Path(f"{stem}.html")] if figure.data else []
    return loaded


def table_of(out: Path, name: str) -> Path:
    """The table of that name."""
    return out / f"{name}.tsv"


def images_in(path: Path) -> list[str]:
    """Paths of a table, from the third last folder on."""
    with open(path, encoding="utf-8", newline="") as file:
        return ["/".join(row["filepath"].split("/")[-3:]) for row in csv.DictReader(file, delimiter="\t")]


def test_the_whole_set_of_one_test_domain(
    module: ModuleType, root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    test = "painting"
    module.main(module.Config(root, tmp_path, test_domain=test, all=True, captions="by-image", validation_split="test"))
    shares = ("0.05", "0.1", "0.2", "0.4", "0.6", "0.8")
    expected: dict[str, tuple[str, dict[str, object]]] = {
        "natural-only": ("natural-only", {}),
        **{f"{setting}-{test}": (setting, {}) for setting in BASIC},
        **{f"class-interpolation-{p}-low-{test}": ("class-low", {"p": p}) for p in shares},
        **{f"class-interpolation-{p}-{test}": ("class-interpolation", {"p": p}) for p in shares},
    }
    listed = pd.read_csv(tmp_path / "mixtures.csv")
    assert listed["mixture"].tolist() == list(expected)
    assert listed["without_caption"].eq(0).all()
    assert listed["study_file"][2] == "dn-captions-train-lso-cipqrs-nopaintingclasses.tsv"
    assert "cg-high-painting dn-captions-train-lso-cipqrs-nopaintingclasses.tsv" in " ".join(
        capsys.readouterr().out.split()
    )
    for name, (setting, more) in expected.items():
        assert images_in(table_of(tmp_path, name)) == naive_mixture_of_three(root, setting, test, more)
    for setting in ("cg-high", "aligned"):
        held = (f"{test}/aircraft_carrier", f"{test}/axe", f"{test}/bed")
        validation = images_in(table_of(tmp_path, f"{setting}-{test}-validation"))
        assert validation == [path for path in naive_lists(root, "test") if not path.startswith(held)]


def naive_mixture_of_three(root: Path, setting: str, test: str, more: dict[str, object]) -> list[str]:
    """By default three of the study's classes are held out: aircraft carrier, axe and bed."""
    return naive_mixture(root, setting, test, held_out=("aircraft_carrier", "axe", "bed"), **more)  # type: ignore[arg-type]


def test_aligned_captions_hold_the_same_images(module: ModuleType, root: Path, tmp_path: Path) -> None:
    for setting in ("cg-high", "aligned"):
        module.main(module.Config(root, tmp_path, setting, "sketch", captions="by-image"))
    told = [read_description(table_of(tmp_path, f"{setting}-sketch")) for setting in ("cg-high", "aligned")]
    assert [about["captions"] for about in told] == ["standard (by-image)", "aligned (by-image)"]
    assert [(about["caption_source"], about["caption_seed"], about["caption_file"]) for about in told] == [
        ("by-image", 0, None)
    ] * 2
    plain, aligned = (pd.read_csv(table_of(tmp_path, f"{s}-sketch"), sep="\t") for s in ("cg-high", "aligned"))
    assert plain["filepath"].tolist() == aligned["filepath"].tolist()
    assert aligned["title"].str.contains("image|picture").all()
    assert not plain["title"].str.contains("image|picture").all()


# --- base sets -------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def imagenet(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """ImageNet-Captions of 40 images, every tenth without its file, in a folder with the JSON."""
    folder = tmp_path_factory.mktemp("imagenet")
    entries = []
    for i in range(40):
        entries.append({"filename": f"n{i % 4}_{i}.JPEG", "wnid": f"n{i % 4}", "title": f"photo {i}", "tags": ["tag"]})
        if i % 10:
            (folder / f"n{i % 4}").mkdir(exist_ok=True)
            (folder / f"n{i % 4}" / f"n{i % 4}_{i}.JPEG").touch()
    (folder / "captions.json").write_text(json.dumps(entries))
    return folder


def test_imagenet_captions_come_first(module: ModuleType, root: Path, imagenet: Path, tmp_path: Path) -> None:
    base = {
        "base": (f"imagenet-captions={imagenet / 'captions.json'}",),
        "base_images": (f"imagenet-captions={imagenet}",),
    }
    with pytest.raises(InputError, match=r"cg-low-sketch\.tsv.* 4 .*n0/n0_0\.JPEG"):
        module.main(module.Config(root, tmp_path, "cg-low", "sketch", **base))
    assert not list(tmp_path.iterdir())
    config = module.Config(
        root,
        tmp_path,
        "cg-low",
        "sketch",
        held_out=("axe",),
        **base,
        missing_files="skip",
        base_validation=("imagenet-captions=0.25",),
        seed=1,
    )
    module.main(config)
    train = table_of(tmp_path, "imagenet-captions-cg-low-sketch")
    validation = table_of(tmp_path, "imagenet-captions-cg-low-sketch-validation")
    both = [read_description(path) for path in (train, validation)]
    parts = [sum(described["counts"]["imagenet-captions"].values()) for described in both]
    assert sum(parts) == 36
    assert 0 < parts[1] < 20
    assert sum(described["left_out"]["missing_files"] for described in both) == 4
    lines = train.read_text().splitlines()
    assert lines[1].endswith("; tag")
    assert len(lines) == 1 + both[0]["images"]
    chosen = naive_mixture(root, "cg-low", "sketch", held_out=("axe",))
    assert images_in(train)[parts[0] :] == chosen
    summary = pd.read_csv(tmp_path / "images.csv")
    assert summary.query("part == 'base'")["images"].tolist() == [parts[0]]


def test_every_base_set_gets_the_mixture(module: ModuleType, root: Path, tmp_path: Path) -> None:
    base = (f"cc3m={root / 'photos.tsv'}", f"mine={root / 'photos.tsv'}")
    module.main(module.Config(root, tmp_path, "cg-low", "sketch", base=base))
    told = [read_description(table_of(tmp_path, f"{name}-cg-low-sketch")) for name in ("cc3m", "mine")]
    assert [(about["base"], about["counts"][about["base"]]) for about in told] == [("cc3m", {"": 3}), ("mine", {"": 3})]
    listed = pd.read_csv(tmp_path / "mixtures.csv")
    assert listed["study_file"].tolist() == [f"{name}-train-lso-rs-nosketchclasses.tsv" for name in ("cc3m", "mine")]
    assert listed["of_base"].tolist() == [3, 3]


# --- ImageNet-Sketch -------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def sketch_root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """ImageNet-Sketch with five images of the class 25, which has no partner, and one of 403, which has."""
    folder = tmp_path_factory.mktemp("imagenet-sketch")
    for i in range(1000):
        (folder / f"n{i:08d}").mkdir()
    for name in (*(f"n00000025/sketch_{i}.JPEG" for i in range(5)), "n00000403/sketch_0.JPEG"):
        (folder / name).touch()
    return folder


def test_sketches_come_into_the_finished_mixture(
    module: ModuleType, root: Path, sketch_root: Path, tmp_path: Path
) -> None:
    sketches = {"imagenet_sketch": sketch_root, "captions": "by-image", "held_out": ("axe",)}
    for setting in ("natural-only", "leave-out", "cg-high"):
        plain = naive_mixture(root, setting, "sketch", held_out=("axe",))
        module.main(module.Config(root, tmp_path, setting, "sketch", **sketches))
        name = setting if setting == "natural-only" else f"{setting}-sketch"
        path = table_of(tmp_path, f"{name}-imagenet-sketch")
        gone = set(random.Random(42).sample(range(len(plain)), 5))
        images = images_in(path)
        assert images[:-5] == [image for i, image in enumerate(plain) if i not in gone]
        assert [image.split("/", 1)[1] for image in images[-5:]] == [f"n00000025/sketch_{i}.JPEG" for i in range(5)]
        assert path.read_text().count("fire salamander") == 5
        told = read_description(path)
        assert told["counts"]["sketch"]["n00000025"] == 5
        assert (told["sketches"], told["test_domain"]) == ("imagenet-sketch", "sketch")


def test_sketch_classes_stay_in_part(module: ModuleType, root: Path, sketch_root: Path, tmp_path: Path) -> None:
    for i in range(20):
        (sketch_root / f"n00000026/sketch_{i}.JPEG").touch()
    config = module.Config(
        root, tmp_path, "cg-high", "sketch", sketches="imagenet-sketch-0.5", imagenet_sketch=sketch_root,
        captions="by-image", held_out=("axe",),
    )  # fmt: skip
    module.main(config)
    told = read_description(table_of(tmp_path, "cg-high-sketch-imagenet-sketch-0.5"))
    assert told["images"] == len(naive_mixture(root, "cg-high", "sketch", held_out=("axe",)))
    assert len(told["counts"]["sketch"].keys() - {"n00000025", "n00000026"}) == 1  # of three
    with pytest.raises(InputError, match="--imagenet-sketch"):
        module.main(replace(config, imagenet_sketch=None))
    for i in range(20):
        (sketch_root / f"n00000026/sketch_{i}.JPEG").unlink()


# --- the study -------------------------------------------------------------------------------------------------------


def test_the_command_line_of_the_study(monkeypatch: pytest.MonkeyPatch) -> None:
    module, given = program_module("mixtures"), list[Any]()
    monkeypatch.setattr(sys, "argv", ["x", "--data", "d", "--study", "--captions", "captions.tsv"])
    run_script(module.Config, given.append, None)
    monkeypatch.setattr(sys, "argv", ["x", "--data", "d", "--study", "--all"])
    run_script(module.Config, given.append, None)
    assert [(c.captions, c.seed, c.validation_split) for c in given] == [
        (Path("captions.tsv"), 42, "test"),
        ("stream", 42, "test"),
    ]


def golden(name: str) -> list[tuple[str, str]]:
    """Path and caption of each image in a mixture of the study's own scripts."""
    rows = [line.split("\t") for line in unpacked(f"mixture_{name}.tsv")]
    return [(path, caption) for path, caption in rows]


def test_mixtures_equal_the_studys(module: ModuleType, study_lists: Path, tmp_path: Path) -> None:
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
    listed = pd.read_csv(tmp_path / "out" / "mixtures.csv").set_index("study_file")["table"]
    compared = 0
    for file in sorted(shared("golden/study_data").glob("mixture_*.tsv.gz")):
        name = file.name.removeprefix("mixture_").removesuffix(".tsv.gz")
        table = tmp_path / "out" / listed[f"dn-captions-train-lso-{name}.tsv"]
        with open(table, encoding="utf-8", newline="") as opened:
            captions = [row["title"] for row in csv.DictReader(opened, delimiter="\t")]
        found, expected = list(zip(images_in(table), captions, strict=True)), golden(name)
        if name.endswith("thirtyp"):
            check_thirty_percent(found, expected)
        else:
            assert found == expected, name
        compared += 1
    assert compared == 14


def check_thirty_percent(found: list[tuple[str, str]], expected: list[tuple[str, str]]) -> None:
    """17 of the 99 classes were drawn from an unordered set; the 82 before them and all else must be equal."""

    def parts(rows: list[tuple[str, str]]) -> tuple[list[tuple[str, str]], list[str], list[tuple[str, str]]]:
        others = [row for row in rows if not row[0].startswith("sketch/")]
        sketches = [path for path, _ in rows if path.startswith("sketch/") and path.endswith(".jpg")]
        return others, list(dict.fromkeys(map(class_of, sketches))), [row for row in rows if row[0].endswith(".JPEG")]

    def class_of(path: str) -> str:
        return path.split("/")[1]

    (ours, our_classes, our_others), (theirs, their_classes, their_others) = parts(found), parts(expected)
    assert our_classes[:82] == their_classes[:82]
    assert len(our_classes) == len(their_classes) == len(set(our_classes)) == 99
    assert our_others == their_others
    assert len(found) == len(expected)
    half = {class_of(path) for path, _ in golden("cipqrs-nosketchclasses-with-in-sketches-fiftyp")}
    assert set(our_classes) <= half
    assert ours == theirs  # since the 17 classes have as many images as the study's 17 here


def test_one_folder_holds_one_study(module: ModuleType, root: Path, tmp_path: Path) -> None:
    module.main(module.Config(root, tmp_path, "cg-low", "sketch", captions="stream"))
    before = sorted(tmp_path.iterdir())
    for changed, words in (({}, r"'stream'.*'file'"), ({"captions": "stream", "seed": 3}, "caption_seed 0 .* 3")):
        with pytest.raises(InputError, match=words):
            module.main(module.Config(root, tmp_path, "cg-high", "sketch", **changed))
    assert sorted(tmp_path.iterdir()) == before
    module.main(module.Config(root, tmp_path, "cg-high", "sketch", captions="stream"))
