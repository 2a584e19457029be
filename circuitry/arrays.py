"""Named arrays with a JSON header in one safetensors file: no pickle, a checksum inside, whole or not at all."""

import hashlib
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

from circuitry.errors import InputError
from circuitry.files import whole_file


def write_arrays(
    path: str | os.PathLike[str], format_name: str, header: Mapping[str, Any], arrays: Mapping[str, np.ndarray]
) -> None:
    """Write arrays and header; ``format_name`` holds the version of what is in them."""
    contiguous = {name: np.ascontiguousarray(array) for name, array in arrays.items()}
    text = json.dumps(header, sort_keys=True)
    metadata = {"format": format_name, "header": text, "checksum": _checksum(format_name, text, contiguous)}
    with whole_file(path) as temporary:
        save_file(contiguous, temporary, metadata)


def read_arrays(
    path: str | os.PathLike[str], format_name: str, what: str
) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    """Return header and arrays of a file that `write_arrays` wrote.

    Args:
        path: The file.
        format_name: Name and version that it must have.
        what: What it is, for messages: "attribution graph".

    Raises:
        InputError: for a missing or damaged file, or another format or version.
    """
    if not Path(path).is_file():
        raise InputError(f"There is no {what} at {path}: give the path of one, or make it.")
    try:
        with safe_open(path, "numpy") as file:
            metadata = file.metadata() or {}
            arrays = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except (SafetensorError, OSError) as error:
        raise InputError(f"{path} is not a readable {what} ({error}): make it again.") from error
    if metadata.get("format") != format_name:
        raise InputError(
            f"{path} has format {metadata.get('format', 'unknown')!r}, but this version reads {format_name!r}: "
            "make it again with this version."
        )
    text = metadata.get("header", "")
    if metadata.get("checksum") != _checksum(format_name, text, arrays):
        raise InputError(f"{path} is damaged, its checksum does not fit: make it again.")
    header: dict[str, Any] = json.loads(text)
    return header, arrays


def _checksum(format_name: str, header: str, arrays: Mapping[str, np.ndarray]) -> str:
    total = hashlib.sha256(f"{format_name}\0{header}".encode())
    for name in sorted(arrays):
        array = arrays[name]
        total.update(f"\0{name}\0{array.dtype.str}{array.shape}".encode())
        total.update(array.tobytes())
    return total.hexdigest()
