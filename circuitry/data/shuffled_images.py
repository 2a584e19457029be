"""The study's own choice of images, from lists that a single random stream shuffles. Does not import torch.

The study finds the circuit of a class in a domain on the first 50 images of the class's list after a shuffle. All lists
are shuffled by one random stream, which is seeded once. The domains are shuffled in the order of `DOMAIN_ORDER`. Within
a domain the held-out classes are shuffled first, and then the other classes in the order of the domain's list. If a
domain lacks a class, no random numbers are drawn for this class.

So the choice depends on the seed and the lists only. The study makes the same choice if one process finds all of its
circuits.
"""

import random
from collections.abc import Sequence

from circuitry.data.domains import DomainFolder, ImageRecord
from circuitry.data.image_sources import Source
from circuitry.data.imagenet_classes import class_key
from circuitry.data.names import chosen_names

DOMAIN_ORDER = ("real", "quickdraw", "sketch", "clipart", "infograph", "painting")
"""The study's order of domains. Any other domain comes after these."""


class ShuffledImages(DomainFolder):
    """Images sorted by domain and class, from which `select` chooses the same images as the study.

    The choice does not depend on which classes and domains are selected.

    Args:
        root: Where the images are; see `DomainFolder`.
        split: Which lists to read; see `DomainFolder`.
        first: The held-out classes, in any spelling. Their lists are shuffled first in every domain.
        domains: Domains to keep (default: all domains).
        classes: Classes to keep (default: all classes).

    Example:
        >>> images = circuitry.data.ShuffledImages("DomainNet", first=["clock"])
        >>> len(images.select("cup", "quickdraw", n=2, seed=42))
        2
    """

    def __init__(
        self,
        root: Source,
        split: str | None = "test",
        *,
        first: Sequence[str] = (),
        domains: Sequence[str] | None = None,
        classes: Sequence[str] | None = None,
    ) -> None:
        super().__init__(root, split, domains=domains, classes=classes)
        known = self.all_classes
        self.first = chosen_names("class", first, known, class_key) if first else ()
        self._shuffled: dict[int, dict[tuple[str, str], tuple[ImageRecord, ...]]] = {}

    def ranked(self, class_name: str, domain: str, seed: int) -> Sequence[ImageRecord]:
        """Return the images of a class in a domain in the order in which the stream with this seed shuffles them."""
        if seed not in self._shuffled:
            self._shuffled[seed] = self._shuffle(seed)
        return self._shuffled[seed].get((domain, class_name), ())

    def _shuffle(self, seed: int) -> dict[tuple[str, str], tuple[ImageRecord, ...]]:
        everything = DomainFolder(self.source, self.split, missing_files="unchecked")
        lists: dict[str, dict[str, list[ImageRecord]]] = {}
        for record in everything.records:
            by_class = lists.setdefault(record.domain, {})
            by_class.setdefault(record.class_name, []).append(record)
        stream = random.Random(seed)
        shuffled = {}
        for domain in dict.fromkeys((*DOMAIN_ORDER, *everything.domains)):
            by_class = lists.get(domain, {})
            for name in dict.fromkeys((*self.first, *by_class)):
                # A class that the domain lacks takes no random numbers.
                if name in by_class:
                    stream.shuffle(by_class[name])
                    shuffled[domain, name] = tuple(by_class[name])
        return shuffled
