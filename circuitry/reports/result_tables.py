"""The files of an experiment: tables, their provenance, and its classes and images. No torch."""

import json
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import pandas as pd

from circuitry.comparison.table import write_named_table
from circuitry.data.domains import DomainFolder, ImageRecord
from circuitry.runs.files import whole_file
from circuitry.runs.provenance import command, versions


@dataclass(frozen=True)
class KeepSettings:
    """Where a script that prints tables also writes them."""

    results: Path | None = None
    """Folder for the tables and their provenance."""

    def keep(
        self,
        tables: Mapping[str, pd.DataFrame],
        shown: Sequence[str] | None = None,
        **facts: object,
    ) -> None:
        """Print the tables, or those shown, and write all, with the script's settings and further facts."""
        for name in tables if shown is None else shown:
            print(
                f"{name}:\n{tables[name].to_string(index=False, float_format='{:.3g}'.format)}"
            )
        if self.results is not None:
            settings = {
                name: value for name, value in asdict(self).items() if name != "results"
            }
            write_with_provenance(tables, self.results, settings | facts | versions())


TABLES = "tables"
"""Listing of the tables that a command wrote, ``tables.txt`` beside them."""


def remove_stale_tables(folder: Path, written: Collection[str]) -> None:
    """Remove the tables in a folder that the same command left there, and does not write now; others stay."""
    try:
        before = json.loads((folder / "provenance.json").read_text(encoding="utf-8"))[
            "command"
        ]
        listed = (folder / f"{TABLES}.txt").read_text(encoding="utf-8").splitlines()
    except (OSError, ValueError, LookupError, TypeError):
        return  # nothing is known of what is there
    if _program(str(before)) != _program(command()):
        return
    stale = set(listed) - set(written)
    for path in folder.rglob("*.csv"):
        if path.relative_to(folder).with_suffix("").as_posix() in stale:
            path.unlink()


def _program(line: str) -> list[str]:
    """Return a command line without its options."""
    return [word for word in line.split()[:2] if not word.startswith("-")]


def write_with_provenance(
    tables: Mapping[str, pd.DataFrame],
    folder: Path,
    provenance: Mapping[str, object],
    listings: Mapping[str, Sequence[str]] | None = None,
) -> list[Path]:
    """Write tables and, beside them, ``provenance.json`` and a text file of each listing; return the tables' paths.

    Args:
        provenance: Facts for ``provenance.json``; the script's command is added.
        listings: Names of what the tables look at, e.g. classes and images: one a line in ``<name>.txt``.

    Example:
        >>> write_with_provenance({"ratio": table}, Path("experiments/results/trust"), {"seed": 0, **versions()})
    """
    paths = [folder / f"{name}.csv" for name in tables]
    for path, table in zip(paths, tables.values(), strict=True):
        write_named_table(path, table, "%.6g")
    for name, items in (listings or {}).items():
        with whole_file(folder / f"{name}.txt") as temporary:
            temporary.write_text(
                "".join(f"{item}\n" for item in items), encoding="utf-8"
            )
    with whole_file(folder / "provenance.json") as temporary:
        temporary.write_text(
            json.dumps({"command": command(), **provenance}, indent=1, default=str)
            + "\n"
        )
    return paths


def listings_of(
    images: DomainFolder, n_images: int | None = None, seed: int = 0
) -> dict[str, list[str]]:
    """Return the classes, and the images that `DomainFolder.select` chooses of each class in each domain.

    Example:
        >>> write_results(report, tables, out, results, provenance, listings=listings_of(images, 50))
    """
    cells = ((name, domain) for name in images.classes for domain in images.domains)
    return listings_of_records(
        record for cell in cells for record in images.select(*cell, n_images, seed)
    )


def listings_of_records(records: Iterable[ImageRecord]) -> dict[str, list[str]]:
    """Return the classes and the images, each once, in the order of their names."""
    there = list(records)
    return {
        "classes": sorted({record.class_name for record in there}),
        "images": sorted({record.relative for record in there}),
    }
