"""Where images come from: lists, folders, tables. No torch.

Lists ``root/<domain>_<split>.txt`` are used when any exists (`image_lists`), else all image files in the folders
``root/<domain>/<class>/<file>``, else in ``root/<class>/<file>``: one domain, named by the root. Other sources are such
a folder for each domain, a table with a row per image, and torchvision's ``ImageFolder``.
"""

import os
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple, Protocol, runtime_checkable

import pandas as pd

from circuitry.data.file_check import check_file
from circuitry.data.image_lists import ListedImage, images_of_lists, listed_splits
from circuitry.runs.errors import InputError

IMAGE_SUFFIXES = frozenset({".bmp", ".gif", ".jfif", ".jpeg", ".jpg", ".pgm", ".png", ".ppm", ".tif", ".tiff", ".webp"})
"""Suffixes (lower case) of the files taken for images when a folder is searched."""
TABLE_SUFFIXES = {".csv": ",", ".tsv": "\t"}
"""Suffixes of tables of images, and the separators of their columns."""
TABLE_COLUMNS = ("path", "class", "domain")
"""Columns that a table of images has; ``item`` may be added."""


@runtime_checkable
class ListedImages(Protocol):
    """An ``ImageFolder`` of torchvision: files with the number of their class, and the names of classes."""

    samples: Sequence[tuple[str, int]]
    classes: Sequence[str]


Source = str | os.PathLike[str] | Mapping[str, str | os.PathLike[str]] | pd.DataFrame | ListedImages
"""A source of images; see `DomainFolder`."""


class ImageList(NamedTuple):
    """Which images a source names."""

    root: Path
    by_domain: Mapping[str, Sequence[ListedImage]]
    classes: tuple[str, ...]
    """In the order of their labels."""
    listed: bool = False
    """Whether a list names the files, so that they may be missing."""
    files: Mapping[str, str] = {}
    """Path of each image that does not lie in ``root/domain/class/file``, by that name."""


def read_source(source: Source, split: str | None) -> ImageList:
    """Return the images of a source; ``split`` chooses among lists. `InputError` if it cannot be read or is empty."""
    if isinstance(source, Mapping):
        return _from_several(source)
    if isinstance(source, pd.DataFrame):
        return _from_table(source, Path.cwd(), "the table of images")
    if not isinstance(source, str | os.PathLike):
        return _from_samples(source)
    root = Path(source).resolve()
    if root.suffix.lower() in TABLE_SUFFIXES and not root.is_dir():
        check_file(root, "a table of images", "check the path")
        separator = TABLE_SUFFIXES[root.suffix.lower()]
        try:
            table = pd.read_csv(root, sep=separator, dtype=str, keep_default_na=False)
        except (UnicodeDecodeError, pd.errors.ParserError, pd.errors.EmptyDataError) as error:
            raise InputError(f"Expected a table of images in {root}, but it cannot be read: {error}.") from None
        return _from_table(table, root.parent, str(root))
    if not root.is_dir():
        why = "is a file" if root.exists() else "does not exist"
        raise InputError(f"Expected a folder of domains, or a table of images (.csv, .tsv), but {root} {why}.")
    splits = () if split is None else listed_splits(root)
    if not splits:
        return _from_folders(root)
    if split in splits:
        by_domain, classes = images_of_lists(root, split, splits)
        return ImageList(root, by_domain, classes, listed=True)
    raise InputError(
        f"There is no list <domain>_{split}.txt in {root}; there are lists for the splits "
        f"{', '.join(splits)} (split=None takes all files of the folders)."
    )


# --- folders ------------------------------------------------------------------------------------------------


def _from_folders(root: Path) -> ImageList:
    strange: list[str] = []
    by_domain = {folder.name: _images_of_domain(folder, folder.name, strange) for folder in _subfolders(root, strange)}
    by_domain = {domain: images for domain, images in by_domain.items() if images}
    found = ImageList(root, by_domain, _classes_of(by_domain)) if by_domain else _one_domain(root, root.name, strange)
    warn_of_names(strange, root)
    if not found.by_domain:
        raise InputError(
            f"Found no images in {root}; expected files {root}/<domain>/<class>/<file>, or {root}/<class>/<file> of "
            "one domain."
        )
    return found


