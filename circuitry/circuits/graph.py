"""Results of attribution: `AttributionGraph` stores the scores, `Circuit` the units and edges chosen by them.

No torch and no model: circuits are studied on any laptop.
"""

import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
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
from circuitry.circuits.methods import METHODS, SITE_PATH
from circuitry.encoder.sites import INPUT
from circuitry.gates.edges import Edges
from circuitry.runs.errors import InputError, naming_damage
from circuitry.runs.given import DISTINCT, Count, Names, Seed, Share, checked, one_of

PIXELS = "pixels"
"""Entry of a graph's provenance: sorted digests of the images that it was made of, see `circuits.found_on`."""


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

    HOW_TO_GET: ClassVar = "give the source of a circuit (circuit.source), or one of a folder (graphs[class, domain])"

    sites: Annotated[tuple[str, ...], DISTINCT]
    """Sites in order."""
    node_scores: dict[str, Float[np.ndarray, " _"]]
    """Effect [units] by site, mean over images; positive means that the unit helps: ablating it lowers the metric. In a
    feature basis the units are the latents."""
    kept_units: dict[str, Int[np.ndarray, " _"]]
    """Indices [k] of the kept units by site, the strongest first."""
    edge_scores: dict[tuple[str, str], Float[np.ndarray, "_ _"]]
    """Scores [kept downstream, kept upstream], means over images, by (upstream, downstream) pair of sites: consecutive
    ones, and those that a stream joins; see `edge_methods`. They rank edges and do not measure cuts."""
    completeness: dict[str, Completeness]
    """Sum of effects and metric difference by site."""
    n_images: Count  #: Images that scores are means over.
    class_name: str | None = None
    """What the images show, where one class was asked for."""
    domain: str | None = None  #: Their style, where it is one.
    settings: dict[str, Any] = field(default_factory=dict)
    """Settings of the computation: size, rules, baseline; compared graphs must agree on them, see `comparable`."""
    provenance: dict[str, Any] = field(default_factory=dict)
    """Versions, model digest and seed of the run that made it."""
    error_scores: dict[str, Float[np.ndarray, " _"]] = field(default_factory=dict)
    """For sites in a feature basis, the effects of the error units, which follow the latents; they sum to the effect
    of all that the latents miss. They are no nodes of circuits."""
    importance: dict[str, Float[np.ndarray, " _"]] | None = None
    """What a method ranked the units by [units], by site, where that is not their effects: squared changes of answers,
    or gates of a mask. None where they are ranked by their effects."""

    def __post_init__(self) -> None:
        if differing := set(self.sites) ^ set(self.node_scores):
            raise InputError(
                f"A graph has node scores at each of its sites, and no others: look at {min(differing)}."
            )
        for site in self.node_scores | self.ranked_by:
            n, ranked = (
                len(by.get(site, ())) for by in (self.node_scores, self.ranked_by)
            )
            if ranked != n:
                raise InputError(
                    f"The importance of the {n} units of {site} has {ranked} numbers: correct it."
                )
        for site, kept in self.kept_units.items():
            n = len(self.node_scores[site]) if site in self.node_scores else 0
            if len(kept) and not (
                0 <= kept.min() <= kept.max() < n and np.bincount(kept).max() == 1
            ):
                raise InputError(
                    f"The kept units of {site} are not among its {n} units, each once: correct them."
                )
        for (up, down), scores in self.edge_scores.items():
            expected = [
                len(self.kept_units[site]) if site in self.kept_units else 0
                for site in (down, up)
            ]
            if list(scores.shape) != expected:
                raise InputError(
                    f"The edge scores {up}->{down} have shape {list(scores.shape)}, but the kept units say {expected}: "
                    "correct them."
                )

    @property
    def title(self) -> str:
        """Class and domain, for messages."""
        return (
            " in ".join(filter(None, (self.class_name, self.domain)))
            or "a graph without a name"
        )

    @property
    def inner_sites(self) -> tuple[str, ...]:
        """Sites that circuits have nodes at: all but the image itself."""
        return tuple(site for site in self.sites if site != INPUT)

    @cached_property
    def edges(self) -> Edges:
        """The edges between the kept units; `edge_scores` are their scores."""
        kept = {
            site: self.kept_units[site]
            for site in self.inner_sites
            if site in self.kept_units
        }
        return Edges(kept, self.edge_scores)

    @property
    def ranked_by(self) -> dict[str, np.ndarray]:
        """What units are chosen by, the largest absolute value first: `importance`, or else their effects."""
        return self.node_scores if self.importance is None else self.importance

    @cached_property
    def sites_without_effect(self) -> frozenset[str]:
        """Sites whose units all rank alike, with zero: which of them are kept is arbitrary."""
        return frozenset(
            site for site in self.inner_sites if not self.ranked_by[site].any()
        )

    @cached_property
    def doubtful_sites(self) -> dict[str, str]:
        """Sites whose scores do not add up to the metric's change, or repeat another site's, with the reason."""
        return find_doubtful(self.node_scores, self.completeness, self.inner_sites)

    def n_units(self, site: str) -> int:
        """Return how many units the activation of a site has, nodes and error units."""
        if site not in self.node_scores:
            raise InputError(
                f"{self.title} has no site {site!r}; its sites are {', '.join(self.sites)}."
            )
        return len(self.node_scores[site]) + len(self.error_scores.get(site, ()))

    def check_finite(self) -> None:
        """Raise an `InputError` for scores that are NaN or infinite: units cannot be ranked by them."""
        edges = {
            f"{up}->{down}": scores for (up, down), scores in self.edge_scores.items()
        }
        kinds = {
            "node": self.node_scores,
            "error": self.error_scores,
            "edge": edges,
            "ranking": self.ranked_by,
        }
        for kind, where, scores in (
            (kind, *one) for kind, places in kinds.items() for one in places.items()
        ):
            if not np.isfinite(scores).all():
                raise InputError(
                    f"The {kind} scores of {self.title} at {where} are not all finite numbers: look for NaN or "
                    "infinite values in the metric, the text weights, the baseline and the images."
                )

    @checked
    def to_pandas(
        self, kind: Annotated[str, one_of("nodes", "edges", "sites")] = "nodes"
    ) -> pd.DataFrame:
        """Return the graph as a table.

        Args:
            kind: ``nodes``: site, unit, score, kept, one row per unit. ``edges``: upstream_site, upstream_unit,
                downstream_site, downstream_unit, score, one row per edge between kept units. ``sites``: site, units,
                kept, effect_sum, metric_difference, gap, gap_share, verdict, see `Completeness`.
        """
        if kind == "edges":
            return self.edges.to_pandas()
        if kind == "sites":
            return sites_table(
                self.sites, self.node_scores, self.kept_units, self.completeness
            )
        return nodes_table(self.node_scores, self.kept_units)

    @checked
    def top(self, n: Count = 10, site: str | None = None) -> pd.DataFrame:
        """Return the n units with the largest absolute score: site, unit, score.

        Args:
            site: Where (default: at all sites but the image and `doubtful_sites`, unless all are doubtful).
        """
        if site is not None:
            self.n_units(site)  # which refuses a name that it does not know
        trusted = [
            one for one in self.inner_sites if one not in self.doubtful_sites
        ] or self.inner_sites
        table = self.to_pandas()
        table = table[table["site"].isin(trusted if site is None else [site])]
        order = np.argsort(-table["score"].abs().to_numpy(), kind="stable")[:n]
        return table.iloc[order][["site", "unit", "score"]].reset_index(drop=True)

    def __repr__(self) -> str:
        sites = self.inner_sites
        kept, units = (
            sum(len(by.get(s, ())) for s in sites)
            for by in (self.kept_units, self.node_scores)
        )
        return f"AttributionGraph of {self.title}: {len(sites)} sites, {kept} of {units} units kept, {self._made}"

    @property
    def _made(self) -> str:
        method = METHODS.get(self.settings.get("method", SITE_PATH))
        made_by = {"method": "method", "baseline": "baseline", "metric": "metric"}
        if method is not None and method.takes_rule:
            made_by = {"node_rule": "rule", "baseline": "baseline", "metric": "metric"}
        facts = [
            f"{word} {self.settings[name]}"
            for name, word in made_by.items()
            if name in self.settings
        ]
        return ", ".join(
            [f"{self.n_images} images", *facts, *largest_gap(self.completeness)]
        )

    @checked
    def circuit(
        self, edges_per_node: Count | None = 3, *, any_sign: bool = False
    ) -> "Circuit":
        """Cut out the circuit: into every kept unit, the edges with the largest *signed* score; the study takes 3.

        A score of zero or less is no edge, even where others are too few, unless ``any_sign``, as in the study. With
        None in place of a number the kept units alone are the circuit.
        """
        if edges_per_node is None:
            return Circuit(self, self.edges.units)
        edges = self.edges.strongest(edges_per_node, any_sign=any_sign)
        return Circuit(
            self,
            edges.units,
            edges,
            {"edges_per_node": edges_per_node, "any_sign": any_sign},
        )

    def strongest(
        self,
        size: Share,
        ranking: Annotated[str, one_of(*RANKINGS)] = "absolute",
        budget: BudgetName = SAME_SHARE,
        sites: Names | None = None,
    ) -> "Circuit":
        """Return the circuit of the first units of the sites, as many as a budget gives each.

        Args:
            size: Share of the units, in (0, 1].
            budget: How the size is shared out over the sites, see `circuitry.circuits.budgets`.
            sites: Sites of the circuit (default: all but `input`).
        """
        if missing := [site for site in sites or () if site not in self.inner_sites]:
            raise no_circuit_at(missing, self.inner_sites)
        scores = {site: self.ranked_by[site] for site in sites or self.inner_sites}
        if (
            ranking == "signed"
        ):  # none is negative then, so that the largest are those that help most
            least = min(of_site.min() for of_site in scores.values())
            scores = {site: of_site - least for site, of_site in scores.items()}
        made_with = {"size": size, "ranking": ranking, "budget": budget}
        return Circuit(self, strongest_units(scores, size, budget), made_with=made_with)

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the graph as safetensors with a JSON header, whole or not at all; refuse scores that are not finite."""
        self.check_finite()
        write_graph(path, vars(self))

    @classmethod
    @checked
    def load(cls, path: str | os.PathLike[str]) -> "AttributionGraph":
        """Read a graph that `save` wrote; refuse a damaged file, and scores that are not finite."""
        with naming_damage(path):
            graph = cls(**read_graph(path))
            graph.check_finite()
        return graph


@checked
@dataclass(frozen=True, eq=False, repr=False)
class Circuit:
    """Some units of an encoder, and perhaps some of the edges between them, whatever chose them.

    Example:
        >>> circuit = graph.circuit(edges_per_node=3)    # or graph.strongest(0.1), or what find_circuit returns
        >>> circuit.to_pandas("edges")    # upstream and downstream site and unit, score
        >>> circuit.graph                 # networkx.DiGraph with nodes site/unit
        >>> curve = measure_circuits(task, [circuit])    # beside its complement and random circuits
    """

    HOW_TO_GET: ClassVar = "cut one out of a graph with graph.circuit(3), or take what find_circuit returns"

    source: AttributionGraph
    """Scores of all units, and what made them."""
    units: Mapping[str, Int[np.ndarray, " _"]]
    """Numbers of its units by site; a site that is not there is left alone."""
    edges: Edges | None = None
    """Edges between its units; None for units alone, which act through every edge."""
    made_with: dict[str, Any] = field(default_factory=dict)
    """How it was chosen by the scores, in plain values."""
    keep_error: bool = False
    """Whether runs keep the error units of sites in a feature basis, or the edges from and into them."""

    def __post_init__(self) -> None:
        if missing := [
            site for site in self.units if site not in self.source.node_scores
        ]:
            raise no_circuit_at(missing, self.source.inner_sites)
        for site, units in self.units.items():
            n, known = (
                len(self.source.node_scores[site]),
                units is self.source.kept_units.get(site),
            )
            if (
                not known
                and len(units)
                and not (
                    0 <= units.min() <= units.max() < n
                    and np.bincount(units).max() == 1
                )
            ):
                raise InputError(
                    f"Site {site!r} has units 0 to {n - 1}, each once, but a circuit has others there: correct it."
                )
        edges = self.edges
        if edges is not None and not all(
            units is self.units.get(site)
            or np.array_equal(units, self.units.get(site, ()))
            for site, units in edges.units.items()
        ):
            raise InputError(
                "The edges of a circuit run between its units, but others were given: see Edges.among."
            )

    @property
    def count(self) -> int:
        """Number of its edges, of units alone that of the units."""
        return (
            sum(map(len, self.units.values()))
            if self.edges is None
            else self.edges.count
        )

    @property
    def size(self) -> float:
        """Share of the units at its sites, or of the edges between all of them, error units included."""
        if self.edges is None:
            return self.count / sum(
                len(self.source.node_scores[site]) for site in self.units
            )
        return self.count / sum(
            self.source.n_units(up) * self.source.n_units(down)
            for up, down in self.edges.scores
        )

    @property
    def its_edges(self) -> Edges:
        """Its edges; none between its units where it has units alone."""
        return Edges(self.units, {}) if self.edges is None else self.edges

    def at(self, sites: Names) -> "Circuit":
        """Return its part at some sites."""
        if missing := [site for site in sites if site not in self.units]:
            raise no_circuit_at(missing, tuple(self.units))
        units = {site: self.units[site] for site in sites}
        return replace(
            self,
            units=units,
            edges=None if self.edges is None else self.edges.among(units),
        )

    def nothing(self) -> "Circuit":
        """Return the circuit without any unit, or edge, at the same sites; its complement is everything there."""
        if self.edges is None:
            return replace(
                self,
                units={s: units[:0] for s, units in self.units.items()},
                keep_error=False,
            )
        return replace(self, edges=self.edges.without(self.edges), keep_error=False)

    def complement(self) -> "Circuit":
        """Return all other units at the same sites, or all other edges between all units there."""
        n_units = {site: len(self.source.node_scores[site]) for site in self.units}
        made_with = {"complement_of": self.made_with}
        if self.edges is None:
            units = {
                site: np.setdiff1d(np.arange(n), self.units[site])
                for site, n in n_units.items()
            }
            return Circuit(self.source, units, None, made_with, not self.keep_error)
        units = {site: np.arange(n) for site, n in n_units.items()}
        nothing, something = np.float32(np.nan), np.float32(0)
        scores = {
            pair: np.where(mask, nothing, something)
            for pair, mask in self.edges.masks(n_units).items()
        }
        return Circuit(
            self.source,
            units,
            replace(self.edges, units=units, scores=scores),
            made_with,
            not self.keep_error,
        )

    def random(self, seed: Seed | np.random.Generator = 0) -> "Circuit":
        """Return a random circuit with as many units at every site, or as many edges; see `Edges.random`."""
        rng, made_with = np.random.default_rng(seed), {"random_like": self.made_with}
        if self.edges is not None:
            return replace(self, edges=self.edges.random(rng), made_with=made_with)
        orders = {
            site: rng.permutation(len(self.source.node_scores[site]))
            for site in self.units
        }
        return replace(
            self,
            units={s: orders[s][: len(units)] for s, units in self.units.items()},
            made_with=made_with,
        )

    def without_each(self) -> "Iterator[Circuit]":
        """Yield the circuit without each of its edges in turn, of units alone without each unit."""
        if self.edges is not None:
            yield from (replace(self, edges=left) for left in self.edges.without_each())
            return
        for site, units in self.units.items():
            for i in range(len(units)):
                yield replace(self, units={**self.units, site: np.delete(units, i)})

    def to_pandas(
        self, kind: Annotated[str, one_of("nodes", "edges")] = "nodes"
    ) -> pd.DataFrame:
        """Return its units (site, unit, score) or its edges, as `AttributionGraph.to_pandas` names them."""
        if kind == "edges":
            return self.its_edges.to_pandas()
        nodes = nodes_table(
            {site: self.source.node_scores[site] for site in self.units}, self.units
        )
        return nodes[nodes["kept"]][["site", "unit", "score"]].reset_index(drop=True)

    @cached_property
    def graph(self) -> nx.DiGraph:
        """Directed acyclic graph; nodes ``site/unit`` (site, unit, score), edges (weight)."""
        graph = self.its_edges.to_networkx()
        for _, node in graph.nodes(data=True):
            node["score"] = float(self.source.node_scores[node["site"]][node["unit"]])
        return graph

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the circuit and its source, as `AttributionGraph.save`."""
        self.source.check_finite()
        write_graph(path, vars(self.source), vars(self))

    @classmethod
    @checked
    def load(cls, path: str | os.PathLike[str]) -> "Circuit":
        """Read a circuit that `save` wrote; refuse the file of a graph alone."""
        source = AttributionGraph.load(path)
        with naming_damage(path):
            return cls(source, **read_cut(path))

    def __repr__(self) -> str:
        units, cut = (
            sum(map(len, self.units.values())),
            self.made_with.get("edges_per_node"),
        )
        edges = "" if self.edges is None else f", {self.edges.count} edges"
        edges += "" if cut is None else f" (at most {cut} into a unit)"
        return f"Circuit of {self.source.title}: {len(self.units)} sites, {units} units{edges}, {self.source._made}"


def no_circuit_at(missing: Sequence[str], sites: Sequence[str]) -> InputError:
    """Return the error for sites at which a graph, or a circuit, has no units."""
    return InputError(
        f"There are no circuit units at {', '.join(missing)}; the sites are {', '.join(sites)}."
    )
