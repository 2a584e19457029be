"""On which images circuits are checked, and by what."""

import logging
from collections.abc import Mapping, Sequence, Set
from functools import cached_property
from itertools import islice
from typing import Any

from torch import Tensor

from circuitry.circuits.graph_folder import GraphFolder
from circuitry.data.domains import DomainFolder, ImageRecord
from circuitry.data.parts import Key
from circuitry.interventions.intervention_settings import CheckSettings
from circuitry.runs.errors import InputError, name_some

log = logging.getLogger(__name__)
CheckedImages = tuple[Tensor, Tensor | None]
"""The images of a circuit's checks that can be read: of the class [B, 3, H, W], and of other classes, if there are."""


def without_images(keys: Sequence[Key], n: int) -> str:
    """Say which of ``n`` circuits cannot be tested, since they are found on all images."""
    named = name_some([" in ".join(key) for key in keys])
    return f"{len(keys)} of {n} circuits cannot be tested, since their classes have no other images there: {named}."


class CheckImages:
    """The images that check the circuits of a folder, by class and domain."""

    def __init__(
        self, images: DomainFolder, graphs: GraphFolder, settings: CheckSettings
    ) -> None:
        """Choose them."""
        self.images, self.graphs, self.settings = images, graphs, settings
        self._n_found, self._made_on = dict[Key, int](), dict[Key, Mapping[str, Any]]()
        self._ranks = dict[
            Key, tuple[ImageRecord, ...]
        ]()  # the names of a circuit's images are read with its graph
        found = graphs.manifest["config"]
        self.n_found, self.seed_found = int(found["n_images"]), int(found["seed"])
        self.keys: list[Key] = [
            (c, d) for c, d in graphs if c in images.classes and d in images.domains
        ]
        if not self.keys:
            raise InputError(
                f"No circuit in {graphs.path} is of a class and domain of {images!r}."
            )

    @cached_property
    def tested(self) -> list[Key]:
        """The circuits that have images to check them on; a warning names the others."""
        found = [key for key in self.keys if self._left(key)]
        if not found:
            self.own(self.keys[0])  # which refuses
        if len(found) < len(self.keys):
            log.warning(
                without_images(
                    [key for key in self.keys if key not in found], len(self.keys)
                )
            )
        return found

    @property
    def in_words(self) -> str:
        """Which images these are."""
        return (
            "the images that they were found on"
            if self.settings.seen
            else "images that they were not found on"
        )

    def found_on(self, key: Key) -> tuple[ImageRecord, ...]:
        """Return the images of a class and domain on which its circuit was found."""
        return self.ranked(key)[: self._n_found[key]]

    def own(self, key: Key) -> tuple[ImageRecord, ...]:
        """Return images of a class and domain on which its circuit was not found."""
        chosen = self._left(key)
        if not chosen:
            raise InputError(
                f"The circuit of {key[0]!r} in {key[1]!r} was found on all of its {len(self.ranked(key))} images: find "
                "circuits on fewer (--n-images of circuitry compare), or check on the same ones (--seen; in Python "
                "seen=True)."
            )
        return chosen[: self.settings.n_images]

    def others(self, key: Key) -> tuple[ImageRecord, ...]:
        """Return images of other classes in the domain on which no circuit was found, one of each class."""
        class_name, domain = key
        seen = () if self.settings.seen else self._looked_at(key, "others")
        unseen = (
            [r for r in self._left((c, domain)) if r.relative not in seen]
            for c in self.images.following(class_name)
        )
        return tuple(
            islice(
                (records[0] for records in unseen if records), self.settings.n_others
            )
        )

    def ranked(self, key: Key) -> tuple[ImageRecord, ...]:
        """Return all images of a class and domain, first those that its circuit was found on, if there is one."""
        if key not in self._ranks:
            ranked = self.images.select(*key, None, self.seed_found)
            found_on = self._looked_at(key, "images")
            if not found_on <= {
                record.relative for record in ranked[: self.n_found]
            }:  # found on another draw
                ranked = tuple(
                    sorted(ranked, key=lambda record: record.relative not in found_on)
                )
            places = [
                place
                for place, record in enumerate(ranked)
                if record.relative in found_on
            ]
            self._n_found[key] = (
                max(places, default=-1) + 1
            )  # with those between them that could not be read
            self._ranks[key] = ranked
        return self._ranks[key]

    def _looked_at(self, key: Key, kind: str) -> Set[str]:
        """Return the images of the class, or others, on which a circuit was found; none where there is no circuit."""
        if key not in self._made_on:
            self._made_on[key] = (
                self.graphs[key].provenance if key in self.graphs else {}
            )
        return set(self._made_on[key].get(kind, ()))

    def _left(self, key: Key) -> tuple[ImageRecord, ...]:
        ranked = self.ranked(key)
        return ranked if self.settings.seen else ranked[self._n_found[key] :]
