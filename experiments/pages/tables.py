"""Committed tables, and kinds of numbers that pages are made of."""

import json
from collections.abc import Iterable
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

RESULTS = Path(__file__).resolve().parents[1] / "results"


class Span(NamedTuple):
    """The least and the largest of several numbers; written ``0.20 to 0.92``."""

    low: float
    high: float


class Interval(NamedTuple):
    """A value with its 95 % interval; written ``0.22 [0.17, 0.26]``."""

    value: float
    low: float
    high: float


@cache
def table(name: str) -> pd.DataFrame:
    """Return a committed table by its path below ``experiments/results``, without ``.csv``."""
    # "None" and "NA" are words of tables; only an empty cell is an unknown number.
    return pd.read_csv(RESULTS / f"{name}.csv", keep_default_na=False, na_values=[""])


@cache
def made_with(folder: str) -> dict[str, Any]:
    """Return the settings that made a folder of results."""
    text = (RESULTS / folder / "provenance.json").read_text(encoding="utf-8")
    return dict(json.loads(text))


def rows(name: str, **equal: object) -> pd.DataFrame:
    """Return the rows of a table whose columns have these values; a list allows each of its values."""
    chosen = table(name)
    for column, value in equal.items():
        values = value if isinstance(value, list) else [value]
        chosen = chosen[chosen[column].isin(values)]
    assert len(chosen) > 0, f"{name}.csv has no row with {equal}"
    return chosen


def only(name: str, **equal: object) -> "pd.Series[Any]":
    """Return the only row with these values."""
    # Two such rows would leave to chance which number a page has.
    ((_, row),) = rows(name, **equal).iterrows()
    return row


def one(name: str, column: str = "value", **equal: object) -> float:
    """Return the number of the only row with these values."""
    return float(only(name, **equal)[column])


def interval(name: str, **equal: object) -> Interval:
    """Return value, low and high of the only row with these values."""
    return Interval(*only(name, **equal)[["value", "low", "high"]])


def span(values: Iterable[Any]) -> Span:
    """Return the least and the largest value."""
    # With an unknown number both are NaN, which no page may have; Python's would depend on its place.
    numbers = np.array(list(values))
    return Span(numbers.min(), numbers.max())


def alike(values: Iterable[float], digits: int = 2) -> float:
    """Return the only number that all values are at this rounding."""
    (value,) = {round(float(value), digits) for value in values}
    return value


def supported(words: str, holds: bool | np.bool) -> str:
    """Return words of a comparison that the tables bear out; fail where they do not."""
    assert holds, f"the tables do not say: {words}"
    return words


def significance(p: float) -> str:
    """Return in words what a p value says at 0.05."""
    return "significant" if p < 0.05 else "not significant"
