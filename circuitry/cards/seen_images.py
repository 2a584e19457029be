"""The images of a domain as the cards' jobs left them: activations of all units, top images, embeddings. No torch."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Float

from circuitry.cards.card_folder import CARDS_FORMAT, read_beside
from circuitry.cards.unit_card import CardImage
from circuitry.runs.arrays import read_arrays


@dataclass(frozen=True, eq=False)
class SeenImages:
    """What `write_domain` left."""

    images: Sequence[CardImage]
    arrays: dict[str, np.ndarray]
    """Top images: ``places``, ``values`` and ``heat`` by activation and by effect, and site; ``embeddings``."""
    activations: Float[np.ndarray, "images units"]
    """Of all units, read from disk when used."""

    @classmethod
    def read(cls, path: Path) -> "SeenImages":
        """Read the files of a domain, given that of the top images."""
        _, arrays = read_arrays(path, CARDS_FORMAT, "file of top images")
        images = [CardImage(*row) for row in read_beside(path.with_suffix(".json"))]
        return cls(images, arrays, np.load(path.with_suffix(".npy"), mmap_mode="r"))
