"""The report on embedding separation, in plain words computed from the tables they speak of."""

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd

from circuitry.comparison.comparison import Comparison
from circuitry.comparison.domain_tests import THIS_MODEL
from circuitry.reports.figures.scatters import embedding_maps, measure_against_measure, separation_panels
from circuitry.reports.figures.style import Mark, capitalised
from circuitry.reports.page import Finding, Report
from circuitry.reports.sections.compared import add_matrix, add_tests, measure_name, with_intervals
from circuitry.reports.sections.findings import what_changes, which_differs
from circuitry.representations.cells import ALL
from circuitry.representations.projection import COMPONENTS
from circuitry.study.separation_summary import by_seed, differences, summarise

PANELS = (
    "standardised distance",
    "silhouette by domain",
    "domain probe",
    "modality gap",
    "accuracy, seen classes",
    "accuracy, held-out classes",
)
"""Measures that are drawn; those that a table lacks are left out."""


def separation_findings(
    measures: pd.DataFrame, distances: Mapping[str, Sequence[Comparison]], test_domain: str | None = None
) -> list[Finding]:
    """Answer whether domains lie apart: which is farthest in each kind of model, and what changes between the kinds.

    ``distances`` are by model, of which the first measure is taken (see `add_distances`); what changes is said of
    ``test_domain`` (default: the farthest one in the first kind).
    """
    first, *_, last = [*distances, *distances]
    found = [which_differs(distances[first][0])]
    if first == last:
        return found
    domain = test_domain or str(distances[first][0].summary().set_index("domain")["value"].idxmax())
    change = differences(measures, first, last)
    named = ("standardised distance", *(name for name in PANELS if name.startswith("accuracy")))
    return [*found, which_differs(distances[last][0]), what_changes(change, first, last, domain, named)]


def panel_references(measures: pd.DataFrame, n_classes: int) -> dict[str, float]:
    """Return what guessing reaches, by measure."""
    accuracies = [name for name in dict.fromkeys(measures["measure"]) if name.startswith("accuracy")]
    return {"domain probe": 0.5} | dict.fromkeys(accuracies, 1 / n_classes)


def add_maps(report: Report, points: pd.DataFrame, marks: Mapping[str, Mark], what: str) -> None:
    """Add the section with the maps, a `map_table` for each ``model``; ``what`` says of which seed they are."""
    report.section("Where do the images lie?")
    images = points[points["kind"] == "image"]
    most = int(images.groupby(["model", "domain"]).size().max())
    texts = " and class prompts in every style (crosses)" if len(images) < len(points) else ""
    stands_in = (
        " Principal components stand in for UMAP, which was not asked for or needs the package umap-learn "
        "(pip install 'clip-circuitry[umap]')."
        if points["method"].str.startswith(COMPONENTS).any()
        else ""
    )
    report.figure(
        embedding_maps(points, marks=marks),
        f"Images (marks of their domain){texts} in one plane, up to {most:,} of each domain at random, all drawn; "
        f"{what}.{stands_in} On a map by UMAP neighbours are neighbours, but the distance between far groups and their "
        "size mean little; principal components keep large distances and may lay groups over each other. Numbers "
        "follow below.",
    )


def add_distances(report: Report, distances: Mapping[str, Sequence[Comparison]], marks: Mapping[str, Mark]) -> None:
    """Add the section on which domains lie apart from which, from `compare_distances` of each model.

    Each model has a comparison by the same measures in turn; the models of a measure share a scale of colours.
    """
    report.section("Which domains lie apart?")
    for of_models in zip(*distances.values(), strict=True):
        top = max(float(np.nanmax(comparison.matrix())) for comparison in of_models)
        for model, comparison in zip(distances, of_models, strict=True):
            title = f"{capitalised(measure_name(comparison.measure))} between domains, {model}"
            add_matrix(report, comparison, marks, title=title, top=top)
            add_tests(report, comparison)


