"""Named arrays with a JSON header in one safetensors file: no pickle, a checksum inside, whole or not at all."""

import hashlib
import json
import logging
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save

from circuitry.runs.errors import InputError
from circuitry.runs.files import whole_file
from circuitry.runs.identity import ROUNDED, Identity, same_entry
from circuitry.runs.manifest import check_format

_ENTRY = "circuitry"

log = logging.getLogger(__name__)


def write_arrays(
    path: str | os.PathLike[str],
    format_name: str,
    header: Mapping[str, Any],
    arrays: Mapping[str, np.ndarray],
) -> None:
    """Write arrays and header; ``format_name`` holds the version of what is in them.

    Example:
        >>> from circuitry.runs import read_arrays, write_arrays
        >>> write_arrays("means.safetensors", "my means 1", {"seed": 0}, {"means": np.zeros(3)})
        >>> header, arrays = read_arrays("means.safetensors", "my means 1", "file of means")
        >>> header
        {'seed': 0}
    """
    contiguous = {name: np.ascontiguousarray(array) for name, array in arrays.items()}
    about = {"format": format_name, "header": dict(header)}
    about["checksum"] = _checksum(about, contiguous)
    # One entry: safetensors writes several in any order, and equal contents should be equal files.
    content = save(contiguous, {_ENTRY: json.dumps(about, sort_keys=True)})
    with whole_file(path) as temporary:
        temporary.write_bytes(
            content
        )  # not save_file: a full disk is then an OSError that says so


def read_arrays(
    path: str | os.PathLike[str], format_name: str, what: str
) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    """Return header and arrays of a file that `write_arrays` wrote.

    Args:
        format_name: Name and version that it must have.
        what: Name of the kind of file, for messages: "attribution graph".

    Example:
        >>> circuitry.runs.write_arrays("ones.safetensors", "my ones 1", {}, {"ones": np.ones(2)})
        >>> circuitry.runs.read_arrays("ones.safetensors", "my ones 1", "file of ones")[1]["ones"].tolist()
        [1.0, 1.0]
    """
    if not Path(path).is_file():
        raise InputError(
            f"There is no {what} at {path}: give the path of one, or make it."
        )
    try:
        with safe_open(path, "numpy") as file:
            metadata = file.metadata() or {}
            arrays = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        about = json.loads(metadata.get(_ENTRY, "{}"))
    except (SafetensorError, OSError, ValueError, RecursionError) as error:
        raise InputError(
            f"{path} is not a readable {what} ({error}): make it again."
        ) from error
    about = about if isinstance(about, dict) else {}
    check_format(Path(path), about.get("format", "unknown"), format_name)
    if about.pop("checksum", None) != _checksum(about, arrays):
        raise InputError(
            f"{path} is damaged, its checksum does not fit: make it again."
        )
    return about["header"], arrays


def cached_arrays(
    folder: Path,
    identity: Identity,
    format_name: str,
    what: str,
    make: Callable[[], Mapping[str, np.ndarray]],
) -> Mapping[str, np.ndarray]:
    """Return the arrays of a file in a cache; make them, and keep them there, where it is missing or damaged.

    The file's name is the key of the identity, and is written into it with the arrays' shapes and with the entries that
    are in no key; where an entry is unknown nothing is kept. A cache is no place that must work: a folder that cannot
    be read or written costs time and a line in the log.
    """
    if identity.unknown:
        return make()
    path = folder / f"{identity.key}.safetensors"

    def header(arrays: Mapping[str, np.ndarray]) -> dict[str, Any]:
        shapes = {name: list(array.shape) for name, array in arrays.items()}
        return {
            "key": path.stem,
            "shapes": shapes,
            **{name: identity[name] for name in ROUNDED if name in identity},
        }

    try:
        if path.is_file():
            found_header, found = read_arrays(path, format_name, what)
            expected = header(found)
            if found_header.keys() == expected.keys() and all(
                same_entry(found_header[name], value)
                for name, value in expected.items()
            ):
                return found
            log.warning("%s are made again: %s was made for something else", what, path)
    except (InputError, OSError) as error:
        log.warning("%s are made again: %s", what, error)
    made = make()
    try:
        write_arrays(path, format_name, header(made), made)
    except (InputError, OSError) as error:
        log.warning("%s are not kept for another time: %s", what, error)
    return made


def _checksum(about: Mapping[str, Any], arrays: Mapping[str, np.ndarray]) -> str:
    total = hashlib.sha256(json.dumps(about, sort_keys=True).encode())
    for name in sorted(arrays):
        array = arrays[name]
        total.update(f"\0{name}\0{array.dtype.str}{array.shape}".encode())
        total.update(array.tobytes())
    return total.hexdigest()
