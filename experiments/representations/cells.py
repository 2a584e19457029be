"""Apply a measure to all images of a class in a domain, and to folds of these images. Does not import torch.

The images of a class in a domain are a *cell*; so are the images of one fold of them. Similarities of cells of folds
are the input of ceilings and intervals.
"""

import zlib
from collections.abc import Callable, Mapping, Sequence
from itertools import (
    combinations,
    combinations_with_replacement,
    permutations,
    product,
)
from pathlib import Path
from typing import Any

from circuitry.comparison.comparison import Comparison
from circuitry.comparison.fold_array import FOLDS, WHOLE
from circuitry.comparison.table import VALUES, class_groups
from circuitry.data import DEFAULT_FOLDS, ImageRecord, fold_numbers

import numpy as np
import pandas as pd
from jaxtyping import Float, Int

ALL = "all"
"""All classes together, or all domains together, in the place of a name."""

_OTHERS = 3
"""Other classes that each class is compared with."""

Cell = tuple[str, str, int]
"""Class, domain and fold."""
_Rows = Int[np.ndarray, " rows"]


def rows_of_cells(images: pd.DataFrame) -> dict[tuple[str, str], _Rows]:
    """Return the rows of every (class, domain) that has images, in their order, sorted by class and domain."""
    rows: dict[Any, Any] = images.groupby(["class", "domain"]).indices
    return dict(sorted(rows.items()))


def cut_images(images: pd.DataFrame, n_folds: int = DEFAULT_FOLDS) -> dict[Cell, _Rows]:
    """Return the rows of every class, domain and fold that has images, in sorted order.

    All images of a class in a domain are a further cell, whose fold is `WHOLE`.
    """
    groups = rows_of_cells(images)
    paths = images["relative"].to_numpy()
    records = dict[tuple[str, str], list[ImageRecord]]()
    for (name, domain), rows in groups.items():
        # Folds depend on the names of files alone, so the records need no root and no file is opened.
        records[name, domain] = [
            ImageRecord(Path(path), path, domain, name) for path in paths[rows]
        ]
    cells = dict[Cell, np.ndarray]()
    for (name, domain), numbers in fold_numbers(records, n_folds).items():
        rows = groups[name, domain]
        cells[name, domain, WHOLE] = rows
        for fold in range(n_folds):
            cells[name, domain, fold] = rows[numbers == fold]
    # A class with fewer images than folds leaves some folds empty.
    return {cell: rows for cell, rows in sorted(cells.items()) if len(rows)}


def compare_by_folds(
    measure: str,
    images: pd.DataFrame,
    n_folds: int,
    describe: Callable[[_Rows], np.ndarray],
    compare: Callable[[np.ndarray, np.ndarray], Float[np.ndarray, " pairs"]],
    *,
    about: Mapping[str, Any],
    groups: Mapping[str, Sequence[str]] | None = None,
    **more: Any,
) -> Comparison:
    """Compare each class between all pairs of domains, on all images and on folds of them.

    Args:
        describe: Takes the rows of a cell's images. Returns an array, whose shape is the same for all cells.
        compare: Takes the arrays of the first cells and of the second cells of many pairs. Returns the value of each
            pair, which must not depend on the order of its two cells.
        groups: Further groups of classes; see `class_groups`.
        about, more: Further fields of the `Comparison`.
    """
    cells = cut_images(images, n_folds)
    # [cells, ...]: each cell is described once, although it is in many pairs.
    described = np.stack([describe(rows) for rows in cells.values()])
    names = list(cells)

    def of_pairs(i: _Rows, j: _Rows) -> Float[np.ndarray, " pairs"]:
        return compare(described[i], described[j])

    n = float(images.groupby(["class", "domain"]).size().mean())
    counts = {
        "n_images": len(images),
        "n_folds": n_folds,
        "n": round(n, 1),
        "n_per_fold": round(n / n_folds, 1),
    }
    return Comparison(
        measure,
        _compare_wholes(names, of_pairs),
        compare_folds(names, of_pairs),
        groups=class_groups(images["class"], groups),
        about={**about, **counts},
        **more,
    )


