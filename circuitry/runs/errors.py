"""The one exception that means: the input is wrong, and its message says what to do."""

from collections.abc import Iterator
from contextlib import contextmanager


class InputError(ValueError):
    """Raised for input that cannot be worked with.

    Its message is one complete sentence for the user: what was expected, what was given, what to do.
    Scripts catch it at the door and print it without a traceback.
    """


@contextmanager
def naming_damage(path: object) -> Iterator[None]:
    """Name the file in the error where what was read from it turns out to be something else.

    Raises:
        InputError: for whatever goes wrong within the block with what a file holds.
    """
    try:
        yield
    except (AttributeError, IndexError, KeyError, RecursionError, TypeError, ValueError) as error:
        what = f"it lacks {error}" if isinstance(error, KeyError) else str(error).rstrip(".")
        raise InputError(f"{path} is damaged, or another file ({what}): make it again.") from error
