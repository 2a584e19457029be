"""The report of a comparison of circuits."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import pandas as pd

from circuitry.circuits.budgets import describe_budget
from circuitry.circuits.consensus import mean_stability
from circuitry.circuits.graph import AttributionGraph, Circuit
from circuitry.circuits.quadrature import describe_rules
from circuitry.comparison.comparison import Comparison
from circuitry.data.domains import DomainFolder
from circuitry.reports.contact_sheets import contact_sheet
from circuitry.reports.figures.circuit_graphs import circuit_pair
from circuitry.reports.figures.style import Mark, domain_marks
from circuitry.reports.measure_names import measure_name
from circuitry.reports.page import Finding, Report
from circuitry.reports.sections.compared import (
    add_levels,
    add_matrix,
    add_over_depth,
    add_ratios,
    add_reading,
    add_summary,
    add_tests,
)
from circuitry.reports.sections.findings import class_or_domain, how_much_shared, which_differs
from circuitry.reports.sections.one_circuit import add_circuit

CIRCUITS_DRAWN = 4
"""Most circuits that are drawn in the report of one domain."""
SHEET_ROWS = 20
"""Most classes on the contact sheet."""


def add_similarity(report: Report, comparisons: Mapping[str, Comparison], marks: Mapping[str, Mark]) -> None:
    """Add the sections on overlap over depth and on similarity between domains, from `compare_domains`."""
    report.section("Which domains share their circuits?")
    overlap = comparisons["node_overlap"]
    add_reading(report, overlap)
    _add_measure(report, overlap, marks)
    add_summary(report, list(comparisons.values()))
    report.section("How much of the circuit is shared, site by site?")
    add_over_depth(report, overlap, marks)
    report.section("Do other measures say the same?", folded=True)
    for comparison in comparisons.values():
        if comparison is not overlap:
            _add_measure(report, comparison, marks)
    add_tests(report, comparisons["edge_jaccard"])


def _add_measure(report: Report, comparison: Comparison, marks: Mapping[str, Mark]) -> None:
    title = f"Similarity of circuits: {measure_name(comparison.measure)}"
    add_matrix(report, comparison, marks, title=title)
    add_ratios(report, comparison, marks, title=title)
    add_levels(report, comparison)


def add_circuit_pair(
    report: Report, a: Circuit, b: Circuit, sites: Sequence[str], marks: Mapping[str, Mark] | None = None
) -> None:
    """Add the section that draws one class's circuit in two domains."""
    name, domain_a, domain_b = a.source.class_name, str(a.source.domain), str(b.source.domain)
    report.section(f"One circuit in two domains: {name}")
    title = f"{name}: {domain_a} and {domain_b}"
    report.figure(
        circuit_pair(a, b, sites, name_a=domain_a, name_b=domain_b, title=title, marks=marks),
        f"The kept units of {name} at every site and the strongest edges into them, in {domain_a} and in {domain_b}. "
        "The legend counts nodes and edges; under each site stand its shared units and all units of both circuits.",
    )


def circuit_findings(comparisons: Mapping[str, Comparison]) -> list[Finding | None]:
    """Answer whether domains share their circuits: how much, by class or by domain, and which least."""
    overlap = comparisons["node_overlap"]
    return [how_much_shared(overlap), class_or_domain(overlap), which_differs(overlap)]


def add_circuit_guide(report: Report, settings: Mapping[str, Any]) -> None:
    """Add the section on the method and how to read its numbers; ``settings`` are ``AttributionGraph.settings``."""
    report.section("How to read this", folded=True)
    report.text(
        "Every class has a circuit in every domain. Integrated gradients score each unit (channel) of each site: how "
        "much the class's metric changes from its activation to the baseline. The units with the largest absolute "
        f"scores are kept. {describe_budget(settings)} Edges join kept units of neighbouring sites; an edge's score "
        "says how far the later unit moves when the earlier one goes to the baseline, and each unit keeps its few "
        "strongest incoming edges. In a transformer the units are attention heads and MLP neurons, and edges join "
        "those of any two sites; the score estimates what the metric loses when the later unit alone misses what the "
        "earlier one wrote to the residual "
        "stream. Scores of edges rank them and do not measure what a cut costs. "
        f"{describe_rules(settings)}\n\n"
        "Node overlap and edge Jaccard index are shares: common units (edges) over all units (edges) of both circuits. "
        "An edge needs a score above zero, except with the study's settings. The Weisfeiler-Lehman kernel at depth 1 "
        "mostly compares names of units, so it ranks like node overlap and is no further evidence. Compare every "
        "number with the ceiling (circuits from two parts of the same images, equally many and of different items), "
        "with other classes, and with chance (circuits of random units).\n\n"
        "An attribution claims causes; it does not prove them. Units are compared by their index, so two domains that "
        "use different units for one purpose count as different."
    )


