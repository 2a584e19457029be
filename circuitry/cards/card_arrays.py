"""The cards of a site as arrays, joined from the circuits, the images and the exact effects. No torch."""

from collections.abc import Mapping, Sequence

import numpy as np
from jaxtyping import Float

from circuitry.cards.card_folder import SeenImages
from circuitry.cards.circuit_units import CircuitUnits
from circuitry.cards.unit_card import RANKINGS_OF_IMAGES
from circuitry.data.parts import Key

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
    units = circuits.kept_by_any(site)
    edges, counts = histograms(activations)
    heat_scale = np.concatenate(activations).max(0, initial=0)
    arrays = {
        "heat_scale": heat_scale,
        "bin_edges": edges,
        "counts": counts,
        "effects": circuits.by_class_and_domain(circuits.scores[site][units]),
        "kept": circuits.by_class_and_domain(circuits.kept[site][units]),
    }
    for ranking in RANKINGS_OF_IMAGES:
        top = _top_arrays(seen, ranking, site)
        if "heat" in top:
            top["heat"] = as_heat(top["heat"], heat_scale)
        arrays |= {f"{ranking}/{name}": array for name, array in top.items()}
    for kind in REPLACED_BY:
        effects = np.full((len(units), len(circuits.keys)), np.nan)
        for column, key in enumerate(circuits.keys):
            # Only a circuit's strongest units are measured.
            if f"{kind}/{site}" in exact[key]:
                rows = np.searchsorted(units, exact[key][f"units/{site}"])
                effects[rows, column] = exact[key][f"{kind}/{site}"]
        arrays[f"exact/{kind}"] = circuits.by_class_and_domain(effects)
    return arrays


def _top_arrays(
    seen: Sequence[SeenImages], ranking: str, site: str
) -> dict[str, np.ndarray]:
    """Return numbers, values and maps of the top images as arrays [units, domains, images, ...]."""
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
        top["heat"] = np.stack([nothing if h is None else h for h in maps], 1)
    return top


def histograms(
    by_domain: Sequence[Float[np.ndarray, "images units"]],
) -> tuple[Float[np.ndarray, "units edges"], np.ndarray]:
    """Return edges of bins for each unit, and numbers of images [units, domains, bins] by their activation.

    The axis of a unit goes from zero, or its lowest activation below zero, to its highest.
    """
    activations = np.concatenate(by_domain)
    start = activations.min(0, initial=0)
    highest = activations.max(0, initial=-np.inf)
    stop = np.where(highest > start, highest, start + 1)
    edges = np.linspace(start, stop, BINS + 1, axis=1).astype(np.float32)
    counts = np.zeros((len(start), len(by_domain), BINS), np.int32)
    for unit, limits in enumerate(zip(start, stop, strict=True)):
        for domain, values in enumerate(by_domain):
            counts[unit, domain] = np.histogram(values[:, unit], BINS, limits)[0]
    return edges, counts


def as_heat(
    maps: Float[np.ndarray, "units *any"], scale: Float[np.ndarray, " units"]
) -> np.ndarray:
    """Return maps as bytes: 255 for the unit's ``scale``, 0 for zero or less."""
    scale = np.expand_dims(scale, tuple(range(1, maps.ndim)))
    shares = np.divide(maps, scale, out=np.zeros_like(maps), where=scale > 0)
    heat: np.ndarray = np.round(shares.clip(0, 1) * 255).astype(np.uint8)
    return heat
