"""Are the circuits of a class the same in two domains? Sets of graphs are compared class by class.

- `compare` compares every pair of domains of every class by one measure, and returns a tidy table.
- `compare_domains` computes several measures in one pass. It returns a `Comparison` for each, with reference levels:
  the similarity of circuits of different folds of the images (in the same domain and in other domains), of circuits of
  other classes, and of random units.

If a class has no circuit in a domain, the table has no row for this class with this domain. Graphs are read one class
at a time, and each graph is checked once: it must be comparable with the graphs that were read before (see
`Comparable`).

Does not import torch.
"""

import logging
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from itertools import zip_longest
from typing import Any

import numpy as np
import pandas as pd

from circuitry.circuits.graph import AttributionGraph
from circuitry.circuits.graph_folder import GraphFolder, Key
from circuitry.circuits.measures import Measure, as_measure, measure_code
from circuitry.circuits.similarities_of_classes import ClassPass, Node, ReadingSettings
from circuitry.comparison.comparison import Comparison
from circuitry.comparison.fold_array import WHOLE
from circuitry.comparison.table import class_groups
from circuitry.data.names import drawn_by_name
from circuitry.runs.arguments import Count, Names, checked, fitting
from circuitry.runs.errors import ByName, InputError
from circuitry.runs.identity import Across

log = logging.getLogger(__name__)

COMPARED = ("node_overlap", "edge_jaccard", "wl_kernel")
"""Default measures of `compare_domains`; the kernel has depth 1."""

Graphs = Iterable[AttributionGraph] | Mapping[Key, AttributionGraph]
"""Graphs that carry a class and a domain, or a mapping from (class, domain) to graphs, such as a `GraphFolder`."""
FoldsOf = Callable[[str, str], Mapping[int, AttributionGraph]]
"""Takes a class and a domain. Returns the graphs of the folds of its images, by the index of the fold."""


@checked
def compare(
    graphs: Graphs,
    measure: str | Measure = "edge_jaccard",
    *,
    classes: Names | None = None,
    edges_per_node: Count = 3,
    any_sign: bool = False,
    across: Across | None = None,
) -> pd.DataFrame:
    """Compare the circuits of each class between all pairs of domains.

    Args:
        graphs: Graphs with class and domain, such as `extract` returns.
        measure: One of `MEASURES`, or a `Measure` with another depth of the kernel.
        classes: Classes to compare (default: all).
        edges_per_node, any_sign: How circuits are selected from their graphs; see `AttributionGraph.circuit`.
        across: With ``models`` the domains of ``graphs`` name models of one architecture, such as a model before and
            after fine-tuning, or epochs of one training (default: all graphs are of one model).

    Returns:
        A tidy table with the columns class, domain_a, domain_b, site (None for measures of whole circuits) and value.
        Every unordered pair of domains in which the class has graphs occurs once, in sorted order. The value is NaN if
        a circuit has no effect; see `node_overlap` and `edge_jaccard`. With ``across`` the columns weights_a and
        weights_b have the digests of the weights of the two models.

    Raises:
        InputError: if the measure or a class is unknown, a graph has no class or no domain, two graphs have the same
            class and domain, no class has graphs in two domains, or the graphs cannot be compared, because they differ
            in sites, units, settings or model, or because a score is not finite.

    Example:
        >>> table = circuitry.compare(graphs, measure="edge_jaccard", classes=["clock"])
        >>> list(table.columns)
        ['class', 'domain_a', 'domain_b', 'site', 'value']
        >>> len(table)
        1
    """
    wanted = as_measure(measure)
    settings = ReadingSettings(
        edges_per_node=edges_per_node, any_sign=any_sign, chance_draws=0
    )
    one_pass = ClassPass([wanted], settings, across)
    compared = _compare(_by_names(graphs), None, one_pass, classes, across)
    table = one_pass.values(wanted, compared)
    if table.empty:
        raise InputError(
            "Circuits are compared between domains, but no class has graphs in two: give others, too."
        )
    if across:
        for side in "ab":
            weights = one_pass.checked.weights(table[f"domain_{side}"])
            table[f"weights_{side}"] = weights
    return table


