"""Cards of units as the page reads them: a script for each site, unseen images by class, and thumbnails. No torch."""

from collections.abc import Mapping, Sequence
from functools import cached_property
from itertools import chain, zip_longest

import numpy as np

from circuitry.cards.card_folder import CardFolder
from circuitry.cards.circuit_units import CircuitUnits
from circuitry.cards.unit_card import (
    ACTIVATION,
    RANKINGS_OF_IMAGES,
    CardImage,
    UnitCard,
    UnitName,
)
from circuitry.data.folds import Key
from circuitry.explorer.explorer_settings import ExplorerSettings
from circuitry.explorer.packing import DataFolder
from circuitry.explorer.view_files import ModelView, answer_arrays

MATCHED = "matched"
"""The page's name for images of the same things in several domains, beside those by activation and by effect."""
NO_PICTURE = np.uint32(0xFFFFFFFF)
"""Number of a place without a picture, as the page knows it."""
_STEPS = 15
"""Steps of heat and of activations: the largest number of four bits."""


class Pictures(dict[str, int]):
    """Numbers of the images that the page shows, by id; an id that is looked up first gets the next number."""

    def __missing__(self, image_id: str) -> int:
        self[image_id] = len(self)
        return self[image_id]


class ImageActivations:
    """Activations of all units with a card in all images, read from disk when they are used."""

    def __init__(self, cards: CardFolder) -> None:
        self.images = cards.images
        self.columns = {unit: column for column, unit in enumerate(cards.units())}
        """Column of each (site, unit)."""
        self._tables = {domain: cards.activations(domain) for domain in cards.domains}
        self._rows: dict[str, np.ndarray] = {}
        # Rows are views of files on disk: a row is read when its image is asked for.
        for ids, table in self._tables.values():
            self._rows |= zip(ids, table, strict=True)
        self._things: dict[tuple[str, str], dict[str, str]] = {}
        """By class and item: the id of one image in each domain."""
        for image in cards.images.values():
            if image.item:
                thing = self._things.setdefault((image.class_name, image.item), {})
                thing.setdefault(image.domain, image.id)

    def of(self, image_id: str) -> np.ndarray:
        """Return the activation of every unit in an image."""
        return self._rows[image_id]

    @cached_property
    def largest(self) -> np.ndarray:
        """Each unit's largest activation in any image; zero for a unit that is never above zero."""
        largest = np.zeros(len(self.columns), np.float32)
        for _, table in self._tables.values():
            largest = np.maximum(largest, table.max(0, initial=0))
        return largest

    def things_of(self, card: UnitCard, most: int) -> list[dict[str, str]]:
        """Return things that a unit's top images show and that several domains have: an image id by domain.

        The first top images of all domains come first, then the second ones, and so on.

        Args:
            most: Largest number of things.
        """
        tops = [card.top[ACTIVATION][domain].ids for domain in card.domains]
        things: list[dict[str, str]] = []
        # A domain with fewer top images gives None in its turn.
        for image_id in chain.from_iterable(zip_longest(*tops)):
            if image_id is not None:
                image = self.images[image_id]
                # An image without a known item is of no thing.
                thing = self._things.get((image.class_name, image.item), {})
                if len(thing) > 1 and thing not in things:
                    things.append(thing)
        return things[:most]


