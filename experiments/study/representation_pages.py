"""The sections of a report on representations: CKA and linear probes."""

from collections.abc import Mapping

from circuitry.reports import Finding, Report
from circuitry.reports.figures import Mark
from circuitry.reports.measure_names import measure_name
from circuitry.reports.sections.apart import add_two_lines
from circuitry.reports.sections.compared import add_matrix, add_over_depth, with_intervals
from circuitry.reports.sections.findings import how_much_shared, which_differs
from circuitry.representations import RepresentationSimilarity, SiteProbes
from experiments.study.representation_charts import TARGET_MARKS, probes_over_depth

import pandas as pd


def representation_findings(
    similarity: RepresentationSimilarity, parts: pd.DataFrame, probes: SiteProbes
) -> list[Finding | None]:
    """Answer whether domains share a representation, by linear CKA at the last site and by probes."""
    first = next(iter(similarity.comparisons(parts).values()))
    last = first.at(first.sites[-1])
    return [how_much_shared(last, "arrangement of the classes"), which_differs(last), what_probes_decode(probes.sites)]


def what_probes_decode(sites: pd.DataFrame) -> Finding:
    """Say what linear probes decode at the last site against the first: from ``sites`` of `probe_sites`."""
    said = sites.assign(said=with_intervals(sites, ".2f"))
    first, last = (
        ", ".join(f"the {target} {value}" for target, value in zip(rows["target"], rows["said"], strict=True))
        for rows in (said[said["site"] == site] for site in said["site"].iloc[[0, -1]])
    )
    chances = sites.drop_duplicates("target")
    guess = ", ".join(f"the {t} {chance:.2f}" for t, chance in zip(chances["target"], chances["chance"], strict=True))
    return Finding(
        f"At {sites['site'].iloc[-1]} a linear probe decodes {last} (balanced accuracy).",
        f"95 % intervals over folds, or over the domain that is left out. Guessing: {guess}. At "
        f"{sites['site'].iloc[0]}: {first}.",
        "Other images; a non-linear probe. A probe shows what can be decoded, not what the model uses.",
    )


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
    report.section(f"Are classes arranged in the same way in every domain?{of}")
    comparisons = list(similarity.comparisons(parts).values())
    for comparison in comparisons:
        add_over_depth(report, comparison, marks, "CKA compares the means of classes.")
        kernel = similarity.apart["kernel"] == comparison.measure.removeprefix("cka_")
        add_two_lines(report, similarity.apart[kernel], comparison.sites, measure_name(comparison.measure))
    last = comparisons[0].at(comparisons[0].sites[-1])
    site = last.sites[0]
    add_matrix(report, last, marks, title=f"CKA at {site}{of}", more=f"Of class means at {site}, the last site.")


def add_probes(report: Report, probes: SiteProbes) -> None:
    """Add the section on linear probes."""
    report.section("What can be decoded, and where?")
    words = [
        "Balanced accuracy of linear classifiers on each unit's activation averaged over positions (bars: 95 % "
        "intervals over folds, and over domains where one is left out); images of one item are never on both sides."
    ]
    for target in TARGET_MARKS:
        values = probes.sites[probes.sites["target"] == target].set_index("site")["value"]
        best, worst = str(values.idxmax()), str(values.idxmin())
        words.append(f"The {target}: best at {best} ({values[best]:.2f}), worst at {worst} ({values[worst]:.2f}).")
    report.figure(probes_over_depth(probes.sites), " ".join(words))
    by_domain = probes.left_out.pivot(index="site", columns="domain", values="value")
    by_domain = by_domain.loc[list(dict.fromkeys(probes.left_out["site"]))]
    report.table(
        by_domain.rename_axis(columns=None),
        "Class across domains: accuracy on the images of one domain, by a classifier of all other domains.",
        formats=dict.fromkeys(by_domain.columns, ".0%"),
    )


def add_representation_guide(report: Report) -> None:
    """Add the section on what was computed and how to read it."""
    report.section("How to read this", folded=True)
    report.text(
        "CKA asks whether two domains arrange the classes in the same way: whether classes that are close in one "
        "domain are close in the other, in whatever directions. It is 1 if the arrangements differ only by a rotation "
        "and a scale. It has no bias: its mean is 0 for unrelated arrangements. Compare it with two parts of the same "
        "images, which have fewer images than the whole, and with permuted classes. By default features are units "
        "averaged over positions, as in the study; with positions kept (flattened) the numbers are different.\n\n"
        "A probe shows what a linear classifier can decode from a representation, not what the model makes of it. "
        "Averages over positions keep what is in an image, not where. A class that is decoded within domains but not "
        "across them is represented differently in each domain."
    )
