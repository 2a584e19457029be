"""What is kept of a domain's activations: small enough to store for every site, and enough to compare domains.

Inner products of classes for CKA (`representation_similarity`), the unit means of every image for linear probes
(`probes`). Made by `representation_study`, read without torch.

No torch.
"""

import os
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

from circuitry.runs.arrays import read_arrays, write_arrays

FORMAT = "circuitry representation 1"
_HALVES = ("half-0", "half-1")


@dataclass(frozen=True, eq=False)
class Grams:
    """Inner products of a domain's rows, which are classes, at every site."""

    domain: str
    classes: tuple[str, ...]
    """What the rows are, in order."""
    by_site: Mapping[str, Float[np.ndarray, "_ _ _"]]
    """Gram matrices [batches, classes, classes] of centred features; NaN in the row and column of a class that a
    batch lacks."""


@dataclass(frozen=True, eq=False)
class DomainRepresentation:
    """A domain's images at every site."""

    grams: Grams
    """Of all images."""
    halves: tuple[Grams, Grams]
    """Of two halves of the images."""
    unit_means: Mapping[str, Float[np.ndarray, "_ _"]]
    """By site, each image's activation averaged over positions [images, units]."""
    image_classes: tuple[str, ...]
    """Class of every image."""

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write everything into one file, whole or not at all."""
        parts = {"all": self.grams, **dict(zip(_HALVES, self.halves, strict=True))}
        arrays = {f"{part}/{site}": gram for part, grams in parts.items() for site, gram in grams.by_site.items()}
        arrays |= {f"units/{site}": means for site, means in self.unit_means.items()}
        header = {
            "domain": self.grams.domain,
            "classes": self.grams.classes,
            "sites": list(self.grams.by_site),
            "image_classes": self.image_classes,
        }
        write_arrays(path, FORMAT, header, arrays)

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> "DomainRepresentation":
        """Read what `save` wrote.

        Raises:
            InputError: for a missing or damaged file, or one of another version.
        """
        header, arrays = read_arrays(path, FORMAT, "representation of a domain")
        sites = header["sites"]

        def grams(part: str) -> Grams:
            by_site = {site: arrays[f"{part}/{site}"] for site in sites}
            return Grams(header["domain"], tuple(header["classes"]), by_site)

        first, second = map(grams, _HALVES)
        units = {site: arrays[f"units/{site}"] for site in sites}
        return cls(grams("all"), (first, second), units, tuple(header["image_classes"]))
