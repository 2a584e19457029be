"""Cut the images of every (class, domain) into folds, item by item, so that no two folds share an item. No torch.

Images that show the same thing (the same concept, the same source picture) are one *item*, in all domains. So two folds
of a class's images, of the same or of two domains, have different items and equally many images. For each class:

1. items are ranked: first by their number of images, since the largest are the hardest to place, then by a hash of
   their name;
2. each item in turn goes to the fold with the fewest images in the item's domains;
3. items then move, or change places, as long as that makes sizes within a domain more equal.

Sizes within a domain differ by at most one if no item is in two domains, every item is in all of them, or there are at
most two domains. Otherwise items may make equal sizes impossible ({1, 2}, {2, 3} and {1, 3} cannot all be halved);
then keeping items together has priority over sizes.
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
"""Names of the column of paths below the root in a listing."""

Key = tuple[str, str]
"""(class, domain)."""
ItemKey = Callable[[ImageRecord], str] | Mapping[str, str]
"""The item of an image: a function of its record, or a mapping by path below the root, such as from `item_column`."""


def fold_numbers(
    records: Mapping[Key, Sequence[ImageRecord]],
    n_folds: Annotated[int, at_least(2)] = DEFAULT_FOLDS,
    key: ItemKey | None = None,
) -> dict[Key, Int[np.ndarray, " images"]]:
    """Cut the images of every (class, domain) into folds of equal size; an item is in one fold of its class everywhere.

    The cut of a class depends on the items of its images alone, not on the order of files, on other classes or on the
    machine.

    Args:
        records: The images of each class and domain.
        n_folds: Number of folds; with fewer images or items in a domain some stay empty.
        key: Item of an image (default: that of its table, else `stem_without_domain`).

    Returns:
        The fold (0 to ``n_folds`` - 1) of each image, in the order given.

    Example:
        >>> records = {("clock", domain): folder.select("clock", domain, 4) for domain in folder.domains}
        >>> sorted(fold_numbers(records, n_folds=2)["clock", "sketch"].tolist())    # two images in each fold
        [0, 0, 1, 1]
    """
    items = dict[str, dict[str, list[str]]]()
    for (class_name, domain), group in records.items():
        names = [item_of(record, key) for record in group]
        items.setdefault(class_name, {})[domain] = names
    # Classes are cut one by one: an item of one class may be in another fold of the next.
    fold_of = dict[str, dict[str, int]]()
    for class_name, of_class in items.items():
        fold_of[class_name] = _cut(of_class, n_folds)
    numbers = dict[Key, np.ndarray]()
    for class_name, domain in records:
        names = items[class_name][domain]
        folds = [fold_of[class_name][name] for name in names]
        numbers[class_name, domain] = np.array(folds, dtype=np.int64)
    return numbers


def stem_without_domain(record: ImageRecord) -> str:
    """Return the name of an image's file without suffix and without its domain: ``sketch_000012.png`` is ``000012``."""
    stem = Path(record.relative).stem
    return stem.replace(record.domain, "", 1).strip("_- .") or stem


def item_column(path: str | os.PathLike[str], column: str) -> dict[str, str]:
    """Read the item of each image from a listing, a table with a column of paths below the root.

    Args:
        path: File of values separated by commas (``.csv``) or by tabs.
        column: Name of the column with the item.

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
    """Return the item of an image; InputError if a listing lacks it."""
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
    """Return the fold of each item of a class, given the items of its images by domain."""
    # Images of each item in each domain.
    counts: dict[str, np.ndarray] = {}
    for row, domain in enumerate(sorted(items)):
        for name in items[domain]:
            counts.setdefault(name, np.zeros(len(items), np.int64))[row] += 1
    # The largest items first: they are the hardest to place. Equals by a hash, whatever the order of the files.
    ranked = sorted(
        counts, key=lambda name: (-counts[name].sum(), drawn_by_name(0, name))
    )
    sizes = np.zeros((len(items), n_folds), np.int64)
    fold_of: dict[str, int] = {}
    for name in ranked:
        # Images that each fold has in the item's domains; among equals the fold that is the smallest in all domains.
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
    """Move an item, or let two change places, if the sum of squared sizes falls; return whether any did."""
    # [domains, folds]: no two folds of a domain differ by more than one image, so nothing can be gained.
    if (np.ptp(sizes, axis=1) <= 1).all():
        return False
    vectors = np.stack([counts[name] for name in ranked])
    folds = np.array([fold_of[name] for name in ranked])
    squares = int((sizes**2).sum())
    for i in range(len(ranked)):
        # To another fold alone (the row of zeros), or in exchange for an item of it.
        for fold in range(sizes.shape[1]):
            others = np.flatnonzero(folds == fold)
            if fold == folds[i]:
                continue
            # A row for each exchange: how many images of each domain move from the item's fold to the other one.
            exchanged = np.vstack([np.zeros_like(vectors[:1]), vectors[others]])
            moved = vectors[i] - exchanged
            rest = np.delete(sizes, [fold, folds[i]], axis=1)
            left = sizes[:, folds[i]] - moved
            come = sizes[:, fold] + moved
            # With a fixed total, the sum of squares is the least where sizes are the most equal.
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
