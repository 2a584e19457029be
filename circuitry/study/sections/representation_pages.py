"""The sections of a report on representations, in plain words computed from the tables they speak of."""

from collections.abc import Mapping

import pandas as pd

from circuitry.comparison.domain_tests import THIS_MODEL
from circuitry.reports.figures.lines import overlap_over_depth, probes_over_depth
from circuitry.reports.figures.style import MARKS, Mark
from circuitry.reports.page import Finding, Report
from circuitry.reports.sections.compared import add_matrix, add_over_depth, measure_name
from circuitry.reports.sections.findings import how_much_shared, what_is_read_off, which_differs
from circuitry.representations.probes import TARGETS, SiteProbes
from circuitry.representations.similarity import RepresentationSimilarity

APART_MARKS = MARKS[6:8]
"""Of one domain with the others, and of the others: marks that few sets of domains reach."""


def representation_findings(
    similarity: RepresentationSimilarity, parts: pd.DataFrame, probes: SiteProbes
) -> list[Finding]:
    """Answer whether domains share a representation, by linear CKA at the last site and by probes."""
    first = next(iter(similarity.comparisons(parts).values()))
    last = first.at(first.sites[-1])
    return [how_much_shared(last), which_differs(last), what_is_read_off(probes.sites)]


def add_cka(
    report: Report,
    similarity: RepresentationSimilarity,
    parts: pd.DataFrame,
    marks: Mapping[str, Mark],
    group: str = "all",
) -> None:
    """Add the section on CKA: over depth by every kernel, and between all domains at the last site.

    Args:
        report: The report.
        similarity: From `compare_representations`; where a domain is set apart, that is drawn, too.
        parts: The values of `compare_representation_parts`.
        marks: Marks of the domains.
        group: The group of classes that these are of.
    """
    of = "" if group == "all" else f", {group} classes"
    report.section(f"Are classes arranged alike in every domain?{of}")
    comparisons = list(similarity.comparisons(parts).values())
    for comparison in comparisons:
        share = (comparison.values["p"] <= 0.05).mean()
        more = (
            f"Of class means; {share:.0%} of all pairs and sites have p of at most 0.05, uncorrected, from permuted "
            f"classes and about {THIS_MODEL}."
        )
        add_over_depth(report, comparison, marks, more)
        add_apart(report, similarity.apart, comparison.measure)
    last = comparisons[0].at(comparisons[0].sites[-1])
    site = last.sites[0]
    add_matrix(report, last, marks, title=f"CKA at {site}{of}", more=f"Of class means at {site}, the last site.")


def add_apart(report: Report, apart: pd.DataFrame, measure: str) -> None:
    """Add the figure of one domain with the others beside the others among themselves, by one measure (``cka_linear``).

    ``apart`` is from `compare_representations`; nothing is added where it has no rows.
    """
    own = apart[apart["kernel"] == measure.removeprefix("cka_")]
    if own.empty:
        return
    with_others, among = dict.fromkeys(own["domain"])
    wide = own.pivot(index="site", columns="domain", values="value")
    lower = int((wide[with_others] < wide[among]).sum())
    name, sites = measure_name(measure), list(dict.fromkeys(own["site"]))
    marks = dict(zip((with_others, among), APART_MARKS, strict=True))
    report.figure(
        overlap_over_depth(own, sites, measure=name, marks=marks),
        f"Mean {name} of {with_others}, and of {among} (bars: 95 % jackknife intervals over classes). The first is "
        f"lower at {lower} of {len(sites)} sites.",
    )


def add_probes(report: Report, probes: SiteProbes) -> None:
    """Add the section on linear probes."""
    report.section("What can be read off, and where?")
    words = (
        "Balanced accuracy of linear classifiers on each unit's activation averaged over positions (bars: 95 % "
        "intervals over folds, and over domains where one is left out); images of one item are never on both sides."
    )
    for target in TARGETS:
        rows = probes.sites[probes.sites["target"] == target].set_index("site")
        best, worst = str(rows["value"].idxmax()), str(rows["value"].idxmin())
        words += (
            f" The {target} is read off best at {best} ({rows['value'][best]:.0%}) and worst at {worst} "
            f"({rows['value'][worst]:.0%}; guessing: {rows['chance'].iloc[0]:.1%})."
        )
    report.figure(probes_over_depth(probes.sites), words)
    by_domain = probes.left_out.pivot(index="site", columns="domain", values="value")
    by_domain = by_domain.loc[list(dict.fromkeys(probes.left_out["site"]))]
    report.table(
        by_domain.rename_axis(columns=None),
        "Class across domains: the class of a domain's images by a classifier of all other domains.",
        formats=dict.fromkeys(by_domain.columns, ".0%"),
    )


def add_reading_guide(report: Report) -> None:
    """Add the section on what was computed and how to read it."""
    report.section("How to read this")
    report.text(
        "CKA asks whether two domains arrange the classes alike: whether classes that are near each other in one are "
        "near in the other, whichever directions they lie in. It is 1 where the arrangements are equal but for "
        "rotation and scale, and without bias: 0 in the mean where they have nothing in common. Read it against two "
        "parts of the same images, which differ by the choice of images alone and have fewer of them than the whole, "
        "and against permuted classes. By default, as in the study, the features are units averaged over positions: "
        "what is there, not where; with positions kept apart (flattened) the numbers are others.\n\n"
        "A probe shows what a linear classifier can find in a representation, not what the model makes of it. "
        "Averages over positions hold what is there, not where; a class that is read off within domains and not "
        "across them is written in each domain in another way."
    )
