"""The table of training images, checked in constant memory before anything slow starts. No torch.

A table is tab-separated with a header: ``filepath`` and ``title`` for CLIP, ``filepath`` for a classifier. Pandas reads
it in chunks, as in open_clip's trainer, so the check sees the lines that training sees.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from jaxtyping import Bool

from circuitry.data.file_check import FileCheck, Tally, check_file
from circuitry.runs.errors import InputError
from circuitry.runs.files import whole_file

_CHUNK = 100_000
"""Lines in memory at a time."""


@dataclass(frozen=True, eq=False)
class CheckedTable:
    """A checked table."""

    path: Path
    present: Bool[np.ndarray, " lines"]
    """Whether the file of each line exists."""

    @property
    def n_images(self) -> int:
        """Return the number of images for training."""
        return int(self.present.sum())

    @property
    def n_missing(self) -> int:
        """Return the number of lines whose file does not exist."""
        return len(self.present) - self.n_images

    def chunks(self) -> Iterator[pd.DataFrame]:
        """Yield the lines whose files exist, in chunks."""
        start = 0
        for chunk in read_chunks(self.path, ("filepath",)):
            yield chunk[self.present[start : start + len(chunk)]]
            start += len(chunk)

    def without_missing(self, target: Path) -> Path:
        """Return a table of the files that exist: this one, or a copy at ``target`` if some are missing."""
        if not self.n_missing:
            return self.path
        with whole_file(target) as temporary:
            for i, chunk in enumerate(self.chunks()):
                chunk.to_csv(temporary, sep="\t", index=False, lineterminator="\n", mode="a", header=i == 0)
        return target


def check_training_table(
    path: Path, columns: Sequence[str], batch_size: int, *, skip_missing: bool = False
) -> CheckedTable:
    """Check a table of images from end to end.

    Args:
        columns: Needed columns, with a value in every line; the first one names the files.
        skip_missing: Whether to leave out lines whose file does not exist.
    """
    check_file(path, "a training table", "write_captioned_table makes one")
    present: list[np.ndarray] = []
    files, blank = FileCheck("skip" if skip_missing else "refuse"), {name: Tally() for name in columns[1:]}
    for lines in read_chunks(path, columns):
        paths = lines[columns[0]].fillna("")
        present.append(np.array([files.keeps(file) for file in paths], dtype=bool))
        for name, without in blank.items():
            for file in paths[lines[name].isna()]:
                without.add(file)
    checked = CheckedTable(path, np.concatenate([np.zeros(0, dtype=bool), *present]))
    files.refuse(f"The table {path} names", "skip_missing")
    for name, without in blank.items():
        if without.count:
            raise InputError(
                f"The table {path} has {without.count} images without a {name}, such as {without}: give them one, or "
                "remove their lines."
            )
    if checked.n_images < batch_size:
        raise InputError(
            f"The table {path} has {checked.n_images} images, fewer than one batch of {batch_size}: lower batch_size, "
            "or add images."
        )
    return checked


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
