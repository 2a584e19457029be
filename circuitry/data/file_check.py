"""Are the files that a list names there? One listing per folder instead of one query per file. No torch."""

import os
from itertools import islice
from typing import Literal

from circuitry.runs.errors import InputError

MissingFiles = Literal["refuse", "skip", "unchecked"]
"""What happens to images whose file is missing: an error, left out and counted, or nobody looks."""

NAMES_HELD = 1_000_000
"""File names held in memory at a time, about 0.1 GiB."""


class FileCheck:
    """Looks for files below ``root``, counts those that are missing, and keeps the first five names.

    A folder is listed once, which on network disks is ten times faster than a query per file. Listings are forgotten
    when they hold more than ``NAMES_HELD`` names; files of a folder that comes again after that, or that is larger,
    are queried one by one, so memory is bounded whatever the order of the list.
    """

    def __init__(self, policy: MissingFiles, root: str | os.PathLike[str] = "") -> None:
        self.policy = policy
        self._root = root
        self.missing = 0
        self.examples: list[str] = []
        self._listings: dict[str, set[str]] = {}
        self._names_held = 0
        self._queried: set[str] = set()

    def keeps(self, path: str) -> bool:
        """Whether the image at ``path``, absolute or below the root, takes part."""
        if self.policy == "unchecked" or self._is_there(os.path.join(self._root, path)):
            return True
        self.missing += 1
        if len(self.examples) < 5:
            self.examples.append(path)
        return False

    def refuse(self, source: str) -> None:
        """Raise InputError where files were missing and the policy is to refuse them."""
        if self.policy == "refuse" and self.missing:
            raise InputError(
                f"{source} {self.missing} files that do not exist, such as {', '.join(self.examples)}; "
                f"complete the download, or leave them out (missing_files='skip', on the command line "
                f"--missing-files skip)"
            )

    def _is_there(self, path: str) -> bool:
        folder, name = os.path.split(path)
        if folder in self._queried:
            return os.path.isfile(path)
        names = self._listings.get(folder)
        if names is None:
            names = _names_in(folder)
            if self._names_held + len(names) > NAMES_HELD:
                self._queried.update(self._listings, [folder])
                self._listings.clear()
                self._names_held = 0
                return os.path.isfile(path)
            self._listings[folder] = names
            self._names_held += len(names)
        return name in names


def _names_in(folder: str) -> set[str]:
    try:
        with os.scandir(folder or ".") as entries:
            return {entry.name for entry in islice(entries, NAMES_HELD + 1)}
    except (FileNotFoundError, NotADirectoryError):
        return set()
