"""Do the images of a domain lie apart in the embedding space, and do captions without style words bring them together?

This program compares kinds of models, perhaps with several seeds each. For example, one kind was trained with standard
captions, which often name the style ("a sketch of a fish"), and another kind with aligned captions, which never name
it. Distances between domains, silhouettes, linear probes of the domain, the modality gap and zero-shot accuracy are
measured on embeddings of test images and class prompts. The images are mapped, with and without the test domain.

The study finds that quickdraw lies apart, that aligned captions bring it closer, and that accuracy on the held-out
classes does not follow. The first finding is refuted if another domain lies farther from all other domains than
quickdraw. The second is refuted if the distance does not shrink. The third is refuted if accuracy rises when the
distance shrinks.

    python -m experiments.study separation --models standard=a/epoch_32.pt aligned=b/epoch_32.pt \\
        --model RN50 --data DomainNet --study --out runs/domainnet/separation

The same name twice means two seeds of one kind of model.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from operator import attrgetter
from pathlib import Path
from typing import Annotated, NamedTuple

from circuitry.runs import Count, InputError, one_of, versions
from circuitry import DomainFolder, load_clip
from circuitry.comparison import FOLDS, Comparison
from circuitry.data import Decoding, SeedOption, SmallTables, chosen_names, class_key
from circuitry.reports import (
    Finding,
    Report,
    Written,
    add_matrix,
    add_summary,
    add_tests,
    listings_of,
    measure_name,
    which_differs,
    with_intervals,
    write_results,
)
from circuitry.reports.figures import Mark, domain_marks, style
from experiments.representations.embeddings import embed_images, embed_texts
from experiments.study import separation
from experiments.study.separation_charts import (
    PANELS,
    embedding_maps,
    panel_references,
    separation_panels,
)

import numpy as np
import pandas as pd


def separation_findings(
    change: pd.DataFrame | None,
    distances: Mapping[str, Sequence[Comparison]],
    test_domain: str | None = None,
) -> list[Finding | None]:
    """Say which domain lies farthest apart in the first and the last kind of model, and what changes between them.

    Args:
        change: Table of `differences` of the two kinds; `None` for a single kind.
        distances: Distances by the name of each kind, by each of `DISTANCES`.
        test_domain: The domain whose changes are told (default: the domain that lies farthest apart).
    """
    kinds = list(distances)
    before = distances[kinds[0]][0]
    if change is None:
        return [which_differs(before)]
    by_domain = before.summary().set_index("domain")["value"]
    domain = test_domain or str(by_domain.idxmax())
    accuracies = [name for name in PANELS if name.startswith("accuracy")]
    rows = change[change["domain"] == domain].set_index("measure")
    rows = rows.reindex(["standardised distance", *accuracies])
    rows = rows.dropna(subset="difference")
    said = (rows.index + " " + with_intervals(rows, "+.2f", "difference")).tolist()
    n_classes = max(rows["n_classes"], default=0)
    changes = Finding(
        f"From {kinds[0]} to {kinds[-1]}, {domain} changes by: {', '.join(said) or 'nothing that is known'}.",
        f"95 % intervals over {n_classes} classes, paired, after averaging over seeds; they leave out how far seeds "
        "differ.",
        "More seeds: a difference between two kinds of models needs several of each.",
    )
    after = distances[kinds[-1]][0]
    return [which_differs(before), which_differs(after), changes]


def add_maps(report: Report, points: pd.DataFrame, marks: Mapping[str, Mark]) -> None:
    """Add the section with the maps: rows of `map_table`, a map for each value of the column model."""
    report.section("Where do the images lie?")
    more = ""
    if points["method"].str.startswith(separation.COMPONENTS).any():
        more = " Without umap-learn (pip install umap-learn) principal components replace UMAP."
    report.figure(
        embedding_maps(points, marks=marks),
        "Images in one plane, at random, of the first seed of each model. In a map by UMAP neighbours are neighbours, "
        "but distances between groups and their sizes mean little. Principal components keep large distances, but may "
        f"put groups on top of each other.{more}",
    )


def add_distances(
    report: Report,
    distances: Mapping[str, Sequence[Comparison]],
    marks: Mapping[str, Mark],
) -> None:
    """Add the section on distances between domains, from `compare_distances` of each model."""
    report.section("Which domains are far apart?")
    # One measure after the other; all models have one scale of colours, so that their matrices compare.
    for of_models in zip(*distances.values(), strict=True):
        top = max(float(np.nanmax(comparison.matrix())) for comparison in of_models)
        for model, comparison in zip(distances, of_models, strict=True):
            measure = style.capitalised(measure_name(comparison.measure))
            title = f"{measure} between domains, {model}"
            add_matrix(report, comparison, marks, title=title, top=top)
            add_summary(report, [comparison])
            add_tests(report, comparison)


def add_separation(
    report: Report,
    measures: pd.DataFrame,
    change: pd.DataFrame | None,
    marks: Mapping[str, Mark],
    references: Mapping[str, float],
) -> None:
    """Add the section that compares the models, and accuracy with separation.

    Args:
        measures: Table of `gather`.
        change: Table of `differences` of the first and the last kind of model; `None` for a single kind.
        marks: Marks of the domains.
        references: Chance levels by measure.
    """
    summary = separation.summarise(measures)
    single = summary[summary["domain"] != separation.ALL]
    together = summary[summary["domain"] == separation.ALL]
    drawn = [name for name in PANELS if name in set(single["measure"])]
    several = summary["n_seeds"].max() > 1
    seeds = None
    told = "One seed."
    # The strokes of a single seed would lie on the points.
    if several:
        seeds = separation.by_seed(measures)
        told = "Short strokes: the seeds."
    report.section("How far apart are the domains, and does accuracy follow?")
    report.figure(
        separation_panels(single, drawn, seeds, references, marks=marks),
        f"Each domain by several measures. Bars: 95 % intervals over classes (Student's t). {told} Dotted: guessing.",
    )
    wide = together.pivot(index="measure", columns="model", values="value")
    # `pivot` sorts models by name: they are in the order of the command line.
    wide = wide[measures["model"].unique()]
    report.table(
        wide.rename_axis(columns=None).reset_index(),
        "Measures of all domains together; the domain probe is one classifier of all domains (balanced accuracy).",
    )
    if change is not None:
        # All domains together have no column: they are in the table before.
        of_domains = change["domain"] != separation.ALL
        change = change[of_domains & change["measure"].isin(drawn)]
        cells = change.assign(said=with_intervals(change, "+.2f", "difference"))
        wide = cells.pivot(index="measure", columns="domain", values="said").loc[drawn]
        report.table(
            wide.rename_axis(columns=None).reset_index(),
            "Differences from the first to the last kind of model with 95 % intervals over classes (Student's t), "
            "paired by class; none for probe and gap, which have no classes.",
        )


def add_separation_guide(report: Report) -> None:
    """Add the section that explains the measures, which comes first."""
    report.section("How to read this", folded=True)
    report.text(
        "All embeddings are divided by their length. A distance is the mean over classes of the distance between the "
        "means of a class in two domains. Euclidean: as in the study. Standardised: divided by the spread of the "
        "images around their means, so that it does not change when the whole space shrinks. Folds of the same images "
        "show how far apart means are by chance; they have fewer images than the whole, so they lie farther apart.\n\n"
        "Silhouette: near 1 if images are much nearer to their own domain than to the next, near 0 if domains mix. "
        "Domain probe: balanced accuracy of a linear classifier for one domain against the others. Modality gap: "
        "distance between the mean image of a domain and the mean class prompt.\n\n"
        "Intervals are over classes; p values are about this trained model, or about the mean of several seeds. "
        "Neither includes the differences between trainings, which the seeds show. Less separation does not imply "
        "better recognition: look at accuracy, too."
    )


DISTANCES = ("standardised", "euclidean")
"""Distances that are compared: one that does not change when the whole space shrinks, and the study's."""


