"""The report on embedding separation."""

from collections.abc import Mapping, Sequence

from circuitry.comparison import Comparison
from circuitry.comparison.domain_tests import THIS_MODEL
from circuitry.reports import Finding, Report
from circuitry.reports.figures import Mark
from circuitry.reports.figures.style import capitalised
from circuitry.reports.measure_names import measure_name
from circuitry.reports.sections.compared import add_matrix, add_summary, add_tests, with_intervals
from circuitry.reports.sections.findings import which_differs
from circuitry.representations.cells import ALL
from experiments.study.projection import COMPONENTS
from experiments.study.separation_charts import embedding_maps, measure_against_measure, separation_panels
from experiments.study.separation_summary import by_seed, differences, summarise

import numpy as np
import pandas as pd

PANELS = (
    "standardised distance",
    "silhouette by domain",
    "domain probe",
    "modality gap",
    "accuracy, seen classes",
    "accuracy, held-out classes",
)
"""Measures that are drawn, where a table has them."""


def separation_findings(
    measures: pd.DataFrame, distances: Mapping[str, Sequence[Comparison]], test_domain: str | None = None
) -> list[Finding | None]:
    """Say which domain is farthest in each kind of model, and what changes between the kinds.

    ``distances`` are by model; the first measure counts (see `add_distances`). The change is that of ``test_domain``
    (default: the farthest one in the first kind).
    """
    first, *_, last = [*distances, *distances]
    found = [which_differs(distances[first][0])]
    if first == last:
        return found
    domain = test_domain or str(distances[first][0].summary().set_index("domain")["value"].idxmax())
    change = differences(measures, first, last)
    named = ("standardised distance", *(name for name in PANELS if name.startswith("accuracy")))
    return [*found, which_differs(distances[last][0]), what_changes(change, first, last, domain, named)]


def what_changes(change: pd.DataFrame, first: str, last: str, domain: str, measures: Sequence[str]) -> Finding:
    """Say what changes for a domain from one kind of model to another: from `differences`."""
    rows = change[change["domain"] == domain].set_index("measure").reindex(list(measures)).dropna(subset="difference")
    clear = (rows["low"] > 0) | (rows["high"] < 0)
    said = ", ".join(
        f"{name} {value}{'' if sure else ' (unclear)'}"
        for name, value, sure in zip(rows.index, with_intervals(rows, "+.2f", "difference"), clear, strict=True)
    )
    return Finding(
        f"From {first} to {last}, {domain} changes by: {said or 'nothing that is known'}.",
        f"95 % intervals over {rows['n_classes'].max() if len(rows) else 0} classes, paired, after averaging over "
        "seeds; they leave out how far seeds differ.",
        "More seeds: a difference between two kinds of models needs several of each.",
    )


def panel_references(measures: pd.DataFrame, n_classes: int) -> dict[str, float]:
    """Return what guessing reaches, by measure."""
    accuracies = [name for name in dict.fromkeys(measures["measure"]) if name.startswith("accuracy")]
    return {"domain probe": 0.5} | dict.fromkeys(accuracies, 1 / n_classes)


def add_maps(report: Report, points: pd.DataFrame, marks: Mapping[str, Mark], what: str) -> None:
    """Add the section with the maps, a `map_table` for each ``model``; ``what`` names their seed."""
    report.section("Where do the images lie?")
    images = points[points["kind"] == "image"]
    most = int(images.groupby(["model", "domain"]).size().max())
    texts = " and class prompts in every style (crosses)" if len(images) < len(points) else ""
    no_umap = (
        " Principal components replace UMAP, which was not asked for or needs the package umap-learn "
        "(pip install umap-learn)."
        if points["method"].str.startswith(COMPONENTS).any()
        else ""
    )
    report.figure(
        embedding_maps(points, marks=marks),
        f"Images (marks of their domain){texts} in one plane, up to {most:,} of each domain at random; "
        f"{what}.{no_umap} In a map by UMAP neighbours are neighbours, but distances between groups and their sizes "
        "mean little. Principal components keep large distances, but may put groups on top of each other.",
    )


