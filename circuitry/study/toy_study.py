"""The study in miniature: tiny CLIP models trained on mixtures of the drawn toy data set, where they are missing.

Settings, test domains and seeds as in the study; N is the size of CG low-diversity on the toy. Held-out classes rotate
(`held_out_folds`), so that every class is held out once. Any number of processes may ask for models in one folder: each
is trained once, by the process that holds its lock.

With photographs alone and the bounds, which hold nothing out, shared by the folds, the five settings are
S (1 + D (2 + 2 F)) models for F folds, S seeds and D test domains: 42 for the defaults, which takes about an hour and a
quarter in two processes.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from circuitry.data.domains import DomainFolder
from circuitry.runs.errors import InputError
from circuitry.runs.files import file_lock
from circuitry.study.mixtures.mixture_files import generated_captions, write_mixture
from circuitry.study.mixtures.selection import HOLDING_OUT, MixtureSettings, Setting, mixture
from circuitry.study.study_run import StudyRun, record_run
from circuitry.study.toy.drawing import STYLES, TOY_CLASSES, DrawingSettings, write_toy
from circuitry.training.clip_training import train_clip
from circuitry.training.run_folder import checkpoints
from circuitry.training.training_settings import ClipTraining, TrainingWork, clip_preset

TOY_TRAINING = replace(clip_preset("rn-tiny"), epochs=24, keep_checkpoints=6)
"""What the toy's models are trained with."""


def held_out_folds(classes: Sequence[str], n_folds: int) -> tuple[tuple[str, ...], ...]:
    """Return held-out sets of equal size in which every class is once: class i, in the order given, is in fold i mod n.

    Raises:
        InputError: For a number of folds that is below 2, or that the number of classes is no multiple of.

    Example:
        >>> held_out_folds(["axe", "bed", "cat", "dog"], 2)
        (('axe', 'cat'), ('bed', 'dog'))
    """
    if n_folds < 2 or len(classes) % n_folds:
        raise InputError(
            f"The {len(classes)} classes are held out in at least 2 folds of equal size, but {n_folds} were asked for."
        )
    return tuple(tuple(classes[first::n_folds]) for first in range(n_folds))


@dataclass(frozen=True)
class ToySettings:
    """What the toy's models are made of."""

    n_train: int = 60
    """Drawn training images per class and style."""
    n_test: int = 50
    """Test images per class and style."""
    classes: tuple[str, ...] = TOY_CLASSES
    """What is drawn."""
    styles: tuple[str, ...] = STYLES
    """The domains."""
    held_out: tuple[str, ...] = TOY_CLASSES[1::4]
    """Classes held out of the test domain."""
    training: ClipTraining = TOY_TRAINING
    """What they are trained with; each model has a seed of its own."""


STANDARD = ToySettings()


def toy_images(out: Path, settings: ToySettings = STANDARD, split: str = "test") -> DomainFolder:
    """Return images of the toy under ``out``, drawn when missing."""
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
    """Return the model of a setting, trained under ``out`` when it is missing.

    For ``natural-only`` it is the same for every test domain, and for settings that hold nothing out the same for
    held-out sets of one size; the seed is that of the training, captions and images are the same for all. Where
    another process is training this very model, wait for it, or raise `filelock.Timeout`.

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
