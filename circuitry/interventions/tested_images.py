"""Which images circuits are tested on: none of those that they were found on, and images of other classes."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from circuitry.circuits.graph_folder import GraphFolder, Key
from circuitry.data.domains import DomainFolder, ImageRecord
from circuitry.interventions.causal_settings import CausalSettings
from circuitry.models.clip import Clip
from circuitry.models.image_pass import image_batches
from circuitry.runs.errors import InputError


@dataclass(frozen=True, eq=False)
class TestedImages:
    """The choice of images by (class, domain); it depends on the circuits' own choice and on nothing else."""

    __test__ = False  # no test of pytest's

    images: DomainFolder
    graphs: GraphFolder
    settings: CausalSettings

    def keys(self) -> list[Key]:
        """Return every (class, domain) that has a circuit and is selected.

        Raises:
            InputError: when there is none.
        """
        chosen = [(c, d) for c, d in self.graphs if c in self.images.classes and d in self.images.domains]
        if not chosen:
            raise InputError(f"No circuit in {self.graphs.path} is of a class and domain of {self.images!r}.")
        return chosen

    def own(self, key: Key) -> tuple[ImageRecord, ...]:
        """Return images of a class and domain on which its circuit was not found.

        Raises:
            InputError: when it was found on all of them.
        """
        return self._unseen(key)[: self.settings.n_images]

    def others(self, key: Key) -> tuple[ImageRecord, ...]:
        """Return images of other classes in the domain on which no circuit was found."""
        (class_name, domain), classes = key, self.images.classes
        place = classes.index(class_name) + 1
        following = [name for name in (*classes[place:], *classes[: place - 1]) if (name, domain) in self.graphs]
        return tuple(self._unseen((name, domain))[0] for name in following[: self.settings.n_others])

    def found_on(self, key: Key) -> tuple[ImageRecord, ...]:
        """Return the images of a class and domain on which its circuit was found."""
        return self._ranked(key)[: self._n_found_on]

    @property
    def _n_found_on(self) -> int:
        return int(self.graphs.manifest["config"]["n_images"])

    def _ranked(self, key: Key) -> tuple[ImageRecord, ...]:
        return self.images.select(*key, None, self.graphs.manifest["config"]["seed"])

    def _unseen(self, key: Key) -> tuple[ImageRecord, ...]:
        ranked = self._ranked(key)
        chosen = ranked if self.settings.seen else ranked[self._n_found_on :]
        if not chosen:
            raise InputError(
                f"The circuit of {key[0]!r} in {key[1]!r} was found on all of its {len(ranked)} images, so none is "
                "left to test it on: extract with fewer images, or allow the same ones (seen=True, --seen)."
            )
        return chosen


def read_images(clip: Clip, records: Sequence[ImageRecord], *, strict: bool = False) -> Tensor:
    """Return the images [B, 3, H, W] that can be read, none perhaps; the others are left out with a warning each.

    Raises:
        InputError: with ``strict``, for one that cannot be read.
    """
    encoder = clip.encoder
    none = torch.zeros(0, 3, *encoder.image_size, device=encoder.device, dtype=encoder.dtype)
    return torch.cat([none, *(batch for _, batch in image_batches(encoder, clip.preprocess, records, strict=strict))])
