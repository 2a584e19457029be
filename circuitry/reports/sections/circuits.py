"""The report of a comparison: what is seen, in plain words under every figure, and how far to trust it.

Every sentence is computed from the tables it speaks of. Drawing and page layout live elsewhere.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import pandas as pd
from PIL.Image import Image

from circuitry.circuits.graph import AttributionGraph, Circuit
from circuitry.circuits.rule_report import describe_rule
from circuitry.comparison.comparison import Comparison
from circuitry.data.domains import DomainFolder
from circuitry.reports.contact_sheets import contact_sheet
from circuitry.reports.figures.circuit_graphs import circuit_pair
from circuitry.reports.figures.style import Mark, domain_marks
from circuitry.reports.page import Finding, Report
from circuitry.reports.sections.compared import (
    add_levels,
    add_matrix,
    add_over_depth,
    add_ratios,
    add_reading,
    add_summary,
    add_tests,
    measure_name,
)
from circuitry.reports.sections.findings import class_or_domain, how_much_shared, which_differs

SHEET_ROWS = 20
"""Most classes on the contact sheet."""


def add_contact_sheet(report: Report, sheet: Image, what: str) -> None:
    """Add the section that shows the data."""
    report.section("The images")
    report.image(sheet, what, alt="Contact sheet of the images by class and domain")


def add_similarity(report: Report, comparisons: Mapping[str, Comparison], marks: Mapping[str, Mark]) -> None:
    """Add the sections on overlap over depth and on similarity between domains, from `compare_domains`."""
    report.section("How much of the circuit is shared, site by site?")
    add_reading(report, comparisons["node_overlap"])
    add_over_depth(report, comparisons["node_overlap"], marks)
    report.section("Which domains share their circuits?")
    for comparison in comparisons.values():
        title = f"Similarity of circuits: {measure_name(comparison.measure)}"
        add_matrix(report, comparison, marks, title=title)
        add_ratios(report, comparison, marks, title=title)
        add_levels(report, comparison)
    add_summary(report, list(comparisons.values()))
    add_tests(report, comparisons["edge_jaccard"])


def add_stability(report: Report, stability: pd.DataFrame) -> None:
    """Add the section on how far circuits hold when their images are drawn again, from `circuit_stability`."""
    report.section("Would other images give the same circuits?")
    means = stability.groupby("domain")[["parts", "units", "unit_stability", "edges", "edge_stability"]].mean()
    overall = stability[["unit_stability", "edge_stability"]].mean()
    report.table(
        means.reset_index(),
        "How far circuits hold when the parts of their images are drawn again with replacement: the probability that a "
        f"unit is kept with its sign, on average {overall['unit_stability']:.2f}, and that an edge is among the "
        f"strongest into its unit, {overall['edge_stability']:.2f}. Means over {stability['class'].nunique()} classes.",
    )


def add_circuit_pair(
    report: Report, a: Circuit, b: Circuit, sites: Sequence[str], marks: Mapping[str, Mark] | None = None
) -> None:
    """Add the section that draws one class's circuit in two domains."""
    name, domain_a, domain_b = a.source.class_name, str(a.source.domain), str(b.source.domain)
    report.section(f"One circuit in two domains: {name}")
    title = f"{name}: {domain_a} and {domain_b}"
    figure = circuit_pair(a, b, sites, name_a=domain_a, name_b=domain_b, title=title, marks=marks)
    nodes = _shared(set(a.graph), set(b.graph))
    edges = _shared(set(a.graph.edges), set(b.graph.edges))
    by_site = {}
    for site in sites:
        own, other = ({node for node, of in one.graph.nodes(data="site") if of == site} for one in (a, b))
        if own:
            by_site[site] = len(own & other) / len(own | other)
    most, least = max(by_site, key=lambda s: by_site[s]), min(by_site, key=lambda s: by_site[s])
    report.figure(
        figure,
        f"The kept units of {name} at every site and the strongest edges into them, in {domain_a} and in {domain_b}. "
        f"Shared: {nodes} units and {edges} edges. The share of common units is largest at {most} "
        f"({by_site[most]:.0%}) and smallest at {least} ({by_site[least]:.0%}).",
    )


def circuit_findings(comparisons: Mapping[str, Comparison], orders: pd.DataFrame | None = None) -> list[Finding]:
    """Answer whether domains share their circuits: how much, whether the class or the domain counts, and which least.

    ``orders`` is the table of `order_stability`.
    """
    overlap = comparisons["node_overlap"]
    found = [how_much_shared(overlap), class_or_domain(overlap), which_differs(overlap, orders)]
    return [one for one in found if one is not None]


def add_reading_guide(report: Report, settings: Mapping[str, Any]) -> None:
    """Add the section on what was computed and how to read it; ``settings`` are those of a graph."""
    report.section("How to read this")
    report.text(
        "A circuit is found for every class in every domain. Each unit (channel) of each site is scored by "
        "integrated gradients of the class's metric from its activation to the baseline; the share with the "
        "largest absolute scores is kept. Kept units of neighbouring sites are joined by edges, scored by how far the "
        "later unit moves when the earlier one goes to the baseline; each keeps its few strongest incoming edges. "
        "Where units are a transformer's attention heads and MLP neurons, those of any two sites are joined, scored by "
        "what the metric loses when the later unit alone misses what the earlier one wrote to the residual stream. "
        f"{describe_rule(settings)}\n\n"
        "Node overlap and edge Jaccard index are shares: common units (edges) over all units (edges) of both circuits. "
        "An edge needs a score above zero, unless the study's settings were asked for. The Weisfeiler-Lehman kernel is "
        "the study's measure; at depth 1 most of it is names of units, so it ranks like node overlap and is no further "
        "evidence. A bare number says little: read it against the ceiling, the similarity of circuits from two parts "
        "of the same images, at equal numbers of images and never with the same item on both sides; against other "
        "classes in the same and in other domains; and against chance, circuits of random units.\n\n"
        "An attribution is a claim about causes, not a proof of one; and units are compared by their index, so two "
        "domains that use different units for the same purpose count as different."
    )


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
        introduction: What was done, in a few sentences.
        comparisons: From `compare_domains`.
        graphs: Graphs by class and domain.
        images: The images that the graphs are of.
        pair: Class and two domains whose circuits are drawn.
        after_images: Adds what is known of the model, such as its accuracy, after the section that shows the images.
    """
    domains = sorted({domain for _, domain in graphs})
    classes = sorted({class_name for class_name, _ in graphs})
    marks = domain_marks(domains)
    report = Report(title, introduction)
    add_reading_guide(report, next(iter(graphs.values())).settings)
    shown = {(c, d): [r.path for r in images.select(c, d, 2)] for c in classes[:SHEET_ROWS] for d in domains}
    what = f"Two test images of {'every class' if len(classes) <= SHEET_ROWS else 'some classes'} in every domain."
    add_contact_sheet(report, contact_sheet(shown, classes[:SHEET_ROWS], domains), what)
    if after_images is not None:
        after_images(report, marks)
    add_similarity(report, comparisons, marks)
    overlap = comparisons["node_overlap"]
    cut = overlap.about["edges_per_node"], overlap.about["any_sign"]
    a, b = (graphs[pair[0], domain].circuit(cut[0], any_sign=cut[1]) for domain in pair[1:])
    add_circuit_pair(report, a, b, overlap.sites, marks)
    return report


def _shared(a: set[object], b: set[object]) -> str:
    return f"{len(a & b)} of {len(a | b)}"
