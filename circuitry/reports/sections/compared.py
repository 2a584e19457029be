"""The sections on any `Comparison`: how to read it, over depth, between domains, ratios, levels, summary, tests.

Every sentence is computed from the tables it speaks of and states numbers alone; what they mean is for the experiment
that asked. Drawing and page layout live elsewhere.
"""

from collections.abc import Mapping, Sequence

import pandas as pd

from circuitry.comparison.comparison import Comparison
from circuitry.comparison.domain_tests import THIS_MODEL, below_ceiling
from circuitry.comparison.significance import LEVEL
from circuitry.reports.figures.heatmaps import similarity_heatmap
from circuitry.reports.figures.lines import overlap_over_depth
from circuitry.reports.figures.style import GREY, Mark, capitalised
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
    """Add how values, ceilings, ratios and p values are to be read, before any of them."""
    words = [
        f"How to read {measure_name(comparison.measure)}. Values compare all images of a class in two domains"
        f"{_images(comparison, 'n')}; they are means over classes, and their 95 % intervals are over classes, each of "
        "which has images of its own."
    ]
    if comparison.has_ratios:
        words.append(
            f"A bare value says little, so the images are cut into parts{_images(comparison, 'n_per_part')}. Parts of "
            "two domains are set against different parts of one domain, the ceiling: other items and as many images on "
            "either side. The ratio to the ceiling, above chance on both sides of the fraction, is 1 for two domains "
            "that are no more different than two samples of one, and 0 for domains that share no more than "
            f"{comparison.chance_of} do. Its intervals are over classes and images."
        )
    words.append(
        "Every p value is about one trained model, and says nothing on whether another one, trained alike, would show "
        "the same. A test that could not be significant with as few classes says so."
    )
    if comparison.left_out:
        sites = "; ".join(f"{site} ({reason})" for site, reason in comparison.left_out.items())
        words.append(f"These sites have no part in means over sites: {sites}.")
    report.text(" ".join(words))


def add_over_depth(report: Report, comparison: Comparison, marks: Mapping[str, Mark], more: str = "") -> None:
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
    references = []
    if len(ceiling):
        references.append(f"two parts of the same images reach {_range(ceiling)} (dashed)")
    if len(chance):
        references.append(f"{comparison.chance_of} {'' if references else 'reach '}{_range(chance)} (dotted)")
    words = f"Mean {name} of each domain with the other domains, {_over(comparison, parts)}. "
    words += _depth_words(comparison, depth)
    if references:
        words += f" {capitalised(', '.join(references))}."
    report.figure(figure, f"{words} {more}".strip())
    if not parts:
        return
    ratios = comparison.ratios_over_depth()
    shown = [site for site in comparison.sites if ratios.loc[ratios["site"] == site, "value"].notna().any()]
    if shown:
        figure = overlap_over_depth(ratios, shown, measure=f"ratio of {name} to the ceiling", marks=marks)
        figure.add_hline(y=1, line={"color": GREY, "dash": "dash", "width": 1.5})
        report.figure(
            figure,
            f"Ratio of {name} to the ceiling, each domain with the others, {_over(comparison, parts)}. At 1 (dashed) "
            f"two domains are as alike as two samples of one. {_depth_words(comparison, ratios)}",
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
    figure = similarity_heatmap(
        comparison.matrix(),
        title=title,
        measure=f"{measure_name(comparison.measure)}, all images{_images(comparison, 'n')}",
        diagonal="a domain's own",
        marks=marks,
    )
    if top is not None:
        figure.update_traces(zmax=top)
    report.figure(figure, f"{_pair_words(comparison)} {_domain_words(comparison)} {more}".strip())


def add_ratios(report: Report, comparison: Comparison, marks: Mapping[str, Mark], *, title: str) -> None:
    """Add the heat map and the table of the ratios to the ceiling; nothing without parts of two domains."""
    if not comparison.has_ratios:
        return
    name, ratios, tests = measure_name(comparison.measure), comparison.ratios(), comparison.ceiling_tests()
    images = _images(comparison, "n_per_part")
    matrix = comparison.matrix(normalise=True)
    if matrix.notna().any(axis=None):
        figure = similarity_heatmap(
            matrix, title=f"{title}: ratio to the ceiling", measure=f"{name}{images}", marks=marks
        )
        report.figure(figure, _ratio_words(ratios))
    table = pd.DataFrame(
        {
            "domain": ratios["domain_a"],
            "and": ratios["domain_b"],
            "ratio": with_intervals(ratios, ".2f"),
            "parts of both": ratios["similarity"],
            "ceilings": [f"{a:.3f}, {b:.3f}" for a, b in zip(ratios["ceiling_a"], ratios["ceiling_b"], strict=True)],
            "classes": ratios["n_classes"],
            "below the ceiling by": with_intervals(tests, "+.3f", "difference"),
            "p (Holm)": tests["p_holm"],
            "note": tests["note"],
        }
    )
    report.table(
        table,
        f"What the ratios are made of: {name} of parts of both domains and the ceilings of either{images}. Does it "
        "differ from the mean of both ceilings? Student's two-sided t from the dual bootstrap over classes and images, "
        f"corrected for the number of pairs; {int(below_ceiling(tests).sum())} of {len(tests)} lie below with a "
        f"corrected p below {LEVEL}, about {THIS_MODEL}.",
        formats={"parts of both": ".3f", "p (Holm)": ".2g"},
    )


def add_levels(report: Report, comparison: Comparison) -> None:
    """Add the table of what the values are read against, and that of class by domain where there are parts."""
    name, table = measure_name(comparison.measure), comparison.class_by_domain()
    report.table(comparison.levels(), f"What {name} is read against; means over classes and domains.")
    if table["p"].isna().all():
        return
    table = table.assign(value=with_intervals(table)).drop(columns=["low", "high"])
    effects = table["p"].notna()
    words = " ".join(
        f"The {what} is {value} (p {p:.2g})."
        for what, value, p in zip(table["what"][effects], table["value"][effects], table["p"][effects], strict=True)
    )
    report.table(
        table.rename(columns={"n_classes": "classes", "about": "p is about"}),
        f"Is it the class or the domain? {capitalised(name)} of different parts of the images"
        f"{_images(comparison, 'n_per_part')}, over sites; effects are differences of cells. {words} p is that of "
        "exchanging, class by class, what is the same and what is other.",
        formats={"p": ".2g"},
    )


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
        f"Each domain's mean with the other domains, of all images{_images(comparisons[0], 'n')}, with 95 % intervals "
        "over classes" + (", for all classes and for groups of them." if several else "."),
    )


