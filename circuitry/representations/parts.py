"""A measure on parts of images: the values that its ceiling and its uncertainty are computed from. No torch.

The images of every (class, domain) are cut by item (`data.parts`). Two cells are compared by different parts alone, so
on different items and on equally many images: a class in two domains, in one domain (its ceiling), and, as a sample,
with other classes.
"""

import zlib
from collections.abc import Callable, Sequence
from itertools import combinations, combinations_with_replacement, permutations
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from jaxtyping import Float, Int

from circuitry.comparison.parts import PARTS, WHOLE
from circuitry.data.domains import ImageRecord
from circuitry.data.parts import DEFAULT_PARTS, ItemKey, part_numbers

OTHERS = 3
"""Other classes that each class is compared with."""

Cell = tuple[str, str, int]
"""Class, domain and part."""
_Rows = Int[np.ndarray, " pairs"]


def cut_images(
    images: pd.DataFrame, n_parts: int = DEFAULT_PARTS, key: ItemKey | None = None
) -> dict[Cell, Int[np.ndarray, " rows"]]:
    """Return the rows of every class, domain and part that has images, `WHOLE` included, in sorted order.

    Args:
        images: Columns relative (path below the root), domain, class.
        n_parts, key: See `part_numbers`.
    """
    groups: dict[Any, Any] = images.groupby(["class", "domain"]).indices
    paths, cells = images["relative"].tolist(), dict[Cell, np.ndarray]()
    records = {
        (name, domain): [ImageRecord(Path(paths[row]), paths[row], domain, name) for row in rows]
        for (name, domain), rows in groups.items()
    }
    for (name, domain), numbers in part_numbers(records, n_parts, key).items():
        cells[name, domain, WHOLE] = groups[name, domain]
        for part in range(n_parts):
            cells[name, domain, part] = groups[name, domain][numbers == part]
    return {cell: rows for cell, rows in sorted(cells.items()) if len(rows)}


def images_compared(images: pd.DataFrame, n_parts: int) -> dict[str, float]:
    """Return how many images a value and one of its parts are of, in the mean over classes and domains."""
    n = float(images.groupby(["class", "domain"]).size().mean())
    return {"n": round(n, 1), "n_per_part": round(n / n_parts, 1)}


def compare_parts(
    cells: Sequence[Cell],
    compare: Callable[[_Rows, _Rows], Float[np.ndarray, " pairs"]],
    *,
    site: str | None = None,
    n_others: int = OTHERS,
    seed: int = 0,
) -> pd.DataFrame:
    """Compare cells of different parts: each class in every two domains and in each one, and with some other classes.

    Args:
        cells: What there is.
        compare: Takes positions of the first and of the second cells of many pairs, returns their values; symmetric.
        site: Site of the values.
        n_others: Other classes that each class is compared with, at random by ``seed``.
        seed: Seed of that choice, which depends on the classes alone.

    Returns:
        The columns `PARTS`. Of a class in one domain each two parts once, and each part with `WHOLE` (``part_b``) where
        that is a cell; else both orders of two parts.
    """
    place = {cell: i for i, cell in enumerate(cells)}
    classes = sorted({name for name, _, _ in cells})
    domains = sorted({domain for _, domain, _ in cells})
    parts = sorted({part for _, _, part in cells} - {WHOLE})
    rows = []
    for name in classes:
        for other in (name, *_others(name, classes, n_others, seed)):
            for a, b in combinations_with_replacement(domains, 2):
                own = [*combinations(parts, 2), *((part, WHOLE) for part in parts)]
                for p, q in own if name == other and a == b else permutations(parts, 2):
                    if (name, a, p) in place and (other, b, q) in place:
                        rows.append((name, other, a, b, p, q, site, place[name, a, p], place[other, b, q]))
    table = pd.DataFrame(rows, columns=[*PARTS[:-1], "i", "j"])
    values = compare(table["i"].to_numpy(dtype=np.int64), table["j"].to_numpy(dtype=np.int64))
    return table[list(PARTS[:-1])].assign(value=values)


def _others(name: str, classes: Sequence[str], n: int, seed: int) -> list[str]:
    others = [other for other in classes if other != name]
    rng = np.random.default_rng([seed, zlib.crc32(name.encode())])
    return [others[i] for i in sorted(rng.permutation(len(others))[:n])]