def _from_several(folders: Mapping[str, str | os.PathLike[str]]) -> ImageList:
    strange: list[str] = []
    roots = {domain: Path(folder).resolve() for domain, folder in folders.items()}
    if not roots:
        raise InputError("Expected a folder of images for each domain, but there is no domain: add one.")
    found = {}
    for domain, root in roots.items():
        if not root.is_dir():
            raise InputError(f"Expected a folder of the images of {domain}, but {root} is none: check the path.")
        found[domain] = _one_domain(root, domain, strange)
        if not found[domain].by_domain:
            raise InputError(f"Found no images of {domain} in {root}; expected files {root}/<class>/<file>.")
    by_domain = {domain: one.by_domain[domain] for domain, one in found.items()}
    files = {relative: path for one in found.values() for relative, path in one.files.items()}
    warn_of_names(strange, next(iter(roots.values())))
    root = Path(os.path.commonpath(list(roots.values())))
    return ImageList(root, by_domain, _classes_of(by_domain), files=files)


def _one_domain(root: Path, domain: str, strange: list[str]) -> ImageList:
    images = _images_of_domain(root, domain, strange)
    files = {image.relative: str(root / image.relative.removeprefix(f"{domain}/")) for image in images}
    by_domain = {domain: images} if images else {}
    return ImageList(root, by_domain, _classes_of(by_domain), files=files)


def _images_of_domain(folder: Path, domain: str, strange: list[str]) -> list[ListedImage]:
    return [
        ListedImage(f"{domain}/{sub.name}/{name}", sub.name)
        for sub in _subfolders(folder, strange)
        for name in image_names(sub, strange)
    ]


def _classes_of(by_domain: Mapping[str, Sequence[ListedImage]]) -> tuple[str, ...]:
    return tuple(sorted({image.class_name for images in by_domain.values() for image in images}))


# --- tables -------------------------------------------------------------------------------------------------


def _from_table(table: pd.DataFrame, root: Path, name: str) -> ImageList:
    absent = [column for column in TABLE_COLUMNS if column not in table]
    if absent:
        raise InputError(
            f"A table of images has the columns {', '.join(TABLE_COLUMNS)} and perhaps item, but {name} has "
            f"{', '.join(map(str, table.columns))}: add {absent[0]}."
        )
    by_domain: dict[str, list[ListedImage]] = {}
    files: dict[str, str] = {}
    columns = [*TABLE_COLUMNS, *(["item"] if "item" in table else [])]
    for number, (path, class_name, domain, *item) in enumerate(table[columns].itertuples(index=False), start=1):
        cells = (path, class_name, domain, *item)
        if not all(isinstance(cell, str | Path) and str(cell).strip() for cell in cells):
            raise InputError(f"Row {number} of {name} has an empty cell, or one that is no text: {cells}; fill it in.")
        if any(mark in part for mark in "/\\\0" for part in (class_name, domain)):
            raise InputError(
                f"Row {number} of {name}: expected names of a class and a domain without slashes, given {cells}."
            )
        relative = f"{domain}/{class_name}/{_flat(str(path), domain, class_name)}"
        if relative in files:
            raise InputError(f"{name} names {path} of {class_name} in {domain} twice: keep one row.")
        files[relative] = str(path)
        by_domain.setdefault(domain, []).append(ListedImage(relative, class_name, *item))
    if not by_domain:
        raise InputError(f"{name} names no images: add a row for each.")
    return ImageList(root, by_domain, _classes_of(by_domain), listed=True, files=files)


def _flat(path: str, domain: str, class_name: str) -> str:
    """Return a path as the name of a file, without leading folders that its domain and class name."""
    parts = [part for part in path.replace("\\", "/").split("/") if part not in ("", ".", "..")]
    for known in (domain, class_name):
        parts = parts[1:] if len(parts) > 1 and parts[0] == known else parts
    return "_".join(parts)


def _from_samples(images: ListedImages) -> ImageList:
    root = Path(getattr(images, "root", ".")).resolve()
    rows = [(os.path.relpath(path, root), images.classes[label], root.name) for path, label in images.samples]
    found = _from_table(pd.DataFrame(rows, columns=list(TABLE_COLUMNS)), root, "the ImageFolder")
    return found._replace(classes=tuple(images.classes))


# --- names --------------------------------------------------------------------------------------------------


def _subfolders(folder: Path, strange: list[str]) -> list[Path]:
    return [folder / name for name in _in_utf8([entry.name for entry in os.scandir(folder) if entry.is_dir()], strange)]


def image_names(folder: Path, strange: list[str]) -> list[str]:
    """Return the names of the image files in a folder, sorted; names that are not UTF-8 go to ``strange``."""
    names = [entry.name for entry in os.scandir(folder) if entry.is_file()]
    return _in_utf8([name for name in names if Path(name).suffix.lower() in IMAGE_SUFFIXES], strange)


def warn_of_names(strange: Sequence[str], root: Path) -> None:
    """Warn about files or folders below ``root`` that are skipped because their names are not UTF-8."""
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
