"""The folder of a training run, and ``run.json``, which records the settings and the table of a training.

The folder is a `JobFolder` with a single job.

Does not import torch.
"""

import hashlib
import os
import re
import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from circuitry.runs.arguments import checked
from circuitry.runs.errors import InputError, unknown_name
from circuitry.runs.jobs import Job, JobFolder
from circuitry.runs.manifest import check_format, read_sealed, write_sealed
from circuitry.runs.provenance import versions
from circuitry.training.trainer_table import description_file, read_description
from circuitry.training.training_settings import ModelTraining

_FORMAT = "circuitry training 2"
_RUN_FORMAT = "circuitry run 3"
RUN_FILE = "run.json"
TRAINING_JOB: Job = ("training",)
"""The single job of the folder of a run."""
_CHECKPOINT = re.compile(r"epoch_(\d+)\.(?:pt|safetensors)")
_BLOCK = 1 << 24  # bytes of a table in memory at a time


def claim_run(
    out: Path,
    settings: ModelTraining,
    model: Mapping[str, Any],
    table: Path,
    **more: object,
) -> JobFolder:
    """Return the folder of a run, and create it if it does not exist.

    If the folder exists, it must belong to a run with the same settings, model and table.

    Args:
        out: The folder.
        settings: Settings of the training.
        model: Configuration of the model, by the name of the model.
        table: Table of the training images.
        **more: Anything else that influences the weights.

    Raises:
        InputError: if the folder belongs to a run whose settings, model, table or other values (``more``) differ.

    Example:
        >>> n_characters = Path("two.tsv").write_text("filepath\\ttitle\\na.png\\ta cat\\n")
        >>> settings = circuitry.training.clip_preset("rn-tiny")
        >>> run = circuitry.training.claim_run(Path("runs/claimed"), settings, {"mine": {}}, Path("two.tsv"))
        >>> run.jobs
        (('training',),)
    """
    about = {"model": dict(model), "table": described(table)}
    return JobFolder(out, _FORMAT, asdict(settings) | about | more, [TRAINING_JOB])


def described(table: Path) -> dict[str, Any]:
    """Return a description of a table: ``sha256``, its digest, and ``first image``, the path of its first image.

    Before the two values are computed, the path of the table's folder is removed from the text of the table. So they do
    not change if this folder, with the table and the images in it, is moved. If only the images are moved, they change.

    Example:
        >>> pd.DataFrame({"filepath": ["1.png", "2.png"]}).to_csv("few.tsv", index=False)
        >>> circuitry.training.described(Path("few.tsv"))["first image"]
        '1.png'
    """
    own_folder = os.fsencode(table.parent) + b"/"
    total, first = hashlib.sha256(), b""
    with open(table, "rb") as file:
        while lines := file.readlines(_BLOCK):
            total.update(b"".join(lines).replace(own_folder, b""))
            first = first or (lines[1] if len(lines) > 1 else lines[0])
    shown = first.replace(own_folder, b"").decode(errors="replace").strip()
    return {"sha256": total.hexdigest(), "first image": shown.partition("\t")[0]}


def checkpoints(run_folder: Path) -> list[tuple[int, Path]]:
    """Return (epoch, file) for each checkpoint that a run has kept, in the order of epochs.

    The run is a run of `train_clip`, and may be unfinished. The setting ``keep_checkpoints`` of the run says which
    epochs are kept. Incomplete files are left out.

    Example:
        >>> Path("runs/mine/checkpoints").mkdir(parents=True)
        >>> Path("runs/mine/checkpoints/epoch_2.safetensors").touch()
        >>> [epoch for epoch, path in circuitry.training.checkpoints(Path("runs/mine"))]
        [2]
    """
    folder = Path(run_folder) / "checkpoints"
    if not folder.is_dir():
        raise InputError(
            f"A training run has the folder {folder}, which does not exist: give the folder of a run."
        )
    by_epoch = {}
    # They are sorted, so that if an epoch has two files, the same file is taken each time.
    for path in sorted(folder.iterdir()):
        name = _CHECKPOINT.fullmatch(path.name)
        # open_clip does not write checkpoints atomically. A checkpoint is a zip archive that ends with a table of
        # contents, so an incomplete file is not a zip archive.
        if name and (path.suffix != ".pt" or zipfile.is_zipfile(path)):
            by_epoch[int(name[1])] = path
    return sorted(by_epoch.items())


def kept_checkpoints(
    run_folder: Path, epochs: Sequence[int] | None = None
) -> dict[int, Path]:
    """Return the checkpoints of a run by epoch. Epoch 0 is the untrained model.

    Args:
        run_folder: Folder of the run.
        epochs: Epochs whose checkpoints are returned (default: all kept epochs).

    Raises:
        InputError: if the run has no checkpoints, or no checkpoint of a given epoch.

    Example:
        >>> Path("runs/kept/checkpoints").mkdir(parents=True)
        >>> Path("runs/kept/checkpoints/epoch_4.safetensors").touch()
        >>> list(circuitry.training.kept_checkpoints(Path("runs/kept")))
        [4]
    """
    kept = dict(checkpoints(run_folder))
    if not kept:
        raise InputError(
            f"{run_folder} holds no checkpoints: finish its training first."
        )
    if epochs is None:
        return kept
    for epoch in epochs:
        if epoch not in kept:
            kind = f"checkpoint in {run_folder} after epoch"
            raise unknown_name(kind, str(epoch), map(str, kept))
    return {epoch: kept[epoch] for epoch in epochs}


def record_run(folder: Path, table: Path, training: Any) -> None:
    """Write ``run.json`` into the folder of a model, unless it exists; see `read_run`.

    Args:
        folder: Folder of the model.
        table: Table of the training images, whose description (`read_description`) is recorded if it has one.
        training: Settings of the training.

    Example:
        >>> Path("one.tsv").touch()
        >>> Path("runs/recorded").mkdir(parents=True)
        >>> settings = circuitry.training.clip_preset("rn-tiny")
        >>> circuitry.training.record_run(Path("runs/recorded"), Path("one.tsv"), settings)
    """
    if (folder / RUN_FILE).is_file():
        return
    told = {
        name: str(value) if isinstance(value, Path) else value
        for name, value in asdict(training).items()
    }
    described = read_description(table) if description_file(table).is_file() else None
    made = {
        "kind": type(training).__name__,
        "training": told,
        "table": described,
        "commit": versions()["commit"],
    }
    write_sealed(folder / RUN_FILE, {"format": _RUN_FORMAT, **made})


@checked
def read_run(folder: Path) -> dict[str, Any]:
    """Return what `record_run` wrote, as a dictionary.

    Its keys are ``kind`` (the name of the class of the settings), ``training`` (the settings), ``table`` (the
    description of the table, or None) and ``commit`` (the commit of this package).

    Example:
        >>> Path("no.tsv").touch()
        >>> Path("runs/read").mkdir(parents=True)
        >>> circuitry.training.record_run(Path("runs/read"), Path("no.tsv"), circuitry.training.clip_preset("rn-tiny"))
        >>> circuitry.training.read_run(Path("runs/read"))["kind"]
        'ClipTraining'
    """
    path = folder / RUN_FILE
    content = read_sealed(path, "train a model there")
    check_format(path, content.pop("format", "unknown"), _RUN_FORMAT)
    return content
