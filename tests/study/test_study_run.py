"""Runs say on which mixture they were trained, and are found again."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from circuitry.data import ImageRecord
from circuitry.runs import InputError, versions
from circuitry.training import clip_preset, record_run, with_captions, write_captioned_table
from experiments.study.mixture_files import write_mixture
from experiments.study.selection import MixtureSettings
from experiments.study.study_run import StudyRun, find_runs, run_of
from experiments.study.supervised import SupervisedTraining

CLIP = replace(clip_preset("rn-tiny"), seed=4, precision="amp", threads=2)
HALF = MixtureSettings("class-interpolation", "quickdraw", ("key",), fraction=0.5)
NATURAL = MixtureSettings("natural-only", "quickdraw", ("key",))
IMAGES = [ImageRecord(Path(f"/x/real/key/{i}.png"), f"real/key/{i}.png", "real", "key") for i in range(2)]


def recorded(folder: Path, settings: MixtureSettings, training: Any, **told: str) -> StudyRun | None:
    table = folder / "x.tsv"
    write_mixture(IMAGES, lambda record: "a cat", table, settings, about=told, missing_files="unchecked")
    record_run(folder / "run", table, training)
    return run_of(folder / "run")


def test_a_run_is_read_from_its_mixture(tmp_path: Path) -> None:
    found = recorded(tmp_path, HALF, CLIP, captions="aligned (stream)", sketches="imagenet-sketch-0.5")
    about: dict[str, Any] = {"sketches": "imagenet-sketch-0.5", "captions": "aligned (stream)", "precision": "amp"}
    told = ("rn-tiny", "class-interpolation-0.5", "quickdraw", ("key",), 4)
    assert found == StudyRun(tmp_path / "run", *told, **about, threads=2, commit=versions()["commit"])
    assert find_runs(tmp_path) == [found]


def test_supervised_models_and_photographs_alone(tmp_path: Path) -> None:
    found = recorded(tmp_path, NATURAL, SupervisedTraining(model="RN50"), base="cc12m")
    assert found is not None
    assert (found.setting, found.test_domain, found.held_out, found.base) == ("natural-only", None, ("key",), "cc12m")
    assert (found.supervised, found.model, found.sketches, found.captions) == (True, "RN50", "none", "standard")


def test_runs_on_other_tables_are_no_models_of_the_study(tmp_path: Path) -> None:
    images = with_captions(IMAGES, lambda record: "a cat")
    record_run(tmp_path / "run", write_captioned_table(images, tmp_path / "x.tsv", missing_files="unchecked"), CLIP)
    record_run(tmp_path / "by_hand", tmp_path / "other.tsv", CLIP)
    assert run_of(tmp_path / "run") is run_of(tmp_path / "by_hand") is None
    with pytest.raises(InputError, match=r"run\.json"):
        find_runs(tmp_path)
