"""What an exported explorer says of itself. No torch."""

import json
from os import PathLike
from pathlib import Path
from typing import NamedTuple

from circuitry.explorer.packing import EXPLORER_FORMAT
from circuitry.runs.errors import InputError
from circuitry.runs.given import checked
from circuitry.runs.manifest import NAME, write_json

INDEX_PAGE = "index.html"
"""The page, which is there when its data are complete."""


class About(NamedTuple):
    """An exported explorer."""

    study: str
    """Digest of the circuits' settings."""
    title: str
    export: str
    """Digest of everything that is shown."""


def write_about(folder: Path, about: About) -> None:
    """Write what an explorer says of itself into its folder."""
    write_json(folder / NAME, {"format": EXPLORER_FORMAT, **about._asdict()})


@checked
def read_about(folder: Path) -> About:
    """Return what the explorer in a folder says of itself.

    Raises:
        InputError: for a folder without an explorer, an explorer of another version, and one that is not complete.
    """
    again = "export it again with circuitry explore"
    try:
        found = json.loads((folder / NAME).read_text(encoding="utf-8"))
        if found["format"] != EXPLORER_FORMAT:
            raise InputError(
                f"The explorer in {folder} has the format {found['format']!r}, but {EXPLORER_FORMAT!r} is read: "
                f"{again}."
            )
        about = About(*(str(found[name]) for name in About._fields))
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InputError(f"There is no explorer in {folder} ({error!r}): {again}.") from error
    if not (folder / INDEX_PAGE).is_file() or not about.study.isalnum():
        raise InputError(f"The explorer in {folder} is not complete: {again}.")
    return about


@checked
def exported_study(folder: str | PathLike[str]) -> str | None:
    """Return the digest of the circuits that the explorer in a folder shows; None where there is no whole explorer."""
    try:
        return read_about(Path(folder)).study
    except InputError:
        return None
