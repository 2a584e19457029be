"""Train a CLIP model with open_clip's own trainer, on one device or several.

open_clip offers no other way to its trainer than a command line, and no other way to its progress than a log: so the
trainer is started with arguments and its log is read by a regular expression. It runs in processes of its own, because
it sets up logging, seeds and signal handling for the whole process, and ``torchrun`` starts one for each device. All it
prints goes to ``out/console.log``; it ends when this process does, however that ends. What has diverged is refused: a
loss that is no finite number ends the trainer, weights that are not finite are never a finished run.

With several processes each takes its share of the batch, and embeddings are gathered with their gradients, so that
a step is the step of one process with the whole batch (but for batch norm, whose statistics are those of each
process unless ``extra`` has ``--use-bn-sync``, which needs GPUs). Memory for logits is that of a share by the batch.
"""

import importlib.util
import math
import os
import re
import subprocess
import sys
from collections import deque
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import open_clip
import torch
from torch import Tensor, nn
from tqdm import tqdm

from circuitry.models.architectures import register_model
from circuitry.models.checkpoints import check_state, read_checkpoint
from circuitry.runs.errors import InputError
from circuitry.runs.jobs import Job
from circuitry.runs.manifest import write_json
from circuitry.training.devices import available_device
from circuitry.training.run_folder import TRAINING, alone, claim_run
from circuitry.training.settings import ClipTraining, TrainingWork
from circuitry.training.study_run import record_run
from circuitry.training.table import check_table

_TRAINER = Path(__file__).with_name("open_clip_main.py")
_PROGRESS = re.compile(r"Train Epoch: (\d+) \[ *(\d+)/\d+ .*\bLoss: ([\d.einfa+-]+)")
_LATEST = "epoch_latest.pt"  # open_clip's name of what it resumes from


