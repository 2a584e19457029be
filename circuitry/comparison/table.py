"""Tidy tables of similarities between domains: what they must hold, and how they are written."""

from collections.abc import Iterable, Mapping, Sequence
from os import PathLike
from pathlib import Path

import numpy as np
import pandas as pd

from circuitry.runs.errors import InputError
from circuitry.runs.files import whole_file
from circuitry.runs.given import checked

VALUES = ("class", "domain_a", "domain_b", "site", "value")
"""Columns of a table of values; others may follow."""
CHANCE = ("site", "value")
"""Columns of a table of chance levels."""


@checked
def domain_matrix(table: pd.DataFrame) -> pd.DataFrame:
    """Return the symmetric domain-by-domain mean of a `compare` table over classes and sites; NaN on the diagonal."""
    rows = both_directions(table)
    check_pairs(rows.rename(columns={"domain": "domain_a", "other": "domain_b"}), in_order=True)
    means = rows.groupby(["domain", "other"])["value"].mean().unstack()
    domains = sorted(means.index)
    return pd.DataFrame(means.reindex(columns=domains).to_numpy(dtype=float), index=domains, columns=domains)


@checked
def both_directions(table: pd.DataFrame) -> pd.DataFrame:
    """Return a `compare` table with every pair in both orders: columns class, domain, other, site, value.

    A table that has these columns already is returned unchanged.
    """
    if "other" in table:
        return table
    forth = table.rename(columns={"domain_a": "domain", "domain_b": "other"})
    back = table.rename(columns={"domain_b": "domain", "domain_a": "other"})
    return pd.concat([forth, back], ignore_index=True)[["class", "domain", "other", "site", "value"]]


@checked
def check_pairs(table: pd.DataFrame, *, in_order: bool) -> None:
    """Refuse a table that holds two domains of a class twice at a site; ``in_order``: both orders are two pairs.

    Raises:
        InputError: with the first such row.
    """
    ends = table[["domain_a", "domain_b"]].astype(str)
    pairs = ends if in_order else pd.DataFrame(np.sort(ends.to_numpy(), axis=1), ends.index, ends.columns)
    twice = table[["class", "site"]].join(pairs).duplicated()
    if twice.any():
        row = ", ".join(str(table.loc[twice, column].iloc[0]) for column in VALUES[:-1])
        raise InputError(f"A class, two domains and a site have one value, but {row} has several: remove all but one.")


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


@checked
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
        with whole_file(path) as temporary:
            table.to_csv(temporary, index=False, float_format=float_format)
    return paths
