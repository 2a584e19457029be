"""`InputError`, the exception for wrong input, whose message tells the user what to do. Does not import torch.

The operating system also raises errors that a user can mend, for example if a disk is full. For these errors,
`sentence_of` returns a message of the same kind about the path of the file or folder.
"""

import difflib
import errno
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, TypeVar

import numpy as np

SHOWN, LISTED, NAMED = 160, 20, 12
"""Limits for texts in error messages.

Texts of at least `SHOWN` characters are shortened. A list of available names shows at most `LISTED` of them, and any
other list at most `NAMED`.
"""
Value = TypeVar("Value")


class InputError(ValueError):
    """Raised for input that circuitry cannot work with.

    The message is one complete sentence for the user: what was expected, what was given, and what to do.
    Commands print this message without a traceback.

    Example:
        >>> try:
        ...     circuitry.DomainFolder("nowhere")
        ... except circuitry.InputError as error:
        ...     print(error)
        Expected a folder of domains, or a table of images (.csv, .tsv), but ...nowhere does not exist.
    """


class UnknownNameError(InputError, KeyError):
    """Raised for a name that does not exist."""

    # A `KeyError` prints its message in quotes.
    __str__ = Exception.__str__


class ByName(dict[str, Value]):
    """A dictionary from names to values. For an unknown name it raises an error that suggests similar names."""

    def __missing__(self, name: str) -> Value:
        raise unknown_name("entry", str(name), self)


def unknown_name(
    kind: str, name: str, available: Iterable[str], written: Mapping[str, str] = {}
) -> UnknownNameError:
    """Return the error for an unknown name.

    Its message suggests similar names. If no name is similar, it lists the available names.

    Args:
        kind: What the name is the name of, such as "command".
        name: The unknown name.
        available: The names that exist.
        written: How the message writes some of the available names: with ``{"size": "size="}`` it writes ``size=`` for
            ``size``.
    """
    names = list(available)
    # If the name exists, it was used in the wrong place; then `written` says where it belongs.
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
    """Turn errors that occur while a file is read into an `InputError` that names the file.

    If an error is an `InputError` that names the file already, it is raised unchanged. Errors of the operating system
    are raised unchanged, too.

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
        # The error comes from an inner function that reads the same file and knows more about the fault.
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
    """Return a number and its noun, such as ``1 image`` or ``2,000 images``."""
    if n == 1:
        return f"1 {noun}"
    ending = "es" if noun.endswith("s") else "s"
    return f"{n:,} {noun}{ending}"


def name_some(names: Sequence[object], most: int = NAMED) -> str:
    """Return one line with the names at the beginning of a list, and with the number of names that are left out.

    Args:
        most: Largest number of names in the line.
    """
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(map(str, names[:most])) + more


def shortened(text: str) -> str:
    """Return a text. If the text is long, three dots replace its middle."""
    return text if len(text) < SHOWN else f"{text[:77]}...{text[-77:]}"


def shown(value: object) -> str:
    """Return a value as error messages show it.

    For a text or a number this is the value itself. For an array it is the type and the shape. For any other value it
    is the type.
    """
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
"""Sentences for the user, by the number of the error (``errno``); the path replaces the braces."""
REFUSED = (errno.ENAMETOOLONG, errno.EISDIR, errno.ENOTDIR, errno.EEXIST, errno.ELOOP)
"""Numbers of errors that mean that a path itself is wrong. All other errors are caused by the machine."""


def sentence_of(error: OSError) -> str | None:
    """Return the sentence that explains an error of the operating system to the user, or None.

    The result is None if a user cannot mend the error, or if the error names no path. There is one exception: if the
    disk is full or a file is too large, but the error names no path, the sentence names "the results" instead.
    """
    path = error.filename
    # An error while writing into an open file names no path.
    if path is None and error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
        path = "the results"
    sentence = SENTENCES.get(error.errno or 0)
    if path is None or sentence is None:
        return None
    return sentence.format(shortened(str(path)))


def refuse_path(error: OSError, given: Iterable[Any]) -> None:
    """Raise `InputError` if an error of the operating system comes from a path that the user has to correct.

    The user has to correct the path if the path itself is wrong (``errno`` is in `REFUSED`), or if the path does not
    exist and the user gave it. For any other error the function does nothing.

    Args:
        given: Values that the user gave; some of them may be paths.
    """
    if error.filename is None:
        return
    sentence = sentence_of(error) if error.errno in REFUSED else None
    # If a file is missing that the user did not give, it is a fault of the program or of the machine.
    if error.errno == errno.ENOENT and str(error.filename) in map(str, given):
        sentence = f"There is no {shortened(str(error.filename))}: give the path of one that is there."
    if sentence is not None:
        raise InputError(sentence) from error
