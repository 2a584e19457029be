"""How unit cards are made."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated

from circuitry.cards.top_images import GRADIENT, TOP_IMAGES
from circuitry.cards.vocabulary import read_vocabulary
from circuitry.circuits.circuit_settings import Rule
from circuitry.data.parts import ItemKey, item_column
from circuitry.models.options import option
from circuitry.runs.given import DISTINCT, Count, Natural, Seed, checked

Vocabulary = Annotated[Sequence[str] | None, DISTINCT, option(read_vocabulary, "PATH")]


@checked
@dataclass(frozen=True, kw_only=True)
class CardSettings:
    """How to make the cards of a folder of circuits; see `unit_cards`.

    Raises:
        InputError: for a value outside its range, which is named.
    """

    n_images: Count = 50
    """Images of a class in a domain: units are looked at on these, first those that a circuit was found on; at least
    six others, where there are as many. Classes without circuits count, too."""
    top: Count = TOP_IMAGES
    """Top images of a unit in a domain."""
    bins: Count = 30
    """Bins of the histograms."""
    effect_rule: Rule = GRADIENT
    """Quadrature rule of the effects that top images are chosen by; left-1 is gradient times activation."""
    exact_images: Count = 4
    """Images of a class and domain on which exact effects are measured, of those that the circuit was found on."""
    exact_units: Natural = 10
    """Units of a site and circuit whose exact effects are measured, the largest scores first; 0 for none."""
    vocabulary: Vocabulary = None
    """Text file of words, one a line: they name units (default: names of classes and domains, styles, ImageNet's
    classes, and about 470 words for colours, textures, materials, shapes, parts, lines, media and lettering)."""
    items: Annotated[ItemKey | None, option(item_column, "LISTING COLUMN", 2)] = None
    """A listing of the images and its column that names what an image shows (default: the name of the file)."""
    seed: Seed = 0
    """Seed of all random choices: permutations, and random words that names are compared with."""
