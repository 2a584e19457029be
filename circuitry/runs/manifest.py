"""A folder of results that says what made it: ``manifest.json``, claimed by the first run and checked by the next.

So that long work goes on where it stopped, and results of two configurations never mix.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from circuitry.runs.errors import InputError
from circuitry.runs.files import file_lock, whole_file
from circuitry.runs.given import checked
from circuitry.runs.provenance import difference, digest, versions

NAME = "manifest.json"


@checked
def claim(
    folder: Path,
    format_name: str,
    config: Mapping[str, Any],
    listings: Mapping[str, Mapping[str, str]] | None = None,
    **more: object,
) -> None:
    """Write the manifest of a new folder, or check that the one there has the same configuration.

    Args:
        folder: Folder of the results.
        format_name: Name and version of what lies in it.
        config: Everything that shapes a number, in values that JSON can hold.
        listings: Long lists that shape a number, by name: item -> what identifies it, e.g. image -> size and
            checksum. Each is kept in ``<name>.json`` beside the manifest, whose configuration holds its digest.
        more: Further entries of a new manifest.

    Raises:
        InputError: for a folder of another format or configuration; the message names what differs.
    """
    lists = {name: dict(listing) for name, listing in (listings or {}).items()}
    ours = json.loads(json.dumps(dict(config)))  # as it will be read back: tuples become lists
    ours |= {name: digest(listing) for name, listing in lists.items()}
    if not (folder / NAME).is_file():
        with file_lock(folder, "manifest"):
            if not (folder / NAME).is_file():
                for name, listing in lists.items():
                    write_json(folder / f"{name}.json", listing)
                made = {"format": format_name, "config": ours, "config_hash": digest(ours), **more}
                write_json(folder / NAME, made | {"versions": versions()})
                return
    theirs = read_manifest(folder, format_name)["config"]
    if theirs == ours:
        return
    differing = {name for name in lists if theirs.get(name) != ours[name]}
    both = [{key: value for key, value in one.items() if key not in differing} for one in (ours, theirs)]
    words = [difference(*both)] if both[0] != both[1] else []
    words += [f"{name}: {_changed(lists[name], folder / f'{name}.json')}" for name in sorted(differing)]
    raise InputError(
        f"{folder} was made with another configuration ({'; '.join(words)}): choose another folder, or remove this one."
    )


@checked
def read_manifest(folder: Path, format_name: str) -> dict[str, Any]:
    """Return the manifest of a folder; raise `InputError` for a damaged one, or one of another format."""
    path = folder / NAME
    try:
        manifest: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    except (FileNotFoundError, NotADirectoryError, ValueError, RecursionError) as error:
        raise InputError(f"{path} is missing or damaged ({error}): remove its folder and make it again.") from error
    if not isinstance(manifest, dict) or manifest.get("format") != format_name:
        found = manifest.get("format") if isinstance(manifest, dict) else None
        raise InputError(
            f"{folder} has format {found!r}, but this version reads {format_name!r}: "
            "run what made it again, into another folder."
        )
    return manifest


def write_json(path: Path, content: object) -> None:
    """Write a JSON file, whole or not at all."""
    with whole_file(path) as temporary:
        temporary.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")


def _changed(ours: Mapping[str, str], path: Path) -> str:
    """Say how a listing differs from the one in a file: what is new, gone or replaced."""
    try:
        theirs: Mapping[str, str] = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return f"others (which ones is not known: {path} cannot be read)"
    kinds = {
        "new": [item for item in ours if item not in theirs],
        "gone": [item for item in theirs if item not in ours],
        "replaced": [item for item in ours if item in theirs and ours[item] != theirs[item]],
    }
    found = [f"{len(items)} {kind}, first {items[0]}" for kind, items in kinds.items() if items]
    return ", ".join(found) or "another order"