def pack_cards(
    folder: DataFolder,
    cards: CardFolder,
    circuits: CircuitUnits,
    view: ModelView | None,
    settings: ExplorerSettings,
) -> dict[str, object]:
    """Write the cards, unseen images and thumbnails, and return their entries of the index.

    Pictures get their numbers while cards and images are packed, so their list and their thumbnails are written last.
    """
    pictures = Pictures()
    activations = ImageActivations(cards)
    # Files are called by the place of a site, since its name may have any characters.
    sites = list(circuits.kept)
    with_cards: list[int] = []
    names: dict[str, list[list[object]]] = {}
    for place, site in enumerate(sites):
        of_site: list[UnitCard] = []
        for site_of_unit, unit in cards.units():
            if site_of_unit == site:
                card = cards.card(site, unit)
                of_site.append(card)
        if not of_site:
            continue
        with_cards.append(place)
        most = settings.images_per_list
        arrays = _card_arrays(of_site, pictures, most)
        arrays |= _matched_arrays(of_site, activations, pictures, most)
        folder.script(f"cards/{place}", _card_header(of_site), arrays)
        # The search of the page needs the names before it reads any card.
        named: list[list[object]] = []
        for card in of_site:
            if card.name is not None:
                name = card.name
                named.append([card.unit, name.name, name.weak, name.style])
        names[str(place)] = named
    answered = {} if view is None else view.answers
    unseen = _unseen(cards, settings.held_out_images, answered)
    with_images: list[int] = []
    for place, class_name in enumerate(circuits.classes):
        images = unseen.get(class_name, [])
        # Circuits that are newer than the cards may have units without one.
        of_class = circuits.kept_by_class(class_name)
        units = [pair for pair in of_class if pair in activations.columns]
        if not images or not units:
            continue
        with_images.append(place)
        arrays = {"fire": _fired(images, units, activations)}
        arrays |= answer_arrays(view, [image.relative for image in images])
        numbers = [pictures[image.id] for image in images]
        arrays["pictures"] = np.array(numbers, np.uint32)
        places: list[int] = []
        unit_numbers: list[int] = []
        for site, unit in units:
            places.append(sites.index(site))
            unit_numbers.append(unit)
        arrays["sites"] = np.array(places, np.uint16)
        arrays["units"] = np.array(unit_numbers, np.uint32)
        folder.script(f"images/{place}", {}, arrays)
    rows = []
    for image_id in pictures:
        image = cards.images[image_id]
        row = [
            image.id,
            image.relative,
            image.class_name,
            image.domain,
            image.found_on,
        ]
        rows.append(row)
        thumbnail = cards.thumbnail(image_id)
        folder.file(f"thumbnails/{image_id}.webp", thumbnail, "thumbnails")
    folder.script("pictures", {"pictures": rows}, {})
    return {
        "cards": with_cards,
        "images": with_images,
        "names": names,
        "words": cards.words.sentence,
    }


def _card_header(cards: Sequence[UnitCard]) -> dict[str, object]:
    # Classes, domains and baseline are the same for all cards of a folder.
    first = cards[0]
    return {
        "classes": first.classes,
        "domains": first.domains,
        "attributedLike": first.attributed_like,
        "exact": list(first.exact),
        "names": [_name(card.name) for card in cards],
    }


def _name(name: UnitName | None) -> dict[str, object] | None:
    if name is None:
        return None
    return {
        "name": name.name,
        "correlation": name.correlation,
        "auprc": name.auprc,
        "byDomain": name.by_domain,
        "runnerUp": name.runner_up,
        "runnerUpCorrelation": name.runner_up_correlation,
        "chance": name.chance,
        "weak": name.weak,
        "style": name.style,
        "references": name.references,
    }


def _card_arrays(
    cards: Sequence[UnitCard],
    pictures: Pictures,
    most: int,
) -> dict[str, np.ndarray]:
    """Return the cards of a site as arrays [units, ...].

    Exact effects are measured for few units, classes and domains: ``exactCells`` has the numbers of the measured cells
    of all units one after another, ``exactCounts`` how many are of each unit, ``exactEffects`` their effects.
    """
    counts = np.stack([card.counts for card in cards])
    edges = np.stack([card.bin_edges for card in cards])
    arrays = {
        "units": np.array([card.unit for card in cards], np.uint32),
        "edges": edges.astype(np.float32),
        # Two bytes a number; a bin of more images is drawn as full.
        "histogram": np.minimum(counts, 65535).astype(np.uint16),
    }
    for ranking in RANKINGS_OF_IMAGES:
        top = _top_arrays(ranking, cards, pictures, most)
        for name, array in top.items():
            arrays[f"{ranking}/{name}"] = array
    cells: list[np.ndarray] = []
    effects: list[np.ndarray] = []
    for card in cards:
        # The attributed effect, then one by each replacement, of every class and domain.
        measured = np.stack([card.effects, *card.exact.values()])
        measured = measured.reshape(len(measured), -1)
        # A cell counts if any replacement was measured there.
        unknown = np.isnan(measured[1:]).all(0)
        cells.append(np.flatnonzero(~unknown))
        effects.append(measured[:, cells[-1]].T)
    arrays["exactCells"] = np.concatenate(cells).astype(np.uint32)
    arrays["exactCounts"] = np.array([len(of_card) for of_card in cells], np.uint32)
    arrays["exactEffects"] = np.concatenate(effects)
    return arrays


