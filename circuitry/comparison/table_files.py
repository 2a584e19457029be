"""Named tables with a JSON header in a folder of CSV files: checksums, whole files, names and numbers as they were.

No torch.
"""

import hashlib
import json
from collections.abc import Collection, Iterable, Mapping
from pathlib import Path
from typing import Any

import pandas as pd

from circuitry.runs.errors import InputError
from circuitry.runs.files import whole_file
from circuitry.runs.manifest import write_json

HEADER = "header.json"


def write_table_files(
    folder: Path, format_name: str, header: Mapping[str, Any], tables: Mapping[str, pd.DataFrame]
) -> None:
    """Write tables and, when they are whole, the header with their checksums.

    Args:
        folder: Where the files are; made if need be.
        format_name: Name and version of what is in them.
        header: Further facts, as plain values.
        tables: Tables by name.
    """
    checksums = {}
    for name, table in tables.items():
        content = table.to_csv(index=False).encode()
        checksums[name] = hashlib.sha256(content).hexdigest()
        with whole_file(folder / f"{name}.csv") as temporary:
            temporary.write_bytes(content)
    write_json(folder / HEADER, {"format": format_name, "checksums": checksums, "header": dict(header)})


def read_table_files(
    folder: Path, format_name: str, what: str, names: Iterable[str], text: Collection[str]
) -> tuple[dict[str, Any], dict[str, pd.DataFrame]]:
    """Return header and tables of a folder that `write_table_files` wrote.

    Args:
        folder: Where the files are.
        format_name: Name and version that they must have.
        what: What it is, for messages: "comparison".
        names: Names of the tables.
        text: Columns that are text; all others are numbers.

    Raises:
        InputError: for a missing or damaged file, or another format or version.
    """
    path = folder / HEADER
    if not path.is_file():
        raise InputError(f"There is no {what} in {folder} (no {HEADER}): give the folder of one, or make it.")
    try:
        about = json.loads(path.read_text(encoding="utf-8"))
        found, checksums, header = (about[key] for key in ("format", "checksums", "header"))
    except (ValueError, TypeError, KeyError) as error:
        raise InputError(f"{path} is damaged ({error}): make it again.") from error
    if found != format_name:
        raise InputError(f"{path} has format {found!r}, but this version reads {format_name!r}: make it again.")
    return header, {name: _read(folder / f"{name}.csv", checksums.get(name), text) for name in names}


def _read(path: Path, checksum: str | None, text: Collection[str]) -> pd.DataFrame:
    content = path.read_bytes() if path.is_file() else b""
    if hashlib.sha256(content).hexdigest() != checksum:
        raise InputError(f"{path} is missing or damaged, its checksum does not fit: make it again.")
    table = pd.read_csv(path, dtype=str, keep_default_na=False)
    numbers = {str(name): [_number(value) for value in table[name]] for name in table if name not in text}
    return table.assign(**numbers)


def _number(value: str) -> float:
    """Read what ``to_csv`` wrote, to the last digit."""
    return int(value) if value.lstrip("-").isdigit() else float(value or "nan")
