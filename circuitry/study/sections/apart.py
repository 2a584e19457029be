"""The section that sets one domain apart from the others, as the study does with quickdraw."""

from collections.abc import Mapping

from circuitry.comparison.comparison import Comparison
from circuitry.reports.figures.heatmaps import similarity_heatmap
from circuitry.reports.figures.lines import overlap_over_depth
from circuitry.reports.figures.style import Mark, capitalised
from circuitry.reports.page import Report
from circuitry.reports.sections.compared import measure_name
from circuitry.study.domain_apart import apart_over_depth, means_without


def add_domain_apart(
    report: Report, comparisons: Mapping[str, Comparison], apart: str, marks: Mapping[str, Mark]
) -> None:
    """Add the study's view: each group of classes apart, and one domain against the others."""
    report.section(f"{capitalised(apart)} against the others")
    overlap = comparisons["node_overlap"]
    depth = apart_over_depth(overlap, apart)
    for group in overlap.groups:
        mine = depth[depth["group"] == group]
        if not mine["value"].notna().any():
            continue
        over_sites = mine.groupby("domain")["value"].mean()
        said = ", ".join(f"{name} {value:.3f}" for name, value in over_sites.items())
        title = f"Units shared with {apart} and without it ({group} classes)"
        report.figure(overlap_over_depth(mine, overlap.sites, title=title), f"Node overlap, mean over sites: {said}.")
    for name, comparison in comparisons.items():
        for group in comparison.groups:
            if group != "all":
                title = f"{measure_name(name)}, {group} classes"
                figure = similarity_heatmap(
                    comparison.matrix(group), title=title, measure=measure_name(name), marks=marks
                )
                n = comparison.values.loc[comparison.values["class"].isin(comparison.groups[group]), "class"].nunique()
                report.figure(figure, f"Means over {n} {group} classes.")
        table = means_without(comparison, apart)
        report.table(
            table, f"{measure_name(name)}: each domain's mean with the others, and without {apart} among them."
        )
