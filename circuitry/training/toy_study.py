"""The study in miniature: tiny CLIP models trained on mixtures of the drawn toy data set, where they are missing.

Settings, test domains and seeds as in the study; N is the size of CG low-diversity on the toy. Any number of processes
may ask for models in one folder: each is trained once, by the process that holds its lock.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from circuitry.data.domains import DomainFolder
from circuitry.data.mixtures.files import generated_captions, write_mixture
from circuitry.data.mixtures.selection import MixtureSettings, Setting, mixture
from circuitry.data.toy.write import CLASSES, DrawingSettings, write_toy
from circuitry.runs.files import file_lock
from circuitry.training.clip import train_clip
from circuitry.training.run_folder import checkpoints
from circuitry.training.study import StudyRun, record_run


@dataclass(frozen=True)
class ToySettings:
    """What the toy's models are made of."""

    n_train: int = 60
    """Drawn training images per class and style."""
    n_test: int = 50
    """Test images per class and style."""
    held_out: tuple[str, ...] = CLASSES[1::4]
    """Classes held out of the test domain."""
    model: str = "rn-tiny"
    """open_clip model name, or one shipped here."""
    epochs: int = 24
    """Passes over the mixture."""
    batch_size: int = 128
    """Images per step."""
    lr: float = 3e-3
    """Peak learning rate."""
    warmup: int = 50
    """Steps until the peak learning rate."""
    keep_checkpoints: int = 6
    """Epochs between checkpoints that are kept."""


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
    **more: Any,
) -> StudyRun:
    """Return the model of a setting, trained under ``out`` when it is missing.

    Args:
        out: Folder of the toy study.
        setting, test_domain: See `MixtureSettings`; ``natural-only`` is the same for every test domain.
        seed: Of the training; captions and images are the same for all seeds.
        settings: Sizes and hyper-parameters.
        wait: Wait where another process is training this very model; else raise `filelock.Timeout`.
        more: Further arguments of `train_clip`.

    Example:
        >>> run = toy_run(Path("runs/toy-study"), "cg-high", "quickdraw", seed=1)
    """
    chosen = MixtureSettings(setting, test_domain, settings.held_out)
    folder = Path(out) / "runs" / f"{chosen.name}-seed{seed}"
    with file_lock(Path(out), folder.name, wait=wait):
        records = mixture(toy_images(out, settings, "train").records, chosen)
        captions = generated_captions(aligned=chosen.aligned)
        table = write_mixture(records, captions, Path(out) / "mixtures" / f"{chosen.name}.tsv", settings=chosen)
        train_clip(
            table,
            folder,
            model=settings.model,
            epochs=settings.epochs,
            batch_size=settings.batch_size,
            lr=settings.lr,
            warmup=settings.warmup,
            keep_checkpoints=settings.keep_checkpoints,
            seed=seed,
            extra=("--aug-cfg", "scale=(0.6,1.0)"),
            **more,
        )
        run = record_run(folder, table, settings.model, seed)
    assert run is not None  # the mixture says what it is
    return run


def toy_checkpoint(
    out: Path, setting: Setting, test_domain: str, seed: int = 0, settings: ToySettings = STANDARD
) -> Path:
    """Return the last checkpoint of `toy_run`."""
    return checkpoints(toy_run(out, setting, test_domain, seed, settings).folder)[-1][1]
