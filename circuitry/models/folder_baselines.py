"""Baselines for a data set: the values that replace ablated activations, for every class and domain.

The user gives a baseline itself, or one of these names:

- ``zero``: all values are zero.
- ``mean-position``: the mean activation of each unit at each position, over the chosen images of all classes and
  domains. This is the default.
- ``mean-unit``: the mean activation of each unit, over all positions and over the chosen images of all classes and
  domains.
- ``other-domains``: the mean activation of each unit at each position, over the chosen images of the same class in the
  other domains.
- ``counterfactual``: the activation in an image of another class in the same domain. Each ablated image has its own
  such image. The seed puts the other classes in an order. The first image of each of these classes is taken, then the
  second image of each of these classes, and so on, at most ``n_images`` in all.

For the means, at most ``n_images`` images are chosen of each class in each domain, with the seed, as in
`DomainFolder.select`. ``other-domains`` and ``counterfactual`` differ by class and domain.
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
"""The default baseline. Circuits of a given size work better with it than with zero or with means over positions."""
_MADE_OF = {
    "counterfactual": "other classes in its domain",
    "other-domains": "its class in other domains",
}
"""Which images a baseline is made of, in words, by its name; for the error message that there are no such images."""


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
    """One of `BASELINE_NAMES`, or a baseline as `Task` accepts it, which is used for all images. None (the default)
    means mean-position."""
    clip: Clip  #: The model whose activations are averaged or replaced.
    images: DomainFolder
    """The data set. Only its selected classes and domains are used."""
    n_images: Count = 50
    """Largest number of images that are chosen of each class in each domain."""
    seed: Seed = 0
    """Seed by which the images are chosen."""

    def __post_init__(self) -> None:
        if isinstance(self.choice, str) and self.choice not in BASELINE_NAMES:
            raise InputError(
                f"Expected one of the baselines {', '.join(BASELINE_NAMES)}, but {self.choice!r} was given."
            )

    @cached_property
    def given(self) -> Baseline | Counterfactual | None:
        """The baseline if it needs no images of the data set: ``zero``, or a baseline that the user gave.

        None if the baseline is computed from the data.
        """
        if self.choice is None:
            return None
        if isinstance(self.choice, str) and self.choice != ZERO.name:
            return None
        return as_baseline(self.choice)

    @property
    def name(self) -> str:
        """Name of the baseline in tables and in the provenance of results."""
        if self.given is not None:
            return self.given.name
        return str(self.choice or DEFAULT)

    def records_of(self, keys: Sequence[tuple[str, str]]) -> list[ImageRecord]:
        """Return the images from which the baselines of several pairs (class, domain) are computed, each image once.

        See `records` for a single class and domain.
        """
        # A mean over all images is the same for every class and domain, so the first key is enough.
        if self.name in MEANS:
            keys = keys[:1]
        return list(dict.fromkeys(chain(*(self.records(*key) for key in keys))))

    def records(self, class_name: str, domain: str) -> tuple[ImageRecord, ...]:
        """Return the images from which the baseline of a class in a domain is computed.

        The result is empty for a baseline that needs no data.

        Raises:
            InputError: if the baseline needs images, but the data set has none.
        """
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
        """Return the baseline for images of a class in a domain.

        Args:
            class_name: The class.
            domain: The domain.
            count: Number of images that need a counterfactual image. Other baselines ignore it.
            strict: Whether an unreadable image file raises an error. If False, the file is skipped with a warning.
            progress: Whether to show a progress bar if the computation takes a while.
        """
        if self.given is not None:
            return self.given
        if self.name in MEANS:
            return self._mean(strict, progress)
        records = self.records(class_name, domain)
        batches = self._batches(records, strict)
        if self.name == "other-domains":
            mean = mean_baseline(self.clip.encoder, batches, progress=progress)
            return replace(mean, name=self.name)
        # It may be that no listed file can be read.
        images = list(batches)
        if not images:
            raise InputError(
                f"No counterfactual image of {class_name} in {domain} can be read, first {records[0].path}."
            )
        # If there are fewer counterfactual images than ``count``, they are repeated in the same order.
        read = torch.cat(images)
        return Counterfactual(read[torch.arange(count) % len(read)])

    def _mean(self, strict: bool, progress: bool) -> Baseline:
        """Return the mean activation over the chosen images of all classes and domains.

        It is computed once and reused as long as the encoder is the same.
        """
        encoder = self.clip.encoder
        identity = encoder.identity
        # An encoder that cannot be identified has no key, so its mean is computed at every call.
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
        """The means that `_mean` has computed so far.

        The keys are (key of the encoder's identity, ``strict``).
        """
        return {}

    @cached_property
    def _everything(self) -> tuple[ImageRecord, ...]:
        return self._chosen(self.images.classes, self.images.domains)

    def _chosen(
        self, classes: Sequence[str], domains: Sequence[str]
    ) -> tuple[ImageRecord, ...]:
        """Return the chosen images of every class in every domain.

        They are sorted by domain, and within a domain by class.
        """
        records: list[ImageRecord] = []
        for domain in domains:
            for name in classes:
                records += self.images.select(name, domain, self.n_images, self.seed)
        return tuple(records)

    def _drawn(self, class_name: str, domain: str) -> tuple[ImageRecord, ...]:
        """Return the counterfactual images of a class in a domain.

        Their activations replace the ablated activations. They are images of other classes in the same domain, which
        are taken in turn; see the module's text.
        """

        def rank(other: str) -> bytes:
            # The rank is a hash, so that the order of two classes does not depend on the number of classes.
            drawn = f"{self.seed}\0{class_name}\0{other}"
            return hashlib.sha256(drawn.encode()).digest()

        others = sorted(set(self.images.classes) - {class_name}, key=rank)
        by_class = [self._ranked[other, domain] for other in others]
        return in_turn(by_class)[: self.n_images]

    @cached_property
    def _ranked(self) -> dict[tuple[str, str], Sequence[ImageRecord]]:
        """All images by (class, domain), in the random order that the seed decides."""
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
