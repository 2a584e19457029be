"""Are the files that a list names there? One listing per folder instead of one query per file. No torch."""

import os
from itertools import islice
from pathlib import Path
from typing import Literal

from circuitry.runs.errors import InputError
from circuitry.runs.given import checked

MissingFiles = Literal["refuse", "skip", "unchecked"]
"""Treatment of missing files: an error, left out and counted, or not checked."""

NAMES_HELD = 1_000_000
"""File names held in memory at a time, about 0.1 GiB."""


def check_file(path: Path, what: str, advice: str) -> None:
    """Refuse a path that is no file; the advice ends the sentence."""
    if not path.is_file():
        why = "is a folder" if path.is_dir() else "does not exist"
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

    A folder is listed once, which on network disks is ten times faster than a query per file. Listings with more than
    `NAMES_HELD` names together are dropped; later files of their folders, and of larger folders, are queried one by
    one, so memory is bounded for any order of the list.
    """

    @checked
    def __init__(self, policy: MissingFiles, root: str | os.PathLike[str] = "") -> None:
        self.policy = policy
        self._root = root
        self.missing = Tally()
        self._listings: dict[str, set[str]] = {}
        self._names_held = 0
        self._queried: set[str] = set()

    def keeps(self, path: str) -> bool:
        """Return whether the image at ``path``, absolute or below the root, takes part."""
        if self.policy == "unchecked" or self._is_there(os.path.join(self._root, path)):
            return True
        self.missing.add(path)
        return False

    def refuse(self, source: str) -> None:
        """Refuse missing files where the policy says so; ``source`` begins the sentence: who names the files."""
        if self.policy == "refuse" and self.missing.count:
            raise InputError(
                f"{source} {self.missing.count} files that do not exist, such as {self.missing}; "
                f"complete the download, or leave them out (missing_files='skip', on the command line "
                f"--missing-files skip)."
            )

    def _is_there(self, path: str) -> bool:
        folder, name = os.path.split(path)
        if folder in self._queried:
            return os.path.isfile(path)
        names = self._listings.get(folder)
        if names is None:
            names = _files_in(folder)
            if names is None:
                self._queried.add(folder)
                return os.path.isfile(path)
            if self._names_held + len(names) > NAMES_HELD:
                self._queried.update(self._listings, [folder])
                self._listings.clear()
                self._names_held = 0
                return os.path.isfile(path)
            self._listings[folder] = names
            self._names_held += len(names)
        return name in names


def _files_in(folder: str) -> set[str] | None:
    """Return the names of files in a folder, at most one more than may be held; None where it cannot be listed."""
    try:
        with os.scandir(folder or ".") as entries:
            return set(islice((entry.name for entry in entries if entry.is_file()), NAMES_HELD + 1))
    except (FileNotFoundError, NotADirectoryError):
        return set()
    except (OSError, ValueError):  # no right to list it, or no name of a folder
        return None
