"""What attribution leaves behind: `AttributionGraph`, plain arrays that are stored, and `Circuit`, cut out of it.

No torch and no model: circuits are studied on any laptop.
"""

import html
import math
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from itertools import pairwise
from typing import Any, NamedTuple

import networkx as nx
import numpy as np
import pandas as pd
from jaxtyping import Float, Int, Shaped

from circuitry.models.sites import INPUT
from circuitry.runs.arrays import read_arrays, write_arrays
from circuitry.runs.errors import InputError

FORMAT = "circuitry attribution graph 2"
"""Name and version of the file format."""


class Completeness(NamedTuple):
    """How well a site's scores add up.

    At the embedding itself the cosine is constant on the path to zero and drops only at its very end, so with
    baseline zero the gap of the last site is the whole logit.
    """

    effect_sum: float
    """Sum of the effects of all units."""
    metric_difference: float
    """Mean metric with the whole site at the baseline minus the clean mean metric."""

    @property
    def gap(self) -> float:
        """What the quadrature missed; 0 in the limit of many points."""
        return self.effect_sum - self.metric_difference


@dataclass(frozen=True)
class NodeEffects:
    """Node scores of one set of images, before units are kept."""

    scores: dict[str, np.ndarray]
    """Mean effect [units] by site, signed."""
    completeness: dict[str, Completeness]
    n_images: int

    @staticmethod
    def merge(parts: Sequence["NodeEffects"]) -> "NodeEffects":
        """Return the effects over the union of disjoint sets of images."""
        total = sum(part.n_images for part in parts)
        share = [part.n_images / total for part in parts]

        def mean(values: Sequence[Any]) -> Any:
            return sum(s * v for s, v in zip(share, values, strict=True))

        sites = parts[0].scores
        return NodeEffects(
            {site: mean([part.scores[site] for part in parts]) for site in sites},
            {site: Completeness(*(mean([p.completeness[site][i] for p in parts]) for i in (0, 1))) for site in sites},
            total,
        )


def keep_units(scores: Float[np.ndarray, " units"], fraction: float) -> Int[np.ndarray, " kept"]:
    """Return the ceil(fraction * units) units with the largest absolute score, largest first.

    Raises:
        InputError: for a fraction outside (0, 1].
    """
    if not 0 < fraction <= 1:
        raise InputError(f"The fraction of units to keep lies in (0, 1], but {fraction} was given.")
    k = math.ceil(round(fraction * len(scores), 9))  # 0.07 * 100 is 7.000000000000001
    return np.argsort(-np.abs(scores), kind="stable")[:k].astype(np.int64)


