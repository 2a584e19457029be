"""The trained models of a study, read from the ``run.json`` in their folders. No torch.

A run has everything by which models of a study differ, so that tables average only seeds.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from circuitry.runs import InputError
from circuitry.training import read_run
from experiments.study.selection import MixtureSettings

NOTHING_MORE = "none"
"""No base set, or no images of ImageNet-Sketch."""


@dataclass(frozen=True)
class StudyRun:
    """One trained model of a study."""

    folder: Path
    """Folder of `train_clip` or `train_supervised`."""
    model: str
    """open_clip model name, or one shipped here."""
    setting: str
    """Setting of its mixture, with fraction and other domains."""
    test_domain: str | None
    """Domain on which generalization is tested; None if the mixture does not depend on it."""
    held_out: tuple[str, ...] = ()
    """Classes held out of the test domain; also of settings that hold nothing out, for comparison."""
    seed: int = 0
    supervised: bool = False
    """A supervised model instead of a CLIP model."""
    base: str = NOTHING_MORE
    """Base set of captioned photographs in the mixture."""
    sketches: str = NOTHING_MORE
    """Variant of ImageNet-Sketch in the mixture."""
    captions: str = "generated"
    """Source of the captions."""
    precision: str = "fp32"
    """Precision of the training."""
    threads: int | None = None
    """Threads of each process; another number rounds differently."""
    commit: str = "unknown"
    """Commit of this package's checkout, with ``-dirty`` if files were changed."""

    @classmethod
    def read(cls, folder: Path) -> "StudyRun":
        """Read the run in a folder; InputError if there is none, or it was trained on no mixture."""
        run = run_of(folder)
        if run is None:
            raise InputError(f"The table of the run in {folder} is no mixture of the study: train on one.")
        return run


def run_of(folder: Path) -> StudyRun | None:
    """Return the run in a folder, None for one that was trained on no mixture of the study."""
    record = read_run(Path(folder))
    table, training = record["table"] or {}, record["training"]
    if "settings" not in table:
        return None
    kept: dict[str, Any] = {
        name: tuple(value) if isinstance(value, list) else value for name, value in table["settings"].items()
    }
    settings = MixtureSettings(**kept)
    return StudyRun(
        Path(folder),
        training["model"],
        settings.name.removesuffix(f"-{settings.test_domain}"),
        table["test_domain"],  # photographs alone have none
        tuple(table["held_out"]),
        training["seed"],
        record["kind"] == "SupervisedTraining",
        table["base"] or NOTHING_MORE,
        table["sketches"] or NOTHING_MORE,
        table["captions"],
        training["precision"],
        training["threads"],
        record["commit"],
    )


def find_runs(folder: Path) -> list[StudyRun]:
    """Return all runs on mixtures below a folder, in the order of their paths.

    Raises:
        InputError: When there is none.
    """
    found = (run_of(path.parent) for path in sorted(Path(folder).rglob("run.json")))
    if not (runs := [run for run in found if run is not None]):
        raise InputError(f"No folder below {folder} has the run.json of a model of a mixture: train some models first.")
    return runs
