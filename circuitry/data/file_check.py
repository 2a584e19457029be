"""Are the files that a list names there? One listing per folder instead of one query per file. No torch."""

import os
from itertools import islice
from pathlib import Path
from typing import Literal

from circuitry.runs.errors import InputError

MissingFiles = Literal["refuse", "skip", "unchecked"]
"""Treatment of missing files: an error, skipped and counted, or not looked for."""

MOST_NAMES = 1_000_000
"""Most file names in memory, about 0.1 GiB."""


def check_file(path: Path, what: str, advice: str) -> None:
    """Refuse a path that is no file; the advice ends the sentence."""
    if not path.is_file():
        there = "is a folder" if path.is_dir() else "is no file but a device or a pipe"
        why = there if path.exists() else "does not exist"
        raise InputError(f"Expected {what}, but {path} {why}; {advice}.")


def read_text(path: Path) -> str:
    """Return the UTF-8 text of a file; InputError for no file, or other bytes."""
    check_file(path, "a text file", "check the path")
    try:
        return path.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise InputError(
            f"{path} is not UTF-8 text ({error.reason} at byte {error.start}); save it as UTF-8."
        ) from None


class Tally:
    """Counts the wrong entries of a list, and keeps the names of the first five."""

    def __init__(self) -> None:
        self.count = 0
        self._first: list[str] = []

    def add(self, name: str) -> None:
        """Count one more."""
        self.count += 1
        if len(self._first) < 5:
            self._first.append(name)

    def __str__(self) -> str:
        return ", ".join(self._first)


class FileCheck:
    """Looks for files below ``root``, and counts missing ones; the policy decides about them.

    A folder is listed once, which on network disks is ten times faster than a query per file. At most `MOST_NAMES`
    names are in memory: files of folders for which no room is left are queried one by one.
    """

    def __init__(self, policy: MissingFiles, root: str | os.PathLike[str] = "") -> None:
        self.policy = policy
        self._root = root
        self.missing = Tally()
        self._listings: dict[str, set[str] | None] = {}
        self._room = MOST_NAMES

    def keeps(self, path: str) -> bool:
        """Return whether the image at ``path``, absolute or below the root, takes part."""
        if self.policy == "unchecked" or self._is_there(os.path.join(self._root, path)):
            return True
        self.missing.add(path)
        return False

    def refuse(
        self,
        source: str,
        how: str = "missing_files='skip', on the command line --missing-files skip",
    ) -> None:
        """Refuse missing files where the policy says so; ``source`` names them, and ``how`` they are left out."""
        if self.policy == "refuse" and self.missing.count:
            raise InputError(
                f"{source} {self.missing.count} files that do not exist, such as {self.missing}; "
                f"complete the download, or leave them out ({how})."
            )

    def _is_there(self, path: str) -> bool:
        folder, name = os.path.split(path)
        if folder not in self._listings:
            names = self._listings[folder] = _files_in(folder, self._room)
            self._room -= len(names or ())
        names = self._listings[folder]
        return os.path.isfile(path) if names is None else name in names


def _files_in(folder: str, most: int) -> set[str] | None:
    """Return the names of files in a folder; None for more than ``most``, and where it cannot be listed."""
    try:
        with os.scandir(folder or ".") as entries:
            names = set(
                islice((entry.name for entry in entries if entry.is_file()), most + 1)
            )
            return names if len(names) <= most else None
    except (FileNotFoundError, NotADirectoryError):
        return set()
    except (OSError, ValueError):  # no right to list it, or no name of a folder
        return None
