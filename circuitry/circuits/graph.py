"""Scores of units, graphs of scored units and edges, and circuits that are selected by scores.

`Scores` holds the score of every unit by one method. An `AttributionGraph` also holds a selection of kept units, and
the scores of the edges between them. A `Circuit` is a selection of units, perhaps with edges between them, together
with the scores by which they were selected. So a graph or a circuit says which units are selected, and plain `Scores`
never do.

No model is needed here, so circuits can be studied on any laptop.

Does not import torch.
"""

import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from functools import cached_property
from typing import Annotated, Any, ClassVar

import networkx as nx
import numpy as np
import pandas as pd
from jaxtyping import Float, Int

from circuitry.circuits.budgets import RANKINGS, SAME_SHARE, BudgetName, strongest_units
from circuitry.circuits.completeness import Completeness, find_doubtful, largest_gap
from circuitry.circuits.graph_files import read_cut, read_graph, write_graph
from circuitry.circuits.graph_tables import nodes_table, sites_table
from circuitry.circuits.methods import SITE_PATH
from circuitry.encoder.sites import INPUT
from circuitry.gates.edges import Edges
from circuitry.runs.arguments import (
    DISTINCT,
    Count,
    Names,
    Seed,
    Share,
    checked,
    one_of,
)
from circuitry.runs.errors import InputError, naming_damage
from circuitry.runs.notebooks import Shown

PIXELS = "pixels"
"""Name of the entry of a graph's provenance with the sorted digests of the images that the graph was computed on; see
`circuits.found_on`."""


