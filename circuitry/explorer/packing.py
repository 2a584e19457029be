"""Write data for the page as scripts. Does not import torch.

A page that was opened from disk may not fetch files, but it may run scripts. So every file of data is a script. It
calls the page's JavaScript function ``circuitry.load`` with a JSON header and with arrays as base64 text.

1. Floating-point numbers are divided by a power of two, which is the same for all numbers of an array, and stored as
   half-precision numbers. This keeps three digits of a number, unless the number is below 1/16,000 of the largest
   number in the array. Integers keep their type, and booleans become bytes.
2. The first bytes of all numbers of an array are stored first, then all second bytes, and so on. Similar bytes in a row
   compress well.
3. The arrays are concatenated and compressed by zlib. base64 turns the result into text.
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
"""Name and version of the format of the data. The page refuses data of another format."""

_EIGHTHS = 8


@dataclass
class DataFolder:
    """The folder of an explorer while an export fills it. It records the files that this export has written."""

    path: Path
    """Path of the folder."""
    export: str
    """Digest of the export. It is written into every script."""
    sizes: dict[str, int] = field(default_factory=dict)
    """Number of bytes written, by kind of file."""
    written: set[Path] = field(default_factory=set)
    """Files that this export has written."""

    def script(
        self,
        key: str,
        header: Mapping[str, object],
        arrays: Mapping[str, np.ndarray],
    ) -> None:
        """Write a header and arrays as a script into the file ``data/<key>.js``; see `pack_script`.

        The bytes of the file are added to `sizes` under the part of the key before the slash: ``class`` for the key
        ``class/3``.
        """
        content = pack_script(key, self.export, header, arrays).encode()
        self.file(f"data/{key}.js", content, key.partition("/")[0])

    def file(self, name: str, content: bytes, kind: str) -> None:
        """Write a file, and add the number of its bytes to ``sizes[kind]``.

        If the process is killed, the file may be incomplete. This is harmless, because the page that reads the file is
        written last.
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
    """Return the text of a script that passes a header and arrays to the page.

    Args:
        key: Name of the script and of its file, such as ``class/3``.
        export: Digest of the export.
        header: Values that JSON can hold. NaN and infinity become null.
        arrays: Arrays by name.
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
        # [numbers, bytes of a number]: the transpose puts the first bytes of all numbers beside each other.
        numbers = np.frombuffer(little_endian, np.uint8).reshape(-1, stored.itemsize)
        content += numbers.T.tobytes()
    packed = ""
    if listed:
        packed = base64.b64encode(zlib.compress(content)).decode("ascii")
    about = {"format": EXPLORER_FORMAT, "export": export, "arrays": listed, **header}
    values = ",".join(map(script_json, (key, about, packed)))
    return f"circuitry.load({values});\n"


def one_digit(values: Float[np.ndarray, " values"]) -> Float[np.ndarray, " values"]:
    """Round each number to about one digit (three significant bits), so that numbers compress to half the space."""
    shares, powers = np.frexp(values)
    eighths = np.round(shares * _EIGHTHS)
    rounded: np.ndarray = np.ldexp(eighths / _EIGHTHS, powers)
    return rounded


def script_json(value: object) -> str:
    """Return a value as JSON text that is safe within a script: ASCII without ``<``. NaN and infinity become null."""
    text = json.dumps(value, default=lambda scalar: scalar.item())
    # Python writes NaN and Infinity, which are not valid JSON, so the text is read and written once more.
    plain = json.loads(text, parse_constant=lambda name: None)
    text = json.dumps(plain, ensure_ascii=True, separators=(",", ":"))
    # A name with "</script>" would end the script.
    return text.replace("<", "\\u003c")


def _stored(array: np.ndarray) -> tuple[np.ndarray, float | None]:
    """Return the array that is stored, and the factor by which the page multiplies its numbers.

    The factor is None for integers and booleans, whose values are stored unchanged.
    """
    if array.dtype == bool:
        return array.astype(np.uint8), None
    if array.dtype.kind in "ui":
        return array, None
    finite = array[np.isfinite(array)]
    largest = np.abs(finite).max(initial=0)
    # A power of two loses no digit, and the largest number becomes at most 1.
    factor = float(2.0 ** np.ceil(np.log2(largest))) if largest > 0 else 1.0
    return (array / factor).astype(np.float16), factor
