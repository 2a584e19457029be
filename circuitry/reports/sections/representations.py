"""The sections of a report on representations, in plain words computed from the tables they speak of."""

from collections.abc import Mapping

import pandas as pd

from circuitry.comparison.table import domain_matrix
from circuitry.reports.figures.heatmaps import similarity_heatmap
from circuitry.reports.figures.over_depth import cka_over_depth, probes_over_depth
from circuitry.reports.figures.style import Mark
from circuitry.reports.page import Report
from circuitry.representations.probes import TARGETS, SiteProbes
from circuitry.representations.similarity import RepresentationSimilarity


def add_cka(
    report: Report,
    similarity: RepresentationSimilarity,
    ceilings: pd.DataFrame,
    marks: Mapping[str, Mark],
) -> None:
    """Add the section on CKA: over depth by every kernel, and between all domains at the last site.

    Args:
        report: The report.
        similarity: From `compare_representations`.
        ceilings: From `compare_representation_halves`.
        marks: The looks of the domains.
    """
    report.section("Are classes arranged alike in every domain?")
    kernels = list(dict.fromkeys(similarity.domains["kernel"]))
    for kernel in kernels:
        figure = cka_over_depth(similarity.domains, ceilings, kernel=kernel, marks=marks)
        report.figure(figure, _cka_words(similarity, ceilings, kernel))
    last, kernel = str(similarity.pairs["site"].iloc[-1]), kernels[0]
    at_last = similarity.pairs.query("site == @last and kernel == @kernel")
    matrix = domain_matrix(at_last.assign(**{"class": "all"}), ceilings.query("site == @last and kernel == @kernel"))
    ranked = at_last.sort_values("value")
    least, most = ranked.iloc[0], ranked.iloc[-1]
    report.figure(
        similarity_heatmap(matrix, title=f"CKA at {last}", measure=f"CKA, {kernel} kernel", marks=marks),
        "CKA of class means between domains at the last site. The most alike are "
        f"{most['domain_a']} and {most['domain_b']} ({most['value']:.2f}), the least "
        f"{least['domain_a']} and {least['domain_b']} ({least['value']:.2f}).",
    )


def add_probes(report: Report, probes: SiteProbes) -> None:
    """Add the section on linear probes."""
    report.section("What can be read off, and where?")
    words = [
        "Balanced accuracy of linear classifiers on each unit's activation averaged over positions (bars: 95 % "
        "intervals over folds, and over domains where one is left out)."
    ]
    for target in TARGETS:
        rows = probes.sites[probes.sites["target"] == target].set_index("site")
        best, worst = str(rows["value"].idxmax()), str(rows["value"].idxmin())
        words.append(
            f"The {target} is read off best at {best} ({rows['value'][best]:.0%}) and worst at {worst} "
            f"({rows['value'][worst]:.0%}; guessing: {rows['chance'].iloc[0]:.1%})."
        )
    report.figure(probes_over_depth(probes.sites), " ".join(words))
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


def _cka_words(similarity: RepresentationSimilarity, ceilings: pd.DataFrame, kernel: str) -> str:
    domains = similarity.domains[similarity.domains["kernel"] == kernel]
    pairs = similarity.pairs[similarity.pairs["kernel"] == kernel]
    mean = domains.groupby("site", sort=False)["value"].mean()
    highest, lowest = str(mean.idxmax()), str(mean.idxmin())
    least = domains.loc[domains.groupby("site", sort=False)["value"].idxmin(), "domain"].value_counts()
    halves = ceilings[ceilings["kernel"] == kernel].groupby("site", sort=False)["value"].mean()
    return (
        f"Mean CKA of each domain with the other domains, of class means, {kernel} kernel, up to "
        f"{pairs['n_classes'].max()} classes (bars: 95 % jackknife intervals over classes). On average over domains "
        "it is "
        f"largest at {highest} ({mean[highest]:.2f}) and smallest at {lowest} ({mean[lowest]:.2f}). {least.index[0]} "
        f"has the lowest at {least.iloc[0]} of {len(mean)} sites. Two halves of a domain's images reach "
        f"{halves.min():.2f} to {halves.max():.2f} (dashed), permuted classes "
        f"{domains['null_mean'].min():z.2f} to {domains['null_mean'].max():z.2f} (dotted); "
        f"{(pairs['p'] <= 0.05).mean():.0%} of all pairs and sites have p of at most 0.05, uncorrected."
    )
