"""The top images of units in memory, as the jobs of cards list them in files."""

from circuitry.cards.card_arrays import as_heat
from circuitry.cards.strongest_images import (
    Shown,
    TopLists,
    UnitsBySite,
    watch_units,
)
from circuitry.cards.unit_card import ACTIVATION, RANKINGS_OF_IMAGES, TopImages


def top_images(
    shown: Shown,
    units: UnitsBySite,
    k: int,
) -> dict[str, dict[tuple[str, int], TopImages]]:
    """Return the images in which each unit is most active, and the images in which it contributes most to the metric.

    Args:
        shown: Pairs of the names of images and a task on these images, such as a pair for each class.
        units: Indices of units, by site.
        k: Number of images for each unit.

    Returns:
        A dictionary with the keys ``activation`` and ``effect``. Each value is a dictionary from (site, unit) to the
        top images of the unit.
    """
    lists = TopLists(units, k)
    names: list[str] = []
    for watched in watch_units(shown, units):
        lists.add(watched)
        names += watched.names
    tops: dict[str, dict[tuple[str, int], TopImages]] = {}
    for ranking in RANKINGS_OF_IMAGES:
        tops[ranking] = {}
    for (ranking, site), top in lists.lists.items():
        heat = None
        if top.maps is not None:
            # In both rankings the scale of a unit is its largest activation in any image.
            largest = lists.lists[ACTIVATION, site].values[:, 0]
            heat = as_heat(top.maps.numpy(), largest.numpy())
        for row, unit in enumerate(units[site]):
            # If there are fewer than k images, -1 follows after the images.
            places = top.places[row][top.places[row] >= 0].tolist()
            n = len(places)
            of_unit = None if heat is None else heat[row, :n]
            tops[ranking][site, int(unit)] = TopImages(
                ids=tuple(names[place] for place in places),
                values=top.values[row, :n].numpy(),
                heat=of_unit,
            )
    return tops
