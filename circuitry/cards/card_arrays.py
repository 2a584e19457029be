"""The cards of a site as arrays, joined from the graphs, the images and the exact effects. No torch."""

from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import Any

import numpy as np
from jaxtyping import Float

from circuitry.cards.card_folder import SeenImages
from circuitry.cards.unit_card import ACTIVATION, EFFECT
from circuitry.circuits.graph_folder import GraphFolder
from circuitry.data.parts import Key

REPLACED_BY = {
    "zero": "zero",
    "mean": "mean-position",
    "other-domains": "other-domains",
}
"""Replacements of a unit in exact effects, and the baseline of each."""
BINS = 30
"""Bins of the histograms."""


class CircuitScores:
    """The units that any circuit of a folder keeps, with their scores in all circuits."""

    def __init__(self, graphs: GraphFolder, keys: Sequence[Key]) -> None:
        self.keys = tuple(keys)
        self.classes = tuple(dict.fromkeys(class_name for class_name, _ in keys))
        self.domains = tuple(dict.fromkeys(domain for _, domain in keys))
        self.kept: dict[Key, dict[str, np.ndarray]] = {}
        """Kept units by circuit and site, the strongest first."""
        self._scores: dict[Key, dict[str, np.ndarray]] = {}
        for key in keys:
            graph = graphs[key]
            self.kept[key] = {
                site: graph.kept_units[site] for site in graph.inner_sites
            }
            self._scores[key] = graph.node_scores

    @cached_property
    def units(self) -> dict[str, np.ndarray]:
        """The units with a card by site, in ascending order; only sites that have some."""
        sites = next(iter(self.kept.values()))
        found = {
            site: np.unique(np.concatenate([kept[site] for kept in self.kept.values()]))
            for site in sites
        }
        return {site: units for site, units in found.items() if len(units)}

    def columns(self, site: str) -> slice:
        """Return the columns of a site's units in tables of all units."""
        sites = list(self.units)
        before = sum(len(self.units[earlier]) for earlier in sites[: sites.index(site)])
        return slice(before, before + len(self.units[site]))

    def by_key(self, site: str, of: Mapping[Key, np.ndarray], fill: Any) -> np.ndarray:
        """Return values [units] of circuits as an array [units, classes, domains]."""
        found = np.full(
            (len(self.units[site]), len(self.classes), len(self.domains)), fill
        )
        for key, values in of.items():
            found[:, self.classes.index(key[0]), self.domains.index(key[1])] = values
        return found

    def effects(self, site: str) -> Float[np.ndarray, "units classes domains"]:
        """Return the scores of a site's units in all circuits."""
        units = self.units[site]
        return self.by_key(
            site,
            {key: scores[site][units] for key, scores in self._scores.items()},
            np.nan,
        )


def site_arrays(
    scores: CircuitScores,
    site: str,
    seen: Sequence[SeenImages],
    exact: Mapping[Key, Mapping[str, np.ndarray]],
) -> dict[str, np.ndarray]:
    """Return the arrays of a site's cards by name, with a row for each unit; ``exact`` are the circuits' files."""
    units = scores.units[site]
    by_domain = [one.activations[:, scores.columns(site)] for one in seen]
    none = np.zeros((1, len(units)), np.float32)  # of a domain without images
    highest = np.max(
        [
            values.max(0)
            for values in (some if len(some) else none for some in by_domain)
        ],
        axis=0,
    )
    lowest = np.min(
        [
            values.min(0)
            for values in (some if len(some) else none for some in by_domain)
        ],
        axis=0,
    )
    edges, counts = histograms(by_domain, lowest, highest)
    arrays = {
        "heat_scale": highest.clip(0),
        "bin_edges": edges,
        "counts": counts.astype(np.int32),
        "effects": scores.effects(site),
        "kept": scores.by_key(
            site,
            {key: np.isin(units, kept[site]) for key, kept in scores.kept.items()},
            False,
        ),
    }
    first = np.cumsum([0, *(len(one.images) for one in seen)])
    for by in (ACTIVATION, EFFECT):
        places = [one.arrays[f"{by}/places/{site}"] for one in seen]
        moved = [
            np.where(some >= 0, some + start, -1)
            for some, start in zip(places, first, strict=False)
        ]
        arrays[f"{by}/places"] = np.stack(moved, 1).astype(np.int32)
        arrays[f"{by}/values"] = np.stack(
            [one.arrays[f"{by}/values/{site}"] for one in seen], 1
        )
        heat = [one.arrays.get(f"{by}/heat/{site}") for one in seen]
        shapes = {some.shape for some in heat if some is not None}
        if shapes:
            (shape,) = shapes
            joined = np.stack(
                [
                    np.zeros(shape, np.float32) if some is None else some
                    for some in heat
                ],
                1,
            )
            arrays[f"{by}/heat"] = as_heat(joined, arrays["heat_scale"])
    for kind in REPLACED_BY:
        of = {
            key: _placed(found, kind, site, units)
            for key, found in exact.items()
            if f"{kind}/{site}" in found
        }
        arrays[f"exact/{kind}"] = scores.by_key(site, of, np.nan)
    return arrays


def histograms(
    by_domain: Sequence[np.ndarray],
    lowest: Float[np.ndarray, " units"],
    highest: Float[np.ndarray, " units"],
) -> tuple[Float[np.ndarray, "units edges"], np.ndarray]:
    """Return edges of bins for each unit, and numbers of images [units, domains, bins] by their activation.

    The axis of a unit goes from zero, or its lowest activation below zero, to its highest.
    """
    start = np.minimum(lowest, 0)
    stop = np.where(highest > start, highest, start + 1)
    edges = np.linspace(start, stop, BINS + 1, axis=1).astype(np.float32)
    counts = [
        [
            np.histogram(values[:, unit], BINS, (start[unit], stop[unit]))[0]
            for values in by_domain
        ]
        for unit in range(len(start))
    ]
    return edges, np.array(counts, np.int64).reshape(len(start), len(by_domain), BINS)


def as_heat(
    maps: Float[np.ndarray, "units *any"], scale: Float[np.ndarray, " units"]
) -> np.ndarray:
    """Return maps as bytes: 255 for the unit's ``scale``, 0 for zero or less."""
    each = scale.reshape(-1, *[1] * (maps.ndim - 1))
    share = np.divide(maps, each, out=np.zeros_like(maps), where=each > 0)
    found: np.ndarray = np.round(share.clip(0, 1) * 255).astype(np.uint8)
    return found


def _placed(
    found: Mapping[str, np.ndarray], kind: str, site: str, units: np.ndarray
) -> np.ndarray:
    """Return the exact effects of a circuit among all units of the site; NaN where they were not measured."""
    values = np.full(len(units), np.nan)
    values[np.searchsorted(units, found[f"units/{site}"])] = found[f"{kind}/{site}"]
    return values
