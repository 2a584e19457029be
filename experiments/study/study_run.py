"""The trained models of a study, read from the ``run.json`` in their folders. No torch.

A run has everything by which models of a study differ, so that tables average only seeds.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from circuitry.runs import InputError
from circuitry.training import read_run
from experiments.study.selection import MixtureSettings

NOTHING_MORE = "none"  # no base set, or no images of ImageNet-Sketch


@dataclass(frozen=True)
class StudyRun:
    """One trained model of a study."""

    folder: Path  # folder of `train_clip` or `train_supervised`
    model: str  # open_clip model name, or one shipped here
    setting: str  # setting of its mixture, with fraction and other domains
    # Domain on which generalization is tested; None if the mixture does not depend on it.
    test_domain: str | None
    held_out: tuple[str, ...] = ()
    """Classes held out of the test domain; also of settings that hold nothing out, for comparison."""
    seed: int = 0
    supervised: bool = False  # a supervised model instead of a CLIP model
    base: str = NOTHING_MORE  # base set of captioned photographs in the mixture
    sketches: str = NOTHING_MORE  # variant of ImageNet-Sketch in the mixture
    captions: str = "generated"  # source of the captions
    precision: str = "fp32"  # precision of the training
    # Threads of each process; another number rounds differently.
    threads: int | None = None
    commit: str = "unknown"  # commit of this package's checkout, with ``-dirty`` if files were changed


def run_of(folder: Path) -> StudyRun | None:
    """Return the run in a folder, None for one that was trained on no mixture of the study."""
    record = read_run(Path(folder))
    table = record["table"] or {}
    training = record["training"]
    if "settings" not in table:
        return None
    given: dict[str, Any] = {
        name: tuple(value) if isinstance(value, list) else value
        for name, value in table["settings"].items()
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
        raise InputError(
            f"No folder below {folder} has the run.json of a model of a mixture: train some models first."
        )
    return runs
