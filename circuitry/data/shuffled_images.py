"""The study's own choice of images: lists that one random stream shuffles one after the other. No torch.

The study's circuits of a class in a domain are found on the first 50 images of the class's list after a shuffle. One
stream, seeded once, shuffles all lists: domain by domain in the order of `DOMAIN_ORDER`, and within a domain the
held-out classes first, then the others as the domain's list names them. So the choice follows from the lists alone, and
a class that a domain lacks takes no random numbers. It is that of one process which finds all circuits in one run.
"""

import random
from collections.abc import Sequence

from circuitry.data.domains import DomainFolder, ImageRecord
from circuitry.data.image_sources import Source
from circuitry.data.imagenet_classes import class_key
from circuitry.data.names import chosen_names

DOMAIN_ORDER = ("real", "quickdraw", "sketch", "clipart", "infograph", "painting")
"""The study's order of domains; others follow."""


class ShuffledImages(DomainFolder):
    """Images that are chosen as the study chooses them; the choice does not depend on selected classes and domains.

    ``first`` has the held-out classes, in any spelling, which come first in every domain.

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
        """Return the images of a class in a domain as the stream of this seed shuffles them."""
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
