"""Captions of images, which are read from tables or drawn at random for each image. Does not import torch."""

import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import TextIO

from circuitry.data.captions import PATTERNS, caption, image_rng
from circuitry.data.domains import ImageRecord
from circuitry.data.file_check import check_file
from circuitry.runs.arguments import Seed, checked
from circuitry.runs.errors import InputError
from circuitry.training.trainer_table import CaptionedImage

Captions = Mapping[str, str] | Callable[[ImageRecord], str]
"""Captions of images: a mapping from paths relative to the root to captions, or a function of an image record."""


@checked
def read_captions(place: str | os.PathLike[str]) -> dict[str, str]:
    """Read captions; return a mapping from paths relative to the root to captions.

    Args:
        place: A table of captions, or a folder with the table ``captions.tsv``.

    Example:
        >>> captions = circuitry.training.read_captions("DomainNet")
        >>> captions[folder.records[0].relative]
        '...car...'
    """
    path = Path(place)
    return dict(caption_rows(path if path.is_file() else path / "captions.tsv"))


def caption_words(place: str | os.PathLike[str]) -> tuple[str, ...]:
    """Return the sorted words of a table of captions.

    A model that was trained only on these captions can know no other words. Articles are left out. The words of the
    templates, into which style words and class names were inserted to make captions, are left out, too.

    Args:
        place: A table of captions, or a folder with the table ``captions.tsv``.

    Example:
        >>> words = circuitry.training.caption_words("DomainNet")
        >>> "clock" in words, "depicting" in words
        (True, False)
    """
    words = _words_of(read_captions(place).values())
    return tuple(sorted(words - _words_of(PATTERNS) - {"", "a", "an"}))


def _words_of(sentences: Iterable[str]) -> set[str]:
    return {word.strip(".,") for word in " ".join(sentences).split()}


def generated_captions(
    seed: Seed = 0, *, aligned: bool = False
) -> Callable[[ImageRecord], str]:
    """Return a function that draws a random caption for an image: a sentence with a style word and the class.

    Args:
        seed: Seed of the captions.
        aligned: If True, style words are drawn from the words that all domains share. If False, they are drawn from the
            words of the image's own domain.

    Example:
        >>> captions = circuitry.training.generated_captions(seed=1)
        >>> captions(folder.records[0])
        '...car...'
    """
    return lambda record: caption(
        record.class_name,
        record.domain,
        image_rng(record.relative, seed),
        aligned=aligned,
    )


def with_captions(
    records: Iterable[ImageRecord], captions: Captions
) -> Iterator[CaptionedImage]:
    """Yield images with their captions. An image that a mapping of captions lacks gets an empty caption.

    Example:
        >>> image = next(circuitry.training.with_captions(folder.records, lambda record: f"a {record.class_name}"))
        >>> image.caption
        'a car'
    """
    for record in records:
        text = (
            captions(record)
            if callable(captions)
            else captions.get(record.relative, "")
        )
        path = str(record.path.absolute())
        yield CaptionedImage(
            path, record.relative, record.domain, record.class_name, text
        )


def caption_rows(path: str | os.PathLike[str]) -> Iterator[tuple[str, str]]:
    """Yield (path, caption) for each line of a tab-separated table, in constant memory. Empty lines are skipped.

    The header must name the columns filepath and title, in any order. The table may have other columns, too. Quotes
    around a whole field are removed as in csv files; any other quotes are part of the text. If filepath and title are
    the only columns, in this order, further tabs of a line are part of the caption.

    Raises:
        InputError: if the table is missing, is not UTF-8, or has a header or a line that does not fit.

    Example:
        >>> path, caption = next(circuitry.training.caption_rows("DomainNet/captions.tsv"))
    """
    table = Path(path)
    check_file(table, "a table of captions", "it has the columns filepath and title")
    try:
        with open(table, encoding="utf-8-sig", newline="\n") as file:
            yield from _rows(table, file)
    except UnicodeDecodeError as error:
        raise InputError(
            f"{table} is not UTF-8 text ({error.reason}): save it as UTF-8."
        ) from None


def _rows(table: Path, file: TextIO) -> Iterator[tuple[str, str]]:
    first = file.readline().rstrip("\r\n")
    names = [unquoted(name) for name in first.split("\t")]
    if not {"filepath", "title"} <= set(names):
        raise InputError(
            f"The first line of {table} must be the header filepath<TAB>title, but it is {first[:200]!r}: correct it."
        )
    path_at = names.index("filepath")
    caption_at = names.index("title")
    columns = len(names)
    simple = (columns, path_at, caption_at) == (2, 0, 1)
    for number, line in enumerate(file, start=2):
        line = line.rstrip("\r\n")
        # Nearly all of millions of lines take this faster way.
        if simple and '"' not in line and "\t" in line:
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
    """Return a field without the quotes that csv files put around it. Any other quotes are kept."""
    if len(field) >= 2 and field[0] == field[-1] == '"':
        inner = field[1:-1].replace('""', "\0")
        if '"' not in inner:
            return inner.replace("\0", '"')
    return field
