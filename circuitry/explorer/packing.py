"""Write data as scripts: a call of `circuitry.load` with a JSON header and arrays in base64. No torch.

A page that was opened from disk may not fetch files, but it may run scripts. So every file of data is a script. Arrays
lie one after another. Each array has the first bytes of all its numbers, then the second bytes, and so on, because
similar bytes in a row compress well. zlib compresses all arrays together, and base64 makes text of them.

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

EXPLORER_FORMAT = "circuitry explorer 2"
"""Name and version of the data; the page refuses another one."""

_EIGHTHS = 8


@dataclass
class DataFolder:
    """The folder of an explorer while it is filled; it knows which files are new."""

    path: Path
    """Where it is."""
    export: str
    """Digest of the export, which every script repeats."""
    sizes: dict[str, int] = field(default_factory=dict)
    """Bytes written, by kind of file."""
    written: set[Path] = field(default_factory=set)
    """Files of this export."""

    def script(
        self,
        key: str,
        header: Mapping[str, object],
        arrays: Mapping[str, np.ndarray],
    ) -> None:
        """Write a script of data; its kind is the first word of the key."""
        content = pack_script(key, self.export, header, arrays).encode()
        self.file(f"data/{key}.js", content, key.partition("/")[0])

    def file(self, name: str, content: bytes, kind: str) -> None:
        """Write a file, and count its bytes as of a kind.

        A killed process may leave it torn. That is harmless: the page, which reads it, is written last.
        """
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
        # numpy's name of a type begins with its byte order.
        dtype = stored.dtype.str[1:]
        shape = list(stored.shape)
        listed.append([name, dtype, shape, factor])
        little_endian = stored.astype(stored.dtype.newbyteorder("<")).tobytes()
        # [numbers, bytes of a number]; the transpose puts equal places beside each other.
        numbers = np.frombuffer(little_endian, np.uint8).reshape(-1, stored.itemsize)
        content += numbers.T.tobytes()
    packed = ""
    if listed:
        packed = base64.b64encode(zlib.compress(content)).decode("ascii")
    about = {"format": EXPLORER_FORMAT, "export": export, "arrays": listed, **header}
    values = ",".join(map(script_json, (key, about, packed)))
    return f"circuitry.load({values});\n"


def one_digit(values: Float[np.ndarray, " values"]) -> Float[np.ndarray, " values"]:
    """Round numbers to about one digit: to eighths of a power of two, which take half the space when compressed."""
    shares, powers = np.frexp(values)
    eighths = np.round(shares * _EIGHTHS)
    rounded: np.ndarray = np.ldexp(eighths / _EIGHTHS, powers)
    return rounded


def script_json(value: object) -> str:
    """Return JSON that is safe within a script, whatever names hold: ASCII without ``<``, NaN as null."""
    text = json.dumps(value, default=lambda scalar: scalar.item())
    # Python writes NaN and infinity, which JSON does not have; numbers of numpy are plain ones by now.
    plain = json.loads(text, parse_constant=lambda name: None)
    text = json.dumps(plain, ensure_ascii=True, separators=(",", ":"))
    # A name with "</script>" would end the script.
    return text.replace("<", "\\u003c")


def _stored(array: np.ndarray) -> tuple[np.ndarray, float | None]:
    """Return an array as it is stored, and the factor of half floats."""
    if array.dtype == bool:
        return array.astype(np.uint8), None
    if array.dtype.kind in "ui":
        return array, None
    finite = array[np.isfinite(array)]
    largest = np.abs(finite).max(initial=0)
    # A power of two loses no digit, and the largest number becomes at most 1.
    factor = float(2.0 ** np.ceil(np.log2(largest))) if largest > 0 else 1.0
    return (array / factor).astype(np.float16), factor