def add_distances(report: Report, distances: Mapping[str, Sequence[Comparison]], marks: Mapping[str, Mark]) -> None:
    """Add the section on distances between domains, from `compare_distances` of each model.

    Each model has a comparison by the same measures in turn; the models of a measure share a scale of colours.
    """
    report.section("Which domains are far apart?")
    for of_models in zip(*distances.values(), strict=True):
        top = max(float(np.nanmax(comparison.matrix())) for comparison in of_models)
        for model, comparison in zip(distances, of_models, strict=True):
            title = f"{capitalised(measure_name(comparison.measure))} between domains, {model}"
            add_matrix(report, comparison, marks, title=title, top=top)
            add_summary(report, [comparison])
            add_tests(report, comparison)


def add_separation(
    report: Report,
    measures: pd.DataFrame,
    marks: Mapping[str, Mark],
    references: Mapping[str, float],
) -> None:
    """Add the section that sets the models side by side, and accuracy beside separation.

    ``measures`` are from `gather`, ``references`` from `panel_references`.
    """
    summary = summarise(measures)
    single = summary[summary["domain"] != ALL]
    drawn = [name for name in PANELS if name in set(single["measure"])]
    models = list(dict.fromkeys(measures["model"]))
    n_seeds = int(summary["n_seeds"].max())
    report.section("How far apart are the domains, and does accuracy follow?")
    report.figure(
        separation_panels(single, drawn, by_seed(measures) if n_seeds > 1 else None, references, marks=marks),
        "Each domain by several measures. Bars: 95 % intervals over classes (Student's t). "
        + (f"Short strokes: the {n_seeds} seeds. " if n_seeds > 1 else "One seed. ")
        + "Dotted: guessing.",
    )
    whole = summary[summary["domain"] == ALL]
    report.table(
        whole.pivot(index="measure", columns="model", values="value")[models].rename_axis(columns=None).reset_index(),
        "Measures of all domains together; the domain probe is one classifier of all domains (balanced accuracy).",
    )
    if len(models) < 2:
        return
    first, last = models[0], models[-1]
    accuracy = next(name for name in reversed(PANELS) if name in drawn and name.startswith("accuracy"))
    report.figure(
        measure_against_measure(single, "standardised distance", accuracy, marks=marks),
        f"From {first} (filled) to {last} (hollow): distance to the other domains and {accuracy}.",
    )
    change = differences(measures, first, last)
    change = change[(change["domain"] != ALL) & change["measure"].isin(drawn)]
    cells = change.assign(said=with_intervals(change, "+.2f", "difference"))
    wide = cells.pivot(index="measure", columns="domain", values="said").loc[drawn]
    report.table(
        wide.rename_axis(columns=None).reset_index(),
        f"Differences from {first} to {last} with 95 % intervals over classes (Student's t), paired by class; none for "
        "probe and gap, which have no classes.",
    )


def add_separation_guide(report: Report) -> None:
    """Add the section on what was computed and how to read it, which comes first."""
    report.section("How to read this", folded=True)
    report.text(
        "All embeddings are divided by their length. A distance is the mean over classes of the distance between the "
        "means of a class in two domains, so that different classes in the domains do not count. Euclidean: as in the "
        "study. Standardised: divided by the spread of the images around their means, so that it does not change when "
        "the whole space shrinks. Parts of the same images show how far apart means are by chance; they have fewer "
        "images than the whole, so their distances are larger.\n\n"
        "Silhouette: near 1 if images are much nearer to their own domain than to the next, near 0 if domains mix, "
        "below 0 if images are nearer to another domain. Domain probe: balanced accuracy of a linear classifier for "
        "one domain against the others; it may find small differences that no distance shows. Modality gap: distance "
        "between the mean image of a domain and the mean class prompt.\n\n"
        f"Intervals are over classes; p values are about {THIS_MODEL}, or about the mean of several seeds. Neither "
        "includes the differences between trainings, which the seeds show. Less separation does not imply better "
        "recognition: look at accuracy, too."
    )
