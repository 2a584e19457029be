"""How unit cards are made. No torch."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated

from circuitry.cards.vocabulary import read_vocabulary
from circuitry.circuits.circuit_settings import Rule
from circuitry.circuits.quadrature import left_rule
from circuitry.data.shared_options import Items, NImages, SeedOption, option
from circuitry.runs.given import DISTINCT, Count, Natural, checked

GRADIENT = left_rule(1)
"""Gradient times activation: the effects at all sites from one run."""
TOP_IMAGES = 9
"""Images of a unit in a domain."""

Vocabulary = Annotated[Sequence[str] | None, DISTINCT, option(read_vocabulary, "PATH")]


@checked
@dataclass(frozen=True, kw_only=True)
class CardSettings:
    """How to make the cards of a folder of circuits; see `unit_cards`.

    Raises:
        InputError: for a value outside its range, which is named.
    """

    n_images: NImages = 50
    """Units are looked at on these, first those that a circuit was found on; at least six others, where there are as
    many. Classes without circuits count, too."""
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
    items: Items = None
    seed: SeedOption = 0
