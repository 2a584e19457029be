"""How the pages read tables of a scoreboard: circuits by method, size and baseline."""

from typing import NamedTuple

from experiments.pages.tables import Span, rows, span

import pandas as pd

WORKS = "size to work, kept"


class Spread(NamedTuple):
    """Sizes of circuits: of the median class, and the span over classes."""

    median: float
    classes: Span


class Pair(NamedTuple):
    """How the size that a method needs differs from the size that another method needs."""

    points: int
    """Points of percent that the method needs more in the median class."""
    less: int
    """Number of classes in which it needs less."""
    equal: int
    """Number of classes in which both need the same."""
    more: int
    """Number of classes in which it needs more."""
    p: float
    """Wilcoxon's p over classes."""


def at(
    folder: str, method: str, size: float, baseline: str = "mean"
) -> dict[str, "pd.Series[float]"]:
    """Return the measures of circuits of a size, by name; each has a value for kept, random and foreign circuits."""
    name = f"scoreboard/{folder}/curves"
    of_size = rows(name, method=method, size=size, baseline=baseline)
    measures = of_size.groupby("measure")
    return {str(of): group.set_index("circuit")["value"] for of, group in measures}


def curve(
    folder: str, method: str, measure: str, circuit: str, sizes: list[float]
) -> "pd.Series[float]":
    """Return a measure of circuits by size, at the mean baseline."""
    by_size = rows(
        f"scoreboard/{folder}/curves",
        method=method,
        measure=measure,
        circuit=circuit,
        baseline="mean",
        size=sizes,
    )
    return by_size.set_index("size")["value"].sort_index()


def by_class(
    folder: str, method: str, what: str = WORKS, baseline: str = "mean"
) -> "pd.Series[float]":
    """Return a number of each class, such as seconds or a size. A size is 1 where no size of the grid works."""
    name = f"scoreboard/{folder}/by_class"
    numbers = rows(name, what=what, method=method, baseline=baseline)
    return numbers.set_index("class")["value"]


def spread(
    folder: str, method: str, what: str = WORKS, baseline: str = "mean"
) -> Spread:
    """Return the sizes that circuits of a method need."""
    sizes = by_class(folder, method, what, baseline)
    return Spread(sizes.median(), span(sizes))


def seconds(folder: str, method: str) -> float:
    """Return the seconds that a method takes for the median class."""
    return by_class(folder, method, "seconds").median()


def counted(folder: str) -> str:
    """Return in words what sizes are shares of, with its number: ``1104 units at 15 sites``."""
    # A scoreboard counts one kind of thing, so this fails where tables were mixed.
    (words,) = rows(f"scoreboard/{folder}/curves")["counted"].unique()
    return str(words)


def n_counted(folder: str) -> int:
    """Return the number of units, or edges, that sizes are shares of."""
    return int(counted(folder).split()[0])


def grid(folder: str) -> list[float]:
    """Return the sizes that were measured."""
    sizes = rows(f"scoreboard/{folder}/curves")["size"].dropna()
    return sorted(sizes.unique())


def whole_right(folder: str) -> float:
    """Return the share of right answers of the whole model."""
    name = f"scoreboard/{folder}/curves"
    (right,) = rows(name, measure="right", circuit="full")["value"].unique()
    return float(right)


def pair(folder: str, method: str, than: str, what: str = WORKS) -> Pair:
    """Return how the sizes of a method differ from those of another one."""
    pairs = rows(f"scoreboard/{folder}/paired", what=what, baseline="mean")
    names = pairs[["a", "b"]].apply(lambda column: column.str.split().str[0])
    # A table has each pair once, in one of the two orders.
    ((_, row),) = pairs[names.apply(set, axis=1) == {method, than}].iterrows()
    points = round(100 * row["median"])
    if row["a"].split()[0] == method:
        return Pair(points, row["n_less"], row["n_equal"], row["n_more"], row["p"])
    return Pair(-points, row["n_more"], row["n_equal"], row["n_less"], row["p"])
