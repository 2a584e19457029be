"""Errors of the operating system that a user can mend, in sentences about the path that they name. No torch."""

import errno
from collections.abc import Iterable
from typing import Any

from circuitry.runs.errors import InputError, shortened

_FULL = "The disk of {} is full: free some space, and the same command goes on from what is finished."
_NOT_ALLOWED = "{} may not be read or written by this user: change its permissions, or give another folder."
_NO_FOLDER = (
    "{} is needed as a folder, but there is a file or a link to nothing on the way: remove it, or give another."
)
SENTENCES = {
    errno.ENOSPC: _FULL,
    errno.EDQUOT: _FULL,
    errno.EROFS: "{} lies on a disk that can only be read: give a folder that can be written.",
    errno.EACCES: _NOT_ALLOWED,
    errno.EPERM: _NOT_ALLOWED,
    errno.ENOTDIR: _NO_FOLDER,
    errno.EEXIST: _NO_FOLDER,
    errno.EISDIR: "{} is a folder, but a file is needed there: give the path of a file.",
    errno.ELOOP: "{} is a link that leads to itself: give another path, or remove the link.",
    errno.ENAMETOOLONG: "The name {} is too long for this disk: shorten the names of classes, domains or folders.",
}
"""Sentences for the user by number of the error; the braces stand for the path."""
REFUSED = (errno.ENAMETOOLONG, errno.EISDIR, errno.ENOTDIR, errno.EEXIST, errno.ELOOP)
"""Errors that say that a path itself cannot be; the others are of the machine."""


def sentence_of(error: OSError) -> str | None:
    """Return what to tell of an error; None where it names no path, or where a user cannot mend it."""
    path = error.filename
    if path is None and SENTENCES.get(error.errno or 0) is _FULL:
        path = "the results"  # writing into an open file names none
    sentence = SENTENCES.get(error.errno or 0)
    return None if path is None or sentence is None else sentence.format(shortened(str(path)))


def refuse_path(error: OSError, given: Iterable[Any]) -> None:
    """Raise an `InputError` for a path that cannot be, and for a missing one that was ``given``."""
    if error.filename is None:
        return
    sentence = sentence_of(error) if error.errno in REFUSED else None
    if error.errno == errno.ENOENT and str(error.filename) in map(str, given):
        sentence = f"There is no {shortened(str(error.filename))}: give the path of one that is there."
    if sentence is not None:
        raise InputError(sentence) from error
