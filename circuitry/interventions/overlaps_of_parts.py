"""Overlaps of own parts: which units and edges two parts have in common.

Does not import torch.
"""

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import combinations

import numpy as np
import pandas as pd
from jaxtyping import Float, Int

from circuitry.circuits.comparable import Comparable
from circuitry.circuits.graph import AttributionGraph, Circuit
from circuitry.circuits.similarity_matrix import (
    CircuitArrays,
    chance_matrix,
    circuit_arrays,
    jaccard_matrix,
)
from circuitry.data.folds import Key
from circuitry.runs.identity import Across

_Places = Int[np.ndarray, " pairs"]
"""For each pair, the index of one of its parts."""
_Found = tuple[str, str, int]
"""A part: its class and domain, and the half of the images that it was found on."""


def part_overlaps(
    parts: Mapping[Key, Circuit],
    pairs: Collection[tuple[Key, Key]] | None = None,
    second: Mapping[Key, Circuit] | None = None,
    *,
    across: Across | None = None,
) -> pd.DataFrame:
    """Return the Jaccard index of the units of two parts, and the index that is expected by chance.

    The chance level is the Jaccard index of random units, as many at every site as each part has. The expected sizes of
    intersection and union are summed over sites, and then divided. The chance level of edges is the same with pairs of
    sites.

    A class may have two parts in a domain, found on two disjoint halves of its images. Their overlap is the ceiling of
    all overlaps. Then the parts of one class in two domains are compared across the halves, so that the two sides of
    each comparison have other images, as the two sides of the ceiling have.

    Args:
        parts: The parts by (class, domain). Each of them is read once.
        pairs: The pairs of parts to compare (default: every two parts). Pairs that lack a part are left out.
        second: Parts by (class, domain) that were found on the second half of the images (default: no parts). Two parts
            of one class and domain are always compared.
        across: With ``models`` the domains of the keys name models of one architecture, such as a model before and
            after fine-tuning (default: all parts are of one model).

    Returns:
        A table with a row for each pair. Columns:

        - class_a, domain_a, half_a, class_b, domain_b, half_b: the two parts. The half is 2 for a part of ``second``.
          Of one class in two domains the halves differ, if there is a second half in one of the domains. Of two classes
          both halves are 1.
        - overlap: the Jaccard index of their units.
        - chance: the index that is expected for random units.
        - edges: the Jaccard index of the strongest edges between the units of each part. It is NaN if any part has no
          scores of edges (`with_edges`).
        - edges_chance: the index that is expected for edges between random units.
        - size_a, size_b: the share of the units that each part has. If the sizes differ, the overlap is at most the
          smaller size divided by the larger.
        - n_a, n_b: the number of images of its class that found each part.
        - weights_a, weights_b: with ``across``, the digests of the weights of the two models.

    Example:
        >>> small, large = propose_circuits(task, [0.02, 0.04])
        >>> part_overlaps({("clock", "real"): small, ("clock", "sketch"): large})[["size_a", "size_b"]].round(2)
    """
    if pairs is None:
        pairs = list(combinations(parts, 2))
    second = second or {}
    compared = list(_compared(pairs, parts, second))
    comparable = Comparable(across)
    n_units: dict[str, int] = {}
    # Only the indices of units and edges stay in memory, because the scores of many parts need much more.
    places = dict[_Found, int]()
    units = list[np.ndarray]()
    edges = list[CircuitArrays]()
    without_effect = list[frozenset[str]]()
    sizes = list[float]()
    n_images = list[int]()
    for half, of_half in enumerate((parts, second), start=1):
        for key, part in of_half.items():
            places[(*key, half)] = len(places)
            source = part.source
            if across:
                source = replace(source, class_name=key[0], domain=key[1])
            comparable.add(source)
            n_units = {s: len(source.node_scores[s]) for s in source.inner_sites}
            units.append(circuit_arrays(part).nodes)
            sizes.append(part.size)
            n_images.append(source.n_images)
            if isinstance(source, AttributionGraph) and source.edge_scores:
                edges.append(circuit_arrays(source.circuit()))
                without_effect.append(source.sites_without_effect)
    a = np.array([places[first] for first, _ in compared], int)
    b = np.array([places[other] for _, other in compared], int)
    n_of_site = np.array(list(n_units.values()), int)
    site_of_unit = np.repeat(np.arange(len(n_units)), n_of_site)
    chance = chance_matrix([site_of_unit[of_part] for of_part in units], n_of_site)
    # If any part has no scores of edges, edges are not compared.
    of_edges = np.full((2, len(compared)), np.nan)
    if len(edges) == len(units):
        of_edges = _edge_overlaps(edges, without_effect, n_units, a, b)
    columns = ["class_a", "domain_a", "half_a", "class_b", "domain_b", "half_b"]
    rows = [(*first, *other) for first, other in compared]
    table = pd.DataFrame(rows, columns=columns).assign(
        overlap=jaccard_matrix(units)[a, b],
        chance=chance[a, b],
        edges=of_edges[0],
        edges_chance=of_edges[1],
        size_a=np.array(sizes)[a],
        size_b=np.array(sizes)[b],
        n_a=np.array(n_images)[a],
        n_b=np.array(n_images)[b],
    )
    if across:
        for side in "ab":
            weights = comparable.weights(table[f"domain_{side}"])
            table[f"weights_{side}"] = weights
    return table


