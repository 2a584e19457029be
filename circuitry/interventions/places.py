"""Which units or positions of a site: whole numbers, or a boolean mask whose true places are meant. No torch."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

import numpy as np
from jaxtyping import Bool

from circuitry.runs.errors import InputError


@runtime_checkable
class ArrayLike(Protocol):
    """What numpy takes for an array, tensors on the CPU among it."""

    def __array__(self) -> np.ndarray: ...


Chosen = int | float | Sequence[Any] | ArrayLike
"""The number of one place, several numbers, or a boolean mask over all places: lists, arrays or tensors on the CPU."""


@dataclass(frozen=True)
class Places:
    """Some of the units or positions of a site."""

    indices: tuple[int, ...]
    mask_length: int | None = None
    """Length of the boolean mask that chose them, which must be that of the site."""

    @classmethod
    def read(cls, given: Chosen, what: str) -> "Places":
        """Read places as a user gives them.

        Args:
            given: See `Chosen`.
            what: ``units`` or ``positions``, for messages.

        Raises:
            InputError: for anything but whole numbers and booleans.
        """
        array = np.asarray(given)
        if array.dtype == bool and array.ndim:
            flat = array.reshape(-1)
            return cls(tuple(np.flatnonzero(flat).tolist()), len(flat))
        whole = array.dtype.kind in "iuf" and array.ndim <= 1 and bool((array == np.floor(array)).all())
        if not whole or not np.isfinite(array).all():
            raise InputError(f"Expected {what} as whole numbers or as a boolean mask, but {given!r} was given.")
        return cls(tuple(int(i) for i in array.reshape(-1)))

    def mask(self, size: int, site: str, what: str) -> Bool[np.ndarray, " size"]:
        """Return where the places are among ``size`` of them.

        Raises:
            InputError: for a place outside, or a mask of another length; the message names the site.
        """
        if self.mask_length not in (None, size):
            raise InputError(
                f"Site {site!r} has {size} {what}, but the boolean mask has {self.mask_length}: give one per place."
            )
        if outside := [i for i in self.indices if not 0 <= i < size]:
            raise InputError(
                f"Site {site!r} has {what} 0 to {size - 1}, but {listed(outside)} was asked for: choose {what} within."
            )
        chosen = np.zeros(size, dtype=bool)
        chosen[list(self.indices)] = True
        return chosen


def listed(indices: Sequence[int]) -> str:
    """Return the first places in words."""
    shown = ", ".join(map(str, indices[:8])) or "none"
    return f"{shown} and {len(indices) - 8} more" if len(indices) > 8 else shown
