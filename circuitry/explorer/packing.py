"""Data as scripts: a call of `circuitry.load` with a JSON header and arrays in base64. No torch.

A page that was opened from disk may not fetch files, but it may run scripts. So every file of data is one. Arrays lie
one after another, of each the first bytes of all numbers, then the second ones, since equal bytes compress well; zlib
compresses them, and base64 makes them text.

Floats become half floats times a power of two by array, which keeps three digits of numbers above 1/16,000 of the
array's largest; integers and booleans stay.
"""

import base64
import json
import zlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from jaxtyping import Float

from circuitry.runs.files import make_folder

EXPLORER_FORMAT = "circuitry explorer 1"
"""Name and version of the data; the page refuses another one."""

_EIGHTHS = 8


@dataclass
class DataFolder:
    """The folder of an explorer while it is filled; it knows which files are new."""

    path: Path
    export: str
    """Digest of the export, which every script repeats."""
    sizes: dict[str, int] = field(default_factory=dict)
    """Bytes written, by kind of file."""
    written: set[Path] = field(default_factory=set)

    def script(
        self, key: str, header: Mapping[str, object], arrays: Mapping[str, np.ndarray]
    ) -> None:
        """Write a script of data; its kind is the first word of the key."""
        content = pack_script(key, self.export, header, arrays).encode()
        self.file(f"data/{key}.js", content, key.partition("/")[0])

    def file(self, name: str, content: bytes, kind: str) -> None:
        """Write a file, which may stay torn: the page of an interrupted export is missing, since it comes last."""
        path = self.path / name
        make_folder(path.parent)
        path.write_bytes(content)
        self.written.add(path)
        self.sizes[kind] = self.sizes.get(kind, 0) + len(content)


def pack_script(
    key: str,
    export: str,
    header: Mapping[str, object],
    arrays: Mapping[str, np.ndarray],
) -> str:
    """Return a script that hands a header and arrays to the page.

    ``key``, e.g. ``class/3``, names the script and its file; ``export`` is the digest of the export; in the header
    not-a-number becomes null.
    """
    listed = []
    content = b""
    for name, array in arrays.items():
        stored, factor = _stored(array)
        listed.append([name, stored.dtype.str[1:], list(stored.shape), factor])
        little_endian = stored.astype(stored.dtype.newbyteorder("<")).tobytes()
        numbers = np.frombuffer(little_endian, np.uint8).reshape(-1, stored.itemsize)
        content += numbers.T.tobytes()
    packed = ""
    if listed:
        packed = base64.b64encode(zlib.compress(content)).decode("ascii")
    about = {"format": EXPLORER_FORMAT, "export": export, "arrays": listed, **header}
    values = ",".join(map(script_json, (key, about, packed)))
    return f"circuitry.load({values});\n"


def one_digit(values: Float[np.ndarray, " values"]) -> Float[np.ndarray, " values"]:
    """Return numbers to about one digit, as eighths of a power of two, which take half the space."""
    shares, powers = np.frexp(values)
    rounded: np.ndarray = np.ldexp(np.round(shares * _EIGHTHS) / _EIGHTHS, powers)
    return rounded


def script_json(value: object) -> str:
    """Return JSON that is safe within a script, whatever names hold: ASCII without ``<``, NaN as null."""
    text = json.dumps(value, default=lambda scalar: scalar.item())
    # Python writes NaN and infinity, which JSON does not have; numbers of numpy are plain ones by now.
    plain = json.loads(text, parse_constant=lambda name: None)
    text = json.dumps(plain, ensure_ascii=True, separators=(",", ":"))
    return text.replace("<", "\\u003c")


def _stored(array: np.ndarray) -> tuple[np.ndarray, float | None]:
    """Return an array as it is stored, and the factor of half floats."""
    if array.dtype == bool:
        return array.astype(np.uint8), None
    if array.dtype.kind in "ui":
        return array, None
    largest = np.abs(array[np.isfinite(array)]).max(initial=0)
    factor = float(2.0 ** np.ceil(np.log2(largest))) if largest > 0 else 1.0
    return (array / factor).astype(np.float16), factor