def add_separation(
    report: Report,
    measures: pd.DataFrame,
    marks: Mapping[str, Mark],
    references: Mapping[str, float],
    test_domain: str | None = None,
) -> None:
    """Add the section that sets the models side by side, and accuracy beside separation.

    ``measures`` are from `gather`, ``references`` from `panel_references`; sentences speak of ``test_domain`` (default:
    the one farthest from the others).
    """
    summary = summarise(measures)
    single = summary[summary["domain"] != ALL]
    drawn = [name for name in PANELS if name in set(single["measure"])]
    models = list(dict.fromkeys(measures["model"]))
    n_seeds = int(summary["n_seeds"].max())
    report.section("How far do the domains lie apart, and does accuracy follow?")
    seeds = by_seed(measures) if n_seeds > 1 else None
    report.figure(
        separation_panels(single, drawn, seeds, references, marks=marks),
        f"Each domain by {len(drawn)} measures, for {_listed(models)}. "
        "Bars: 95 % intervals over classes (Student's t); "
        + (f"short strokes: the {n_seeds} seeds. " if n_seeds > 1 else "one seed. ")
        + "Dotted: guessing. "
        + _all_words(summary),
    )
    if len(models) < 2:
        return
    first, last = models[0], models[-1]
    change = differences(measures, first, last)
    change = change[change["domain"] != ALL].assign(said=lambda rows: with_intervals(rows, "+.2f", "difference"))
    distances = single[(single["measure"] == "standardised distance") & (single["model"] == first)]
    domain = test_domain or str(distances.set_index("domain")["value"].idxmax())
    accuracy = next(name for name in reversed(PANELS) if name in drawn and name.startswith("accuracy"))
    (distance, other_distances), (accurate, other_accuracies) = (
        _changes(change, measure, domain) for measure in ("standardised distance", accuracy)
    )
    report.figure(
        measure_against_measure(single, "standardised distance", accuracy, marks=marks),
        f"From {first} (filled) to {last} (hollow): distance to the other domains and {accuracy}. {domain}: distance "
        f"{distance}, {accuracy} {accurate}; the other domains: distance {other_distances}, {accuracy} "
        f"{other_accuracies}.",
    )
    cells = change[change["measure"].isin(drawn)].pivot(index="measure", columns="domain", values="said")
    report.table(
        cells.loc[drawn].rename_axis(columns=None).reset_index(),
        f"What changes from {first} to {last}: differences with 95 % intervals over classes (Student's t), paired by "
        "class (none for probe and gap, which are not of a class).",
    )


def add_separation_guide(report: Report) -> None:
    """Add the section on what was computed and how to read it, which comes first."""
    report.section("How to read this")
    report.text(
        "All embeddings are divided by their length. Distances are taken class by class between the mean of a class "
        "in two domains, so that different things in the domains do not count, and averaged. Euclidean: as in the "
        "study. Standardised: divided by the spread of the images around their means; a space that shrinks as a whole "
        "keeps its standardised distances. Parts of the same images show how far means lie apart by chance; parts have "
        "fewer images than the whole, so they lie farther apart.\n\n"
        "Silhouette: near 1 where an image is much nearer to its own domain (all classes) than to the next, near 0 "
        "where domains mix, below 0 where an image is nearer to another domain. Domain probe: balanced accuracy of a "
        "linear classifier that tells a domain from the others; it may find a small difference that no distance "
        "shows. Modality gap: distance between the mean image of a domain and the mean class prompt.\n\n"
        f"Intervals are over classes, and p values are about {THIS_MODEL}, of several seeds about their mean. Neither "
        "holds the differences between trainings; the seeds show those. Domains that come together and classes that "
        "are recognised are two claims: accuracy can stay where it was."
    )


def _all_words(summary: pd.DataFrame) -> str:
    """The modality gap of all images together, and the probe that names the domain."""
    whole = summary[summary["domain"] == ALL].set_index(["measure", "model"])["value"]
    words = []
    for measure, start in (
        ("modality gap", "Modality gap of all images"),
        ("domain probe", "Balanced accuracy of one probe that names the domain"),
    ):
        if measure in whole.index.get_level_values(0):
            values = ", ".join(f"{value:.2f} ({model})" for model, value in whole[measure].items())
            words.append(f"{start}: {values}.")
    return " ".join(words)


def _changes(change: pd.DataFrame, measure: str, domain: str) -> tuple[str, str]:
    """Return what is said of one domain, and the range of the others."""
    rows = change[change["measure"] == measure]
    others = rows.loc[rows["domain"] != domain, "difference"]
    span = f"{others.min():+.2f} to {others.max():+.2f}" if len(others) else "–"
    return str(rows.loc[rows["domain"] == domain, "said"].iloc[0]), span


def _listed(names: Sequence[str]) -> str:
    return " and ".join([", ".join(names[:-1]), names[-1]] if len(names) > 1 else names)
