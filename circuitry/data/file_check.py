"""Check that files exist, such as files that a list of images names. Does not import torch."""

import os
from itertools import islice
from pathlib import Path
from typing import Literal

from circuitry.runs.errors import InputError

MissingFiles = Literal["refuse", "skip", "unchecked"]
"""What to do about missing files: raise an error, skip and count them, or do not check whether files exist."""

MOST_NAMES = 1_000_000
"""Largest number of file names that a `FileCheck` keeps in memory. They take about 0.1 GiB."""


def check_file(path: Path, what: str, advice: str) -> None:
    """Raise `InputError` if a path is not a file.

    Args:
        path: The path.
        what: What was expected, for the message.
        advice: What the user can do; the end of the message.
    """
    if not path.is_file():
        there = "is a folder" if path.is_dir() else "is no file but a device or a pipe"
        why = there if path.exists() else "does not exist"
        raise InputError(f"Expected {what}, but {path} {why}; {advice}.")


def read_text(path: Path) -> str:
    """Return the text of a file; raise `InputError` if the path is not a file, or if its content is not UTF-8."""
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
        """Count a wrong entry, and keep its name if it is among the first five."""
        self.count += 1
        if len(self._first) < 5:
            self._first.append(name)

    def __str__(self) -> str:
        return ", ".join(self._first)


class FileCheck:
    """Check whether files exist below a folder, and count the missing files.

    The names of the files in a folder are listed once. On network disks this is ten times faster than one query for
    each file. At most `MOST_NAMES` names are kept in memory. Once there are more names, the files of further folders
    are queried one by one.

    Args:
        policy: What to do about missing files; see `MissingFiles`.
        root: Folder of the files whose paths are not absolute.
    """

    def __init__(self, policy: MissingFiles, root: str | os.PathLike[str] = "") -> None:
        self.policy = policy
        self._root = root
        self.missing = Tally()
        self._listings: dict[str, set[str] | None] = {}
        self._room = MOST_NAMES

    def keeps(self, path: str) -> bool:
        """Return whether the file exists, and count the file as missing if it does not.

        If the policy is "unchecked", the file is not looked up, and the result is True.

        Args:
            path: Absolute path of the file, or its path below the root.
        """
        if self.policy == "unchecked" or self._is_there(os.path.join(self._root, path)):
            return True
        self.missing.add(path)
        return False

    def refuse(
        self,
        source: str,
        how: str = "missing_files='skip', on the command line --missing-files skip",
    ) -> None:
        """Raise `InputError` if files are missing and the policy is "refuse".

        Args:
            source: Beginning of the message, such as "The list FILE names".
            how: How the user can leave out missing files, for the message.
        """
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
    """Return the names of the files in a folder, or an empty set if there is no folder.

    Return None if the folder has more than ``most`` files, or if it cannot be listed.
    """
    try:
        with os.scandir(folder or ".") as entries:
            names = set(
                islice((entry.name for entry in entries if entry.is_file()), most + 1)
            )
            return names if len(names) <= most else None
    except (FileNotFoundError, NotADirectoryError):
        return set()
    except (
        OSError,
        ValueError,
    ):  # no permission to list the folder, or not a valid name of a folder
        return None
