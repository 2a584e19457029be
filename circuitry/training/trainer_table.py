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
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple, TextIO

import numpy as np
import pandas as pd

from circuitry.data.file_check import FileCheck, MissingFiles, Tally, check_file
from circuitry.runs.errors import InputError
from circuitry.runs.files import whole_file

NoCaption = Literal["refuse", "skip"]
"""Images without a caption that the trainer reads as text are an error, or are left out and counted."""

BATCH = 10_000
"""Lines that are written at a time."""
_CHUNK = 100_000
"""Lines that are read at a time."""


class CaptionedImage(NamedTuple):
    """One image of a training set."""

    path: str
    """Absolute path."""
    relative: str
    """Path below the root of its data set, with forward slashes; the digest uses it."""
    domain: str
    """Visual domain, or the name of the base set."""
    class_name: str
    """Empty if images have no class."""
    caption: str


def write_table(
    images: Iterable[CaptionedImage],
    path: str | os.PathLike[str],
    *,
    missing_files: MissingFiles = "refuse",
    no_caption: NoCaption = "refuse",
) -> dict[str, Any]:
    """Write the table of `write_captioned_table` atomically; return its digest and its numbers of images.

    The digest of relative paths and captions does not depend on the folder of the images.
    """
    target = Path(path)
    files, untitled = FileCheck(missing_files), Tally()
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
            raise InputError(f"A table needs images, but there are none for {target}: give some.")
        _refuse_duplicates(temporary, hashes)
    by_domain: dict[str, dict[str, int]] = {}
    for (domain, class_name), n in counts.items():
        by_domain.setdefault(domain, {})[class_name] = n
    left_out = {"missing_files": files.missing.count, "no_caption": untitled.count}
    return {"digest": digest.hexdigest()[:16], "images": len(hashes), "left_out": left_out, "counts": by_domain}


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
    return text if text.isascii() else text.encode("utf-8", "replace").decode("utf-8")  # lone surrogates


# Pandas reads these, in any case, as missing or truth values; such captions have no content anyway.
_NOT_TEXT = frozenset(
    {
        *("#n/a", "#n/a n/a", "#na", "-1.#ind", "-1.#qnan", "-nan", "1.#ind", "1.#qnan", "<na>", "n/a", "na", "nan"),
        *("none", "null", "true", "false"),
    }
)
_NUMBER = re.compile(r"[-+]?(\.?\d[\d.e+-]*|inf(inity)?)", re.IGNORECASE)
_LONGEST_WORD = max(map(len, _NOT_TEXT))


def is_text(caption: str) -> bool:
    """Return whether pandas reads a clean caption as text in any column: it is no number and no missing value."""
    if " " in caption and caption[0] != "#":  # numbers have no spaces
        return True
    return not ((len(caption) <= _LONGEST_WORD and caption.lower() in _NOT_TEXT) or _NUMBER.fullmatch(caption))


def quoted(field: str) -> str:
    """Return the field as csv writes it: with quotes in it doubled, and in quotes itself."""
    return '"' + field.replace('"', '""') + '"' if '"' in field else field


def _check_path(path: str) -> None:
    if any(mark in path for mark in "\t\n\r\0"):
        raise InputError(f"A path must have no tabs or line breaks, but {path!r} has: rename the file.")
    try:
        path.encode()
    except UnicodeEncodeError:
        raise InputError(f"A path must be UTF-8, but {path!r} is not: rename the file.") from None


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


def caption_rows(path: str | os.PathLike[str]) -> Iterator[tuple[str, str]]:
    """Read (path, caption) of every line of a tab-separated table, in constant memory; skip empty lines.

    The header names the columns filepath and title in any order, with others. Quotes around a field are csv's, other
    quotes are characters. In tables of two columns, path and caption, further tabs belong to the caption.
    """
    table = Path(path)
    check_file(table, "a table of captions", "it has the columns filepath and title")
    try:
        with open(table, encoding="utf-8-sig", newline="\n") as file:
            yield from _rows(table, file)
    except UnicodeDecodeError as error:
        raise InputError(f"{table} is not UTF-8 text ({error.reason}): save it as UTF-8.") from None


def _rows(table: Path, file: TextIO) -> Iterator[tuple[str, str]]:
    first = file.readline().rstrip("\r\n")
    names = [unquoted(name) for name in first.split("\t")]
    if not {"filepath", "title"} <= set(names):
        raise InputError(
            f"The first line of {table} must be the header filepath<TAB>title, but it is {first[:200]!r}: correct it."
        )
    path_at, caption_at, columns = names.index("filepath"), names.index("title"), len(names)
    simple = (columns, path_at, caption_at) == (2, 0, 1)
    for number, line in enumerate(file, start=2):
        line = line.rstrip("\r\n")
        if simple and '"' not in line and "\t" in line:  # nearly all of millions of lines
            path, _, caption = line.partition("\t")
            yield path, caption
        elif line.strip():
            fields = line.split("\t", 1 if simple else -1)
            if len(fields) != columns:
                raise InputError(
                    f"{table}, line {number}: expected {columns} columns with tabs between them, given {len(fields)}: "
                    f"{line[:200]!r}; correct the line."
                )
            yield unquoted(fields[path_at]), unquoted(fields[caption_at])


def unquoted(field: str) -> str:
    """Return the field without csv's quotes; other quotes stay."""
    if len(field) >= 2 and field[0] == field[-1] == '"':
        inner = field[1:-1].replace('""', "\0")
        if '"' not in inner:
            return inner.replace("\0", '"')
    return field


def check_training_table(path: Path, columns: Sequence[str], batch_size: int) -> int:
    """Check a table of images from end to end, and return their number.

    Args:
        columns: Needed columns, with a value in every line; the first one names the files.
    """
    check_file(path, "a training table", "write_captioned_table makes one")
    n_images, files, blank = 0, FileCheck("skip"), {name: Tally() for name in columns[1:]}
    for lines in read_chunks(path, columns):
        paths = lines[columns[0]].fillna("")
        n_images += sum([files.keeps(file) for file in paths])
        for name, without in blank.items():
            for file in paths[lines[name].isna()]:
                without.add(file)
    if files.missing.count:
        raise InputError(
            f"The table {path} names {files.missing.count} files that do not exist, such as {files.missing}: complete "
            "the download, or remove their lines."
        )
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
    """Yield the lines of a table as text, in chunks; InputError if it is unreadable or lacks a column."""
    expected = f"the header {'<TAB>'.join(columns)} and a line for each image"
    try:
        with pd.read_csv(path, sep="\t", dtype=str, chunksize=_CHUNK) as reader:
            for i, lines in enumerate(reader):
                if i == 0 and not set(columns) <= set(lines.columns):
                    header = "<TAB>".join(map(str, lines.columns))
                    raise InputError(f"The table {path} must have {expected}; its first line is {header!r}.")
                yield lines
    except (pd.errors.EmptyDataError, pd.errors.ParserError, UnicodeDecodeError) as error:
        raise InputError(f"Cannot read the table {path} ({str(error).strip()}); expected {expected}.") from error
