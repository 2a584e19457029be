"""Cards of units as the page reads them: a script for each site, unseen images by class, and thumbnails. No torch."""

from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from itertools import chain, zip_longest

import numpy as np

from circuitry.cards.card_folder import CardFolder
from circuitry.cards.unit_card import ACTIVATION, EFFECT, UnitCard, UnitName
from circuitry.explorer.circuit_files import UnitTally
from circuitry.explorer.view_files import ModelView, Script, answer_arrays

MATCHED = "matched"
"""The page's name for these images, beside those by activation and by effect."""

Match = Callable[[UnitCard, int], list[dict[str, tuple[str, float]]]]
"""From a card, and the most things to show, to image and activation by domain for things that are in several domains.

Things come from the unit's top images, of each domain in turn."""


def match_images(cards: CardFolder) -> Match:
    """Return a function that finds the same things in several domains, for any card of a folder."""
    images, columns = (
        cards.images,
        {unit: column for column, unit in enumerate(cards.units())},
    )
    tables = {domain: cards.activations(domain) for domain in cards.domains}
    rows: dict[tuple[str, str], dict[str, int]] = {}
    for domain, (ids, _) in tables.items():
        for row, name in enumerate(ids):
            if images[name].item:
                rows.setdefault(
                    (images[name].class_name, images[name].item), {}
                ).setdefault(domain, row)

    def match(card: UnitCard, most: int) -> list[dict[str, tuple[str, float]]]:
        column = columns[card.site, card.unit]
        tops: list[Sequence[str]] = [
            card.top[ACTIVATION][domain].ids for domain in card.domains
        ]
        in_turn = (
            images[name]
            for name in chain.from_iterable(zip_longest(*tops))
            if name is not None
        )
        things = dict.fromkeys((image.class_name, image.item) for image in in_turn)
        found = [rows[thing] for thing in things if len(rows.get(thing, {})) > 1]
        return [
            {
                domain: (tables[domain][0][row], float(tables[domain][1][row, column]))
                for domain, row in some.items()
            }
            for some in found[:most]
        ]

    return match


NO_PICTURE = np.uint32(0xFFFFFFFF)
_STEPS = 15


_Numbers = defaultdict[str, int]
"""Number of each image that the page shows, by id, in the order of first use."""


def pack_cards(
    script: Script,
    file: Callable[[str, bytes, str], None],
    cards: CardFolder,
    tally: UnitTally,
    view: ModelView | None,
    images_per_list: int,
    held_out_images: int,
) -> dict[str, object]:
    """Write the cards, unseen images and thumbnails (files of a name, content and kind), and return index entries.

    Of the unseen images of a class and domain, those that the model has answered come first.
    """
    pictures: _Numbers = defaultdict()
    pictures.default_factory = pictures.__len__
    by_site: dict[str, list[int]] = {}
    for site, unit in cards.units():
        by_site.setdefault(site, []).append(unit)
    names, matched = dict[str, list[list[object]]](), match_images(cards)
    for place, site in enumerate(tally.sizes):
        if site not in by_site:
            continue
        found = [cards.card(site, unit) for unit in by_site[site]]
        arrays = _card_arrays(found, pictures, images_per_list)
        arrays |= _matched_arrays(found, matched, pictures, images_per_list)
        script(f"cards/{place}", _card_header(found), arrays)
        named = [(card.unit, card.name) for card in found if card.name]
        names[str(place)] = [
            [unit, name.name, bool(name.weak), bool(name.style)] for unit, name in named
        ]
    unseen = _unseen(cards, held_out_images, {} if view is None else view.answers)
    columns = {unit: column for column, unit in enumerate(cards.units())}
    loudest, rows_of = _read_activations(
        cards, sorted({name for some in unseen.values() for name in some})
    )
    shown = []
    for place, class_name in enumerate(tally.classes):
        chosen = unseen.get(class_name, [])
        units = [unit for unit in tally.units_of(class_name) if unit in columns]
        if not chosen or not units:
            continue
        shown.append(place)
        some = [name for name in chosen if name in rows_of]
        arrays = _fired(some, units, columns, loudest, rows_of)
        arrays |= answer_arrays(view, [cards.images[name].relative for name in some])
        arrays["pictures"] = np.array([pictures[name] for name in some], np.uint32)
        sites = list(tally.sizes)
        arrays["sites"] = np.array([sites.index(site) for site, _ in units], np.uint16)
        arrays["units"] = np.array([unit for _, unit in units], np.uint32)
        script(f"images/{place}", {}, arrays)
    shown_images = [cards.images[name] for name in pictures]
    rows = [
        [one.id, one.relative, one.class_name, one.domain, bool(one.found_on)]
        for one in shown_images
    ]
    script("pictures", {"pictures": rows}, {})
    for name in pictures:
        file(f"thumbnails/{name}.webp", cards.thumbnail(name), "thumbnails")
    return {
        "cards": [place for place, site in enumerate(tally.sizes) if site in by_site],
        "images": shown,
        "names": names,
        "words": cards.words.sentence,
    }


