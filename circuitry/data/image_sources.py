"""Find out which images a source names: a folder, a table, or an ``ImageFolder``. Does not import torch.

For a folder ``root`` the first of these that exists is used:

1. lists ``root/<domain>_<split>.txt`` (`image_lists`);
2. all image files ``root/<domain>/<class>/<file>``;
3. all image files ``root/<class>/<file>``, which form a single domain with the name of the root.

A source may also be a mapping from domains to folders with files ``<class>/<file>``, a table with a row for each image,
or torchvision's ``ImageFolder``.
"""

import logging
import os
from collections.abc import Mapping, Sequence
from itertools import chain
from pathlib import Path
from typing import NamedTuple, Protocol, runtime_checkable

import pandas as pd

from circuitry.data.file_check import Tally, check_file
from circuitry.data.image_lists import ListedImage, images_of_lists, listed_splits
from circuitry.runs.errors import InputError
from circuitry.runs.progress import say_once

IMAGE_SUFFIXES = frozenset(
    {
        ".bmp",
        ".gif",
        ".jfif",
        ".jpeg",
        ".jpg",
        ".pgm",
        ".png",
        ".ppm",
        ".tif",
        ".tiff",
        ".webp",
    }
)
"""Suffixes, in lower case, of the files that count as images when a folder is searched."""
HARMLESS_SUFFIXES = frozenset(
    {
        ".csv",
        ".db",
        ".ini",
        ".json",
        ".md",
        ".npy",
        ".npz",
        ".tsv",
        ".txt",
        ".xml",
        ".yaml",
    }
)
"""Suffixes of files that may lie beside images. They are skipped without a warning."""
TABLE_SUFFIXES = (".csv", ".tsv")
"""Suffixes of the files of tables of images."""
TABLE_COLUMNS = ("path", "class", "domain")
"""Columns that a table of images must have. The column ``item`` is optional."""


@runtime_checkable
class ListedImages(Protocol):
    """The two attributes of torchvision's ``ImageFolder`` that are read."""

    samples: Sequence[tuple[str, int]]
    """Path of each file, and the index of its class."""
    classes: Sequence[str]
    """Names of the classes."""


log = logging.getLogger(__name__)


class ImageList(NamedTuple):
    """The images that a source names. A `DomainFolder` of it has these images alone.

    Example:
        >>> first = folder.select("cup", "real")[:1]
        >>> listed = [circuitry.data.ListedImage(record.relative, "cup") for record in first]
        >>> few = circuitry.data.ImageList(folder.root, {"real": listed}, folder.all_classes)
        >>> len(circuitry.DomainFolder(few))
        1
    """

    root: Path
    """Folder of the images."""
    by_domain: Mapping[str, Sequence[ListedImage]]
    """The images of each domain."""
    classes: tuple[str, ...]
    """Names of the classes in the order of their labels."""
    listed: bool = False
    """Whether a list or table names the images. If so, some of the files may not exist."""
    files: Mapping[str, str] = {}
    """Path of the file of each image that does not lie at ``root/domain/class/file``. The keys are the images'
    `ListedImage.relative`."""


Source = (
    str
    | os.PathLike[str]
    | Mapping[str, str | os.PathLike[str]]
    | pd.DataFrame
    | ListedImages
    | ImageList
)
"""A source of images; see `DomainFolder`."""


def read_table(path: Path, what: str) -> pd.DataFrame:
    """Read a table whose values are separated by commas (.csv) or by tabs (any other suffix). All values are text.

    Args:
        path: The file.
        what: What the file should be, for messages.

    Raises:
        InputError: if the file does not exist, or is not such a table.
    """
    check_file(path, what, "check the path")
    try:
        return pd.read_csv(
            path,
            sep="," if path.suffix.lower() == ".csv" else "\t",
            dtype=str,
            keep_default_na=False,
        )
    except (
        UnicodeDecodeError,
        pd.errors.ParserError,
        pd.errors.EmptyDataError,
    ) as error:
        raise InputError(
            f"Expected {what} in {path}, but it cannot be read: {error}."
        ) from None


