"""The study in miniature: tiny CLIP models on mixtures of the drawn toy data set, trained if they are missing.

Settings, test domains and seeds follow the study; N is the size of CG low-diversity on the toy. Held-out classes rotate
(`held_out_folds`), so that every class is held out once. Several processes may request models in one folder; a lock
lets one of them train each model.

Folds share photographs alone and the bounds, which hold nothing out. So the five settings are S (1 + D (2 + 2 F))
models for F folds, S seeds and D test domains: 42 by default, about 75 minutes in two processes.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from circuitry.runs import InputError, file_lock
from circuitry.data import DomainFolder
from circuitry.data.drawn import STYLES, TOY_CLASSES, DrawingSettings, write_toy
from circuitry.training import (
    ClipTraining,
    TrainingWork,
    checkpoints,
    clip_preset,
    generated_captions,
    record_run,
    train_clip,
)
from experiments.study.mixture_files import write_mixture
from experiments.study.selection import HOLDING_OUT, MixtureSettings, Setting, mixture
from experiments.study.study_run import StudyRun

TOY_TRAINING = replace(clip_preset("rn-tiny"), epochs=24, keep_checkpoints=6)
"""Settings of the toy's trainings."""


def held_out_folds(classes: Sequence[str], n_folds: int) -> tuple[tuple[str, ...], ...]:
    """Return held-out sets of equal size that have every class once: class i is in fold i mod n.

    Raises:
        InputError: For fewer than 2 folds, and for a number of folds that does not divide the number of classes.

    Example:
        >>> held_out_folds(["axe", "bed", "cat", "dog"], 2)
        (('axe', 'cat'), ('bed', 'dog'))
    """
    if n_folds < 2 or len(classes) % n_folds:
        raise InputError(
            f"The {len(classes)} classes need at least 2 folds of equal size, but {n_folds} folds were given: choose a "
            "divisor."
        )
    return tuple(tuple(classes[first::n_folds]) for first in range(n_folds))


@dataclass(frozen=True)
class ToySettings:
    """Images, held-out classes and training of the toy's models."""

    n_train: int = 60
    """Drawn training images per class and style."""
    n_test: int = 50
    """Test images per class and style."""
    classes: tuple[str, ...] = TOY_CLASSES
    """Drawn classes."""
    styles: tuple[str, ...] = STYLES
    """The domains."""
    held_out: tuple[str, ...] = TOY_CLASSES[1::4]
    """Classes held out of the test domain."""
    training: ClipTraining = TOY_TRAINING
    """Training; each model has its own seed."""


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
    """Return the model of a setting; train it under ``out`` if it is missing.

    Test domains share the model of ``natural-only``; held-out sets of one size share models of settings that hold
    nothing out. The seed is that of the training; captions and images are the same for all. If another process trains
    this model, wait for it, or raise `filelock.Timeout`.

    Example:
        >>> run = toy_run(Path("runs/toy-study"), "cg-high", "quickdraw", seed=1)
    """
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
    return replace(StudyRun.read(folder), held_out=settings.held_out)


def toy_checkpoint(
    out: Path, setting: Setting, test_domain: str, seed: int = 0, settings: ToySettings = STANDARD
) -> Path:
    """Return the last checkpoint of `toy_run`."""
    return checkpoints(toy_run(out, setting, test_domain, seed, settings).folder)[-1][1]
