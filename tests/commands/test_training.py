"""Models are trained by scripts, from folders and from tables."""

import re
import sys
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path

import pandas as pd
import pytest
from PIL import Image

from circuitry import training
from circuitry.runs import run_script
from circuitry.training import ClipTraining, TrainingWork, clip_preset
from experiments.drawn import DrawingSettings, write_toy
from tests.support.clip_training import WORK
from tests.support.scripts import CLASSES, STYLES, command_module, script


def run_in_place(
    task: Callable[[int, int], object], workers: int, logs: Path, **options: object
) -> None:
    assert (workers, options) == (
        1,
        {"cluster": "slurm", "options": {"gpus_per_node": 2}},
    )
    task(0, workers)


def test_a_clip_is_trained_from_a_folder_and_from_a_table(
    quickstart: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    module = command_module("train")
    monkeypatch.setattr(module, "run_array", run_in_place)
    small = replace(clip_preset("rn-tiny"), epochs=1, batch_size=16, warmup=0)
    folder = module.Config(
        out=tmp_path / "folder", data=quickstart / "run" / "toy", domains=("real",), cluster="slurm",
        job_options=("gpus_per_node=2",), training=small, work=WORK,
    )  # fmt: skip
    module.main(folder)
    printed = capsys.readouterr().out
    assert "balanced top-1" in printed
    assert (
        f"checkpoint: {tmp_path / 'folder' / 'clip' / 'checkpoints' / 'epoch_1.pt'}"
        in printed
    )
    given: list[tuple[Path, ClipTraining, Path | None]] = []

    def note(
        table: Path,
        out: Path,
        settings: ClipTraining,
        work: TrainingWork,
        validation: Path | None,
    ) -> None:
        given.append((table, settings, validation))

    monkeypatch.setattr(training, "train_clip", note)
    monkeypatch.setattr(training, "checkpoints", lambda folder: [(1, folder)])
    numbers = ["--epochs", "3", "--crop-scale", "0.5", "--device", "cpu"]
    call = [
        "--out",
        f"{tmp_path}",
        "--table",
        f"{tmp_path / 'x.tsv'}",
        "--preset",
        "rn50-cc3m",
        *numbers,
    ]
    monkeypatch.setattr(sys, "argv", ["circuitry train", *call])
    run_script(module.Config, module.main, "")
    expected = replace(clip_preset("rn50-cc3m"), epochs=3, crop_scale=0.5)
    assert given == [(tmp_path / "x.tsv", expected, None)]
    validation = tmp_path / "x-validation.tsv"
    for there in (False, True):
        if there:
            validation.touch()
        monkeypatch.setattr(
            sys, "argv", ["circuitry train", "--study", *call, "--accumulation", "4"]
        )
        run_script(module.Config, module.main, "")
        printed = capsys.readouterr().out
        assert "precision='amp'" in printed
        as_the_study = replace(
            clip_preset("rn50-cc3m", study=True),
            epochs=3,
            crop_scale=0.5,
            accumulation=4,
        )
        assert given[-1] == (
            tmp_path / "x.tsv",
            as_the_study,
            validation if there else None,
        )


def test_a_folder_without_captions_gets_sentences(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    module = command_module("train")
    root = tmp_path / "pictures"
    for domain in ("photo", "sketch"):
        (root / domain / "polar_bear").mkdir(parents=True)
        Image.new("RGB", (8, 8)).save(root / domain / "polar_bear" / "1.png")
    config = module.Config(out=tmp_path / "out", data=root)
    table = pd.read_csv(module.table_of_folder(config), sep="\t")
    words = {"photo": "photo|snapshot", "sketch": "sketch|drawing"}
    for path, title in zip(table["filepath"], table["title"], strict=True):
        domain = Path(path).parts[-3]
        style = f"image|picture|{words[domain]}"
        assert re.search(rf"\b({style})\b.*polar bear|polar bear.*\b({style})\b", title)


def test_training_is_timed_against_the_trainer_by_hand(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    module = script("speed_of_training")
    monkeypatch.setattr(
        module,
        "DrawingSettings",
        partial(DrawingSettings, classes=CLASSES, styles=STYLES),
    )
    monkeypatch.setattr(
        module, "write_toy", partial(write_toy, workers=1, progress=False)
    )
    monkeypatch.setattr(module, "REPEATS", 1)
    monkeypatch.setattr(module, "WORKERS", 0)
    config = module.Config(of="training", out=tmp_path, n_train=11, epochs=1)
    measured = module.training(config)
    assert measured["images per second"] > 0
    assert measured["of the trainer by hand"] > 0
    assert not (tmp_path / "run").exists()
