"""Tidy tables of similarities between domains: their columns, checks, and CSV files."""

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import pandas as pd

from circuitry.runs.arguments import Condition, checked, fitting
from circuitry.runs.errors import InputError, naming_damage, unknown_name
from circuitry.runs.files import whole_file

VALUES = ("class", "domain_a", "domain_b", "site", "value")
"""Columns of a table of values. The table may have further columns."""
BOTH_WAYS = ("class", "domain", "other", "site", "value")
"""Columns of a table that has every pair of domains in both orders."""
NUMBERS = (
    "value",
    "low",
    "high",
    "fold_a",
    "fold_b",
    "n_a",
    "n_b",
    "attributed",
    "exact",
    "rank",
    "rank_alone",
    "rank_centred",
    "taken_for",
    "auc",
    "constant",
    "refit",
    "refit_auc",
    "whole_auc",
    "whole_constant",
    "whole_refit",
    "whole_refit_auc",
)
"""Columns that hold numbers, in every table that has them."""
NAMES = ("class", "domain", "other", "domain_a", "domain_b", "class_a", "class_b")
"""Columns that hold a name in each row."""
CHANCE = ("site", "value")
"""Columns of a table of chance levels."""


def with_columns(*columns: str) -> Condition:
    """Return a condition on a table: it must have the given columns.

    All columns of the table that are in `NUMBERS` must also hold numbers. Given columns that are in `NAMES` must have a
    name in each row.
    """

    def wrong(table: pd.DataFrame) -> str | None:
        missing = [column for column in columns if column not in table]
        if missing:
            return f"one without {', '.join(missing)}"
        named = [column for column in NAMES if column in columns]
        nameless = table[named].isna().any()
        if nameless.any():
            return f"one without a name in {', '.join(nameless.index[nameless])}"
        words = _words_in(table)
        return f"one with words in {words}" if words else None

    listed = ", ".join(columns)
    return Condition(f"a table with the columns {listed}", wrong, "correct it")


def _words_in(table: pd.DataFrame) -> str:
    """Return the names of the columns that should hold numbers (`NUMBERS`) but hold words, joined by commas."""
    if table.empty:
        return ""
    # A column of objects may still hold only numbers, for example in an empty table, or beside None.
    known = table[[name for name in NUMBERS if name in table]].infer_objects()
    return ", ".join(known.select_dtypes(exclude=["number", "bool"]).columns)


ValueTable = Annotated[pd.DataFrame, with_columns(*VALUES)]
"""Table with the values of pairs of domains, by class and site."""


def domain_matrix(table: pd.DataFrame) -> pd.DataFrame:
    """Return the mean over classes and sites for every two domains, as a symmetric matrix with NaN on the diagonal.

    Args:
        table: Table from `compare`, with the columns class, domain_a, domain_b, site, value.

    Example:
        >>> row = {"class": "clock", "domain_a": "real", "domain_b": "sketch", "site": "conv", "value": 0.5}
        >>> domain_matrix(pd.DataFrame([row]))["real"].tolist()
        [nan, 0.5]
    """
    rows = both_directions(table)
    check_pairs(table)
    by_pair = rows.groupby(["domain", "other"])["value"]
    means = by_pair.mean().unstack().astype(float)
    domains = sorted(means.index)
    matrix = means.reindex(index=domains, columns=domains)
    return matrix.rename_axis(index=None, columns=None)


def both_directions(table: pd.DataFrame) -> pd.DataFrame:
    """Return a table with every pair of domains in both orders.

    Args:
        table: Table from `compare`, with the columns class, domain_a, domain_b, site, value.

    Returns:
        Columns class, domain, other, site, value. If the table has these columns already, it is returned unchanged.

    Example:
        >>> row = {"class": "clock", "domain_a": "real", "domain_b": "sketch", "site": "conv", "value": 0.5}
        >>> both_directions(pd.DataFrame([row]))["domain"].tolist()
        ['real', 'sketch']
    """
    if "other" in table:
        fitting(table, Annotated[pd.DataFrame, with_columns(*BOTH_WAYS)], "table")
        return table
    fitting(table, ValueTable, "table")
    forth = table.rename(columns={"domain_a": "domain", "domain_b": "other"})
    back = table.rename(columns={"domain_b": "domain", "domain_a": "other"})
    return pd.concat([forth, back], ignore_index=True)[list(BOTH_WAYS)]


