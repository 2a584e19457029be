"""The one exception that means: the input is wrong, and its message says what to do. No torch.

Errors of the operating system that a user can mend become such messages, about the path that they name.
"""

import difflib
import errno
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, TypeVar

import numpy as np

SHOWN, LISTED, NAMED = 160, 20, 12
"""Length from which texts are shortened in messages; most names in a list of available ones; most names elsewhere."""
Value = TypeVar("Value")


class InputError(ValueError):
    """Raised for input that cannot be worked with.

    Its message is one complete sentence for the user: what was expected, what was given, what to do.
    Scripts catch it at the door and print it without a traceback.

    Example:
        >>> try:
        ...     circuitry.DomainFolder("nowhere")
        ... except circuitry.InputError as error:
        ...     print(error)
        Expected a folder of domains, or a table of images (.csv, .tsv), but ...nowhere does not exist.
    """


class UnknownNameError(InputError, KeyError):
    """Raised for a name that nothing has."""

    # A `KeyError` prints its message in quotes.
    __str__ = Exception.__str__


class ByName(dict[str, Value]):
    """Values by name; an unknown one is refused with those that are near."""

    def __missing__(self, name: str) -> Value:
        raise unknown_name("entry", str(name), self)


def unknown_name(
    kind: str, name: str, available: Iterable[str], written: Mapping[str, str] = {}
) -> UnknownNameError:
    """Return the error for an unknown name: it shows similar names, or else the available ones.

    Args:
        written: Replacements of some names where the message shows them, such as ``size=`` for ``size``.
    """
    names = list(available)
    # A name that exists is refused where it does not belong: then `written` says where it does.
    near = [name]
    if name not in names:
        near = difflib.get_close_matches(name, names, n=5, cutoff=0.5)
    if near:
        hint = f"perhaps you meant {' or '.join(written.get(n, n) for n in near)}"
    else:
        listed = name_some([written.get(n, n) for n in names], LISTED)
        hint = f"available: {listed or 'none'}"
    return UnknownNameError(f"There is no {kind} {name!r} here; {hint}.")


@contextmanager
def naming_damage(path: object) -> Iterator[None]:
    """Turn errors while a file is read into an `InputError` that names the file.

    An `InputError` that names the file already stays as it is.

    Example:
        >>> with circuitry.runs.naming_damage("table.csv"):
        ...     number = float("x1")
        Traceback (most recent call last):
        circuitry.runs.errors.InputError: table.csv is damaged, or another file (...): make it again.
    """
    try:
        yield
    except (
        ArithmeticError,
        AttributeError,
        IndexError,
        KeyError,
        RuntimeError,
        TypeError,
        ValueError,
    ) as error:
        # An inner reader of the same file has said more than can be said here.
        if isinstance(error, InputError) and str(path) in str(error):
            raise
        reason = str(error).rstrip(".")
        # The text of a `KeyError` is the key alone.
        if type(error) is KeyError:
            reason = f"it lacks {error}"
        raise InputError(
            f"{path} is damaged, or another file ({reason}): make it again."
        ) from error


def number_of(n: int, noun: str) -> str:
    """Return a number with its noun."""
    if n == 1:
        return f"1 {noun}"
    ending = "es" if noun.endswith("s") else "s"
    return f"{n:,} {noun}{ending}"


def name_some(names: Sequence[object], most: int = NAMED) -> str:
    """Return names in one line, with the number of those beyond the first few."""
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(map(str, names[:most])) + more


def shortened(text: str) -> str:
    """Return a text without the middle, where it is long."""
    return text if len(text) < SHOWN else f"{text[:77]}...{text[-77:]}"


def shown(value: object) -> str:
    """Return a value as error messages show it: text and numbers themselves, arrays by shape, anything else by type."""
    if isinstance(value, str):
        return f"the string {shortened(value)!r}"
    if isinstance(value, int | float | np.generic):
        return repr(value)
    kind = type(value).__name__
    shape = getattr(value, "shape", None)
    if not isinstance(shape, tuple):
        return kind
    dtype = str(getattr(value, "dtype", "")).rpartition(".")[2]
    return f"{kind} {dtype} {list(shape)}"


_FULL = "The disk of {} is full: free some space, and the same command goes on from what is finished."
_NOT_ALLOWED = "{} may not be read or written by this user: change its permissions, or give another folder."
_NO_FOLDER = (
    "{} is needed as a folder, but there is a file or a link to nothing on the way: "
    "remove it, or give another."
)
SENTENCES = {
    errno.ENOSPC: _FULL,
    errno.EDQUOT: _FULL,
    errno.EFBIG: "{} would be larger than this user's files may be: raise the limit (ulimit -f), and run this again.",
    errno.EROFS: "{} lies on a disk that can only be read: give a folder that can be written.",
    errno.EACCES: _NOT_ALLOWED,
    errno.EPERM: _NOT_ALLOWED,
    errno.ENOTDIR: _NO_FOLDER,
    errno.EEXIST: _NO_FOLDER,
    errno.EISDIR: "{} is a folder, but a file is needed there: give the path of a file.",
    errno.ELOOP: "{} is a link that leads to itself, or where none may be: give another path, or remove the link.",
    errno.ENAMETOOLONG: "The name {} is too long for this disk: shorten the names of classes, domains or folders.",
}
"""Sentences for the user by number of the error; the braces stand for the path."""
REFUSED = (errno.ENAMETOOLONG, errno.EISDIR, errno.ENOTDIR, errno.EEXIST, errno.ELOOP)
"""Errors that say that a path itself cannot be; the others are of the machine."""


def sentence_of(error: OSError) -> str | None:
    """Return the sentence for the user on an error; None where it names no path, or where a user cannot mend it."""
    path = error.filename
    # Writing into an open file names no path.
    if path is None and error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
        path = "the results"
    sentence = SENTENCES.get(error.errno or 0)
    if path is None or sentence is None:
        return None
    return sentence.format(shortened(str(path)))


def refuse_path(error: OSError, given: Iterable[Any]) -> None:
    """Raise an `InputError` for a path that cannot be, and for a missing one that was ``given``."""
    if error.filename is None:
        return
    sentence = sentence_of(error) if error.errno in REFUSED else None
    # Another missing file is a fault of the program, or of the machine.
    if error.errno == errno.ENOENT and str(error.filename) in map(str, given):
        sentence = f"There is no {shortened(str(error.filename))}: give the path of one that is there."
    if sentence is not None:
        raise InputError(sentence) from error