def _card_header(cards: Sequence[UnitCard]) -> dict[str, object]:
    first = cards[0]
    return {
        "classes": list(first.classes),
        "domains": list(first.domains),
        "attributedLike": first.attributed_like,
        "exact": list(first.exact),
        "names": [_name(card.name) for card in cards],
    }


def _name(name: UnitName | None) -> dict[str, object] | None:
    if name is None:
        return None
    return {
        "name": name.name,
        "correlation": float(name.correlation),
        "auprc": float(name.auprc),
        "byDomain": {
            domain: [float(c), float(a)] for domain, (c, a) in name.by_domain.items()
        },
        "runnerUp": name.runner_up,
        "runnerUpCorrelation": float(name.runner_up_correlation),
        "chance": float(name.chance),
        "weak": bool(name.weak),
        "style": bool(name.style),
        "references": {
            key: [label, float(value)]
            for key, (label, value) in name.references.items()
        },
    }


def _card_arrays(
    cards: Sequence[UnitCard], pictures: _Numbers, most: int
) -> dict[str, np.ndarray]:
    """Return the cards of a site as arrays [units, ...]; exact effects have an entry for each measured cell."""
    first = cards[0]
    arrays = {
        "units": np.array([card.unit for card in cards], np.uint32),
        "edges": np.stack([card.bin_edges for card in cards]).astype(np.float32),
        "histogram": np.minimum(
            np.stack([card.counts for card in cards]), 65535
        ).astype(np.uint16),
    }
    for kind in (ACTIVATION, EFFECT):
        arrays |= _top_arrays(kind, cards, pictures, most)
    cells = [
        np.flatnonzero(~np.isnan(list(card.exact.values())).all(0)) for card in cards
    ]
    arrays["exactCells"] = np.concatenate(cells).astype(np.uint32)
    arrays["exactCounts"] = np.array([len(some) for some in cells], np.uint32)
    arrays["exactEffects"] = np.concatenate(
        [
            np.stack(
                [
                    card.effects.ravel()[some],
                    *(card.exact[by].ravel()[some] for by in first.exact),
                ],
                1,
            )
            for card, some in zip(cards, cells, strict=True)
        ]
    )
    return arrays


