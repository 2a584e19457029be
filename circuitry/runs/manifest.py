"""A folder of results that says what made it: ``manifest.json``, claimed by the first run and checked by the next.

So that long work goes on where it stopped, and results of two configurations never mix. JSON files hold a checksum of
their content (`write_sealed`); long listings lie beside the manifest, which holds their digests.
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
    """Write the manifest of a new folder, or check that the one there has the same configuration; return it.

    A listing that is missing or damaged is written again.

    Args:
        format_name: Name and version of what lies in it.
        config: Everything that shapes a number, in values that JSON can hold.
        listings: Long lists that shape a number, by name: item -> what identifies it, e.g. image -> size and
            checksum. Each is kept in ``<name>.json`` beside the manifest, whose configuration holds its digest.

    Raises:
        InputError: for a folder of another format or configuration; the message names what differs.

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
    # As it will be read back: tuples become lists.
    ours = json.loads(json.dumps(dict(config)))
    ours |= {name: digest(listing) for name, listing in lists.items()}
    if not (folder / NAME).is_file():
        with file_lock(folder, "manifest"):
            # Another process may have written it while this one waited for the lock.
            if not (folder / NAME).is_file():
                # Listings first: a folder with a manifest is complete.
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
    # Another machine rounds these entries otherwise: within the tolerance the folder's numbers stand for ours.
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
    # Listings are told by their items: that their digests differ would say nothing.
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
    """Return the manifest of a folder; raise `InputError` for a damaged one, or one of another format.

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
    """Raise `InputError` for a file of another format, or another version of it."""
    if found != format_name:
        todo = "give one of that kind"
        # A format is a name and a version: the same name was written by another version of the package.
        if str(found).rpartition(" ")[0] == format_name.rpartition(" ")[0]:
            todo = "run what made it again, into another folder"
        raise InputError(
            f"{path} has format {found!r}, but {format_name!r} is read here: {todo}."
        )


def read_listing(path: Path) -> dict[str, str]:
    """Return a listing beside a manifest: item -> what identifies it; `InputError` for a missing or damaged one."""
    config = read_sealed(path.with_name(NAME), _REMOVE).get("config", {})
    listing = _listed(path, config.get(path.stem))
    if listing is None:
        raise InputError(
            f"{path} is missing or damaged: run what made its folder again, which writes it again."
        )
    return listing


def write_sealed(path: Path, content: Mapping[str, object]) -> None:
    """Write a JSON object with a checksum of it, whole or not at all."""
    write_json(path, {**content, _CHECKSUM: digest(content)})


def read_sealed(path: Path, advice: str) -> dict[str, Any]:
    """Return the object that `write_sealed` wrote."""
    if not path.exists():
        raise InputError(f"{path} is missing: {advice}.")
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        if not isinstance(content, dict):
            raise ValueError(f"expected an object, found {type(content).__name__}")
        # The checksum is of everything else, so it is taken out first.
        if content.pop(_CHECKSUM, None) != digest(content):
            raise ValueError("its checksum does not fit")
    except (ValueError, RecursionError) as error:
        raise InputError(f"{path} is damaged ({error}): {advice}.") from error
    return content


def write_json(path: Path, content: object) -> None:
    """Write a JSON file, whole or not at all."""
    with whole_file(path) as temporary:
        temporary.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")


def _listed(path: Path, expected: object) -> dict[str, str] | None:
    """Return the listing in a file; None if the file is missing or its digest is not the expected one."""
    try:
        listing = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return None
    if isinstance(listing, dict) and digest(listing) == expected:
        return listing
    return None


def _changed(ours: Mapping[str, str], path: Path, expected: object) -> str:
    """Say how a listing differs from the one in a file: what is new, gone or replaced."""
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
    """Raise `InputError` for a folder that is none of circuits, and name the one in it that is."""
    # The usual mistake is a folder too high.
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
