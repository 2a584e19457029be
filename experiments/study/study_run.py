"""The trained models of a study, read from the ``run.json`` in their folders. No torch.

A run has everything by which models of a study differ, so that tables average only seeds.

Held-out classes of the toy rotate (`held_out_folds`), so that every class is held out once. Folds share photographs
alone and the bounds, which hold nothing out. So the five settings are S (1 + D (2 + 2 F)) models for F folds, S seeds
and D test domains: 42 by default, about 75 minutes in two processes. A lock lets one process train each model.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from circuitry.runs import InputError, file_lock
from circuitry.data import DomainFolder
from circuitry.data.drawn import STYLES, TOY_CLASSES, DrawingSettings, write_toy
from circuitry.training import (
    ClipTraining,
    TrainingWork,
    checkpoints,
    clip_preset,
    generated_captions,
    read_run,
    record_run,
    train_clip,
)
from experiments.study.mixture_files import write_mixture
from experiments.study.selection import HOLDING_OUT, MixtureSettings, Setting, mixture

NOTHING_MORE = "none"  # no base set, or no images of ImageNet-Sketch


@dataclass(frozen=True)
class StudyRun:
    """One trained model of a study."""

    folder: Path  # folder of `train_clip` or `train_supervised`
    model: str  # open_clip model name, or one shipped here
    setting: str  # setting of its mixture, with fraction and other domains
    test_domain: str | None  # domain on which generalization is tested; None if the mixture does not depend on it
    held_out: tuple[str, ...] = ()
    """Classes held out of the test domain; also of settings that hold nothing out, for comparison."""
    seed: int = 0
    supervised: bool = False  # a supervised model instead of a CLIP model
    base: str = NOTHING_MORE  # base set of captioned photographs in the mixture
    sketches: str = NOTHING_MORE  # variant of ImageNet-Sketch in the mixture
    captions: str = "generated"  # source of the captions
    precision: str = "fp32"  # precision of the training
    threads: int | None = None  # threads of each process; another number rounds differently
    commit: str = "unknown"  # commit of this package's checkout, with ``-dirty`` if files were changed


def run_of(folder: Path) -> StudyRun | None:
    """Return the run in a folder, None for one that was trained on no mixture of the study."""
    record = read_run(Path(folder))
    table, training = record["table"] or {}, record["training"]
    if "settings" not in table:
        return None
    given: dict[str, Any] = {
        name: tuple(value) if isinstance(value, list) else value for name, value in table["settings"].items()
    }
    settings = MixtureSettings(**given)
    same = {name: training[name] for name in ("model", "seed", "precision", "threads")}
    return StudyRun(
        Path(folder),
        setting=settings.name.removesuffix(f"-{settings.test_domain}"),
        test_domain=table["test_domain"],  # photographs alone have none
        held_out=tuple(table["held_out"]),
        supervised=record["kind"] == "SupervisedTraining",
        base=table["base"] or NOTHING_MORE,
        sketches=table["sketches"] or NOTHING_MORE,
        captions=table["captions"],
        commit=record["commit"],
        **same,
    )


def find_runs(folder: Path) -> list[StudyRun]:
    """Return all runs on mixtures below a folder, in the order of their paths."""
    found = (run_of(path.parent) for path in sorted(Path(folder).rglob("run.json")))
    runs = [run for run in found if run is not None]
    if not runs:
        raise InputError(f"No folder below {folder} has the run.json of a model of a mixture: train some models first.")
    return runs


TOY_TRAINING = replace(clip_preset("rn-tiny"), epochs=24, keep_checkpoints=6)  # settings of the toy's trainings


def held_out_folds(classes: Sequence[str], n_folds: int) -> tuple[tuple[str, ...], ...]:
    """Return held-out sets of equal size that have every class once: class i is in fold i mod n."""
    if n_folds < 2 or len(classes) % n_folds:
        raise InputError(
            f"The {len(classes)} classes need at least 2 folds of equal size, but {n_folds} folds were given: choose a "
            "divisor."
        )
    return tuple(tuple(classes[first::n_folds]) for first in range(n_folds))


@dataclass(frozen=True)
class ToySettings:
    """Images, held-out classes and training of the toy's models."""

    n_train: int = 60  # drawn training images per class and style
    n_test: int = 50  # test images per class and style
    classes: tuple[str, ...] = TOY_CLASSES  # drawn classes
    styles: tuple[str, ...] = STYLES  # the domains
    held_out: tuple[str, ...] = TOY_CLASSES[1::4]  # classes held out of the test domain
    training: ClipTraining = TOY_TRAINING  # training; each model has its own seed


STANDARD = ToySettings()


def toy_images(out: Path, settings: ToySettings = STANDARD, split: str = "test") -> DomainFolder:
    """Return images of the toy under ``out``; draw them if they are missing."""
    drawn = DrawingSettings(settings.n_train, settings.n_test, classes=settings.classes, styles=settings.styles)
    with file_lock(Path(out), "toy"):
        root = write_toy(Path(out) / "toy", drawn)
    return DomainFolder(root, split=split)


def toy_run(
    out: Path,
    setting: Setting,
    test_domain: str,
    seed: int = 0,
    settings: ToySettings = STANDARD,
    *,
    wait: bool = True,
    work: TrainingWork = TrainingWork(),
) -> StudyRun:
    """Return the model of a setting; train it under ``out`` if it is missing."""
    chosen = MixtureSettings(setting, test_domain, settings.held_out)
    without = ["without", *settings.held_out] if setting in HOLDING_OUT else []
    name = "-".join([chosen.name, *without])
    folder = Path(out) / "runs" / f"{name}-seed{seed}"
    with file_lock(Path(out), folder.name, wait=wait):
        records = mixture(toy_images(out, settings, "train").records, chosen)
        captions = generated_captions(aligned=chosen.aligned)
        table = write_mixture(records, captions, Path(out) / "mixtures" / f"{name}.tsv", settings=chosen)
        training = replace(settings.training, seed=seed)
        train_clip(table, folder, training, work)
        record_run(folder, table, training)
    run = run_of(folder)
    assert run is not None  # its table is a mixture
    return replace(run, held_out=settings.held_out)


def toy_checkpoint(out: Path, setting: Setting, test_domain: str, seed: int = 0) -> Path:
    """Return the last checkpoint of `toy_run`."""
    return checkpoints(toy_run(out, setting, test_domain, seed).folder)[-1][1]
