"""The folder of a training run: what is trained there, whether it is finished, who works on it, its checkpoints.

``settings.json`` holds ``{"finished": bool, "settings": {...}}``. The settings are everything that shapes the
weights, so a finished run is returned, an interrupted one goes on, and another run never mixes with it.

No torch.
"""

import hashlib
import json
import re
import zipfile
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from filelock import Timeout

from circuitry.runs.errors import InputError
from circuitry.runs.files import file_lock, remove_locks, whole_file

SETTINGS_FILE = "settings.json"
_CHECKPOINT = re.compile(r"epoch_(\d+)\.(?:pt|safetensors)")


def is_finished(out: Path, settings: Mapping[str, Any], not_compared: tuple[str, ...] = ()) -> bool:
    """Return whether the run with these settings is complete in ``out``; False where there is none.

    Args:
        out: folder of the run.
        settings: everything that shapes the weights, in values that JSON can hold.
        not_compared: settings that only say how fast a run is.

    Raises:
        InputError: ``out`` holds a run with other settings; the message names each that differs.
    """
    path = out / SETTINGS_FILE
    if not path.is_file():
        return False
    try:
        stored = json.loads(path.read_text(encoding="utf-8"))
        theirs, finished = stored["settings"], bool(stored["finished"])
    except (ValueError, KeyError, TypeError) as error:
        raise InputError(f"{path} is damaged ({error}): remove it, or choose another folder") from error
    ours = json.loads(json.dumps(settings))  # as it is read back: tuples become lists
    differences = [
        f"{name} was {_short(theirs.get(name))}, now {_short(ours.get(name))}"
        for name in sorted(theirs.keys() | ours.keys())
        if name not in not_compared and theirs.get(name) != ours.get(name)
    ]
    if differences:
        raise InputError(f"{out} holds a run with other settings: {'; '.join(differences)}; choose another folder")
    return finished


def record(out: Path, settings: Mapping[str, Any], *, finished: bool) -> None:
    """Write what is trained in ``out`` and whether it is complete."""
    write_json(out / SETTINGS_FILE, {"finished": finished, "settings": settings})


@contextmanager
def alone(out: Path) -> Iterator[None]:
    """Be the only process that trains in ``out``; the system frees the lock of a process that is killed.

    Raises:
        InputError: another process trains there.
    """
    with ExitStack() as stack:
        try:
            stack.enter_context(file_lock(out, "training", wait=False))
        except Timeout:
            raise InputError(f"another process trains in {out}: wait for it, or choose another folder") from None
        yield
    remove_locks(out)


def checkpoints(run_folder: Path) -> list[tuple[int, Path]]:
    """Return (epoch, file) of every kept checkpoint of a run, in order of epochs.

    For runs of `train_clip` and `train_supervised`, finished or not; how many there are is their
    ``keep_checkpoints``. A file that the trainer is still writing, or was killed at, is left out.

    Raises:
        InputError: the folder is not one of a run.

    Example:
        >>> for epoch, path in checkpoints(Path("runs/cg-high")):
        ...     clip = circuitry.load_clip("RN50", checkpoint=path)
    """
    folder = Path(run_folder) / "checkpoints"
    if not folder.is_dir():
        raise InputError(f"expected the folder of a training run, but there is no folder {folder}")
    found = [(int(name[1]), path) for path in folder.iterdir() if (name := _CHECKPOINT.fullmatch(path.name))]
    return sorted((epoch, path) for epoch, path in found if _is_whole(path))


def _is_whole(path: Path) -> bool:
    # open_clip writes its checkpoints in place; they are zip archives, whose table of contents comes last.
    return path.suffix != ".pt" or zipfile.is_zipfile(path)


def file_digest(path: Path) -> str:
    """Return the SHA-256 of a file of any size."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def write_json(path: Path, content: object) -> None:
    """Write a JSON file, whole or not at all."""
    with whole_file(path) as temporary:
        temporary.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")


def _short(value: object) -> str:
    text = json.dumps(value)
    return text if len(text) <= 200 else f"{text[:200]}..."
