"""The table of training images, checked in constant memory before anything slow starts. No torch.

A table is tab-separated with a header: ``filepath`` and ``title`` for CLIP, ``filepath`` for a classifier. Pandas reads
it in chunks, as in open_clip's trainer, so the check sees the lines that training sees.
"""

from collections.abc import Iterator, Sequence
from pathlib import Path

import pandas as pd

from circuitry.data.file_check import FileCheck, Tally, check_file
from circuitry.runs.errors import InputError

_CHUNK = 100_000
"""Lines in memory at a time."""


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
