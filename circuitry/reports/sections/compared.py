"""The sections on any `Comparison`: over depth, between domains, levels, summary, tests, each in plain words.

Every sentence is computed from the tables it speaks of and states numbers alone; what they mean is for the experiment
that asked. Drawing and page layout live elsewhere.
"""

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd

from circuitry.comparison.comparison import Comparison
from circuitry.reports.figures.heatmaps import similarity_heatmap
from circuitry.reports.figures.lines import overlap_over_depth
from circuitry.reports.figures.style import Mark, capitalised
from circuitry.reports.page import Report

MEASURE_NAMES = {
    "edge_jaccard": "edge Jaccard index",
    "wl_kernel": "Weisfeiler-Lehman kernel, depth 1",
    "spearman": "Spearman's correlation of scores",
    "cosine": "cosine of scores",
    "cka_linear": "CKA, linear kernel",
    "cka_rbf": "CKA, rbf kernel",
}
"""What measures are called; the others as their files, with spaces."""


def measure_name(measure: str) -> str:
    """Return what a measure is called in figures and sentences."""
    return MEASURE_NAMES.get(measure, measure.replace("_", " "))


def with_intervals(table: pd.DataFrame, spec: str = ".3f", column: str = "value") -> pd.Series:
    """Return ``value [low, high]`` of every row; only the value where the interval is not known.

    Example:
        >>> with_intervals(pd.DataFrame({"value": [0.5], "low": [0.25], "high": [0.75]})).tolist()
        ['0.500 [0.250, 0.750]']
    """
    rows = zip(table[column], table["low"], table["high"], strict=True)
    said = [
        f"{value:{spec}}" + ("" if pd.isna(low) else f" [{low:{spec}}, {high:{spec}}]") for value, low, high in rows
    ]
    return pd.Series(said, table.index, dtype=object)


def add_comparison(report: Report, comparison: Comparison, marks: Mapping[str, Mark], *, title: str) -> None:
    """Add everything on one comparison to a section: over depth where it has sites, matrix, levels, summary, tests."""
    if comparison.sites:
        add_over_depth(report, comparison, marks)
    add_matrix(report, comparison, marks, title=title)
    add_levels(report, comparison)
    add_summary(report, [comparison])
    add_tests(report, comparison)


def add_over_depth(report: Report, comparison: Comparison, marks: Mapping[str, Mark], more: str = "") -> None:
    """Add the figure of each domain's mean with the other domains, site by site; ``more`` ends its caption."""
    name, depth = measure_name(comparison.measure), comparison.over_depth()
    ceiling, chance = comparison.ceiling_by_site(), comparison.chance
    figure = overlap_over_depth(
        depth,
        comparison.sites,
        ceiling if len(ceiling) else None,
        chance if len(chance) else None,
        measure=f"{name} with the other domains",
        chance_label=comparison.chance_of,
        marks=marks,
    )
    known = depth.dropna(subset="value")
    by_site = known.groupby("site", sort=False)["value"]
    mean, least = by_site.mean(), known.loc[by_site.idxmin() if comparison.alike else by_site.idxmax(), "domain"]
    domain, times = least.value_counts().index[0], int(least.value_counts().iloc[0])
    words = (
        f"Mean {name} of each domain with the other domains, over up to {comparison.n_classes} classes (bars: 95 % "
        f"intervals over classes). It is largest at {mean.idxmax()} ({mean.max():.2f}) and smallest at {mean.idxmin()} "
        f"({mean.min():.2f}). {domain} has the {'lowest' if comparison.alike else 'highest'} at {times} of {len(mean)} "
        "sites."
    )
    references = []
    if len(ceiling):
        references.append(f"two halves of the same images reach {_range(ceiling)} (dashed)")
    if len(chance):
        references.append(f"{comparison.chance_of} {'' if references else 'reach '}{_range(chance)} (dotted)")
    if references:
        words += f" {capitalised(', '.join(references))}."
    report.figure(figure, f"{words} {more}".strip())


def add_matrix(
    report: Report,
    comparison: Comparison,
    marks: Mapping[str, Mark],
    *,
    title: str,
    top: float | None = None,
    more: str = "",
) -> None:
    """Add the heat map of all pairs of domains.

    ``top`` is the value of the strongest colour, for several maps of one scale (default: the largest value); ``more``
    ends the caption.
    """
    diagonal = "split-half ceiling" if comparison.alike else "two halves of the same images"
    figure = similarity_heatmap(
        comparison.matrix(),
        title=title,
        measure=measure_name(comparison.measure),
        diagonal=diagonal if comparison.directions is None else "a domain's own",
        marks=marks,
    )
    if top is not None:
        figure.update_traces(zmax=top)
    report.figure(figure, f"{_pair_words(comparison)} {_domain_words(comparison)} {more}".strip())


