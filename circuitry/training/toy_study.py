"""The study in miniature: tiny CLIP models trained on mixtures of the drawn toy data set, where they are missing.

Settings, test domains and seeds as in the study; N is the size of CG low-diversity on the toy. Any number of processes
may ask for models in one folder: each is trained once, by the process that holds its lock.
"""

from dataclasses import dataclass, replace
from pathlib import Path

from circuitry.data.domains import DomainFolder
from circuitry.data.mixtures.files import generated_captions, write_mixture
from circuitry.data.mixtures.selection import MixtureSettings, Setting, mixture
from circuitry.data.toy.write import CLASSES, DrawingSettings, write_toy
from circuitry.runs.files import file_lock
from circuitry.training.clip import train_clip
from circuitry.training.run_folder import checkpoints
from circuitry.training.settings import ClipTraining, TrainingWork, clip_preset
from circuitry.training.study import StudyRun, record_run

TRAINING = replace(clip_preset("rn-tiny"), epochs=24, keep_checkpoints=6)
"""What the toy's models are trained with."""


@dataclass(frozen=True)
class ToySettings:
    """What the toy's models are made of."""

    n_train: int = 60
    """Drawn training images per class and style."""
    n_test: int = 50
    """Test images per class and style."""
    held_out: tuple[str, ...] = CLASSES[1::4]
    """Classes held out of the test domain."""
    training: ClipTraining = TRAINING
    """What they are trained with; each model has a seed of its own."""


STANDARD = ToySettings()


def toy_images(out: Path, settings: ToySettings = STANDARD, split: str = "test") -> DomainFolder:
    """Return images of the toy under ``out``, drawn when missing."""
    with file_lock(Path(out), "toy"):
        root = write_toy(Path(out) / "toy", DrawingSettings(settings.n_train, settings.n_test))
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

    For ``natural-only`` it is the same for every test domain; the seed is that of the training, captions and images are
    the same for all. Where another process is training this very model, wait for it, or raise `filelock.Timeout`.

    Example:
        >>> run = toy_run(Path("runs/toy-study"), "cg-high", "quickdraw", seed=1)
    """
    chosen = MixtureSettings(setting, test_domain, settings.held_out)
    folder = Path(out) / "runs" / f"{chosen.name}-seed{seed}"
    with file_lock(Path(out), folder.name, wait=wait):
        records = mixture(toy_images(out, settings, "train").records, chosen)
        captions = generated_captions(aligned=chosen.aligned)
        table = write_mixture(records, captions, Path(out) / "mixtures" / f"{chosen.name}.tsv", settings=chosen)
        train_clip(table, folder, replace(settings.training, seed=seed), work)
        run = record_run(folder, table, str(settings.training.model), seed)
    assert run is not None  # the mixture says what it is
    return run


def toy_checkpoint(
    out: Path, setting: Setting, test_domain: str, seed: int = 0, settings: ToySettings = STANDARD
) -> Path:
    """Return the last checkpoint of `toy_run`."""
    return checkpoints(toy_run(out, setting, test_domain, seed, settings).folder)[-1][1]