@dataclass(frozen=True, eq=False, repr=False)
class AttributionGraph:
    """All node scores, the kept units and the scores of the edges between them, for one set of images.

    Example:
        >>> graph = AttributionGraph.load("runs/x/graphs/cat/sketch.all.safetensors")
        >>> graph
        AttributionGraph of cat in sketch: 21 sites, 1644 of 16424 units kept, 50 images, rule left-10, ...
        >>> graph.top(5)  # the strongest units, as a table
        >>> graph.circuit(edges_per_node=3).graph  # networkx.DiGraph
    """

    sites: tuple[str, ...]
    """Sites in order."""
    node_scores: dict[str, np.ndarray]
    """Signed effect [units] by site; negative means that removing the unit lowers the metric. In a feature basis the
    units are the latents."""
    kept_units: dict[str, np.ndarray]
    """Indices [k] of the kept units by site, largest absolute score first."""
    edge_scores: dict[tuple[str, str], np.ndarray]
    """Scores [kept downstream, kept upstream] by (upstream, downstream) pair of consecutive sites."""
    completeness: dict[str, Completeness]
    """Sum of effects and metric difference by site."""
    n_images: int
    class_name: str | None = None
    domain: str | None = None
    settings: dict[str, Any] = field(default_factory=dict)
    """What was computed: fraction, rules, baseline; graphs are compared where it is the same, see `comparable`."""
    provenance: dict[str, Any] = field(default_factory=dict)
    """What made it: versions, model digest, seed."""
    error_scores: dict[str, np.ndarray] = field(default_factory=dict)
    """For sites in a feature basis, the effects of the error units, which follow the latents; they sum to the effect
    of all that the latents miss. They are no nodes of circuits."""

    @property
    def title(self) -> str:
        """Class and domain, for messages."""
        known = [name for name in (self.class_name, self.domain) if name is not None]
        return " in ".join(known) or "a graph without a name"

    @property
    def inner_sites(self) -> tuple[str, ...]:
        """Sites that circuits have nodes at: all but the image itself."""
        return tuple(site for site in self.sites if site != INPUT)

    @cached_property
    def sites_without_effect(self) -> frozenset[str]:
        """Sites whose scores are all zero: which of their units are kept is arbitrary."""
        return frozenset(site for site in self.inner_sites if not self.node_scores[site].any())

    def n_units(self, site: str) -> int:
        """Return how many units the activation of a site has, nodes and error units."""
        return len(self.node_scores[site]) + len(self.error_scores.get(site, ()))

    def check_finite(self) -> None:
        """Refuse scores that are NaN or infinite: units cannot be ranked by them.

        Raises:
            InputError: with the name of the site.
        """
        arrays: dict[tuple[str, str], np.ndarray] = {("node", site): v for site, v in self.node_scores.items()}
        arrays |= {("error", site): v for site, v in self.error_scores.items()}
        arrays |= {("edge", f"{up}->{down}"): v for (up, down), v in self.edge_scores.items()}
        for (kind, where), scores in arrays.items():
            if not np.isfinite(scores).all():
                raise InputError(
                    f"The {kind} scores of {self.title} at {where} are not all finite numbers: look for NaN or "
                    "infinite values in the metric, the text weights, the baseline and the images."
                )

    def to_pandas(self, kind: str = "nodes") -> pd.DataFrame:
        """Return the graph as a table.

        Args:
            kind: ``nodes``: site, unit, score, kept, one row per unit. ``edges``: upstream_site, upstream_unit,
                downstream_site, downstream_unit, score, one row per edge between kept units. ``sites``: site, units,
                kept, effect_sum, metric_difference, gap, see `Completeness`.

        Raises:
            InputError: for another kind.
        """
        tables = {"nodes": self._nodes, "edges": self._edges, "sites": self._by_site}
        if kind not in tables:
            raise InputError(f"A graph has tables of {', '.join(tables)}, but {kind!r} was asked for.")
        return tables[kind]()

    def top(self, n: int = 10) -> pd.DataFrame:
        """Return the n units with the largest absolute score over all sites but the image: site, unit, score."""
        if n < 1:
            raise InputError(f"At least one unit is shown, but {n} were asked for.")
        table = self._nodes().query("site != @INPUT")
        order = np.argsort(-table["score"].abs().to_numpy(), kind="stable")[:n]
        return table.iloc[order][["site", "unit", "score"]].reset_index(drop=True)

    def _nodes(self) -> pd.DataFrame:
        parts = [
            pd.DataFrame({"site": site, "unit": np.arange(len(scores)), "score": scores})
            for site, scores in self.node_scores.items()
        ]
        kept = [np.isin(np.arange(len(self.node_scores[site])), self.kept_units[site]) for site in self.node_scores]
        return pd.concat(parts, ignore_index=True).assign(kept=np.concatenate(kept))

    def _edges(self) -> pd.DataFrame:
        parts = [
            pd.DataFrame(
                {
                    "upstream_site": up,
                    "upstream_unit": np.tile(self.kept_units[up], len(scores)),
                    "downstream_site": down,
                    "downstream_unit": np.repeat(self.kept_units[down], scores.shape[1]),
                    "score": scores.ravel(),
                }
            )
            for (up, down), scores in self.edge_scores.items()
        ]
        columns = ["upstream_site", "upstream_unit", "downstream_site", "downstream_unit", "score"]
        return pd.concat(parts, ignore_index=True) if parts else pd.DataFrame(columns=columns)

    def _by_site(self) -> pd.DataFrame:
        unknown = Completeness(math.nan, math.nan)
        sums = [self.completeness.get(site, unknown) for site in self.sites]
        return pd.DataFrame(
            {
                "site": self.sites,
                "units": [len(self.node_scores[site]) for site in self.sites],
                "kept": [len(self.kept_units[site]) for site in self.sites],
                "effect_sum": [value.effect_sum for value in sums],
                "metric_difference": [value.metric_difference for value in sums],
                "gap": [value.gap for value in sums],
            }
        )

    def __repr__(self) -> str:
        kept, units = (sum(len(by[site]) for site in self.inner_sites) for by in (self.kept_units, self.node_scores))
        return (
            f"AttributionGraph of {self.title}: {len(self.inner_sites)} sites, {kept} of {units} units kept, "
            f"{_made(self)}"
        )

    def _repr_html_(self) -> str:
        """Show the sites as a table in a notebook."""
        return f"<p>{html.escape(repr(self))}</p>{self._by_site().to_html(index=False, float_format='{:.3g}'.format)}"

    def circuit(self, edges_per_node: int = 3) -> "Circuit":
        """Cut out the circuit: for every kept unit, edges from the kept units upstream with the largest score.

        Args:
            edges_per_node: Most edges into a unit, by *signed* score; the study takes 3.
        """
        if edges_per_node < 1:
            raise InputError(f"A circuit needs at least one edge per node, but {edges_per_node} were asked for.")
        return Circuit(self, edges_per_node)

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the graph as safetensors with a JSON header, whole or not at all.

        Raises:
            InputError: for scores that are not finite.
        """
        self.check_finite()
        tensors = {f"node_scores/{site}": v for site, v in self.node_scores.items()}
        tensors |= {f"kept_units/{site}": v for site, v in self.kept_units.items()}
        tensors |= {f"edge_scores/{up}->{down}": v for (up, down), v in self.edge_scores.items()}
        tensors |= {f"error_scores/{site}": v for site, v in self.error_scores.items()}
        header = {
            "sites": self.sites,
            "completeness": self.completeness,
            "n_images": self.n_images,
            "class_name": self.class_name,
            "domain": self.domain,
            "settings": self.settings,
            "provenance": self.provenance,
        }
        write_arrays(path, FORMAT, header, tensors)

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> "AttributionGraph":
        """Read a graph that `save` wrote.

        Raises:
            InputError: for a missing or damaged file, another format or version, wrong shapes, units that are not
                there, or scores that are not finite.
        """
        header, tensors = read_arrays(path, FORMAT, "attribution graph")
        sites = tuple(header["sites"])
        graph = cls(
            sites,
            {site: _entry(tensors, f"node_scores/{site}", path) for site in sites},
            {site: _entry(tensors, f"kept_units/{site}", path) for site in sites},
            {
                (up, down): _entry(tensors, f"edge_scores/{up}->{down}", path)
                for up, down in pairwise(site for site in sites if site != INPUT)
            },
            {site: Completeness(*value) for site, value in header["completeness"].items()},
            header["n_images"],
            header["class_name"],
            header["domain"],
            header["settings"],
            header["provenance"],
            {site: tensors[name] for site in sites if (name := f"error_scores/{site}") in tensors},
        )
        graph._check_shapes(path)
        graph.check_finite()
        return graph

    def _check_shapes(self, path: object) -> None:
        for site, kept in self.kept_units.items():
            if len(kept) and not 0 <= kept.min() <= kept.max() < len(self.node_scores[site]):
                raise InputError(
                    f"{path}: kept units of {site} are not among its {len(self.node_scores[site])} units: the file is "
                    "damaged, make it again."
                )
        for (up, down), scores in self.edge_scores.items():
            expected = (len(self.kept_units[down]), len(self.kept_units[up]))
            if scores.shape != expected:
                raise InputError(
                    f"{path}: edge scores {up}->{down} have shape {scores.shape}, but the kept units say "
                    f"{expected}: the file is damaged, make it again."
                )


def _entry(tensors: Mapping[str, np.ndarray], name: str, path: object) -> np.ndarray:
    if name not in tensors:
        raise InputError(f"{path} lacks {name!r}: the file is damaged, make it again.")
    return tensors[name]


@dataclass(frozen=True, eq=False, repr=False)
class Circuit:
    """A circuit: the kept units of an attribution graph and the strongest edges between them."""

    source: AttributionGraph
    edges_per_node: int

    @cached_property
    def graph(self) -> nx.DiGraph:
        """Directed acyclic graph; nodes ``site/unit`` (site, unit, score), edges (weight)."""
        graph = nx.DiGraph()
        kept = self.source.kept_units
        for site in self.source.inner_sites:
            for unit in kept[site]:
                score = float(self.source.node_scores[site][unit])
                graph.add_node(f"{site}/{unit}", site=site, unit=int(unit), score=score)
        for (up, down), scores in self.source.edge_scores.items():
            for row, columns in enumerate(strongest_columns(scores, self.edges_per_node)):
                head = f"{down}/{kept[down][row]}"
                for column in columns:
                    tail = f"{up}/{kept[up][column]}"
                    graph.add_edge(tail, head, weight=float(scores[row, column]))
        return graph

    @cached_property
    def arrays(self) -> "CircuitArrays":
        """The same nodes and edges as numbers, for comparing many circuits fast."""
        source = self.source
        first, total = self._first_numbers()
        numbers = {site: first[site] + source.kept_units[site] for site in source.inner_sites}
        tails, heads = [np.empty(0, np.int64)], [np.empty(0, np.int64)]
        for (up, down), scores in source.edge_scores.items():
            columns = strongest_columns(scores, self.edges_per_node)
            tails.append(numbers[up][columns].ravel())
            heads.append(numbers[down].repeat(columns.shape[1]))
        nodes = np.concatenate([np.empty(0, np.int64), *numbers.values()])
        return CircuitArrays(nodes, np.concatenate(tails), np.concatenate(heads), total)

    def arrays_without(self, sites: Iterable[str]) -> "CircuitArrays":
        """Return `arrays` without the nodes of some sites and the edges that begin or end there."""
        arrays, left_out = self.arrays, list(sites)
        if not left_out:
            return arrays
        first, total = self._first_numbers()
        inside = np.ones(total, dtype=bool)
        for site in left_out:
            inside[first[site] : first[site] + len(self.source.node_scores[site])] = False
        edges = inside[arrays.tails] & inside[arrays.heads]
        return CircuitArrays(arrays.nodes[inside[arrays.nodes]], arrays.tails[edges], arrays.heads[edges], total)

    def _first_numbers(self) -> tuple[dict[str, int], int]:
        """Return the number of each site's first unit, and of all units."""
        sites = self.source.inner_sites
        ends = np.cumsum([0, *(len(self.source.node_scores[site]) for site in sites)]).tolist()
        return dict(zip(sites, ends, strict=False)), ends[-1]

    def __repr__(self) -> str:
        return (
            f"Circuit of {self.source.title}: {len(self.source.inner_sites)} sites, {len(self.arrays.nodes)} units, "
            f"{len(self.arrays.tails)} edges (at most {self.edges_per_node} into a unit), {_made(self.source)}"
        )

    def _repr_html_(self) -> str:
        """Show the sites as a table in a notebook."""
        table = self.source.to_pandas("sites").to_html(index=False, float_format="{:.3g}".format)
        return f"<p>{html.escape(repr(self))}</p>{table}"


