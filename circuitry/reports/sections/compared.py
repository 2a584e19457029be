"""The sections on any `Comparison`: how to read it, over depth, between domains, ratios, levels, summary, tests.

A caption explains its figure or table, picks values out of it and counts; it computes nothing.
"""

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
import plotly.graph_objects as go

from circuitry.comparison.ceiling import missing_ratios
from circuitry.comparison.comparison import Comparison
from circuitry.comparison.domain_testing import (
    THIS_MODEL,
    below_ceiling,
    could_find,
    too_few,
)
from circuitry.comparison.significance import LEVEL
from circuitry.reports.figures.heatmaps import similarity_heatmap
from circuitry.reports.figures.lines import overlap_over_depth
from circuitry.reports.figures.style import GREY, Mark, capitalised, measure_name
from circuitry.reports.page import Report


def with_intervals(
    table: pd.DataFrame, spec: str = ".3f", column: str = "value"
) -> pd.Series:
    """Return ``value [low, high]`` of every row; only the value where the interval is not known, a dash for neither.

    Example:
        >>> with_intervals(pd.DataFrame({"value": [0.5], "low": [0.25], "high": [0.75]})).tolist()
        ['0.500 [0.250, 0.750]']
    """
    rows = zip(table[column], table["low"], table["high"], strict=True)
    said = [
        "–"
        if pd.isna(value)
        else f"{value:{spec}}"
        + ("" if pd.isna(low) else f" [{low:{spec}}, {high:{spec}}]")
        for value, low, high in rows
    ]
    return pd.Series(said, table.index, dtype=object)


def depth_ends(depth: pd.DataFrame) -> str:
    """Say where the largest and the smallest value over depth is; columns domain, site, value, some of them known."""
    known = depth.dropna(subset="value")
    most, least = (
        known.iloc[place]
        for place in (known["value"].argmax(), known["value"].argmin())
    )
    return (
        f"Largest: {most['domain']} at {most['site']} ({most['value']:.2f}); smallest: {least['domain']} at "
        f"{least['site']} ({least['value']:.2f})."
    )


def add_comparison(
    report: Report, comparison: Comparison, marks: Mapping[str, Mark], *, title: str
) -> None:
    """Add everything on one comparison to a section, how to read it first."""
    add_reading(report, comparison)
    if comparison.sites:
        add_over_depth(report, comparison, marks)
    add_matrix(report, comparison, marks, title=title)
    add_ratios(report, comparison, marks, title=title)
    add_levels(report, comparison)
    add_summary(report, [comparison])
    add_tests(report, comparison)


def add_reading(report: Report, comparison: Comparison) -> None:
    """Add how to read values, ceilings, ratios and p values."""
    words = [
        f"How to read {measure_name(comparison.measure)}. A value compares the images of one class in two "
        f"domains{_images(comparison, 'n')}. Means are over classes, and so are their 95 % intervals."
    ]
    if comparison.has_ratios:
        words.append(
            "A value alone says little. So the images of each class and domain are cut into "
            f"parts{_images(comparison, 'n_per_part')}, which show different items. Two parts of one domain give the "
            "ceiling. The ratio to the ceiling compares parts of two domains with it, after subtracting chance from "
            "both: 1 means that two domains differ no more than two samples of one domain, 0 that they share no more "
            f"than {comparison.chance_of} do. Its intervals are over classes and images."
        )
    words.append(
        f"Every p value is about {THIS_MODEL}, not about other trainings of it."
    )
    words += filter(None, [too_few(comparison.n_classes, len(comparison.domains))])
    if comparison.left_out:
        sites = "; ".join(
            f"{site} ({reason})" for site, reason in comparison.left_out.items()
        )
        words.append(f"Means over sites leave out {sites}.")
    report.text(" ".join(words))


def add_over_depth(
    report: Report, comparison: Comparison, marks: Mapping[str, Mark], more: str = ""
) -> None:
    """Add the figures of each domain's mean with the other domains and of its ratio to the ceiling, site by site.

    Means are of parts where there are any, so that the ceiling drawn with them is of as many images. ``more`` ends the
    caption of the first.
    """
    name, parts = measure_name(comparison.measure), comparison.has_ratios
    depth = comparison.parts_over_depth() if parts else comparison.over_depth()
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
    words = [
        f"Mean {name} of each domain with the other domains, {_over(comparison, parts)}."
    ]
    words.append(_depth_words(comparison, depth))
    if len(ceiling):
        words.append(f"Dashed: two parts of one domain's images, {_range(ceiling)}.")
    if len(chance):
        words.append(f"Dotted: {comparison.chance_of}, {_range(chance)}.")
    report.figure(figure, " ".join(filter(None, [*words, more])))
    if not parts:
        return
    ratios = comparison.ratios_over_depth()
    shown = [
        site
        for site in comparison.sites
        if ratios.loc[ratios["site"] == site, "value"].notna().any()
    ]
    if shown:
        figure = overlap_over_depth(
            ratios, shown, measure=f"ratio of {name} to the ceiling", marks=marks
        )
        figure.add_hline(y=1, line={"color": GREY, "dash": "dash", "width": 1.5})
        report.figure(
            figure,
            f"Ratio of {name} to the ceiling (dashed), each domain with the others, {_over(comparison, parts)}. "
            f"{_depth_words(comparison, ratios)}",
        )


