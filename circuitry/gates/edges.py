"""A set of edges with their scores.

Functions that score edges return such a set. The edges of a circuit are a subset of it. A run can keep the edges of a
subset and cut all other edges.

An edge leads from an upstream unit to a downstream unit. Each pair of sites has a block of scores
[downstream, upstream]. A score is a mean over images, and is positive if the edge helps the metric. An entry of NaN
means that there is no edge. So the blocks of a subset have the same shapes as the blocks of the whole set.

Does not import torch.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import pairwise
from typing import ClassVar

import networkx as nx
import numpy as np
import pandas as pd
from jaxtyping import Int, Shaped

from circuitry.runs.arguments import Count, Share
from circuitry.runs.errors import InputError

Pair = tuple[str, str]
"""Upstream site and downstream site, in this order."""
EDGE_COLUMNS = (
    "upstream_site",
    "upstream_unit",
    "downstream_site",
    "downstream_unit",
    "score",
)


@dataclass(frozen=True, eq=False, repr=False)
class Edges:
    """Edges between some units of an encoder.

    Example:
        >>> edges = graph.edges.strongest(into=3)  # the edges of a circuit
        >>> table = edges.to_pandas().nlargest(5, "score")
        >>> edges.random(np.random.default_rng(0)).count == edges.count
        True
    """

    HOW_TO_GET: ClassVar = (
        "give graph.edges, or Edges.between(units, joined_sites(encoder, units))"
    )

    units: Mapping[str, np.ndarray]
    """Indices of units [k] by site. The rows and columns of the scores are these units, in this order."""
    scores: Mapping[Pair, np.ndarray]
    """Scores [downstream, upstream] by pair of sites. NaN means that there is no edge."""

    def __repr__(self) -> str:
        return f"Edges: {self.count} between {sum(map(len, self.units.values()))} units"

    @classmethod
    def between(cls, units: Mapping[str, np.ndarray], pairs: Iterable[Pair]) -> "Edges":
        """Return all edges between some units, with scores of 0.

        Args:
            units: Indices of units by site.
            pairs: The pairs of sites that edges join, see `joined_sites`.
        """
        scores = dict[Pair, np.ndarray]()
        for up, down in pairs:
            scores[up, down] = np.zeros((len(units[down]), len(units[up])))
        return cls(units, scores)

    @cached_property
    def places(self) -> dict[Pair, tuple[np.ndarray, ...]]:
        """A dictionary from each pair of sites to two arrays: the row and the column of each edge in its scores."""
        return {
            pair: np.nonzero(~np.isnan(block)) for pair, block in self.scores.items()
        }

    @property
    def count(self) -> int:
        """Number of edges."""
        return sum(len(rows) for rows, _ in self.places.values())

    def strongest(self, into: Count, *, any_sign: bool = False) -> "Edges":
        """Return the edges with the largest scores into each unit; edges from all upstream sites compete.

        Args:
            into: Largest number of edges to keep into each unit.
            any_sign: If True, edges with a score of zero or less can be kept, too.
        """
        places = strongest_edges(self.scores, into, any_sign)
        scores = dict[Pair, np.ndarray]()
        for pair, place in places.items():
            scores[pair] = np.full(self.scores[pair].shape, np.nan)
            scores[pair][place] = self.scores[pair][place]
        strongest = replace(self, scores=scores)
        # The places are known here. So they are stored, and need not be searched for in the scores again.
        strongest.__dict__["places"] = places
        return strongest

    def top(self, share: Share) -> "Edges":
        """Return the edges with the largest absolute scores; edges of all pairs of sites compete.

        Args:
            share: Share of all edges to return. At least one edge is returned.

        Raises:
            InputError: if there are no edges.
        """
        if not self.count:
            raise InputError(
                "The strongest edges are a share of scored edges, but there are none: give more units."
            )
        flat = self._flat(self.scores)
        edges = np.flatnonzero(~np.isnan(flat))
        n_strongest = max(1, round(share * len(edges)))
        # With a stable sort, the first of equal edges is kept on every machine.
        by_strength = np.argsort(-np.abs(flat[edges]), kind="stable")
        marks = np.zeros(len(flat), bool)
        marks[edges[by_strength[:n_strongest]]] = True
        return self._where(self._blocks(marks, list(self.scores)))

    def among(self, units: Mapping[str, Sequence[int] | np.ndarray]) -> "Edges":
        """Return the edges between the given units.

        All other units, and all pairs with a site that is not given, are left out.
        """
        rows = dict[str, np.ndarray]()
        subset = dict[str, np.ndarray]()
        for site, of_site in self.units.items():
            if site in units:
                rows[site] = np.flatnonzero(np.isin(of_site, list(units[site])))
                subset[site] = of_site[rows[site]]
        scores = dict[Pair, np.ndarray]()
        for (up, down), block in self.scores.items():
            if up in rows and down in rows:
                scores[up, down] = block[np.ix_(rows[down], rows[up])]
        return replace(self, units=subset, scores=scores)

    def onto(self, units: Mapping[str, np.ndarray]) -> "Edges":
        """Return all edges between the given units, with the scores of this set.

        The rows and columns of the new scores are in the order in which the units are given. If an edge is not in this
        set, its new score is 0. If this set has no scores for a pair of sites, the pair is left out.

        Args:
            units: Indices of units by site.
        """
        places = dict[str, np.ndarray]()
        for site, of_site in units.items():
            if site in self.units:
                # The place is -1 for a unit that was not given.
                places[site] = pd.Index(of_site).get_indexer(self.units[site])
        blocks = dict[Pair, np.ndarray]()
        for (up, down), scores in self.scores.items():
            if up not in places or down not in places:
                continue
            rows = places[down] >= 0
            columns = places[up] >= 0
            block = np.zeros((len(units[down]), len(units[up])), np.float32)
            into = np.ix_(places[down][rows], places[up][columns])
            block[into] = np.nan_to_num(scores)[np.ix_(rows, columns)]
            blocks[up, down] = block
        return Edges(units, blocks)

    def without(self, other: "Edges") -> "Edges":
        """Return the edges of this set that are not in ``other``, a set of edges between the same units."""
        return self._where(
            {pair: np.isnan(scores) for pair, scores in other.scores.items()}
        )

    def random(self, rng: np.random.Generator) -> "Edges":
        """Return equally many random edges between the same units: permute all scores, with NaN for a missing edge.

        If all edges lead from one site to the next, scores are permuted within each pair of sites, so each pair keeps
        its number of edges. Otherwise scores are permuted over all pairs, and only the total number is kept.
        """
        pairs = list(self.scores)
        groups = [pairs]
        if set(pairs) <= set(pairwise(self.units)):
            groups = [[pair] for pair in pairs]
        scores = dict[Pair, np.ndarray]()
        for group in groups:
            flat = self._flat({pair: self.scores[pair] for pair in group})
            scores |= self._blocks(rng.permutation(flat), group)
        return replace(self, scores=scores)

    def without_each(self) -> Iterator["Edges"]:
        """Yield, for each edge in turn, the set of all other edges."""
        for pair, (rows, columns) in self.places.items():
            for row, column in zip(rows, columns, strict=True):
                left = self.scores[pair].copy()
                left[row, column] = np.nan
                yield replace(self, scores={**self.scores, pair: left})

    def masks(self, n_units: Mapping[str, Count]) -> dict[Pair, np.ndarray]:
        """Return boolean masks [downstream units, upstream units] by pair of sites, True at the edges of this set.

        A mask covers all units of both sites, also those units that have no edges.

        Args:
            n_units: Number of all units of each site.

        Raises:
            InputError: if a site has fewer units than the edges need.
        """
        for site, units in self.units.items():
            if len(units) and (n := n_units.get(site, 0)) <= max(units):
                raise InputError(
                    f"Site {site!r} has units 0 to {n - 1}, but there are edges of unit {max(units)}: "
                    "give edges of this encoder, which are the same at all positions."
                )
        masks = dict[Pair, np.ndarray]()
        for (up, down), (rows, columns) in self.places.items():
            mask = np.zeros((n_units[down], n_units[up]), bool)
            # Rows and columns are places in `units`. The mask has a place for each unit of a site.
            mask[self.units[down][rows], self.units[up][columns]] = True
            masks[up, down] = mask
        return masks

    def to_pandas(self) -> pd.DataFrame:
        """Return a table with a row for each edge.

        The columns are upstream_site, upstream_unit, downstream_site, downstream_unit and score.
        """
        tables = list[pd.DataFrame]()
        for (up, down), (rows, columns) in self.places.items():
            table = {
                "upstream_site": up,
                "upstream_unit": self.units[up][columns],
                "downstream_site": down,
                "downstream_unit": self.units[down][rows],
                "score": self.scores[up, down][rows, columns],
            }
            tables.append(pd.DataFrame(table))
        if not tables:
            return pd.DataFrame(columns=list(EDGE_COLUMNS))
        return pd.concat(tables, ignore_index=True)

    def to_networkx(self) -> nx.DiGraph:
        """Return a graph whose nodes are all units, and whose edges are these edges.

        A node has the name ``site/unit`` and the attributes ``site`` and ``unit``. The attribute ``weight`` of an edge
        is its score.
        """
        graph = nx.DiGraph()
        # Units without edges are nodes, too.
        for site, units in self.units.items():
            for unit in units.tolist():
                graph.add_node(f"{site}/{unit}", site=site, unit=unit)
        rows = self.to_pandas().itertuples(index=False, name=None)
        for up, upstream_unit, down, downstream_unit, score in rows:
            graph.add_edge(
                f"{up}/{upstream_unit}",
                f"{down}/{downstream_unit}",
                weight=float(score),
            )
        return graph

    def _where(self, marks: Mapping[Pair, np.ndarray]) -> "Edges":
        """Return the edges at which ``marks`` is True."""
        scores = dict[Pair, np.ndarray]()
        for pair, block in self.scores.items():
            scores[pair] = np.where(marks[pair], block, np.nan)
        return replace(self, scores=scores)

    @staticmethod
    def _flat(blocks: Mapping[Pair, np.ndarray]) -> np.ndarray:
        """Return the entries of all blocks as one array [entries] of float64."""
        # The empty array makes the type float64, and makes the result empty if there are no blocks.
        rows = [block.ravel() for block in blocks.values()]
        return np.concatenate([np.zeros(0), *rows])

    def _blocks(
        self, flat: np.ndarray, pairs: Sequence[Pair]
    ) -> dict[Pair, np.ndarray]:
        """Return the blocks of some pairs of sites, given their entries as one array; the inverse of `_flat`."""
        blocks = dict[Pair, np.ndarray]()
        start = 0
        for pair in pairs:
            end = start + self.scores[pair].size
            blocks[pair] = flat[start:end].reshape(self.scores[pair].shape)
            start = end
        return blocks


def _strongest_columns(
    scores: Shaped[np.ndarray, "down up"], n: int
) -> Int[np.ndarray, "down strongest"]:
    """Return the columns of the n largest scores of each row, the largest score first.

    Scores are compared with their sign, not by their absolute value. Of equal scores, the first one in the row comes
    first. NaN comes after all scores.
    """
    n = min(n, scores.shape[1])
    left = np.array(scores, dtype=float)
    # NaN comes after all scores. Columns that are taken get -inf, so they come even after NaN.
    left[np.isnan(left)] = np.finfo(float).min
    rows = np.arange(len(left))
    columns = np.empty((len(left), n), dtype=np.int64)
    # n passes are cheaper than sorting each row, because circuits keep a few of hundreds of edges.
    for k in range(n):
        columns[:, k] = left.argmax(1)
        left[rows, columns[:, k]] = -np.inf
    return columns


def strongest_edges(
    edge_scores: Mapping[Pair, Shaped[np.ndarray, "down up"]],
    n: int,
    any_sign: bool = False,
) -> dict[Pair, tuple[np.ndarray, ...]]:
    """Return the n strongest edges into each unit; edges from all upstream sites compete.

    Args:
        edge_scores: Scores by pair (upstream site, downstream site).
        n: Largest number of edges into a unit.
        any_sign: If True, edges with a score of zero or less can be returned, too.

    Returns:
        A dictionary from each pair of sites to two arrays: the row and the column of each returned edge in the scores
        of the pair. The edges are sorted by row, and within a row from the largest score to the smallest.
    """
    into: dict[str, list[Pair]] = {}
    for pair in edge_scores:
        into.setdefault(pair[1], []).append(pair)
    lowest = -np.inf if any_sign else 0
    places = dict[Pair, tuple[np.ndarray, ...]]()
    for pairs in into.values():
        # The scores from all upstream sites are put side by side, so that their edges compete.
        scores = np.concatenate([edge_scores[pair] for pair in pairs], 1)
        strongest = _strongest_columns(scores, n)
        rows = np.repeat(np.arange(len(scores)), strongest.shape[1])
        columns = strongest.ravel()
        # A comparison with NaN is False, so an entry that is no edge is not returned.
        are_edges = scores[rows, columns] > lowest
        start = 0
        for pair in pairs:
            end = start + edge_scores[pair].shape[1]
            of_pair = are_edges & (start <= columns) & (columns < end)
            places[pair] = (rows[of_pair], columns[of_pair] - start)
            start = end
    # The pairs keep the order that they have in the scores, because files and tables have this order.
    return {pair: places[pair] for pair in edge_scores}