def add_tests(report: Report, comparison: Comparison) -> None:
    """Add the table of tests between domains, with what p is about and what could not be shown."""
    tests = comparison.tests()
    known, parts = tests["p_holm"].dropna(), comparison.has_ratios and comparison.directions is None
    of = f"parts{_images(comparison, 'n_per_part')}" if parts else "all images"
    impossible = int((tests["note"] != "").sum())
    words = f" {impossible} could not be, with as few classes." if impossible else ""
    names = {"domain_a": "domain", "domain_b": "against", "n_classes": "classes", "p_holm": "p (Holm)"}
    table = tests.assign(difference=with_intervals(tests, "+.3f", "difference")).drop(columns=["low", "high"])
    report.table(
        table.rename(columns={**names, "about": "p is about"}),
        f"Is the mean {measure_name(comparison.measure)} of one domain with the others larger than another's? "
        f"Student's t paired by class, of {of}, corrected for the number of tests; {int((known < LEVEL).sum())} of "
        f"{len(tests)} have a corrected p below {LEVEL}.{words}",
        formats={"p": ".3g", "p (Holm)": ".3g"},
    )


def _images(comparison: Comparison, key: str) -> str:
    """Say how many images are on either side, where that is known."""
    n = comparison.about.get(key)
    return "" if n is None else f" ({n:.3g} a side)"


def _over(comparison: Comparison, parts: bool) -> str:
    what = f"of parts{_images(comparison, 'n_per_part')}, " if parts else f"of all images{_images(comparison, 'n')}, "
    return f"{what}over up to {comparison.n_classes} classes (bars: 95 % intervals over classes{' and images' * parts})"


def _depth_words(comparison: Comparison, depth: pd.DataFrame) -> str:
    """Say where the mean over domains is largest and smallest, and which domain is most often the last."""
    known = depth.dropna(subset="value")
    by_site = known.groupby("site", sort=False)["value"]
    mean, least = by_site.mean(), known.loc[by_site.idxmin() if comparison.alike else by_site.idxmax(), "domain"]
    domain, times = least.value_counts().index[0], int(least.value_counts().iloc[0])
    return (
        f"It is largest at {mean.idxmax()} ({mean.max():.2f}) and smallest at {mean.idxmin()} ({mean.min():.2f}). "
        f"{domain} has the {'lowest' if comparison.alike else 'highest'} at {times} of {len(mean)} sites."
    )


def _ratio_words(ratios: pd.DataFrame) -> str:
    """Say which two domains share the largest part of what could be shared, and which the smallest."""
    ranked = ratios.dropna(subset="value").sort_values("value", ascending=False, kind="stable")
    said = with_intervals(ranked, ".2f")
    most, least = (f"{ranked['domain_a'].iloc[i]} and {ranked['domain_b'].iloc[i]} ({said.iloc[i]})" for i in (0, -1))
    beyond = int((ranked["low"] > 1).sum())
    exceed = f"{beyond} of {len(ranked)} pairs lie" if beyond else "No pair lies"
    return (
        f"How much of what could be shared is shared: of 1, the largest are {most}, the smallest {least}. "
        f"{exceed} above the ceiling by more than its interval."
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
    """Say which domain is the most like all others, and which the least."""
    summary = comparison.summary().query("group == 'all'").dropna(subset="value")
    if summary.empty:
        return ""
    ranked = summary.sort_values("value", ascending=not comparison.alike, kind="stable")
    (first, last), said = ranked["domain"].iloc[[0, -1]], with_intervals(ranked)
    most, least = ("most alike", "least") if comparison.alike else ("nearest", "farthest")
    return f"With the other domains, {first} is the {most} ({said.iloc[0]}) and {last} the {least} ({said.iloc[-1]})."


def _range(table: pd.DataFrame) -> str:
    return f"{table['value'].min():z.2f} to {table['value'].max():z.2f}"
