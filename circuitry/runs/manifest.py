"""A folder of results with a file ``manifest.json`` that says what made the results.

The first run claims the folder by writing the manifest, and each later run checks it. So long work can be resumed, and
results of two configurations are never mixed. The manifest contains a checksum of its content (`write_sealed`). Long
listings are stored in files beside the manifest, which contains their digests.
"""

import json
import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from circuitry.runs.errors import InputError
from circuitry.runs.files import file_lock, whole_file
from circuitry.runs.identity import ROUNDED, Identity, same_entry
from circuitry.runs.provenance import difference, digest, versions

NAME = "manifest.json"
_CHECKSUM = "checksum"
_REMOVE = "remove its folder and make it again"

log = logging.getLogger(__name__)


def claim(
    folder: Path,
    format_name: str,
    config: Mapping[str, Any],
    listings: Mapping[str, Mapping[str, str]] | None = None,
    **more: object,
) -> dict[str, Any]:
    """Write the manifest of a new folder, or check that the manifest of an existing folder has the same configuration.

    If the file of a listing is missing or damaged, it is written again.

    Args:
        format_name: Name and version of the content of the folder.
        config: Everything that the results depend on, in values that JSON can hold.
        listings: Long lists that the results depend on, by name. A listing is a dictionary from items to what
            identifies them, for example from images to their size and checksum. It is stored in ``<name>.json`` beside
            the manifest. The configuration in the manifest contains the digest of the listing.
        more: Other entries for the manifest of a new folder. They are not checked for an existing folder.

    Returns:
        The manifest of the folder.

    Raises:
        InputError: if the folder has another format or configuration; the message names what differs.

    Example:
        >>> from circuitry.runs import claim
        >>> claim(Path("runs/mine"), "my measure 1", {"seed": 0})["format"]
        'my measure 1'
        >>> claim(Path("runs/mine"), "my measure 1", {"seed": 1})
        Traceback (most recent call last):
        circuitry.runs.errors.InputError: runs/mine was made with another configuration (seed: 0 -> 1): ...
    """
    Identity(config).check_known()
    lists = {name: dict(listing) for name, listing in (listings or {}).items()}
    # The configuration as it will be read from the file: tuples become lists.
    ours = json.loads(json.dumps(dict(config)))
    ours |= {name: digest(listing) for name, listing in lists.items()}
    if not (folder / NAME).is_file():
        with file_lock(folder, "manifest"):
            # Another process may have written the manifest while this process waited for the lock.
            if not (folder / NAME).is_file():
                # Listings are written first, so that a folder with a manifest is complete.
                for name, listing in lists.items():
                    write_json(folder / f"{name}.json", listing)
                manifest = {
                    "format": format_name,
                    "config": ours,
                    "config_hash": digest(ours),
                    **more,
                    "versions": versions(),
                }
                write_sealed(folder / NAME, manifest)
    manifest = read_manifest(folder, format_name)
    theirs = manifest["config"]
    # Another machine may round these entries differently. Within the tolerance they count as equal.
    for name in ROUNDED:
        if name in theirs and same_entry(theirs[name], ours.get(name)):
            ours[name] = theirs[name]
    if theirs == ours:
        for name, listing in lists.items():
            path = folder / f"{name}.json"
            if _listed(path, ours[name]) is None:
                log.warning("%s is written again: it is missing or damaged", path)
                write_json(path, listing)
        return manifest
    clauses = list[str]()
    # For listings the message names items, because different digests would tell the user nothing.
    for name in sorted(lists):
        expected = theirs.pop(name, None)
        if expected != ours.pop(name):
            changed = _changed(lists[name], folder / f"{name}.json", expected)
            clauses.append(f"{name}: {changed}")
    if ours != theirs:
        clauses.insert(0, difference(ours, theirs))
    raise InputError(
        f"{folder} was made with another configuration ({'; '.join(clauses)}): choose another folder, or remove this "
        "one."
    )


def read_manifest(folder: Path, format_name: str) -> dict[str, Any]:
    """Return the manifest of a folder.

    Raises:
        InputError: if the manifest is missing, damaged or of another format.

    Example:
        >>> manifest = circuitry.runs.claim(Path("runs/made"), "my measure 1", {"seed": 0})
        >>> circuitry.runs.read_manifest(Path("runs/made"), "my measure 1")["config"]
        {'seed': 0}
    """
    manifest = read_sealed(folder / NAME, _REMOVE)
    check_format(folder / NAME, manifest.get("format"), format_name)
    if manifest.get("config_hash") != digest(manifest.get("config")):
        raise InputError(
            f"{folder / NAME} is damaged (its configuration does not fit its hash): {_REMOVE}."
        )
    return manifest


