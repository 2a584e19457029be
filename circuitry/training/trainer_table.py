"""The trainer's table of images and captions, ``filepath<TAB>title``, as a stream. No torch.

An image takes 8 bytes of memory, to find duplicates; 12 million lines take less than a gigabyte.

open_clip's trainer reads the table by ``pandas.read_csv(path, sep="\\t")``, which guesses types: "NA" becomes a missing
value and then the caption "nan", "007" may become 7. So a caption is written only if pandas reads the same text, see
`is_text`.
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
"""Images without a caption that the trainer reads as text are an error, or are left out and counted."""

BATCH = 10_000
"""Lines that are written at a time."""
_FORMAT = "circuitry table 2"
_CHUNK = 100_000
"""Lines that are read at a time."""


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
    """Path below the root of its data set, with forward slashes; the digest uses it."""
    domain: str
    """Visual domain, or the name of the base set."""
    class_name: str
    """Empty if images have no class."""
    caption: str  #: What the model reads beside the image.


def write_captioned_table(
    images: Iterable[CaptionedImage],
    path: str | os.PathLike[str],
    *,
    about: Mapping[str, Any] | None = None,
    missing_files: MissingFiles = "refuse",
    no_caption: NoCaption = "refuse",
) -> Path:
    """Write the table of open_clip's trainer, ``filepath<TAB>title``, and a ``.json`` that describes it.

    The JSON has ``about``, the numbers of images per domain and class and of images left out, package versions, and a
    digest of relative paths and captions, which is the same on every machine.

    Args:
        images: Images with captions, from `with_captions`, or any stream; white space becomes single spaces.
        missing_files, no_caption: Whether images without a file, or without a caption that the trainer reads as text,
            are refused or left out and counted.

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
    """Return the path of the JSON beside a table."""
    if not table.name:
        raise InputError(
            f"Expected the path of a table, but {str(table)!r} was given: add the name of its file."
        )
    return table.with_suffix(".json")


@checked
def read_description(table: str | os.PathLike[str]) -> dict[str, Any]:
    """Read the JSON beside a table; InputError if it is missing, damaged, or describes no table.

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
    """Yield pieces of the table and of the digested text, in one loop, since it runs millions of times."""
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
    """Return the caption on one line with single spaces, in characters of UTF-8."""
    if "\0" in caption:  # ends a string in pandas' reader
        caption = caption.replace("\0", " ")
    text = " ".join(caption.split())
    if text.isascii():
        return text
    return text.encode("utf-8", "replace").decode("utf-8")  # lone surrogates


# Pandas reads these, in any case, as missing or truth values; such captions have no content anyway.
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
    """Return whether pandas reads a clean caption as text in any column: it is no number and no missing value."""
    if " " in caption and caption[0] != "#":  # numbers have no spaces
        return True
    return not (
        (len(caption) <= _LONGEST_WORD and caption.lower() in _NOT_TEXT)
        or _NUMBER.fullmatch(caption)
    )


def quoted(field: str) -> str:
    """Return the field as csv writes it: with quotes in it doubled, and in quotes itself."""
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
    """Check a table of images from end to end, and return their number.

    Args:
        columns: Needed columns, with a value in every line; the first one names the files.

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
    """Yield the lines of a table as text, in chunks; InputError if it is unreadable or lacks a column.

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
