"""What attribution leaves behind: `AttributionGraph`, plain arrays that are stored, and `Circuit`, cut out of it.

No torch and no model: circuits are studied on any laptop.
"""

import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from itertools import pairwise
from typing import Any, NamedTuple

import networkx as nx
import numpy as np
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


@dataclass(frozen=True, eq=False)
class AttributionGraph:
    """All node scores, the kept units and the scores of the edges between them, for one set of images."""

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
    """What was computed: fraction, rules, baseline."""
    provenance: dict[str, Any] = field(default_factory=dict)
    """What made it: versions, model digest, seed."""
    error_scores: dict[str, np.ndarray] = field(default_factory=dict)
    """For sites in a feature basis, the effects of the error units, which follow the latents; they sum to the effect
    of all that the latents miss. They are no nodes of circuits."""

    def n_units(self, site: str) -> int:
        """Return how many units the activation of a site has, nodes and error units."""
        return len(self.node_scores[site]) + len(self.error_scores.get(site, ()))

    def circuit(self, edges_per_node: int = 3) -> "Circuit":
        """Cut out the circuit: for every kept unit, edges from the kept units upstream with the largest score.

        Args:
            edges_per_node: Most edges into a unit, by *signed* score; the study takes 3.
        """
        if edges_per_node < 1:
            raise InputError(f"A circuit needs at least one edge per node, but {edges_per_node} were asked for.")
        return Circuit(self, edges_per_node)

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the graph as safetensors with a JSON header, whole or not at all."""
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
            InputError: for a missing or damaged file, another format or version, or wrong shapes.
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
        for (up, down), scores in graph.edge_scores.items():
            expected = (len(graph.kept_units[down]), len(graph.kept_units[up]))
            if scores.shape != expected:
                raise InputError(
                    f"{path}: edge scores {up}->{down} have shape {scores.shape}, but the kept units say "
                    f"{expected}: the file is damaged, make it again."
                )
        return graph


def _entry(tensors: Mapping[str, np.ndarray], name: str, path: object) -> np.ndarray:
    if name not in tensors:
        raise InputError(f"{path} lacks {name!r}: the file is damaged, make it again.")
    return tensors[name]


@dataclass(frozen=True, eq=False)
class Circuit:
    """A circuit: the kept units of an attribution graph and the strongest edges between them."""

    source: AttributionGraph
    edges_per_node: int

    @cached_property
    def graph(self) -> nx.DiGraph:
        """Directed acyclic graph; nodes ``site/unit`` (site, unit, score), edges (weight)."""
        graph = nx.DiGraph()
        kept = self.source.kept_units
        for site in self.source.sites:
            if site != INPUT:
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
    def numbered(self) -> "NumberedCircuit":
        """Return the same nodes and edges as numbers, for comparing many circuits fast."""
        source = self.source
        inner = [site for site in source.sites if site != INPUT]
        sizes = [len(source.node_scores[site]) for site in inner]
        first = dict(zip(inner, np.cumsum([0, *sizes])[:-1].tolist(), strict=True))
        numbers = {site: first[site] + source.kept_units[site] for site in inner}
        tails, heads = [np.empty(0, np.int64)], [np.empty(0, np.int64)]
        for (up, down), scores in source.edge_scores.items():
            columns = strongest_columns(scores, self.edges_per_node)
            tails.append(numbers[up][columns].ravel())
            heads.append(numbers[down].repeat(columns.shape[1]))
        nodes = np.concatenate([np.empty(0, np.int64), *numbers.values()])
        return NumberedCircuit(nodes, np.concatenate(tails), np.concatenate(heads))


class NumberedCircuit(NamedTuple):
    """Nodes and edges of a circuit; a node's number is its place among all units of all sites in order."""

    nodes: Int[np.ndarray, " nodes"]
    tails: Int[np.ndarray, " edges"]
    heads: Int[np.ndarray, " edges"]


def strongest_columns(scores: Shaped[np.ndarray, "down up"], n: int) -> Int[np.ndarray, "down strongest"]:
    """Return, for each row, the columns of its n largest scores, by sign, largest first; the first among equals."""
    n = min(n, scores.shape[1])
    left = np.array(scores, dtype=float)
    rows, found = np.arange(len(left)), np.empty((len(left), n), dtype=np.int64)
    for k in range(n):
        found[:, k] = left.argmax(1)
        left[rows, found[:, k]] = -np.inf
    return found