def check_pairs(table: pd.DataFrame) -> None:
    """Raise `InputError` if a table has two rows for the same class, pair of domains and site.

    The pairs (a, b) and (b, a) are the same pair.
    """
    table = table.reset_index(drop=True)
    pairs = table[["domain_a", "domain_b"]].astype(str)
    # In alphabetical order both directions of a pair are equal.
    pairs[:] = np.sort(pairs.to_numpy(), axis=1)
    twice = table[["class", "site"]].join(pairs).duplicated()
    if twice.any():
        key = list(VALUES[:-1])
        first = table.loc[twice, key].iloc[0]
        row = ", ".join(map(str, first))
        raise InputError(
            f"A class, two domains and a site have one value, but {row} has several: remove all but one."
        )


def class_groups(
    classes: Iterable[str],
    groups: Mapping[str, Sequence[str]] | None = None,
) -> dict[str, tuple[str, ...]]:
    """Return a dictionary from the name of a group to the classes in this group.

    The group ``all`` is added, and has all classes, sorted. Members of the given groups that are not in ``classes`` are
    left out. Groups that then have no members are left out, too.
    """
    fitting(list(groups or ()), list[str], "the names of groups")
    known = set(classes)
    members_of = {"all": tuple(sorted(known))}
    for name, members in (groups or {}).items():
        present = tuple(member for member in members if member in known)
        if present:
            members_of[name] = present
    return members_of


def check_table(
    table: pd.DataFrame,
    name: str,
    columns: Iterable[str],
    key: Iterable[str],
) -> None:
    """Raise `InputError` if a table lacks a column, has no rows, or has two rows with the same key.

    A column of `NUMBERS` that holds words is an error, too.

    Args:
        name: Name of the table in messages.
        columns: Columns that the table needs.
        key: Columns that together identify a row.

    Example:
        >>> check_table(pd.DataFrame({"site": ["conv"], "value": [0.5]}), "depth", ("site", "value"), key=("site",))
    """
    by = list(key)
    for column in (*columns, *by):
        if column not in table:
            names = map(str, table.columns)
            raise unknown_name(f"column in the {name} table", column, names)
    if words := _words_in(table):
        raise InputError(
            f"The {name} table has words in the column {words}, where it needs numbers: correct it."
        )
    if table.empty:
        raise InputError(f"The {name} table has no rows; there is nothing to draw.")
    if by and (repeated := table.duplicated(by)).any():
        first = table.loc[repeated, by].iloc[0]
        row = ", ".join(map(str, first))
        raise InputError(
            f"The {name} table has more than one row for {row}; average or select them first."
        )


@checked
def write_named_table(
    path: Path,
    table: pd.DataFrame,
    float_format: str | None = None,
) -> None:
    """Write a table as a CSV file, with all digits unless ``float_format`` is given.

    A spreadsheet would run a name that begins with =, +, -, @, a tab or a carriage return as a formula. So an
    apostrophe is written before such a name. `read_named_table` removes the apostrophe.

    Example:
        >>> write_named_table(Path("table.csv"), pd.DataFrame({"class": ["=clock"], "value": [0.5]}))
        >>> Path("table.csv").read_text().split()
        ['class,value', "'=clock,0.5"]
    """
    quoted = _renamed(table, _quoted)
    with whole_file(path) as temporary:
        quoted.to_csv(temporary, index=False, float_format=float_format)


@checked
def read_named_table(path: Path, **how: Any) -> pd.DataFrame:
    """Read a table that `write_named_table` wrote, with the names as they were.

    An empty cell is an unknown number in the columns of `NUMBERS`, and an empty text in other columns.

    Args:
        how: Further arguments of `pandas.read_csv`. With ``na_values`` other cells are unknown.

    Example:
        >>> write_named_table(Path("table.csv"), pd.DataFrame({"class": ["=clock"], "value": [0.5]}))
        >>> read_named_table(Path("table.csv"))["class"].tolist()
        ['=clock']
    """
    with naming_damage(path):
        unknown = {column: [""] for column in NUMBERS}
        options: dict[str, Any] = {"na_values": unknown, "keep_default_na": False}
        table = pd.read_csv(path, **options | how)
        return _renamed(table, _unquoted)


# The pattern includes apostrophes before the sign. So a name with an apostrophe gets a second one, and reading removes
# only one.
_FORMULA = re.compile(r"'*[=+\-@\t\r]")


def _quoted(name: object) -> object:
    if isinstance(name, str) and _FORMULA.match(name):
        return f"'{name}"
    return name


def _unquoted(name: object) -> object:
    if isinstance(name, str) and _FORMULA.match(name):
        return name.removeprefix("'")
    return name


def _renamed(table: pd.DataFrame, rename: Callable[[object], object]) -> pd.DataFrame:
    """Return a table in which ``rename`` was applied to the names of columns, and to values that are not numbers."""
    renamed = table.copy()
    for name in table:
        if not pd.api.types.is_numeric_dtype(table[name]):
            renamed[name] = table[name].map(rename)
    return renamed.rename(columns=rename)
