"""Images sorted by domain and class: ``root/<domain>/<class>/<file>``, DomainNet's layout. No torch.

Two sources say which images there are:

- lists ``root/<domain>_<split>.txt`` with lines ``domain/class/file label``, as DomainNet has them: used when
  any exists. A domain is then a list of the split, and classes are ordered by their label;
- else the folders: every image file in them, classes in sorted order.

The label of a class is its index among all classes of the data set, never among the selected ones.
"""

import os
import sys
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import pandas as pd

from circuitry.data.file_check import FileCheck, MissingFiles, read_text
from circuitry.data.names import chosen_names, drawn_by_name
from circuitry.runs.errors import InputError
from circuitry.runs.given import Count, Names, Seed, checked

IMAGE_SUFFIXES = frozenset({".bmp", ".gif", ".jfif", ".jpeg", ".jpg", ".pgm", ".png", ".ppm", ".tif", ".tiff", ".webp"})
"""Suffixes (lower case) of the files taken for images when a folder is searched."""


@dataclass(frozen=True, slots=True)
class ImageRecord:
    """One image of a data set. Its arguments are not checked, as there are millions of them."""

    HOW_TO_GET: ClassVar = "take them from DomainFolder(path).records"

    path: Path
    """Absolute path of the file."""
    relative: str
    """``domain/class/file`` below the root, with forward slashes on every platform."""
    domain: str
    class_name: str


class DomainFolder:
    """The images below ``root``, sorted by domain and class.

    Args:
        root: Folder with one folder per domain.
        split: Which lists to read, such as "test"; without any lists, or with None, all image files of the
            folders.
        domains: Domains to keep, in this order (default: all).
        classes: Classes to keep (default: all).
        missing_files: What happens when a list names files that do not exist: "refuse", "skip" (`missing` counts
            them) or "unchecked", for lists of images that lie elsewhere.

    Warns:
        UserWarning: For files and folders whose names are not UTF-8, which are left out.

    Raises:
        InputError: For nothing there to read, lists that are missing, malformed, name absent files or files outside
            of their domain's folder, and unknown names.

    Example:
        >>> images = DomainFolder("DomainNet", split="test", domains=("real", "quickdraw"))
        >>> images.select("axe", "quickdraw", n=50, seed=0)[0].relative
        'quickdraw/axe/quickdraw_012_000231.png'
    """

    HOW_TO_GET: ClassVar = "make one with DomainFolder(path)"

    root: Path
    split: str | None
    domains: tuple[str, ...]
    """Selected domains."""
    classes: tuple[str, ...]
    """Selected classes, ordered by label."""
    all_classes: tuple[str, ...]
    """Every class of the data set; a class's position here is its label."""
    records: tuple[ImageRecord, ...]
    """Selected images: domain by domain, in the order of the domain's list (or class by class, by file name)."""
    missing: int
    """Number of images left out because their files do not exist."""

    @checked
    def __init__(
        self,
        root: str | os.PathLike[str],
        split: str | None = "test",
        *,
        domains: Names | None = None,
        classes: Names | None = None,
        missing_files: MissingFiles = "refuse",
    ) -> None:
        self.root = Path(root).resolve()
        self.split = split
        if not self.root.is_dir():
            why = "is a file" if self.root.exists() else "does not exist"
            raise InputError(f"Expected a folder of domains, but {self.root} {why}.")
        splits = () if split is None else listed_splits(self.root)
        if not splits:
            by_domain, self.all_classes = _from_folders(self.root)
        elif split in splits:
            by_domain, self.all_classes = _from_lists(self.root, split, splits)
        else:
            raise InputError(
                f"There is no list <domain>_{split}.txt in {self.root}; there are lists for the splits "
                f"{', '.join(splits)} (split=None takes all files of the folders)."
            )
        self.domains = chosen_names("domain", domains, tuple(by_domain))
        wanted = set(chosen_names("class", classes, self.all_classes))
        self.classes = tuple(name for name in self.all_classes if name in wanted)
        check = FileCheck(missing_files if splits else "unchecked", self.root)  # folders list existing files
        self.records = tuple(
            ImageRecord(self.root / relative, relative, domain, class_name)
            for domain in self.domains
            for relative, class_name in by_domain[domain]
            if class_name in wanted and check.keeps(relative)
        )
        check.refuse(f"The lists in {self.root} name")
        self.missing = check.missing.count
        self._groups: dict[tuple[str, str], list[ImageRecord]] = {}
        for record in self.records:
            self._groups.setdefault((record.domain, record.class_name), []).append(record)

    def __len__(self) -> int:
        return len(self.records)

    def __repr__(self) -> str:
        return (
            f"DomainFolder({str(self.root)!r}, split={self.split!r}: "
            f"{len(self.records)} images, {len(self.domains)} domains, {len(self.classes)} classes)"
        )

    @checked
    def label(self, class_name: str) -> int:
        """Return the index of a class among all classes of the data set, whatever was selected."""
        return self.all_classes.index(chosen_names("class", (class_name,), self.all_classes)[0])

    @checked
    def select(self, class_name: str, domain: str, n: Count | None = None, seed: Seed = 0) -> tuple[ImageRecord, ...]:
        """Draw at most ``n`` images of a class in a domain at random, without replacement.

        Images are ranked by a hash of (seed, path below the root), and the first ``n`` are taken. So a choice
        depends on nothing else (no other class, platform or library version), and ``n=10`` is part of ``n=50``.
        With ``n=None`` all images, in that order. A class without images in the domain gives ``()``.
        """
        chosen_names("class", (class_name,), self.classes)
        chosen_names("domain", (domain,), self.domains)
        return tuple(self.ranked(class_name, domain, seed)[:n])

    @checked
    def ranked(self, class_name: str, domain: str, seed: int) -> Sequence[ImageRecord]:
        """Return all images of a class in a domain in the order in which `select` takes them; names are not checked."""
        group = self._groups.get((domain, class_name), [])
        return sorted(group, key=lambda record: drawn_by_name(seed, record.relative))

    def counts(self) -> pd.DataFrame:
        """Return the number of images per domain (rows) and class (columns)."""
        numbers = {
            name: [len(self._groups.get((domain, name), ())) for domain in self.domains] for name in self.classes
        }
        table = pd.DataFrame(numbers, index=pd.Index(self.domains, name="domain"), dtype="int64")
        return table.rename_axis(columns="class")


