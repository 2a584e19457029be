"""What attribution leaves behind: `AttributionGraph`, plain arrays that are stored, and `Circuit`, cut out of it.

No torch and no model: circuits are studied on any laptop.
"""

import os
from dataclasses import dataclass, field
from functools import cached_property
from typing import Annotated, Any, ClassVar

import networkx as nx
import numpy as np
import pandas as pd
from jaxtyping import Float, Int

from circuitry.circuits.completeness import Completeness, find_doubtful, largest_gap
from circuitry.circuits.edges import Edges, strongest_edges
from circuitry.circuits.graph_files import read_cut, read_graph, write_graph
from circuitry.circuits.graph_tables import nodes_table, sites_table
from circuitry.encoder.sites import INPUT
from circuitry.runs.errors import InputError, naming_damage
from circuitry.runs.given import DISTINCT, Count, checked, one_of

IN_STREAM = "any two sites, through the residual stream"
"""The setting ``edges`` of a graph in heads and neurons; see `stream_edges`."""


@checked
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

    HOW_TO_GET: ClassVar = (
        "give the graph of what find_circuit returns (found.graph), the source of a circuit (circuit.source), or one "
        "of a folder (graphs[class, domain])"
    )

    sites: Annotated[tuple[str, ...], DISTINCT]
    """Sites in order."""
    node_scores: dict[str, Float[np.ndarray, " _"]]
    """Effect [units] by site, mean over images; positive means that the unit helps: ablating it lowers the metric. In a
    feature basis the units are the latents."""
    kept_units: dict[str, Int[np.ndarray, " _"]]
    """Indices [k] of the kept units by site, largest absolute score first."""
    edge_scores: dict[tuple[str, str], Float[np.ndarray, "_ _"]]
    """Scores [kept downstream, kept upstream], means over images, by (upstream, downstream) pair of sites: consecutive
    ones, or any two in heads and neurons; see `edge_methods`. They rank edges and do not measure cuts."""
    completeness: dict[str, Completeness]
    """Sum of effects and metric difference by site."""
    n_images: Count
    class_name: str | None = None
    domain: str | None = None
    settings: dict[str, Any] = field(default_factory=dict)
    """What was computed: fraction, rules, baseline; graphs are compared where it is the same, see `comparable`."""
    provenance: dict[str, Any] = field(default_factory=dict)
    """What made it: versions, model digest, seed."""
    error_scores: dict[str, Float[np.ndarray, " _"]] = field(default_factory=dict)
    """For sites in a feature basis, the effects of the error units, which follow the latents; they sum to the effect
    of all that the latents miss. They are no nodes of circuits."""

    def __post_init__(self) -> None:
        if lacking := [site for site in self.sites if site not in self.node_scores]:
            raise InputError(f"A graph has node scores at every site, but lacks {lacking[0]}: add it.")
        for site, kept in self.kept_units.items():
            n = len(self.node_scores[site]) if site in self.node_scores else 0
            if len(kept) and not 0 <= kept.min() <= kept.max() < n:
                raise InputError(f"The kept units of {site} are not among its {n} units: correct them.")
        for (up, down), scores in self.edge_scores.items():
            expected = [len(self.kept_units[site]) if site in self.kept_units else 0 for site in (down, up)]
            if list(scores.shape) != expected:
                raise InputError(
                    f"The edge scores {up}->{down} have shape {list(scores.shape)}, but the kept units say {expected}: "
                    "correct them."
                )

    @property
    def title(self) -> str:
        """Class and domain, for messages."""
        return (
            " in ".join(name for name in (self.class_name, self.domain) if name is not None) or "a graph without a name"
        )

    @property
    def inner_sites(self) -> tuple[str, ...]:
        """Sites that circuits have nodes at: all but the image itself."""
        return tuple(site for site in self.sites if site != INPUT)

    @cached_property
    def edges(self) -> Edges:
        """The edges between the kept units; `edge_scores` are their scores."""
        kept = {site: self.kept_units[site] for site in self.inner_sites if site in self.kept_units}
        return Edges(kept, self.edge_scores, "stream" if self.settings.get("edges") == IN_STREAM else "chain")

    @cached_property
    def sites_without_effect(self) -> frozenset[str]:
        """Sites whose scores are all zero: which of their units are kept is arbitrary."""
        return frozenset(site for site in self.inner_sites if not self.node_scores[site].any())

    @cached_property
    def doubtful_sites(self) -> dict[str, str]:
        """Sites whose scores do not add up to the metric's change, or repeat another site's, with the reason."""
        return find_doubtful(self.node_scores, self.completeness, self.inner_sites)

    @checked
    def n_units(self, site: str) -> int:
        """Return how many units the activation of a site has, nodes and error units."""
        if site not in self.node_scores:
            raise InputError(f"{self.title} has no site {site!r}; its sites are {', '.join(self.sites)}.")
        return len(self.node_scores[site]) + len(self.error_scores.get(site, ()))

    def check_finite(self) -> None:
        """Raise an `InputError` for scores that are NaN or infinite: units cannot be ranked by them."""
        edges = {f"{up}->{down}": scores for (up, down), scores in self.edge_scores.items()}
        kinds = {"node": self.node_scores, "error": self.error_scores, "edge": edges}
        for kind, where, scores in ((kind, *one) for kind, places in kinds.items() for one in places.items()):
            if not np.isfinite(scores).all():
                raise InputError(
                    f"The {kind} scores of {self.title} at {where} are not all finite numbers: look for NaN or "
                    "infinite values in the metric, the text weights, the baseline and the images."
                )

    @checked
    def to_pandas(self, kind: Annotated[str, one_of("nodes", "edges", "sites")] = "nodes") -> pd.DataFrame:
        """Return the graph as a table.

        Args:
            kind: ``nodes``: site, unit, score, kept, one row per unit. ``edges``: upstream_site, upstream_unit,
                downstream_site, downstream_unit, score, one row per edge between kept units. ``sites``: site, units,
                kept, effect_sum, metric_difference, gap, gap_share, verdict, see `Completeness`.

        Raises:
            InputError: for another kind.
        """
        if kind == "edges":
            return self.edges.to_pandas()
        if kind == "sites":
            return sites_table(self.sites, self.node_scores, self.kept_units, self.completeness)
        return nodes_table(self.node_scores, self.kept_units)

    @checked
    def top(self, n: Count = 10, site: str | None = None) -> pd.DataFrame:
        """Return the n units with the largest absolute score: site, unit, score.

        Args:
            n: How many.
            site: Where (default: at all sites but the image and `doubtful_sites`, unless all are doubtful).

        Raises:
            InputError: for a site that is not there.
        """
        if site is not None:
            self.n_units(site)  # which refuses a name that it does not know
        trusted = [one for one in self.inner_sites if one not in self.doubtful_sites] or self.inner_sites
        table = self.to_pandas()
        table = table[table["site"].isin(trusted if site is None else [site])]
        order = np.argsort(-table["score"].abs().to_numpy(), kind="stable")[:n]
        return table.iloc[order][["site", "unit", "score"]].reset_index(drop=True)

    def __repr__(self) -> str:
        kept, units = (
            sum(len(by.get(site, ())) for site in self.inner_sites) for by in (self.kept_units, self.node_scores)
        )
        sites = len(self.inner_sites)
        return f"AttributionGraph of {self.title}: {sites} sites, {kept} of {units} units kept, {self._made}"

    @property
    def _made(self) -> str:
        made_by = {"node_rule": "rule", "baseline": "baseline", "metric": "metric"}
        facts = [f"{word} {self.settings[name]}" for name, word in made_by.items() if name in self.settings]
        return ", ".join([f"{self.n_images} images", *facts, *largest_gap(self.completeness)])

    @checked
    def circuit(self, edges_per_node: Count = 3, *, any_sign: bool = False) -> "Circuit":
        """Cut out the circuit: into every kept unit, the edges with the largest *signed* score; the study takes 3.

        A score of zero or less is no edge, even where others are too few, unless ``any_sign``, as in the study.
        """
        return Circuit(self, edges_per_node, any_sign)

    @checked
    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the graph as safetensors with a JSON header, whole or not at all; refuse scores that are not finite."""
        self.check_finite()
        write_graph(path, vars(self))

    @classmethod
    @checked
    def load(cls, path: str | os.PathLike[str]) -> "AttributionGraph":
        """Read a graph that `save` wrote.

        Raises:
            InputError: for a missing or damaged file, another format or version, wrong shapes, units that are not
                there, or scores that are not finite.
        """
        with naming_damage(path):
            graph = cls(**read_graph(path))
            graph.check_finite()
        return graph


@checked
@dataclass(frozen=True, eq=False, repr=False)
class Circuit:
    """A circuit: the kept units of an attribution graph and the strongest edges between them.

    Example:
        >>> circuit = graph.circuit(edges_per_node=3)
        >>> circuit.to_pandas("edges")    # upstream and downstream site and unit, score
        >>> circuit.graph                 # networkx.DiGraph with nodes site/unit
    """

    HOW_TO_GET: ClassVar = "cut one out of a graph with graph.circuit(3)"

    source: AttributionGraph
    """The graph that it is cut out of, with its kept units."""
    edges_per_node: Count
    """The most edges into a unit."""
    any_sign: bool = False
    """Whether edges may have a score of zero or less."""

    @cached_property
    def edges(self) -> Edges:
        """The strongest edges into every unit."""
        return self.source.edges.strongest(self.edges_per_node, any_sign=self.any_sign)

    @cached_property
    def edge_places(self) -> dict[tuple[str, str], tuple[np.ndarray, np.ndarray]]:
        """Rows and columns of the edges in the scores of each (upstream, downstream) pair of sites, row by row.

        They are those of `edges`, found without a copy of all scores.
        """
        return strongest_edges(self.source.edge_scores, self.edges_per_node, self.any_sign)

    @checked
    def to_pandas(self, kind: Annotated[str, one_of("nodes", "edges")] = "nodes") -> pd.DataFrame:
        """Return its units (site, unit, score) or its edges, as `AttributionGraph.to_pandas` names them."""
        if kind == "edges":
            return self.edges.to_pandas()
        nodes = self.source.to_pandas()
        kept = nodes[nodes["kept"] & nodes["site"].isin(self.source.inner_sites)]
        return kept[["site", "unit", "score"]].reset_index(drop=True)

    @cached_property
    def graph(self) -> nx.DiGraph:
        """Directed acyclic graph; nodes ``site/unit`` (site, unit, score), edges (weight)."""
        graph = self.edges.to_networkx()
        for _, node in graph.nodes(data=True):
            node["score"] = float(self.source.node_scores[node["site"]][node["unit"]])
        return graph

    @checked
    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the graph, as `AttributionGraph.save`, with how the circuit was cut out of it."""
        self.source.check_finite()
        write_graph(path, vars(self.source), {"edges_per_node": self.edges_per_node, "any_sign": self.any_sign})

    @classmethod
    @checked
    def load(cls, path: str | os.PathLike[str]) -> "Circuit":
        """Read a circuit that `save` wrote.

        Raises:
            InputError: as `AttributionGraph.load`, and for the file of a graph alone.
        """
        return cls(AttributionGraph.load(path), **read_cut(path))

    def __repr__(self) -> str:
        source = self.source
        units = sum(len(source.kept_units.get(site, ())) for site in source.inner_sites)
        edges = sum(len(rows) for rows, _ in self.edge_places.values())
        return (
            f"Circuit of {source.title}: {len(source.inner_sites)} sites, {units} units, {edges} edges (at most "
            f"{self.edges_per_node} into a unit), {source._made}"
        )