def _top_arrays(
    ranking: str,
    cards: Sequence[UnitCard],
    pictures: Pictures,
    most: int,
) -> dict[str, np.ndarray]:
    """Return the top images of a ranking: picture numbers and values [units, domains, images], and heat.

    Heat has 4 bits for each position of the map, two positions in a byte.
    """
    domains = cards[0].domains
    shape = (len(cards), len(domains), most)
    numbers = np.full(shape, NO_PICTURE)
    values = np.zeros(shape, np.float32)
    grid = (0, 0)
    heat = np.zeros((*shape, 0), np.uint8)
    for i, card in enumerate(cards):
        for j, domain in enumerate(domains):
            top = card.top[ranking][domain]
            n = min(most, len(top.ids))
            shown = top.ids[:n]
            numbers[i, j, :n] = [pictures[image_id] for image_id in shown]
            values[i, j, :n] = top.values[:n]
            if n and top.heat is not None:
                # The size of maps is known when the first one is read; all maps of a site have it.
                if not heat.size:
                    grid = top.heat.shape[1:]
                    # An even number of positions, so that they pair.
                    n_cells = grid[0] * grid[1]
                    heat = np.zeros((*shape, n_cells + n_cells % 2), np.uint8)
                steps = top.heat[:n].reshape(n, -1) // (255 // _STEPS)
                heat[i, j, :n, : steps.shape[1]] = steps
    high_bits = heat[..., ::2] << 4
    low_bits = heat[..., 1::2]
    return {
        "pictures": numbers,
        "values": values,
        "heat": high_bits | low_bits,
        "grid": np.array(grid, np.uint8),
    }


def _matched_arrays(
    cards: Sequence[UnitCard],
    activations: ImageActivations,
    pictures: Pictures,
    most: int,
) -> dict[str, np.ndarray]:
    """Return picture numbers and values [units, domains, things] of things that several domains have.

    Return no arrays if there is no such thing.
    """
    shape = (len(cards), len(cards[0].domains), most)
    numbers = np.full(shape, NO_PICTURE)
    values = np.zeros(shape, np.float32)
    for i, card in enumerate(cards):
        column = activations.columns[card.site, card.unit]
        for k, thing in enumerate(activations.things_of(card, most)):
            for domain, image_id in thing.items():
                j = card.domains.index(domain)
                numbers[i, j, k] = pictures[image_id]
                values[i, j, k] = activations.of(image_id)[column]
    if (numbers == NO_PICTURE).all():
        return {}
    return {f"{MATCHED}/pictures": numbers, f"{MATCHED}/values": values}


def _unseen(
    cards: CardFolder,
    most: int,
    answered: Mapping[str, object],
) -> dict[str, list[CardImage]]:
    """Return at most ``most`` images of each domain, by class.

    Images that the model answered come first, then images that no circuit was found on.
    """
    by_key: dict[Key, list[CardImage]] = {}
    for image in cards.images.values():
        by_key.setdefault((image.class_name, image.domain), []).append(image)
    unseen: dict[str, list[CardImage]] = {}
    for (class_name, _), images in by_key.items():
        # The id, a digest, breaks ties: an order that depends on no folder.
        images.sort(key=lambda i: (i.relative not in answered, i.found_on, i.id))
        unseen.setdefault(class_name, []).extend(images[:most])
    return unseen


def _fired(
    images: Sequence[CardImage],
    units: Sequence[tuple[str, int]],
    activations: ImageActivations,
) -> np.ndarray:
    """Return activations [images, units] in 15 steps; step 15 is the largest activation of a unit in any image."""
    columns = [activations.columns[unit] for unit in units]
    largest = activations.largest[columns]
    # A unit that is never above zero never fires.
    scale = np.where(largest > 0, largest, 1)
    values = np.stack([activations.of(image.id)[columns] for image in images])
    shares = np.clip(values / scale, 0, 1)
    return np.round(shares * _STEPS).astype(np.uint8)