def read_source(source: Source, split: str | None) -> ImageList:
    """Return the images that a source names.

    Args:
        source: The source; see `DomainFolder`.
        split: Name of the split whose lists ``<domain>_<split>.txt`` are read. If the folder has no lists, or if the
            split is None, all image files of the folder are used.

    Raises:
        InputError: if the source cannot be read, is empty, or has no lists of this split.
    """
    if isinstance(source, ImageList):
        return source
    if isinstance(source, Mapping):
        return _from_several(source)
    if isinstance(source, pd.DataFrame):
        return _from_table(source, Path.cwd(), "the table of images")
    if not isinstance(source, str | os.PathLike):
        return _from_samples(source)
    root = Path(source).resolve()
    if root.suffix.lower() in TABLE_SUFFIXES and not root.is_dir():
        return _from_table(
            read_table(root, "a table of images"), root.parent, str(root)
        )
    if not root.is_dir():
        why = "is a file" if root.exists() else "does not exist"
        raise InputError(
            f"Expected a folder of domains, or a table of images (.csv, .tsv), but {root} {why}."
        )
    splits = () if split is None else listed_splits(root)
    if not splits:
        return _from_folders(root)
    if split not in splits:
        raise InputError(
            f"There is no list <domain>_{split}.txt in {root}; there are lists for the splits "
            f"{', '.join(splits)} (split=None takes all files of the folders)."
        )
    by_domain, classes = images_of_lists(root, split, splits)
    if splits == (split,):
        _tell_of_unlisted(root, split, sum(map(len, by_domain.values())))
    return ImageList(root, by_domain, classes, listed=True)


def _tell_of_unlisted(root: Path, split: str, n_listed: int) -> None:
    """Log a warning if lists name less than half of the images in a folder.

    Args:
        root: The folder, which has lists of a single split.
        split: The split.
        n_listed: Number of images that the lists name.
    """
    suffixes = [path.suffix.lower() for path in root.glob("*/*/*")]
    n_files = sum(suffix in IMAGE_SUFFIXES for suffix in suffixes)
    if 2 * n_listed < n_files:
        say_once(
            log,
            f"The lists of {split!r} name {n_listed} of the {n_files} images in {root}: split=None takes all.",
        )


# --- folders ------------------------------------------------------------------------------------------------


def _from_folders(root: Path) -> ImageList:
    by_domain: dict[str, list[ListedImage]] = {}
    for domain, class_name, name in _images_below(root, 2):
        image = ListedImage(f"{domain}/{class_name}/{name}", class_name)
        by_domain.setdefault(domain, []).append(image)
    if by_domain:
        return ImageList(root, by_domain, _classes_of(by_domain))
    of_one_domain = _from_domains({root.name: root}, root)
    if not of_one_domain.classes:
        raise InputError(
            f"Found no images in {root}; expected files {root}/<domain>/<class>/<file>, or {root}/<class>/<file> of "
            "one domain. Only circuitry find takes images of one class without such folders."
        )
    return of_one_domain


def _from_several(folders: Mapping[str, str | os.PathLike[str]]) -> ImageList:
    roots = {domain: Path(folder).resolve() for domain, folder in folders.items()}
    if not roots:
        raise InputError(
            "Expected a folder of images for each domain, but there is no domain: add one."
        )
    for domain, root in roots.items():
        if not root.is_dir():
            raise InputError(
                f"Expected a folder of the images of {domain}, but {root} is none: check the path."
            )
    images = _from_domains(roots, Path(os.path.commonpath(list(roots.values()))))
    for domain, root in roots.items():
        if not images.by_domain[domain]:
            raise InputError(
                f"Found no images of {domain} in {root}; expected files {root}/<class>/<file>."
            )
    return images


def _from_domains(roots: Mapping[str, Path], root: Path) -> ImageList:
    by_domain: dict[str, list[ListedImage]] = {}
    files = {}
    for domain, folder in roots.items():
        by_domain[domain] = []
        for class_name, name in _images_below(folder, 1):
            relative = f"{domain}/{class_name}/{name}"
            by_domain[domain].append(ListedImage(relative, class_name))
            files[relative] = str(folder / class_name / name)
    return ImageList(root, by_domain, _classes_of(by_domain), files=files)


