"""Locks that processes hold on the parts of a folder; the system frees those of a process that ends."""

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock

LOCKS = ".locks"


@contextmanager
def file_lock(folder: Path, name: str, *, wait: bool = True) -> Iterator[None]:
    """Hold the lock of a name in a folder, on any file system that has locks.

    Raises:
        filelock.Timeout: when another process holds it and ``wait`` is off.
    """
    place = folder / LOCKS
    lock = FileLock(place / f"{name}.lock", timeout=-1 if wait else 0)
    while True:
        place.mkdir(parents=True, exist_ok=True)
        try:
            lock.acquire()
            break
        except FileNotFoundError:  # another process has just removed the locks
            continue
    try:
        yield
    finally:
        lock.release()


def remove_locks(folder: Path) -> None:
    """Remove the files of the locks; for when there is nothing left to be held."""
    shutil.rmtree(folder / LOCKS, ignore_errors=True)