def _compare_wholes(
    cells: Sequence[Cell],
    compare: Callable[[_Rows, _Rows], Float[np.ndarray, " pairs"]],
) -> pd.DataFrame:
    """Compare all images of each class in every two domains: columns `VALUES`, without sites."""
    table = pd.DataFrame(list(cells), columns=["class", "domain", "fold"])
    # The index of the table is the position in `cells`.
    wholes = table[table["fold"] == WHOLE].reset_index(names="place")
    pairs = wholes.merge(wholes, on="class", suffixes=("_a", "_b"))
    # A merge has each pair in both orders, and each cell with itself.
    pairs = pairs[pairs["place_a"] < pairs["place_b"]].reset_index(drop=True)
    if pairs.empty:
        # Without a pair (one domain) the measure is not asked for values of nothing.
        return pd.DataFrame(columns=list(VALUES))
    values = compare(pairs["place_a"].to_numpy(), pairs["place_b"].to_numpy())
    # As Python's numbers, so that values are in double precision for every measure.
    return pairs.assign(site=None, value=values.tolist())[list(VALUES)]


def compare_folds(
    cells: Sequence[Cell],
    compare: Callable[[_Rows, _Rows], Float[np.ndarray, " pairs"]],
    *,
    site: str | None = None,
) -> pd.DataFrame:
    """Compare cells of different folds.

    Each class is compared with itself, in every two domains and within each domain, and with a few other classes. The
    choice of these other classes depends on the names of the classes alone.

    Args:
        compare: Takes the positions in ``cells`` of the first cells and of the second cells of many pairs. Returns the
            value of each pair, which must not depend on the order of its two cells.

    Returns:
        The columns `FOLDS`. Within one class and one domain, every two folds are compared once, and each fold is
        compared with `WHOLE` (``fold_b``) if that is a cell. Otherwise every two folds are compared in both orders.
    """
    place = {cell: i for i, cell in enumerate(cells)}
    labels = pd.DataFrame(list(cells), columns=["class", "domain", "fold"])
    classes = sorted(set(labels["class"]))
    domains = sorted(set(labels["domain"]))
    folds = sorted(set(labels["fold"]) - {WHOLE})
    # Within one cell the two orders of folds have the same value; between cells fold 0 of the first with fold 1 of the
    # second is another pair of images than fold 1 with fold 0.
    within = [*combinations(folds, 2), *product(folds, [WHOLE])]
    between = list(permutations(folds, 2))
    rows = []
    for name in classes:
        for other in (name, *_others(name, classes)):
            for a, b in combinations_with_replacement(domains, 2):
                is_within = name == other and a == b
                for p, q in within if is_within else between:
                    first = place.get((name, a, p))
                    second = place.get((other, b, q))
                    # A class without images in a domain, or in a fold, has no cell.
                    if first is not None and second is not None:
                        rows.append((name, other, a, b, p, q, site, first, second))
    table = pd.DataFrame(rows, columns=[*FOLDS[:-1], "i", "j"])
    # Without rows pandas knows no type, but positions must be integers.
    positions = table[["i", "j"]].to_numpy(dtype=np.int64)
    values = compare(positions[:, 0], positions[:, 1])
    return table[list(FOLDS[:-1])].assign(value=values)


def _others(name: str, classes: Sequence[str]) -> list[str]:
    """Return the other classes that a class is compared with, sorted."""
    others = [other for other in classes if other != name]
    # Seeded by the name (Python's own hash differs between processes), so that neither folds nor images change it.
    rng = np.random.default_rng([0, zlib.crc32(name.encode())])
    chosen = rng.permutation(len(others))[:_OTHERS]
    return sorted(np.array(others)[chosen].tolist())