def check_format(path: Path, found: object, format_name: str) -> None:
    """Raise `InputError` if a file has another format than expected, or another version of the format.

    Args:
        found: Name and version of the format that the file has.
        format_name: Name and version of the format that is expected.
    """
    if found != format_name:
        todo = "give one of that kind"
        # A format is a name and a version. With the same name, another version of the package wrote the file.
        if str(found).rpartition(" ")[0] == format_name.rpartition(" ")[0]:
            todo = "run what made it again, into another folder"
        raise InputError(
            f"{path} has format {found!r}, but {format_name!r} is read here: {todo}."
        )


def read_listing(path: Path) -> dict[str, str]:
    """Return a listing that is stored beside a manifest, as a dictionary from items to what identifies them.

    Raises:
        InputError: if the listing or the manifest is missing or damaged.
    """
    config = read_sealed(path.with_name(NAME), _REMOVE).get("config", {})
    listing = _listed(path, config.get(path.stem))
    if listing is None:
        raise InputError(
            f"{path} is missing or damaged: run what made its folder again, which writes it again."
        )
    return listing


def write_sealed(path: Path, content: Mapping[str, object]) -> None:
    """Write a JSON object together with a checksum of its content, completely or not at all."""
    write_json(path, {**content, _CHECKSUM: digest(content)})


def read_sealed(path: Path, advice: str) -> dict[str, Any]:
    """Return the object that `write_sealed` wrote into a file.

    Args:
        advice: What the message tells the user to do about a missing or damaged file.

    Raises:
        InputError: if the file is missing or damaged.
    """
    if not path.exists():
        raise InputError(f"{path} is missing: {advice}.")
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        if not isinstance(content, dict):
            raise ValueError(f"expected an object, found {type(content).__name__}")
        # The checksum is taken out first, because it was computed for all other entries.
        if content.pop(_CHECKSUM, None) != digest(content):
            raise ValueError("its checksum does not fit")
    except (ValueError, RecursionError) as error:
        raise InputError(f"{path} is damaged ({error}): {advice}.") from error
    return content


def write_json(path: Path, content: object) -> None:
    """Write a JSON file, completely or not at all."""
    with whole_file(path) as temporary:
        temporary.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")


def _listed(path: Path, expected: object) -> dict[str, str] | None:
    """Return the listing in a file, or None if the file is missing or the listing does not have the expected digest."""
    try:
        listing = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return None
    if isinstance(listing, dict) and digest(listing) == expected:
        return listing
    return None


def _changed(ours: Mapping[str, str], path: Path, expected: object) -> str:
    """Say how a listing differs from the listing in a file: which items are new, gone or replaced.

    Args:
        ours: The listing.
        path: The file of the other listing.
        expected: The digest that the other listing should have.
    """
    theirs = _listed(path, expected)
    if theirs is None:
        return f"others (which ones is not known: {path} is missing or damaged)"
    kinds: dict[str, list[str]] = {"new": [], "gone": [], "replaced": []}
    for item, identified_by in ours.items():
        if item not in theirs:
            kinds["new"].append(item)
        elif theirs[item] != identified_by:
            kinds["replaced"].append(item)
    kinds["gone"] = [item for item in theirs if item not in ours]
    clauses = list[str]()
    for kind, items in kinds.items():
        if items:
            clauses.append(f"{len(items)} {kind}, first {items[0]}")
    return ", ".join(clauses)


def check_folder(path: Path) -> None:
    """Raise `InputError` if a folder is not a folder of circuits.

    If a folder in it is a folder of circuits, the message names that folder.
    """
    # The usual mistake is to give the parent folder.
    for inner in sorted(path.glob("*/")):
        if (inner / "graphs").is_dir() and (inner / NAME).is_file():
            raise InputError(
                f"{path} is no folder of circuits, but {inner} is: give that folder."
            )
    if not (path / NAME).is_file():
        fault = f"There is no folder {path}"
        if path.is_dir():
            fault = f"{path} is no folder of circuits (it has no {NAME})"
        raise InputError(
            f"{fault}: make one with circuitry find or circuitry compare, or extract() in Python."
        )
