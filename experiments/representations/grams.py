"""Domains by the inner products of their class means, which suffice to compare them. No torch.

Centring changes neither distances nor unbiased HSIC, and avoids small differences of large numbers in both.
"""

import os
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
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
    """Inner products of a domain's classes at every site."""

    domain: str
    classes: tuple[str, ...]
    """Names of the rows, in order."""
    by_site: Mapping[str, Float[np.ndarray, "_ _"]]
    """Gram matrices [classes, classes] of centred class means; NaN in the row and column of a class without images."""

    def present(self, site: str) -> tuple[str, ...]:
        """Return the classes that have images."""
        there = np.isfinite(self.by_site[site].diagonal())
        return tuple(
            name for name, is_there in zip(self.classes, there, strict=True) if is_there
        )

    def only(self, classes: Collection[str]) -> "Grams":
        """Return the same for some classes; unknown ones are ignored."""
        kept = tuple(name for name in self.classes if name in classes)
        return Grams(
            self.domain, kept, {site: self.among(kept, site) for site in self.by_site}
        )

    def among(
        self, classes: Sequence[str], site: str
    ) -> Float[np.ndarray, "rows rows"]:
        """Return the inner products of some classes, in their order."""
        rows = [self.classes.index(name) for name in classes]
        return self.by_site[site][np.ix_(rows, rows)]


@dataclass(frozen=True, eq=False)
class DomainRepresentation:
    """A domain's images at every site."""

    grams: Grams
    """Inner products of the class means of all images."""
    folds: tuple[Grams, ...]
    """Inner products of each fold of the images; an item is in the same fold in every domain."""
    unit_means: Mapping[str, Float[np.ndarray, "_ _"]]
    """By site, each image's activation averaged over positions [images, units]."""
    image_classes: tuple[str, ...]
    """Class of every image."""
    image_items: tuple[str, ...]
    """Item of every image, by name: images of one item belong together, in all domains."""

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write everything into one file, whole or not at all."""
        grams = {
            "all": self.grams,
            **{f"fold-{i}": fold for i, fold in enumerate(self.folds)},
        }
        arrays = {
            f"{fold}/{site}": gram
            for fold, own in grams.items()
            for site, gram in own.by_site.items()
        }
        arrays |= {f"units/{site}": means for site, means in self.unit_means.items()}
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
        """Read what `save` wrote; raise `InputError` for a missing or damaged file, or one of another version."""
        header, arrays = read_arrays(
            path, REPRESENTATIONS_FORMAT, "representation of a domain"
        )
        with naming_damage(path):
            sites = header["sites"]

            def grams(fold: str) -> Grams:
                by_site = {site: arrays[f"{fold}/{site}"] for site in sites}
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
    """Return the representations of all domains that `extract_representations` left in a folder."""
    place = Path(folder)
    if not (place / "manifest.json").is_file():
        raise InputError(
            f"{place} is no folder of representations (it has no manifest.json): make one with "
            "extract_representations()."
        )
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
    """Return the inner products of all pairs of rows, in double precision, each feature centred."""
    x = features.astype(np.float64)
    # First, so that rows that are all equal become zeros and not rounding errors.
    x -= x[0].copy()
    x -= x.mean(0)
    return x @ x.T