def _compared(
    pairs: Collection[tuple[Key, Key]],
    parts: Mapping[Key, Circuit],
    second: Mapping[Key, Circuit],
) -> Iterator[tuple[_Found, _Found]]:
    """Yield the pairs of parts that are compared; see `part_overlaps`."""
    for key in parts:
        if key in second:
            yield (*key, 1), (*key, 2)
    for a, b in pairs:
        if a not in parts or b not in parts:
            continue
        is_one_class = a[0] == b[0]
        if is_one_class and b in second:
            yield (*a, 1), (*b, 2)
        if is_one_class and a in second:
            yield (*a, 2), (*b, 1)
        # Without a second half there is no ceiling, but the overlap is still known.
        if not is_one_class or (a not in second and b not in second):
            yield (*a, 1), (*b, 1)


def _edge_overlaps(
    edges: Sequence[CircuitArrays],
    without_effect: Sequence[frozenset[str]],
    n_units: Mapping[str, int],
    a: _Places,
    b: _Places,
) -> Float[np.ndarray, "2 pairs"]:
    """Return the Jaccard index of the edges of each pair of parts, and the index that is expected by chance.

    The edges of a site are left out of a pair if no unit of the site has an effect in one of its parts, because then
    the edges are arbitrary.

    Args:
        edges: The edges of each part.
        without_effect: For each part, the sites at which no unit has an effect.
        n_units: The number of units of each site, in the order in which units are numbered.
        a, b: The parts of each pair.
    """
    overlaps = np.full((2, len(a)), np.nan)
    n_of_site = np.array(list(n_units.values()))
    site_of_unit = np.repeat(np.arange(len(n_units)), n_of_site)
    # Edges between random units are of the same pair of sites, between any two units of these sites.
    n_of_pair = np.outer(n_of_site, n_of_site).ravel()
    left_out = [
        without_effect[i] | without_effect[j] for i, j in zip(a, b, strict=True)
    ]
    # Nearly always there is only the empty set of sites.
    for sites in set(left_out):
        is_left_out = np.isin(list(n_units), list(sites))
        remaining = list[np.ndarray]()
        site_pairs = list[np.ndarray]()
        for of_part in edges:
            tails = site_of_unit[of_part.tails]
            heads = site_of_unit[of_part.heads]
            stays = ~(is_left_out[tails] | is_left_out[heads])
            remaining.append(of_part.edges[stays])
            site_pairs.append((tails * len(n_units) + heads)[stays])
        chosen = np.array([of_pair == sites for of_pair in left_out])
        places = a[chosen], b[chosen]
        overlaps[0, chosen] = jaccard_matrix(remaining)[places]
        overlaps[1, chosen] = chance_matrix(site_pairs, n_of_pair)[places]
    return overlaps