@checked
@dataclass(frozen=True, eq=False, repr=False)
class Scores(Shown):
    """Hold the scores of every unit by one method on one set of images, and the settings that they were computed with.

    Example:
        >>> scores = circuitry.find_circuit(task, size=0.1).source
        >>> scores.node_scores["layer3.0"].shape
        (192,)
        >>> scores.strongest(0.2).count > scores.strongest(0.1).count
        True
    """

    HOW_TO_GET: ClassVar = "give the source of a circuit (circuit.source), or a graph"

    sites: Annotated[tuple[str, ...], DISTINCT]
    """Sites in the order of the encoder."""
    node_scores: dict[str, Float[np.ndarray, " _"]]
    """Effect of each unit [units] by site, as a mean over images. A positive effect means that the unit helps: ablating
    it lowers the metric. In a feature basis the units are the latents."""
    completeness: dict[str, Completeness]
    """The sum of the effects and the metric's change, by site."""
    n_images: Count  #: Number of images that the scores are means over.
    class_name: str | None = None
    """Class of the images; None if it is unknown or if there are several classes."""
    domain: str | None = None
    """Domain of the images; None if it is unknown or if there are several domains."""
    settings: dict[str, Any] = field(default_factory=dict)
    """Settings of the computation, such as size, rules and baseline. Graphs can only be compared if they agree on
    them; see `comparable`."""
    provenance: dict[str, Any] = field(default_factory=dict)
    """Where the scores come from: digests of the images (`PIXELS`). Graphs in a folder also have the model's name, the
    paths of the images and the versions of the packages."""
    error_scores: dict[str, Float[np.ndarray, " _"]] = field(default_factory=dict)
    """Effects of the error units [error units], by site in a feature basis. Together they are the effect of the part of
    the activation that the latents do not reconstruct. Error units are not nodes of circuits."""
    importance: dict[str, Float[np.ndarray, " _"]] | None = None
    """Numbers [units] by site that units are ranked by, if the method does not rank them by their effects: for example
    squared changes of the answers, or gates of a mask. None if units are ranked by their effects."""

    def __post_init__(self) -> None:
        if differing := set(self.sites) ^ set(self.node_scores):
            raise InputError(
                f"A graph has node scores at each of its sites, and no others: look at {min(differing)}."
            )
        # Over the sites of both mappings, since either may lack a site.
        for site in self.node_scores | self.ranked_by:
            n = len(self.node_scores.get(site, ()))
            n_ranked = len(self.ranked_by.get(site, ()))
            if n_ranked != n:
                raise InputError(
                    f"The importance of the {n} units of {site} has {n_ranked} numbers: correct it."
                )

    @property
    def title(self) -> str:
        """Class and domain in words, for messages."""
        names = filter(None, (self.class_name, self.domain))
        return " in ".join(names) or "a graph without a name"

    @property
    def inner_sites(self) -> tuple[str, ...]:
        """Sites at which circuits can have nodes: all sites except for the image itself."""
        return tuple(site for site in self.sites if site != INPUT)

    @property
    def ranked_by(self) -> dict[str, np.ndarray]:
        """The numbers by which units are ranked: arrays [units] by site. The largest absolute number ranks first.

        These are the `importance` if there is one, otherwise the effects (`node_scores`).
        """
        return self.node_scores if self.importance is None else self.importance

    @cached_property
    def sites_without_effect(self) -> frozenset[str]:
        """Sites at which the numbers in `ranked_by` are all zero, so that the choice of the kept units is arbitrary."""
        ranked_by = self.ranked_by
        return frozenset(site for site in self.inner_sites if not ranked_by[site].any())

    @cached_property
    def doubtful_sites(self) -> dict[str, str]:
        """Sites with doubtful scores, each with the reason.

        Scores are doubtful if they do not add up to the metric's change, or repeat the scores of the site before.
        """
        return find_doubtful(self.node_scores, self.completeness, self.inner_sites)

    def n_units(self, site: str) -> int:
        """Return the number of units of a site's activation, error units included."""
        if site not in self.node_scores:
            raise InputError(
                f"{self.title} has no site {site!r}; its sites are {', '.join(self.sites)}."
            )
        return len(self.node_scores[site]) + len(self.error_scores.get(site, ()))

    def check_finite(self) -> None:
        """Raise `InputError` if any score is NaN or infinite, because units cannot be ranked by such scores."""
        self._check_finite("node", self.node_scores)
        self._check_finite("error", self.error_scores)
        self._check_finite("ranking", self.ranked_by)

    def _check_finite(self, kind: str, scores: Mapping[str, np.ndarray]) -> None:
        for where, numbers in scores.items():
            # NaN is sorted after all numbers, so its unit would silently never be kept.
            if not np.isfinite(numbers).all():
                raise InputError(
                    f"The {kind} scores of {self.title} at {where} are not all finite numbers: look for NaN or "
                    "infinite values in the metric, the text weights, the baseline and the images."
                )

    def to_pandas(self) -> pd.DataFrame:
        """Return a table with a row for each unit: columns site, unit, score."""
        return nodes_table(self.node_scores, {})[["site", "unit", "score"]]

    def shown_table(self) -> pd.DataFrame:
        """Return the ten units of `top`."""
        return self.top()

    @checked
    def top(self, n: Count = 10, site: str | None = None) -> pd.DataFrame:
        """Return a table of the ``n`` units with the largest absolute score: columns site, unit, score.

        Args:
            n: Number of units.
            site: The site to choose from. Default: all sites except for the image and the `doubtful_sites`; if all
                sites are doubtful, all sites except for the image.
        """
        if site is not None:
            self.n_units(site)  # raises an error if there is no such site
            sites = [site]
        else:
            # Scores that do not add up may be large for no reason, and would crowd out the scores of other sites.
            doubtful = self.doubtful_sites
            trusted = [name for name in self.inner_sites if name not in doubtful]
            sites = trusted or list(self.inner_sites)
        table = nodes_table(self.node_scores, {})
        table = table[table["site"].isin(sites)]
        # A stable sort keeps equal scores in the order of sites and units on any machine.
        order = np.argsort(-table["score"].abs().to_numpy(), kind="stable")[:n]
        return table.iloc[order][["site", "unit", "score"]].reset_index(drop=True)

    def strongest(
        self,
        size: Share,
        ranking: Annotated[str, one_of(*RANKINGS)] = "absolute",
        budget: BudgetName = SAME_SHARE,
        sites: Names | None = None,
    ) -> "Circuit":
        """Return the circuit of the strongest units; the budget says how many units each site keeps.

        Args:
            size: Share of the units to keep, in (0, 1].
            ranking: How the numbers in `ranked_by` order the units. ``absolute``: the largest absolute numbers come
                first. ``signed``: the largest numbers come first.
            budget: How the size is shared out over the sites, see `circuitry.circuits.budgets`.
            sites: Sites of the circuit (default: all except for `input`).
        """
        if missing := [site for site in sites or () if site not in self.inner_sites]:
            raise no_circuit_at(missing, self.inner_sites)
        ranked_by = {site: self.ranked_by[site] for site in sites or self.inner_sites}
        if ranking == "signed":
            # Shifted so that no number is negative. Then the units that help most have the largest absolute numbers.
            least = min(of_site.min() for of_site in ranked_by.values())
            ranked_by = {site: of_site - least for site, of_site in ranked_by.items()}
        units = strongest_units(ranked_by, size, budget)
        made_with = {"size": size, "ranking": ranking, "budget": budget}
        return Circuit(self, units, made_with=made_with)

    def keeping(
        self,
        kept_units: Mapping[str, np.ndarray],
        edge_scores: Mapping[tuple[str, str], np.ndarray] = {},
    ) -> "AttributionGraph":
        """Return a graph of these scores that keeps the given units and has the given scores of edges between them."""
        # Only the fields of Scores: this object may already be a graph that keeps other units.
        scores = {entry.name: getattr(self, entry.name) for entry in fields(Scores)}
        return AttributionGraph(
            **scores, kept_units=dict(kept_units), edge_scores=dict(edge_scores)
        )

    def __repr__(self) -> str:
        sites = self.inner_sites
        n_units = self._n_nodes(sites)
        return (
            f"Scores of {self.title}: {len(sites)} sites, {n_units} units, {self._made}"
        )

    def _n_nodes(self, sites: Iterable[str]) -> int:
        return sum(len(self.node_scores[site]) for site in sites)

    @property
    def _made(self) -> str:
        """How the scores were made, in a few words."""
        # For the study's method its rule says more than its name. Any other method is named, even if it takes a rule.
        by_path = self.settings.get("method", SITE_PATH) == SITE_PATH
        facts = [f"{self.n_images} images"]
        for name in ("node_rule" if by_path else "method", "baseline", "metric"):
            if name in self.settings:
                word = name.removeprefix("node_")
                facts.append(f"{word} {self.settings[name]}")
        return ", ".join([*facts, *largest_gap(self.completeness)])


