"""Which units and edges of a circuit would be found again on other images? The images are resampled in folds.

1. The images are cut into n folds. A draw takes n of these folds with replacement. If there are few folds, every
   possible draw is used with its probability; otherwise random draws are used.
2. The scores of a draw are the means over its folds, weighted by the folds' numbers of images.
3. A unit holds in a draw under two conditions: the draw keeps this unit, by the budget of the circuit, and the effect
   of the unit has the same sign as on all images. An edge holds in a draw if the scores of the draw put it among the
   strongest edges into its downstream unit.
4. The *stability* of a unit or an edge is the probability that it holds in a draw. A circuit has two stabilities: the
   mean over its units and the mean over its edges.

Does not import torch.
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
"""Largest number of folds for which every possible draw is used."""
_DRAWS = 200
"""Number of random draws if there are more folds."""

STABILITY = (
    "class",
    "domain",
    "folds",
    "units",
    "unit_stability",
    "edges",
    "edge_stability",
)
"""Columns of the table that `circuit_stability` returns."""


@dataclass(frozen=True, eq=False)
class Consensus:
    """Stability of the units and edges of a circuit when its images are resampled."""

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
        """Mean stability of the edges; NaN if there are no edges."""
        return _mean(self.edges.values())


def find_consensus(
    circuit: Circuit,
    folds: Sequence[AttributionGraph],
    edges: Mapping[tuple[str, str], Float[np.ndarray, "folds down up"]],
) -> Consensus:
    """Compute the stability of a circuit: how probably its units and edges would be found again on other images.

    The images are resampled: folds of the images are drawn with replacement. The stability of a unit or an edge is the
    probability that it is also chosen from the scores of a draw; see the text of this module.

    Args:
        circuit: A circuit that was cut out of the graph of all images.
        folds: Graphs of the folds, from `GraphFolder.folds`.
        edges: Scores of the circuit's edges on each fold, from `GraphFolder.fold_edges`.
    """
    if len(folds) < 2:
        raise InputError(
            f"A consensus needs at least two folds of the images, but {len(folds)} was given: cut more."
        )
    for fold in folds:
        check_comparable(circuit.source, fold)
    counts, probability = _draws(len(folds))
    n_images = np.array([fold.n_images for fold in folds])
    total = (counts @ n_images)[:, None]
    # The share of each fold's images in each draw [draws, folds]. Folds may differ in size by one image.
    weights = counts * n_images / total
    effects = {}
    ranked_by = {}
    for site in circuit.source.inner_sites:
        effects[site] = weights @ np.stack([fold.node_scores[site] for fold in folds])
        ranked_by[site] = weights @ np.stack([fold.ranked_by[site] for fold in folds])
    units = {}
    for site, held in _held_units(ranked_by, effects, circuit).items():
        units[site] = probability @ held
    stability = _edge_stability(circuit, edges, weights, probability)
    return Consensus(circuit, units, stability)


def _edge_stability(
    circuit: Circuit,
    edges: Mapping[tuple[str, str], Float[np.ndarray, "folds down up"]],
    weights: Float[np.ndarray, "draws folds"],
    probability: Float[np.ndarray, " draws"],
) -> dict[tuple[str, str], np.ndarray]:
    """Return, by pair of sites, the probability that each edge of a circuit is among the strongest edges of a draw.

    The edges of a pair of sites are in the order of `Edges.places`.

    Args:
        circuit: The circuit.
        edges: Scores of the circuit's edges on each fold, by pair of sites.
        weights: Weight of each fold in each draw; the scores of a draw are the weighted means over the folds.
        probability: Probability of each draw.
    """
    places = circuit.its_edges.places
    stability = {pair: np.zeros(len(rows)) for pair, (rows, _) in places.items()}
    # One draw at a time, because the scores of all draws together would take the memory of 200 graphs.
    for of_draw, share in zip(weights, probability, strict=True):
        scores = {pair: np.tensordot(of_draw, edges[pair], 1) for pair in places}
        strongest = strongest_edges(
            scores, circuit.made_with["edges_per_node"], circuit.made_with["any_sign"]
        )
        for pair, places_in_draw in strongest.items():
            in_draw = np.zeros(scores[pair].shape, bool)
            in_draw[places_in_draw] = True
            stability[pair] += share * in_draw[places[pair]]
    return stability


def circuit_stability(
    graphs: GraphFolder, *, edges_per_node: int = 3, any_sign: bool = False
) -> pd.DataFrame:
    """Return a table of the stability of circuits, with the columns `STABILITY`.

    It has a row for every circuit of the folder whose images have at least two folds.

    Args:
        graphs: The folder.
        edges_per_node, any_sign: How circuits are selected from their graphs; see `AttributionGraph.circuit`.
    """
    rows = []
    for class_name, domain in graphs:
        folds = list(graphs.folds(class_name, domain).values())
        if len(folds) < 2:
            continue
        circuit = graphs[class_name, domain].circuit(edges_per_node, any_sign=any_sign)
        fold_edges = graphs.fold_edges(class_name, domain)
        consensus = find_consensus(circuit, folds, fold_edges)
        rows.append(
            {
                "class": class_name,
                "domain": domain,
                "folds": len(folds),
                "units": sum(map(len, consensus.units.values())),
                "unit_stability": consensus.unit_stability,
                "edges": sum(map(len, consensus.edges.values())),
                "edge_stability": consensus.edge_stability,
            }
        )
    return pd.DataFrame(rows, columns=list(STABILITY))


def mean_stability(stability: pd.DataFrame) -> pd.DataFrame:
    """Return the means over classes of the table of `circuit_stability`, with a row for each domain.

    The last row, whose domain is ``all``, has the means over all circuits.
    """
    numbers = list(STABILITY[2:])
    by_domain = stability.groupby("domain")[numbers].mean()
    of_all = stability[numbers].mean().to_frame("all").T
    return pd.concat([by_domain, of_all]).rename_axis("domain").reset_index()


def _draws(
    n: int,
) -> tuple[Float[np.ndarray, "draws folds"], Float[np.ndarray, " draws"]]:
    """Return bootstrap draws of ``n`` folds, and the probability of each draw.

    A draw takes ``n`` of the folds with replacement. If there are at most `_EXACT` folds, all possible draws are
    returned. Otherwise `_DRAWS` random draws are returned, which have equal probabilities.

    Returns:
        How often each fold is taken in each draw [draws, folds], and the probabilities [draws].
    """
    if n > _EXACT:
        rng = np.random.default_rng(0)
        counts = rng.multinomial(n, np.full(n, 1 / n), _DRAWS)
        return counts.astype(float), np.full(_DRAWS, 1 / _DRAWS)
    every = []
    ways = []
    for draw in combinations_with_replacement(range(n), n):
        of_draw = np.bincount(draw, minlength=n)
        every.append(of_draw)
        # The multinomial coefficient: how many of the n^n ordered draws have these counts.
        ways.append(factorial(n) / prod(map(factorial, of_draw.tolist())))
    return np.stack(every).astype(float), np.array(ways) / n**n


def _held_units(
    drawn: Mapping[str, Float[np.ndarray, "draws units"]],
    effects: Mapping[str, Float[np.ndarray, "draws units"]],
    circuit: Circuit,
) -> dict[str, Bool[np.ndarray, "draws kept"]]:
    """Return, by site, which units of the circuit hold in each draw.

    A unit holds if the draw keeps it, and if its effect has the same sign in the draw as on all images. A draw keeps as
    many units as the circuit: at each site, or at all sites together if the circuit has a global budget.

    Args:
        drawn: The numbers that rank the units in each draw, by site.
        effects: The effects of the units in each draw, by site.
        circuit: The circuit, which was found on all images.
    """
    source = circuit.source
    kept = circuit.units
    n_kept = sum(len(kept[site]) for site in drawn)
    # A draw keeps as many units as the circuit: at each site, or with a global budget in total.
    one_cut = source.settings.get("budget") == GLOBAL
    in_draw = {site: np.zeros(scores.shape, bool) for site, scores in drawn.items()}
    if one_cut and n_kept:
        share = n_kept / sum(scores.shape[1] for scores in drawn.values())
        for draw in range(len(next(iter(drawn.values())))):
            of_draw = {site: scores[draw] for site, scores in drawn.items()}
            for site, units in strongest_units(of_draw, share, GLOBAL).items():
                in_draw[site][draw, units] = True
    elif not one_cut:
        for site, scores in drawn.items():
            # A stable sort keeps the first of equal scores, as the budget does.
            order = np.argsort(-np.abs(scores), axis=1, kind="stable")
            first = order[:, : len(kept[site])]
            np.put_along_axis(in_draw[site], first, True, axis=1)
    held_units = {}
    for site, of_site in effects.items():
        same_sign = np.sign(of_site) == np.sign(source.node_scores[site])
        held_units[site] = (in_draw[site] & same_sign)[:, kept[site]]
    return held_units


def _mean(stabilities: Iterable[np.ndarray]) -> float:
    numbers = np.concatenate([np.zeros(0), *stabilities])
    return float(numbers.mean()) if len(numbers) else float("nan")
