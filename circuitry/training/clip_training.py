"""Train a CLIP model with open_clip's trainer, on one or several devices.

If there are several processes, they divide each batch among them and exchange embeddings with their gradients. So a
step equals the step of one process with the whole batch, except for batch norm, whose statistics each process computes
from its own share of the batch. A process holds the logits of its share of the images with all texts of the batch, and
of its share of the texts with all images.
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
from circuitry.runs.provenance import weights_digest
from circuitry.training.open_clip_process import diverged, run_trainer
from circuitry.training.run_folder import (
    TRAINING_JOB,
    checkpoints,
    claim_run,
    described,
)
from circuitry.training.starting_weights import starting_weights
from circuitry.training.trainer_table import check_training_table
from circuitry.training.training_settings import ClipTraining, TrainingWork

_LATEST = "epoch_latest.pt"  # open_clip's name of the checkpoint that it resumes from


def train_clip(
    table: Path,
    out: Path,
    settings: ClipTraining,
    work: TrainingWork = TrainingWork(),
    validation: Path | None = None,
) -> Path:
    """Train a CLIP model on captioned images; return its last checkpoint, ``out/checkpoints/epoch_N.pt``.

    Checkpoints of a finished training hold weights alone.

    If a run with the same settings in the same folder is finished, its checkpoint is returned at once. If the run is
    not finished, it resumes after its last complete epoch. Then its random numbers differ from the random numbers of an
    uninterrupted run, because open_clip does not store the state of its generators. With several processes, open_clip
    chooses the order of the images. This order is the same for every seed.

    Args:
        table: Table with the columns ``filepath`` and ``title``, as `write_captioned_table` writes it.
        out: Folder of the run, with its settings, the configuration of the model, logs and checkpoints.
        settings: Settings of the training.
        work: Device, number of reading processes, and progress bar.
        validation: A table of the same kind with images for validation. The loss on these images after each epoch is
            written to ``out/validation.csv``. Validation draws random numbers, so the weights differ from a training
            without it.

    Raises:
        InputError: if the device, a table or the configuration of the model cannot be used, if the start has another
            image tower, if ``out`` has a run with other settings, or if the training diverges.
        RuntimeError: if the trainer fails. The message ends with the last lines that the trainer printed.

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
    held: dict[str, Any] = {}
    if validation is not None:
        held["validation"] = described(tables[1])
    start: dict[str, Tensor] = {}
    if settings.start is not None:
        start = starting_weights(settings.start, built, name)
        # The folder of a start may be moved; its weights must stay the same.
        held["start"] = Path(settings.start).name
        held["start_weights"] = weights_digest(start)
        arguments["start"] = out / "start.pt"
    folder = claim_run(out, settings, {name: config}, tables[0], **held)
    checkpoint = out / "checkpoints" / f"epoch_{settings.epochs}.pt"
    console = out / "console.log"

    def train(job: Job, nothing: Any) -> list[Path]:
        _check_resumed(checkpoint.with_name(_LATEST), built, name, settings)
        write_json(arguments["model"], config)
        if start:
            torch.save(start, arguments["start"])
        run_trainer(arguments, console, settings, work, steps * settings.batch_size)
        if not checkpoint.is_file():
            raise RuntimeError(
                f"open_clip's trainer ended without {checkpoint}; all it printed is in {console}"
            )
        _check_converged(read_checkpoint(checkpoint), settings, settings.epochs)
        for _, kept in checkpoints(out):
            _drop_optimizer(kept)
        _write_validation(checkpoint.with_name("results.jsonl"), out / "validation.csv")
        return [checkpoint]

    if not folder.is_done(TRAINING_JOB):
        folder.run(train)  # if another process trains in this folder, this waits for it
        # The file is removed only now, because a run whose last checkpoint is incomplete resumes from it.
        checkpoint.with_name(_LATEST).unlink(missing_ok=True)
        (out / "start.pt").unlink(missing_ok=True)
    return checkpoint


def available_device(wanted: str | None, processes: int = 1) -> str:
    """Return PyTorch's name of the device to work on.

    Args:
        wanted: ``cpu``, ``cuda``, ``cuda:1`` or ``mps`` (default: cuda if PyTorch finds a GPU, otherwise cpu).
        processes: Number of processes that work together. If there are several, they run on ``cpu``, or on ``cuda``
            with a GPU for each process. Then ``wanted`` must not name a single GPU, such as ``cuda:1``.

    Raises:
        InputError: if the device does not exist on this machine, or if the processes cannot work on it.

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
    """Return the arguments of open_clip's trainer by name. The names have no leading dashes.

    Args:
        out: Folder of the run.
        name: Name of the model, and of the file with its configuration.
        tables: The table of the training images, and optionally a table of images for validation.
        settings: Settings of the training.
        work: Number of processes that read images.
    """
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
    """Return the number of steps that open_clip takes in an epoch.

    If the images cannot be divided evenly among the processes, open_clip uses some images twice. Then it leaves out the
    images after the last full batch.

    Raises:
        InputError: if the warm-up is not shorter than the run.
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
    """Write the results that the trainer notes after each epoch as a table with a row for each epoch.

    If an epoch was repeated, its last result is written. If the trainer noted no results, no table is written.
    """
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


def _drop_optimizer(checkpoint: Path) -> None:
    """Write a checkpoint of a finished training again without the state of the optimizer, in a third of its size."""
    content = torch.load(checkpoint, map_location="cpu", weights_only=True)
    if "optimizer" in content:
        del content["optimizer"]
        with whole_file(checkpoint) as temporary:
            torch.save(content, temporary)


def _built(name: str) -> nn.Module:
    """Return the model on the meta device, where weights have names and shapes but no values.

    Raises:
        InputError: if open_clip cannot build the model.
    """
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
    """Check that the checkpoint to resume from, if there is one, is finite and belongs to this model.

    Without this check the trainer would raise an error with hundreds of lines.
    """
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