def found_report(
    title: str,
    introduction: str,
    graphs: Mapping[tuple[str, str], AttributionGraph],
    images: DomainFolder,
    *,
    edges_per_node: int = 3,
    any_sign: bool = False,
    after_images: Callable[[Report, Mapping[str, Mark]], None] | None = None,
) -> Report:
    """Return a report that draws the circuits of one domain one by one; arguments as `comparison_report`."""
    report = _begun(title, introduction, graphs, images, after_images)
    for key in list(graphs)[:CIRCUITS_DRAWN]:
        circuit = graphs[key].circuit(edges_per_node, any_sign=any_sign)
        found_on = f"found on {circuit.source.n_images} images"
        add_circuit(report, circuit, f"The kept units at every site, {found_on}, and the strongest edges into them.")
    if len(graphs) > CIRCUITS_DRAWN:
        report.text(f"{len(graphs) - CIRCUITS_DRAWN} more circuits are not drawn here.")
    return report


def _begun(
    title: str,
    introduction: str,
    graphs: Mapping[tuple[str, str], AttributionGraph],
    images: DomainFolder,
    after_images: Callable[[Report, Mapping[str, Mark]], None] | None,
) -> Report:
    """Return a report with how to read it, the images, and what is known of the model."""
    domains, classes = sorted({domain for _, domain in graphs}), sorted({class_name for class_name, _ in graphs})
    report = Report(title, introduction)
    add_circuit_guide(report, next(iter(graphs.values())).settings)
    report.section("The images")
    shown = {(c, d): [r.path for r in images.select(c, d, 2)] for c in classes[:SHEET_ROWS] for d in domains}
    report.image(
        contact_sheet(shown, classes[:SHEET_ROWS], domains),
        f"Test images of {'every class' if len(classes) <= SHEET_ROWS else 'some classes'} in every domain.",
        alt="Contact sheet of the images by class and domain",
    )
    if after_images is not None:
        after_images(report, domain_marks(domains))
    return report


def comparison_report(
    title: str,
    introduction: str,
    comparisons: Mapping[str, Comparison],
    graphs: Mapping[tuple[str, str], AttributionGraph],
    images: DomainFolder,
    pair: tuple[str, str, str],
    *,
    after_images: Callable[[Report, Mapping[str, Mark]], None] | None = None,
) -> Report:
    """Return the report of a comparison of circuits, how to read it first; `write_results` writes it.

    Args:
        title: Title of the page.
        introduction: A few sentences on the analysis.
        comparisons: From `compare_domains`.
        graphs: Graphs by class and domain.
        images: The images of the graphs.
        pair: Class and two domains whose circuits are drawn.
        after_images: Adds what is known of the model, such as its accuracy, after the section with the images.
    """
    marks = domain_marks({domain for _, domain in graphs})
    report = _begun(title, introduction, graphs, images, after_images)
    add_similarity(report, comparisons, marks)
    overlap = comparisons["node_overlap"]
    cut = overlap.about["edges_per_node"], overlap.about["any_sign"]
    a, b = (graphs[pair[0], domain].circuit(cut[0], any_sign=cut[1]) for domain in pair[1:])
    add_circuit_pair(report, a, b, overlap.sites, marks)
    return report


def add_circuit_stability(report: Report, stability: pd.DataFrame) -> None:
    """Add the section on the stability of circuits when their images are drawn again, from `circuit_stability`."""
    report.section("Would other images give the same circuits?", folded=True)
    report.table(
        mean_stability(stability),
        "Stability of circuits when the parts of their images are drawn again with replacement: the probability that a "
        "unit is kept with its sign, and that an edge is among the strongest into its unit. Means over classes; the "
        "last row is the mean over all circuits.",
    )
