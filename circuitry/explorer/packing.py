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

import numpy as np
from jaxtyping import Float

EXPLORER_FORMAT = "circuitry explorer 1"
"""Name and version of the data; the page refuses another one."""

_EIGHTHS = 8


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
    listed, parts = [], []
    for name, array in arrays.items():
        stored, factor = _stored(np.ascontiguousarray(array))
        content = np.frombuffer(
            stored.astype(stored.dtype.newbyteorder("<")).tobytes(), np.uint8
        )
        listed.append([name, stored.dtype.str[1:], list(stored.shape), factor])
        parts.append(content.reshape(-1, stored.itemsize).T.tobytes())
    packed = (
        base64.b64encode(zlib.compress(b"".join(parts))).decode("ascii")
        if parts
        else ""
    )
    about = {"format": EXPLORER_FORMAT, "export": export, "arrays": listed, **header}
    return f"circuitry.load({script_json(key)},{script_json(about)},{script_json(packed)});\n"


def one_digit(values: Float[np.ndarray, " values"]) -> Float[np.ndarray, " values"]:
    """Return numbers to about one digit, as eighths of a power of two, which take half the space."""
    shares, powers = np.frexp(values)
    rounded: np.ndarray = np.ldexp(np.round(shares * _EIGHTHS) / _EIGHTHS, powers)
    return rounded


def script_json(value: object) -> str:
    """Return JSON that is safe within a script, whatever names hold: ASCII without ``<``, NaN as null."""
    text = json.dumps(
        _without_nan(value), ensure_ascii=True, separators=(",", ":"), allow_nan=False
    )
    return text.replace("<", "\\u003c")


def _stored(array: np.ndarray) -> tuple[np.ndarray, float | None]:
    """Return an array as it is stored, and the factor of half floats."""
    if array.dtype == bool:
        return array.astype(np.uint8), None
    if array.dtype.kind in "ui":
        return array, None
    known = np.abs(array[np.isfinite(array)])
    factor = (
        float(2.0 ** np.ceil(np.log2(known.max())))
        if known.size and known.max() > 0
        else 1.0
    )
    return (array / factor).astype(np.float16), factor


def _without_nan(value: object) -> object:
    if isinstance(value, Mapping):
        return {str(name): _without_nan(inner) for name, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_without_nan(inner) for inner in value]
    if isinstance(value, np.generic):
        return _without_nan(value.item())
    if isinstance(value, float):
        return value if np.isfinite(value) else None
    return value
