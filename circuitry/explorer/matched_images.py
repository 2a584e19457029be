"""The same thing in every domain, beside each other: what a unit does where only the style differs. No torch."""

from collections.abc import Sequence
from itertools import chain, zip_longest

from circuitry.cards.card_folder import CardFolder
from circuitry.cards.unit_card import ACTIVATION, UnitCard

MATCHED = "matched"
"""How the page calls these images, beside those by activation and by effect."""


class MatchedImages:
    """Images of cards by item.

    Example:
        >>> MatchedImages(cards).of(cards.card("layer4.0", 12), 6)[0]
        {'real': ('0f3c...', 1.2), 'sketch': ('77ab...', 0.1)}
    """

    def __init__(self, cards: CardFolder) -> None:
        self._images = cards.images
        self._columns = {unit: column for column, unit in enumerate(cards.units())}
        self._tables = {domain: cards.activations(domain) for domain in cards.domains}
        self._rows: dict[tuple[str, str], dict[str, int]] = {}
        for domain, table in self._tables.items():
            for row, name in enumerate(table.ids):
                image = self._images[name]
                if image.item:
                    self._rows.setdefault((image.class_name, image.item), {}).setdefault(domain, row)

    def of(self, card: UnitCard, most: int) -> list[dict[str, tuple[str, float]]]:
        """Return image and activation by domain for things that are in several domains.

        They are those in the unit's top images, of each domain in turn.
        """
        column = self._columns[card.site, card.unit]
        tops: list[Sequence[str]] = [card.top[ACTIVATION][domain].ids for domain in card.domains]
        in_turn = (self._images[name] for name in chain.from_iterable(zip_longest(*tops)) if name is not None)
        found = list[dict[str, tuple[str, float]]]()
        for thing in dict.fromkeys((image.class_name, image.item) for image in in_turn):
            rows = self._rows.get(thing, {})
            if len(rows) > 1 and len(found) < most:
                tables = {domain: self._tables[domain] for domain in rows}
                found.append(
                    {d: (table.ids[rows[d]], float(table.values[rows[d], column])) for d, table in tables.items()}
                )
        return found
