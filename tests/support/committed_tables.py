"""Committed tables of results and the text that quotes them, for tests."""

import json
from collections.abc import Callable, Iterable
from functools import cache
from pathlib import Path
from typing import Any

import pandas as pd

ROOT = Path(__file__).resolve().parents[2]
RESULTS = ROOT / "experiments" / "results"
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
"""README and the pages of the documentation."""
RESULT_PAGES = sorted((ROOT / "docs" / "results").glob("*.md"))
DOCS = "".join(
    path.read_text(encoding="utf-8") for path in PAGES if path.name != "study.md"
)


@cache
def made_with(folder: str) -> dict[str, Any]:
    """Return the settings that made a folder of results."""
    return dict(
        json.loads((RESULTS / folder / "provenance.json").read_text(encoding="utf-8"))
    )


@cache
def table(name: str) -> pd.DataFrame:
    return pd.read_csv(RESULTS / f"{name}.csv", keep_default_na=False, na_values=[""])


def rows(name: str, **equal: object) -> pd.DataFrame:
    found = table(name)
    for column, value in equal.items():
        found = found[
            found[column].isin(value)
            if isinstance(value, list)
            else found[column] == value
        ]
    assert len(found) > 0, f"{name}.csv has no row with {equal}"
    return found


def one(name: str, column: str = "value", **equal: object) -> float:
    (value,) = rows(name, **equal)[column]
    return float(value)


def interval(name: str, **equal: object) -> list[float]:
    return [one(name, column, **equal) for column in ("value", "low", "high")]


def span(values: Iterable[float]) -> tuple[float, float]:
    found = list(values)
    return min(found), max(found)


Numbers = Callable[[], Iterable[object]]
"""Where the numbers of a phrase come from."""


def alike(values: Iterable[float], digits: int = 2) -> float:
    """Return the one number that all values are at this rounding."""
    (value,) = {round(float(value), digits) + 0.0 for value in values}
    return value


def significance(low: float, high: float) -> str:
    """Return in words whether an interval of a difference leaves out zero."""
    return "significant" if low * high > 0 else "not significant"


def overlap(*intervals: Iterable[float]) -> str:
    """Return in words whether all intervals (low, high) have a value in common."""
    lows, highs = zip(*intervals, strict=True)
    return "overlap" if max(lows) <= min(highs) else "do not overlap"


def comparison(values: Iterable[float], others: Iterable[float]) -> str:
    """Return in words how all values lie to the others that belong to them."""
    pairs = list(zip(values, others, strict=True))
    if all(a > b for a, b in pairs):
        return "above"
    return "below" if all(a < b for a, b in pairs) else "neither above nor below"


def listed(names: Iterable[str]) -> str:
    *first, last = names or ["none"]
    return f"{', '.join(first)} and {last}" if first else last
