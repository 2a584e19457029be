"""Which models were trained? The models of a study, read from ``run.json`` in their folders or from a table.

A table has a line for each model, so that models of any training can be evaluated and compared.

A `StudyRun` holds everything by which models of a study differ, so that tables average over seeds alone.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from circuitry.runs import InputError
from circuitry.data import chosen_names
from circuitry.training import kept_checkpoints, read_run
from experiments.study.run_tables import setting_family
from experiments.study.selection import SETTINGS, MixtureSettings

import pandas as pd

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
    checkpoint: Path | None = None
    """The only checkpoint of a model that a table names. The folder then has results alone."""

    def checkpoints(self, epochs: Sequence[int] | None = None) -> dict[int, Path]:
        """Return the checkpoints by epoch. A single checkpoint has the epoch of its name, or 1.

        Args:
            epochs: Epochs whose checkpoints are returned (default: all that are kept). It is ignored for a single
                checkpoint.
        """
        if self.checkpoint is None:
            return kept_checkpoints(self.folder, epochs)
        name = re.fullmatch(r"epoch_(\d+)", self.checkpoint.stem)
        return {int(name[1]) if name else 1: self.checkpoint}


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


TABLE_COLUMNS = ("checkpoint", "model", "setting", "test_domain", "held_out", "seed")
"""Columns of a table of models; see `runs_of_table`."""


def runs_of_table(path: Path) -> list[StudyRun]:
    """Return the models that a table names, in its order.

    The table has the columns `TABLE_COLUMNS`: the file of the weights, relative to the folder of the table; the name of
    the model for `load_clip`; the setting of its mixture (`SETTINGS`); the test domain, empty if the mixture does not
    depend on it; the held-out classes, with commas between them; and the seed. Results go into a folder beside the
    table.
    """
    separator = "," if path.suffix == ".csv" else "\t"
    try:
        table = pd.read_csv(path, sep=separator, dtype=str, keep_default_na=False)
    except (OSError, ValueError) as error:
        raise InputError(
            f"Expected a table of models with the columns {', '.join(TABLE_COLUMNS)} in {path}, but it cannot be read: "
            f"{error}"
        ) from None
    missing = [name for name in TABLE_COLUMNS if name not in table]
    if missing:
        raise InputError(
            f"A table of models has the columns {', '.join(TABLE_COLUMNS)}, but {path} lacks {', '.join(missing)}: add "
            "them."
        )
    runs = list[StudyRun]()
    for i, row in table.iterrows():
        chosen_names("setting", [setting_family(row["setting"])], SETTINGS)
        if not row["seed"].isdecimal():
            raise InputError(
                f"A seed is a whole number, but {row['seed']!r} was given for {row['checkpoint']} in {path}: correct "
                "it."
            )
        held_out = [name.strip() for name in row["held_out"].split(",")]
        checkpoint = path.parent / row["checkpoint"]
        folder = path.with_suffix("") / f"{i}-{checkpoint.stem}"
        runs.append(
            StudyRun(
                folder,
                row["model"],
                row["setting"],
                row["test_domain"] or None,
                tuple(filter(None, held_out)),
                int(row["seed"]),
                checkpoint=checkpoint,
            )
        )
    return runs


def find_runs(folder: Path) -> list[StudyRun]:
    """Return all runs on mixtures of the study below a folder, in the order of their paths, or those of a table.

    Args:
        folder: The folder, or a table of models (.csv, .tsv); see `runs_of_table`.

    Raises:
        InputError: There is no such run.
    """
    if Path(folder).suffix in (".csv", ".tsv"):
        return runs_of_table(Path(folder))
    runs = list[StudyRun]()
    for path in sorted(Path(folder).rglob("run.json")):
        run = run_of(path.parent)
        if run is not None:
            runs.append(run)
    if not runs:
        raise InputError(
            f"No folder below {folder} has the run.json of a model of a mixture: train some models first, or give "
            f"a table of models (.csv) with the columns {', '.join(TABLE_COLUMNS)}."
        )
    return runs
