"""Files that are written whole or not at all, and locks that processes hold on the parts of a folder."""

import errno
import fcntl
import os
import stat
import zlib
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

from circuitry.runs.errors import InputError

LOCK = ".lock-"
"""Beginning of the names of locks."""
TORN = ".torn-"
"""Beginning of the names of files while they are written. A killed process leaves both behind."""
_WITHOUT_LOCKS = (errno.ENOSYS, errno.ENOLCK, errno.EOPNOTSUPP)
"""Errors of a file system without locks."""


def at_home(path: str | os.PathLike[str]) -> str:
    """Return a path with the home of the user in the place of ``~``."""
    text = os.fspath(path)
    if text == "~" or text.startswith("~/"):
        return os.path.expanduser(text)
    return text


def make_folder(folder: Path) -> None:
    """Make a folder, and those above it, that are not there; raise `InputError` where there can be none."""
    with _named(folder):
        folder.mkdir(parents=True, exist_ok=True)


@contextmanager
def _named(path: Path) -> Iterator[None]:
    """Name a path in errors, and refuse a place that takes neither files nor folders, such as ``/proc``."""
    try:
        yield
    except (FileNotFoundError, UnicodeEncodeError) as error:
        raise InputError(
            f"{path} cannot be made in this place: give a path in another folder."
        ) from error
    except OSError as error:
        error.filename = str(path)
        raise


@contextmanager
def whole_file(path: str | os.PathLike[str]) -> Iterator[Path]:
    """Yield a temporary path beside ``path`` that becomes ``path`` on success and vanishes on failure.

    The rename is atomic on one file system, so a reader sees the old file, the new one or none, never half. Each writer
    makes a new file, with the permissions of the one that it replaces; no link is followed. The next writer removes
    what a killed one left.

    Example:
        >>> with circuitry.runs.whole_file("table.csv") as temporary:
        ...     folder.counts().to_csv(temporary)
    """
    target = Path(at_home(path))
    if not target.name:
        raise InputError(
            f"Expected the path of a file, but {str(path)!r} was given: add its name."
        )
    if target.exists() and not target.is_file():
        raise InputError(
            f"{target} is a folder or a device, but a file is needed there: give the path of a file."
        )
    make_folder(target.parent)
    with ExitStack() as stack:
        with _named(target):
            temporary = _begun(target, stack)
        try:
            yield temporary
            with open(temporary, "rb+") as file:
                os.fsync(file.fileno())
            mode = _permissions(target)
            if mode is not None:
                os.chmod(temporary, mode)
            os.replace(temporary, target)
        except BaseException:
            temporary.unlink(missing_ok=True)
            raise


def _permissions(path: Path) -> int | None:
    """Return the permissions of a file; None where there is none, or a link."""
    if path.is_symlink() or not path.is_file():
        return None
    return stat.S_IMODE(path.stat().st_mode)


def _begun(target: Path, stack: ExitStack) -> Path:
    """Make a file that is to become another, and lock it until ``stack`` closes."""
    name = f"{TORN}{target.stem[:40]}-{zlib.crc32(os.fsencode(target.name)):08x}"
    number = 0
    while True:
        path = target.with_name(f"{name}-{number}{target.suffix}")
        number += 1
        _remove_unlocked(path)
        with suppress(FileExistsError):  # of another writer
            mode = 0o666 if _permissions(target) is None else 0o600
            stack.enter_context(_locked(path, os.O_EXCL, mode))
            return path


@contextmanager
def _locked(
    path: Path, flags: int = 0, mode: int = 0o666, *, wait: bool = True
) -> Iterator[None]:
    """Hold the lock of a file, made where it is missing, which is no link; the system frees it with the process."""
    while True:
        file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | flags, mode)
        try:
            try:
                how = fcntl.LOCK_EX if wait else fcntl.LOCK_EX | fcntl.LOCK_NB
                fcntl.flock(file, how)
            except OSError as error:
                if error.errno not in _WITHOUT_LOCKS:
                    raise
                if not flags & os.O_EXCL:  # a new file is whole there, too
                    raise InputError(
                        f"{path.parent} lies on a disk without locks, so several processes would do the same work "
                        "there: give a folder on another disk."
                    ) from error
            if _is_file(path, file):  # and was not removed meanwhile
                yield
                return
        finally:
            os.close(file)


def _is_file(path: Path, file: int) -> bool:
    try:
        return os.path.samestat(os.stat(path), os.fstat(file))
    except FileNotFoundError:
        return False


@contextmanager
def file_lock(folder: Path, name: str, *, wait: bool = True) -> Iterator[None]:
    """Hold the lock of a name in a folder, a hidden file that goes with it; the system frees it with the process.

    Raises:
        BlockingIOError: when another process holds it and ``wait`` is off.
        InputError: for a folder that cannot be made, and for one on a file system without locks.

    Example:
        >>> with circuitry.runs.file_lock(Path("runs"), "mine"):
        ...     pass  # no other process holds this lock meanwhile
    """
    make_folder(folder)
    path = folder / f"{LOCK}{name}"
    with ExitStack() as stack:
        with _named(path):
            stack.enter_context(_locked(path, wait=wait))
        stack.callback(path.unlink, missing_ok=True)
        yield


def remove_leftovers(folder: Path) -> None:
    """Remove what killed processes left: their locks, and files that they were writing."""
    for inner, _, names in os.walk(folder):
        for name in names:
            if name.startswith((LOCK, TORN)):
                _remove_unlocked(Path(inner, name))


def _remove_unlocked(path: Path) -> None:
    if path.is_file():
        with suppress(OSError, InputError), _locked(path, wait=False):
            path.unlink()
