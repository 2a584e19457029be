"""Train a CLIP model with open_clip's own trainer (method.md section 8).

The trainer runs in a process of its own, because it sets up logging, seeds and signal handling for the whole
process, and because ``torchrun`` will want it so. This module

1. checks the table of images and captions before anything slow starts;
2. records the settings in ``out/settings.json``: a finished run is returned, an interrupted one goes on from
   its last epoch, a run with other settings is an error;
3. starts the trainer and turns its log into a progress bar. All it prints goes to ``out/console.log``.
"""

import hashlib
import importlib.util
import json
import os
import re
import subprocess
import sys
from collections import deque
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import open_clip
import pandas as pd
import torch
from tqdm import tqdm

from circuitry.clip import register_model
from circuitry.errors import InputError
from circuitry.files import whole_file

_TRAINER = Path(__file__).with_name("open_clip_main.py")
_NOT_COMPARED = ("workers", "device")  # how fast a run is, not what is computed
_PROGRESS = re.compile(r"Train Epoch: (\d+) \[ *(\d+)/\d+ .*\bLoss: ([\d.einfa+-]+)")


def train_clip(
    train_tsv: Path,
    out: Path,
    *,
    model: str | Path,
    epochs: int,
    batch_size: int,
    lr: float,
    warmup: int,
    weight_decay: float = 0.2,
    seed: int = 0,
    workers: int = 2,
    device: str | None = None,
    precision: str = "fp32",
    progress: bool = True,
    extra: Sequence[str] = (),
) -> Path:
    """Train a CLIP model on captioned images; return its last checkpoint, ``out/checkpoints/epoch_N.pt``.

    Calling it again with the same settings returns at once when the run is finished, and otherwise resumes
    after the last complete epoch (with other random numbers than an uninterrupted run: open_clip does not
    store their state).

    Args:
        train_tsv: table with the columns ``filepath`` and ``title``, as ``write_mixture`` makes one.
        out: folder of the run: settings, model config, logs, checkpoints.
        model: name of an open_clip model or of a config of this package ("rn-tiny"), or a JSON file.
        epochs: passes over the table.
        batch_size: images per step; what is left of the table after the last whole batch waits for the next epoch.
        lr: peak learning rate, after ``warmup`` steps; from there a cosine to zero.
        device: "cpu", "cuda", "cuda:1"; None takes a GPU where there is one.
        precision: as open_clip names it: "fp32", "amp", "amp_bf16", ...
        extra: more arguments for open_clip's trainer, such as ``("--aug-cfg", "scale=(0.5, 1.0)")``.

    Raises:
        InputError: a table, model or number that cannot be trained with; a run with other settings in ``out``.
        ImportError: the trainer's own dependencies are not installed.
        RuntimeError: the trainer failed; the message ends with the last lines it printed.

    Example:
        >>> checkpoint = train_clip(Path("train.tsv"), Path("runs/cg-high"), model="rn-tiny", epochs=15,
        ...                         batch_size=128, lr=1e-3, warmup=50)
        >>> clip = circuitry.load_clip("rn-tiny", checkpoint=checkpoint)
    """
    train_tsv, out = Path(train_tsv).absolute(), Path(out).absolute()
    n_images = _check_table(train_tsv, batch_size)
    steps = n_images // batch_size
    _check_numbers(epochs, batch_size, lr, warmup, steps * epochs)
    settings = {
        "epochs": epochs,
        "batch-size": batch_size,
        "lr": lr,
        "warmup": warmup,
        "wd": weight_decay,
        "seed": seed,
        "workers": workers,
        "device": device or ("cuda" if torch.cuda.is_available() else "cpu"),
        "precision": precision,
    }
    name = register_model(model)
    files = _files(train_tsv, out, name)
    _check_extra(extra, settings.keys() | files.keys())
    config = open_clip.get_model_config(name)
    identity = {**settings, "model": {name: config}, "train-data": _sha256(train_tsv), "extra": list(extra)}

    checkpoint = out / "checkpoints" / f"epoch_{epochs}.pt"
    if _finished(out / "settings.json", identity) and checkpoint.is_file():
        return checkpoint
    _check_trainer()
    _write_json(out / f"{name}.json", config)
    _write_json(out / "settings.json", {"finished": False, "settings": identity})
    command = [sys.executable, "-P", str(_TRAINER), "--save-frequency", "0", "--save-most-recent"]
    command += [f"--log-every-n-steps={max(1, steps // 10)}"]
    command += [f"--{key}={value}" for key, value in {**files, **settings}.items() if key != "model"]
    command += ["--model", files["model"], *extra]
    _run(command, out / "console.log", steps * batch_size, epochs, progress)
    _write_json(out / "settings.json", {"finished": True, "settings": identity})
    # Only now: epoch_latest.pt is what to resume from if the last checkpoint was cut short while being written.
    (out / "checkpoints" / "epoch_latest.pt").unlink(missing_ok=True)
    return checkpoint


