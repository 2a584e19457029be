"""The manifest of an exported explorer. No torch."""

import json
from os import PathLike
from pathlib import Path

from circuitry.explorer.packing import EXPLORER_FORMAT
from circuitry.runs.errors import InputError
from circuitry.runs.manifest import NAME

INDEX_PAGE = "index.html"
"""The page, which is written when its data are complete."""


def read_about(folder: Path) -> dict[str, str]:
    """Return the digest of the circuits' settings (``study``), the ``title``, and the digest of the ``export``.

    Raises:
        InputError: for a folder without an explorer, with one of another version, or with an unfinished one.
    """
    again = "export it again with circuitry explore"
    try:
        found = json.loads((folder / NAME).read_text(encoding="utf-8"))
        if found["format"] != EXPLORER_FORMAT:
            raise InputError(
                f"The explorer in {folder} has the format {found['format']!r}, but {EXPLORER_FORMAT!r} is read: "
                f"{again}."
            )
        about = {name: str(found[name]) for name in ("study", "title", "export")}
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InputError(f"There is no explorer in {folder} ({error!r}): {again}.") from error
    if not (folder / INDEX_PAGE).is_file() or not about["study"].isalnum():
        raise InputError(f"The explorer in {folder} is not complete: {again}.")
    return about


def exported_study(folder: str | PathLike[str]) -> str | None:
    """Return the digest of the circuits that the explorer in a folder shows; None without a complete explorer."""
    try:
        return read_about(Path(folder))["study"]
    except InputError:
        return None
