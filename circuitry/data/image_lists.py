"""Read lists of images ``root/<domain>_<split>.txt``, as in DomainNet. Does not import torch.

Each line of a list is ``domain/class/file label``.
"""

import logging
import os
import sys
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from circuitry.data.file_check import read_text
from circuitry.runs.errors import InputError
from circuitry.runs.progress import say_once

log = logging.getLogger(__name__)


class ListedImage(NamedTuple):
    """An image that a list, table or folder names.

    Example:
        >>> circuitry.data.ListedImage("real/cup/1.png", "cup").class_name
        'cup'
    """

    relative: str
    """Path below the root: ``domain/class/file``."""
    class_name: str
    """The class that the image shows."""
    item: str | None = None
    """The item that the image shows, if a table states it."""


_UPWARDS = frozenset({".", ".."})


def listed_splits(root: Path) -> tuple[str, ...]:
    """Return the names of the splits that have lists ``<domain>_<split>.txt``.

    The names of domains and splits may both contain underscores. Therefore the name of a file is divided after the name
    of a domain. Known domains are the folders in ``root``, and the domain in the first line of the list.
    """
    folders = {entry.name for entry in os.scandir(root) if entry.is_dir()}
    splits = set()
    for path in root.glob("*_*.txt"):
        named = [*folders, _first_domain(path)]
        domains = [name for name in named if name and path.stem.startswith(f"{name}_")]
        if domains:
            splits.add(path.stem.removeprefix(f"{max(domains, key=len)}_"))
    return tuple(sorted(splits))


def _first_domain(path: Path) -> str:
    if not path.is_file():
        return ""
    with open(path, encoding="utf-8", errors="replace") as file:
        domain, slash, _ = file.readline().partition("/")
    return domain if slash else ""


def _lists(root: Path, split: str) -> dict[str, Path]:
    by_domain = {}
    for path in root.glob(f"*_{split}.txt"):
        by_domain[path.stem.removesuffix(f"_{split}")] = path
    return dict(sorted(by_domain.items()))


def images_of_lists(
    root: Path, split: str, splits: Sequence[str]
) -> tuple[dict[str, list[ListedImage]], tuple[str, ...]]:
    """Read the lists of a split.

    Args:
        root: Folder of the lists.
        split: The split whose lists are read.
        splits: All splits that have lists. If the labels of this split have gaps, the lists of other splits are read
            for the names of the missing classes.

    Returns:
        The images by domain, and the names of the classes in the order of their labels.

    Raises:
        InputError: for lists that are malformed, contradict each other, or name no images.
    """
    names: dict[int, str] = {}
    labels: dict[str, int] = {}
    by_domain: dict[str, list[ListedImage]] = {}
    for domain, path in _lists(root, split).items():
        by_domain[domain] = []
        for relative, class_name, label in _read_list(path, domain):
            if labels.setdefault(class_name, label) != label:
                raise InputError(
                    f"{path} gives class {class_name!r} the label {label}, elsewhere it has {labels[class_name]}; "
                    f"a class must have one label."
                )
            if names.setdefault(label, class_name) != class_name:
                raise InputError(
                    f"{path} gives label {label} to class {class_name!r}, elsewhere it is {names[label]!r}; "
                    f"a label must mean one class."
                )
            by_domain[domain].append(ListedImage(relative, class_name))
        if len(set(by_domain[domain])) < len(by_domain[domain]):
            twice = Counter(by_domain[domain]).most_common(1)[0][0].relative
            raise InputError(f"{path} names {twice} more than once: keep one line.")
    if not names:
        raise InputError(f"The lists <domain>_{split}.txt in {root} name no images.")
    # A class without an image in this split must not shift the labels of the classes after it.
    if len(names) <= max(names):
        for other in splits:
            if other != split:
                _fill_gaps(names, _lists(root, other))
    if sorted(names) != list(range(len(names))):
        first = ", ".join(map(str, sorted(names)[:8]))
        say_once(
            log,
            f"Labels in {root} are {first}, not 0 to {len(names) - 1}: that of a class is its place among them.",
        )
    return by_domain, tuple(names[label] for label in sorted(names))


def _fill_gaps(names: dict[int, str], lists: Mapping[str, Path]) -> None:
    known = set(names.values())
    last = max(names)
    for domain, path in lists.items():
        for _, class_name, label in _read_list(path, domain):
            if label < last and label not in names and class_name not in known:
                names[label] = class_name
                known.add(class_name)


def _read_list(path: Path, domain: str) -> list[tuple[str, str, int]]:
    """Return (path below the root, class, label) of every line. The label is the last word; a path may hold spaces."""
    entries = []
    for number, line in enumerate(read_text(path).splitlines(), start=1):
        if not line.strip():
            continue
        relative, _, label = line.rstrip().rpartition(" ")
        parts = relative.split("/")
        if (
            len(parts) < 3
            or parts[0] != domain
            or not all(parts)
            or not label.isdecimal()
        ):
            raise InputError(
                f"{path}, line {number}: expected '{domain}/<class>/<file> <label>', given {line!r}."
            )
        if "\\" in relative or "\0" in relative or not _UPWARDS.isdisjoint(parts):
            raise InputError(
                f"{path}, line {number}: expected a file in the folder {domain}, named with forward slashes and "
                f"without '.' and '..', given {line!r}."
            )
        # Interning keeps one string for each class instead of one string for each image.
        entries.append((relative, sys.intern(parts[1]), int(label)))
    return entries
