"""Divide images into folds, so that no two folds of a class share an item. Does not import torch.

An *item* is what several images show together, such as the same concept or the same source picture. The images of an
item may be in several domains. All images of an item are in the same fold of their class, in every domain. So fold 0 of
a class in one domain and fold 1 of the class in another domain have no item in common.

The images of each class are divided as follows. The aim is that the folds within a domain have equal sizes.

1. Items are ranked by their number of images, the largest first, because the largest items are the hardest to place.
   Items of equal size are ranked by a hash of their name.
2. Each item in turn is put into the fold with the fewest images in the domains of the item.
3. Then an item is moved to another fold, or two items change places, as long as this makes the sizes more equal.

In three cases the sizes of the folds within a domain differ by at most one: if no item is in two domains, if every item
is in all domains, and if there are at most two domains. In other cases equal sizes may be impossible. For example, if
three domains have the items {1, 2}, {2, 3} and {1, 3}, two folds cannot halve the images of all three domains. Then
items are kept together, and sizes are unequal.
"""

import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Annotated

import numpy as np
from jaxtyping import Int

from circuitry.data.domains import ImageRecord
from circuitry.data.image_sources import read_table
from circuitry.data.names import drawn_by_name
from circuitry.data.shared_options import DEFAULT_FOLDS as DEFAULT_FOLDS
from circuitry.runs.arguments import at_least
from circuitry.runs.errors import InputError

_PATH_COLUMNS = ("path", "filepath")
"""Names that the column with paths below the root may have in a listing."""

Key = tuple[str, str]
"""(class, domain)."""
ItemKey = Callable[[ImageRecord], str] | Mapping[str, str]
"""How to find the item of an image. Either a function that takes the record of the image and returns the name of its
item, or a mapping from the path of the image below the root to this name, such as `item_column` returns."""


def fold_numbers(
    records: Mapping[Key, Sequence[ImageRecord]],
    n_folds: Annotated[int, at_least(2)] = DEFAULT_FOLDS,
    key: ItemKey | None = None,
) -> dict[Key, Int[np.ndarray, " images"]]:
    """Divide the images of every class in every domain into folds of equal size, item by item.

    All images of an item are in the same fold of their class, in every domain. The folds of a class depend only on the
    items of its images. They do not depend on the order of files, on other classes, or on the machine.

    Args:
        records: The images of each class and domain.
        n_folds: Number of folds. If a domain has fewer images or items, some of its folds are empty.
        key: How to find the item of an image (default: the item in its record, else `stem_without_domain`).

    Returns:
        For each class and domain, the index of the fold (0 to ``n_folds`` - 1) of each image, in the order of
        ``records``.

    Example:
        >>> records = {("clock", domain): folder.select("clock", domain, 4) for domain in folder.domains}
        >>> sorted(fold_numbers(records, n_folds=2)["clock", "sketch"].tolist())    # two images in each fold
        [0, 0, 1, 1]
    """
    items = dict[str, dict[str, list[str]]]()
    for (class_name, domain), group in records.items():
        names = [item_of(record, key) for record in group]
        items.setdefault(class_name, {})[domain] = names
    # Each class is divided by itself. An item that is in two classes may be in different folds of these classes.
    fold_of = dict[str, dict[str, int]]()
    for class_name, of_class in items.items():
        fold_of[class_name] = _cut(of_class, n_folds)
    numbers = dict[Key, np.ndarray]()
    for class_name, domain in records:
        names = items[class_name][domain]
        folds = [fold_of[class_name][name] for name in names]
        numbers[class_name, domain] = np.array(folds, dtype=np.int64)
    return numbers


def in_halves(
    records: Sequence[ImageRecord],
) -> tuple[list[ImageRecord], list[ImageRecord]]:
    """Divide images into two halves: half of each class in each domain, and no item of a class in both halves.

    Example:
        >>> from circuitry.data import in_halves
        >>> [len(half) for half in in_halves(folder.select("clock", "sketch", 4))]
        [2, 2]
    """
    cells: dict[Key, list[ImageRecord]] = {}
    for record in records:
        cells.setdefault((record.class_name, record.domain), []).append(record)
    first: list[ImageRecord] = []
    second: list[ImageRecord] = []
    for key, folds in fold_numbers(cells, 2).items():
        for record, fold in zip(cells[key], folds, strict=True):
            (second if fold else first).append(record)
    return first, second


def stem_without_domain(record: ImageRecord) -> str:
    """Return the name of an image's file without suffix and domain: ``000012`` for ``sketch/cup/sketch_000012.png``."""
    stem = Path(record.relative).stem
    return stem.replace(record.domain, "", 1).strip("_- .") or stem


