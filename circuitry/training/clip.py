"""Train a CLIP model with open_clip's own trainer, on one device or several.

The trainer runs in processes of its own, because it sets up logging, seeds and signal handling for the whole
process, and because ``torchrun`` starts one for each device. This module

1. checks the table of images and captions before anything slow starts;
2. records the settings in ``out/settings.json``: a finished run is returned, an interrupted one goes on from
   its last epoch, a run with other settings is an error;
3. starts the trainer and turns its log into a progress bar. All it prints goes to ``out/console.log``. It ends
   when this process does, however that ends.

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
from collections.abc import Iterable, Sequence
from pathlib import Path

import open_clip
import torch
from torch import nn
from tqdm import tqdm

from circuitry.models.architectures import register_model
from circuitry.models.checkpoints import check_state, read_checkpoint
from circuitry.runs.errors import InputError
from circuitry.training.devices import training_device
from circuitry.training.run_folder import alone, file_digest, is_finished, record, write_json
from circuitry.training.table import CheckedTable, check_table

_TRAINER = Path(__file__).with_name("open_clip_main.py")
_NOT_COMPARED = ("workers", "device")  # how fast a run is, not what is computed
_PROGRESS = re.compile(r"Train Epoch: (\d+) \[ *(\d+)/\d+ .*\bLoss: ([\d.einfa+-]+)")


def train_clip(
    table: Path,
    out: Path,
    *,
    model: str | Path,
    epochs: int,
    batch_size: int,
    lr: float,
    warmup: int,
    weight_decay: float = 0.2,
    seed: int = 0,
    processes: int = 1,
    workers: int = 2,
    device: str | None = None,
    precision: str = "fp32",
    keep_checkpoints: int = 0,
    skip_missing: bool = False,
    progress: bool = True,
    extra: Sequence[str] = (),
) -> Path:
    """Train a CLIP model on captioned images; return its last checkpoint, ``out/checkpoints/epoch_N.pt``.

    Calling it again with the same settings returns at once when the run is finished, and otherwise resumes
    after the last complete epoch (with other random numbers than an uninterrupted run: open_clip does not
    store their state). With several processes the order of the images is open_clip's, the same for every seed.

    Args:
        table: table with the columns ``filepath`` and ``title``, as ``write_mixture`` makes one.
        out: folder of the run: settings, model config, logs, checkpoints.
        model: name of an open_clip model or of a config of this package ("rn-tiny"), or a JSON file.
        epochs: passes over the table.
        batch_size: images per step, of all processes together; what is left of the table after the last whole
            batch waits for the next epoch.
        lr: peak learning rate, after ``warmup`` steps; from there a cosine to zero.
        processes: how many train together, each on a GPU of its own, or on a share of this machine's cores.
        workers: processes that read images, for each that trains.
        device: "cpu", "cuda", "cuda:1"; None takes a GPU where there is one.
        precision: as open_clip names it: "fp32", "amp", "amp_bf16", ...
        keep_checkpoints: keep a checkpoint after every so many epochs, see `checkpoints`; 0 keeps only the last.
        skip_missing: train without the images whose files do not exist, instead of refusing the table.
        extra: more arguments for open_clip's trainer, such as ``("--aug-cfg", "scale=(0.5, 1.0)")``.

    Raises:
        InputError: a table, model, device or number that cannot be trained with; in ``out`` a run with other
            settings, the checkpoint of another model, or a training that is going on.
        ImportError: the trainer's own dependencies are not installed.
        RuntimeError: the trainer failed; the message ends with the last lines it printed.

    Example:
        >>> checkpoint = train_clip(Path("train.tsv"), Path("runs/cg-high"), model="rn-tiny", epochs=15,
        ...                         batch_size=128, lr=1e-3, warmup=50)
        >>> clip = circuitry.load_clip("rn-tiny", checkpoint=checkpoint)
        >>> settings = dataclasses.asdict(clip_preset("rn50-imagenet-captions"))
        >>> train_clip(Path("train.tsv"), Path("runs/rn50"), **settings, processes=8, precision="amp", workers=8)
    """
    out = Path(out).absolute()
    device = training_device(device, processes)
    _check_numbers(epochs, batch_size, lr, processes, keep_checkpoints)
    checked = check_table(Path(table).absolute(), ("filepath", "title"), batch_size, skip_missing=skip_missing)
    steps = _steps(checked.n_images, batch_size, processes)
    if not 0 <= warmup < steps * epochs:
        raise InputError(
            f"warmup must be shorter than the run of {steps * epochs} steps and not negative; given {warmup}"
        )
    options = {
        "epochs": epochs,
        "batch-size": batch_size // processes,
        "lr": lr,
        "warmup": warmup,
        "wd": weight_decay,
        "seed": seed,
        "save-frequency": keep_checkpoints,
        "workers": workers,
        "device": device,
        "precision": precision,
    }
    name = register_model(model)
    built = _built(name)
    files = _files(checked, out, name)
    _check_extra(extra, options.keys() | files.keys())
    config = open_clip.get_model_config(name)
    about_data = {"train-data": file_digest(checked.path), "skipped": checked.n_missing}
    identity = {**options, "processes": processes, "model": {name: config}, **about_data, "extra": list(extra)}

    checkpoint = out / "checkpoints" / f"epoch_{epochs}.pt"
    if is_finished(out, identity, _NOT_COMPARED) and checkpoint.is_file():
        return checkpoint
    _check_trainer()
    with alone(out):
        _check_resumed(out / "checkpoints" / "epoch_latest.pt", built, name)
        write_json(out / f"{name}.json", config)
        record(out, identity, finished=False)
        checked.without_missing(Path(files["train-data"]))
        command = [*_start(processes), "--end-with-stdin", "--save-most-recent"]
        command += [f"--log-every-n-steps={max(1, steps // 10)}"]
        command += [f"--{key}={value}" for key, value in {**files, **options}.items() if key != "model"]
        command += ["--model", files["model"], *extra]
        _run(command, out / "console.log", processes, steps * batch_size, epochs, progress)
        if not checkpoint.is_file():
            raise RuntimeError(
                f"open_clip's trainer ended without {checkpoint}; all it printed is in {out}/console.log"
            )
        record(out, identity, finished=True)
        # Only now: epoch_latest.pt is what to resume from if the last checkpoint was cut short while being written.
        (out / "checkpoints" / "epoch_latest.pt").unlink(missing_ok=True)
    return checkpoint


def _steps(n_images: int, batch_size: int, processes: int) -> int:
    """Steps per epoch: open_clip pads the table to equal shares, then drops what is left after whole batches."""
    return math.ceil(n_images / processes) // (batch_size // processes)


def _files(table: CheckedTable, out: Path, name: str) -> dict[str, str]:
    """Arguments that say what the trainer reads and where it writes."""
    return {
        "model": str(out / f"{name}.json"),
        "train-data": str(out / "without_missing.tsv" if table.n_missing else table.path),
        "dataset-type": "csv",
        "csv-separator": "\t",
        "logs": str(out.parent),
        "name": out.name,
        "resume": "latest",
    }


def _start(processes: int) -> list[str]:
    """The command that starts the trainer, without its arguments."""
    if processes == 1:
        return [sys.executable, str(_TRAINER)]
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={processes}"]
    # After the two dashes torchrun takes no argument of the trainer for one of its own, --logs for --logs-specs.
    return [*torchrun, "--", str(_TRAINER), "--local-loss", "--gather-with-grad"]


def _run(
    command: Sequence[str], console: Path, processes: int, images_per_epoch: int, epochs: int, progress: bool
) -> None:
    last: deque[str] = deque(maxlen=15 if processes == 1 else 60)  # torchrun adds a summary to each failure
    with (
        open(console, "a", encoding="utf-8") as log,
        tqdm(total=images_per_epoch * epochs, unit="image", desc="training CLIP", disable=not progress) as bar,
        subprocess.Popen(
            command,
            env=_environment(processes),
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
                    bar.update(int(found[1]) * images_per_epoch + int(found[2]) - bar.n)
                    bar.set_postfix_str(f"epoch {int(found[1]) + 1}/{epochs}, loss {found[3]}")
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


# --- checks at the door -------------------------------------------------------------------------------------


def _check_numbers(epochs: int, batch_size: int, lr: float, processes: int, keep_checkpoints: int) -> None:
    if epochs < 1 or batch_size < 2 or not lr > 0 or keep_checkpoints < 0:
        raise InputError(
            f"expected at least 1 epoch, 2 images per batch (each is told from the others), a positive lr and 0 or "
            f"more epochs between checkpoints; given epochs={epochs}, batch_size={batch_size}, lr={lr}, "
            f"keep_checkpoints={keep_checkpoints}"
        )
    if batch_size % processes:
        raise InputError(
            f"batch_size is that of all processes together and must be a multiple of their number; given "
            f"batch_size={batch_size} and processes={processes}"
        )


def _check_extra(extra: Sequence[str], taken: Iterable[str]) -> None:
    options = {f"--{name}" for name in taken}
    for argument in extra:
        if argument.partition("=")[0] in options:
            raise InputError(f"{argument} is set by train_clip and cannot be in extra")


def _built(name: str) -> nn.Module:
    """The model on the meta device: names and shapes without values, in no time."""
    try:
        with torch.device("meta"):
            model: nn.Module = open_clip.create_model(name, device="meta")
    except (AssertionError, KeyError, RuntimeError, TypeError, ValueError) as error:
        raise InputError(f"open_clip cannot build {name} ({error}): correct its model configuration.") from error
    return model


def _check_resumed(latest: Path, model: nn.Module, name: str) -> None:
    """What the trainer would go on from must be of this model; it would say so with hundreds of lines."""
    if latest.is_file():
        check_state(model, read_checkpoint(latest), f"the run's last checkpoint {latest}", name)


def _check_trainer() -> None:
    missing = [name for name in ("webdataset", "braceexpand") if importlib.util.find_spec(name) is None]
    if missing:
        raise ImportError(f"open_clip's trainer needs {' and '.join(missing)}: pip install 'open_clip_torch[training]'")
