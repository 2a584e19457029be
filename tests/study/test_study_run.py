"""Runs say what they are: written down from what is beside their mixture, found again, refused where they do not."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from circuitry.data import DomainFolder, ImageRecord
from circuitry.data.drawn import DrawingSettings, write_toy
from circuitry.runs import InputError, versions
from circuitry.study import StudyRun, find_runs, record_run
from circuitry.study.mixtures import MixtureSettings, write_mixture
from circuitry.training import ClipTraining, clip_preset
from experiments.study.supervised_settings import SupervisedTraining

CLIP = replace(clip_preset("rn-tiny"), seed=4, precision="amp", threads=2)
HALF = MixtureSettings("class-interpolation", "quickdraw", ("key",), fraction=0.5)


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> tuple[ImageRecord, ...]:
    drawn = DrawingSettings(0, 2, classes=("car", "key"), styles=("quickdraw", "real"))
    return DomainFolder(write_toy(tmp_path_factory.mktemp("toy"), drawn, workers=1, progress=False)).records


def recorded(
    images: tuple[ImageRecord, ...],
    folder: Path,
    settings: MixtureSettings | None,
    training: ClipTraining | SupervisedTraining = CLIP,
    **told: Any,
) -> StudyRun | None:
    table = write_mixture(images, lambda record: "a cat", folder / "x.tsv", settings=settings)
    beside = table.with_suffix(".json")
    beside.write_text(json.dumps(json.loads(beside.read_text()) | told))
    return record_run(folder / "run", table, training)


def test_a_run_is_written_down_from_its_mixture(images: tuple[ImageRecord, ...], tmp_path: Path) -> None:
    found = recorded(images, tmp_path, HALF, captions="aligned (stream)", sketches="imagenet-sketch-0.5")
    assert found == StudyRun(
        tmp_path / "run",
        "rn-tiny",
        "class-interpolation-0.5",
        "quickdraw",
        ("key",),
        seed=4,
        supervised=False,
        base="none",
        sketches="imagenet-sketch-0.5",
        captions="aligned (stream)",
        precision="amp",
        threads=2,
        commit=versions()["commit"],
    )
    assert find_runs(tmp_path) == [found]


def test_what_the_json_tells_wins_over_what_follows_from_the_settings(
    images: tuple[ImageRecord, ...], tmp_path: Path
) -> None:
    told = {"setting": "cg-low", "test_domain": "sketch", "held_out": ["car"], "base": "cc12m", "fraction": None}
    found = recorded(images, tmp_path, HALF, SupervisedTraining(model="RN50"), **told)
    assert found is not None
    assert (found.setting, found.test_domain, found.held_out, found.base) == ("cg-low", "sketch", ("car",), "cc12m")
    assert (found.supervised, found.model, found.sketches, found.captions) == (True, "RN50", "none", "standard")


def test_photographs_alone_have_no_test_domain(images: tuple[ImageRecord, ...], tmp_path: Path) -> None:
    found = recorded(images, tmp_path, MixtureSettings("natural-only", "quickdraw", ("key",)))
    assert found is not None
    assert (found.setting, found.test_domain) == ("natural-only", None)


def test_tables_that_are_no_mixture_are_not_written_down(images: tuple[ImageRecord, ...], tmp_path: Path) -> None:
    assert recorded(images, tmp_path, None) is None
    assert record_run(tmp_path / "run", tmp_path / "other.tsv", CLIP) is None
    with pytest.raises(InputError, match=r"run\.json"):
        find_runs(tmp_path)


def test_runs_that_do_not_say_what_they_are_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"run\.json"):
        StudyRun.read(tmp_path)
    old = {"model": "RN50", "setting": "cg-high", "test_domain": "sketch", "held_out": [], "seed": 0}
    for content, words in (
        (old, "'unknown'.*'circuitry run 2'"),
        ({"format": "circuitry run 2", "colour": "red", "held_out": []}, r"run\.json"),
        ([], r"run\.json"),
    ):
        (tmp_path / "run.json").write_text(json.dumps(content))
        with pytest.raises(InputError, match=words):
            StudyRun.read(tmp_path)
