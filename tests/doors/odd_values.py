"""Odd values for a parameter: what is passed by mistake everywhere, and its good value, spoiled."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch

from circuitry import AttributionGraph, Encoder
from tests.doors.world import World


def write_odd_files(folder: Path) -> dict[str, Any]:
    """Write files of other formats, torn or empty ones, and return them by what they are, with other odd paths."""
    folder.mkdir()
    contents = {
        "empty": b"",
        "nested.json": b"[" * 100_000 + b"]" * 100_000,
        "list.json": b"[1, 2]",
        "text.csv": b"a,b\n1,2,3\n\xff",
        "header.safetensors": (2**40).to_bytes(8, "little") + b"{}",
        "noise.pt": bytes(range(256)),
    }
    for name, content in contents.items():
        (folder / name).write_bytes(content)
    return {
        **{f"file {name}": folder / name for name in contents},
        "a missing path": folder / "missing",
        "a path in a file": folder / "empty" / "x",
        "a name too long": folder / ("x" * 5000),
    }


def anything(world: World) -> dict[str, Any]:
    """Return values of kinds that a parameter rarely takes."""
    return {
        "None": None,
        "True": True,
        "-1": -1,
        "0": 0,
        "NaN": float("nan"),
        "a large number": 2**70,
        "no text": "",
        "a word": "cat",
        "a null character": "a\0b",
        "an empty list": [],
        "a word twice": ["cat", "cat"],
        "no array": np.zeros(0),
        "an array of words": np.array(["axe", "cat"]),
        "an empty tensor": torch.zeros(0),
        "a uint8 batch": torch.zeros(2, 3, 64, 64, dtype=torch.uint8),
        "a table without rows": pd.DataFrame(),
        "a column": pd.Series([1.0, 2.0], [5, 7]),
        "an object": object(),
        "a function": len,
        "a class": dict,
        "an iterator": iter(["cat"]),
        "a graph": world.one(AttributionGraph),
        "an encoder": world.one(Encoder),
        "a dictionary": {"cat": 1},
    }


def spoiled(good: Any) -> dict[str, Any]:
    """Return a good value with one thing wrong, where it has things."""
    if isinstance(good, np.ndarray) and good.size and good.dtype.kind in "fiub":
        return _arrays(good, np.full_like(good, np.nan, dtype=float)) | {"as words": good.astype(str)}
    if isinstance(good, torch.Tensor) and good.numel():
        return _arrays(good, torch.full_like(good, torch.nan, dtype=torch.float)) | {
            "as uint8": good.to(torch.uint8),
            "as array": good.numpy(),
        }
    if isinstance(good, pd.DataFrame):
        tables = {f"without {name}": good.drop(columns=name) for name in good.columns}
        tables |= {f"words in {name}": good.assign(**{str(name): "word"}) for name in good.columns}
        if len(good):
            tables |= {
                "rows twice": pd.concat([good, good]),
                "no rows": good.iloc[:0],
                "NaN": good.assign(**dict.fromkeys(map(str, good.columns), np.nan)),
            }
        return tables
    if isinstance(good, list | tuple) and not hasattr(good, "_fields") and good:
        return {
            "first twice": [*good, good[0]],
            "none of them": [],
            "first alone": good[0],
            "None inside": [*good, None],
            "as array": np.array(good, dtype=object),
        }
    if isinstance(good, Mapping) and type(good) is dict and good:
        first = next(iter(good))
        return {
            "other key": {"nope": good[first]},
            "key of other type": {3.5: good[first]},
            "None inside": {**good, first: None},
            "negative inside": {**good, first: -1},
        }
    return {}


def _arrays(good: Any, nan: Any) -> dict[str, Any]:
    return {
        "NaN": nan,
        "an axis more": good[None],
        "first alone": good[0],
        "no rows": good[:0],
        "one row less": good[1:],
        "as list": good.tolist(),
        "infinite": nan * 0 + 1e39 * 1e300,
        "negative": -abs(good) - 1 if str(good.dtype) not in ("bool", "torch.bool") else ~good,
    }
