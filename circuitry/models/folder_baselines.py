"""Baselines for a data set: the values that replace ablated activations, for every class and domain.

A baseline is given, or it is made of the data by its name:

- ``zero``: zero;
- ``mean-position``, ``mean-unit``: the mean activation over the chosen images of all classes and domains, at each
  position or over all positions;
- ``other-domains``: the mean activation at each position over the chosen images of the same class in the other domains;
- ``counterfactual``: for every image one of another class in the same domain. The other classes are drawn by the seed,
  each gives its first image, then each its second, and so on.

The last two differ by class and domain. `DomainFolder.select` chooses the images of a class in a domain by ``n_images``
and ``seed``. Where none is given it is mean-position.
"""

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import chain, product

import torch
from torch import Tensor

from circuitry.data.domains import DomainFolder, ImageRecord
from circuitry.data.splits import in_turn
from circuitry.encoder.baselines import (
    MEANS,
    ZERO,
    AnyBaseline,
    Baseline,
    Counterfactual,
    as_baseline,
    mean_baseline,
)
from circuitry.encoder.choices import BASELINE_NAMES
from circuitry.models.clip import Clip
from circuitry.models.image_pass import image_batches
from circuitry.runs.arguments import Count, Seed, checked
from circuitry.runs.errors import InputError

DEFAULT = "mean-position"
"""The baseline where none is given: circuits of a size work better at it than at zero, or at means over positions."""
_MADE_OF = {
    "counterfactual": "other classes in its domain",
    "other-domains": "its class in other domains",
}
"""Baseline -> the images that it is made of, for the message that there are none."""


@checked
@dataclass(frozen=True, eq=False)
class FolderBaseline:
    """A baseline for every class and domain of a data set.

    Example:
        >>> from circuitry.models import FolderBaseline
        >>> named = FolderBaseline("counterfactual", clip, folder, n_images=2)
        >>> len(named.of("clock", "sketch", 3).images)
        3
    """

    choice: AnyBaseline | None
    """One of `BASELINE_NAMES`, or what a `Task` takes for all images alike (default: mean-position)."""
    clip: Clip  #: The model whose activations are taken.
    images: DomainFolder
    """The data; means and draws are over its selected classes and domains."""
    n_images: Count = 50
    """Images per class and domain."""
    seed: Seed = 0
    """Seed of the choice of images."""

    def __post_init__(self) -> None:
        if isinstance(self.choice, str) and self.choice not in BASELINE_NAMES:
            raise InputError(
                f"Expected one of the baselines {', '.join(BASELINE_NAMES)}, but {self.choice!r} was given."
            )

    @cached_property
    def given(self) -> Baseline | Counterfactual | None:
        """The baseline of all images, where it is not made of the data."""
        if self.choice is None:
            return None
        if isinstance(self.choice, str) and self.choice != ZERO.name:
            return None
        return as_baseline(self.choice)

    @property
    def name(self) -> str:
        """For tables and provenance."""
        if self.given is not None:
            return self.given.name
        return str(self.choice or DEFAULT)

    def records_of(self, keys: Sequence[tuple[str, str]]) -> list[ImageRecord]:
        """Return the images that shape the baselines of several (class, domain), each once; see `records`."""
        # A mean over all images is the same for every class and domain.
        if self.name in MEANS:
            keys = keys[:1]
        return list(dict.fromkeys(chain(*(self.records(*key) for key in keys))))

    def records(self, class_name: str, domain: str) -> tuple[ImageRecord, ...]:
        """Return the images that shape the baseline of a class in a domain; raise `InputError` where there are none."""
        if self.given is not None:
            return ()
        if self.name in MEANS:
            return self._everything
        if self.name == "counterfactual":
            records = self._drawn(class_name, domain)
        else:
            others = [other for other in self.images.domains if other != domain]
            records = self._chosen([class_name], others)
        if not records:
            raise InputError(
                f"The baseline {self.name!r} of {class_name} in {domain} is made of images of {_MADE_OF[self.name]}, "
                "but there are none: take another baseline, or more classes and domains."
            )
        return records

    def of(
        self,
        class_name: str,
        domain: str,
        count: int,
        *,
        strict: bool = False,
        progress: bool = True,
    ) -> Baseline | Counterfactual:
        """Return the baseline for ``count`` images of a class in a domain; with a bar where it takes longer."""
        if self.given is not None:
            return self.given
        if self.name in MEANS:
            return self._mean(strict, progress)
        records = self.records(class_name, domain)
        batches = self._batches(records, strict)
        if self.name == "other-domains":
            mean = mean_baseline(self.clip.encoder, batches, progress=progress)
            return replace(mean, name=self.name)
        # Files may be listed, and yet none be readable.
        images = list(batches)
        if not images:
            raise InputError(
                f"No counterfactual image of {class_name} in {domain} can be read, first {records[0].path}."
            )
        # With too few counterfactual images, they serve again in turn.
        read = torch.cat(images)
        return Counterfactual(read[torch.arange(count) % len(read)])

    def _mean(self, strict: bool, progress: bool) -> Baseline:
        """Return the mean over all images, taken once for an encoder."""
        encoder = self.clip.encoder
        # One pass over all images serves all classes, as long as the encoder is the same.
        identity = encoder.identity
        # An encoder that cannot be identified has no key: its mean is taken each time.
        made_of = None if identity.unknown else (identity.key, strict)
        if made_of in self._means:
            return self._means[made_of]
        batches = self._batches(
            self._everything, strict, "images of the baseline" if progress else None
        )
        mean = mean_baseline(encoder, batches, MEANS[self.name], progress=progress)
        if made_of is not None:
            self._means[made_of] = mean
        return mean

    @cached_property
    def _means(self) -> dict[tuple[str, bool], Baseline]:
        """Means over all images by the key of the encoder that they were taken in, and whether all had to be read."""
        return {}

    @cached_property
    def _everything(self) -> tuple[ImageRecord, ...]:
        return self._chosen(self.images.classes, self.images.domains)

    def _chosen(
        self, classes: Sequence[str], domains: Sequence[str]
    ) -> tuple[ImageRecord, ...]:
        """Return the chosen images, domain by domain and class by class."""
        records: list[ImageRecord] = []
        for domain in domains:
            for name in classes:
                records += self.images.select(name, domain, self.n_images, self.seed)
        return tuple(records)

    def _drawn(self, class_name: str, domain: str) -> tuple[ImageRecord, ...]:
        """Return the counterfactual images; see the module."""

        def rank(other: str) -> bytes:
            # A hash, so that the order of the other classes does not depend on how many there are.
            drawn = f"{self.seed}\0{class_name}\0{other}"
            return hashlib.sha256(drawn.encode()).digest()

        others = sorted(set(self.images.classes) - {class_name}, key=rank)
        by_class = [self._ranked[other, domain] for other in others]
        return in_turn(by_class)[: self.n_images]

    @cached_property
    def _ranked(self) -> dict[tuple[str, str], Sequence[ImageRecord]]:
        """All images by (class, domain), as the seed ranks them."""
        ranked: dict[tuple[str, str], Sequence[ImageRecord]] = {}
        for key in product(self.images.classes, self.images.domains):
            ranked[key] = self.images.ranked(*key, self.seed)
        return ranked

    def _batches(
        self, records: Sequence[ImageRecord], strict: bool, progress: str | None = None
    ) -> Iterator[Tensor]:
        clip = self.clip
        passed = image_batches(
            clip.encoder, clip.preprocess, records, strict=strict, progress=progress
        )
        return (batch for _, batch in passed)