def _top_arrays(
    kind: str, cards: Sequence[UnitCard], pictures: _Numbers, most: int
) -> dict[str, np.ndarray]:
    """Return picture numbers and values [units, domains, images], and heat in 4 bits, two positions in a byte."""
    domains = cards[0].domains
    shape = len(cards), len(domains), most
    numbers, values = np.full(shape, NO_PICTURE), np.zeros(shape, np.float32)
    heats = [card.top[kind][domain].heat for card in cards for domain in domains]
    grid = next(
        (heat.shape[1:] for heat in heats if heat is not None and len(heat)), None
    )
    heat = np.zeros((*shape, 0 if grid is None else grid[0] * grid[1]), np.uint8)
    for i, card in enumerate(cards):
        for j, domain in enumerate(domains):
            top = card.top[kind][domain]
            n = min(most, len(top.ids))
            numbers[i, j, :n] = [pictures[name] for name in top.ids[:n]]
            values[i, j, :n] = top.values[:n]
            if grid is not None and top.heat is not None:
                heat[i, j, :n] = top.heat[:n].reshape(n, heat.shape[-1]) // (
                    255 // _STEPS
                )
    if heat.shape[-1] % 2:
        heat = np.concatenate([heat, np.zeros((*shape, 1), np.uint8)], -1)
    found = {
        "pictures": numbers,
        "values": values,
        "heat": (heat[..., ::2] << 4) | heat[..., 1::2],
    }
    found["grid"] = np.array(grid or (0, 0), np.uint8)
    return {f"{kind}/{name}": array for name, array in found.items()}


def _matched_arrays(
    cards: Sequence[UnitCard], matched: Match, pictures: _Numbers, most: int
) -> dict[str, np.ndarray]:
    """Return picture numbers and values [units, domains, things]; nothing where no thing is in several domains."""
    things = [matched(card, most) for card in cards]
    if not any(things):
        return {}
    shape, places = (
        (len(cards), len(cards[0].domains), most),
        {domain: j for j, domain in enumerate(cards[0].domains)},
    )
    numbers, values = np.full(shape, NO_PICTURE), np.zeros(shape, np.float32)
    for i, of_unit in enumerate(things):
        for k, by_domain in enumerate(of_unit):
            for domain, (name, value) in by_domain.items():
                numbers[i, places[domain], k], values[i, places[domain], k] = (
                    pictures[name],
                    value,
                )
    return {f"{MATCHED}/pictures": numbers, f"{MATCHED}/values": values}


def _unseen(
    cards: CardFolder, most: int, answered: Mapping[str, object]
) -> dict[str, list[str]]:
    """Return some images of each domain by class: answered images first, then images that no circuit was found on."""
    by_key: dict[tuple[str, str], list[tuple[bool, bool, str]]] = {}
    for name, image in cards.images.items():
        rank = (image.relative not in answered, bool(image.found_on), name)
        by_key.setdefault((image.class_name, image.domain), []).append(rank)
    found: dict[str, list[str]] = {}
    for (class_name, _), images in by_key.items():
        found.setdefault(class_name, []).extend(
            name for *_, name in sorted(images)[:most]
        )
    return found


def _read_activations(
    cards: CardFolder, chosen: Sequence[str]
) -> tuple[np.ndarray, dict[str, np.ndarray]]:
    """Return each unit's largest activation in any image, and all activations of some images."""
    loudest, rows, wanted = (
        np.zeros(len(cards.units()), np.float32),
        dict[str, np.ndarray](),
        set(chosen),
    )
    for domain in dict.fromkeys(image.domain for image in cards.images.values()):
        ids, values = cards.activations(domain)
        if len(ids):
            loudest = np.maximum(loudest, values.max(0))
        rows |= {
            name: np.array(values[row])
            for row, name in enumerate(ids)
            if name in wanted
        }
    return loudest, rows


def _fired(
    images: Sequence[str],
    units: Sequence[tuple[str, int]],
    columns: Mapping[tuple[str, int], int],
    loudest: np.ndarray,
    rows: Mapping[str, np.ndarray],
) -> dict[str, np.ndarray]:
    """Return how strongly units fire in some images, in 15 steps of a unit's largest activation in any image."""
    take = np.array([columns[unit] for unit in units])
    scale = np.where(loudest[take] > 0, loudest[take], 1)
    fire = [np.clip(rows[name][take] / scale, 0, 1) * _STEPS for name in images]
    return {
        "fire": np.round(np.array(fire).reshape(len(images), len(take))).astype(
            np.uint8
        )
    }
