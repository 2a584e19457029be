"""On which images circuits are checked, and by what."""

from torch import Tensor

from circuitry.circuits.graph_folder import GraphFolder
from circuitry.data.domains import DomainFolder, ImageRecord
from circuitry.data.parts import Key
from circuitry.interventions.intervention_settings import CheckSettings
from circuitry.runs.errors import InputError

CheckedImages = tuple[Tensor, Tensor | None]
"""The images of a circuit's checks that can be read: of the class [B, 3, H, W], and of other classes, if there are."""


class CheckImages:
    """The images that check the circuits of a folder, by class and domain.

    Example:
        >>> CheckImages(images, GraphFolder("runs/x"), CheckSettings()).own(("cat", "real"))
    """

    def __init__(self, images: DomainFolder, graphs: GraphFolder, settings: CheckSettings) -> None:
        """Choose them."""
        self.images, self.graphs, self.settings = images, graphs, settings
        self._ranks = dict[Key, tuple[ImageRecord, ...]]()  # the names of a circuit's images are read with its graph
        found = graphs.manifest["config"]
        self.n_found, self.seed_found = int(found["n_images"]), int(found["seed"])
        self.keys: list[Key] = [(c, d) for c, d in graphs if c in images.classes and d in images.domains]
        if not self.keys:
            raise InputError(f"No circuit in {graphs.path} is of a class and domain of {images!r}.")

    @property
    def in_words(self) -> str:
        """Which images these are."""
        return "the images that they were found on" if self.settings.seen else "images that they were not found on"

    def found_on(self, key: Key) -> tuple[ImageRecord, ...]:
        """Return the images of a class and domain on which its circuit was found."""
        return self.ranked(key)[: self.n_found]

    def own(self, key: Key) -> tuple[ImageRecord, ...]:
        """Return images of a class and domain on which its circuit was not found."""
        return self._unseen(key)[: self.settings.n_images]

    def others(self, key: Key) -> tuple[ImageRecord, ...]:
        """Return images of other classes in the domain on which no circuit was found."""
        class_name, domain = key
        following = [name for name in self.images.following(class_name) if (name, domain) in self.graphs]
        return tuple(self._unseen((name, domain))[0] for name in following[: self.settings.n_others])

    def ranked(self, key: Key) -> tuple[ImageRecord, ...]:
        """Return all images of a class and domain, first those that its circuit was found on, if there is one."""
        if key not in self._ranks:
            ranked = self.images.select(*key, None, self.seed_found)
            found_on = set(self.graphs.image_names(*key)) if key in self.graphs else set()
            if not found_on <= {record.relative for record in ranked[: self.n_found]}:  # found on another draw
                ranked = tuple(sorted(ranked, key=lambda record: record.relative not in found_on))
            self._ranks[key] = ranked
        return self._ranks[key]

    def _unseen(self, key: Key) -> tuple[ImageRecord, ...]:
        ranked = self.ranked(key)
        chosen = ranked if self.settings.seen else ranked[self.n_found :]
        if not chosen:
            raise InputError(
                f"The circuit of {key[0]!r} in {key[1]!r} was found on all of its {len(ranked)} images: find circuits "
                "on fewer (--n-images of circuitry compare), or check on the same ones (--seen; in Python seen=True)."
            )
        return chosen