def draw_matrix(
    comparison: Comparison, *, title: str, marks: Mapping[str, Mark] | None = None
) -> go.Figure:
    """Draw the heat map of all pairs of domains, of all images."""
    return similarity_heatmap(
        comparison.matrix(),
        title=title,
        measure=f"{measure_name(comparison.measure)}, all images{_images(comparison, 'n')}",
        diagonal="a domain's own",
        marks=marks,
    )


def add_matrix(
    report: Report,
    comparison: Comparison,
    marks: Mapping[str, Mark],
    *,
    title: str,
    top: float | None = None,
    more: str = "",
) -> None:
    """Add the heat map of all pairs of domains, of all images.

    ``top`` is the value of the strongest colour, for several maps of one scale (default: the largest value); ``more``
    ends the caption.
    """
    matrix, figure = (
        comparison.matrix(),
        draw_matrix(comparison, title=title, marks=marks),
    )
    if top is not None:
        figure.update_traces(zmax=top)
    most, least = (
        ("Most similar", "least similar")
        if comparison.alike
        else ("Farthest", "nearest")
    )
    if comparison.directions is not None:
        most, least = "Largest", "smallest"
    words = (
        f"Means over classes{' and sites that count' if comparison.left_out else ''}."
    )
    report.figure(figure, f"{words} {_ends(matrix, most, least)} {more}".strip())


def add_ratios(
    report: Report, comparison: Comparison, marks: Mapping[str, Mark], *, title: str
) -> None:
    """Add the heat map and the table of the ratios to the ceiling; nothing without parts of two domains."""
    if not comparison.has_ratios:
        return
    name, ratios, tests = (
        measure_name(comparison.measure),
        comparison.ratios(),
        comparison.ceiling_tests(),
    )
    images = _images(comparison, "n_per_part")
    matrix = comparison.matrix(normalise=True)
    if matrix.notna().any(axis=None):
        figure = similarity_heatmap(
            matrix,
            title=f"{title}: ratio to the ceiling",
            measure=f"{name}{images}",
            marks=marks,
        )
        report.figure(
            figure,
            f"Shared structure as a share of the ceiling. {_ends(matrix, 'Largest', 'smallest')}",
        )
    table = pd.DataFrame(
        {
            "domain": ratios["domain_a"],
            "and": ratios["domain_b"],
            "ratio": with_intervals(ratios, ".2f"),
            "parts of both": ratios["similarity"],
            "ceilings": [
                f"{a:.3f}, {b:.3f}"
                for a, b in zip(ratios["ceiling_a"], ratios["ceiling_b"], strict=True)
            ],
            "classes": ratios["n_classes"],
            "below the ceiling by": with_intervals(tests, "+.3f", "difference"),
            "p (Holm)": tests["p_holm"],
            "detectable": tests["detectable"],
            "no ratio": ratios["note"],
        }
    )
    missing = missing_ratios(ratios)
    if not missing:
        del table["no ratio"]
    report.table(
        table,
        f"The numbers behind the ratios: {name} of parts of both domains, and the ceiling of each{images}. The test "
        "compares parts with the mean of both ceilings (Student's two-sided t, bootstrap over classes and images, "
        f"corrected for the number of pairs): {int(below_ceiling(tests).sum())} of {len(tests)} pairs are below it "
        f"with p < {LEVEL}. {int((ratios['low'] > 1).sum())} of {len(ratios)} ratios have an interval above 1."
        + could_find(tests)
        + f" {missing}".rstrip(),
        formats={"parts of both": ".3f", "p (Holm)": ".2g", "detectable": ".3f"},
        folded=True,
    )


