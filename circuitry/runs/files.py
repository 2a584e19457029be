"""Files that are written whole or not at all, and locks that processes hold on the parts of a folder."""

import errno
import fcntl
import os
import shutil
import zlib
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from filelock import FileLock

from circuitry.runs.errors import InputError

LOCKS = ".locks"
TORN = ".torn-"
"""How the name of a file begins while it is written; a killed process leaves it behind."""
_WITHOUT_LOCKS = (errno.ENOSYS, errno.ENOLCK, errno.EOPNOTSUPP)
"""Errors of a file system without locks."""


def make_folder(folder: Path) -> None:
    """Make a folder, and those above it, that are not there; raise `InputError` where there can be none."""
    with _made(folder):
        folder.mkdir(parents=True, exist_ok=True)


@contextmanager
def _made(path: Path) -> Iterator[None]:
    """Refuse a place that takes neither files nor folders, as in ``/proc``: there "no such file" is said for ever."""
    try:
        yield
    except FileNotFoundError as error:
        raise InputError(f"{path} cannot be made in this place: give a path in another folder.") from error


@contextmanager
def whole_file(path: str | os.PathLike[str]) -> Iterator[Path]:
    """Yield a temporary path beside ``path`` that becomes ``path`` on success and vanishes on failure.

    The rename is atomic on one file system, so a reader sees the old file, the new one or none, never half. A file has
    one temporary path: what a killed process left is written over by the next, and writers take turns.

    Example:
        >>> with whole_file("table.csv") as temporary:
        ...     table.to_csv(temporary)
    """
    target = Path(path)
    if not target.name:
        raise InputError(f"Expected the path of a file, but {str(path)!r} was given: add its name.")
    make_folder(target.parent)
    name = f"{TORN}{target.stem[:40]}-{zlib.crc32(os.fsencode(target.name)):08x}{target.suffix}"
    with _held(target.with_name(name), target) as temporary:
        try:
            yield temporary
            with open(temporary, "rb+") as file:
                os.fsync(file.fileno())
            os.replace(temporary, target)
        except BaseException:
            temporary.unlink(missing_ok=True)
            raise


@contextmanager
def _held(path: Path, target: Path) -> Iterator[Path]:
    """Make or empty a file that is to become ``target``, under a lock that ends with the block or the process."""
    while True:
        with _made(target):
            file = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
        try:
            _lock(file)
            if _is_file(path, file):
                os.truncate(file, 0)
                yield path
                return
        finally:  # of a file that the writer before renamed or removed, too: then this one makes another
            os.close(file)


def _lock(file: int) -> None:
    """Lock an open file; on a file system without locks, go on without: a file is whole there, too."""
    try:
        fcntl.flock(file, fcntl.LOCK_EX)
    except OSError as error:
        if error.errno not in _WITHOUT_LOCKS:
            raise


def _is_file(path: Path, file: int) -> bool:
    try:
        return os.path.samestat(os.stat(path), os.fstat(file))
    except FileNotFoundError:
        return False


@contextmanager
def file_lock(folder: Path, name: str, *, wait: bool = True) -> Iterator[None]:
    """Hold the lock of a name in a folder, which the system frees with the process.

    Raises:
        filelock.Timeout: when another process holds it and ``wait`` is off.
        InputError: for a folder that cannot be made, and for one on a file system without locks.
    """
    place = folder / LOCKS
    lock = FileLock(place / f"{name}.lock", timeout=-1 if wait else 0)
    make_folder(folder)
    while True:
        with suppress(FileExistsError):  # another process removes the locks within mkdir
            make_folder(place)
        try:
            lock.acquire()
            break
        except (FileNotFoundError, FileExistsError):  # another process has removed the locks
            if place.is_file() or place.is_symlink():
                raise
        except OSError as error:
            if error.errno not in _WITHOUT_LOCKS:
                raise
            raise InputError(
                f"{folder} lies on a disk without locks, so several processes would do the same work there: give a "
                "folder on another disk."
            ) from error
    try:
        yield
    finally:
        lock.release()


def remove_locks(folder: Path) -> None:
    """Remove the files of the locks; for when there is nothing left to be held."""
    shutil.rmtree(folder / LOCKS, ignore_errors=True)


def remove_torn(folder: Path) -> None:
    """Remove what killed processes left of files that they were writing; for when nobody writes there.

    Another process may do the same, or remove the locks: `os.walk` passes over a folder that vanishes, `Path.rglob`
    raises.
    """
    for inner, _, names in os.walk(folder):
        for name in names:
            if name.startswith(TORN):
                Path(inner, name).unlink(missing_ok=True)