@checked
@dataclass(frozen=True, eq=False, repr=False)
class AttributionGraph(Scores):
    """Hold the scores of all units, the kept units, and scores of the edges between kept units.

    Example:
        >>> graph
        AttributionGraph of ... sites, ... units kept, 4 images, ...
        >>> strongest = graph.top(5)  # as a table
        >>> drawn = graph.circuit(edges_per_node=3).graph  # networkx.DiGraph
    """

    HOW_TO_GET: ClassVar = (
        "give one of a folder (graphs[class, domain]), or what attribute returns"
    )

    kept_units: dict[str, Int[np.ndarray, " _"]] = field(
        default_factory=dict, kw_only=True
    )
    """Indices [kept] of the kept units by site, the strongest first."""
    edge_scores: dict[tuple[str, str], Float[np.ndarray, "_ _"]] = field(
        default_factory=dict, kw_only=True
    )
    """Scores of the edges [kept downstream, kept upstream] by (upstream, downstream) pair of sites, as means over
    images. The two sites of a pair are consecutive, or a residual stream joins them; see `edge_methods`. The scores
    rank edges. They do not measure what the metric loses when an edge is cut."""

    def __post_init__(self) -> None:
        super().__post_init__()
        for site, units in self.kept_units.items():
            n = len(self.node_scores.get(site, ()))
            if not _are_units(units, n):
                raise InputError(
                    f"The kept units of {site} are not among its {n} units, each once: correct them."
                )
        for (up, down), scores in self.edge_scores.items():
            expected = [len(self.kept_units.get(site, ())) for site in (down, up)]
            if list(scores.shape) != expected:
                raise InputError(
                    f"The edge scores {up}->{down} have shape {list(scores.shape)}, but the kept units say {expected}: "
                    "correct them."
                )

    @cached_property
    def edges(self) -> Edges:
        """The edges between the kept units, with the scores in `edge_scores`."""
        # In the order of the sites, because files and tables of edges follow this order.
        kept = self.kept_units
        units = {site: kept[site] for site in self.inner_sites if site in kept}
        return Edges(units, self.edge_scores)

    def among(self, units: Mapping[str, np.ndarray]) -> "AttributionGraph":
        """Return the graph that keeps only the given units, with the scores of the edges between them.

        The score of an edge does not depend on the other kept units, so it needs no run of the model.

        Args:
            units: Indices of units by site. A site that is not given keeps no unit.

        Example:
            >>> fewer = graph.among(graph.strongest(0.1).units)
            >>> fewer.edges.count < graph.edges.count
            True
        """
        given = {site: units.get(site, ()) for site in self.kept_units}
        edges = self.edges.among(given)
        return self.keeping(edges.units, edges.scores)

    def check_finite(self) -> None:
        """Raise `InputError` if any score of a unit or an edge is NaN or infinite."""
        super().check_finite()
        by_name = {"->".join(pair): block for pair, block in self.edge_scores.items()}
        self._check_finite("edge", by_name)

    @checked
    def to_pandas(
        self, kind: Annotated[str, one_of("nodes", "edges", "sites")] = "nodes"
    ) -> pd.DataFrame:
        """Return the graph as a table.

        Args:
            kind: ``nodes``: one row per unit with the columns site, unit, score, kept. ``edges``: one row per edge
                between kept units with the columns upstream_site, upstream_unit, downstream_site, downstream_unit,
                score. ``sites``: one row per site with the columns site, units (number of units), kept (number of kept
                units), effect_sum, metric_difference, gap, gap_share, verdict; see `Completeness`.
        """
        if kind == "edges":
            return self.edges.to_pandas()
        if kind == "sites":
            return sites_table(
                self.sites, self.node_scores, self.kept_units, self.completeness
            )
        return nodes_table(self.node_scores, self.kept_units)

    def __repr__(self) -> str:
        sites = self.inner_sites
        n_kept = sum(len(self.kept_units.get(site, ())) for site in sites)
        return (
            f"AttributionGraph of {self.title}: {len(sites)} sites, {n_kept} of {self._n_nodes(sites)} units kept, "
            f"{self._made}"
        )

    @checked
    def circuit(
        self, edges_per_node: Count | None = 3, *, any_sign: bool = False
    ) -> "Circuit":
        """Return the circuit of the kept units, with the edges into each unit that have the largest *signed* scores.

        Args:
            edges_per_node: Largest number of edges into a unit; 3 in the study. If None, the circuit consists of units
                without edges.
            any_sign: If True, as in the study, a unit with fewer than ``edges_per_node`` positive edges also gets edges
                with a score of zero or less.
        """
        if edges_per_node is None:
            return Circuit(self, self.edges.units)
        edges = self.edges.strongest(edges_per_node, any_sign=any_sign)
        cut = {"edges_per_node": edges_per_node, "any_sign": any_sign}
        return Circuit(self, edges.units, edges, cut)

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the graph to a safetensors file with a JSON header.

        The file is written completely or not at all. Raise `InputError` if a score is not finite.
        """
        self.check_finite()
        write_graph(path, vars(self))

    @classmethod
    @checked
    def load(cls, path: str | os.PathLike[str]) -> "AttributionGraph":
        """Read a graph that `save` wrote; raise `InputError` if the file is damaged or a score is not finite."""
        with naming_damage(path):
            stored = read_graph(path)
            if "kept_units" not in stored:
                raise InputError(
                    f"{path} holds a circuit and no graph: read it with Circuit.load(path)."
                )
            graph = cls(**stored)
            graph.check_finite()
        return graph


@checked
@dataclass(frozen=True, eq=False, repr=False)
class Circuit(Shown):
    """A selection of units of an encoder, and perhaps of edges between them, made by any method.

    Example:
        >>> circuit = graph.circuit(edges_per_node=3)    # or graph.strongest(0.1), or what find_circuit returns
        >>> list(circuit.to_pandas("edges").columns)
        ['upstream_site', 'upstream_unit', 'downstream_site', 'downstream_unit', 'score']
        >>> circuit.graph
        <networkx.classes.digraph.DiGraph object at ...>
    """

    HOW_TO_GET: ClassVar = "cut one out of a graph with graph.circuit(3), or take what find_circuit returns"

    source: Scores
    """Scores of all units, and the settings that they were computed with. If the circuit was cut out of a graph, this
    is the graph."""
    units: Mapping[str, Int[np.ndarray, " _"]]
    """Indices of the circuit's units by site. When the circuit is run, nothing is ablated at other sites."""
    edges: Edges | None = None
    """Edges between the circuit's units. None for a circuit of units without edges: then its units act through all
    edges."""
    made_with: dict[str, Any] = field(default_factory=dict)
    """How the units were selected by the scores, such as size and budget, in plain values."""
    keep_error: bool = False
    """Whether runs of the circuit keep the error units of sites in a feature basis. For a circuit of edges: whether
    they keep the edges from and into error units."""

    def __post_init__(self) -> None:
        source = self.source
        if missing := [site for site in self.units if site not in source.node_scores]:
            raise no_circuit_at(missing, source.inner_sites)
        # A graph has already checked its kept units. The same arrays are not checked again, because many circuits may
        # be cut out of one graph.
        known = source.kept_units if isinstance(source, AttributionGraph) else {}
        for site, units in self.units.items():
            n = len(source.node_scores[site])
            if units is not known.get(site) and not _are_units(units, n):
                raise InputError(
                    f"Site {site!r} has units 0 to {n - 1}, each once, but a circuit has others there: correct it."
                )
        of_edges = {} if self.edges is None else self.edges.units
        for site, units in of_edges.items():
            own = self.units.get(site, ())
            if units is not own and not np.array_equal(units, own):
                raise InputError(
                    "The edges of a circuit run between its units, but others were given: see Edges.among."
                )

    @property
    def count(self) -> int:
        """Number of edges, or number of units if the circuit has no edges (``edges`` is None)."""
        if self.edges is None:
            return sum(map(len, self.units.values()))
        return self.edges.count

    @property
    def size(self) -> float:
        """The number of the circuit's units, as a share of all units at its sites.

        For a circuit of edges it is the number of its edges, as a share of all possible edges between the same pairs of
        sites. Edges of error units count among the possible edges.
        """
        source = self.source
        if self.edges is None:
            return self.count / source._n_nodes(self.units)
        n_edges = 0
        for up, down in self.edges.scores:
            n_edges += source.n_units(up) * source.n_units(down)
        return self.count / n_edges

    @property
    def its_edges(self) -> Edges:
        """The circuit's edges; an empty set of edges if ``edges`` is None."""
        return Edges(self.units, {}) if self.edges is None else self.edges

    @property
    def scored_edges(self) -> Edges:
        """All edges with scores: the edges of the source if it is a graph, otherwise the circuit's own edges."""
        source = self.source
        return source.edges if isinstance(source, AttributionGraph) else self.its_edges

    def at(self, sites: Names) -> "Circuit":
        """Return the part of the circuit at the given sites: their units, and the edges between these units."""
        if missing := [site for site in sites if site not in self.units]:
            raise no_circuit_at(missing, tuple(self.units))
        units = {site: self.units[site] for site in sites}
        edges = None if self.edges is None else self.edges.among(units)
        return replace(self, units=units, edges=edges)

    def nothing(self) -> "Circuit":
        """Return the empty circuit at the same sites: a run of it ablates all units, or cuts all edges, at these sites.

        A circuit of units loses all units. A circuit of edges loses all edges, but keeps its units as possible ends of
        edges. Error units are not kept.
        """
        # A circuit of edges keeps its units, because they are the possible ends of edges.
        if self.edges is not None:
            return replace(self, edges=self.edges.without(self.edges), keep_error=False)
        none = {site: units[:0] for site, units in self.units.items()}
        return replace(self, units=none, keep_error=False)

    def complement(self) -> "Circuit":
        """Return the circuit of all other units at the same sites.

        For a circuit of edges, return the circuit of all other edges that can join units of the same pairs of sites.
        Runs of the complement keep error units if runs of this circuit do not.
        """
        n_units = {site: len(self.source.node_scores[site]) for site in self.units}
        every = {site: np.arange(n) for site, n in n_units.items()}
        made_with = {"complement_of": self.made_with}
        if self.edges is None:
            units = {}
            for site, own in self.units.items():
                units[site] = np.setdiff1d(every[site], own)
            return Circuit(self.source, units, None, made_with, not self.keep_error)
        scores = dict[tuple[str, str], np.ndarray]()
        for pair, own_edges in self.edges.masks(n_units).items():
            # NaN marks that there is no edge. All other edges have no score, so they get 0.
            scores[pair] = np.where(own_edges, np.float32(np.nan), np.float32(0))
        edges = replace(self.edges, units=every, scores=scores)
        return Circuit(self.source, every, edges, made_with, not self.keep_error)

    def random(self, seed: Seed | np.random.Generator = 0) -> "Circuit":
        """Return a random circuit with as many units at every site as this circuit.

        For a circuit of edges, return a circuit with as many random edges; see `Edges.random`.
        """
        rng = np.random.default_rng(seed)
        made_with = {"random_like": self.made_with}
        if self.edges is not None:
            return replace(self, edges=self.edges.random(rng), made_with=made_with)
        units = {}
        for site, own in self.units.items():
            order = rng.permutation(len(self.source.node_scores[site]))
            units[site] = order[: len(own)]
        return replace(self, units=units, made_with=made_with)

    def without_each(self) -> "Iterator[Circuit]":
        """Yield the circuit without one of its edges, for each edge in turn.

        If the circuit has no edges (``edges`` is None), yield the circuit without one of its units, for each unit in
        turn.
        """
        if self.edges is not None:
            for remaining in self.edges.without_each():
                yield replace(self, edges=remaining)
            return
        for site, units in self.units.items():
            for i in range(len(units)):
                yield replace(self, units={**self.units, site: np.delete(units, i)})

    def to_pandas(
        self, kind: Annotated[str, one_of("nodes", "edges")] = "nodes"
    ) -> pd.DataFrame:
        """Return a table of the circuit's units or edges.

        Args:
            kind: ``nodes``: one row per unit with the columns site, unit, score. ``edges``: one row per edge with the
                columns that `AttributionGraph.to_pandas` has.
        """
        if kind == "edges":
            return self.its_edges.to_pandas()
        scores = {site: self.source.node_scores[site] for site in self.units}
        nodes = nodes_table(scores, self.units)
        return nodes[nodes["kept"]][["site", "unit", "score"]].reset_index(drop=True)

    def shown_table(self) -> pd.DataFrame:
        """Return the ten units of `top`."""
        return self.top()

    @checked
    def top(self, n: Count = 10) -> pd.DataFrame:
        """Return a table of the ``n`` units with the largest absolute effect: columns site, unit, effect.

        Example:
            >>> circuit.top(3)["effect"].abs().is_monotonic_decreasing
            True
        """
        units = self.to_pandas().rename(columns={"score": "effect"})
        # A stable sort keeps units with equal effects in the order of sites and units.
        ranked = units.sort_values("effect", key=abs, ascending=False, kind="stable")
        return ranked.head(n).reset_index(drop=True)

    @cached_property
    def graph(self) -> nx.DiGraph:
        """The circuit as a directed acyclic graph of networkx.

        Nodes are named ``site/unit`` and have the attributes site, unit and score; edges have the attribute weight. The
        graph has the attributes class, domain and model, which are ``unknown`` if the scores do not name them. A model
        without a name has the digest of its weights.
        """
        graph = self.its_edges.to_networkx()
        source = self.source
        weights = source.settings.get("weights", "unknown")
        graph.graph["class"] = source.class_name or "unknown"
        graph.graph["domain"] = source.domain or "unknown"
        graph.graph["model"] = source.provenance.get("model", weights)
        for _, node in graph.nodes(data=True):
            node["score"] = float(self.source.node_scores[node["site"]][node["unit"]])
        return graph

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the circuit and its source to a file; see `AttributionGraph.save`."""
        self.source.check_finite()
        write_graph(path, vars(self.source), vars(self))

    @classmethod
    @checked
    def load(cls, path: str | os.PathLike[str]) -> "Circuit":
        """Read a circuit that `save` wrote; raise `InputError` if the file holds a graph without a circuit."""
        with naming_damage(path):
            stored = read_graph(path)
            is_graph = "kept_units" in stored
            source = AttributionGraph(**stored) if is_graph else Scores(**stored)
            source.check_finite()
            return cls(source, **read_cut(path))

    def __repr__(self) -> str:
        n_units = sum(map(len, self.units.values()))
        facts = f"{len(self.units)} sites, {n_units} units"
        if self.edges is not None:
            facts += f", {self.edges.count} edges"
        cut = self.made_with.get("edges_per_node")
        if cut is not None:
            facts += f" (at most {cut} into a unit)"
        return f"Circuit of {self.source.title}: {facts}, {self.source._made}"


def no_circuit_at(missing: Sequence[str], sites: Sequence[str]) -> InputError:
    """Return the error for sites at which a graph or a circuit has no units.

    Args:
        missing: The sites without units.
        sites: The sites that have units, for the message.
    """
    return InputError(
        f"There are no circuit units at {', '.join(missing)}; the sites are {', '.join(sites)}."
    )


def _are_units(units: np.ndarray, n: int) -> bool:
    """Return whether the array holds distinct unit indices, each from 0 to n - 1."""
    # An empty array has no minimum.
    if not len(units):
        return True
    return bool(0 <= units.min() <= units.max() < n and np.bincount(units).max() == 1)