@dataclass(frozen=True, kw_only=True)
class Config:
    """Settings of the measurement."""

    out: Path = Path("runs/embedding-separation")
    """Folder of the results: embeddings, tables and the report."""
    results: SmallTables = None
    models: tuple[str, ...]
    """Models as name=checkpoint; the first name is compared with the last name."""
    model: str = "rn-tiny"
    """The model: its architecture, an open_clip name, a name shipped here, or the path of a model-config JSON."""
    data: Path
    """Folder of the images: <domain>/<class>/<file>."""
    split: str | None = "test"
    """Which of DomainNet's lists to use, if there are lists."""
    test_domain: str | None = None
    """Test domain, out of which classes were held in training; a second map leaves it out."""
    held_out: tuple[str, ...] = ()
    """Held-out classes: their accuracy is measured separately (default: none)."""
    n_images: Count | None = 50
    """Images of a class in a domain, at random by --seed; all where there are fewer, or with None."""
    map: Annotated[str, one_of("auto", "umap", "pca")] = "auto"
    """How embeddings are mapped: umap, pca, or auto, which is UMAP if umap-learn is installed and pca otherwise."""
    decoding: Decoding = "upright"
    device: str = "cpu"
    """Where the model runs: cpu, cuda, mps."""
    seed: SeedOption = 0


