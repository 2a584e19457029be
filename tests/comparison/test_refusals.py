"""What the room of comparisons refuses, and the names and values that the sentence holds."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from circuitry import Comparison, InputError
from circuitry.comparison.domain_apart import apart_over_depth, means_without
from circuitry.comparison.fold_array import check_folds
from experiments.over_models import compare_models
from tests.comparison.similarities import similarities
from tests.comparison.test_comparison import comparison, values


def repeated_fold() -> None:
    folds = similarities(2).folds
    check_folds(folds.assign(fold_b=folds["fold_b"].where(folds.index > 0, 0)))


def repeated_row() -> None:
    folds = similarities(2).folds
    check_folds(pd.concat([folds, folds.iloc[:1]]))


def compared(*seeds: int) -> Any:
    return compare_models([similarities(2, seed=seed) for seed in seeds])


by_name: Any = {"node_overlap": comparison()}
models: Any = compare_models
REFUSALS: list[tuple[Callable[[Path], object], str]] = [
    (
        lambda tmp: Comparison("x", values().iloc[:0]),
        "x needs a class in at least two domains",
    ),
    (
        lambda tmp: Comparison("x", values().drop(columns="site")),
        "class, .* values, .*without site",
    ),
    (
        lambda tmp: Comparison("x", pd.concat([values(), values()])),
        "axe, clipart, real, a has several",
    ),
    (
        lambda tmp: replace(comparison(), folds=comparison().folds.assign(value="a")),
        "folds, .*words in value",
    ),
    (lambda tmp: comparison().matrix("seen"), "'seen' .* all, held-out"),
    (lambda tmp: comparison().at("c"), "'c'; the sites are a, b"),
    (lambda tmp: comparison().ratios(), "node_overlap .* folds"),
    (lambda tmp: repeated_fold(), "c000, c000, d0, d0, 0, 0, u compares"),
    (lambda tmp: repeated_row(), "c000, c000, d0, d0, 0, 1, u occurs twice"),
    (lambda tmp: means_without(comparison(), "ink"), "'ink'.*clipart, real, sketch"),
    (lambda tmp: apart_over_depth(comparison(), "ink"), "'ink'.*clipart, real, sketch"),
    (lambda tmp: compared(0), "1 by node_overlap"),
    (lambda tmp: compared(0, 1, 0), "twice among 3"),
    (lambda tmp: models(by_name), "list of comparisons.* dict .*compare_domains"),
    (lambda tmp: models(comparison()), "list of comparisons.* Comparison was given"),
]


@pytest.mark.parametrize(("use", "words"), REFUSALS)
@pytest.mark.usefixtures("unchecked")
def test_refusals(use: Callable[[Path], object], words: str, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=words):
        use(tmp_path)
