"""Domains by the inner products of their class means, which suffice to compare them and are small. No torch.

With separate positions, RN50's earliest sites have 802,816 features per image, so 345 class means of one site take
1.1 GB, and all sites 10 GB.

Class means are appended to a temporary file per site, as differences from the site's first row. That row is in
double precision, so differences in single precision lose no digits to a common part. The Gram matrix is summed over
blocks of features that fit a budget.

Centring changes neither distances nor unbiased HSIC, and avoids small differences of large numbers in both.
"""

import os
import tempfile
from collections.abc import Collection, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import numpy as np
from jaxtyping import Float

from circuitry.runs.arrays import read_arrays, write_arrays
from circuitry.runs.errors import InputError, naming_damage
from circuitry.runs.files import TORN
from circuitry.runs.given import checked
from circuitry.runs.manifest import read_manifest

REPRESENTATIONS_FORMAT = "circuitry representations 3"
"""Name and version of a folder of representations and of its files."""


@dataclass(frozen=True, eq=False)
class Grams:
    """Inner products of a domain's classes at every site."""

    domain: str
    classes: tuple[str, ...]
    """Names of the rows, in order."""
    by_site: Mapping[str, Float[np.ndarray, "_ _"]]
    """Gram matrices [classes, classes] of centred class means; NaN in the row and column of a class without images."""

    def present(self, site: str) -> tuple[str, ...]:
        """Return the classes that have images."""
        there = np.isfinite(self.by_site[site].diagonal())
        return tuple(name for name, is_there in zip(self.classes, there, strict=True) if is_there)

    def only(self, classes: Collection[str]) -> "Grams":
        """Return the same for some classes; unknown ones are ignored."""
        kept = tuple(name for name in self.classes if name in classes)
        return Grams(self.domain, kept, {site: self.among(kept, site) for site in self.by_site})

    def among(self, classes: Sequence[str], site: str) -> Float[np.ndarray, "rows rows"]:
        """Return the inner products of some classes, in their order."""
        rows = [self.classes.index(name) for name in classes]
        return self.by_site[site][np.ix_(rows, rows)]


@dataclass(frozen=True, eq=False)
class DomainRepresentation:
    """A domain's images at every site."""

    grams: Grams
    """Inner products of the class means of all images."""
    parts: tuple[Grams, ...]
    """Inner products of each part of the images; an item is in the same part in every domain."""
    unit_means: Mapping[str, Float[np.ndarray, "_ _"]]
    """By site, each image's activation averaged over positions [images, units]."""
    image_classes: tuple[str, ...]
    """Class of every image."""
    image_items: tuple[str, ...]
    """Item of every image, by name: images of one item belong together, in all domains."""

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write everything into one file, whole or not at all."""
        grams = {"all": self.grams, **{f"part-{i}": part for i, part in enumerate(self.parts)}}
        arrays = {f"{part}/{site}": gram for part, own in grams.items() for site, gram in own.by_site.items()}
        arrays |= {f"units/{site}": means for site, means in self.unit_means.items()}
        header = {
            "domain": self.grams.domain,
            "classes": self.grams.classes,
            "sites": list(self.grams.by_site),
            "n_parts": len(self.parts),
            "image_classes": self.image_classes,
            "image_items": self.image_items,
        }
        write_arrays(path, REPRESENTATIONS_FORMAT, header, arrays)

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> "DomainRepresentation":
        """Read what `save` wrote; raise `InputError` for a missing or damaged file, or one of another version."""
        header, arrays = read_arrays(path, REPRESENTATIONS_FORMAT, "representation of a domain")
        with naming_damage(path):
            sites = header["sites"]

            def grams(part: str) -> Grams:
                by_site = {site: arrays[f"{part}/{site}"] for site in sites}
                return Grams(header["domain"], tuple(header["classes"]), by_site)

            parts = tuple(grams(f"part-{i}") for i in range(header["n_parts"]))
            units = {site: arrays[f"units/{site}"] for site in sites}
            return cls(grams("all"), parts, units, tuple(header["image_classes"]), tuple(header["image_items"]))


@checked
def read_representations(folder: str | os.PathLike[str]) -> list[DomainRepresentation]:
    """Return the representations of all domains that `extract_representations` left in a folder.

    Raises:
        InputError: for another folder, an unfinished one, or damaged files.
    """
    place = Path(folder)
    if not (place / "manifest.json").is_file():
        raise InputError(
            f"{place} is no folder of representations (it has no manifest.json): make one with "
            "extract_representations()."
        )
    jobs = read_manifest(place, REPRESENTATIONS_FORMAT)["jobs"]
    found = {domain: DomainRepresentation.load(representation_file(place, domain)) for (domain,) in jobs}
    for domain, one in found.items():
        if one.grams.domain != domain:
            raise InputError(
                f"{representation_file(place, domain)} holds the domain {one.grams.domain}: run what made the folder "
                "again, which makes it again."
            )
    return list(found.values())


def representation_file(folder: Path, domain: str) -> Path:
    """Return the path of a domain's file in a folder of representations."""
    return folder / f"{domain}.safetensors"


