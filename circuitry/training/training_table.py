"""The table of training images, checked before anything slow starts, in memory that does not grow with it. No torch.

A table is tab-separated with a header: ``filepath`` and ``title`` for CLIP, ``filepath`` for a classifier. It is
read in chunks with the parser of open_clip's trainer (pandas), so what is checked is what will be trained on.
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
"""Lines that are held at a time."""


@dataclass(frozen=True, eq=False)
class CheckedTable:
    """A table that can be trained on."""

    path: Path
    present: Bool[np.ndarray, " lines"]
    """Which lines name a file that exists."""

    @property
    def n_images(self) -> int:
        """Return how many images will be trained on."""
        return int(self.present.sum())

    @property
    def n_missing(self) -> int:
        """Return how many lines are left out because their file does not exist."""
        return len(self.present) - self.n_images

    def chunks(self) -> Iterator[pd.DataFrame]:
        """Yield the lines whose files exist, some at a time."""
        start = 0
        for chunk in read_chunks(self.path, ("filepath",)):
            yield chunk[self.present[start : start + len(chunk)]]
            start += len(chunk)

    def without_missing(self, target: Path) -> Path:
        """Return a table of the files that exist: this one, or where some are missing a copy written to ``target``."""
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
        path: Tab-separated file with a header.
        columns: What it must have, with a value in every line; the first is that of the files.
        batch_size: Images per step; fewer cannot be trained on.
        skip_missing: Whether the lines of files that do not exist are left out.

    Raises:
        InputError: For no such table, and one that is not readable, lacks a column or values, names files that do not
            exist (without ``skip_missing``), or has fewer images than a batch.
    """
    check_file(path, "a training table", "write_mixture makes one")
    present: list[np.ndarray] = []
    files, blank = FileCheck("skip"), {name: Tally() for name in columns[1:]}
    for lines in read_chunks(path, columns):
        paths = lines[columns[0]].fillna("")
        present.append(np.array([files.keeps(file) for file in paths], dtype=bool))
        for name, without in blank.items():
            for file in paths[lines[name].isna()]:
                without.add(file)
    checked = CheckedTable(path, np.concatenate([np.zeros(0, dtype=bool), *present]))
    if checked.n_missing and not skip_missing:
        raise InputError(
            f"The table {path} names {checked.n_missing} files that do not exist, such as {files.missing}; complete "
            "the download, or train without them (skip_missing)."
        )
    for name, without in blank.items():
        if without.count:
            raise InputError(
                f"The table {path} has {without.count} images without a {name}, such as {without}; give them one, or "
                "remove their lines."
            )
    if checked.n_images < batch_size:
        raise InputError(
            f"The table {path} has {checked.n_images} images, fewer than one batch of {batch_size}; lower batch_size "
            "or add images."
        )
    return checked


def read_chunks(path: Path, columns: Sequence[str]) -> Iterator[pd.DataFrame]:
    """Yield the lines of a table as text, some at a time; InputError where it is unreadable or lacks a column."""
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
