"""A folder of results that says what made it: ``manifest.json``, claimed by the first run and checked by the next.

So that long work goes on where it stopped, and results of two configurations never mix.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from circuitry.runs.errors import InputError
from circuitry.runs.files import whole_file
from circuitry.runs.provenance import difference, digest, versions

NAME = "manifest.json"


def claim(folder: Path, format_name: str, config: Mapping[str, Any], **more: object) -> None:
    """Write the manifest of a new folder, or check that the one there has the same configuration.

    Args:
        folder: Folder of the results.
        format_name: Name and version of what lies in it.
        config: Everything that shapes a number, in values that JSON can hold.
        more: Further entries of a new manifest.

    Raises:
        InputError: for a folder of another format or configuration; the message shows the difference.
    """
    path = folder / NAME
    plain = json.loads(json.dumps(config))  # as it will be read back: tuples become lists
    if path.is_file():
        theirs = read_manifest(folder, format_name)["config"]
        if theirs != plain:
            raise InputError(
                f"{folder} was made with another configuration ({difference(plain, theirs)}): choose another "
                "folder, or remove this one."
            )
        return
    manifest = {"format": format_name, "config": plain, "config_hash": digest(plain), **more, "versions": versions()}
    with whole_file(path) as temporary:
        temporary.write_text(json.dumps(manifest, indent=1))


def read_manifest(folder: Path, format_name: str) -> dict[str, Any]:
    """Return the manifest of a folder.

    Raises:
        InputError: for a damaged manifest, or one of another format.
    """
    path = folder / NAME
    try:
        manifest: dict[str, Any] = json.loads(path.read_text())
    except ValueError as error:
        raise InputError(f"{path} is damaged ({error}): remove its folder and make it again.") from error
    if manifest.get("format") != format_name:
        raise InputError(f"{folder} has format {manifest.get('format')!r}, but this version reads {format_name!r}.")
    return manifest
