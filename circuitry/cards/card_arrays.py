"""The cards of a site as arrays, joined from the circuits, the images and the exact effects. No torch."""

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
"""Replacements of a unit in exact effects, and the baseline of each."""
BINS = 30
"""Bins of the histograms."""


def site_arrays(
    circuits: CircuitUnits,
    site: str,
    seen: Sequence[SeenImages],
    activations: Sequence[Float[np.ndarray, "images units"]],
    exact: Mapping[Key, Mapping[str, np.ndarray]],
) -> dict[str, np.ndarray]:
    """Return the arrays of a site's cards by name, with a row for each unit that a circuit keeps.

    Args:
        seen: The images of each domain.
        activations: Activations of the site's units in them, domain by domain.
        exact: The arrays of the files of exact effects, by circuit.
    """
    # Rows of all arrays: the units with a card, in ascending order.
    units = circuits.kept_by_any(site)
    edges, counts = histograms(activations)
    # A unit that is never above zero has the scale zero, and no heat.
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
            # One scale for both rankings: equal heat is equal activation.
            shown = as_heat(array, heat_scale) if name == "heat" else array
            arrays[f"{ranking}/{name}"] = shown
    for kind in REPLACED_BY:
        effects = np.full((len(units), len(circuits.keys)), np.nan)
        for column, key in enumerate(circuits.keys):
            # Only a circuit's strongest units are measured.
            if f"{kind}/{site}" in exact[key]:
                # Measured units are in a circuit, so each is among the sorted ones.
                rows = np.searchsorted(units, exact[key][f"units/{site}"])
                effects[rows, column] = exact[key][f"{kind}/{site}"]
        arrays[f"exact/{kind}"] = circuits.by_class_and_domain(effects)
    return arrays


def _top_arrays(
    seen: Sequence[SeenImages],
    ranking: str,
    site: str,
) -> dict[str, np.ndarray]:
    """Return the top images of a site's units as arrays [units, domains, images, ...]: places, values and maps."""
    places: list[np.ndarray] = []
    values: list[np.ndarray] = []
    maps: list[np.ndarray | None] = []
    n_before = 0
    for domain in seen:
        within = domain.arrays[f"{ranking}/places/{site}"]
        # A domain's file numbers its own images, a card those of all domains; -1 is no image.
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
    """Return the histograms of each unit's activations: edges of the bins, and counts [units, domains, bins].

    The bins of a unit go from zero, or from its lowest activation if that is below zero, to its highest activation.
    """
    activations = np.concatenate(by_domain)
    start = activations.min(0, initial=0)
    highest = activations.max(0, initial=-np.inf)
    # A unit without a positive activation has bins of some width, too.
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
    """Return maps as bytes: 255 for the unit's ``scale``, 0 for zero or less."""
    # [units, 1, ...], so that each unit's maps are divided by its own scale.
    scale = np.expand_dims(scale, tuple(range(1, maps.ndim)))
    shares = np.zeros_like(maps)
    np.divide(maps, scale, out=shares, where=scale > 0)
    steps = np.round(shares.clip(0, 1) * 255)
    heat: np.ndarray = steps.astype(np.uint8)
    return heat