def _files(train_tsv: Path, out: Path, name: str) -> dict[str, str]:
    """Arguments that say what the trainer reads and where it writes."""
    return {
        "model": str(out / f"{name}.json"),
        "train-data": str(train_tsv),
        "dataset-type": "csv",
        "csv-separator": "\t",
        "logs": str(out.parent),
        "name": out.name,
        "resume": "latest",
    }


def _sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def _run(command: Sequence[str], console: Path, images_per_epoch: int, epochs: int, progress: bool) -> None:
    last: deque[str] = deque(maxlen=15)
    # Threads that spin while they wait slow a small model down several times where cores are shared.
    environment = {"OMP_WAIT_POLICY": "passive", **os.environ}
    with (
        open(console, "a", encoding="utf-8") as log,
        tqdm(total=images_per_epoch * epochs, unit="image", desc="training CLIP", disable=not progress) as bar,
        subprocess.Popen(
            command,
            env=environment,
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


# --- settings of a run --------------------------------------------------------------------------------------


def _finished(path: Path, identity: Mapping[str, Any]) -> bool:
    """Whether the run recorded at ``path`` is complete; a run with other settings is an error."""
    if not path.is_file():
        return False
    stored = json.loads(path.read_text(encoding="utf-8"))
    now = json.loads(json.dumps(identity))
    differences = [
        f"{name} was {_short(stored['settings'].get(name))}, now {_short(now.get(name))}"
        for name in sorted(stored["settings"].keys() | now.keys())
        if name not in _NOT_COMPARED and stored["settings"].get(name) != now.get(name)
    ]
    if differences:
        raise InputError(
            f"{path.parent} holds a run with other settings: {'; '.join(differences)}; choose another folder"
        )
    return bool(stored["finished"])


def _short(value: object) -> str:
    text = json.dumps(value)
    return text if len(text) <= 200 else f"{text[:200]}..."


def _write_json(path: Path, content: object) -> None:
    with whole_file(path) as temporary:
        temporary.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")


# --- checks at the door -------------------------------------------------------------------------------------


def _check_table(path: Path, batch_size: int) -> int:
    """Number of images of the training table, which is read as the trainer will read it."""
    if not path.is_file():
        raise InputError(f"there is no training table {path}; circuitry.write_mixture makes one")
    expected = "the header filepath<TAB>title and a line for each image"
    try:
        table = pd.read_csv(path, sep="\t")
    except (pd.errors.EmptyDataError, pd.errors.ParserError, UnicodeDecodeError) as error:
        raise InputError(f"cannot read {path} ({str(error).strip()}); expected {expected}") from error
    if not {"filepath", "title"} <= set(table.columns):
        raise InputError(f"{path} must have {expected}; its first line is {'<TAB>'.join(map(str, table.columns))!r}")
    missing = [name for name in table["filepath"] if not Path(str(name)).is_file()]
    if missing:
        raise InputError(
            f"{path} names {len(missing)} files that do not exist, such as {', '.join(map(str, missing[:5]))}"
        )
    blank = table["filepath"][table["title"].isna()]
    if len(blank):
        raise InputError(f"{path} has {len(blank)} images without a caption, such as {', '.join(blank[:5])}")
    if len(table) < batch_size:
        raise InputError(
            f"{path} has {len(table)} images, fewer than one batch of {batch_size}; lower batch_size or add images"
        )
    return len(table)


def _check_numbers(epochs: int, batch_size: int, lr: float, warmup: int, total_steps: int) -> None:
    if epochs < 1 or batch_size < 2 or not lr > 0:
        raise InputError(
            f"expected at least 1 epoch, 2 images per batch (each is told from the others) and a positive lr; "
            f"given epochs={epochs}, batch_size={batch_size}, lr={lr}"
        )
    if not 0 <= warmup < total_steps:
        raise InputError(f"warmup must be shorter than the run of {total_steps} steps and not negative; given {warmup}")


def _check_extra(extra: Sequence[str], taken: Iterable[str]) -> None:
    options = {f"--{name}" for name in taken}
    for argument in extra:
        if argument.partition("=")[0] in options:
            raise InputError(f"{argument} is set by train_clip and cannot be in extra")


def _check_trainer() -> None:
    missing = [name for name in ("webdataset", "braceexpand") if importlib.util.find_spec(name) is None]
    if missing:
        raise ImportError(f"open_clip's trainer needs {' and '.join(missing)}: pip install 'open_clip_torch[training]'")
