"""Inner products of rows that do not fit into memory: class means of all features of a site, at every site.

RN50's earliest sites have 802,816 features per image, so 345 class means of one site take 1.1 GB, and all sites 10 GB.

1. Rows come one at a time and are appended to a temporary file per site, as single-precision differences from the
   site's first row, which is kept in double precision: what is common to all rows costs no digits.
2. The Gram matrix is a sum over features, so it is added up over blocks of features that fit a budget, in double
   precision, each feature centred over the rows.

Centring changes neither distances nor unbiased HSIC, and keeps small differences of large numbers out of both.

No torch.
"""

import tempfile
from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import IO

import numpy as np
from jaxtyping import Float

from circuitry.runs.errors import InputError

_BYTES = 4 + 8
"""Per number in a block: as read, and in double precision."""


def gram_matrix(features: Float[np.ndarray, "rows features"]) -> Float[np.ndarray, "rows rows"]:
    """Return the inner products of all pairs of rows, after centring each feature, in double precision.

    Equal rows give exactly equal products.

    Example:
        >>> gram_matrix(np.array([[0.0, 5.0], [2.0, 5.0]]))
        array([[ 1., -1.],
               [-1.,  1.]])
    """
    x = features.astype(np.float64)
    x -= x[0].copy()  # first, so that rows that are all equal become zeros and not rounding errors
    x -= x.mean(0)
    return x @ x.T


class RowFiles:
    """Rows of features by site in temporary files, which vanish with the process, however it ends.

    Args:
        folder: where the files lie; they take 4 bytes per row and feature. The system's folder for temporary files
            unless told.

    Example:
        >>> with RowFiles("runs/x") as rows:
        ...     for name in classes:
        ...         rows.add(class_mean(name))  # {site: features}
        ...     grams = {site: rows.gram(site, memory_gib=1) for site in rows.sites}
    """

    def __init__(self, folder: str | Path | None = None) -> None:
        self._folder = folder
        self._stack = ExitStack()
        self._files: dict[str, IO[bytes]] = {}
        self._first: dict[str, np.ndarray] = {}
        self._rows = 0

    def __enter__(self) -> "RowFiles":
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def __len__(self) -> int:
        return self._rows

    @property
    def sites(self) -> tuple[str, ...]:
        """Sites in the order in which the first row had them."""
        return tuple(self._files)

    def add(self, row: Mapping[str, Float[np.ndarray, " _"]]) -> None:
        """Append a row to every site.

        Raises:
            InputError: for other sites or another number of features than the first row had.
        """
        if not self._rows:
            for site, features in row.items():
                file = tempfile.TemporaryFile(dir=self._folder)  # noqa: SIM115  # closed with the stack
                self._files[site] = self._stack.enter_context(file)
                self._first[site] = features.astype(np.float64)
        ours = {site: len(first) for site, first in self._first.items()}
        theirs = {site: len(features) for site, features in row.items()}
        if ours != theirs:
            raise InputError(f"Every row needs the features of the first one, {ours}, but one with {theirs} was given.")
        for site, features in row.items():
            self._files[site].seek(0, 2)
            self._files[site].write((features - self._first[site]).astype(np.float32).data)
        self._rows += 1

    def gram(self, site: str, memory_gib: float = 1.0) -> Float[np.ndarray, "rows rows"]:
        """Return the Gram matrix of a site's rows, each feature centred, within a budget for blocks of features.

        Raises:
            InputError: for a budget that is not positive.
        """
        if memory_gib <= 0:
            raise InputError(f"The memory budget is a positive number of GiB, but {memory_gib} was given.")
        width = max(1, int(memory_gib * 2**30) // (_BYTES * self._rows))
        total = np.zeros((self._rows, self._rows))
        for block in self._blocks(site, width):
            total += gram_matrix(block)
        return total

    def _blocks(self, site: str, width: int) -> Iterator[np.ndarray]:
        file, features = self._files[site], len(self._first[site])
        for start in range(0, features, width):
            block = np.empty((self._rows, min(width, features - start)), np.float32)
            for i, row in enumerate(block):
                file.seek(4 * (i * features + start))
                file.readinto(row.data)  # type: ignore[attr-defined]  # every binary file has it
            yield block