def item_column(path: str | os.PathLike[str], column: str) -> dict[str, str]:
    """Read the item of each image from a listing: a table with a column of paths below the root and a column of items.

    Args:
        path: File of the table. Its values are separated by commas (``.csv``) or by tabs (any other suffix).
        column: Name of the column with the items.

    Returns:
        The item of each image, by its path below the root.

    Raises:
        InputError: if the table lacks a column, or names several items of an image.

    Example:
        >>> listing = pd.DataFrame({"path": ["real/cup/1.png", "sketch/cup/7.png"], "source": ["mug", "mug"]})
        >>> listing.to_csv("pictures.csv", index=False)
        >>> circuitry.data.item_column("pictures.csv", "source")
        {'real/cup/1.png': 'mug', 'sketch/cup/7.png': 'mug'}
    """
    table = read_table(Path(path), "a listing of images")
    paths = next((name for name in _PATH_COLUMNS if name in table), None)
    if paths is None or column not in table:
        raise InputError(
            f"A listing of items has the columns {' or '.join(_PATH_COLUMNS)} and {column}, but {path} has "
            f"{', '.join(map(str, table.columns))}: name the column of the item."
        )
    n_items = table.groupby(paths)[column].transform("nunique")
    twice = table.loc[n_items > 1, paths]
    if len(twice):
        raise InputError(
            f"An image shows one item, but {path} names several of {twice.iloc[0]}: keep one line."
        )
    return dict(zip(table[paths], table[column], strict=True))


def item_of(record: ImageRecord, key: ItemKey | None = None) -> str:
    """Return the name of the item that an image shows.

    Args:
        record: The image.
        key: How to find the item (default: the item in the record, else `stem_without_domain`).

    Raises:
        InputError: if ``key`` is a mapping that has no item for this image.
    """
    if key is None:
        return record.item or stem_without_domain(record)
    if not isinstance(key, Mapping):
        return key(record)
    if not key.get(record.relative):
        raise InputError(
            f"Expected an item for every image, but the listing names none for {record.relative}: add it."
        )
    return key[record.relative]


def _cut(items: Mapping[str, Sequence[str]], n_folds: int) -> dict[str, int]:
    """Return the index of the fold of each item of a class.

    Args:
        items: For each domain, the item of each image of the class.
        n_folds: Number of folds.
    """
    # For each item, the number of its images in each domain.
    counts: dict[str, np.ndarray] = {}
    for row, domain in enumerate(sorted(items)):
        for name in items[domain]:
            counts.setdefault(name, np.zeros(len(items), np.int64))[row] += 1
    # The largest items come first, because they are the hardest to place. Items of equal size are ranked by a hash, so
    # that the order of the files does not matter.
    ranked = sorted(
        counts, key=lambda name: (-counts[name].sum(), drawn_by_name(0, name))
    )
    sizes = np.zeros((len(items), n_folds), np.int64)
    fold_of: dict[str, int] = {}
    for name in ranked:
        # [folds]: the number of images of each fold in the item's domains, weighted by the item's images in these
        # domains. The fold with the smallest number is taken; if numbers are equal, the smallest fold over all domains.
        fullness = counts[name] @ sizes
        fold_of[name] = int(np.lexsort((sizes.sum(0), fullness))[0])
        sizes[:, fold_of[name]] += counts[name]
    while _improved(ranked, counts, fold_of, sizes):
        pass
    return fold_of


def _improved(
    ranked: Sequence[str],
    counts: Mapping[str, np.ndarray],
    fold_of: dict[str, int],
    sizes: np.ndarray,
) -> bool:
    """Move an item to another fold, or exchange two items, if this reduces the sum of the squared sizes of all folds.

    Args:
        ranked: The items, in the order in which they are tried.
        counts: For each item, the number of its images in each domain.
        fold_of: The fold of each item; changed in place.
        sizes: Number of images in each fold [domains, folds]; changed in place.

    Returns:
        Whether an item was moved or two items were exchanged.
    """
    # If no two folds of a domain differ by more than one image, nothing can be gained.
    if (np.ptp(sizes, axis=1) <= 1).all():
        return False
    vectors = np.stack([counts[name] for name in ranked])
    folds = np.array([fold_of[name] for name in ranked])
    squares = int((sizes**2).sum())
    for i in range(len(ranked)):
        # Item i moves to each other fold, either alone or in exchange for an item of that fold.
        for fold in range(sizes.shape[1]):
            others = np.flatnonzero(folds == fold)
            if fold == folds[i]:
                continue
            # Rows of ``moved``: how many images of each domain the fold of item i loses. In the first row item i moves
            # alone; each further row is an exchange with an item of the other fold.
            exchanged = np.vstack([np.zeros_like(vectors[:1]), vectors[others]])
            moved = vectors[i] - exchanged
            rest = np.delete(sizes, [fold, folds[i]], axis=1)
            left = sizes[:, folds[i]] - moved
            come = sizes[:, fold] + moved
            # The total of the sizes is fixed, so the sum of their squares is smallest if the sizes are most equal.
            sums = (left**2).sum(1) + (come**2).sum(1) + int((rest**2).sum())
            best = int(sums.argmin())
            if sums[best] < squares:
                before = int(folds[i])
                sizes[:, before] = left[best]
                sizes[:, fold] = come[best]
                fold_of[ranked[i]] = fold
                if best:
                    fold_of[ranked[others[best - 1]]] = before
                return True
    return False
