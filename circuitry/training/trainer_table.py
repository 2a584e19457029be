"""Write and read the table of images and captions that open_clip's trainer reads, ``filepath<TAB>title``.

Tables are written and read as streams. While a table is written, only a hash of each image's path (8 bytes) stays in
memory, to find duplicates. So writing 12 million lines takes less than a gigabyte.

The trainer reads the table by ``pandas.read_csv(path, sep="\\t")``, which guesses types. It turns "NA" into a missing
value, which then becomes the caption "nan", and it may turn "007" into 7. So a caption is written only if pandas reads
the same text; see `is_text`.

Does not import torch.
"""

import hashlib
import os
import re
from array import array
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
import pandas as pd

from circuitry.data.file_check import FileCheck, MissingFiles, Tally, check_file
from circuitry.runs.arguments import checked
from circuitry.runs.errors import InputError
from circuitry.runs.files import whole_file
from circuitry.runs.manifest import check_format, read_sealed, write_sealed
from circuitry.runs.provenance import versions

NoCaption = Literal["refuse", "skip"]
"""What to do about images whose caption is empty, or is not read as text by the trainer.

``refuse`` raises an error. ``skip`` leaves these images out and counts them.
"""

BATCH = 10_000
"""Number of lines that are written at a time."""
_FORMAT = "circuitry table 2"
_CHUNK = 100_000
"""Number of lines that are read at a time."""


class CaptionedImage(NamedTuple):
    """One image of a training set.

    Example:
        >>> image = circuitry.training.CaptionedImage("/data/real/1.png", "real/1.png", "real", "cat", "a cat.")
        >>> image.caption
        'a cat.'
    """

    path: str
    """Absolute path."""
    relative: str
    """Path relative to the root of the data set, with forward slashes. The digest of a table is computed from it."""
    domain: str
    """Visual domain, or the name of the base set (images from outside the domains that are added to a training)."""
    class_name: str
    """Name of the class; empty if the image has no class."""
    caption: str  #: Text that describes the image.


def write_captioned_table(
    images: Iterable[CaptionedImage],
    path: str | os.PathLike[str],
    *,
    about: Mapping[str, Any] | None = None,
    missing_files: MissingFiles = "refuse",
    no_caption: NoCaption = "refuse",
) -> Path:
    """Write a table for open_clip's trainer, ``filepath<TAB>title``, and a JSON file that describes the table.

    The JSON file has the entries of ``about``; the number of images of each domain and class; the number of images that
    were left out; versions of packages; and a digest of the relative paths and captions. The digest is the same on
    every machine.

    Args:
        images: Images with captions, for example from `with_captions`. White space in captions becomes single spaces.
        path: The table. The JSON file gets the same name with the suffix ``.json``.
        about: Further entries for the JSON file (default: no entries).
        missing_files: Whether images without a file raise an error (``refuse``) or are left out and counted (``skip``).
            With ``unchecked`` files are not looked for.
        no_caption: Whether images without a usable caption raise an error (``refuse``) or are left out and counted
            (``skip``). A caption is usable if it is not empty and the trainer reads it as text; see `is_text`.

    Returns:
        The path of the table.

    Raises:
        InputError: if images are refused, if an image is listed twice, or if there are no images.

    Example:
        >>> from circuitry.training import read_captions, with_captions, write_captioned_table
        >>> photos = circuitry.DomainFolder("DomainNet", domains=("real",))
        >>> table = write_captioned_table(with_captions(photos.records, read_captions("DomainNet")), "runs/train.tsv")
        >>> len(pd.read_csv(table, sep="\\t")) == len(photos)
        True
    """
    target = Path(path)
    files = FileCheck(missing_files)
    untitled = Tally()
    counts: Counter[tuple[str, str]] = Counter()
    hashes = array("q")
    digest = hashlib.sha256()
    with whole_file(target) as temporary:
        with open(temporary, "w", encoding="utf-8", newline="\n") as file:
            file.write("filepath\ttitle\n")
            for lines, digested in _batches(images, files, untitled, counts, hashes):
                file.write(lines)
                digest.update(digested.encode())
        files.refuse(f"The images for {target} include")
        if no_caption == "refuse" and untitled.count:
            total = len(hashes) + files.missing.count + untitled.count
            raise InputError(
                f"{untitled.count} of {total} images have no caption that the trainer reads as text, such as "
                f"{untitled}: add captions, or leave these images out (no_caption='skip', on the command line "
                "--missing-captions skip)."
            )
        if not hashes:
            raise InputError(
                f"A table needs images, but there are none for {target}: give some."
            )
        _refuse_duplicates(temporary, hashes)
    by_domain: dict[str, dict[str, int]] = {}
    for (domain, class_name), n in counts.items():
        by_domain.setdefault(domain, {})[class_name] = n
    left_out = {"missing_files": files.missing.count, "no_caption": untitled.count}
    described = {
        "format": _FORMAT,
        "digest": digest.hexdigest()[:16],
        "images": len(hashes),
        "left_out": left_out,
        "counts": by_domain,
        **(about or {}),
        "versions": versions(),
    }
    write_sealed(description_file(target), described)
    return target