def train_clip(table: Path, out: Path, settings: ClipTraining, work: TrainingWork = TrainingWork()) -> Path:
    """Train a CLIP model on captioned images; return its last checkpoint, ``out/checkpoints/epoch_N.pt``.

    Calling it again with the same settings returns at once when the run is finished, and otherwise resumes
    after the last complete epoch (with other random numbers than an uninterrupted run: open_clip does not
    store their state). With several processes the order of the images is open_clip's, the same for every seed.

    Args:
        table: Table with the columns ``filepath`` and ``title``, as `write_mixture` makes one.
        out: Folder of the run: settings, model config, logs, checkpoints.
        settings, work: What to train, and how; `clip_preset` has the study's.

    Raises:
        InputError: For a table, model or device that cannot be trained with; a training that diverges; when ``out``
            holds a run with other settings, the checkpoint of another model, or a training that is going on.
        ImportError: When the trainer's own dependencies are not installed.
        RuntimeError: When the trainer failed; the message ends with the last lines it printed.

    Example:
        >>> checkpoint = train_clip(Path("train.tsv"), Path("runs/cg-high"), clip_preset("rn-tiny"))
        >>> clip = circuitry.load_clip("rn-tiny", checkpoint=checkpoint)
        >>> eight = dataclasses.replace(clip_preset("rn50-imagenet-captions"), processes=8, precision="amp")
        >>> train_clip(Path("train.tsv"), Path("runs/rn50"), eight, TrainingWork(workers=8))
    """
    out = Path(out).absolute()
    device = available_device(work.device, settings.processes)
    checked = check_table(
        Path(table).absolute(), ("filepath", "title"), settings.batch_size, skip_missing=settings.skip_missing
    )
    steps = _steps(checked.n_images, settings.batch_size, settings.processes)
    if settings.warmup >= steps * settings.epochs:
        raise InputError(
            f"The warmup must be shorter than the run of {steps * settings.epochs} steps, but {settings.warmup} was "
            "given: lower it, or train for more epochs."
        )
    name = register_model(settings.model)
    built = _built(name)
    config = open_clip.get_model_config(name)
    arguments: dict[str, Any] = {
        "model": out / f"{name}.json",
        "train-data": out / "without_missing.tsv" if checked.n_missing else checked.path,
        "dataset-type": "csv",
        "csv-separator": "\t",
        "logs": out.parent,
        "name": out.name,
        "resume": "latest",
        "epochs": settings.epochs,
        "batch-size": settings.batch_size // settings.processes,
        "lr": settings.lr,
        "warmup": settings.warmup,
        "wd": settings.weight_decay,
        "seed": settings.seed,
        "save-frequency": settings.keep_checkpoints,
        "workers": work.workers,
        "device": device,
        "precision": settings.precision,
        "log-every-n-steps": max(1, steps // 10),
    }
    _check_extra(settings.extra, arguments)
    folder = claim_run(out, settings, {name: config}, checked)
    checkpoint = out / "checkpoints" / f"epoch_{settings.epochs}.pt"

    def train(job: Job, nothing: Any) -> list[Path]:
        _check_resumed(checkpoint.with_name(_LATEST), built, name, settings)
        record_run(out, table, settings, torch.get_num_threads() if settings.processes == 1 else None)
        write_json(arguments["model"], config)
        checked.without_missing(arguments["train-data"])
        _run(arguments, out / "console.log", settings, steps * settings.batch_size, work.progress)
        if not checkpoint.is_file():
            raise RuntimeError(
                f"open_clip's trainer ended without {checkpoint}; all it printed is in {out}/console.log"
            )
        _check_converged(read_checkpoint(checkpoint), settings, settings.epochs)
        return [checkpoint]

    if not folder.is_done(TRAINING):
        _check_trainer()
        with alone(out):
            folder.run(train)
            # Only now: it is what to resume from if the last checkpoint was cut short while being written.
            checkpoint.with_name(_LATEST).unlink(missing_ok=True)
    return checkpoint


def _steps(n_images: int, batch_size: int, processes: int) -> int:
    """Return the steps of an epoch: open_clip pads the table to equal shares, then drops what whole batches leave."""
    return math.ceil(n_images / processes) // (batch_size // processes)


def _start(processes: int) -> list[str]:
    """Return the command that starts the trainer, without its arguments."""
    if processes == 1:
        return [sys.executable, str(_TRAINER)]
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={processes}"]
    # After the two dashes torchrun takes no argument of the trainer for one of its own, --logs for --logs-specs.
    return [*torchrun, "--", str(_TRAINER), "--local-loss", "--gather-with-grad"]


def _command(arguments: Mapping[str, Any], settings: ClipTraining) -> list[str]:
    """Return the command that trains; the trainer takes a model and crops in two words, the rest in one."""
    given = [f"--{name}={value}" for name, value in arguments.items() if name != "model"]
    last = ["--model", str(arguments["model"]), "--aug-cfg", f"scale=({settings.crop_scale},1.0)", *settings.extra]
    return [*_start(settings.processes), "--end-with-stdin", "--save-most-recent", *given, *last]


def _run(
    arguments: Mapping[str, Any], console: Path, settings: ClipTraining, images_per_epoch: int, progress: bool
) -> None:
    """Run the trainer to its end, and follow its log."""
    last: deque[str] = deque(maxlen=15 if settings.processes == 1 else 60)  # torchrun adds a summary to each failure
    total = images_per_epoch * settings.epochs
    with (
        open(console, "a", encoding="utf-8", buffering=1) as log,  # line by line: a killed run leaves all it printed
        tqdm(total=total, unit="image", desc="training CLIP", disable=not progress) as bar,
        subprocess.Popen(
            _command(arguments, settings),
            env=_environment(settings.processes),
            stdin=subprocess.PIPE,  # never written to: see --end-with-stdin
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            encoding="utf-8",
            errors="replace",
        ) as process,
    ):
        try:
            assert process.stdout is not None
            for line in process.stdout:
                log.write(line)
                last.append(line)
                if found := _PROGRESS.search(line):
                    epoch = int(found[1])
                    bar.update(epoch * images_per_epoch + int(found[2]) - bar.n)
                    bar.set_postfix_str(f"epoch {epoch + 1}/{settings.epochs}, loss {found[3]}")
                    if not math.isfinite(float(found[3])):
                        raise _diverged(settings, epoch + 1, f"the loss is {found[3]}")
        except BaseException:  # Ctrl-C included: never leave the trainer running
            process.terminate()
            raise
    if process.returncode != 0:
        raise RuntimeError(
            f"open_clip's trainer failed with exit status {process.returncode}; all it printed is in {console}, "
            f"the end of it:\n{''.join(last)}"
        )


def _environment(processes: int) -> dict[str, str]:
    # Threads that spin while they wait slow a small model down several times where cores are shared.
    threads = {"OMP_WAIT_POLICY": "passive"}
    if processes > 1:  # torchrun would give each just one
        threads["OMP_NUM_THREADS"] = str(max(1, torch.get_num_threads() // processes))
    return {
        **threads,
        **os.environ,
        "PYTHONSAFEPATH": "1",  # the trainer's folder, this one, has modules with common names
        "WORLD_SIZE": "1",  # this process may be one of several of torchrun or SLURM; the trainer is not one of those
    }


# --- checks ---------------------------------------------------------------------------------------------------


def _check_extra(extra: Sequence[str], taken: Iterable[str]) -> None:
    options = {f"--{name}" for name in taken}
    for argument in extra:
        if argument.partition("=")[0] in options:
            raise InputError(f"{argument} is set by the other settings of the training and cannot be in extra.")


def _built(name: str) -> nn.Module:
    """Return the model on the meta device: names and shapes without values, in no time."""
    try:
        with torch.device("meta"):
            model: nn.Module = open_clip.create_model(name, device="meta")
    except (AssertionError, KeyError, RuntimeError, TypeError, ValueError) as error:
        raise InputError(f"open_clip cannot build {name} ({error}): correct its model configuration.") from error
    return model


def _check_resumed(latest: Path, model: nn.Module, name: str, settings: ClipTraining) -> None:
    """Check that what the trainer would go on from is of this model; it would say so with hundreds of lines."""
    if latest.is_file():
        state = read_checkpoint(latest)
        _check_converged(state, settings)
        check_state(model, state, f"The run's last checkpoint {latest}", name)


def _check_converged(state: Mapping[str, Tensor], settings: ClipTraining, epoch: int | None = None) -> None:
    for name, tensor in state.items():
        if not bool(tensor.isfinite().all()):
            raise _diverged(settings, epoch, f"the weights {name} hold NaN or infinite values")


def _diverged(settings: ClipTraining, epoch: int | None, how: str) -> InputError:
    when = "" if epoch is None else f" in epoch {epoch}"
    return InputError(
        f"The training diverged{when}, {how}: train into another folder with a lr lower than {settings.lr}, or with a "
        "longer warmup."
    )


def _check_trainer() -> None:
    missing = [name for name in ("webdataset", "braceexpand") if importlib.util.find_spec(name) is None]
    if missing:
        raise ImportError(f"open_clip's trainer needs {' and '.join(missing)}: pip install 'open_clip_torch[training]'")
