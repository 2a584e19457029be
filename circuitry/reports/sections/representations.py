"""The sections of a report on representations, in plain words computed from the tables they speak of."""

from collections.abc import Mapping

import pandas as pd

from circuitry.reports.figures.lines import probes_over_depth
from circuitry.reports.figures.style import Mark
from circuitry.reports.page import Report
from circuitry.reports.sections.compared import add_matrix, add_over_depth
from circuitry.representations.probes import TARGETS, SiteProbes
from circuitry.representations.similarity import RepresentationSimilarity


def add_cka(
    report: Report, similarity: RepresentationSimilarity, ceilings: pd.DataFrame, marks: Mapping[str, Mark]
) -> None:
    """Add the section on CKA: over depth by every kernel, and between all domains at the last site.

    ``similarity`` is from `compare_representations`, ``ceilings`` from `compare_representation_halves`.
    """
    report.section("Are classes arranged alike in every domain?")
    comparisons = list(similarity.comparisons(ceilings).values())
    for comparison in comparisons:
        share = (comparison.values["p"] <= 0.05).mean()
        more = f"Of class means; {share:.0%} of all pairs and sites have p of at most 0.05, uncorrected."
        add_over_depth(report, comparison, marks, more)
    last = comparisons[0].at(comparisons[0].sites[-1])
    site = last.sites[0]
    add_matrix(report, last, marks, title=f"CKA at {site}", more=f"Of class means at {site}, the last site.")


def add_probes(report: Report, probes: SiteProbes) -> None:
    """Add the section on linear probes."""
    report.section("What can be read off, and where?")
    words = (
        "Balanced accuracy of linear classifiers on each unit's activation averaged over positions (bars: 95 % "
        "intervals over folds, and over domains where one is left out)."
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
        "halves of the same images, which differ by the choice of images alone, and against permuted classes.\n\n"
        "A probe shows what a linear classifier can find in a representation, not what the model makes of it. "
        "Averages over positions hold what is there, not where; a class that is read off within domains and not "
        "across them is written in each domain in another way."
    )
