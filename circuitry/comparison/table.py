"""Tidy tables of similarities between domains: what they must hold, and how they are written."""

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from os import PathLike
from pathlib import Path
from typing import Any

import pandas as pd

from circuitry.runs.errors import InputError
from circuitry.runs.files import whole_file

VALUES = ("class", "domain_a", "domain_b", "site", "value")
"""Columns of a table of values; others may follow."""
CHANCE = ("site", "value")
"""Columns of a table of chance levels."""


def domain_matrix(table: pd.DataFrame) -> pd.DataFrame:
    """Return the symmetric domain-by-domain mean of a `compare` table over classes and sites; NaN on the diagonal."""
    means = both_directions(table).groupby(["domain", "other"])["value"].mean().unstack()
    domains = sorted(means.index)
    return pd.DataFrame(means.reindex(columns=domains).to_numpy(dtype=float), index=domains, columns=domains)


def both_directions(table: pd.DataFrame) -> pd.DataFrame:
    """Return a `compare` table with every pair in both orders: columns class, domain, other, site, value.

    A table that has these columns already is returned unchanged.
    """
    if "other" in table:
        return table
    forth = table.rename(columns={"domain_a": "domain", "domain_b": "other"})
    back = table.rename(columns={"domain_b": "domain", "domain_a": "other"})
    return pd.concat([forth, back], ignore_index=True)[["class", "domain", "other", "site", "value"]]


def class_groups(
    classes: Iterable[str], groups: Mapping[str, Sequence[str]] | None = None
) -> dict[str, tuple[str, ...]]:
    """Return the classes as group ``all``, and the members of each further group among them; empty groups go."""
    known = set(classes)
    found = {"all": tuple(sorted(known))}
    for name, members in (groups or {}).items():
        if present := tuple(member for member in members if member in known):
            found[name] = present
    return found


def check_table(table: pd.DataFrame, name: str, columns: Iterable[str], key: Iterable[str]) -> None:
    """Refuse a table that lacks a column, has no rows, or holds two rows for one key (the columns in ``key``).

    Raises:
        InputError: with the name of the table and the reason.
    """
    if missing := [column for column in columns if column not in table.columns]:
        raise InputError(
            f"The {name} table lacks the column {', '.join(missing)}; "
            f"it has {', '.join(map(str, table.columns)) or 'none'}."
        )
    if table.empty:
        raise InputError(f"The {name} table has no rows; there is nothing to draw.")
    by = list(key)
    if by and (repeated := table.duplicated(by)).any():
        row = ", ".join(str(value) for value in table.loc[repeated, by].iloc[0])
        raise InputError(f"The {name} table has more than one row for {row}; average or select them first.")


def write_tables(
    tables: Mapping[str, pd.DataFrame], folder: str | PathLike[str], float_format: str | None = None
) -> list[Path]:
    """Write tables as CSV files, each whole or not at all, and return their paths.

    Args:
        tables: Tables by name.
        folder: Folder of the files.
        float_format: Format of the numbers (default: all digits, so that they come back unchanged).
    """
    paths = [Path(folder) / f"{name}.csv" for name in tables]
    for path, table in zip(paths, tables.values(), strict=True):
        write_named_table(path, table, float_format)
    return paths


def write_named_table(path: Path, table: pd.DataFrame, float_format: str | None = None) -> None:
    """Write a table as a CSV file, whole or not at all.

    A spreadsheet takes a name that begins with =, +, - or @ for a formula, and runs it. So such a name is written with
    an apostrophe before it, which `read_named_table` takes away.
    """
    with whole_file(path) as temporary:
        _renamed(table, _quoted).to_csv(temporary, index=False, float_format=float_format)


def read_named_table(path: Path, **how: Any) -> pd.DataFrame:
    """Read a table that `write_named_table` wrote, names as they are; ``how`` goes to `pandas.read_csv`."""
    return _renamed(pd.read_csv(path, keep_default_na=False, **how), _unquoted)


_FORMULA = re.compile(r"'*[=+\-@\t\r]")


def _quoted(name: object) -> object:
    return f"'{name}" if isinstance(name, str) and _FORMULA.match(name) else name


def _unquoted(name: object) -> object:
    return name[1:] if isinstance(name, str) and name.startswith("'") and _FORMULA.match(name) else name


def _renamed(table: pd.DataFrame, rename: Callable[[object], object]) -> pd.DataFrame:
    """Return a table with its columns and all its text renamed."""
    renamed = table.copy()
    for name in table:
        if not pd.api.types.is_numeric_dtype(table[name]):
            renamed[name] = table[name].map(rename)
    return renamed.rename(columns=rename)