def add_levels(report: Report, comparison: Comparison) -> None:
    """Add the table of what the values are read against."""
    name = measure_name(comparison.measure)
    report.table(comparison.levels(), f"What {name} is read against; means over classes and domains.")


def add_summary(report: Report, comparisons: Sequence[Comparison]) -> None:
    """Add the table of each domain's mean with the others by every measure; the comparisons have the same groups."""
    columns = {}
    for comparison in comparisons:
        part = comparison.summary().set_index(["domain", "group"])
        columns[measure_name(comparison.measure)] = with_intervals(part)
        columns["classes"] = part["n_classes"]
    table = pd.DataFrame(columns).reset_index().sort_values("domain", kind="stable", ignore_index=True)
    names = [measure_name(comparison.measure) for comparison in comparisons]
    several = len(comparisons[0].groups) > 1
    report.table(
        table[["domain", *(["group"] if several else []), "classes", *names]],
        "Each domain's mean with the other domains, with 95 % intervals over classes"
        + (", for all classes and for groups of them." if several else "."),
    )


def add_tests(report: Report, comparison: Comparison) -> None:
    """Add the table of paired tests between domains."""
    tests = comparison.tests()
    known = tests["p_holm"].dropna()
    report.table(
        tests.rename(
            columns={"domain_a": "domain", "domain_b": "against", "n_classes": "classes", "p_holm": "p (Holm)"}
        ),
        f"Is the mean {measure_name(comparison.measure)} of one domain with the others larger than another's? Wilcoxon "
        "signed-rank tests paired by class, corrected for their number; "
        f"{int((known < 0.05).sum())} of {len(tests)} have a corrected p below 0.05.",
        formats={"difference": "+.3f", "p": ".3g", "p (Holm)": ".3g"},
    )


def _pair_words(comparison: Comparison) -> str:
    """Say which two domains are the most alike, and which the least."""
    values = comparison.values
    pairs = values[values["domain_a"] != values["domain_b"]].groupby(["domain_a", "domain_b"])["value"].mean()
    ranked = pairs.dropna().sort_values(ascending=not comparison.alike, kind="stable")
    if ranked.empty:
        return "No pair of domains has a value."
    names = [f"{a} and {b}" for a, b in ranked.index]
    most, least = ("most alike are", "least alike") if comparison.alike else ("nearest are", "farthest")
    if comparison.directions is not None:
        what_a, what_b = comparison.directions
        names = [f"{what_a} {a}, {what_b} {b}" for a, b in ranked.index]
        most, least = "highest is", "lowest"
    return (
        f"Mean over up to {comparison.n_classes} classes. The {most} {names[0]} ({ranked.iloc[0]:.3f}), the {least} "
        f"{names[-1]} ({ranked.iloc[-1]:.3f})."
    )


def _domain_words(comparison: Comparison) -> str:
    """Say which domain is the most like all others, and what pairs reach of the ceilings."""
    summary = comparison.summary().query("group == 'all'").dropna(subset="value")
    if summary.empty:
        return ""
    ranked = summary.sort_values("value", ascending=not comparison.alike, kind="stable")
    (first, last), said = ranked["domain"].iloc[[0, -1]], with_intervals(ranked)
    most, least = ("most alike", "least") if comparison.alike else ("nearest", "farthest")
    words = f"With the other domains, {first} is the {most} ({said.iloc[0]}) and {last} the {least} ({said.iloc[-1]})."
    if not len(comparison.ceilings) or comparison.directions is not None:
        return words
    if not comparison.alike:
        return f"{words} Two halves of the same images lie {comparison.ceilings['value'].mean():.3f} apart (dotted)."
    normalised = comparison.matrix(normalise=True).to_numpy(copy=True)
    np.fill_diagonal(normalised, np.nan)
    if np.isnan(normalised).all():
        return words
    return f"{words} Relative to the ceilings, pairs reach {np.nanmin(normalised):.0%} to {np.nanmax(normalised):.0%}."


def _range(table: pd.DataFrame) -> str:
    return f"{table['value'].min():z.2f} to {table['value'].max():z.2f}"