class ComparedModels(NamedTuple):
    """The images and checkpoints that are compared."""

    images: DomainFolder
    checkpoints: dict[tuple[str, int], Path]  # by name and seed
    test_domain: str | None
    held_out: tuple[str, ...]


class Measured(NamedTuple):
    """The measurements of one checkpoint."""

    digest: str  # of the weights
    measures: pd.DataFrame  # of `separation_measures`
    distances: tuple[Comparison, ...]  # by each of `DISTANCES`
    means: pd.DataFrame  # of `mean_distances`
    points: list[pd.DataFrame]  # maps; empty except for the first seed of a kind


def main(config: Config) -> Written:
    """Measure every model, write the results, and print where the report is."""
    compared = compared_models(config)
    measured = dict[tuple[str, int], Measured]()
    for (name, seed), checkpoint in compared.checkpoints.items():
        print(f"[{name}, seed {seed}]", flush=True)
        # A map takes long, so only the first seed of a kind is mapped.
        measured[name, seed] = measure(config, compared, checkpoint, with_map=seed == 0)
    return write(config, compared, measured)


def compared_models(config: Config) -> ComparedModels:
    """Return the images and checkpoints that the command line names; seeds of a name are numbered from 0."""
    checkpoints: dict[tuple[str, int], Path] = {}
    for entry in config.models:
        name, _, checkpoint = entry.partition("=")
        if not name or not checkpoint:
            raise InputError(
                f"Expected --models as name=checkpoint, but {entry!r} was given."
            )
        # The seeds of a name are numbered in the order of the command line.
        seed = sum(name == other for other, _ in checkpoints)
        checkpoints[name, seed] = Path(checkpoint)
    images = DomainFolder(config.data, split=config.split)
    held_out: tuple[str, ...] = ()
    if config.held_out:
        held_out = chosen_names(
            "held-out class", config.held_out, images.all_classes, class_key
        )
    return ComparedModels(images, checkpoints, config.test_domain, held_out)


def measure(
    config: Config, compared: ComparedModels, checkpoint: Path, *, with_map: bool
) -> Measured:
    """Embed the images and class prompts by one model, and measure how the domains lie.

    Args:
        with_map: True also maps the images, with and without the test domain.
    """
    clip = load_clip(config.model, checkpoint=checkpoint, device=config.device)
    clip = clip.with_decoding(config.decoding)
    cache = config.out / "embeddings"
    images = embed_images(
        clip, compared.images, config.n_images, config.seed, cache_dir=cache
    )
    texts = embed_texts(clip, compared.images.all_classes, cache_dir=cache)
    seed = config.seed
    maps = list[pd.DataFrame]()
    if with_map:
        # A domain that lies far away would press all other domains into one corner of the map.
        for without in dict.fromkeys((None, compared.test_domain)):
            maps.append(
                separation.map_table(images, config.map, without=without, seed=seed)
            )
    distances = tuple(
        separation.compare_distances(images, measure, seed=seed)
        for measure in DISTANCES
    )
    measures = separation.separation_measures(
        images, texts, compared.held_out, seed=seed
    )
    means = separation.mean_distances(images)
    return Measured(clip.digest, measures, distances, means, maps)


