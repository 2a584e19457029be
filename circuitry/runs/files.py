"""Files that are written completely or not at all, and locks for processes that work in the same folder."""

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
"""Beginning of the names of locks. A killed process leaves its locks behind."""
TORN = ".torn-"
"""Beginning of the names of files while they are written. A killed process leaves such files behind."""
_WITHOUT_LOCKS = (errno.ENOSYS, errno.ENOLCK, errno.EOPNOTSUPP)
"""Numbers of the errors that a file system without locks gives."""


def at_home(path: str | os.PathLike[str]) -> str:
    """Return a path in which the user's home folder replaces a ``~`` at the beginning."""
    text = os.fspath(path)
    if text == "~" or text.startswith("~/"):
        return os.path.expanduser(text)
    return text


def make_folder(folder: Path) -> None:
    """Make a folder and the folders above it, if they do not exist.

    Raises:
        InputError: if no folder can be made in this place.
    """
    with _named(folder):
        folder.mkdir(parents=True, exist_ok=True)


@contextmanager
def _named(path: Path) -> Iterator[None]:
    """Add a path to the errors of the operating system that the block raises.

    Raises:
        InputError: if no files or folders can be created at the place of the path, such as ``/proc``.
    """
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
    """Yield a temporary path in the folder of ``path``, to which the block writes.

    If the block succeeds, the temporary file is renamed to ``path``. If it fails, the temporary file is removed. The
    rename is atomic on one file system. So other processes see the old file, the new file or no file, but never an
    incomplete file. The new file gets the permissions of the file that it replaces. If ``path`` is a link, the new file
    replaces the link itself. If a process is killed while it writes, its temporary file is removed when ``path`` is
    written again.

    Raises:
        InputError: if no file can be written at ``path``.

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
    """Return the permissions of a file, or None if it does not exist or is a link."""
    if path.is_symlink() or not path.is_file():
        return None
    return stat.S_IMODE(path.stat().st_mode)


def _begun(target: Path, stack: ExitStack) -> Path:
    """Create the temporary file for ``target``, lock it until ``stack`` closes, and return its path."""
    name = f"{TORN}{target.stem[:40]}-{zlib.crc32(os.fsencode(target.name)):08x}"
    number = 0
    while True:
        path = target.with_name(f"{name}-{number}{target.suffix}")
        number += 1
        _remove_unlocked(path)
        with suppress(FileExistsError):  # the file of another writer
            mode = 0o666 if _permissions(target) is None else 0o600
            stack.enter_context(_locked(path, os.O_EXCL, mode))
            return path


@contextmanager
def _locked(
    path: Path, flags: int = 0, mode: int = 0o666, *, wait: bool = True
) -> Iterator[None]:
    """Hold the lock of a file during the block.

    The file is created if it is missing; it must not be a link. The operating system frees the lock if the process
    ends.

    Args:
        flags: Flags for ``os.open`` in addition to those for opening the file.
        mode: Permissions of a file that is created.
        wait: Whether to wait while another process holds the lock. If False, a BlockingIOError is raised instead.
    """
    while True:
        file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | flags, mode)
        try:
            try:
                how = fcntl.LOCK_EX if wait else fcntl.LOCK_EX | fcntl.LOCK_NB
                fcntl.flock(file, how)
            except OSError as error:
                if error.errno not in _WITHOUT_LOCKS:
                    raise
                if not flags & os.O_EXCL:  # a new file needs no lock
                    raise InputError(
                        f"{path.parent} lies on a disk without locks, so several processes would do the same work "
                        "there: give a folder on another disk."
                    ) from error
            if _is_file(path, file):  # it was not removed while this process waited
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
    """Hold the lock of a name in a folder during the block.

    The lock is a hidden file, which is removed after the block. The operating system frees the lock if the process
    ends.

    Args:
        folder: The folder; it is made if it does not exist.
        wait: Whether to wait while another process holds the lock.

    Raises:
        BlockingIOError: if another process holds the lock and ``wait`` is False.
        InputError: if the folder cannot be made, or if its file system has no locks.

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
    """Remove the locks and the half-written files that killed processes left in a folder or below it."""
    for inner, _, names in os.walk(folder):
        for name in names:
            if name.startswith((LOCK, TORN)):
                _remove_unlocked(Path(inner, name))


def _remove_unlocked(path: Path) -> None:
    if path.is_file():
        with suppress(OSError, InputError), _locked(path, wait=False):
            path.unlink()
