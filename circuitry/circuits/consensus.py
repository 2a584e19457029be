"""Which units and edges of a circuit would be found again on other images? Resamples of parts of them. No torch.

1. Parts of the images are drawn with replacement, as many as there are: every possible draw with its probability, or
   random draws of many parts.
2. Scores of a draw are the mean over its parts, weighted by their images.
3. A unit holds in a draw that keeps it, by the budget of the circuit, with the sign of the whole. An edge holds in a
   draw where it is among the strongest edges into its unit.
4. The *stability* of a unit or edge is the probability that it holds; that of the circuit is the mean over its units
   and edges.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations_with_replacement
from math import factorial, prod

import numpy as np
import pandas as pd
from jaxtyping import Bool, Float

from circuitry.circuits.budgets import GLOBAL, strongest_units
from circuitry.circuits.comparable import check_comparable
from circuitry.circuits.graph import AttributionGraph, Circuit
from circuitry.circuits.graph_folder import GraphFolder
from circuitry.gates.edges import strongest_edges
from circuitry.runs.errors import InputError

_EXACT = 5
"""Parts up to which every draw is taken."""
_DRAWS = 200
"""Random draws of more parts."""

STABILITY = (
    "class",
    "domain",
    "parts",
    "units",
    "unit_stability",
    "edges",
    "edge_stability",
)
"""Columns of `circuit_stability`."""


@dataclass(frozen=True, eq=False)
class Consensus:
    """Stability of the units and edges of a circuit when its images are drawn again."""

    circuit: Circuit
    units: dict[str, np.ndarray]
    """Stability of each kept unit by site, in the order of the kept units."""
    edges: dict[tuple[str, str], np.ndarray]
    """Stability of each edge by pair of sites, in the order of `Edges.places`."""

    @property
    def unit_stability(self) -> float:
        """Mean stability of the units."""
        return _mean(self.units.values())

    @property
    def edge_stability(self) -> float:
        """Mean stability of the edges; NaN without any."""
        return _mean(self.edges.values())


def find_consensus(
    circuit: Circuit,
    parts: Sequence[AttributionGraph],
    edges: Mapping[tuple[str, str], Float[np.ndarray, "parts down up"]],
) -> Consensus:
    """Find the stability of a circuit in resamples of the parts of its images; see the module.

    Args:
        parts: Graphs of the parts, from `GraphFolder.parts`.
        edges: Scores of the circuit's edges on each part, from `GraphFolder.part_edges`.
    """
    if len(parts) < 2:
        raise InputError(
            f"A consensus needs at least two parts of the images, but {len(parts)} was given: cut more."
        )
    for part in parts:
        check_comparable(circuit.source, part)
    counts, probability = _draws(len(parts))
    n = np.array([part.n_images for part in parts])
    total = (counts @ n)[:, None]
    source = circuit.source

    def drawn(by_part: Sequence[Mapping[str, np.ndarray]]) -> dict[str, np.ndarray]:
        return {
            site: (counts * n / total) @ np.stack([of[site] for of in by_part])
            for site in source.inner_sites
        }

    effects = drawn([part.node_scores for part in parts])
    ranked_by = drawn([part.ranked_by for part in parts])
    held_units = _held_units(ranked_by, effects, circuit)
    units = {site: probability @ held for site, held in held_units.items()}
    places = circuit.its_edges.places
    found = {pair: np.zeros(len(rows)) for pair, (rows, _) in places.items()}
    for weights, share in zip(counts * n / total, probability, strict=True):
        scores = {pair: np.tensordot(weights, edges[pair], 1) for pair in places}
        for pair, held in strongest_edges(
            scores, circuit.made_with["edges_per_node"], circuit.made_with["any_sign"]
        ).items():
            in_draw = np.zeros(scores[pair].shape, bool)
            in_draw[held] = True
            found[pair] += share * in_draw[places[pair]]
    return Consensus(circuit, units, found)


def circuit_stability(
    graphs: GraphFolder, *, edges_per_node: int = 3, any_sign: bool = False
) -> pd.DataFrame:
    """Return the stability of every circuit of a folder that has at least two parts: columns `STABILITY`."""
    rows = []
    for class_name, domain in graphs:
        parts = list(graphs.parts(class_name, domain).values())
        if len(parts) < 2:
            continue
        circuit = graphs[class_name, domain].circuit(edges_per_node, any_sign=any_sign)
        one = find_consensus(circuit, parts, graphs.part_edges(class_name, domain))
        n_units, n_edges = (
            sum(map(len, found.values())) for found in (one.units, one.edges)
        )
        rows.append(
            (
                class_name,
                domain,
                len(parts),
                n_units,
                one.unit_stability,
                n_edges,
                one.edge_stability,
            )
        )
    return pd.DataFrame(rows, columns=list(STABILITY))


def mean_stability(stability: pd.DataFrame) -> pd.DataFrame:
    """Return the means of `circuit_stability` over classes by domain, and of all circuits in the last row, ``all``."""
    numbers = list(STABILITY[2:])
    by_domain = stability.groupby("domain")[numbers].mean()
    return (
        pd.concat([by_domain, stability[numbers].mean().to_frame("all").T])
        .rename_axis("domain")
        .reset_index()
    )


def _draws(
    n: int,
) -> tuple[Float[np.ndarray, "draws parts"], Float[np.ndarray, " draws"]]:
    """Return how often each part is drawn, and the probability of the draw."""
    if n > _EXACT:
        rng = np.random.default_rng(0)
        return rng.multinomial(n, np.full(n, 1 / n), _DRAWS).astype(float), np.full(
            _DRAWS, 1 / _DRAWS
        )
    every = [
        np.bincount(draw, minlength=n)
        for draw in combinations_with_replacement(range(n), n)
    ]
    ways = [
        factorial(n) / prod(factorial(int(count)) for count in draw) for draw in every
    ]
    return np.stack(every).astype(float), np.array(ways) / n**n


def _held_units(
    drawn: Mapping[str, Float[np.ndarray, "draws units"]],
    effects: Mapping[str, Float[np.ndarray, "draws units"]],
    circuit: Circuit,
) -> dict[str, Bool[np.ndarray, "draws kept"]]:
    """Return which units of the circuit each draw keeps, by ``drawn``, with the same sign of their effect.

    A global budget ranks all sites at once.
    """
    by_rank = {
        site: np.argsort(-np.abs(scores), axis=1, kind="stable")
        for site, scores in drawn.items()
    }
    source = circuit.source
    kept = circuit.units
    in_draw = {site: np.zeros(scores.shape, bool) for site, scores in drawn.items()}
    for draw in range(len(next(iter(drawn.values()), ()))):
        counts = {site: len(kept[site]) for site in drawn}
        if source.settings.get("budget") == GLOBAL:
            share = sum(counts.values()) / sum(
                scores.shape[1] for scores in drawn.values()
            )
            of_draw = {site: scores[draw] for site, scores in drawn.items()}
            counts = (
                {
                    s: len(units)
                    for s, units in strongest_units(of_draw, share, GLOBAL).items()
                }
                if share
                else {}
            )
        for site, count in counts.items():
            in_draw[site][draw, by_rank[site][draw, :count]] = True
    same = {
        site: np.sign(of_site) == np.sign(source.node_scores[site])
        for site, of_site in effects.items()
    }
    return {site: (in_draw[site] & same[site])[:, kept[site]] for site in drawn}


def _mean(parts: Iterable[np.ndarray]) -> float:
    found = np.concatenate([np.zeros(0), *parts])
    return float(found.mean()) if len(found) else float("nan")
