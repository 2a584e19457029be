"""The rule by which some images find circuits and others test them, for every question. No torch.

The images of a class in a domain are ranked by the seed (`DomainFolder.ranked`).

1. The first half of them, rounded up and at most ``n_images``, finds circuits and own parts.
2. All that follow are unseen: they test.
3. Images of other classes come in turn, the first of each class that follows, then the second of each. Beside images
   that find they are images that find, too, and beside unseen ones they are unseen.

So no image both finds and tests, whichever questions are asked with one number and seed. Two things are outside of the
rule: a baseline that is made of the data (`FolderBaseline`) is the same for both sides, and of images of both; and
where a class has a single image in a domain, this image tests the own parts of its class from other domains.
"""

from collections.abc import Iterable, Sequence, Set
from dataclasses import dataclass
from functools import cached_property
from itertools import chain, zip_longest

from circuitry.data.domains import DomainFolder, ImageRecord
from circuitry.data.folds import Key
from circuitry.runs.arguments import Count, Seed, checked
from circuitry.runs.errors import InputError

Records = tuple[ImageRecord, ...]


def in_turn(groups: Iterable[Sequence[ImageRecord]]) -> Records:
    """Return the first image of each group, then the second of each, and so on."""
    # None stands where a group has no more images.
    rounds = zip_longest(*groups)
    return tuple(filter(None, chain.from_iterable(rounds)))


@checked
@dataclass(frozen=True, eq=False)
class Split:
    """The images that find, and those that test, by class and domain.

    Example:
        >>> split = Split(folder, n_images=2)
        >>> len(split.found_on(("clock", "real"))), len(split.unseen(("clock", "real")))
        (2, 2)
        >>> [record.class_name for record in split.others(("clock", "real"), 4)]
        ['cup', 'house', 'car', 'cup']
    """

    images: DomainFolder
    """Images by class and domain."""
    n_images: Count
    """Images of a class in a domain that find, at most."""
    seed: Seed = 0
    """Seed of the ranks."""
    leave_unseen: bool = True
    """Whether at most half of a class's images find; otherwise all may, and perhaps none is left to test on."""

    def found_on(self, key: Key) -> Records:
        """Return the images of a class in a domain that find."""
        return self._halves(key)[0]

    def unseen(self, key: Key, n: int | None = None) -> Records:
        """Return the images of a class in a domain that test: the first ``n``, or all."""
        return self._halves(key)[1][:n]

    def ranked(self, key: Key) -> Records:
        """Return all images of a class in a domain, first those that find."""
        return self.found_on(key) + self.unseen(key)

    def others(self, key: Key, n: int | None, *, unseen: bool = False) -> Records:
        """Return ``n`` images of other classes in the domain, or all: of those that find, or of unseen ones."""
        class_name, domain = key
        side = self.unseen if unseen else self.found_on
        following = self.images.following(class_name)
        by_class = [side((other, domain)) for other in following]
        return in_turn(by_class)[:n]

    def check_testable(self, key: Key) -> None:
        """Refuse a class that has no unseen image in a domain."""
        if not self.unseen(key):
            raise InputError(
                f"A circuit is found on some images and tested on others, but there is {len(self.found_on(key))} of "
                f"{key[0]} in {key[1]}: give at least 2."
            )

    def known(self, key: Key) -> Set[str]:
        """Return paths of images that are known to have found something; a rule knows none."""
        return frozenset()

    def _halves(self, key: Key) -> tuple[Records, Records]:
        if key not in self._cuts:
            ranked = list(self.images.ranked(*key, self.seed))
            n = self.n_images
            # Rounded up: of three images two find, and a single one finds rather than tests.
            if self.leave_unseen:
                n = min(n, (len(ranked) + 1) // 2)
            known = self.known(key)
            if not known <= {record.relative for record in ranked[:n]}:
                # Another draw found it, or a folder that has grown since: what it took stays seen.
                ranked.sort(key=lambda record: record.relative not in known)
                n = sum(record.relative in known for record in ranked)
            self._cuts[key] = tuple(ranked[:n]), tuple(ranked[n:])
        return self._cuts[key]

    @cached_property
    def _cuts(self) -> dict[Key, tuple[Records, Records]]:
        """The images that find and the unseen ones, by class and domain, of the halves that were asked for."""
        return {}
