"""Write and read named arrays with a JSON header, in one safetensors file.

The file contains a checksum and no pickled objects. It is written completely or not at all.
"""

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
    """Write named arrays and a header to a file.

    Args:
        format_name: Name and version of the kind of content, such as "my means 1"; `read_arrays` checks both.
        header: Values that JSON can hold.

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
    # All goes into one entry of the metadata: safetensors writes several entries in any order, but equal contents
    # should make equal files.
    content = save(contiguous, {_ENTRY: json.dumps(about, sort_keys=True)})
    with whole_file(path) as temporary:
        temporary.write_bytes(
            content
        )  # unlike save_file of safetensors, this raises an OSError with the reason if the disk is full


def read_arrays(
    path: str | os.PathLike[str], format_name: str, what: str
) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    """Return the header and the arrays of a file that `write_arrays` wrote.

    Args:
        format_name: Name and version of the content that the file must have.
        what: Name of the kind of file for error messages, such as "attribution graph".

    Raises:
        InputError: if the file is missing, damaged or of another format.

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
    if not isinstance(about, dict):
        about = {}
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
    """Return arrays from a file in a cache, or compute them and store them there.

    The arrays are computed if the file is missing or damaged, or if its header belongs to another identity. The name of
    the file is the key of the identity, which is a digest. The header contains this key, the shapes of the arrays, and
    the entries of the identity that are left out of the digest because machines round them differently (`ROUNDED`). If
    an entry of the identity is unknown, the cache is not used. If the folder cannot be read or written, the arrays are
    computed each time, and the log says so.

    Args:
        folder: Folder of the cache.
        identity: Everything that the arrays depend on.
        format_name: Name and version of the content of the file, such as "my means 1".
        what: Name of the arrays for the log, and of the kind of file for error messages.
        make: Computes the arrays.
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
