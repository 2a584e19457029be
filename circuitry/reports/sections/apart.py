"""The sections that set one domain apart from the others, as the study does with quickdraw."""

from collections.abc import Mapping, Sequence

import pandas as pd

from circuitry.comparison.comparison import Comparison
from circuitry.comparison.domain_apart import apart_over_depth, means_without
from circuitry.reports.figures.heatmaps import similarity_heatmap
from circuitry.reports.figures.lines import overlap_over_depth
from circuitry.reports.figures.style import MARKS, Mark, capitalised
from circuitry.reports.measure_names import measure_name
from circuitry.reports.page import Report

APART_MARKS = MARKS[6:8]
"""Marks of one domain with the others, and of the others among themselves: few sets of domains reach these."""


def add_domain_apart(
    report: Report, comparisons: Mapping[str, Comparison], apart: str, marks: Mapping[str, Mark]
) -> None:
    """Add the study's view: each group of classes alone, and one domain against the others."""
    report.section(f"{capitalised(apart)} against the others")
    overlap = comparisons["node_overlap"]
    depth = apart_over_depth(overlap, apart)
    for group in overlap.groups:
        title = f"Units shared with {apart} and without it ({group} classes)"
        add_two_lines(report, depth[depth["group"] == group], overlap.sites, "node overlap", title)
    for name, comparison in comparisons.items():
        for group in comparison.groups:
            if group != "all":
                title = f"{measure_name(name)}, {group} classes"
                matrix = comparison.matrix(group)
                figure = similarity_heatmap(matrix, title=title, measure=measure_name(name), marks=marks)
                report.figure(figure, f"Means over the {group} classes.")
        report.table(
            means_without(comparison, apart),
            f"{measure_name(name)}: each domain's mean with the others, and without {apart} among them; all: "
            f"the mean over all ordered pairs, and over those whose second domain is not {apart}.",
        )


def add_two_lines(
    report: Report, depth: pd.DataFrame, sites: Sequence[str], name: str, title: str | None = None
) -> None:
    """Add the figure of one domain with the others beside the others among themselves; nothing without a value.

    ``depth`` has their names in the column ``domain``, the one domain first.
    """
    if depth["value"].isna().all():
        return
    names = list(dict.fromkeys(depth["domain"]))
    words = f"Mean {name}: {'; '.join(names)}."
    if len(names) > 1:
        wide = depth.pivot(index="site", columns="domain", values="value")
        lower = int((wide[names[0]] < wide[names[1]]).sum())
        words += f" The first is lower at {lower} of {len(sites)} sites."
    marks = dict(zip(names, APART_MARKS, strict=False))
    report.figure(overlap_over_depth(depth, sites, measure=name, title=title, marks=marks), words)