@checked
def compare_domains(
    graphs: Graphs,
    groups: Mapping[str, Sequence[str]] | None = None,
    *,
    folds: FoldsOf | None = None,
    measures: Sequence[str | Measure] = COMPARED,
    settings: ReadingSettings | None = None,
    across: Across | None = None,
) -> dict[str, Comparison]:
    """Compare the circuits of every class between all pairs of domains by several measures, in one pass.

    Args:
        graphs: Graphs with class and domain, such as `extract` returns.
        groups: Further groups of classes by name, such as held-out classes; empty groups are left out.
        folds: Graphs of folds of the images, for ceilings (default: the folds of a `GraphFolder`).
        measures: Measures, or their names; see `compare`.
        settings: How circuits are selected from their graphs, and how reference levels are measured (default:
            ``ReadingSettings()``).
        across: With ``models`` the domains of ``graphs`` name models of one architecture; see `compare`. The entry
            ``weights`` of each `Comparison.about` has the digests of their weights.

    Returns:
        A dictionary from the name of each measure to its `Comparison`. Fold i of a class in a domain is compared with
        fold j of the class in the same domain or in another domain only if i and j differ. This is because folds of a
        class with the same index contain the same items in all domains. Sites that repeat another site or keep few
        units (`SiteMarks`) are left out of means over sites.

    Example:
        >>> comparisons = circuitry.compare_domains(graphs, {"time": ["clock"]})
        >>> list(comparisons)
        ['node_overlap', 'edge_jaccard', 'wl_kernel']
    """
    wanted = list(map(as_measure, measures))
    settings = settings or ReadingSettings()
    if folds is None and isinstance(graphs, GraphFolder):
        folds = graphs.folds
    one_pass = ClassPass(wanted, settings, across)
    by_names = _by_names(graphs)
    classes = _compare(by_names, folds, one_pass, across=across)
    about: dict[str, Any] = {
        "edges_per_node": settings.edges_per_node,
        "any_sign": settings.any_sign,
    }
    if isinstance(graphs, GraphFolder):
        about["circuits"] = graphs.identity.key
    if across:
        models = list(dict.fromkeys(domain for _, domain in by_names))
        weights = one_pass.checked.weights(models)
        about["weights"] = dict(zip(models, weights, strict=True))
    if one_pass.n_images:
        about["n"] = float(np.mean(one_pass.n_images))
    if one_pass.n_per_fold:
        about["n_per_fold"] = float(np.mean(one_pass.n_per_fold))
    marked = {} if settings.all_sites else one_pass.marks.left_out()
    comparisons = ByName[Comparison]()
    for measure in wanted:
        values = one_pass.values(measure, classes)
        # A measure of whole circuits has no means over sites, so it leaves out none.
        sites = set(values["site"])
        comparisons[measure.label] = Comparison(
            measure.label,
            values,
            one_pass.folds(measure, classes),
            one_pass.chance(measure),
            groups=class_groups(classes, groups),
            left_out={site: why for site, why in marked.items() if site in sites},
            about=about | {"measure_code": measure_code(measure.name)},
        )
    return comparisons


def _compare(
    graphs: Mapping[Key, AttributionGraph],
    folds: FoldsOf | None,
    one_pass: ClassPass,
    classes: Sequence[str] | None = None,
    across: Across | None = None,
) -> list[str]:
    """Compare the graphs class by class, and collect the similarities in ``one_pass``; return the names of the classes.

    Classes are compared in a random order, which depends only on the seed and the names. The returned names are in the
    order of ``classes``, or in the order of the graphs if ``classes`` is None.

    Args:
        graphs: Graphs by (class, domain).
        folds: Function that returns the graphs of the folds of a (class, domain), or None.
        one_pass: The object that collects the similarities.
        classes: Classes to compare (default: all).
        across: With ``models`` the domains of the keys name models, and graphs may be of any domain.
    """
    keys: dict[str, list[Key]] = {}
    for key in graphs:
        keys.setdefault(key[0], []).append(key)
    if unknown := [name for name in classes or () if name not in keys]:
        raise InputError(
            f"There is no graph of class {', '.join(unknown)}; the classes are {', '.join(sorted(keys))}."
        )

    def read(class_name: str) -> dict[Node, AttributionGraph]:
        by_node: dict[Node, AttributionGraph] = {}
        for name, domain in sorted(keys[class_name]):
            by_node[domain, WHOLE] = graphs[name, domain]
            if folds is not None:
                for fold, graph in folds(name, domain).items():
                    by_node[domain, fold] = graph
        for node, graph in by_node.items():
            domain = node[0]
            if across:
                by_node[node] = replace(graph, domain=domain)
                continue
            other_class = graph.class_name not in (None, class_name)
            if other_class or graph.domain not in (None, domain):
                raise InputError(
                    f"A graph of {class_name} in {domain} was expected, but one of {graph.title} was given: correct "
                    "the keys."
                )
        return by_node

    wanted = list(keys if classes is None else classes)
    domains = {domain for _, domain in graphs}
    if lacking := [name for name in wanted if len(keys[name]) < len(domains)]:
        log.warning(
            "%d of %d classes have no graph in some of the %d domains, first %s, and do not count there.",
            *(len(lacking), len(wanted), len(domains), lacking[0]),
        )
    # Ordered by name and seed, so that a class is compared with the same other classes in any order of the graphs.
    drawn = sorted(wanted, key=lambda name: drawn_by_name(one_pass.settings.seed, name))
    # One class is read while another is compared, because reading and checksums do not block the interpreter.
    with ThreadPoolExecutor(1) as pool:
        waiting = [pool.submit(read, name) for name in drawn[:1]]
        for name, following in zip_longest(drawn, drawn[1:]):
            by_node = waiting.pop().result()
            if following is not None:
                waiting.append(pool.submit(read, following))
            one_pass.add(name, by_node)
            # Without this, these graphs would stay in memory until the next ones have been read.
            del by_node
    return wanted


def _by_names(graphs: Graphs) -> Mapping[Key, AttributionGraph]:
    """Return a mapping from (class, domain) to the graphs.

    Raise `InputError` if a graph has no class or no domain, or if two graphs have the same class and domain.
    """
    if isinstance(graphs, Mapping):
        return graphs
    by_names: dict[Key, AttributionGraph] = {}
    for graph in graphs:
        fitting(graph, AttributionGraph, "graph")
        if graph.class_name is None or graph.domain is None:
            raise InputError(
                "Graphs to compare need a class and a domain, but one has none: give class_name and domain to "
                "attribute(), or make the graphs with extract()."
            )
        key = (graph.class_name, graph.domain)
        if key in by_names:
            raise InputError(
                f"Two graphs of class {key[0]!r} in domain {key[1]!r} were given."
            )
        by_names[key] = graph
    return by_names
