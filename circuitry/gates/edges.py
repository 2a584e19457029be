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

from circuitry.runs.errors import InputError
from circuitry.runs.given import Count, Share

Pair = tuple[str, str]
"""Upstream and downstream site."""


@dataclass(frozen=True, eq=False, repr=False)
class Edges:
    """Edges between some units of an encoder.

    Example:
        >>> edges = graph.edges.strongest(into=3)      # the edges of a circuit
        >>> edges.to_pandas().nlargest(5, "score")
        >>> [one.count for one in (edges, edges.top(0.1), edges.random(np.random.default_rng(0)))]
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
        return cls(
            units,
            {
                (up, down): np.zeros((len(units[down]), len(units[up])))
                for up, down in pairs
            },
        )

    @cached_property
    def places(self) -> dict[Pair, tuple[np.ndarray, np.ndarray]]:
        """Rows and columns of the edges in the scores of each pair, row by row."""
        found = {
            pair: np.nonzero(~np.isnan(scores)) for pair, scores in self.scores.items()
        }
        return {pair: (rows, columns) for pair, (rows, columns) in found.items()}

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
        scores = {
            pair: np.full(block.shape, np.nan) for pair, block in self.scores.items()
        }
        for pair, place in places.items():
            scores[pair][place] = self.scores[pair][place]
        chosen = replace(self, scores=scores)
        # Else comparisons of many circuits look for them again.
        chosen.__dict__["places"] = places
        return chosen

    def top(self, share: Share) -> "Edges":
        """Return a share of the edges, those with the largest absolute scores of all pairs of sites; one at least."""
        if not self.count:
            raise InputError(
                "The strongest edges are a share of scored edges, but there are none: give more units."
            )
        flat = self._flat(self.scores)
        there = np.flatnonzero(~np.isnan(flat))
        chosen = np.zeros(len(flat), bool)
        chosen[
            there[
                np.argsort(-np.abs(flat[there]), kind="stable")[
                    : max(1, round(share * len(there)))
                ]
            ]
        ] = True
        return self._where(self._blocks(chosen, list(self.scores)))

    def among(self, units: Mapping[str, Sequence[int] | np.ndarray]) -> "Edges":
        """Return the edges between some of the units; units and pairs of other sites are left out."""
        rows = {
            site: np.flatnonzero(np.isin(self.units[site], list(units[site])))
            for site in self.units
            if site in units
        }
        scores = {
            (u, d): s[np.ix_(rows[d], rows[u])]
            for (u, d), s in self.scores.items()
            if u in rows and d in rows
        }
        return replace(
            self,
            units={site: self.units[site][place] for site, place in rows.items()},
            scores=scores,
        )

    def onto(self, units: Mapping[str, np.ndarray]) -> "Edges":
        """Return the edges whose ends are among other units, in their order; what is no edge has a score of 0."""
        found: dict[Pair, np.ndarray] = {}
        ends = {
            site: pd.Index(of).get_indexer(self.units[site])
            for site, of in units.items()
            if site in self.units
        }
        for up, down in (pair for pair in self.scores if set(pair) <= set(ends)):
            rows, columns = ends[down] >= 0, ends[up] >= 0
            found[up, down] = np.zeros((len(units[down]), len(units[up])), np.float32)
            block = np.nan_to_num(self.scores[up, down])[np.ix_(rows, columns)]
            found[up, down][np.ix_(ends[down][rows], ends[up][columns])] = block
        return Edges(units, found)

    def without(self, other: "Edges") -> "Edges":
        """Return the edges that are not among others between the same units."""
        return self._where(
            {pair: np.isnan(scores) for pair, scores in other.scores.items()}
        )

    def random(self, rng: np.random.Generator) -> "Edges":
        """Return as many edges between the same units, at random; the scores move with them.

        As many between the same sites, where edges join neighbouring sites alone; else as many in all.
        """
        chain = set(self.scores) <= set(pairwise(self.units))
        groups = [[pair] for pair in self.scores] if chain else [list(self.scores)]
        found: dict[Pair, np.ndarray] = {}
        for group in groups:
            found |= self._blocks(
                rng.permutation(
                    self._flat({pair: self.scores[pair] for pair in group})
                ),
                group,
            )
        return replace(self, scores=found)

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
        found = {}
        for (up, down), (rows, columns) in self.places.items():
            found[up, down] = np.zeros((n_units[down], n_units[up]), bool)
            found[up, down][self.units[down][rows], self.units[up][columns]] = True
        return found

    def to_pandas(self) -> pd.DataFrame:
        """Return a row for every edge: upstream_site, upstream_unit, downstream_site, downstream_unit, score."""
        names = [
            "upstream_site",
            "upstream_unit",
            "downstream_site",
            "downstream_unit",
            "score",
        ]
        parts = []
        for (up, down), (rows, columns) in self.places.items():
            values = (
                up,
                self.units[up][columns],
                down,
                self.units[down][rows],
                self.scores[up, down][rows, columns],
            )
            parts.append(pd.DataFrame(dict(zip(names, values, strict=True))))
        return (
            pd.concat(parts, ignore_index=True)
            if parts
            else pd.DataFrame(columns=names)
        )

    def to_networkx(self) -> nx.DiGraph:
        """Return a graph with all units as nodes ``site/unit`` (site, unit) and these edges (weight)."""
        graph = nx.DiGraph()
        for site, units in self.units.items():
            graph.add_nodes_from(
                (f"{site}/{unit}", {"site": site, "unit": unit})
                for unit in units.tolist()
            )
        for (up, down), (rows, columns) in self.places.items():
            weights = self.scores[up, down][rows, columns].astype(float).tolist()
            tails, heads = (
                self.units[up][columns].tolist(),
                self.units[down][rows].tolist(),
            )
            for tail, head, weight in zip(tails, heads, weights, strict=True):
                graph.add_edge(f"{up}/{tail}", f"{down}/{head}", weight=weight)
        return graph

    def _where(self, marks: Mapping[Pair, np.ndarray]) -> "Edges":
        """Return the marked edges."""
        kept = {
            pair: np.where(marks[pair], scores, np.nan)
            for pair, scores in self.scores.items()
        }
        return replace(self, scores=kept)

    @staticmethod
    def _flat(blocks: Mapping[Pair, np.ndarray]) -> np.ndarray:
        return np.concatenate(
            [np.zeros(0), *(block.ravel() for block in blocks.values())]
        )

    def _blocks(
        self, flat: np.ndarray, pairs: Sequence[Pair]
    ) -> dict[Pair, np.ndarray]:
        ends = np.cumsum([self.scores[pair].size for pair in pairs])[:-1]
        parts = np.split(flat, ends)
        return {
            pair: part.reshape(self.scores[pair].shape)
            for pair, part in zip(pairs, parts, strict=True)
        }


def _strongest_columns(
    scores: Shaped[np.ndarray, "down up"], n: int
) -> Int[np.ndarray, "down strongest"]:
    """Return, for each row, the columns of its n largest scores, by sign, largest first; the first among equals."""
    n = min(n, scores.shape[1])
    left = np.array(scores, dtype=float)
    left[np.isnan(left)] = np.finfo(
        float
    ).min  # last, but before those that are taken already
    rows, found = np.arange(len(left)), np.empty((len(left), n), dtype=np.int64)
    for k in range(n):
        found[:, k] = left.argmax(1)
        left[rows, found[:, k]] = -np.inf
    return found


def strongest_edges(
    edge_scores: Mapping[tuple[str, str], Shaped[np.ndarray, "down up"]],
    n: int,
    any_sign: bool = False,
) -> dict[tuple[str, str], tuple[np.ndarray, np.ndarray]]:
    """Return the n strongest edges into every unit, whichever earlier site they come from.

    Args:
        edge_scores: Scores by (upstream, downstream) pair of sites.
        n: Most edges into a unit.
        any_sign: Whether edges may have a score of zero or less.

    Returns:
        Rows and columns of the edges in the scores of each pair, row by row, by falling score.
    """
    into: dict[str, list[tuple[str, str]]] = {}
    for pair in edge_scores:
        into.setdefault(pair[1], []).append(pair)
    found = {}
    for pairs in into.values():
        scores = np.concatenate([edge_scores[pair] for pair in pairs], 1)
        columns = _strongest_columns(scores, n)
        rows, flat = (
            np.repeat(np.arange(len(scores)), columns.shape[1]),
            columns.ravel(),
        )
        there = scores[rows, flat] > (-np.inf if any_sign else 0)  # NaN is no edge
        ends = np.cumsum([edge_scores[pair].shape[1] for pair in pairs])
        for pair, end in zip(pairs, ends, strict=True):
            start = end - edge_scores[pair].shape[1]
            mine = there & (start <= flat) & (flat < end)
            found[pair] = rows[mine], flat[mine] - start
    return {pair: found[pair] for pair in edge_scores}
