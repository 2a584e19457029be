"""How long do mixtures of training images take, and what does `train_clip` add to open_clip's trainer?

Mixtures: synthetic lists of the size of DomainNet and a base table of the size of CC12M become the mixture cg-high and
the trainer's table. There are no image files. On a shared machine the seconds of the processor are the ones to read.

Training: `train_clip` and open_clip's trainer train the same model on the same drawn images with the same arguments, in
turns. A speed is the number of images per second over the whole call, so that all that `train_clip` adds counts (checks
of the table, records, the log).

    python experiments/speed_of_training.py                 # 2.5 GiB on disk
    python experiments/speed_of_training.py --of training
"""

import os
import shutil
import subprocess
import sys
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from circuitry.runs import run_script, whole_file
from circuitry import DomainFolder
from circuitry.data import STUDY_HELD_OUT, imagenet_partners
from circuitry.models.open_clip_models import SHIPPED_CONFIGS
from circuitry.runs.workers import peak_memory_gib
from circuitry.training import (
    ClipTraining,
    TrainingWork,
    clip_preset,
    generated_captions,
    read_captions,
    train_clip,
    with_captions,
    write_captioned_table,
)
from experiments.drawn import DrawingSettings, write_toy
from experiments.kept_tables import KeepSettings
from experiments.study.base_sets import caption_table
from experiments.study.mixture_files import write_mixture
from experiments.study.selection import DOMAINNET_ROUND, MixtureSettings, mixture

import pandas as pd

CAPTION = "a photo of the old house by the sea with a black dog on the street and a white mountain in the view, {}"
"""A caption of the average length of captions of CC12M."""
BY_HAND = """
import sys
import open_clip
from open_clip_train.main import main
if __name__ == "__main__":
    open_clip.add_model_config(sys.argv.pop(1))
    main(sys.argv[1:])
"""
"""The script of a user of open_clip whose model has its own configuration."""
REPEATS = 3
"""Runs of each trainer; the median counts."""
WORKERS = 2
"""Processes that read images."""


@dataclass(frozen=True)
class Config(KeepSettings):
    """Settings of the measurements."""

    of: Literal["mixtures", "training"] = "mixtures"
    """What is measured."""
    out: Path = Path("runs/speed")
    """Folder of lists, drawn images and runs; a second call reuses lists and images."""
    images: int = 600_000
    """Mixtures: images of the synthetic DomainNet."""
    base_images: int = 12_000_000
    """Mixtures: lines of the base table."""
    n_train: int = 30
    """Training: drawn images per class and style."""
    epochs: int = 3
    """Training: passes over the images in each run."""


def main(config: Config) -> None:
    """Measure one kind of speed, print and write its table."""
    measured = mixtures(config) if config.of == "mixtures" else training(config)
    name = "mixture" if config.of == "mixtures" else "train_clip"
    config.keep({name: pd.DataFrame([measured])})


def mixtures(config: Config) -> dict[str, float]:
    """Make a mixture of lists, and return its time and memory. The lists are written first if there are none."""
    root = config.out / f"domainnet-{config.images}"
    base = config.out / f"base-{config.base_images}.tsv"
    if not base.is_file():
        write_lists(root, config.images)
        write_base(base, config.base_images)
    started = time.perf_counter()
    worked = time.process_time()
    records = DomainFolder(root, split="train", missing_files="unchecked").records
    settings = MixtureSettings("cg-high", "sketch", STUDY_HELD_OUT)
    chosen = mixture(records, settings)
    listed = time.perf_counter()
    table = write_mixture(
        chosen,
        generated_captions(),
        config.out / "mixture.tsv",
        settings,
        base=caption_table(base, "base"),
        missing_files="unchecked",
    )
    return {
        "images listed": len(records),
        "chosen": len(chosen),
        "base lines": config.base_images,
        "seconds of listing": listed - started,
        "seconds of merging": time.perf_counter() - listed,
        "CPU seconds": time.process_time() - worked,
        "GiB written": table.stat().st_size / 2**30,
        "peak GiB": peak_memory_gib(),
    }