def description_file(table: Path) -> Path:
    """Return the path of the JSON file that describes a table."""
    if not table.name:
        raise InputError(
            f"Expected the path of a table, but {str(table)!r} was given: add the name of its file."
        )
    return table.with_suffix(".json")


@checked
def read_description(table: str | os.PathLike[str]) -> dict[str, Any]:
    """Read the JSON file that describes a table.

    Raises:
        InputError: if the file is missing or damaged, or is not a description of a table.

    Example:
        >>> from circuitry.training import read_captions, with_captions, write_captioned_table
        >>> table = write_captioned_table(with_captions(folder.records, read_captions("DomainNet")), "all.tsv")
        >>> circuitry.training.read_description(table)["images"] == len(folder)
        True
    """
    path = description_file(Path(table))
    described = read_sealed(path, "make the table again, with write_captioned_table")
    check_format(path, described.get("format"), _FORMAT)
    return described


def _batches(
    images: Iterable[CaptionedImage],
    files: FileCheck,
    untitled: Tally,
    counts: Counter[tuple[str, str]],
    hashes: "array[int]",
) -> Iterator[tuple[str, str]]:
    """Yield the text of the table in batches of lines. With each batch, yield its text for the digest of the table.

    The text for the digest has relative paths instead of absolute paths. All steps are in a single loop, because the
    loop runs millions of times and calls would slow it down.

    Args:
        images: Images with captions.
        files: Check of the files, which also counts missing files.
        untitled: Tally that counts the images without a usable caption.
        counts: Counter that gets the number of images of each domain and class.
        hashes: Array that gets a hash of each path.
    """
    lines: list[str] = []
    digested: list[str] = []
    for path, relative, domain, class_name, caption in images:
        if not files.keeps(path):
            continue
        title = clean(caption)
        if not (title and is_text(title)):
            untitled.add(f"{path} ({title!r})" if title else path)
            continue
        if not path.isprintable():
            _check_path(path)
        field = quoted(path)
        hashes.append(hash(field))
        lines.append(f"{field}\t{quoted(title)}\n")
        digested.append(f"{relative}\t{title}\n")
        counts[domain, class_name] += 1
        if len(lines) == BATCH:
            yield "".join(lines), "".join(digested)
            lines.clear()
            digested.clear()
    yield "".join(lines), "".join(digested)


def clean(caption: str) -> str:
    """Return a caption on one line, with single spaces, and without characters that UTF-8 cannot encode."""
    if "\0" in caption:  # pandas' reader ends a string there
        caption = caption.replace("\0", " ")
    text = " ".join(caption.split())
    if text.isascii():
        return text
    return text.encode("utf-8", "replace").decode("utf-8")  # lone surrogates


# pandas reads these words, in capitals or not, as missing values or booleans. As captions they have no content anyway.
_NOT_TEXT = frozenset(
    {
        "#n/a",
        "#n/a n/a",
        "#na",
        "-1.#ind",
        "-1.#qnan",
        "-nan",
        "1.#ind",
        "1.#qnan",
        "<na>",
        "n/a",
        "na",
        "nan",
        "none",
        "null",
        "true",
        "false",
    }
)
_NUMBER = re.compile(r"[-+]?(\.?\d[\d.e+-]*|inf(inity)?)", re.IGNORECASE)
_LONGEST_WORD = max(map(len, _NOT_TEXT))


