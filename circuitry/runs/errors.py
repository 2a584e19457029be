"""The one exception that means: the input is wrong, and its message says what to do; how it shows values. No torch."""

from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np

SHOWN = 160
"""Messages shorten texts of this length or more."""


class InputError(ValueError):
    """Raised for input that cannot be worked with.

    Its message is one complete sentence for the user: what was expected, what was given, what to do.
    Scripts catch it at the door and print it without a traceback.
    """


@contextmanager
def naming_damage(path: object) -> Iterator[None]:
    """Name the file in the error where what was read from it turns out to be something else.

    An `InputError` that names the file stays as it is.
    """
    try:
        yield
    except (ArithmeticError, AttributeError, IndexError, KeyError, RuntimeError, TypeError, ValueError) as error:
        if isinstance(error, InputError) and str(path) in str(error):
            raise
        what = f"it lacks {error}" if isinstance(error, KeyError) else str(error).rstrip(".")
        raise InputError(f"{path} is damaged, or another file ({what}): make it again.") from error


def shortened(text: str) -> str:
    """Return a text without the middle, where it is long."""
    return text if len(text) < SHOWN else f"{text[:77]}...{text[-77:]}"


def shown(value: object) -> str:
    """Return a text or a number as it is, of an array its type and shape, of anything else what it is."""
    if isinstance(value, str):
        return f"the string {shortened(value)!r}"
    if isinstance(value, int | float | np.generic):
        return repr(value)
    if isinstance(shape := getattr(value, "shape", None), tuple):
        return " ".join([type(value).__name__, *(str(getattr(value, "dtype", "")).split(".")[-1:]), str(list(shape))])
    return type(value).__name__
