"""Overlaps of own parts: which units and edges two parts have in common.

Does not import torch.
"""

from collections.abc import Collection, Mapping, Sequence
from itertools import combinations

import numpy as np
import pandas as pd
from jaxtyping import Float, Int

from circuitry.circuits.comparable import Comparable
from circuitry.circuits.graph import AttributionGraph, Circuit
from circuitry.circuits.similarity_matrix import (
    CircuitArrays,
    circuit_arrays,
    jaccard_matrix,
)
from circuitry.data.folds import Key

_Places = Int[np.ndarray, " pairs"]
"""For each pair, the index of one of its parts."""
_Overlaps = Float[np.ndarray, " pairs"]


def part_overlaps(
    parts: Mapping[Key, Circuit], pairs: Collection[tuple[Key, Key]] | None = None
) -> pd.DataFrame:
    """Return the Jaccard index of the units of two parts, and the index that is expected by chance.

    The chance level is the Jaccard index of random units, as many at every site as each part has. The expected sizes of
    intersection and union are summed over sites, and then divided.

    Args:
        parts: The parts by (class, domain). Each of them is read once.
        pairs: The pairs of parts to compare (default: every two parts). Pairs that lack a part are left out.

    Returns:
        A table with a row for each pair. Columns:

        - class_a, domain_a, class_b, domain_b: the two parts.
        - overlap: the Jaccard index of their units.
        - chance: the index that is expected for random units.
        - edges: the Jaccard index of the strongest edges between the units of each part. It is NaN if any part has no
          scores of edges (`with_edges`).
        - size_a, size_b: the share of the units that each part has. If the sizes differ, the overlap is at most the
          smaller size divided by the larger.

    Example:
        >>> small, large = propose_circuits(task, [0.02, 0.04])
        >>> part_overlaps({("clock", "real"): small, ("clock", "sketch"): large})[["size_a", "size_b"]].round(2)
    """
    if pairs is None:
        pairs = list(combinations(parts, 2))
    places = {key: place for place, key in enumerate(parts)}
    known = [pair for pair in pairs if places.keys() >= set(pair)]
    a = np.array([places[first] for first, _ in known], int)
    b = np.array([places[second] for _, second in known], int)
    comparable = Comparable()
    n_units: dict[str, int] = {}
    # Only the indices of units and edges stay in memory, because the scores of many parts need much more.
    units = list[np.ndarray]()
    counts = list[list[int]]()
    edges = list[CircuitArrays]()
    without_effect = list[frozenset[str]]()
    sizes = list[float]()
    for part in parts.values():
        source = part.source
        comparable.add(source)
        n_units = {site: len(source.node_scores[site]) for site in source.inner_sites}
        units.append(circuit_arrays(part).nodes)
        counts.append([len(part.units.get(site, ())) for site in n_units])
        sizes.append(part.size)
        if isinstance(source, AttributionGraph) and source.edge_scores:
            edges.append(circuit_arrays(source.circuit()))
            without_effect.append(source.sites_without_effect)
    columns = ["class_a", "domain_a", "class_b", "domain_b"]
    table = pd.DataFrame([(*one, *other) for one, other in known], columns=columns)
    n_of_part = np.array(counts, float).reshape(len(units), len(n_units))
    # The mean of a hypergeometric draw, for each site.
    by_site = n_of_part[a] * n_of_part[b] / np.array(list(n_units.values()))
    by_chance = by_site.sum(1)
    n_of_both = n_of_part.sum(1)[a] + n_of_part.sum(1)[b]
    # If any part has no scores of edges, edges are not compared.
    of_edges = np.full(len(known), np.nan)
    if len(edges) == len(units):
        of_edges = _edge_overlaps(edges, without_effect, n_units, a, b)
    return table.assign(
        overlap=jaccard_matrix(units)[a, b],
        chance=by_chance / (n_of_both - by_chance),
        edges=of_edges,
        size_a=np.array(sizes, float)[a],
        size_b=np.array(sizes, float)[b],
    )


def _edge_overlaps(
    edges: Sequence[CircuitArrays],
    without_effect: Sequence[frozenset[str]],
    n_units: Mapping[str, int],
    a: _Places,
    b: _Places,
) -> _Overlaps:
    """Return the Jaccard index of the edges of each pair of parts.

    The edges of a site are left out of a pair if no unit of the site has an effect in one of its parts, because then
    the edges are arbitrary.

    Args:
        edges: The edges of each part.
        without_effect: For each part, the sites at which no unit has an effect.
        n_units: The number of units of each site, in the order in which units are numbered.
        a, b: The parts of each pair.
    """
    overlaps = np.full(len(a), np.nan)
    ends = np.cumsum(list(n_units.values()))
    left_out = [
        without_effect[i] | without_effect[j] for i, j in zip(a, b, strict=True)
    ]
    # Nearly always there is only the empty set of sites.
    for sites in set(left_out):
        is_left_out = np.isin(list(n_units), list(sites))
        remaining = list[np.ndarray]()
        for of_part in edges:
            tails = is_left_out[np.searchsorted(ends, of_part.tails, "right")]
            heads = is_left_out[np.searchsorted(ends, of_part.heads, "right")]
            remaining.append(of_part.edges[~(tails | heads)])
        chosen = np.array([of_pair == sites for of_pair in left_out])
        overlaps[chosen] = jaccard_matrix(remaining)[a[chosen], b[chosen]]
    return overlaps