# --- lists --------------------------------------------------------------------------------------------------

_Listed = list[tuple[str, str]]  # (path below the root, class name) of each image of a domain
_UPWARDS = frozenset({".", ".."})


def listed_splits(root: Path) -> tuple[str, ...]:
    """Return the splits with lists ``<domain>_<split>.txt``; both names may hold underscores.

    Domains are named by their folder, or by the first line of their list.
    """
    folders = {entry.name for entry in os.scandir(root) if entry.is_dir()}
    found = set()
    for path in root.glob("*_*.txt"):
        domains = [name for name in (*folders, _first_domain(path)) if name and path.stem.startswith(f"{name}_")]
        if domains:
            found.add(path.stem.removeprefix(f"{max(domains, key=len)}_"))
    return tuple(sorted(found))


def _first_domain(path: Path) -> str:
    if not path.is_file():
        return ""
    with open(path, encoding="utf-8", errors="replace") as file:
        domain, slash, _ = file.readline().partition("/")
    return domain if slash else ""


def _lists(root: Path, split: str) -> dict[str, Path]:
    return dict(sorted((path.stem.removesuffix(f"_{split}"), path) for path in root.glob(f"*_{split}.txt")))


def _from_lists(root: Path, split: str, splits: Sequence[str]) -> tuple[dict[str, _Listed], tuple[str, ...]]:
    names: dict[int, str] = {}
    labels: dict[str, int] = {}
    by_domain: dict[str, _Listed] = {}
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
            by_domain[domain].append((relative, class_name))
    if not names:
        raise InputError(f"The lists <domain>_{split}.txt in {root} name no images.")
    if len(names) <= max(names):  # a class without a single image in this split must not shift the labels after it
        for other in splits:
            if other != split:
                _fill_gaps(names, _lists(root, other))
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
    """Return (path below the root, class, label) of every line; paths may hold spaces, the label is the last word."""
    entries = []
    for number, line in enumerate(read_text(path).splitlines(), start=1):
        if not line.strip():
            continue
        relative, _, label = line.rstrip().rpartition(" ")
        parts = relative.split("/")
        if len(parts) < 3 or parts[0] != domain or not all(parts) or not label.isdecimal():
            raise InputError(f"{path}, line {number}: expected '{domain}/<class>/<file> <label>', given {line!r}.")
        if "\\" in relative or "\0" in relative or not _UPWARDS.isdisjoint(parts):
            raise InputError(
                f"{path}, line {number}: expected a file in the folder {domain}, named with forward slashes and "
                f"without '.' and '..', given {line!r}."
            )
        entries.append((relative, sys.intern(parts[1]), int(label)))  # one string per class, not per image
    return entries


# --- folders ------------------------------------------------------------------------------------------------


def _from_folders(root: Path) -> tuple[dict[str, _Listed], tuple[str, ...]]:
    by_domain: dict[str, _Listed] = {}
    classes: set[str] = set()
    strange: list[str] = []
    for domain in _subfolders(root, strange):
        listed = []
        for folder in _subfolders(domain, strange):
            names = image_names(folder, strange)
            if names:
                classes.add(folder.name)
                listed += [(f"{domain.name}/{folder.name}/{name}", folder.name) for name in names]
        if listed:
            by_domain[domain.name] = listed
    warn_of_names(strange, root)
    if not by_domain:
        raise InputError(f"Found no images in {root}; expected files {root}/<domain>/<class>/<file>.")
    return by_domain, tuple(sorted(classes))


def _subfolders(folder: Path, strange: list[str]) -> list[Path]:
    return [folder / name for name in _in_utf8([entry.name for entry in os.scandir(folder) if entry.is_dir()], strange)]


def image_names(folder: Path, strange: list[str]) -> list[str]:
    """Return the names of the image files in a folder, sorted; names that are not UTF-8 go to ``strange``."""
    names = [entry.name for entry in os.scandir(folder) if entry.is_file()]
    return _in_utf8([name for name in names if Path(name).suffix.lower() in IMAGE_SUFFIXES], strange)


def warn_of_names(strange: Sequence[str], root: Path) -> None:
    """Warn about files or folders below ``root`` that are left out because their names are not UTF-8."""
    if strange:
        warnings.warn(
            f"Left out {len(strange)} files or folders whose names are not UTF-8, such as {strange[0]!r} in {root}; "
            "rename them.",
            stacklevel=3,
        )


def _in_utf8(names: Sequence[str], strange: list[str]) -> list[str]:
    """Return the visible names, sorted; names that are not UTF-8, which tables refuse, go to ``strange``."""
    good = []
    for name in sorted(names):
        if name.startswith("."):
            continue
        try:
            name.encode()
        except UnicodeEncodeError:  # bytes of another encoding, which Python keeps as lone surrogates
            strange.append(name)
        else:
            good.append(name)
    return good