def is_text(caption: str) -> bool:
    """Return whether pandas reads a caption as text, whatever the other captions of the column are.

    It does if the caption is not a number, a missing value or a boolean. The caption must be from `clean`.
    """
    if " " in caption and caption[0] != "#":  # numbers have no spaces
        return True
    return not (
        (len(caption) <= _LONGEST_WORD and caption.lower() in _NOT_TEXT)
        or _NUMBER.fullmatch(caption)
    )


def quoted(field: str) -> str:
    """Return a field as csv files write it. If it contains quotes, they are doubled, and the field is put in quotes."""
    return '"' + field.replace('"', '""') + '"' if '"' in field else field


def _check_path(path: str) -> None:
    if any(mark in path for mark in "\t\n\r\0"):
        raise InputError(
            f"A path must have no tabs or line breaks, but {path!r} has: rename the file."
        )
    try:
        path.encode()
    except UnicodeEncodeError:
        raise InputError(
            f"A path must be UTF-8, but {path!r} is not: rename the file."
        ) from None


def _refuse_duplicates(table: Path, hashes: "array[int]") -> None:
    sortable = np.frombuffer(hashes, dtype=np.int64)
    sortable.sort()
    suspects = set(sortable[1:][sortable[1:] == sortable[:-1]].tolist())
    if not suspects:
        return
    with open(table, encoding="utf-8", newline="\n") as file:
        fields = (line.partition("\t")[0] for line in file)
        times = Counter(field for field in fields if hash(field) in suspects)
    twice = [field for field, n in times.items() if n > 1]  # two paths may share a hash
    if twice:
        raise InputError(
            f"{len(twice)} images are listed more than once, such as {', '.join(twice[:5])}: list each once, also "
            "those of the base set."
        )


def check_training_table(path: Path, columns: Sequence[str], batch_size: int) -> int:
    """Check a table of images from its first to its last line, and return the number of images.

    Args:
        path: The table.
        columns: Columns that must have a value in every line. The first column has the paths of the image files.
        batch_size: Number of images that the table must have at least.

    Raises:
        InputError: if the table cannot be read, lacks a column, a value, a file or enough images.

    Example:
        >>> from circuitry.training import read_captions, with_captions, write_captioned_table
        >>> table = write_captioned_table(with_captions(folder.records, read_captions("DomainNet")), "checked.tsv")
        >>> circuitry.training.check_training_table(table, ("filepath", "title"), batch_size=8) == len(folder)
        True
    """
    check_file(path, "a training table", "write_captioned_table makes one")
    n_images = 0
    files = FileCheck("refuse")
    blank = {name: Tally() for name in columns[1:]}
    for lines in read_chunks(path, columns):
        paths = lines[columns[0]].fillna("")
        n_images += sum([files.keeps(file) for file in paths])
        for name, without in blank.items():
            for file in paths[lines[name].isna()]:
                without.add(file)
    files.refuse(f"The table {path} names", "remove their lines")
    for name, without in blank.items():
        if without.count:
            raise InputError(
                f"The table {path} has {without.count} images without a {name}, such as {without}: give them one, or "
                "remove their lines."
            )
    if n_images < batch_size:
        raise InputError(
            f"The table {path} has {n_images} images, fewer than one batch of {batch_size}: lower batch_size, or add "
            "images."
        )
    return n_images


def read_chunks(path: Path, columns: Sequence[str]) -> Iterator[pd.DataFrame]:
    """Yield the lines of a table in chunks, as data frames whose values are text.

    Args:
        path: The table.
        columns: Columns that the table must have.

    Raises:
        InputError: if the table cannot be read or lacks a column.

    Example:
        >>> lines = next(circuitry.training.read_chunks(Path("DomainNet/captions.tsv"), ("filepath", "title")))
        >>> list(lines)
        ['filepath', 'title']
    """
    expected = f"the header {'<TAB>'.join(columns)} and a line for each image"
    try:
        with pd.read_csv(path, sep="\t", dtype=str, chunksize=_CHUNK) as reader:
            for i, lines in enumerate(reader):
                if i == 0 and not set(columns) <= set(lines.columns):
                    header = "<TAB>".join(map(str, lines.columns))
                    raise InputError(
                        f"The table {path} must have {expected}; its first line is {header!r}."
                    )
                yield lines
    except (
        pd.errors.EmptyDataError,
        pd.errors.ParserError,
        UnicodeDecodeError,
    ) as error:
        raise InputError(
            f"Cannot read the table {path} ({str(error).strip()}); expected {expected}."
        ) from error
