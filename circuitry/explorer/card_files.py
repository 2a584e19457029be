"""Write the cards of units for the explorer's page. Does not import torch.

There is a script with the cards of each site, a script with images of each class for the page's view of unseen images,
and a thumbnail of each image.
"""

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
"""The page's name for a unit's list of images that show the same things in several domains. The other lists of a unit's
images are the images with the largest activation, and the images with the largest effect."""
NO_PICTURE = np.uint32(0xFFFFFFFF)
"""The number that tells the page that a place in a list of pictures is empty."""
_STEPS = 15
"""Largest value of heat and of activations, which are stored in four bits."""


class Pictures(dict[str, int]):
    """The number of each image that the page shows, by the id of the image. A new id gets the next number (from 0)."""

    def __missing__(self, image_id: str) -> int:
        self[image_id] = len(self)
        return self[image_id]


class ImageActivations:
    """Activations of all units that have a card, in all images. They are read from disk when they are used."""

    def __init__(self, cards: CardFolder) -> None:
        self.images = cards.images
        self.columns = {unit: column for column, unit in enumerate(cards.units())}
        """Column of each (site, unit)."""
        self._tables = {domain: cards.activations(domain) for domain in cards.domains}
        self._rows: dict[str, np.ndarray] = {}
        # Rows are views of files on disk. A row is read when the activations of its image are used.
        for ids, table in self._tables.values():
            self._rows |= zip(ids, table, strict=True)
        self._things: dict[tuple[str, str], dict[str, str]] = {}
        """For each (class, item): a dictionary from each domain to the id of one image of the item."""
        for image in cards.images.values():
            if image.item:
                thing = self._things.setdefault((image.class_name, image.item), {})
                thing.setdefault(image.domain, image.id)

    def of(self, image_id: str) -> np.ndarray:
        """Return the activation of every unit in an image [units]. The units are in the order of `columns`."""
        return self._rows[image_id]

    @cached_property
    def largest(self) -> np.ndarray:
        """The largest activation of each unit in any image [units]; 0 if the unit's activation is never above 0."""
        largest = np.zeros(len(self.columns), np.float32)
        for _, table in self._tables.values():
            largest = np.maximum(largest, table.max(0, initial=0))
        return largest

    def things_of(self, card: UnitCard, most: int) -> list[dict[str, str]]:
        """Return images of the things that a unit's top images show.

        A thing (`CardImage.item`) is one object that may be shown in several domains, for example one clock as a photo
        and as a sketch. Things that only one domain shows are left out. The things that the first top image of each
        domain shows come first, then the things of the second top images, and so on.

        Args:
            card: The card of the unit.
            most: Largest number of things.

        Returns:
            For each thing, a dictionary from the domains that show the thing to the id of an image of the thing.
        """
        tops = [card.top[ACTIVATION][domain].ids for domain in card.domains]
        things: list[dict[str, str]] = []
        # zip_longest gives None for a domain that has fewer top images.
        for image_id in chain.from_iterable(zip_longest(*tops)):
            if image_id is not None:
                image = self.images[image_id]
                # An image without a known item belongs to no thing.
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
    """Write the cards, unseen images and thumbnails into the folder of an explorer.

    Unseen images are images on which no circuit was found, as far as there are enough of them (see `_unseen`). An image
    gets its number when it is first used by a card or by the unseen images. Therefore the list of images and the
    thumbnails are written last.

    Args:
        folder: The folder of the explorer.
        cards: The cards of units.
        circuits: The units of the circuits.
        view: Answers of the model to images, if there are any.
        settings: How many images are written.

    Returns:
        Entries for the index of the explorer. ``cards`` has the indices of the sites that have cards. ``images`` has
        the indices of the classes that have unseen images. ``names`` has the units of each site that have a name, with
        this name. ``words`` is a sentence that says whether the model classifies the images by words better than
        chance. If it does not, names of units must not be trusted.
    """
    pictures = Pictures()
    activations = ImageActivations(cards)
    # Files are named by the index of a site, because the name of a site may have any characters.
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
        # The page searches these names before it has read any card.
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
        # If circuits are newer than the cards, some of their units may not have a card.
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
    """Return the cards of a site as arrays by name.

    Most arrays have the shape [units, ...]. Exact effects are an exception, because they are measured only for a few
    units, classes and domains. Each pair of a class and a domain has a number, which is (index of the class) times
    (number of domains) plus (index of the domain). ``exactCells`` has the numbers of the pairs for which the effect of
    the first unit was measured, then of the pairs for the second unit, and so on. ``exactCounts`` [units] has the
    number of these pairs for each unit. ``exactEffects`` has a row for each entry of ``exactCells``: first the
    attributed effect of the unit, then the exact effect for each way to replace the unit's activation.

    Args:
        cards: The cards of the site.
        pictures: Numbers of the images.
        most: Largest number of images of a unit in a domain.
    """
    counts = np.stack([card.counts for card in cards])
    edges = np.stack([card.bin_edges for card in cards])
    arrays = {
        "units": np.array([card.unit for card in cards], np.uint32),
        "edges": edges.astype(np.float32),
        # A number has two bytes. A bin with more images is stored as the largest number.
        "histogram": np.minimum(counts, 65535).astype(np.uint16),
    }
    for ranking in RANKINGS_OF_IMAGES:
        top = _top_arrays(ranking, cards, pictures, most)
        for name, array in top.items():
            arrays[f"{ranking}/{name}"] = array
    cells: list[np.ndarray] = []
    effects: list[np.ndarray] = []
    for card in cards:
        # [1 + replacements, cells]: the attributed effects, then the exact effects by each replacement.
        measured = np.stack([card.effects, *card.exact.values()])
        measured = measured.reshape(len(measured), -1)
        # A cell is stored if the effect of any replacement was measured there.
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
    """Return the top images of the units of a site as arrays by name.

    Args:
        ranking: What images are ranked by: one of `RANKINGS_OF_IMAGES`.
        cards: The cards of the site.
        pictures: Numbers of the images.
        most: Largest number of images of a unit in a domain.

    Returns:
        ``pictures`` [units, domains, images]: numbers of the images, or `NO_PICTURE` where there is no image.
        ``values`` [units, domains, images]: the activation or effect by which the images are ranked. ``heat`` [units,
        domains, images, bytes]: heat maps of the activation, with 4 bits for each position, so that a byte holds two
        positions. ``grid``: height and width of the heat maps.
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
                # The first map tells the size, which is the same for all maps of a site.
                if not heat.size:
                    grid = top.heat.shape[1:]
                    # The number of positions is made even, so that two positions share a byte.
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
    """Return, for each unit of a site, images that show the same thing in several domains, as arrays by name.

    `ImageActivations.things_of` chooses the things.

    Args:
        cards: The cards of the site.
        activations: Activations of the units in images.
        pictures: Numbers of the images.
        most: Largest number of things of a unit.

    Returns:
        Two arrays [units, domains, things]. ``matched/pictures`` has the numbers of the images, or `NO_PICTURE` where
        there is no image. ``matched/values`` has the activations of the unit in these images. If no unit has such
        images, the dictionary is empty.
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
    """Return images of each class: at most ``most`` images of each domain.

    Images that the model has classified come first, then images on which no circuit was found, then all other images.

    Args:
        cards: The folder of cards, from whose images the result is chosen.
        most: Largest number of images of a class in a domain.
        answered: The model's answers to images, by the path of the image.
    """
    by_key: dict[Key, list[CardImage]] = {}
    for image in cards.images.values():
        by_key.setdefault((image.class_name, image.domain), []).append(image)
    unseen: dict[str, list[CardImage]] = {}
    for (class_name, _), images in by_key.items():
        # Ties are broken by the id, which is a digest, so that the order does not depend on folders.
        images.sort(key=lambda i: (i.relative not in answered, i.found_on, i.id))
        unseen.setdefault(class_name, []).extend(images[:most])
    return unseen


def _fired(
    images: Sequence[CardImage],
    units: Sequence[tuple[str, int]],
    activations: ImageActivations,
) -> np.ndarray:
    """Return activations [images, units] as whole numbers from 0 to 15.

    For each unit, 15 is its largest activation in any image, and 0 is no activation.
    """
    columns = [activations.columns[unit] for unit in units]
    largest = activations.largest[columns]
    # The activations of a unit that is never above 0 are divided by 1, and become 0.
    scale = np.where(largest > 0, largest, 1)
    values = np.stack([activations.of(image.id)[columns] for image in images])
    shares = np.clip(values / scale, 0, 1)
    return np.round(shares * _STEPS).astype(np.uint8)
