"""Train a CLIP model with open_clip's trainer, on one device or several.

Several processes share each batch and gather embeddings with their gradients, so a step equals the step of one process
with the whole batch. Batch norm is the exception: each process has its own statistics. A process holds logits of its
share against the whole batch.
"""

import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import open_clip
import pandas as pd
import torch
from torch import Tensor, nn

from circuitry.models.checkpoints import check_state, read_checkpoint
from circuitry.models.open_clip_models import register_model
from circuitry.runs.errors import InputError
from circuitry.runs.files import whole_file
from circuitry.runs.jobs import Job
from circuitry.runs.manifest import write_json
from circuitry.training.open_clip_process import diverged, run_trainer
from circuitry.training.run_folder import TRAINING_JOB, claim_run, described
from circuitry.training.trainer_table import check_training_table
from circuitry.training.training_settings import ClipTraining, TrainingWork

_LATEST = "epoch_latest.pt"  # open_clip's name of what it resumes from


def train_clip(
    table: Path,
    out: Path,
    settings: ClipTraining,
    work: TrainingWork = TrainingWork(),
    validation: Path | None = None,
) -> Path:
    """Train a CLIP model on captioned images; return its last checkpoint, ``out/checkpoints/epoch_N.pt``.

    A second call with the same settings returns at once when the run is finished, and otherwise resumes after the last
    complete epoch, with other random numbers than an uninterrupted run, since open_clip does not store their state.
    With several processes the order of the images is open_clip's, the same for every seed.

    Args:
        table: Table with the columns ``filepath`` and ``title``, as `write_captioned_table` makes one.
        out: Folder of the run: settings, model config, logs, checkpoints.
        validation: Another such table; its loss after each epoch goes to ``out/validation.csv``. It draws random
            numbers, so the weights differ from a training without it.

    Raises:
        RuntimeError: When the trainer failed; the message ends with the last lines it printed.

    Example:
        >>> from circuitry.training import clip_preset, train_clip
        >>> checkpoint = train_clip(Path("train.tsv"), Path("runs/mine"), clip_preset("rn-tiny"))  # doctest: +SKIP
        >>> clip = circuitry.load_clip("rn-tiny", checkpoint=checkpoint)  # doctest: +SKIP
    """
    out = Path(out).absolute()
    device = available_device(work.device, settings.processes)
    tables = [Path(table).absolute()]
    if validation is not None:
        tables.append(Path(validation).absolute())
    columns = ("filepath", "title")
    n_images = check_training_table(tables[0], columns, settings.batch_size)
    for other in tables[1:]:
        check_training_table(other, columns, 1)
    steps = _steps(n_images, settings)
    name = register_model(settings.model)
    built = _built(name)
    config = open_clip.get_model_config(name)
    arguments = _arguments(out, name, tables, settings, work)
    arguments |= {"device": device, "log-every-n-steps": max(1, steps // 10)}
    held = {"validation": described(tables[1])} if validation is not None else {}
    folder = claim_run(out, settings, {name: config}, tables[0], **held)
    checkpoint = out / "checkpoints" / f"epoch_{settings.epochs}.pt"
    console = out / "console.log"

    def train(job: Job, nothing: Any) -> list[Path]:
        _check_resumed(checkpoint.with_name(_LATEST), built, name, settings)
        write_json(arguments["model"], config)
        run_trainer(arguments, console, settings, work, steps * settings.batch_size)
        if not checkpoint.is_file():
            raise RuntimeError(
                f"open_clip's trainer ended without {checkpoint}; all it printed is in {console}"
            )
        _check_converged(read_checkpoint(checkpoint), settings, settings.epochs)
        _write_validation(checkpoint.with_name("results.jsonl"), out / "validation.csv")
        return [checkpoint]

    if not folder.is_done(TRAINING_JOB):
        folder.run(train)  # which waits for another process that trains there
        # Only now: a run whose last checkpoint was cut short resumes from it.
        checkpoint.with_name(_LATEST).unlink(missing_ok=True)
    return checkpoint


def available_device(wanted: str | None, processes: int = 1) -> str:
    """Return PyTorch's name of the device to work on.

    Args:
        wanted: ``cpu``, ``cuda``, ``cuda:1`` or ``mps`` (default: a GPU if there is one).
        processes: Processes that work together, each on its own GPU; the device then has no number.

    Example:
        >>> circuitry.training.available_device("cpu")
        'cpu'
    """
    name = wanted or ("cuda" if torch.cuda.is_available() else "cpu")
    kind, _, number = name.partition(":")
    if kind not in ("cpu", "cuda", "mps") or (
        number and (kind != "cuda" or not number.isdecimal())
    ):
        raise InputError(
            f"A device is cpu, cuda, cuda:<number> or mps, but {name!r} was given."
        )
    if processes > 1 and (number or kind == "mps"):
        raise InputError(
            f"Several processes run on cpu, or on cuda with a GPU each, but {processes} on {name!r} were given: name "
            "one of these."
        )
    gpus = int(torch.backends.mps.is_available())
    if kind == "cuda":
        gpus = torch.cuda.device_count()
    if kind != "cpu" and gpus < max(processes, int(number or 0) + 1):
        raise InputError(
            f"The device {name!r} for {processes} process{'es' if processes > 1 else ''} was given, but PyTorch finds "
            f"{gpus} GPUs on this machine: take fewer, or the device cpu."
        )
    return name


def _arguments(
    out: Path,
    name: str,
    tables: Sequence[Path],
    settings: ClipTraining,
    work: TrainingWork,
) -> dict[str, Any]:
    """Return the arguments of open_clip's trainer, without their dashes."""
    return {
        "model": out / f"{name}.json",
        **dict(zip(("train-data", "val-data"), tables, strict=False)),
        "dataset-type": "csv",
        "csv-separator": "\t",
        "logs": out.parent,
        "name": out.name,
        "resume": "latest",
        "epochs": settings.epochs,
        "batch-size": settings.batch_size
        // (settings.processes * settings.accumulation),
        "accum-freq": settings.accumulation,
        "lr": settings.lr,
        "warmup": settings.warmup,
        "wd": settings.weight_decay,
        "seed": settings.seed,
        "save-frequency": settings.keep_checkpoints,
        "workers": work.workers,
        "precision": settings.precision,
    }


def _steps(n_images: int, settings: ClipTraining) -> int:
    """Return the steps of an epoch; InputError for a warm-up that is as long as the run.

    open_clip pads the table to equal shares, then drops the images after the last whole batch.
    """
    share = settings.batch_size // (settings.processes * settings.accumulation)
    steps = math.ceil(n_images / settings.processes) // share // settings.accumulation
    if settings.warmup >= steps * settings.epochs:
        raise InputError(
            f"The warmup must be shorter than the run of {steps * settings.epochs} steps, but {settings.warmup} was "
            "given: lower it, or train for more epochs."
        )
    return steps


def _write_validation(results: Path, target: Path) -> None:
    """Write the trainer's notes after each epoch as a table; the last of a repeated epoch counts."""
    if not results.is_file():
        return
    lines = results.read_text(encoding="utf-8").splitlines()
    table = pd.DataFrame(map(json.loads, lines))
    table = table.rename(columns={"clip_val_loss": "loss"})
    table = table.drop_duplicates("epoch", keep="last")
    first = ["epoch", "loss"]
    columns = [*first, *table.columns.difference(first, sort=False)]
    with whole_file(target) as temporary:
        table[columns].to_csv(temporary, index=False)


def _built(name: str) -> nn.Module:
    """Return the model on the meta device: names and shapes without values."""
    try:
        with torch.device("meta"):
            model: nn.Module = open_clip.create_model(name, device="meta")
    except (AssertionError, KeyError, RuntimeError, TypeError, ValueError) as error:
        raise InputError(
            f"open_clip cannot build {name} ({error}): correct its model configuration."
        ) from error
    return model


def _check_resumed(
    latest: Path, model: nn.Module, name: str, settings: ClipTraining
) -> None:
    """Check that the trainer resumes from a checkpoint of this model; its own error has hundreds of lines."""
    if latest.is_file():
        state = read_checkpoint(latest)
        _check_converged(state, settings)
        check_state(model, state, f"The run's last checkpoint {latest}", name)


def _check_converged(
    state: Mapping[str, Tensor], settings: ClipTraining, epoch: int | None = None
) -> None:
    for name, tensor in state.items():
        if not bool(tensor.isfinite().all()):
            raise diverged(
                settings, epoch, f"the weights {name} hold NaN or infinite values"
            )
