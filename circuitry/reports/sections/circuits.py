"""The sections on circuits: how to read them, how similar and how stable they are, and checks of their scores."""

from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd

from circuitry.circuits.budgets import describe_budget
from circuitry.circuits.consensus import mean_stability
from circuitry.circuits.graph import Circuit
from circuitry.circuits.methods import describe_edges, describe_method
from circuitry.comparison.comparison import Comparison
from circuitry.comparison.domain_apart import apart_over_depth, means_without
from circuitry.comparison.domain_testing import THIS_MODEL
from circuitry.interventions.scores_beside_effects import (
    AttributionCheck,
)
from circuitry.reports.figures.circuit_graphs import circuit_pair
from circuitry.reports.figures.heatmaps import similarity_heatmap
from circuitry.reports.figures.lines import (
    attribution_against_patching,
    overlap_over_depth,
)
from circuitry.reports.figures.style import (
    MARKS,
    Mark,
    capitalised,
    measure_name,
)
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
from circuitry.reports.sections.findings import (
    class_or_domain,
    how_much_shared,
    which_differs,
)


def add_similarity(
    report: Report, comparisons: Mapping[str, Comparison], marks: Mapping[str, Mark]
) -> None:
    """Add the sections on the similarity of circuits: between domains, over depth, and by other measures.

    Args:
        comparisons: From `compare_domains`. Node overlap is the main measure; the other measures are checks.
    """
    report.section("Which domains share their circuits?")
    # Node overlap is the main measure; the other measures are checks of it.
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


def _add_measure(
    report: Report, comparison: Comparison, marks: Mapping[str, Mark]
) -> None:
    title = f"Similarity of circuits: {measure_name(comparison.measure)}"
    add_matrix(report, comparison, marks, title=title)
    add_ratios(report, comparison, marks, title=title)
    add_levels(report, comparison)


def add_circuit_pair(
    report: Report,
    a: Circuit,
    b: Circuit,
    sites: Sequence[str],
    marks: Mapping[str, Mark] | None = None,
) -> None:
    """Add the section that draws the circuits of one class in two domains.

    Args:
        sites: The sites to draw, from the image to the embedding.
    """
    name = a.source.class_name
    first = str(a.source.domain)
    second = str(b.source.domain)
    report.section(f"One circuit in two domains: {name}")
    title = f"{name}: {first} and {second}"
    report.figure(
        circuit_pair(
            a, b, sites, name_a=first, name_b=second, title=title, marks=marks
        ),
        f"The kept units of {name} at every site and the strongest edges into them, in {first} and in {second}. "
        "The legend counts nodes and edges; under each site stand its shared units and all units of both circuits.",
    )


def circuit_findings(comparisons: Mapping[str, Comparison]) -> list[Finding | None]:
    """Return the findings on the circuits of domains.

    The three findings answer: How much do the circuits of two domains have in common? Does a common class or a common
    domain make circuits similar? Which domain differs from the other domains? A finding is None if the comparisons
    cannot answer its question.

    Args:
        comparisons: From `compare_domains`.
    """
    overlap = comparisons["node_overlap"]
    return [how_much_shared(overlap), class_or_domain(overlap), which_differs(overlap)]


def add_guide(
    report: Report, settings: Mapping[str, Any], tested_on: str | None = None
) -> None:
    """Add the section on how to read the report.

    Args:
        settings: Settings of a graph. The section describes the method, the budget and the edges of these settings.
        tested_on: Name of the images on which circuits are tested; None if circuits are not tested.
    """
    report.section("How to read this", folded=True)
    report.text(
        f"Every class has a circuit in every domain. {describe_method(settings)} {describe_budget(settings)} "
        f"{describe_edges(settings)}\n\n"
        "Node overlap and edge Jaccard index are shares: common units (edges) over all units (edges) of both circuits. "
        "An edge needs a score above zero, except with the study's settings. The Weisfeiler-Lehman kernel at depth 1 "
        "mostly compares names of units, so it ranks like node overlap and is no further evidence. Compare every "
        "number with the ceiling (circuits from two folds of the same images, equally many and of different items), "
        "with other classes, and with chance (circuits of random units).\n\n"
        "An attribution claims causes; it does not prove them. Units are compared by their index, so two domains that "
        "use different units for one purpose count as different."
    )
    if tested_on is not None:
        report.text(
            f"Circuits are tested on {tested_on}. Faithfulness is the class's metric with only some units active, as a "
            "share of the whole model's lead over the baseline: 0 is nothing kept, 1 the whole model, and more than 1 "
            "means that the removed units work against the class. A circuit that gives every image the same answer can "
            "be faithful, too. Selectivity measures the lead of images of the class over images of other classes, and "
            "is 0 for such a circuit. Compare both with as many random units, and with all but the circuit: a "
            "sufficient circuit may not be necessary. Intervals are over classes and images, of a single class over "
            f"images; p values are about {THIS_MODEL}."
        )