class CircuitArrays(NamedTuple):
    """Nodes and edges of a circuit; a node's number is its place among all units of all sites in order.

    Numbers of two circuits mean the same units only where their sites have equally many units.
    """

    nodes: Int[np.ndarray, " nodes"]
    tails: Int[np.ndarray, " edges"]
    heads: Int[np.ndarray, " edges"]
    n_units: int
    """Of all sites together."""


def _made(graph: AttributionGraph) -> str:
    """Say how a graph was made and how well its scores add up."""
    facts = [f"{graph.n_images} images"]
    facts += [f"{word} {graph.settings[name]}" for name, word in _MADE_BY.items() if name in graph.settings]
    if graph.completeness:
        site = max(graph.completeness, key=lambda one: abs(graph.completeness[one].gap))
        facts.append(f"largest completeness gap {graph.completeness[site].gap:.3g} at {site}")
    return ", ".join(facts)


_MADE_BY = {"node_rule": "rule", "baseline": "baseline", "metric": "metric"}


def strongest_columns(scores: Shaped[np.ndarray, "down up"], n: int) -> Int[np.ndarray, "down strongest"]:
    """Return, for each row, the columns of its n largest scores, by sign, largest first; the first among equals."""
    n = min(n, scores.shape[1])
    left = np.array(scores, dtype=float)
    rows, found = np.arange(len(left)), np.empty((len(left), n), dtype=np.int64)
    for k in range(n):
        found[:, k] = left.argmax(1)
        left[rows, found[:, k]] = -np.inf
    return found
