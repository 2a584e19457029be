"""Committed tables of results and the text that quotes them, for tests."""

from collections.abc import Callable, Iterable
from functools import cache
from pathlib import Path

import pandas as pd

ROOT = Path(__file__).resolve().parents[2]
RESULTS = ROOT / "experiments" / "results"
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
"""README and the pages of the documentation."""
RESULTS_PAGE = (ROOT / "experiments" / "RESULTS.md").read_text(encoding="utf-8")
DOCS = RESULTS_PAGE + "".join(path.read_text(encoding="utf-8") for path in PAGES if path.name != "study.md")


@cache
def table(name: str) -> pd.DataFrame:
    """Return a committed table."""
    return pd.read_csv(RESULTS / f"{name}.csv", keep_default_na=False, na_values=[""])


def rows(name: str, **equal: object) -> pd.DataFrame:
    """Return the rows of a table in which columns have these values."""
    found = table(name)
    for column, value in equal.items():
        found = found[found[column].isin(value) if isinstance(value, list) else found[column] == value]
    assert len(found) > 0, f"{name}.csv has no row with {equal}"
    return found


def one(name: str, column: str = "value", **equal: object) -> float:
    """Return the value of the one such row."""
    (value,) = rows(name, **equal)[column]
    return float(value)


def interval(name: str, **equal: object) -> list[float]:
    """Return value, low and high of the one such row."""
    return [one(name, column, **equal) for column in ("value", "low", "high")]


def span(values: Iterable[float]) -> tuple[float, float]:
    """Return the smallest and the largest."""
    found = list(values)
    return min(found), max(found)


Numbers = Callable[[], Iterable[object]]
"""Where the numbers of a phrase come from."""


def alike(values: Iterable[float], digits: int = 2) -> float:
    """Return the one number that all values are at this rounding."""
    (value,) = {round(float(value), digits) + 0.0 for value in values}
    return value