def add_circuit_stability(report: Report, stability: pd.DataFrame) -> None:
    """Add the section on whether other images would give the same circuits.

    Args:
        stability: Table from `circuit_stability`. The stability is estimated by drawing the folds of the images again
            with replacement.
    """
    report.section("Would other images give the same circuits?", folded=True)
    report.table(
        mean_stability(stability),
        "Stability of circuits when the folds of their images are drawn again with replacement: the probability that a "
        "unit is kept with its sign, and that an edge is among the strongest into its unit. Means over classes; the "
        "last row is the mean over all circuits.",
    )


def add_attribution_check(
    report: Report, check: AttributionCheck, sites: Sequence[str], what: str
) -> None:
    """Add the section that compares attributed scores with exact effects.

    Args:
        sites: The sites to draw.
        what: Name of the circuit in the caption.
    """
    report.section("Do scores equal the effect of removing a unit?")
    table = check.to_pandas()
    # Top units are chosen by their score, which biases the correlation; random ones are not.
    random = table[(table["sample"] == "random") & table["site"].isin(sites)]
    rho = random.set_index("site")["spearman"].dropna()
    report.figure(
        attribution_against_patching(check.points, sites, table),
        f"{what}: attributed score and exact effect of moving a unit to the baseline, for the units with the largest "
        "scores (filled) and a random sample (hollow); they agree on the line. Rank correlation in the random sample: "
        f"{rho.min():.2f} ({rho.idxmin()}) to {rho.max():.2f} ({rho.idxmax()}).",
    )
    report.table(
        check.across_sites(),
        "Can scores of different sites be compared, as a global budget does? Exact effect per score in the random "
        "sample (alike everywhere if so), and where the strongest fifth of its units is, by score and by exact effect.",
    )


APART_MARKS = MARKS[6:8]
"""Marks of two lines: one domain with the other domains, and the other domains with each other.

A domain has one of these marks only if there are seven or more domains."""


def add_domain_apart(
    report: Report,
    comparisons: Mapping[str, Comparison],
    apart: str,
    marks: Mapping[str, Mark],
) -> None:
    """Add the section that compares one domain with the other domains, as the ICML paper ("the study") does.

    Figures and tables are for all classes, and for each group of classes alone.

    Args:
        comparisons: From `compare_domains`.
        apart: Name of the domain that is compared with the other domains.
    """
    report.section(f"{capitalised(apart)} against the others")
    overlap = comparisons["node_overlap"]
    depth = apart_over_depth(overlap, apart)
    for group in overlap.groups:
        title = f"Units shared with {apart} and without it ({group} classes)"
        of_group = depth[depth["group"] == group]
        add_two_lines(report, of_group, overlap.sites, "node overlap", title)
    for name, comparison in comparisons.items():
        measure = measure_name(name)
        for group in comparison.groups:
            # `add_similarity` draws all classes.
            if group == "all":
                continue
            matrix = comparison.matrix(group)
            title = f"{measure}, {group} classes"
            figure = similarity_heatmap(
                matrix, title=title, measure=measure, marks=marks
            )
            report.figure(figure, f"Means over the {group} classes.")
        report.table(
            means_without(comparison, apart),
            f"{measure}: each domain's mean with the others, and without {apart} among them; all: "
            f"the mean over all ordered pairs, and over those whose second domain is not {apart}.",
        )


def add_two_lines(
    report: Report,
    depth: pd.DataFrame,
    sites: Sequence[str],
    name: str,
    title: str | None = None,
) -> None:
    """Add a figure with two lines over the sites, from `apart_over_depth`.

    The first line is the mean similarity of one domain with the other domains. The second line is the mean similarity
    of the other domains with each other. If no value is known, nothing is added.

    Args:
        depth: Columns domain (the name of a line), site, value, low, high. Rows of the first line come first.
        sites: The sites to draw, from the image to the embedding.
        name: Name of the measure.

    Example:
        >>> page = circuitry.reports.Report("Sketches against the others")
        >>> depth = pd.DataFrame({"domain": "sketch with the others", "site": ["conv", "head"], "value": 0.5})
        >>> add_two_lines(page, depth.assign(low=0.4, high=0.6), ["conv", "head"], "node overlap")
        >>> list(page.plotly_figures)
        ['figure-1']
    """
    if depth["value"].isna().all():
        return
    names = list(dict.fromkeys(depth["domain"]))
    words = f"Mean {name}: {'; '.join(names)}."
    if len(names) > 1:
        wide = depth.pivot(index="site", columns="domain", values="value")
        # NaN at a site is not lower.
        lower = int((wide[names[0]] < wide[names[1]]).sum())
        words += f" The first is lower at {lower} of {len(sites)} sites."
    marks = dict(zip(names, APART_MARKS, strict=False))
    figure = overlap_over_depth(depth, sites, measure=name, title=title, marks=marks)
    report.figure(figure, words)
