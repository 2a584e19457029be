"""Does `train_clip` train as fast as open_clip's trainer called by hand?

Both train the same model on the same drawn images with the same arguments, in turns, ``repeats`` times; an entry is
images per second over the whole call, from its start to its end, so that everything that `train_clip` adds (checking
the table, recording the run, reading the log) counts. Refuted by a ratio of the medians below 0.9.

    python experiments/benchmark_training.py
"""

import os
import shutil
import subprocess
import sys
import time
from dataclasses import dataclass, replace
from pathlib import Path

from circuitry.runs import run_script
from circuitry import DomainFolder
from circuitry.models.open_clip_models import SHIPPED_CONFIGS
from circuitry.reports.result_tables import KeepSettings
from circuitry.training import (
    ClipTraining,
    TrainingWork,
    clip_preset,
    read_captions,
    train_clip,
    with_captions,
    write_captioned_table,
)
from experiments.drawn import DrawingSettings, write_toy

import pandas as pd

BY_HAND = """
import sys
import open_clip
from open_clip_train.main import main
if __name__ == "__main__":
    open_clip.add_model_config(sys.argv.pop(1))
    main(sys.argv[1:])
"""
"""What a user of open_clip would run for a model with a configuration of its own."""


@dataclass(frozen=True)
class Config(KeepSettings):
    """Settings of the benchmark."""

    out: Path = Path("runs/benchmark_training")
    """Folder of the drawn images and the runs; the runs are removed."""
    n_train: int = 30
    """Drawn images per class and style."""
    epochs: int = 3
    """Passes over the images in each run."""
    repeats: int = 3
    """Runs of each kind; the median counts."""
    workers: int = 2
    """Processes that read images."""


def main(config: Config) -> None:
    """Measure and print."""
    table = run(config)
    medians = table.groupby("trainer")["images_per_second"].median()
    ours, theirs = medians[["train_clip", "by hand"]]
    speed = {"images per second": [ours], "of the trainer by hand": [ours / theirs]}
    config.keep({"runs": table, "train_clip": pd.DataFrame(speed)})


def run(config: Config) -> pd.DataFrame:
    """Return images per second of every run: columns trainer, repeat, images_per_second."""
    root = write_toy(config.out / "toy", DrawingSettings(config.n_train, 1))
    records = DomainFolder(root, split="train").records
    table = write_captioned_table(
        with_captions(records, read_captions(root)), config.out / "train.tsv"
    )
    settings = replace(
        clip_preset("rn-tiny"), epochs=config.epochs, warmup=0, threads=1
    )  # too short to warm up
    rows = []
    for repeat in range(config.repeats):
        for name, train in (("by hand", by_hand), ("train_clip", train_clip)):
            folder = config.out / "run"
            shutil.rmtree(folder, ignore_errors=True)
            started = time.perf_counter()
            train(
                table.absolute(),
                folder.absolute(),
                settings,
                TrainingWork("cpu", config.workers, progress=False),
            )
            speed = len(records) * config.epochs / (time.perf_counter() - started)
            rows.append(
                {"trainer": name, "repeat": repeat + 1, "images_per_second": speed}
            )
            shutil.rmtree(folder)
    return pd.DataFrame(rows)


def by_hand(
    table: Path, folder: Path, preset: ClipTraining, work: TrainingWork
) -> None:
    """Train as a user of open_clip would."""
    arguments = {
        "model": preset.model,
        "train-data": table,
        "dataset-type": "csv",
        "csv-separator": "\t",
        "logs": folder.parent,
        "name": folder.name,
        "epochs": preset.epochs,
        "batch-size": preset.batch_size,
        "lr": preset.lr,
        "warmup": preset.warmup,
        "wd": preset.weight_decay,
        "seed": preset.seed,
        "workers": work.workers,
        "device": "cpu",
        "precision": "fp32",
        "save-frequency": 0,
    }
    command = [
        sys.executable,
        "-c",
        BY_HAND,
        str(SHIPPED_CONFIGS / f"{preset.model}.json"),
    ]
    command += [f"--{name}={value}" for name, value in arguments.items()]
    command += ["--save-most-recent", "--aug-cfg", f"scale=({preset.crop_scale},1.0)"]
    threads = {"OMP_NUM_THREADS": str(preset.threads)}
    subprocess.run(
        command, check=True, capture_output=True, env={**os.environ, **threads}
    )


if __name__ == "__main__":
    run_script(Config, main, __doc__)