def add_levels(report: Report, comparison: Comparison) -> None:
    """Add the table of reference levels and, where there are parts, the table of class by domain."""
    name, table = measure_name(comparison.measure), comparison.class_by_domain()
    report.table(
        comparison.levels(),
        f"{capitalised(name)} and what to compare it with; means over classes and domains.",
    )
    if table["p"].isna().all():
        return
    table = table.assign(value=with_intervals(table)).drop(
        columns=["low", "high", "about"]
    )
    report.table(
        table.rename(columns={"n_classes": "classes"}),
        f"Is it the class or the domain? {capitalised(name)} of different parts of the images"
        f"{_images(comparison, 'n_per_part')}, mean over sites. An effect is a difference of cells; its p comes from "
        "exchanging same and other, class by class.",
        formats={"p": ".2g", "detectable": ".3f"},
        folded=True,
    )


def add_summary(report: Report, comparisons: Sequence[Comparison]) -> None:
    """Add the table of each domain's mean with the others by every measure; the comparisons have the same groups.

    Nothing for two domains, whose means with each other are equal.
    """
    if len(comparisons[0].domains) < 3:
        return
    columns = {}
    for comparison in comparisons:
        part = comparison.summary().set_index(["domain", "group"])
        columns[measure_name(comparison.measure)] = with_intervals(part)
        columns["classes"] = part["n_classes"]
    table = (
        pd.DataFrame(columns)
        .reset_index()
        .sort_values("domain", kind="stable", ignore_index=True)
    )
    names = [measure_name(comparison.measure) for comparison in comparisons]
    group = ["group"] if len(comparisons[0].groups) > 1 else []
    report.table(
        table[["domain", *group, "classes", *names]],
        "Each domain's mean with the other domains, of all images, with 95 % intervals over classes.",
    )


def add_tests(report: Report, comparison: Comparison) -> None:
    """Add the table of tests between domains; nothing for two domains, whose means with each other are equal."""
    if comparison.directions is None and len(comparison.domains) < 3:
        return
    tests = comparison.tests()
    parts = comparison.has_ratios and comparison.directions is None
    of = f"parts{_images(comparison, 'n_per_part')}" if parts else "all images"
    names = {
        "domain_a": "domain",
        "domain_b": "against",
        "n_classes": "classes",
        "p_holm": "p (Holm)",
    }
    table = tests.assign(difference=with_intervals(tests, "+.3f", "difference")).drop(
        columns=["low", "high", "about"]
    )
    report.table(
        table.rename(columns=names),
        f"Does one domain have a larger mean {measure_name(comparison.measure)} with the others than another domain "
        f"has? Student's t paired by class, of {of}, corrected for the number of tests: "
        f"{int((tests['p_holm'] < LEVEL).sum())} of {len(tests)} have p < {LEVEL}."
        + could_find(tests),
        formats={"p": ".3g", "p (Holm)": ".3g", "detectable": ".3f"},
        folded=True,
    )


def _images(comparison: Comparison, key: str) -> str:
    """Say how many images are on either side, where that is known."""
    n = comparison.about.get(key)
    return "" if n is None else f" ({n:.3g} a side)"


def _over(comparison: Comparison, parts: bool) -> str:
    of = (
        f"parts{_images(comparison, 'n_per_part')}"
        if parts
        else f"all images{_images(comparison, 'n')}"
    )
    return f"of {of} (bars: 95 % intervals over classes{' and images' * parts})"


def _depth_words(comparison: Comparison, depth: pd.DataFrame) -> str:
    """Say where a domain has the largest and the smallest value, and which domain is most often the last."""
    known = depth.dropna(subset="value").reset_index(drop=True)
    by_site = known.groupby("site", sort=False)["value"]
    last = known.loc[
        by_site.idxmin() if comparison.alike else by_site.idxmax(), "domain"
    ].value_counts()
    if len(comparison.domains) < 3:
        return depth_ends(known)
    end = "lowest" if comparison.alike else "highest"
    return f"{depth_ends(known)} {last.index[0]} has the {end} value at {last.iloc[0]} of {last.sum()} sites."


def _ends(matrix: pd.DataFrame, most: str, least: str) -> str:
    """Say which two domains have the largest and which the smallest number of a matrix."""
    directed, off = matrix.index.name is not None, ~np.eye(len(matrix), dtype=bool)
    known = matrix.where(off if directed else np.triu(off)).stack().dropna()
    if known.empty:
        return "No two domains have a value."
    names = (
        f"{matrix.index.name} {{}}, {matrix.columns.name} {{}}"
        if directed
        else "{} and {}"
    )
    pairs, values = list(known.index), known.to_numpy(dtype=float)
    said = [
        f"{names.format(*pairs[place])} ({values[place]:.2f})"
        for place in (values.argmax(), values.argmin())
    ]
    return (
        f"{most}: {said[0]}; {least}: {said[1]}."
        if len(known) > 1
        else f"{capitalised(said[0])}."
    )


def _range(table: pd.DataFrame) -> str:
    return f"{table['value'].min():z.2f} to {table['value'].max():z.2f}"
