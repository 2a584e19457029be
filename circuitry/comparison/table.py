"""Tidy tables of similarities between domains, and what they must hold."""

from collections.abc import Iterable

import numpy as np
import pandas as pd

from circuitry.runs.errors import InputError


def domain_matrix(table: pd.DataFrame, ceilings: pd.DataFrame | None = None) -> pd.DataFrame:
    """Return the symmetric domain-by-domain mean of a `compare` table over classes and sites.

    Args:
        table: From `compare`.
        ceilings: Columns class, domain, site, value: their means go onto the diagonal, which is NaN otherwise. They
            are no measure for cells that compare more images than a ceiling does; see `Comparison.ratios`.
    """
    means = both_directions(table).groupby(["domain", "other"])["value"].mean().unstack()
    domains = sorted({*means.index, *(() if ceilings is None else ceilings["domain"])})
    matrix = means.reindex(index=domains, columns=domains).to_numpy(dtype=float, copy=True)
    if ceilings is not None:
        np.fill_diagonal(matrix, ceilings.groupby("domain")["value"].mean().reindex(domains).to_numpy(dtype=float))
    return pd.DataFrame(matrix, index=domains, columns=domains)


def both_directions(table: pd.DataFrame) -> pd.DataFrame:
    """Return a `compare` table with every pair in both orders: columns class, domain, other, site, value.

    A table that has these columns already is returned as it is.
    """
    if "other" in table:
        return table
    forth = table.rename(columns={"domain_a": "domain", "domain_b": "other"})
    back = table.rename(columns={"domain_b": "domain", "domain_a": "other"})
    return pd.concat([forth, back], ignore_index=True)[["class", "domain", "other", "site", "value"]]


def check_table(table: pd.DataFrame, name: str, columns: Iterable[str], key: Iterable[str]) -> None:
    """Refuse a table that lacks a column, has no rows, or holds two rows for one key (with columns in ``key``).

    Raises:
        InputError: with the name of the table and what is wrong with it.
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
