"""The strongest units of a folder of cards: what they respond to, at a glance. No torch."""

import io

import numpy as np
import pandas as pd
from PIL import Image

from circuitry.cards.card_folder import CardFolder
from circuitry.cards.unit_card import ACTIVATION, UnitCard
from circuitry.reports.contact_sheets import contact_sheet
from circuitry.reports.page import Finding, Report
from circuitry.reports.sections.findings import NO, PARTLY, UNKNOWN, YES
from circuitry.runs.given import checked

SHOWN_UNITS, PER_CELL = 16, 3


@checked
def unit_report(cards: CardFolder) -> Report:
    """Return a report with the images of the strongest units in every domain, and their names.

    Example:
        >>> unit_report(CardFolder("runs/x/cards")).write("runs/x/cards/report.html")
    """
    report = Report("The strongest units of the circuits", cards.words.sentence)
    strongest = _strongest(cards)
    report.summary([_whether_named(strongest)])
    rows = [card.title for card in strongest]
    cells = {
        (card.title, domain): [Image.open(io.BytesIO(cards.thumbnail(name))) for name in top.ids[:PER_CELL]]
        for card in strongest
        for domain, top in card.top[ACTIVATION].items()
    }
    report.image(
        contact_sheet(cells, rows, cards.domains, per_cell=PER_CELL),
        "The units with the largest effect on a class in any domain, and the images of each domain that activate them "
        "most.",
        alt=f"Images that activate the units {', '.join(rows)} most, in {', '.join(cards.domains)}.",
    )
    report.table(
        pd.DataFrame([_row(card) for card in strongest]),
        "Their largest attributed effect, and their names, tested on images that they were not fitted on.",
    )
    return report


def _strongest(cards: CardFolder) -> list[UnitCard]:
    sizes = {unit: np.nanmax(np.abs(cards.card(*unit).effects), initial=0) for unit in cards.units()}
    return [cards.card(*unit) for unit in sorted(sizes, key=lambda unit: -sizes[unit])[:SHOWN_UNITS]]


def _whether_named(cards: list[UnitCard]) -> Finding:
    """Answer whether the units have names."""
    named = sum(card.name is not None and not card.name.weak for card in cards)
    told = UNKNOWN if all(card.name is None for card in cards) else NO if not named else PARTLY
    return Finding(
        f"Do the strongest units have a name? {YES if named == len(cards) else told}: {named} of {len(cards)} have one "
        "that holds on images that it was not fitted on.",
        "A name is a text; it is weak where its correlation with the activation is.",
        "Other texts; more images.",
    )


def _row(card: UnitCard) -> dict[str, object]:
    place = np.unravel_index(np.nanargmax(np.abs(card.effects)), card.effects.shape)
    name = card.name
    return {
        "unit": card.title,
        "effect": float(card.effects[place]),
        "on": f"{card.classes[place[0]]} in {card.domains[place[1]]}",
        "circuits": int(card.kept.sum()),
        "name": None if name is None else f"{name.name}{' (weak)' if name.weak else ''}",
        "correlation": None if name is None else name.correlation,
    }
