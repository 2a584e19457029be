"""Circuits of edges that are chosen by hand."""

import numpy as np

from circuitry import AttributionGraph, Circuit
from circuitry.circuits import Edges


def circuit_with(edges: Edges) -> Circuit:
    scores = {site: np.zeros(1 + max(units, default=0)) for site, units in edges.units.items()}
    return Circuit(AttributionGraph(tuple(scores), scores, dict(edges.units), {}, {}, 1), edges.units, edges)


def edges_of(masks: dict[tuple[str, str], np.ndarray]) -> Edges:
    """Edges by masks [down, up] over all units."""
    sizes = {site: mask.shape[i] for (up, down), mask in masks.items() for i, site in ((1, up), (0, down))}
    scores = {pair: np.where(mask, 0.0, np.nan) for pair, mask in masks.items()}
    return Edges({site: np.arange(n) for site, n in sizes.items()}, scores)


def circuit_by(masks: dict[tuple[str, str], np.ndarray]) -> Circuit:
    return circuit_with(edges_of(masks))
