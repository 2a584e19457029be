"""Circuits of edges, and curves, that are chosen by hand."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from circuitry import Circuit
from circuitry.circuits import Scores
from circuitry.gates import Edges
from circuitry.interventions import MIB_SIZES, FaithfulnessCurve


def circuit_with(edges: Edges) -> Circuit:
    scores = {
        site: np.zeros(1 + max(units, default=0)) for site, units in edges.units.items()
    }
    return Circuit(
        Scores(tuple(scores), scores, {}, 1),
        edges.units,
        edges,
    )


def edges_of(masks: dict[tuple[str, str], np.ndarray]) -> Edges:
    """Edges by masks [down, up] over all units."""
    sizes = {
        site: mask.shape[i]
        for (up, down), mask in masks.items()
        for i, site in ((1, up), (0, down))
    }
    scores = {pair: np.where(mask, 0.0, np.nan) for pair, mask in masks.items()}
    return Edges({site: np.arange(n) for site, n in sizes.items()}, scores)


def circuit_by(masks: dict[tuple[str, str], np.ndarray]) -> Circuit:
    return circuit_with(edges_of(masks))


def curve_of(
    kept: np.ndarray,
    fractions: Sequence[float] = MIB_SIZES,
    ranking: str = "signed",
    **given: np.ndarray,
) -> FaithfulnessCurve:
    """A curve with these metrics [sizes, images]; the complement keeps nothing, and there are no circuits beside."""
    sizes, n = kept.shape
    sides: Any = {"own": np.ones(n, bool), "group": np.zeros(n, int)}
    beside = {name: np.zeros((0, *kept.shape)) for name in ("random", "foreign")}
    known = {
        "full": np.ones(n),
        "empty": np.zeros(n),
        "kept": kept,
        "complement": 0 * kept,
    } | beside
    runs: Any = {name: given.get(name, values)[None] for name, values in known.items()}
    sides |= {name: values for name, values in given.items() if name in sides}
    return FaithfulnessCurve(
        tuple(fractions)[:sizes], ranking, (1,) * sizes, **runs, **sides
    )
