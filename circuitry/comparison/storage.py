"""How a `Comparison` is stored: a CSV file of each table, and a JSON header with their checksums."""

import hashlib
from collections.abc import Collection, Mapping
from os import PathLike
from pathlib import Path
from typing import Any

import pandas as pd

from circuitry.comparison.table import read_named_table, write_tables
from circuitry.runs.errors import InputError
from circuitry.runs.manifest import read_sealed, write_sealed

_FORMAT = "circuitry comparison 2"
_HEADER = "header.json"
_TEXT = ("class", "class_a", "class_b", "domain_a", "domain_b", "domain", "site")
"""Columns of text; all others are numbers."""


def write_comparison(
    folder: str | PathLike[str], tables: Mapping[str, pd.DataFrame], header: Mapping[str, object]
) -> None:
    """Write the tables and then the header, so that a folder with a header is complete."""
    checksums = {path.stem: _checksum(path) for path in write_tables(tables, folder)}
    write_sealed(Path(folder) / _HEADER, {"format": _FORMAT, "checksums": checksums, "header": dict(header)})


def read_comparison(
    folder: str | PathLike[str], names: Collection[str]
) -> tuple[dict[str, pd.DataFrame], dict[str, Any]]:
    """Return the tables and the header that `write_comparison` wrote.

    Raises:
        InputError: for a missing or damaged file, or another format or version.
    """
    path = Path(folder) / _HEADER
    if not path.is_file():
        raise InputError(f"There is no comparison in {folder} (no {_HEADER}): give the folder of one, or make it.")
    about = read_sealed(path, "make it again")
    if about.get("format") != _FORMAT:
        raise InputError(
            f"{path} has format {about.get('format')!r}, but this version reads {_FORMAT!r}: compare and save again."
        )
    checksums = about["checksums"]
    return {name: _read(path.with_name(f"{name}.csv"), checksums.get(name)) for name in names}, about["header"]


def _checksum(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def _read(path: Path, checksum: str | None) -> pd.DataFrame:
    """Return a table with its names as text, None for no site, and all digits of its numbers."""
    if not path.is_file() or _checksum(path) != checksum:
        raise InputError(f"{path} is missing or damaged, its checksum does not fit: make it again.")
    table = read_named_table(path, dtype=str)
    numbers = {str(name): [_number(value) for value in table[name]] for name in table if name not in _TEXT}
    return table.assign(**numbers, site=table["site"].astype(object).replace("", None))


def _number(value: str) -> int | float:
    return int(value) if value.lstrip("-").isdigit() else float(value or "nan")
