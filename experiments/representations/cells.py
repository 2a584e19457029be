"""A measure on all images and on folds of them: values, and similarities behind ceilings and intervals. No torch."""

import zlib
from collections.abc import Callable, Mapping, Sequence
from itertools import combinations, combinations_with_replacement, groupby, permutations
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
    found: dict[Any, Any] = images.groupby(["class", "domain"]).indices
    return dict(sorted(found.items()))


def cut_images(images: pd.DataFrame, n_folds: int = DEFAULT_FOLDS) -> dict[Cell, _Rows]:
    """Return the rows of every class, domain and fold that has images, `WHOLE` included, in sorted order."""
    groups = rows_of_cells(images)
    paths = images["relative"].tolist()
    cells = dict[Cell, np.ndarray]()
    records = {
        (name, domain): [
            ImageRecord(Path(paths[row]), paths[row], domain, name) for row in rows
        ]
        for (name, domain), rows in groups.items()
    }
    for (name, domain), numbers in fold_numbers(records, n_folds).items():
        cells[name, domain, WHOLE] = groups[name, domain]
        for fold in range(n_folds):
            cells[name, domain, fold] = groups[name, domain][numbers == fold]
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
        describe: From the rows of a cell's images to an array of fixed shape.
        compare: From the arrays of the first and of the second cells of many pairs to their values; symmetric.
        about, more: Further fields of the `Comparison`.
    """
    cells = cut_images(images, n_folds)
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
    place = {cell[:2]: i for i, cell in enumerate(cells) if cell[2] == WHOLE}
    pairs = [
        pair
        for _, of_class in groupby(place, lambda cell: cell[0])
        for pair in combinations(of_class, 2)
    ]
    i, j = (
        np.array([place[pair[side]] for pair in pairs], dtype=np.int64)
        for side in (0, 1)
    )
    values = compare(i, j).tolist() if pairs else []
    rows = [
        (x[0], x[1], y[1], None, value)
        for (x, y), value in zip(pairs, values, strict=True)
    ]
    return pd.DataFrame(rows, columns=list(VALUES))


def compare_folds(
    cells: Sequence[Cell],
    compare: Callable[[_Rows, _Rows], Float[np.ndarray, " pairs"]],
    *,
    site: str | None = None,
) -> pd.DataFrame:
    """Compare cells of different folds: each class in every two domains and in each one, and with some other classes.

    ``compare`` goes from positions of the first and of the second cells of many pairs to their values; it is symmetric.

    Returns:
        The columns `FOLDS`. A class in one domain has each two folds once, and each fold with `WHOLE` (``fold_b``)
        where that is a cell; else there are both orders of two folds. Which other classes there are depends on the
        classes alone.
    """
    place = {cell: i for i, cell in enumerate(cells)}
    classes = sorted({name for name, _, _ in cells})
    domains = sorted({domain for _, domain, _ in cells})
    folds = sorted({fold for _, _, fold in cells} - {WHOLE})
    rows = []
    for name in classes:
        for other in (name, *_others(name, classes)):
            for a, b in combinations_with_replacement(domains, 2):
                own = [*combinations(folds, 2), *((fold, WHOLE) for fold in folds)]
                for p, q in own if name == other and a == b else permutations(folds, 2):
                    if (name, a, p) in place and (other, b, q) in place:
                        rows.append(
                            (
                                name,
                                other,
                                a,
                                b,
                                p,
                                q,
                                site,
                                place[name, a, p],
                                place[other, b, q],
                            )
                        )
    table = pd.DataFrame(rows, columns=[*FOLDS[:-1], "i", "j"])
    values = compare(
        table["i"].to_numpy(dtype=np.int64), table["j"].to_numpy(dtype=np.int64)
    )
    return table[list(FOLDS[:-1])].assign(value=values)


def _others(name: str, classes: Sequence[str]) -> list[str]:
    others = [other for other in classes if other != name]
    rng = np.random.default_rng([0, zlib.crc32(name.encode())])
    return [others[i] for i in sorted(rng.permutation(len(others))[:_OTHERS])]
