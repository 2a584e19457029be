"""Files that are written whole or not at all, and locks that processes hold on the parts of a folder."""

import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock

from circuitry.runs.given import checked

LOCKS = ".locks"
TORN = ".torn-"
"""How the name of a file begins while it is written; a killed process leaves it behind."""


@checked
@contextmanager
def whole_file(path: str | os.PathLike[str]) -> Iterator[Path]:
    """Yield a temporary path beside ``path`` that becomes ``path`` on success and vanishes on failure.

    The rename is atomic on one file system, so a reader sees the old file, the new one or none, never half.

    Example:
        >>> with whole_file("table.csv") as temporary:
        ...     table.to_csv(temporary)
    """
    target = Path(path)
    target.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(dir=target.parent, prefix=f"{TORN}{target.stem[:40]}-", suffix=target.suffix)
    os.close(handle)
    temporary = Path(name)
    try:
        yield temporary
        with open(temporary, "rb+") as file:
            os.fsync(file.fileno())
        os.chmod(temporary, 0o666 & ~_umask())
        os.replace(temporary, target)
    finally:
        temporary.unlink(missing_ok=True)


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


@checked
@contextmanager
def file_lock(folder: Path, name: str, *, wait: bool = True) -> Iterator[None]:
    """Hold the lock of a name in a folder, which the system frees with the process.

    Raises:
        filelock.Timeout: when another process holds it and ``wait`` is off.
    """
    place = folder / LOCKS
    lock = FileLock(place / f"{name}.lock", timeout=-1 if wait else 0)
    while True:
        try:
            place.mkdir(parents=True, exist_ok=True)
            lock.acquire()
            break
        except (FileNotFoundError, FileExistsError):  # another process removes the locks, before or within mkdir
            if place.is_file():
                raise
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
