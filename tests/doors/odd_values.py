"""Odd values for a parameter: what is passed by mistake everywhere, its good value spoiled, and the same numbers in
another container, whose result must be the same."""

import contextlib
import os
import socket
from collections import UserList
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import nn

from circuitry import AttributionGraph, Encoder
from tests.doors.world import World


def write_odd_files(folder: Path) -> dict[str, Any]:
    """Write files of other formats, torn or empty ones, and return them by what they are, with other odd paths."""
    folder.mkdir(parents=True)
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
    os.mkfifo(folder / "pipe")
    with socket.socket(socket.AF_UNIX) as server, contextlib.chdir(folder):
        server.bind("socket")
    for link, target in {
        "loop": "other",
        "other": "loop",
        "dangling": "nowhere/x",
        "here": ".",
    }.items():
        (folder / link).symlink_to(target)
    found = {
        f"file {name}": folder / name
        for name in (*contents, "pipe", "socket", "loop", "dangling", "here")
    }
    return found | {
        "a missing path": folder / "missing",
        "a path in a file": folder / "empty" / "x",
        "a path in a loop": folder / "loop" / "x",
        "a name too long": folder / ("x" * 5000),
        "a name of bytes": str(folder / "\udcff\udc80"),
        "half a character": str(folder / "\ud800x"),
        "a home": "~/x",
        "no home": "~nobody-of-this-name/x",
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
        "a half batch": torch.zeros(2, 3, 64, 64, dtype=torch.half),
        "a table without rows": pd.DataFrame(),
        "a column": pd.Series([1.0, 2.0], [5, 7]),
        "an object": object(),
        "a function": len,
        "a class": dict,
        "an iterator": iter(["cat"]),
        "a graph": world.one(AttributionGraph),
        "an encoder": world.one(Encoder),
        "a dictionary": {"cat": 1},
        "a mapping": MappingProxyType({"cat": object()}),
    }


def spoiled(good: Any) -> dict[str, Any]:
    """Return a good value with one thing wrong, where it has things."""
    if isinstance(good, np.ndarray) and good.size and good.dtype.kind in "fiub":
        masked = np.ma.masked_array(good, np.arange(good.size).reshape(good.shape) == 0)
        return _arrays(good, np.full_like(good, np.nan, dtype=float)) | {
            "words": good.astype(str),
            "masked": masked,
        }
    if isinstance(good, torch.Tensor) and good.numel():
        return _arrays(good, torch.full_like(good, torch.nan, dtype=torch.float)) | {
            "as uint8": good.to(torch.uint8),
            "as array": good.numpy(),
            "sparse": good.to_sparse(),
            "without values": good.to("meta"),
            "complex": good.to(torch.complex64),
        }
    if isinstance(good, pd.DataFrame):
        tables = {f"without {name}": good.drop(columns=name) for name in good.columns}
        tables |= {
            f"words in {name}": good.assign(**{str(name): "word"})
            for name in good.columns
        }
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
            "None in a mapping": MappingProxyType({**good, first: None}),
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
        "negative": -abs(good) - 1
        if str(good.dtype) not in ("bool", "torch.bool")
        else ~good,
    }


class Keys(Mapping[Any, Any]):
    """A mapping of one's own."""

    def __init__(self, of: Mapping[Any, Any]) -> None:
        self._of = of

    def __getitem__(self, key: Any) -> Any:
        return self._of[key]

    def __iter__(self) -> Iterator[Any]:
        return iter(self._of)

    def __len__(self) -> int:
        return len(self._of)


def same(good: Any) -> dict[str, Any]:
    """Return other values that mean the same as a good one, which is itself rounded beside one of half precision."""
    if isinstance(good, bool) or good is None:
        return {}
    if isinstance(good, int | float):
        return {
            f"as {kind.__name__}": kind(good)
            for kind in (np.int32, np.int64, np.float64)
            if kind(good) == good
        }
    if isinstance(good, str | Path):
        return {"as numpy's text": np.str_(good)}
    if isinstance(good, np.ndarray) and good.size and good.dtype.kind in "fiub":
        read_only = good.copy()
        read_only.flags.writeable = False
        return {
            "in Fortran's order": np.asfortranarray(good),
            "backwards": np.ascontiguousarray(good[::-1])[::-1],
            "big-endian": good.astype(good.dtype.newbyteorder(">")),
            "without a mask": np.ma.masked_array(good),
            "small": good.astype(
                {"f": np.float32, "i": np.int16}.get(good.dtype.kind, good.dtype)
            ),
            "read-only": read_only,
        }
    if isinstance(good, torch.Tensor) and good.numel():
        with torch.inference_mode():
            inferred = good.clone()
        found: dict[str, Any] = {
            "of inference mode": inferred,
            "with gaps": torch.stack([good, good], -1)[..., 0],
        }
        if good.is_floating_point():
            found |= {
                "as parameter": nn.Parameter(good.clone()),
                "double": good.double(),
                "half": good.half(),
            }
        return found
    if isinstance(good, pd.DataFrame | pd.Series) and len(good):
        rows = range(5, 5 + len(good))
        several = pd.MultiIndex.from_product([["x"], rows])
        tables: dict[str, Any] = {
            "other labels": rows,
            "one label": [0] * len(good),
            "two labels": several,
        }
        found = {name: good.set_axis(index) for name, index in tables.items()}
        found["nullable"] = good.convert_dtypes()
        if isinstance(good, pd.DataFrame):
            words = [
                name
                for name in good
                if good[name].map(lambda one: isinstance(one, str)).all()
            ]
            found |= {
                "categories": good.astype(dict.fromkeys(words, "category")),
                "columns": good[good.columns[::-1]],
            }
        return found
    if isinstance(good, list | tuple) and not hasattr(good, "_fields") and good:
        return {
            "as list": list(good),
            "as tuple": tuple(good),
            "as list of one's own": UserList(good),
        }
    if type(good) is dict and good:
        return {
            "as mapping": MappingProxyType(good),
            "as mapping of one's own": Keys(good),
        }
    return {}
