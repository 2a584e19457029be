"""How unit cards are made. No torch."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated

from circuitry.cards.vocabulary import read_vocabulary
from circuitry.data.shared_options import Items, NImages, SeedOption, option
from circuitry.runs.arguments import DISTINCT, Count, Natural, checked

TOP_IMAGES = 9
"""Images of a unit in a domain."""

Vocabulary = Annotated[Sequence[str] | None, DISTINCT, option(read_vocabulary, "PATH")]


@checked
@dataclass(frozen=True, kw_only=True)
class CardSettings:
    """How to make the cards of a folder of circuits; see `unit_cards`.

    Example:
        >>> from circuitry.cards import CardSettings
        >>> CardSettings(n_images=20, exact_units=0).top
        9
    """

    n_images: NImages = 50
    """Images of each class and domain on which units are looked at, those that its circuit was found on first. At least
    six further images are used, where there are as many. Classes without circuits have images, too."""
    top: Count = TOP_IMAGES
    """Top images of a unit in a domain."""
    exact_units: Natural = 10
    """Units of a site and circuit whose exact effects are measured, the largest scores first; 0 for none."""
    vocabulary: Vocabulary = None
    """Text file of words, one a line: they name units (default: names of classes and domains, styles, ImageNet's
    classes, and about 470 words for colours, textures, materials, shapes, parts, lines, media and lettering)."""
    items: Items = None
    seed: SeedOption = 0
