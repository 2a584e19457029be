"""The sections on a `Comparison`: its figures and tables, and a text on how to read them.

All numbers in captions are values of the figure or table, or counts of rows. Nothing else is computed here.
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
    """Return the text ``value [low, high]`` for every row.

    If the interval of a row is unknown, the text is the value alone. If the value is unknown, the text is a dash.

    Args:
        spec: Format specification of the numbers.
        column: Column of the value.

    Example:
        >>> with_intervals(pd.DataFrame({"value": [0.5], "low": [0.25], "high": [0.75]})).tolist()
        ['0.500 [0.250, 0.750]']
    """
    said = []
    for value, low, high in table[[column, "low", "high"]].to_numpy(dtype=float):
        if np.isnan(value):
            said.append("–")
        elif np.isnan(low):
            said.append(f"{value:{spec}}")
        else:
            said.append(f"{value:{spec}} [{low:{spec}}, {high:{spec}}]")
    return pd.Series(said, table.index, dtype=object)


def depth_ends(depth: pd.DataFrame) -> str:
    """Return a sentence that names the domain and site of the largest value, and of the smallest value.

    At least one value must be known.
    """
    known = depth.dropna(subset="value")
    most = known.iloc[known["value"].argmax()]
    least = known.iloc[known["value"].argmin()]
    return (
        f"Largest: {most['domain']} at {most['site']} ({most['value']:.2f}); smallest: {least['domain']} at "
        f"{least['site']} ({least['value']:.2f})."
    )


def add_comparison(
    report: Report, comparison: Comparison, marks: Mapping[str, Mark], *, title: str
) -> None:
    """Add all figures and tables of one comparison to the page, after a text on how to read them.

    Args:
        title: Heading of the heat maps.

    Example:
        >>> from circuitry.reports.figures import domain_marks
        >>> page = circuitry.reports.Report("Clocks and cups")
        >>> overlap = circuitry.compare_domains(graphs)["node_overlap"]
        >>> add_comparison(page, overlap, domain_marks(overlap.domains), title="Shared units")
        >>> len(page.plotly_figures)
        3
    """
    add_reading(report, comparison)
    if comparison.sites:
        add_over_depth(report, comparison, marks)
    add_matrix(report, comparison, marks, title=title)
    add_ratios(report, comparison, marks, title=title)
    add_levels(report, comparison)
    add_summary(report, [comparison])
    add_tests(report, comparison)


def add_reading(report: Report, comparison: Comparison) -> None:
    """Add a text on how to read the values, ceilings, ratios and p values of a comparison."""
    words = [
        f"How to read {measure_name(comparison.measure)}. A value compares the images of one class in two "
        f"domains{_images(comparison, 'n')}. Means are over classes, and so are their 95 % intervals."
    ]
    if comparison.has_ratios:
        words.append(
            "A value alone says little. So the images of each class and domain are cut into "
            f"folds{_images(comparison, 'n_per_fold')}, which show different items. Two folds of one domain give the "
            "ceiling. The ratio to the ceiling compares folds of two domains with it, after subtracting chance from "
            "both: 1 means that two domains differ no more than two samples of one domain, 0 that they share no more "
            f"than {comparison.chance_of} do. Its intervals are over classes and images."
        )
    words.append(
        f"Every p value is about {THIS_MODEL}, not about other trainings of it."
    )
    if few := too_few(comparison.n_classes, len(comparison.domains)):
        words.append(few)
    if comparison.left_out:
        reasons = [f"{site} ({why})" for site, why in comparison.left_out.items()]
        sites = "; ".join(reasons)
        words.append(f"Means over sites leave out {sites}.")
    report.text(" ".join(words))


def add_over_depth(
    report: Report, comparison: Comparison, marks: Mapping[str, Mark], more: str = ""
) -> None:
    """Add two figures over the sites: each domain's mean similarity with the other domains, and the mean ratio.

    The ratio is the similarity relative to the ceiling (`Comparison.ratios`). If there are folds of two domains, the
    means in the first figure are over pairs of folds. Ceilings compare folds, too, so means and ceilings are based on
    equally many images. If there are no folds, the means are of all images, and there is no second figure.

    Args:
        more: Last sentence of the first caption.

    Example:
        >>> from circuitry.reports.figures import domain_marks
        >>> page = circuitry.reports.Report("Clocks and cups")
        >>> overlap = circuitry.compare_domains(graphs)["node_overlap"]
        >>> add_over_depth(page, overlap, domain_marks(overlap.domains))
        >>> list(page.plotly_figures)
        ['figure-1', 'figure-2']
    """
    name = measure_name(comparison.measure)
    has_folds = comparison.has_ratios
    # Values of all images lie above a ceiling of folds, which have fewer images: folds are compared with folds.
    depth = comparison.folds_over_depth() if has_folds else comparison.over_depth()
    ceiling = comparison.ceiling_by_site()
    chance = comparison.chance
    # A table without rows is no reference, and charts refuse it.
    references = [table if len(table) else None for table in (ceiling, chance)]
    over = _over(comparison, has_folds)
    figure = overlap_over_depth(
        depth,
        comparison.sites,
        *references,
        measure=f"{name} with the other domains",
        chance_label=comparison.chance_of,
        marks=marks,
    )
    words = [f"Mean {name} of each domain with the other domains, {over}."]
    words.append(_depth_words(comparison, depth))
    if len(ceiling):
        words.append(f"Dashed: two folds of one domain's images, {_range(ceiling)}.")
    if len(chance):
        words.append(f"Dotted: {comparison.chance_of}, {_range(chance)}.")
    if more:
        words.append(more)
    report.figure(figure, " ".join(words))
    if not has_folds:
        return
    ratios = comparison.ratios_over_depth()
    # Sites whose ceilings are weak have no ratio, and no place on the axis.
    with_ratios = set(ratios.dropna(subset="value")["site"])
    shown = [site for site in comparison.sites if site in with_ratios]
    if shown:
        measure = f"ratio of {name} to the ceiling"
        figure = overlap_over_depth(ratios, shown, measure=measure, marks=marks)
        figure.add_hline(y=1, line={"color": GREY, "dash": "dash", "width": 1.5})
        report.figure(
            figure,
            f"Ratio of {name} to the ceiling (dashed), each domain with the others, {over}. "
            f"{_depth_words(comparison, ratios)}",
        )


def draw_matrix(
    comparison: Comparison, *, title: str, marks: Mapping[str, Mark] | None = None
) -> go.Figure:
    """Draw the heat map of the similarity of all pairs of domains, computed from all images (not from folds)."""
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
    """Add the heat map of the similarity of all pairs of domains, computed from all images (not from folds).

    Args:
        title: Heading of the map.
        top: Value that has the strongest colour (default: the largest value). Several maps with the same ``top`` have
            the same colour scale.
        more: Last sentence of the caption.

    Example:
        >>> from circuitry.reports.figures import domain_marks
        >>> page = circuitry.reports.Report("Clocks and cups")
        >>> overlap = circuitry.compare_domains(graphs)["node_overlap"]
        >>> add_matrix(page, overlap, domain_marks(overlap.domains), title="Shared units")
        >>> list(page.plotly_figures)
        ['figure-1']
    """
    figure = draw_matrix(comparison, title=title, marks=marks)
    if top is not None:
        figure.update_traces(zmax=top)
    ends = ("Farthest", "nearest")
    if comparison.alike:
        ends = ("Most similar", "least similar")
    over = "classes and sites that count" if comparison.left_out else "classes"
    caption = f"Means over {over}. {_ends(comparison.matrix(), *ends)} {more}"
    report.figure(figure, caption.strip())


def add_ratios(
    report: Report, comparison: Comparison, marks: Mapping[str, Mark], *, title: str
) -> None:
    """Add the heat map and the table of the ratios to the ceiling.

    If there are no folds of two domains, nothing is added.

    Args:
        title: Beginning of the heading of the map. The words ": ratio to the ceiling" are appended.
    """
    if not comparison.has_ratios:
        return
    name = measure_name(comparison.measure)
    ratios = comparison.ratios()
    tests = comparison.ceiling_tests()
    images = _images(comparison, "n_per_fold")
    matrix = comparison.matrix(normalise=True)
    if matrix.notna().any(axis=None):
        figure = similarity_heatmap(
            matrix,
            title=f"{title}: ratio to the ceiling",
            measure=f"{name}{images}",
            marks=marks,
        )
        ends = _ends(matrix, "Largest", "smallest")
        report.figure(figure, f"Shared structure as a share of the ceiling. {ends}")
    # Pairs of `ratios` and of `ceiling_tests` are in the same order.
    ceilings = ratios[["ceiling_a", "ceiling_b"]].map("{:.3f}".format)
    table = pd.DataFrame(
        {
            "domain": ratios["domain_a"],
            "and": ratios["domain_b"],
            "ratio": with_intervals(ratios, ".2f"),
            "folds of both": ratios["similarity"],
            "ceilings": ceilings.agg(", ".join, axis=1),
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
    caption = (
        f"The numbers behind the ratios: {name} of folds of both domains, and the ceiling of each{images}. The test "
        "compares folds with the mean of both ceilings (Student's two-sided t, bootstrap over classes and images, "
        f"corrected for the number of pairs): {below_ceiling(tests).sum()} of {len(tests)} pairs are below it "
        f"with p < {LEVEL}. {(ratios['low'] > 1).sum()} of {len(ratios)} ratios have an interval above 1."
        f"{could_find(tests)} {missing}"
    )
    formats = {"folds of both": ".3f", "p (Holm)": ".2g", "detectable": ".3f"}
    report.table(table, caption.rstrip(), formats=formats, folded=True)


def add_levels(report: Report, comparison: Comparison) -> None:
    """Add the table of the levels to compare the values with, such as similarities of folds and the chance level.

    If there are folds of several classes, also add the table that compares the effects of class and domain.
    """
    name = capitalised(measure_name(comparison.measure))
    levels = f"{name} and what to compare it with; means over classes and domains."
    report.table(comparison.levels(), levels)
    table = comparison.class_by_domain()
    # Without folds, or with one class, there is no effect to show.
    if table["p"].isna().all():
        return
    report.table(
        _with_cells(table, ".3f", "value"),
        f"Is it the class or the domain? {name} of different folds of the images"
        f"{_images(comparison, 'n_per_fold')}, mean over sites. An effect is a difference of cells; its p comes from "
        "exchanging same and other, class by class.",
        formats={"p": ".2g", "detectable": ".3f"},
        folded=True,
    )


def _with_cells(tests: pd.DataFrame, spec: str, column: str) -> pd.DataFrame:
    """Return a table of tests in a form for readers of a report.

    The value and its interval are in one cell. The column ``about``, which says what p is about, is left out. Columns
    have plain names.

    Args:
        spec: Format specification of the value and its interval.
        column: Column of the value.
    """
    cells = {column: with_intervals(tests, spec, column)}
    table = tests.assign(**cells).drop(columns=["low", "high", "about"])
    names = {"domain_a": "domain", "domain_b": "against"}
    return table.rename(columns=names | {"n_classes": "classes", "p_holm": "p (Holm)"})


def add_summary(report: Report, comparisons: Sequence[Comparison]) -> None:
    """Add a table of each domain's mean similarity with the other domains, with a column for each measure.

    All comparisons must have the same groups. With two domains nothing is added, because both have the same mean.

    Example:
        >>> page = circuitry.reports.Report("Clocks and cups")
        >>> add_summary(page, list(circuitry.compare_domains(graphs).values()))
    """
    if len(comparisons[0].domains) < 3:
        return
    columns = {}
    # All comparisons have the same groups, so the last number of classes stands for all.
    for comparison in comparisons:
        summary = comparison.summary().set_index(["domain", "group"])
        columns["classes"] = summary["n_classes"]
        columns[measure_name(comparison.measure)] = with_intervals(summary)
    table = pd.DataFrame(columns).reset_index()
    table = table.sort_values("domain", kind="stable", ignore_index=True)
    if len(comparisons[0].groups) == 1:
        del table["group"]
    report.table(
        table,
        "Each domain's mean with the other domains, of all images, with 95 % intervals over classes.",
    )


def add_tests(report: Report, comparison: Comparison) -> None:
    """Add the table of tests between domains: does one have a larger mean similarity with the other domains?

    If there are two domains, nothing is added, because both domains have the same mean.

    Example:
        >>> page = circuitry.reports.Report("Clocks and cups")
        >>> add_tests(page, circuitry.compare_domains(graphs)["node_overlap"])
    """
    if len(comparison.domains) < 3:
        return
    tests = comparison.tests()
    of = "all images"
    if comparison.has_ratios:
        of = f"folds{_images(comparison, 'n_per_fold')}"
    report.table(
        _with_cells(tests, "+.3f", "difference"),
        f"Does one domain have a larger mean {measure_name(comparison.measure)} with the others than another domain "
        f"has? Student's t paired by class, of {of}, corrected for the number of tests: "
        f"{(tests['p_holm'] < LEVEL).sum()} of {len(tests)} have p < {LEVEL}.{could_find(tests)}",
        formats={"p": ".3g", "p (Holm)": ".3g", "detectable": ".3f"},
        folded=True,
    )


def _images(comparison: Comparison, key: str) -> str:
    """Return a text in brackets that says from how many images each of the two compared objects was computed.

    If the number is unknown, the text is empty.

    Args:
        key: Key in `Comparison.about` under which the number is stored.
    """
    n = comparison.about.get(key)
    return "" if n is None else f" ({n:.3g} a side)"


def _over(comparison: Comparison, of_folds: bool) -> str:
    """Return a phrase that says over which images means are taken, and how their intervals are made.

    Args:
        of_folds: Whether the means are over pairs of folds. Otherwise all images are compared.
    """
    if of_folds:
        images = _images(comparison, "n_per_fold")
        return f"of folds{images} (bars: 95 % intervals over classes and images)"
    images = _images(comparison, "n")
    return f"of all images{images} (bars: 95 % intervals over classes)"


def _depth_words(comparison: Comparison, depth: pd.DataFrame) -> str:
    """Return sentences on the largest value, on the smallest value, and on the least similar domain.

    The last sentence names the domain that is least similar to the other domains at the largest number of sites. With
    two domains this sentence is left out.
    """
    known = depth.dropna(subset="value").reset_index(drop=True)
    ends = depth_ends(known)
    if len(comparison.domains) < 3:
        return ends
    # The last domain is the least similar domain. If values are distances, it has the highest value.
    by_site = known.groupby("site", sort=False)["value"]
    rows = by_site.idxmin() if comparison.alike else by_site.idxmax()
    last = known.loc[rows, "domain"].value_counts()
    end = "lowest" if comparison.alike else "highest"
    return f"{ends} {last.index[0]} has the {end} value at {last.iloc[0]} of {last.sum()} sites."


def _ends(matrix: pd.DataFrame, most: str, least: str) -> str:
    """Return a sentence on the largest and the smallest number of a matrix. Both are given with their two domains.

    Args:
        most, least: Words before the largest number, and before the smallest number.
    """
    shown = ~np.eye(len(matrix), dtype=bool)
    name = "{} and {}"
    if matrix.index.name is None:
        # Both orders of a pair have one number.
        shown = np.triu(shown)
    else:
        name = f"{matrix.index.name} {{}}, {matrix.columns.name} {{}}"
    known = matrix.where(shown).stack().dropna().astype(float)
    if known.empty:
        return "No two domains have a value."
    pairs = list(known.index)
    values = known.to_numpy(dtype=float)
    top = values.argmax()
    bottom = values.argmin()
    largest = f"{name.format(*pairs[top])} ({values[top]:.2f})"
    smallest = f"{name.format(*pairs[bottom])} ({values[bottom]:.2f})"
    if len(known) == 1:
        return f"{capitalised(largest)}."
    return f"{most}: {largest}; {least}: {smallest}."


def _range(table: pd.DataFrame) -> str:
    return f"{table['value'].min():z.2f} to {table['value'].max():z.2f}"
