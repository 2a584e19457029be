"""Which models were trained? The models of a study, read from ``run.json`` in their folders, without torch.

A `StudyRun` holds everything by which models of a study differ, so that tables average over seeds alone.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from circuitry.runs import InputError
from circuitry.training import read_run
from experiments.study.selection import MixtureSettings

NOTHING_MORE = "none"  # stands for no base set, and for no images of ImageNet-Sketch


@dataclass(frozen=True)
class StudyRun:
    """One trained model of a study."""

    folder: Path  # folder of `train_clip` or `train_supervised`
    model: str  # open_clip model name, or one shipped here
    setting: str  # setting of its mixture, with fraction and other domains
    # Domain on which generalization is tested; None if the mixture does not depend on it.
    test_domain: str | None
    held_out: tuple[str, ...] = ()
    """Classes held out of the test domain. Settings that hold no class out name these classes for comparison."""
    seed: int = 0
    supervised: bool = False  # a supervised model instead of a CLIP model
    base: str = NOTHING_MORE  # base set of captioned photographs in the mixture
    sketches: str = NOTHING_MORE  # variant of ImageNet-Sketch in the mixture
    captions: str = "generated"  # source of the captions
    precision: str = "fp32"  # precision of the training
    # Threads of each process; another number of threads rounds sums differently.
    threads: int | None = None
    commit: str = "unknown"  # commit of this package's checkout, with ``-dirty`` if files were changed


def run_of(folder: Path) -> StudyRun | None:
    """Return the run in a folder, or None if the model was trained on no mixture of the study."""
    record = read_run(Path(folder))
    table = record["table"] or {}
    training = record["training"]
    # Tables of images that are no mixture are recorded without settings.
    if "settings" not in table:
        return None
    given: dict[str, Any] = {}
    for name, value in table["settings"].items():
        # JSON has no tuples, which settings need to be hashable.
        given[name] = tuple(value) if isinstance(value, list) else value
    settings = MixtureSettings(**given)
    return StudyRun(
        Path(folder),
        training["model"],
        setting=settings.name.removesuffix(f"-{settings.test_domain}"),
        test_domain=table["test_domain"],  # photographs alone have none
        held_out=tuple(table["held_out"]),
        seed=training["seed"],
        supervised=record["kind"] == "SupervisedTraining",
        base=table["base"] or NOTHING_MORE,
        sketches=table["sketches"] or NOTHING_MORE,
        captions=table["captions"],
        precision=training["precision"],
        threads=training["threads"],
        commit=record["commit"],
    )


def find_runs(folder: Path) -> list[StudyRun]:
    """Return all runs on mixtures of the study below a folder, in the order of their paths.

    Raises:
        InputError: There is no such run.
    """
    runs = list[StudyRun]()
    for path in sorted(Path(folder).rglob("run.json")):
        run = run_of(path.parent)
        if run is not None:
            runs.append(run)
    if not runs:
        raise InputError(
            f"No folder below {folder} has the run.json of a model of a mixture: train some models first."
        )
    return runs
