"""Runs say on which mixture they were trained, and are found again."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from circuitry.data import DomainFolder, ImageRecord
from circuitry.data.drawn import DrawingSettings, write_toy
from circuitry.runs import InputError, versions
from circuitry.training import clip_preset, record_run, with_captions, write_captioned_table
from experiments.study.mixture_files import write_mixture
from experiments.study.selection import MixtureSettings
from experiments.study.study_run import StudyRun, find_runs, run_of
from experiments.study.supervised import SupervisedTraining

CLIP = replace(clip_preset("rn-tiny"), seed=4, precision="amp", threads=2)
HALF = MixtureSettings("class-interpolation", "quickdraw", ("key",), fraction=0.5)


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> tuple[ImageRecord, ...]:
    drawn = DrawingSettings(0, 2, classes=("car", "key"), styles=("quickdraw", "real"))
    return DomainFolder(write_toy(tmp_path_factory.mktemp("toy"), drawn, workers=1, progress=False)).records


def recorded(
    images: tuple[ImageRecord, ...], folder: Path, settings: MixtureSettings, training: Any = CLIP, **told: Any
) -> StudyRun | None:
    table = write_mixture(images, lambda record: "a cat", folder / "x.tsv", settings, about=told)
    record_run(folder / "run", table, training)
    return run_of(folder / "run")


def test_a_run_is_read_from_its_mixture(images: tuple[ImageRecord, ...], tmp_path: Path) -> None:
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


def test_supervised_models_and_photographs_alone(images: tuple[ImageRecord, ...], tmp_path: Path) -> None:
    natural = MixtureSettings("natural-only", "quickdraw", ("key",))
    found = recorded(images, tmp_path, natural, SupervisedTraining(model="RN50"), base="cc12m")
    assert found is not None
    assert (found.setting, found.test_domain, found.held_out, found.base) == ("natural-only", None, ("key",), "cc12m")
    assert (found.supervised, found.model, found.sketches, found.captions) == (True, "RN50", "none", "standard")


def test_runs_on_other_tables_are_no_models_of_the_study(images: tuple[ImageRecord, ...], tmp_path: Path) -> None:
    table = write_captioned_table(with_captions(images, lambda record: "a cat"), tmp_path / "x.tsv")
    record_run(tmp_path / "run", table, CLIP)
    record_run(tmp_path / "by_hand", tmp_path / "other.tsv", CLIP)
    assert run_of(tmp_path / "run") is run_of(tmp_path / "by_hand") is None
    with pytest.raises(InputError, match=r"run\.json"):
        find_runs(tmp_path)