def _images_below(root: Path, depth: int) -> list[tuple[str, ...]]:
    """Return the images that lie exactly ``depth`` folders below a root, sorted by path.

    Some files are skipped: images in fewer or more folders, unexpected files beside images, and files whose names are
    not UTF-8, because tables cannot hold these names. If images were found, a warning names a few of the skipped files.
    It is logged once in a process.

    Args:
        root: The root.
        depth: Number of folders between the root and an image.

    Returns:
        For each image, the names of the folders below the root, followed by the name of the file.
    """
    images: list[tuple[str, ...]] = []
    left_out = Tally()

    def cannot_be_listed(error: OSError) -> None:
        left_out.add(str(error))

    for at, folders, files in os.walk(root, onerror=cannot_be_listed, followlinks=True):
        inside = Path(at).relative_to(root).parts
        visible = [name for name in (*folders, *files) if not name.startswith(".")]
        strange = {name for name in visible if _in_utf8(name) != name}
        known = set(visible) - strange
        # `os.walk` visits only the folders that stay in this list.
        folders[:] = sorted(known.intersection(folders)) if len(inside) <= depth else []
        for name in sorted(known.intersection(files) | strange):
            suffix = os.path.splitext(name)[1].lower()
            is_image = suffix in IMAGE_SUFFIXES and name not in strange
            if is_image and len(inside) == depth:
                images.append((*inside, name))
            elif (
                is_image
                or name in strange
                or (len(inside) >= depth and suffix not in HARMLESS_SUFFIXES)
            ):
                left_out.add("/".join((*inside, _in_utf8(name))))
    if images and left_out.count:
        say_once(
            log,
            f"Passed over {left_out.count} files or folders in {root}, such as {left_out}: an image lies in "
            "<domain>/<class>, or of one domain in <class>, its name is UTF-8, and its suffix is one of "
            f"{', '.join(sorted(IMAGE_SUFFIXES))}.",
        )
    return images


def _in_utf8(name: str) -> str:
    """Return the name of a file with escapes for bytes that are not UTF-8."""
    return name.encode("utf-8", "backslashreplace").decode()


def _classes_of(by_domain: Mapping[str, Sequence[ListedImage]]) -> tuple[str, ...]:
    every_image = chain.from_iterable(by_domain.values())
    return tuple(sorted({image.class_name for image in every_image}))


# --- tables -------------------------------------------------------------------------------------------------


def _from_table(table: pd.DataFrame, root: Path, name: str) -> ImageList:
    absent = [column for column in TABLE_COLUMNS if column not in table]
    if absent:
        raise InputError(
            f"A table of images has the columns {', '.join(TABLE_COLUMNS)} and perhaps item, but {name} has "
            f"{', '.join(map(str, table.columns))}: add {absent[0]}."
        )
    unread = [str(name) for name in table if name not in (*TABLE_COLUMNS, "item")]
    if unread:
        say_once(
            log,
            f"Columns of {name} that are not read: {', '.join(unread)}. All rows are taken, and the label of a class "
            "is its place among the sorted names of classes.",
        )
    by_domain: dict[str, list[ListedImage]] = {}
    files: dict[str, str] = {}
    columns = list(TABLE_COLUMNS)
    if "item" in table:
        columns.append("item")
    for number, (path, class_name, domain, *item) in enumerate(
        table[columns].itertuples(index=False), start=1
    ):
        cells = (path, class_name, domain, *item)
        if not all(
            isinstance(cell, str | Path) and str(cell).strip() for cell in cells
        ):
            raise InputError(
                f"Row {number} of {name} has an empty cell, or one that is no text: {cells}; fill it in."
            )
        if any(mark in part for mark in "/\\\0" for part in (class_name, domain)):
            raise InputError(
                f"Row {number} of {name}: expected names of a class and a domain without slashes, given {cells}."
            )
        relative = f"{domain}/{class_name}/{_flat(str(path), domain, class_name)}"
        if relative in files:
            raise InputError(
                f"{name} names {path} of {class_name} in {domain} twice: keep one row."
            )
        files[relative] = str(path)
        by_domain.setdefault(domain, []).append(
            ListedImage(relative, class_name, *item)
        )
    if not by_domain:
        raise InputError(f"{name} names no images: add a row for each.")
    return ImageList(root, by_domain, _classes_of(by_domain), listed=True, files=files)


def _flat(path: str, domain: str, class_name: str) -> str:
    """Return a path as a single file name, with ``_`` between its folders.

    If the path begins with the folders ``domain/class``, ``domain`` or ``class``, these are left out.
    """
    parts = [
        part
        for part in path.replace("\\", "/").split("/")
        if part not in ("", ".", "..")
    ]
    for known in (domain, class_name):
        if len(parts) > 1 and parts[0] == known:
            parts = parts[1:]
    return "_".join(parts)


def _from_samples(images: ListedImages) -> ImageList:
    root = Path(getattr(images, "root", ".")).resolve()
    rows = [
        (os.path.relpath(path, root), images.classes[label], root.name)
        for path, label in images.samples
    ]
    table = pd.DataFrame(rows, columns=list(TABLE_COLUMNS))
    listed = _from_table(table, root, "the ImageFolder")
    return listed._replace(classes=tuple(images.classes))