def write_lists(root: Path, images: int) -> None:
    """Write DomainNet's lists, with class sizes between half and one and a half times the mean."""
    names = [name.replace(" ", "_") for name in imagenet_partners()]
    mean = images / (len(DOMAINNET_ROUND) * len(names))
    for domain in DOMAINNET_ROUND:
        # By its folder a list is known to be of a domain.
        (root / domain).mkdir(parents=True, exist_ok=True)
        with open(root / f"{domain}_train.txt", "w", encoding="utf-8") as file:
            for label, name in enumerate(names):
                for i in range(round(mean * (0.5 + label / (len(names) - 1)))):
                    image = f"{domain}/{name}/{domain}_{label:03d}_{i:06d}.jpg"
                    file.write(f"{image} {label}\n")


def write_base(table: Path, images: int) -> None:
    """Write a table like CC12M's, ten thousand images a folder, captions of about a hundred characters."""
    with whole_file(table) as temporary, open(temporary, "w", encoding="utf-8") as file:
        file.write("filepath\ttitle\n")
        for i in range(images):
            image = f"{i // 10_000:05d}/{i:09d}.jpg"
            file.write(f"{image}\t{CAPTION.format(i)}\n")


def training(config: Config) -> dict[str, float]:
    """Train by `train_clip` and by open_clip's trainer in turns, and return the median speed and its ratio."""
    root = write_toy(config.out / "toy", DrawingSettings(config.n_train, 1))
    records = DomainFolder(root, split="train").records
    captioned = with_captions(records, read_captions(root))
    table = write_captioned_table(captioned, config.out / "train.tsv").absolute()
    # Too short to warm up.
    settings = replace(
        clip_preset("rn-tiny"), epochs=config.epochs, warmup=0, threads=1
    )
    work = TrainingWork("cpu", WORKERS, progress=False)
    folder = (config.out / "run").absolute()
    rows = []
    for _ in range(REPEATS):
        for name, train in (("by hand", by_hand), ("train_clip", train_clip)):
            shutil.rmtree(folder, ignore_errors=True)
            started = time.perf_counter()
            train(table, folder, settings, work)
            seconds = time.perf_counter() - started
            rows.append((name, len(records) * config.epochs / seconds))
    shutil.rmtree(folder)
    speeds = pd.DataFrame(rows, columns=["trainer", "speed"]).groupby("trainer")
    median = speeds["speed"].median()
    ratio = median["train_clip"] / median["by hand"]
    return {"images per second": median["train_clip"], "of the trainer by hand": ratio}


def by_hand(
    table: Path, folder: Path, settings: ClipTraining, work: TrainingWork
) -> None:
    """Train as a user of open_clip would."""
    options = {
        "model": settings.model,
        "train-data": table,
        "dataset-type": "csv",
        "csv-separator": "\t",
        "logs": folder.parent,
        "name": folder.name,
        "epochs": settings.epochs,
        "batch-size": settings.batch_size,
        "lr": settings.lr,
        "warmup": settings.warmup,
        "wd": settings.weight_decay,
        "seed": settings.seed,
        "workers": work.workers,
        "device": "cpu",
        "precision": "fp32",
        "save-frequency": 0,
    }
    model = SHIPPED_CONFIGS / f"{settings.model}.json"
    command = [sys.executable, "-c", BY_HAND, str(model)]
    command += [f"--{name}={value}" for name, value in options.items()]
    command += ["--save-most-recent", "--aug-cfg", f"scale=({settings.crop_scale},1.0)"]
    threads = {"OMP_NUM_THREADS": str(settings.threads)}
    subprocess.run(command, check=True, capture_output=True, env=os.environ | threads)


if __name__ == "__main__":
    run_script(Config, main, __doc__)
