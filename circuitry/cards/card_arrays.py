"""Join the scores, top images and exact effects of units into the arrays of a site's cards. Does not import torch.

The exact effect of a unit is measured: it is the change of the metric if the unit is replaced.
"""

from collections.abc import Mapping, Sequence

import numpy as np
from jaxtyping import Float

from circuitry.cards.card_folder import SeenImages
from circuitry.cards.circuit_units import CircuitUnits
from circuitry.cards.unit_card import RANKINGS_OF_IMAGES
from circuitry.data.folds import Key

REPLACED_BY = {
    "zero": "zero",
    "mean": "mean-position",
    "other-domains": "other-domains",
}
"""Ways to replace a unit when its exact effect is measured. The values are the names of the baselines that give the new
activation of the unit."""
BINS = 30
"""Number of bins of a histogram."""


def site_arrays(
    circuits: CircuitUnits,
    site: str,
    seen: Sequence[SeenImages],
    activations: Sequence[Float[np.ndarray, "images units"]],
    exact: Mapping[Key, Mapping[str, np.ndarray]],
) -> dict[str, np.ndarray]:
    """Return the arrays that hold the cards of a site.

    Each array has a row for each unit that at least one circuit keeps.

    Args:
        circuits: The units of all circuits.
        site: The site.
        seen: The images of each domain, with the top images of the units.
        activations: For each domain, the activations [images, units] of the units that at least one circuit keeps.
        exact: For each circuit, its exact effects: arrays ``<replacement>/<site>``, and the indices of the measured
            units as ``units/<site>``.

    Returns:
        The arrays by name. ``heat_scale`` [units] is the largest activation of a unit. ``bin_edges`` and ``counts`` are
        the unit's `histograms`. ``effects`` and ``kept`` [units, classes, domains] are the unit's score in each
        circuit, and whether the circuit keeps the unit. ``<ranking>/<array>`` are the unit's top images
        (`_top_arrays`). ``exact/<replacement>`` [units, classes, domains] are the unit's exact effects, or NaN if they
        were not measured.
    """
    # Rows of all arrays: the units with a card, in ascending order.
    units = circuits.kept_by_any(site)
    edges, counts = histograms(activations)
    # If a unit is never above zero, its scale is zero, and its heat is zero everywhere.
    heat_scale = np.concatenate(activations).max(0, initial=0)
    arrays = {
        "heat_scale": heat_scale,
        "bin_edges": edges,
        "counts": counts,
        "effects": circuits.by_class_and_domain(circuits.scores[site][units]),
        "kept": circuits.by_class_and_domain(circuits.kept[site][units]),
    }
    for ranking in RANKINGS_OF_IMAGES:
        for name, array in _top_arrays(seen, ranking, site).items():
            # Both rankings have the same scale, so that equal heat means equal activation.
            shown = as_heat(array, heat_scale) if name == "heat" else array
            arrays[f"{ranking}/{name}"] = shown
    for kind in REPLACED_BY:
        effects = np.full((len(units), len(circuits.keys)), np.nan)
        for column, key in enumerate(circuits.keys):
            # Only a circuit's strongest units are measured.
            if f"{kind}/{site}" in exact[key]:
                # Measured units are in a circuit, so all of them are among the sorted units.
                rows = np.searchsorted(units, exact[key][f"units/{site}"])
                effects[rows, column] = exact[key][f"{kind}/{site}"]
        arrays[f"exact/{kind}"] = circuits.by_class_and_domain(effects)
    return arrays


def _top_arrays(
    seen: Sequence[SeenImages],
    ranking: str,
    site: str,
) -> dict[str, np.ndarray]:
    """Return the top images of a site's units, as arrays [units, domains, images, ...] by name.

    The top images of a unit are the images in which the unit is strongest.

    Args:
        seen: The images of each domain.
        ranking: How images are ranked; one of `RANKINGS_OF_IMAGES`.
        site: The site.

    Returns:
        Three arrays. ``places`` holds the indices of the top images among the images of all domains, or -1 if there is
        no further image. ``values`` holds the activation or effect of the unit in each image, by which images are
        ranked. ``heat`` holds the map of the unit's activation over each image. ``heat`` is missing if the units have
        no maps.
    """
    places: list[np.ndarray] = []
    values: list[np.ndarray] = []
    maps: list[np.ndarray | None] = []
    n_before = 0
    for domain in seen:
        within = domain.arrays[f"{ranking}/places/{site}"]
        # In a domain's file, images are counted within the domain. On a card, the images of all domains are counted. -1
        # means that there is no image.
        places.append(np.where(within >= 0, within + n_before, -1))
        values.append(domain.arrays[f"{ranking}/values/{site}"])
        maps.append(domain.arrays.get(f"{ranking}/heat/{site}"))
        n_before += len(domain.images)
    top = {
        "places": np.stack(places, 1).astype(np.int32),
        "values": np.stack(values, 1),
    }
    with_maps = [heat for heat in maps if heat is not None]
    if with_maps:
        # A domain without a readable image has no maps.
        nothing = np.zeros_like(with_maps[0])
        by_domain = [nothing if heat is None else heat for heat in maps]
        top["heat"] = np.stack(by_domain, 1)
    return top


def histograms(
    by_domain: Sequence[Float[np.ndarray, "images units"]],
) -> tuple[Float[np.ndarray, "units edges"], np.ndarray]:
    """Return the histograms of each unit's activations, given the activations in each domain.

    The bins of a unit begin at zero, or at its lowest activation if this is below zero. They end at its highest
    activation.

    Returns:
        The edges of the bins [units, edges], and the numbers of images in the bins [units, domains, bins].
    """
    activations = np.concatenate(by_domain)
    start = activations.min(0, initial=0)
    highest = activations.max(0, initial=-np.inf)
    # If a unit has no positive activation, its bins get a width, too.
    stop = np.where(highest > start, highest, start + 1)
    edges = np.linspace(start, stop, BINS + 1, axis=1)
    edges = edges.astype(np.float32)
    shape = (len(start), len(by_domain), BINS)
    counts = np.zeros(shape, np.int32)
    for unit in range(len(start)):
        limits = (start[unit], stop[unit])
        for domain, values in enumerate(by_domain):
            n_images, _ = np.histogram(values[:, unit], BINS, limits)
            counts[unit, domain] = n_images
    return edges, counts


def as_heat(
    maps: Float[np.ndarray, "units *any"],
    scale: Float[np.ndarray, " units"],
) -> np.ndarray:
    """Return maps of activations as bytes.

    A byte is 255 where the activation reaches the ``scale`` of its unit, and 0 where the activation is zero or less.
    """
    # [units, 1, ...], so that each unit's maps are divided by its own scale.
    scale = np.expand_dims(scale, tuple(range(1, maps.ndim)))
    shares = np.zeros_like(maps)
    np.divide(maps, scale, out=shares, where=scale > 0)
    steps = np.round(shares.clip(0, 1) * 255)
    heat: np.ndarray = steps.astype(np.uint8)
    return heat
