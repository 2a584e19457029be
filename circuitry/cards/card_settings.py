"""Settings of unit cards. Does not import torch."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated

from circuitry.cards.vocabulary import read_vocabulary
from circuitry.data.shared_options import Items, NImages, SeedOption, option
from circuitry.runs.arguments import DISTINCT, Count, Natural, checked

TOP_IMAGES = 9
"""Number of top images of a unit in each domain."""

Vocabulary = Annotated[Sequence[str] | None, DISTINCT, option(read_vocabulary, "PATH")]


@checked
@dataclass(frozen=True, kw_only=True)
class CardSettings:
    """Settings for making the cards of the units in a folder of circuits; see `unit_cards`.

    Example:
        >>> from circuitry.cards import CardSettings
        >>> CardSettings(n_images=20, exact_units=0).top
        9
    """

    n_images: NImages = 50
    """Number of images of each class and domain in which activations of units are recorded. Images used to find the
    circuit come first. If there are enough images, at least six images follow that were not used to find the circuit.
    Classes without circuits have images, too."""
    top: Count = TOP_IMAGES
    """Number of top images of a unit in each domain."""
    exact_units: Natural = 10
    """Number of units of each site and circuit whose exact effects are measured. Units with the largest scores come
    first. 0 measures no exact effects."""
    vocabulary: Vocabulary = None
    """Words that name units. On the command line, a text file with a word or phrase on each line (default: names of
    classes and domains, styles, ImageNet's classes, and about 470 words for colours, textures, materials, shapes,
    parts, lines, media and lettering)."""
    items: Items = None
    seed: SeedOption = 0
