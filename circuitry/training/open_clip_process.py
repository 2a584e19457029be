"""Start the processes of open_clip's trainer, follow their log, and end them when this process ends.

The trainer can only be started by a command line, because it sets up logging, seeds and signal handling for a whole
process. ``torchrun`` starts one process for each device. The trainer reports its progress only in its log, which is
read by a regular expression.
"""

import math
import os
import re
import subprocess
import sys
from collections import deque
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from circuitry.runs.errors import InputError
from circuitry.runs.progress import Bar
from circuitry.runs.workers import short_waits
from circuitry.training.training_settings import ClipTraining, TrainingWork

_TRAINER = Path(__file__).with_name("open_clip_main.py")
_PROGRESS = re.compile(r"Train Epoch: (\d+) \[ *(\d+)/\d+ .*\bLoss: ([\d.einfa+-]+)")


def _command(arguments: Mapping[str, Any], settings: ClipTraining) -> list[str]:
    """Return the command that starts the trainer, as a list of words.

    The options ``--model`` and ``--aug-cfg`` and their values are separate words. Each other option is one word
    ``--name=value``.
    """
    words = [sys.executable]
    if settings.processes > 1:
        words += ["-m", "torch.distributed.run", "--standalone"]
        words += [f"--nproc-per-node={settings.processes}"]
        # Without the word "--", torchrun would read the trainer's option --logs as its own option --logs-specs.
        words += ["--", str(_TRAINER), "--local-loss", "--gather-with-grad"]
    else:
        words += [str(_TRAINER)]
    words += ["--end-with-stdin", "--save-most-recent"]
    for name, value in arguments.items():
        if name != "model":
            words.append(f"--{name}={value}")
    if settings.grad_checkpointing:
        words.append("--grad-checkpointing")
    if settings.keep_checkpoints:
        words.append("--keep-untrained")
    if settings.decoding == "upright":
        words.append("--upright")
    if settings.freeze_norms:
        words.append("--freeze-norms")
    words += ["--model", str(arguments["model"])]
    words += ["--aug-cfg", f"scale=({settings.crop_scale},1.0)"]
    return words


def run_trainer(
    arguments: Mapping[str, Any],
    console: Path,
    settings: ClipTraining,
    work: TrainingWork,
    images_per_epoch: int,
) -> None:
    """Run the trainer to its end, write its output to a file, and show its progress.

    Args:
        arguments: Arguments of the trainer by name, see `_command`.
        console: File that the output is appended to.
        settings: Settings of the training.
        work: Whether a progress bar is shown.
        images_per_epoch: Number of images in an epoch, for the progress bar.

    Raises:
        InputError: if the loss becomes NaN or infinite.
        RuntimeError: if the trainer fails.
    """
    # More lines are kept with several processes, because torchrun adds a summary to each failure.
    last: deque[str] = deque(maxlen=15 if settings.processes == 1 else 60)
    total = images_per_epoch * settings.epochs
    with (
        # The file is written line by line, so that it has all output even if this run is killed.
        open(console, "a", encoding="utf-8", buffering=1) as log,
        Bar(
            total=total, unit="image", desc="training CLIP", disable=not work.progress
        ) as bar,
        subprocess.Popen(
            _command(arguments, settings),
            env=_environment(settings.threads),
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
                step = _PROGRESS.search(line)
                if step is None:
                    continue
                epoch = int(step[1])
                loss = step[3]
                bar.update(epoch * images_per_epoch + int(step[2]) - bar.n)
                bar.set_postfix_str(f"epoch {epoch + 1}/{settings.epochs}, loss {loss}")
                if not math.isfinite(float(loss)):
                    raise diverged(settings, epoch + 1, f"the loss is {loss}")
        except BaseException:  # also after Ctrl-C the trainer must not go on
            process.terminate()
            raise
    if process.returncode != 0:
        raise RuntimeError(
            f"open_clip's trainer failed with exit status {process.returncode}; its output is in {console} and ends "
            f"with:\n{''.join(last)}"
        )


def _environment(threads: int) -> dict[str, str]:
    return {
        **short_waits(os.environ),
        # glibc would return the memory of activations to the system after each step, which takes a tenth of the time.
        "MALLOC_MMAP_MAX_": "0",
        "MALLOC_TRIM_THRESHOLD_": str(2**33),
        **os.environ,
        "OMP_NUM_THREADS": str(threads),
        "MKL_NUM_THREADS": str(threads),
        "PYTHONSAFEPATH": "1",  # the trainer's folder, this one, has modules with common names
        "WORLD_SIZE": "1",  # the trainer is not one of the processes of torchrun or SLURM that this one may belong to
    }


def diverged(settings: ClipTraining, epoch: int | None, how: str) -> InputError:
    """Return the error for a training that diverged.

    Args:
        settings: Settings of the training.
        epoch: The epoch in which it diverged, counted from 1; None if it is not known.
        how: What is not finite, as a clause.
    """
    when = "" if epoch is None else f" in epoch {epoch}"
    return InputError(
        f"The training diverged{when}, {how}: train into another folder with a lr lower than {settings.lr}, or with a "
        "longer warmup."
    )
