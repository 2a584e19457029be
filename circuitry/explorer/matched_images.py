"""The same thing in every domain: images that differ in style alone, with the activations of a unit. No torch."""

from collections.abc import Callable, Sequence
from itertools import chain, zip_longest

from circuitry.cards.card_folder import CardFolder
from circuitry.cards.unit_card import ACTIVATION, UnitCard

MATCHED = "matched"
"""The page's name for these images, beside those by activation and by effect."""

Match = Callable[[UnitCard, int], list[dict[str, tuple[str, float]]]]
"""From a card, and the most things to show, to image and activation by domain for things that are in several domains.

Things come from the unit's top images, of each domain in turn."""


def match_images(cards: CardFolder) -> Match:
    """Return a function that finds the same things in several domains, for any card of a folder."""
    images, columns = cards.images, {unit: column for column, unit in enumerate(cards.units())}
    tables = {domain: cards.activations(domain) for domain in cards.domains}
    rows: dict[tuple[str, str], dict[str, int]] = {}
    for domain, (ids, _) in tables.items():
        for row, name in enumerate(ids):
            if images[name].item:
                rows.setdefault((images[name].class_name, images[name].item), {}).setdefault(domain, row)

    def match(card: UnitCard, most: int) -> list[dict[str, tuple[str, float]]]:
        column = columns[card.site, card.unit]
        tops: list[Sequence[str]] = [card.top[ACTIVATION][domain].ids for domain in card.domains]
        in_turn = (images[name] for name in chain.from_iterable(zip_longest(*tops)) if name is not None)
        things = dict.fromkeys((image.class_name, image.item) for image in in_turn)
        found = [rows[thing] for thing in things if len(rows.get(thing, {})) > 1]
        return [
            {domain: (tables[domain][0][row], float(tables[domain][1][row, column])) for domain, row in some.items()}
            for some in found[:most]
        ]

    return match
