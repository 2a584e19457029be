"""The inner products (Gram matrix) of a domain's class means, which suffice to compare domains by CKA.

The class means are centred first. This changes neither their distances nor unbiased HSIC, and it avoids small
differences of large numbers in both.

Does not import torch.
"""

import os
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from itertools import compress
from pathlib import Path

from circuitry.runs import (
    InputError,
    naming_damage,
    read_arrays,
    read_manifest,
    write_arrays,
)
from circuitry.runs.arguments import checked

import numpy as np
from jaxtyping import Float

REPRESENTATIONS_FORMAT = "circuitry representations 4"
"""Name and version of a folder of representations and of its files."""


@dataclass(frozen=True, eq=False)
class Grams:
    """Inner products of a domain's class means at every site."""

    domain: str
    classes: tuple[str, ...]
    """The class of each row of the Gram matrices."""
    by_site: Mapping[str, Float[np.ndarray, "_ _"]]
    """Gram matrices [classes, classes] of centred class means; NaN in the row and column of a class without images."""

    def present(self, site: str) -> tuple[str, ...]:
        """Return the classes that have images, in order."""
        # The inner product of a class with itself is NaN only if the class has no images.
        return tuple(compress(self.classes, np.isfinite(self.by_site[site].diagonal())))

    def only(self, classes: Collection[str]) -> "Grams":
        """Return the inner products of the given classes alone; unknown classes are ignored."""
        chosen = tuple(name for name in self.classes if name in classes)
        # The mean of all classes, not of the chosen ones, stays the centre: CKA does not depend on it.
        by_site = {site: self.among(chosen, site) for site in self.by_site}
        return Grams(self.domain, chosen, by_site)

    def among(
        self, classes: Sequence[str], site: str
    ) -> Float[np.ndarray, "rows rows"]:
        """Return the inner products of the given classes at a site; rows are in the order of ``classes``."""
        rows = list(map(self.classes.index, classes))
        return self.by_site[site][np.ix_(rows, rows)]


@dataclass(frozen=True, eq=False)
class DomainRepresentation:
    """The representation of a domain's images at every site."""

    grams: Grams
    """Inner products of the class means over all images."""
    folds: tuple[Grams, ...]
    """Inner products of the class means over each fold; the images of an item are in the same fold in every domain."""
    unit_means: Mapping[str, Float[np.ndarray, "_ _"]]
    """By site, the activation of each unit averaged over positions [images, units]."""
    image_classes: tuple[str, ...]
    """Class of every image."""
    image_items: tuple[str, ...]
    """Name of the item of every image; images of one item may be in several domains."""

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write everything into one file, which is never left half written."""
        arrays = {f"all/{site}": gram for site, gram in self.grams.by_site.items()}
        for i, fold in enumerate(self.folds):
            for site, gram in fold.by_site.items():
                arrays[f"fold-{i}/{site}"] = gram
        for site, means in self.unit_means.items():
            arrays[f"units/{site}"] = means
        header = {
            "domain": self.grams.domain,
            "classes": self.grams.classes,
            "sites": list(self.grams.by_site),
            "n_folds": len(self.folds),
            "image_classes": self.image_classes,
            "image_items": self.image_items,
        }
        write_arrays(path, REPRESENTATIONS_FORMAT, header, arrays)

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> "DomainRepresentation":
        """Read a file of `save`; raise `InputError` if it is missing, damaged or of another version."""
        header, arrays = read_arrays(
            path, REPRESENTATIONS_FORMAT, "representation of a domain"
        )
        # A header that lacks a key, or names arrays that are missing, becomes an error that names the file.
        with naming_damage(path):
            sites = header["sites"]

            def grams(images: str) -> Grams:
                by_site = {site: arrays[f"{images}/{site}"] for site in sites}
                return Grams(header["domain"], tuple(header["classes"]), by_site)

            folds = tuple(grams(f"fold-{i}") for i in range(header["n_folds"]))
            units = {site: arrays[f"units/{site}"] for site in sites}
            return cls(
                grams("all"),
                folds,
                units,
                tuple(header["image_classes"]),
                tuple(header["image_items"]),
            )


@checked
def read_representations(folder: str | os.PathLike[str]) -> list[DomainRepresentation]:
    """Return the representations of all domains from a folder of `extract_representations`."""
    place = Path(folder)
    if not (place / "manifest.json").is_file():
        raise InputError(
            f"{place} is no folder of representations (it has no manifest.json): make one with "
            "extract_representations()."
        )
    # The manifest, not a listing of files, so that a missing domain is an error and the order is the order of the jobs.
    jobs = read_manifest(place, REPRESENTATIONS_FORMAT)["jobs"]
    return [
        DomainRepresentation.load(representation_file(place, domain))
        for (domain,) in jobs
    ]


def representation_file(folder: Path, domain: str) -> Path:
    """Return the path of a domain's file in a folder of representations."""
    return folder / f"{domain}.safetensors"


def gram_matrix(
    features: Float[np.ndarray, "rows features"],
) -> Float[np.ndarray, "rows rows"]:
    """Return the inner products of all pairs of rows in double precision, after the mean of each feature is removed."""
    x = features.astype(np.float64)
    # Before the mean, so that rows which are all equal become exact zeros: the rounded mean would leave small errors.
    x -= x[0].copy()
    x -= x.mean(0)
    return x @ x.T
