"""Write the files of an experiment: tables, their provenance, and lists of the classes and images.

Does not import torch.
"""

import json
from collections.abc import Collection, Iterable, Mapping, Sequence
from itertools import product
from pathlib import Path

import pandas as pd

from circuitry.comparison.table import write_named_table
from circuitry.data.domains import DomainFolder, ImageRecord
from circuitry.runs.files import whole_file
from circuitry.runs.provenance import command

TABLES = "tables"
"""Name of the listing of the tables that a command wrote. The listing is the file ``tables.txt`` beside the tables."""


def remove_stale_tables(folder: Path, written: Collection[str]) -> None:
    """Remove old tables from a folder, if an earlier run of the same command wrote them and this run does not.

    Tables of another command are kept. If the folder has no readable record of the command and the tables, all tables
    are kept.

    Args:
        folder: Folder of the tables, with ``provenance.json`` and ``tables.txt``.
        written: Names of the tables that the present run writes.
    """
    try:
        provenance = json.loads((folder / "provenance.json").read_text("utf-8"))
        before = str(provenance["command"])
        listed = (folder / f"{TABLES}.txt").read_text(encoding="utf-8").splitlines()
    except (OSError, ValueError, LookupError, TypeError):
        # Without a readable record nobody knows which command wrote these tables, so they stay.
        return
    if _program(before) != _program(command()):
        return
    stale = set(listed) - set(written)
    # Only files below the folder go, whatever the listing says.
    for path in folder.rglob("*.csv"):
        if path.relative_to(folder).with_suffix("").as_posix() in stale:
            path.unlink()


def _program(line: str) -> list[str]:
    """Return the program and the subcommand of a command line: the first two words, without options."""
    return [word for word in line.split()[:2] if not word.startswith("-")]


def write_with_provenance(
    tables: Mapping[str, pd.DataFrame],
    folder: Path,
    provenance: Mapping[str, object],
    listings: Mapping[str, Sequence[str]] | None = None,
) -> list[Path]:
    """Write tables into a folder as CSV files, and return their paths.

    The files ``provenance.json``, and a text file for each listing, are written into the same folder.

    Args:
        provenance: Facts for ``provenance.json``. The command line of the script is added.
        listings: Lists of names, such as the classes and the images of the tables. Each list is written to
            ``<name>.txt``, with one name in each line.

    Example:
        >>> tables = {"accuracy": pd.DataFrame({"right": [0.5]})}
        >>> write_with_provenance(tables, Path("runs/told"), {"model": "rn-tiny"})
        [...accuracy.csv')]
    """
    paths = [folder / f"{name}.csv" for name in tables]
    # Numbers have six digits, because further digits differ between machines.
    for path, table in zip(paths, tables.values(), strict=True):
        write_named_table(path, table, "%.6g")
    facts = json.dumps({"command": command(), **provenance}, indent=1, default=str)
    texts = {"provenance.json": f"{facts}\n"}
    for name, items in (listings or {}).items():
        texts[f"{name}.txt"] = "".join(f"{item}\n" for item in items)
    for file_name, text in texts.items():
        with whole_file(folder / file_name) as temporary:
            temporary.write_text(text, encoding="utf-8")
    return paths


def listings_of(
    images: DomainFolder, n_images: int | None = None, seed: int = 0
) -> dict[str, list[str]]:
    """Return the names of the classes and images that `DomainFolder.select` draws from a folder of images.

    Args:
        images: The folder of images.
        n_images: Number of images to draw for each class in each domain (default: all images).
        seed: Seed of the draw.

    Returns:
        Dictionary with the sorted lists ``classes`` and ``images``.

    Example:
        >>> listings_of(folder, 2)["classes"]
        ['car', 'clock', 'cup', 'house']
    """
    records: list[ImageRecord] = []
    for name, domain in product(images.classes, images.domains):
        records += images.select(name, domain, n_images, seed)
    return listings_of_records(records)


def listings_of_records(records: Iterable[ImageRecord]) -> dict[str, list[str]]:
    """Return the names of the classes and of the images of some records.

    Returns:
        Dictionary with the lists ``classes`` and ``images``. Both are sorted, and each name occurs once.

    Example:
        >>> listings_of_records(folder.select("clock", "real", 2))["classes"]
        ['clock']
    """
    classes = set()
    images = set()
    for record in records:
        classes.add(record.class_name)
        images.add(record.relative)
    return {"classes": sorted(classes), "images": sorted(images)}
