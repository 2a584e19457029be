"""The images that check the circuits of a folder: those that no circuit was found on. No torch."""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from circuitry.circuits.graph_folder import GraphFolder
from circuitry.data.domains import DomainFolder
from circuitry.data.folds import Key
from circuitry.data.splits import Records, Split
from circuitry.interventions.intervention_settings import CheckSettings
from circuitry.runs.arguments import checked
from circuitry.runs.errors import InputError, name_some

log = logging.getLogger(__name__)


@checked
@dataclass(frozen=True, eq=False, kw_only=True)
class SplitOfCircuits(Split):
    """The split of stored circuits: by the rule of their number and seed, and by the images that each says it took."""

    graphs: GraphFolder

    def known(self, key: Key) -> frozenset[str]:
        """Return the images that found the circuit of a class and domain, if there is one."""
        return self.looked_at(key, "images")

    def looked_at(self, key: Key, kind: str) -> frozenset[str]:
        """Return the paths of ``images`` of the class, or of ``others``, that found a circuit."""
        if key not in self.graphs:
            return frozenset()
        # A graph is read from its file at each access, with a checksum of all of it.
        if key not in self._provenances:
            self._provenances[key] = self.graphs[key].provenance
        # Graphs that were made by hand do not say which images they took.
        return frozenset(self._provenances[key].get(kind, ()))

    @cached_property
    def _provenances(self) -> dict[Key, Mapping[str, Any]]:
        """The provenance of each circuit that was asked for."""
        return {}


class CheckImages:
    """The images that check the circuits of a folder, by class and domain.

    Example:
        >>> from circuitry.interventions import CheckSettings
        >>> from circuitry.questions import CheckImages
        >>> chosen = CheckImages(folder, graphs, CheckSettings(n_images=1))
        >>> len(chosen.tested), len(chosen.own(("clock", "real")))
        (4, 1)
    """

    def __init__(
        self, images: DomainFolder, graphs: GraphFolder, settings: CheckSettings
    ) -> None:
        """Choose the images by the number, seed and rule that the circuits were found with."""
        made_with = graphs.manifest["config"]
        self.images = images
        self.graphs = graphs
        self.settings = settings
        self.split = SplitOfCircuits(
            images,
            int(made_with["n_images"]),
            int(made_with["seed"]),
            # Circuits that no extraction found, such as own parts, leave images unseen.
            leave_unseen=bool(made_with.get("leave_unseen", True)),
            graphs=graphs,
        )
        # A folder may hold circuits of more classes and domains than the images that are given now.
        self.keys = list[Key]()
        for class_name, domain in graphs:
            if class_name in images.classes and domain in images.domains:
                self.keys.append((class_name, domain))
        if not self.keys:
            raise InputError(
                f"No circuit in {graphs.path} is of a class and domain of {images!r}."
            )

    @cached_property
    def tested(self) -> list[Key]:
        """The circuits that have images to check them on; a warning, given once, names the circuits without."""
        tested = [key for key in self.keys if self._left(key)]
        if not tested:
            self.own(self.keys[0])  # raises the error of a circuit without images
        untested = [key for key in self.keys if not self._left(key)]
        if untested:
            log.warning(without_images(untested, len(self.keys)))
        return tested

    @property
    def in_words(self) -> str:
        """A phrase that names the images, for captions."""
        if self.settings.seen:
            return "the images that they were found on"
        return "images that they were not found on"

    def found_on(self, key: Key) -> Records:
        """Return the images of a class and domain on which its circuit was found."""
        side = self.split.found_on(key)
        # In a folder that has grown, that side has new images, too, which found nothing.
        known = self.split.known(key)
        found_on = tuple(record for record in side if record.relative in known)
        return found_on or side

    def own(self, key: Key) -> Records:
        """Return images of a class and domain on which its circuit was not found."""
        chosen = self._left(key)
        if not chosen:
            raise InputError(
                f"The circuit of {key[0]!r} in {key[1]!r} was found on all of its {len(self.ranked(key))} images: find "
                "circuits on fewer (--n-images of circuitry compare), or check on the same ones (--seen; in Python "
                "seen=True)."
            )
        return chosen[: self.settings.n_images]

    def others(self, key: Key) -> Records:
        """Return images of other classes in the domain on which no circuit was found."""
        n = self.settings.n_others
        if self.settings.seen:
            return self.split.others(key, n)
        # Circuits that were not found by the rule may have looked at any images of other classes.
        taken = self.split.looked_at(key, "others")
        unseen = self.split.others(key, None, unseen=True)
        return tuple(record for record in unseen if record.relative not in taken)[:n]

    def ranked(self, key: Key) -> Records:
        """Return all images of a class and domain, first those that its circuit was found on, if there is one."""
        return self.split.ranked(key)

    def _left(self, key: Key) -> Records:
        # Seen images, on request, show whether a circuit recovers the answers that it was chosen by.
        if self.settings.seen:
            return self.split.ranked(key)
        return self.split.unseen(key)


def without_images(keys: Sequence[Key], n: int) -> str:
    """Say which of ``n`` circuits cannot be tested, since they are found on all images.

    Example:
        >>> circuitry.questions.without_images([("clock", "real")], 2)
        '1 of 2 circuits cannot be tested, since their classes have no other images there: clock in real.'
    """
    named = name_some([" in ".join(key) for key in keys])
    return f"{len(keys)} of {n} circuits cannot be tested, since their classes have no other images there: {named}."
