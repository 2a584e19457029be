"""Are the circuits of a class the same in two domains? Sets of graphs, compared class by class. No torch.

1. `compare`: every pair of domains of every class by one measure, as a tidy table;
2. `compare_halves`: circuits from two halves of the same images, the noise ceiling;
3. `compare_domains`: both, by several measures in one pass, as a `Comparison` of each.

A pair that cannot be formed (a class absent in one domain) is absent from the table, never zero. Graphs are read one
class at a time, and each is checked once against those before it.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from itertools import combinations, zip_longest

import pandas as pd

from circuitry.circuits.comparable import Comparable
from circuitry.circuits.graph import AttributionGraph
from circuitry.circuits.similarity import Measure, PairSimilarity, chance_node_overlap
from circuitry.comparison.compared_values import VALUES, class_groups
from circuitry.comparison.comparison import Comparison
from circuitry.comparison.parts import CEILINGS, parts_of_halves
from circuitry.runs.errors import InputError

COMPARED = ("node_overlap", "edge_jaccard", "wl_kernel")
"""Measures of `compare_domains`; the kernel at depth 1."""

Graphs = Iterable[AttributionGraph] | Mapping[tuple[str, str], AttributionGraph]
"""Graphs that know their class and domain, or by (class, domain), like a `GraphFolder`."""


def compare(
    graphs: Graphs,
    measure: str = "edge_jaccard",
    *,
    classes: Sequence[str] | None = None,
    edges_per_node: int = 3,
    depth: int = 1,
) -> pd.DataFrame:
    """Compare the circuits of each class between all pairs of domains.

    Args:
        graphs: Graphs that know their class and domain, e.g. what `extract` returns.
        measure: One of `MEASURES`.
        classes: A subset of the classes.
        edges_per_node: Edges of the circuits; see `AttributionGraph.circuit`.
        depth: Depth of the Weisfeiler-Lehman kernel.

    Returns:
        Tidy table: class, domain_a, domain_b, site (None for whole-circuit measures), value. Every unordered
        pair of domains once, in sorted order; pairs of which one is missing are absent. NaN where a circuit has no
        effect; see `node_overlap` and `edge_jaccard`.

    Raises:
        InputError: for an unknown measure or class, graphs without class or domain, two of the same, or graphs that
            cannot be compared: of other sites, units, settings or models, or not finite.

    Example:
        >>> table = compare(graphs, measure="node_overlap", classes=held_out)
        >>> domain_matrix(table)
    """
    wanted = Measure(measure, depth)
    return _compare_pairs(graphs, [wanted], Comparable(), classes, edges_per_node)[wanted]


def compare_halves(
    halves: Iterable[tuple[AttributionGraph, AttributionGraph]],
    measure: str = "edge_jaccard",
    *,
    classes: Sequence[str] | None = None,
    edges_per_node: int = 3,
    depth: int = 1,
) -> pd.DataFrame:
    """Compare circuits from two disjoint halves of the images of the same class and domain: the noise ceiling.

    Takes pairs of graphs, e.g. ``graphs.halves()``; the other arguments and errors are those of `compare`.

    Returns:
        Tidy table: class, domain, site, value. Each half has half the images, so it is a cautious ceiling for
        circuits from all of them.
    """
    wanted = Measure(measure, depth)
    return _compare_halves(halves, [wanted], Comparable(), classes, edges_per_node)[wanted]


def compare_domains(
    graphs: Mapping[tuple[str, str], AttributionGraph],
    halves: Iterable[tuple[AttributionGraph, AttributionGraph]] = (),
    groups: Mapping[str, Sequence[str]] | None = None,
    *,
    measures: Sequence[str | Measure] = COMPARED,
    edges_per_node: int = 3,
) -> dict[str, Comparison]:
    """Compare the circuits of every class between all pairs of domains by several measures, in one pass.

    Args:
        graphs: From `extract`.
        halves: ``graphs.halves()``; without them there are no ceilings.
        groups: Further groups of classes, e.g. those held out of training; empty ones are left out.
        measures: Names of `MEASURES`, or `Measure` with another depth of the kernel.
        edges_per_node: Edges of the circuits; see `AttributionGraph.circuit`.

    Returns:
        A `Comparison` by name of the measure.

    Raises:
        InputError: as `compare`, and when no class has circuits in two domains.

    Example:
        >>> graphs = extract(clip, images, "runs/x")
        >>> comparisons = compare_domains(graphs, graphs.halves(), {"held-out": ["fish", "key"]})
        >>> comparisons["edge_jaccard"].matrix()
    """
    wanted = [Measure(measure) if isinstance(measure, str) else measure for measure in measures]
    checked = Comparable()
    values = _compare_pairs(graphs, wanted, checked, None, edges_per_node)
    ceilings = _compare_halves(halves, wanted, checked, None, edges_per_node)
    all_groups = class_groups((class_name for class_name, _ in graphs), groups)
    found = {
        measure.label: Comparison(
            measure.label,
            values[measure],
            parts_of_halves(ceilings[measure]),
            groups=all_groups,
            about={"edges_per_node": edges_per_node},
        )
        for measure in wanted
    }
    if "node_overlap" in found:
        chance = chance_node_overlap(next(iter(graphs.values())))
        found["node_overlap"] = replace(found["node_overlap"], chance=chance)
    return found


def _compare_pairs(
    graphs: Graphs,
    measures: Sequence[Measure],
    checked: Comparable,
    classes: Sequence[str] | None,
    edges_per_node: int,
) -> dict[Measure, pd.DataFrame]:
    rows: dict[Measure, list[tuple[str, str, str, str | None, float]]] = {measure: [] for measure in measures}
    for class_name, by_domain in _by_class(graphs, classes):
        for graph in by_domain.values():
            checked.add(graph)
        similarity = PairSimilarity(measures, edges_per_node)
        for domain_a, domain_b in combinations(sorted(by_domain), 2):
            for measure, values in similarity(by_domain[domain_a], by_domain[domain_b]).items():
                rows[measure] += [(class_name, domain_a, domain_b, site, value) for site, value in values.items()]
    return {measure: pd.DataFrame(found, columns=list(VALUES)) for measure, found in rows.items()}


def _compare_halves(
    halves: Iterable[tuple[AttributionGraph, AttributionGraph]],
    measures: Sequence[Measure],
    checked: Comparable,
    classes: Sequence[str] | None,
    edges_per_node: int,
) -> dict[Measure, pd.DataFrame]:
    rows: dict[Measure, list[tuple[str | None, str | None, str | None, float]]] = {m: [] for m in measures}
    for a, b in halves:
        if classes is None or a.class_name in classes:
            for half in (a, b):
                checked.add(half)
            for measure, values in PairSimilarity(measures, edges_per_node)(a, b).items():
                rows[measure] += [(a.class_name, a.domain, site, value) for site, value in values.items()]
    return {measure: pd.DataFrame(found, columns=list(CEILINGS)) for measure, found in rows.items()}


def _by_class(graphs: Graphs, classes: Sequence[str] | None) -> Iterator[tuple[str, dict[str, AttributionGraph]]]:
    """Yield class and graphs by domain; those of a mapping are asked for class by class, the next one ahead."""
    by_key = graphs if isinstance(graphs, Mapping) else _keyed(graphs)
    keys: dict[str, list[tuple[str, str]]] = {}
    for key in by_key:
        keys.setdefault(key[0], []).append(key)
    if unknown := [name for name in classes or () if name not in keys]:
        raise InputError(f"There is no graph of class {', '.join(unknown)}; the classes are {', '.join(sorted(keys))}.")

    def read(class_name: str) -> dict[str, AttributionGraph]:
        return {domain: by_key[name, domain] for name, domain in keys[class_name]}

    wanted = list(keys if classes is None else classes)
    with ThreadPoolExecutor(1) as pool:  # reading and checksums leave the interpreter free
        waiting = [pool.submit(read, name) for name in wanted[:1]]
        for name, following in zip_longest(wanted, wanted[1:]):
            by_domain = waiting.pop().result()
            if following is not None:
                waiting.append(pool.submit(read, following))
            yield name, by_domain


def _keyed(graphs: Iterable[AttributionGraph]) -> dict[tuple[str, str], AttributionGraph]:
    found: dict[tuple[str, str], AttributionGraph] = {}
    for graph in graphs:
        if graph.class_name is None or graph.domain is None:
            raise InputError(
                "Graphs to compare need a class and a domain, but one has none: set class_name and domain "
                "(dataclasses.replace), or make the graphs with extract()."
            )
        key = graph.class_name, graph.domain
        if key in found:
            raise InputError(f"Two graphs of class {key[0]!r} in domain {key[1]!r} were given.")
        found[key] = graph
    return found
