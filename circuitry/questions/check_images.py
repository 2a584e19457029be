"""The images used to check the circuits of a folder: images that were not used to find the circuits.

Does not import torch.
"""

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
    """The split of stored circuits: which images of a class were used to find its circuit, and which are unseen.

    The split follows the rule of `Split`, with the number of images and the seed that were used to find the circuits.
    In addition, an image is not unseen if the file of its circuit lists it among the images used.
    """

    graphs: GraphFolder
    """The folder of the circuits."""

    def known(self, key: Key) -> frozenset[str]:
        """Return the paths of the images that were used to find the circuit of a class and domain.

        The set is empty if there is no such circuit, or if the circuit does not name its images.
        """
        return self.looked_at(key, "images")

    def looked_at(self, key: Key, kind: str) -> frozenset[str]:
        """Return the paths of images that were used to find the circuit of a class and domain.

        Args:
            key: The class and domain of the circuit.
            kind: ``images`` for images of the class, ``others`` for images of other classes.
        """
        if key not in self.graphs:
            return frozenset()
        # Each access reads the whole file of a graph and computes its checksum, so provenances are remembered.
        if key not in self._provenances:
            self._provenances[key] = self.graphs[key].provenance
        # Graphs that were made by hand do not name their images.
        return frozenset(self._provenances[key].get(kind, ()))

    @cached_property
    def _provenances(self) -> dict[Key, Mapping[str, Any]]:
        """The provenance of each circuit whose file was read so far."""
        return {}


class CheckImages:
    """The images used to check the circuits of a folder, by class and domain.

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
        """Choose images that were not used to find the circuits, unless ``settings.seen`` is True.

        Args:
            images: The images, by class and domain.
            graphs: The folder of the circuits. Its manifest has the settings of the search.
            settings: The number of images to choose, and whether to choose images that were used to find the circuits.

        Raises:
            InputError: if no circuit is of a class and domain of the images.
        """
        made_with = graphs.manifest["config"]
        self.images = images
        self.graphs = graphs
        self.settings = settings
        self.split = SplitOfCircuits(
            images,
            int(made_with["n_images"]),
            int(made_with["seed"]),
            # Circuits that were not found by an extraction, such as own parts, leave images unseen.
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
        """The circuits that have images to check them on.

        A warning names the circuits that have no such images. It is logged once.
        """
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
        """Return the images of a class and domain that were used to find its circuit."""
        side = self.split.found_on(key)
        # If the folder has grown, the side also has new images, which were not used to find the circuit.
        known = self.split.known(key)
        found_on = tuple(record for record in side if record.relative in known)
        return found_on or side

    def own(self, key: Key) -> Records:
        """Return images of a class and domain to check its circuit on.

        These images were not used to find the circuit, unless the settings ask for seen images.

        Raises:
            InputError: if all images were used to find the circuit.
        """
        chosen = self._left(key)
        if not chosen:
            raise InputError(
                f"The circuit of {key[0]!r} in {key[1]!r} was found on all of its {len(self.ranked(key))} images: find "
                "circuits on fewer (--n-images of circuitry compare), or check on the same ones (--seen; in Python "
                "seen=True)."
            )
        return chosen[: self.settings.n_images]

    def others(self, key: Key) -> Records:
        """Return images of other classes in the domain to check the circuit of ``key`` on.

        These images were used neither to find this circuit nor to find the circuits of their own classes, unless the
        settings ask for seen images.
        """
        n = self.settings.n_others
        if self.settings.seen:
            return self.split.others(key, n)
        # A circuit that was not found by the rule may have used any images of other classes.
        taken = self.split.looked_at(key, "others")
        unseen = self.split.others(key, None, unseen=True)
        return tuple(record for record in unseen if record.relative not in taken)[:n]

    def ranked(self, key: Key) -> Records:
        """Return all images of a class and domain; images that were used to find its circuit come first."""
        return self.split.ranked(key)

    def _left(self, key: Key) -> Records:
        # If seen images are asked for, they show whether a circuit recovers the answers that it was chosen by.
        if self.settings.seen:
            return self.split.ranked(key)
        return self.split.unseen(key)


def without_images(keys: Sequence[Key], n: int) -> str:
    """Return a sentence which says that some circuits cannot be tested, because all images were used to find them.

    Args:
        keys: The class and domain of each of these circuits.
        n: The number of all circuits.

    Example:
        >>> circuitry.questions.without_images([("clock", "real")], 2)
        '1 of 2 circuits cannot be tested, since their classes have no other images there: clock in real.'
    """
    named = name_some([" in ".join(key) for key in keys])
    return f"{len(keys)} of {n} circuits cannot be tested, since their classes have no other images there: {named}."