def gram_matrix(features: Float[np.ndarray, "rows features"]) -> Float[np.ndarray, "rows rows"]:
    """Return the inner products of all pairs of rows, in double precision, each feature centred."""
    x = features.astype(np.float64)
    x -= x[0].copy()  # first, so that rows that are all equal become zeros and not rounding errors
    x -= x.mean(0)
    return x @ x.T


class RowFiles(ExitStack):
    """Rows of features by site in temporary files, which vanish with the process, however it ends.

    They take 4 bytes per row and feature (8 in double precision), in ``folder`` (default: the system's folder for
    temporary files).

    Example:
        >>> with RowFiles("runs/x") as rows:
        ...     for name in classes:
        ...         rows.add(class_mean(name))  # {site: features}
        ...     grams = {site: rows.gram(site, memory_gib=1) for site in sites}
    """

    def __init__(self, folder: str | Path | None = None, dtype: type[np.floating[Any]] = np.float32) -> None:
        super().__init__()
        self._folder, self._dtype = folder, np.dtype(dtype)
        self._files: dict[str, IO[bytes]] = {}
        self._first: dict[str, np.ndarray] = {}
        self._rows = 0

    def __len__(self) -> int:
        return self._rows

    def add(self, row: Mapping[str, Float[np.ndarray, " _"]]) -> None:
        """Append a row to every site; all have the sites and features of the first."""
        if not self._rows:
            for site, features in row.items():
                file = tempfile.TemporaryFile(dir=self._folder, prefix=TORN)  # noqa: SIM115
                self._files[site] = self.enter_context(file)
                self._first[site] = features.astype(np.float64)
        for site, features in row.items():
            self._files[site].write((features - self._first[site]).astype(self._dtype).data)
        self._rows += 1

    def gram(self, site: str, memory_gib: float = 1.0) -> Float[np.ndarray, "rows rows"]:
        """Return the Gram matrix of a site's rows, each feature centred, within a budget for blocks of features."""
        features = len(self._first[site])
        per_number = self._dtype.itemsize + 8  # as read, and in double precision
        width = max(1, int(memory_gib * 2**30) // (per_number * self._rows))
        total = np.zeros((self._rows, self._rows))
        for start in range(0, features, width):
            total += gram_matrix(self._block(site, start, min(start + width, features)))
        return total

    def _block(self, site: str, start: int, stop: int) -> np.ndarray:
        file, rows = self._files[site], []  # read, not mapped: mapped pages take memory outside the budget
        for i in range(self._rows):
            file.seek(self._dtype.itemsize * (i * len(self._first[site]) + start))
            rows.append(np.fromfile(file, self._dtype, stop - start))
        return np.stack(rows)
