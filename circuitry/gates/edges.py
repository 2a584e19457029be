"""A set of edges with their scores: scorers return it, circuits are cut from it, runs keep it. No torch.

An edge runs from an upstream unit to a downstream unit. Scores come in blocks [downstream, upstream] by pair of sites;
they are means over images, and positive scores help. An entry that is NaN is no edge, so a subset has the same blocks.
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
"""Upstream and downstream site."""
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
    """Units [k] by site, in order; they are the rows and columns of the scores."""
    scores: Mapping[Pair, np.ndarray]
    """Scores [downstream, upstream] by pair of sites, NaN where there is no edge."""

    def __repr__(self) -> str:
        return f"Edges: {self.count} between {sum(map(len, self.units.values()))} units"

    @classmethod
    def between(cls, units: Mapping[str, np.ndarray], pairs: Iterable[Pair]) -> "Edges":
        """Return all edges between some units at some pairs of sites, see `joined_sites`, with scores of 0."""
        scores = dict[Pair, np.ndarray]()
        for up, down in pairs:
            scores[up, down] = np.zeros((len(units[down]), len(units[up])))
        return cls(units, scores)

    @cached_property
    def places(self) -> dict[Pair, tuple[np.ndarray, ...]]:
        """Rows and columns of the edges in the scores of each pair, row by row."""
        return {
            pair: np.nonzero(~np.isnan(block)) for pair, block in self.scores.items()
        }

    @property
    def count(self) -> int:
        """Number of edges."""
        return sum(len(rows) for rows, _ in self.places.values())

    def strongest(self, into: Count, *, any_sign: bool = False) -> "Edges":
        """Return the edges with the largest score into every unit, whichever site they come from.

        Args:
            into: Edges into a unit, fewer where there are not as many.
            any_sign: Whether edges may have a score of zero or less.
        """
        places = strongest_edges(self.scores, into, any_sign)
        scores = dict[Pair, np.ndarray]()
        for pair, place in places.items():
            scores[pair] = np.full(self.scores[pair].shape, np.nan)
            scores[pair][place] = self.scores[pair][place]
        strongest = replace(self, scores=scores)
        # The places are known: a comparison of many circuits need not search the scores for them again.
        strongest.__dict__["places"] = places
        return strongest

    def top(self, share: Share) -> "Edges":
        """Return a share of the edges, those with the largest absolute scores of all pairs of sites; one at least."""
        if not self.count:
            raise InputError(
                "The strongest edges are a share of scored edges, but there are none: give more units."
            )
        flat = self._flat(self.scores)
        edges = np.flatnonzero(~np.isnan(flat))
        n_strongest = max(1, round(share * len(edges)))
        # A stable order keeps the first among equals on every machine.
        by_strength = np.argsort(-np.abs(flat[edges]), kind="stable")
        marks = np.zeros(len(flat), bool)
        marks[edges[by_strength[:n_strongest]]] = True
        return self._where(self._blocks(marks, list(self.scores)))

    def among(self, units: Mapping[str, Sequence[int] | np.ndarray]) -> "Edges":
        """Return the edges between some of the units; units and pairs of other sites are left out."""
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
        """Return the edges with both ends among the given units, whose order they take; all other scores are 0."""
        places = dict[str, np.ndarray]()
        for site, of_site in units.items():
            if site in self.units:
                # -1 for a unit that is not among the given ones.
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
        """Return the edges that another set of edges between the same units does not have."""
        return self._where(
            {pair: np.isnan(scores) for pair, scores in other.scores.items()}
        )

    def random(self, rng: np.random.Generator) -> "Edges":
        """Return as many edges between the same units, at random; the scores move with them.

        As many between the same sites, where edges join neighbouring sites alone; else as many in all.
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
        """Yield these edges without each of them in turn."""
        for pair, (rows, columns) in self.places.items():
            for row, column in zip(rows, columns, strict=True):
                left = self.scores[pair].copy()
                left[row, column] = np.nan
                yield replace(self, scores={**self.scores, pair: left})

    def masks(self, n_units: Mapping[str, Count]) -> dict[Pair, np.ndarray]:
        """Return the edges as booleans [all units downstream, all units upstream] by pair of sites, for runs.

        Args:
            n_units: Number of all units by site.
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
            # Rows and columns count the units of the scores; a mask counts all units of a site.
            mask[self.units[down][rows], self.units[up][columns]] = True
            masks[up, down] = mask
        return masks

    def to_pandas(self) -> pd.DataFrame:
        """Return a row for every edge: upstream_site, upstream_unit, downstream_site, downstream_unit, score."""
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
        """Return a graph with all units as nodes ``site/unit`` (site, unit) and these edges (weight)."""
        graph = nx.DiGraph()
        # All units, since those without an edge are nodes, too.
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
        """Return the marked edges."""
        scores = dict[Pair, np.ndarray]()
        for pair, block in self.scores.items():
            scores[pair] = np.where(marks[pair], block, np.nan)
        return replace(self, scores=scores)

    @staticmethod
    def _flat(blocks: Mapping[Pair, np.ndarray]) -> np.ndarray:
        """Return all scores in one row, as float64: the empty array sees to that, and to no blocks at all."""
        rows = [block.ravel() for block in blocks.values()]
        return np.concatenate([np.zeros(0), *rows])

    def _blocks(
        self, flat: np.ndarray, pairs: Sequence[Pair]
    ) -> dict[Pair, np.ndarray]:
        """Return the blocks of some pairs of sites from one row; the inverse of `_flat`."""
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
    """Return, for each row, the columns of its n largest scores, by sign, largest first; the first among equals."""
    n = min(n, scores.shape[1])
    left = np.array(scores, dtype=float)
    # NaN comes last, yet before the columns that are taken already, which get -inf.
    left[np.isnan(left)] = np.finfo(float).min
    rows = np.arange(len(left))
    columns = np.empty((len(left), n), dtype=np.int64)
    # n passes are cheaper than a sort of each row: circuits keep a few edges of hundreds.
    for k in range(n):
        columns[:, k] = left.argmax(1)
        left[rows, columns[:, k]] = -np.inf
    return columns


def strongest_edges(
    edge_scores: Mapping[Pair, Shaped[np.ndarray, "down up"]],
    n: int,
    any_sign: bool = False,
) -> dict[Pair, tuple[np.ndarray, ...]]:
    """Return the n strongest edges into every unit, whichever earlier site they come from.

    Args:
        edge_scores: Scores by (upstream, downstream) pair of sites.
        n: Most edges into a unit.
        any_sign: Whether edges may have a score of zero or less.

    Returns:
        Rows and columns of the edges in the scores of each pair, row by row, by falling score.
    """
    into: dict[str, list[Pair]] = {}
    for pair in edge_scores:
        into.setdefault(pair[1], []).append(pair)
    lowest = -np.inf if any_sign else 0
    places = dict[Pair, tuple[np.ndarray, ...]]()
    for pairs in into.values():
        # All sites that lead to one site stand side by side, so that their edges compete.
        scores = np.concatenate([edge_scores[pair] for pair in pairs], 1)
        strongest = _strongest_columns(scores, n)
        rows = np.repeat(np.arange(len(scores)), strongest.shape[1])
        columns = strongest.ravel()
        # NaN, which is no edge, is not above the lowest score either.
        are_edges = scores[rows, columns] > lowest
        start = 0
        for pair in pairs:
            end = start + edge_scores[pair].shape[1]
            of_pair = are_edges & (start <= columns) & (columns < end)
            places[pair] = (rows[of_pair], columns[of_pair] - start)
            start = end
    # In the order of the scores, which the order of files and tables follows.
    return {pair: places[pair] for pair in edge_scores}