def write(
    config: Config, compared: ComparedModels, measured: dict[tuple[str, int], Measured]
) -> Written:
    """Write tables, figures and the report, and say where they are."""
    of_models = dict[tuple[str, int], pd.DataFrame]()
    by_name = dict[str, list[tuple[Comparison, ...]]]()
    maps = list[pd.DataFrame]()
    means = list[pd.DataFrame]()
    digests = dict[str, str]()
    for (name, seed), model in measured.items():
        of_models[name, seed] = model.measures
        by_name.setdefault(name, []).append(model.distances)
        for table in model.points:
            maps.append(table.assign(model=name))
        means.append(model.means.assign(model=name, seed=seed))
        digests[f"{name}, seed {seed}"] = model.digest
    measures = separation.gather(of_models)
    names = list(by_name)
    change = None
    if len(names) > 1:
        change = separation.differences(measures, names[0], names[-1])
    distances = dict[str, list[Comparison]]()
    for name, seeds in by_name.items():
        # Each seed has a tuple of measures; `zip` turns them into the seeds of each measure.
        distances[name] = list(map(over_seeds, zip(*seeds, strict=True)))
    points = pd.concat(maps)
    # A map without the test domain is a panel of its own.
    without = points["without"].where(
        points["without"] == "", ", without " + points["without"]
    )
    points = points.assign(model=points["model"] + without).round({"x": 4, "y": 4})
    tables = {
        "measures": measures,
        "summary": separation.summarise(measures),
        "by_seed": separation.by_seed(measures),
        "map": points[["model", "kind", "domain", "class", "x", "y", "method"]],
        "distances": joined(distances, attrgetter("values")),
        "distances_per_domain": joined(distances, Comparison.over_depth),
        "distance_tests": joined(distances, Comparison.tests),
        "mean_distances": pd.concat(means),
    }
    if change is not None:
        tables["differences"] = change
    images = compared.images
    n_classes = len(images.all_classes)
    marks = domain_marks(images.domains)
    report = Report(
        "Do the domains lie apart in the embedding space?",
        f"{len(measured)} models ({', '.join(names)}) on images of {len(images.classes)} classes in "
        f"{', '.join(images.domains)}: where the images lie, how far the domains lie apart, and how accurate the "
        "models are there.",
    )
    report.summary(separation_findings(change, distances, compared.test_domain))
    add_separation_guide(report)
    add_maps(report, points, marks)
    add_separation(
        report, measures, change, marks, panel_references(measures, n_classes)
    )
    add_distances(report, distances, marks)
    provenance = {
        "models": digests,
        "architecture": config.model,
        "images": len(images),
        "classes": n_classes,
        "held_out": compared.held_out,
        "n_images": config.n_images,
        "per_domain": separation.PER_DOMAIN,
        "seed": config.seed,
        **versions(),
    }
    # Tables with a row for each class are large.
    small = [name for name in tables if name not in ("measures", "distances")]
    looked_at = listings_of(images, config.n_images, config.seed)
    return write_results(
        report, tables, config.out, config.results, provenance, small, looked_at
    )


def over_seeds(distances: Sequence[Comparison]) -> Comparison:
    """Average the distances of several seeds, class by class."""

    def mean(tables: list[pd.DataFrame], keys: Sequence[str]) -> pd.DataFrame:
        # Distances have no site: groups of a missing value would else be dropped.
        rows = pd.concat(tables).groupby(list(keys), dropna=False, sort=False)
        return rows["value"].mean().reset_index()

    keys = ("class", "domain_a", "domain_b", "site")
    values = mean([comparison.values for comparison in distances], keys)
    folds = mean([comparison.folds for comparison in distances], FOLDS[:-1])
    return replace(distances[0], values=values, folds=folds)


def joined(
    distances: Mapping[str, Sequence[Comparison]],
    table: Callable[[Comparison], pd.DataFrame],
) -> pd.DataFrame:
    """Join a table of every model and measure, with the columns model and measure.

    The column site is left out, because embeddings have one site.
    """
    tables = list[pd.DataFrame]()
    for name, of_model in distances.items():
        for comparison in of_model:
            rows = table(comparison).drop(columns="site", errors="ignore")
            tables.append(rows.assign(model=name, measure=comparison.measure))
    return pd.concat(tables, ignore_index=True)
