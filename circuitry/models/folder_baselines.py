"""What replaces ablated activations of the images of a data set: a baseline, or a name that is made of the data.

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
from itertools import islice, zip_longest

import torch
from torch import Tensor

from circuitry.data.domains import DomainFolder, ImageRecord
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
from circuitry.runs.errors import InputError
from circuitry.runs.given import Count, Seed, checked

DEFAULT = "mean-position"
"""The baseline where none is given: circuits of a size work better at it than at zero, or at means over positions."""


@checked
@dataclass(frozen=True, eq=False)
class FolderBaseline:
    """A baseline for every class and domain of a data set.
    Example:
        >>> named = FolderBaseline("counterfactual", clip, images, n_images=10)
        >>> attribute(clip.encoder, batch, metric, baseline=named.of("cat", "sketch", len(batch)))
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
        choice = DEFAULT if self.choice is None else self.choice
        return (
            None
            if isinstance(choice, str) and choice != ZERO.name
            else as_baseline(choice)
        )

    @property
    def name(self) -> str:
        """For tables and provenance."""
        if self.given is not None:
            return self.given.name
        return DEFAULT if self.choice is None else str(self.choice)

    def records_of(self, keys: Sequence[tuple[str, str]]) -> list[ImageRecord]:
        """Return the images that shape the baselines of several (class, domain), each once; see `records`."""
        asked = keys[:1] if self.name in MEANS else keys
        return list(
            dict.fromkeys(record for key in asked for record in self.records(*key))
        )

    def records(self, class_name: str, domain: str) -> tuple[ImageRecord, ...]:
        """Return the images that shape the baseline of a class in a domain; raise `InputError` where there are none."""
        if self.given is not None:
            return ()
        if self.name == "counterfactual":
            found = self._drawn(class_name, domain)
        elif self.name == "other-domains":
            others = [other for other in self.images.domains if other != domain]
            found = [
                record for other in others for record in self._chosen(class_name, other)
            ]
        else:
            found = self._everything
        if not found:
            lacking = (
                "other classes in its domain"
                if self.name == "counterfactual"
                else "its class in other domains"
            )
            raise InputError(
                f"The baseline {self.name!r} of {class_name} in {domain} is made of images of {lacking}, but there are "
                "none: take another baseline, or more classes and domains."
            )
        return tuple(found)

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
            identity = self.clip.encoder.identity
            kept, made_of = (
                (self._means, (identity.key, strict))
                if not identity.unknown
                else ({}, ("", strict))
            )
            if made_of not in kept:
                batches = self._batches(
                    self._everything,
                    strict,
                    "images of the baseline" if progress else None,
                )
                kept[made_of] = mean_baseline(
                    self.clip.encoder, batches, MEANS[self.name], progress=progress
                )
            return kept[made_of]
        records = self.records(class_name, domain)
        if self.name == "other-domains":
            batches = self._batches(records, strict, None)
            return replace(
                mean_baseline(self.clip.encoder, batches, progress=progress),
                name=self.name,
            )
        images = list(self._batches(records, strict, None))
        if not images:
            raise InputError(
                f"No counterfactual image of {class_name} in {domain} can be read, first {records[0].path}."
            )
        read = torch.cat(images)
        return Counterfactual(read[torch.arange(count) % len(read)])

    @cached_property
    def _means(self) -> dict[tuple[str, bool], Baseline]:
        """Means over all images by the key of the encoder that they were taken in, and whether all had to be read."""
        return {}

    @cached_property
    def _everything(self) -> list[ImageRecord]:
        return [
            r
            for d in self.images.domains
            for c in self.images.classes
            for r in self._chosen(c, d)
        ]

    def _chosen(self, class_name: str, domain: str) -> tuple[ImageRecord, ...]:
        return self.images.select(class_name, domain, self.n_images, self.seed)

    def _drawn(self, class_name: str, domain: str) -> list[ImageRecord]:
        """Return the counterfactual images; see the module."""

        def rank(other: str) -> bytes:
            return hashlib.sha256(
                f"{self.seed}\0{class_name}\0{other}".encode()
            ).digest()

        others = sorted(
            (name for name in self.images.classes if name != class_name), key=rank
        )
        rounds = zip_longest(*(self._ranked[other, domain] for other in others))
        return list(
            islice(
                (record for one in rounds for record in one if record is not None),
                self.n_images,
            )
        )

    @cached_property
    def _ranked(self) -> dict[tuple[str, str], tuple[ImageRecord, ...]]:
        """All images by (class, domain), as the seed ranks them."""
        pairs = [(c, d) for c in self.images.classes for d in self.images.domains]
        return {(c, d): self.images.select(c, d, None, self.seed) for c, d in pairs}

    def _batches(
        self, records: Sequence[ImageRecord], strict: bool, progress: str | None
    ) -> Iterator[Tensor]:
        encoder, preprocess = self.clip.encoder, self.clip.preprocess
        return (
            batch
            for _, batch in image_batches(
                encoder, preprocess, records, strict=strict, progress=progress
            )
        )
