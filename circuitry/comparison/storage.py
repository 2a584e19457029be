"""A folder of tables with a header: how a `Comparison` is written and read, checksums included."""

import hashlib
import json
from collections.abc import Collection, Mapping
from os import PathLike
from pathlib import Path
from typing import Any

import pandas as pd

from circuitry.runs.errors import InputError
from circuitry.runs.files import whole_file
from circuitry.runs.manifest import write_json

FORMAT = "circuitry comparison 2"
"""Name and version of the file format."""
FILE = "header.json"


def write_tables(folder: str | PathLike[str], tables: Mapping[str, pd.DataFrame], header: Mapping[str, object]) -> None:
    """Write the tables as CSV files and, when they are whole, a JSON header with their checksums."""
    checksums = {}
    for name, table in tables.items():
        content = table.to_csv(index=False).encode()
        checksums[name] = hashlib.sha256(content).hexdigest()
        with whole_file(Path(folder) / f"{name}.csv") as temporary:
            temporary.write_bytes(content)
    write_json(Path(folder) / FILE, {"format": FORMAT, "checksums": checksums, "header": dict(header)})


def read_tables(
    folder: str | PathLike[str], names: Collection[str], text: Collection[str]
) -> tuple[dict[str, pd.DataFrame], dict[str, Any]]:
    """Return the tables and the header that `write_tables` wrote; the columns in ``text`` stay text.

    Raises:
        InputError: for a missing or damaged file, or another format or version.
    """
    path = Path(folder) / FILE
    if not path.is_file():
        raise InputError(f"There is no comparison in {folder} (no {FILE}): give the folder of one, or make it.")
    try:
        about = json.loads(path.read_text(encoding="utf-8"))
        found, checksums, header = (about[key] for key in ("format", "checksums", "header"))
    except (ValueError, TypeError, KeyError) as error:
        raise InputError(f"{path} is damaged ({error}): make it again.") from error
    if found != FORMAT:
        raise InputError(
            f"{path} has format {found!r}, but this version reads {FORMAT!r}, which holds parts in place of halves: "
            "compare again and save the result."
        )
    return {name: _read(path.with_name(f"{name}.csv"), checksums.get(name), text) for name in names}, header


def _read(path: Path, checksum: str | None, text: Collection[str]) -> pd.DataFrame:
    """Return a table with names, None for no site, and numbers to the last digit."""
    content = path.read_bytes() if path.is_file() else b""
    if hashlib.sha256(content).hexdigest() != checksum:
        raise InputError(f"{path} is missing or damaged, its checksum does not fit: make it again.")
    table = pd.read_csv(path, dtype=str, keep_default_na=False)
    numbers = {str(name): [_number(value) for value in table[name]] for name in table if name not in text}
    return table.assign(**numbers, site=table["site"].astype(object).replace("", None))


def _number(value: str) -> int | float:
    return int(value) if value.lstrip("-").isdigit() else float(value or "nan")
