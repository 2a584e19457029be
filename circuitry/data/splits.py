"""The rule by which images are divided: some are used to find circuits, and others to test them. Does not import torch.

The rule is the same for all questions. It divides the images of each class in each domain, after they were put into a
random order that the seed decides (`DomainFolder.ranked`).

1. The first half of the images (rounded up, and at most ``n_images``) is used to find circuits and own parts. If
   `Split.leave_unseen` is False, the first ``n_images`` images are used, even if these are all images.
2. All following images are *unseen*: they are used to test.
3. Own parts are found twice, on two disjoint sets of images, to know how much two parts of one class and domain differ.
   Their *first half* are the images of step 1. Their *second half* are the next images in the order, as many as in the
   first half. There is a second half only if at least as many images again are left to test the parts. Images of the
   second half do not test own parts. They do test circuits, because no circuit is found on them.
4. Images of other classes are taken in turn: first the first image of each other class, then the second image of each
   other class, and so on. To find a circuit, images are taken that are also used to find the circuits of the other
   classes. To find an own part on the second half, images of the second half of the other classes are taken. To test a
   circuit, unseen images of the other classes are taken.

So no image is used both to find and to test, even if several questions are asked with the same number of images and the
same seed. The rule has two exceptions. A baseline that is computed from the data (`FolderBaseline`) is the same in
finding and in testing, and may use any image. If a class has a single image in a domain, this image is used to find
circuits, but also to test the own parts of the class that were found in other domains.
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
    """Return the first image of each group, then the second image of each group, and so on."""
    # zip_longest gives None for a group that has no more images.
    rounds = zip_longest(*groups)
    return tuple(filter(None, chain.from_iterable(rounds)))


@checked
@dataclass(frozen=True, eq=False)
class Split:
    """Which images of each class in each domain are used to find circuits, and which to test them.

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
    """Largest number of images of a class in a domain that are used to find a circuit."""
    seed: Seed = 0
    """Seed by which images are ranked."""
    leave_unseen: bool = True
    """Whether at most half of the images of a class in a domain are used to find a circuit. If False, up to
    ``n_images`` are used, so that there may be no image left to test with."""

    def found_on(self, key: Key, half: int = 1) -> Records:
        """Return the images that are used to find the circuit of a class in a domain.

        Args:
            key: The class and the domain.
            half: 2 for the second half, on which the own part of the class is found a second time. It has as many
                images as the first half. It is empty if fewer images than that would be left to test own parts.
        """
        first, following = self._sides(key)
        if half == 1:
            return first
        n = len(first)
        return following[:n] if len(following) >= 2 * n else ()

    def unseen(
        self, key: Key, n: int | None = None, *, after_second_half: bool = False
    ) -> Records:
        """Return the images that are used to test the circuit of a class in a domain.

        Args:
            key: The class and the domain.
            n: Largest number of images (default: all images).
            after_second_half: Leave out the images of the second half, because an own part was found on them.
        """
        unseen = self._sides(key)[1]
        if after_second_half:
            unseen = unseen[len(self.found_on(key, 2)) :]
        return unseen[:n]

    def ranked(self, key: Key) -> Records:
        """Return all images of a class in a domain: first the images of `found_on`, then the images of `unseen`."""
        return self.found_on(key) + self.unseen(key)

    def others(
        self, key: Key, n: int | None, *, unseen: bool = False, half: int = 1
    ) -> Records:
        """Return images of the other classes in the same domain.

        The classes are taken in turn: first the first image of each class, then the second image of each class, and so
        on. The classes have the order of `DomainFolder.following`.

        Args:
            key: The class, which is left out, and the domain.
            n: Largest number of images. None means all images.
            unseen: Whether the images are unseen images of their classes. If False, they are the images used to find
                the circuits of their classes.
            half: The half of these classes that the images are taken from, if they are not unseen; see `found_on`. A
                class without a second half gives no image of it.
        """
        class_name, domain = key
        by_class = list[Records]()
        for other in self.images.following(class_name):
            cell = (other, domain)
            by_class.append(self.unseen(cell) if unseen else self.found_on(cell, half))
        return in_turn(by_class)[:n]

    def check_testable(self, key: Key) -> None:
        """Raise `InputError` if a class has no unseen image in a domain."""
        if not self.unseen(key):
            raise InputError(
                f"A circuit is found on some images and tested on others, but there is {len(self.found_on(key))} of "
                f"{key[0]} in {key[1]}: give at least 2."
            )

    def known(self, key: Key) -> Set[str]:
        """Return the paths of images that are known to have been used to find a circuit of this class and domain.

        The result is empty here. A subclass overrides this method if it knows which images were used. Then `found_on`
        includes all of these images.
        """
        return frozenset()

    def _sides(self, key: Key) -> tuple[Records, Records]:
        if key not in self._cuts:
            ranked = list(self.images.ranked(*key, self.seed))
            n = self.n_images
            # Rounded up: two of three images are used to find a circuit, and so is a single image.
            if self.leave_unseen:
                n = min(n, (len(ranked) + 1) // 2)
            known = self.known(key)
            if not known <= {record.relative for record in ranked[:n]}:
                # The circuit was found on other images than the rule gives, because another draw was used, or because
                # images were added since. All images that were used remain images of `found_on`.
                ranked.sort(key=lambda record: record.relative not in known)
                n = sum(record.relative in known for record in ranked)
            self._cuts[key] = tuple(ranked[:n]), tuple(ranked[n:])
        return self._cuts[key]

    @cached_property
    def _cuts(self) -> dict[Key, tuple[Records, Records]]:
        """For each class and domain that was asked for so far: the images of `found_on` and of `unseen`."""
        return {}
