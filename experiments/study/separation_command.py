"""Do the images of a domain lie apart in the embedding space, and do captions without style words bring them together?

Compares kinds of models, perhaps several seeds each, such as some trained with standard captions, which often name the
style ("a sketch of a fish"), and some with aligned captions, which never do. Distances between domains, silhouettes,
linear probes of the domain, the modality gap and zero-shot accuracy are measured on embeddings of test images and class
prompts. The images are mapped, with and without the test domain.

The study finds that quickdraw lies apart, that aligned captions bring it closer, and that accuracy on the held-out
classes does not follow. A domain that lies farther from the others than quickdraw refutes the first, a distance that
does not shrink the second, an accuracy that rises with it the third.

    python -m experiments.study separation --models standard=a/epoch_32.pt aligned=b/epoch_32.pt \\
        --model RN50 --data DomainNet --study --out runs/domainnet/separation

The same name twice means two seeds of one kind of model.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
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
    """Say which domain is farthest in each kind of model, and what changes between the kinds."""
    first, *_, last = [*distances, *distances]
    before = distances[first][0]
    if change is None:
        return [which_differs(before)]
    # Without a test domain the one that lies farthest is looked at.
    by_domain = before.summary().set_index("domain")["value"]
    domain = test_domain or str(by_domain.idxmax())
    accuracies = [name for name in PANELS if name.startswith("accuracy")]
    rows = change[change["domain"] == domain].set_index("measure")
    rows = rows.reindex(["standardised distance", *accuracies])
    rows = rows.dropna(subset="difference")
    said = (rows.index + " " + with_intervals(rows, "+.2f", "difference")).tolist()
    n_classes = rows["n_classes"].max() if len(rows) else 0
    changes = Finding(
        f"From {first} to {last}, {domain} changes by: {', '.join(said) or 'nothing that is known'}.",
        f"95 % intervals over {n_classes} classes, paired, after averaging over seeds; they leave out how far seeds "
        "differ.",
        "More seeds: a difference between two kinds of models needs several of each.",
    )
    return [which_differs(before), which_differs(distances[last][0]), changes]


def add_maps(report: Report, points: pd.DataFrame, marks: Mapping[str, Mark]) -> None:
    """Add the section with the maps, a `map_table` for each ``model``."""
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
    """Add the section that sets the models side by side, and accuracy beside separation."""
    summary = separation.summarise(measures)
    single = summary[summary["domain"] != separation.ALL]
    whole = summary[summary["domain"] == separation.ALL]
    drawn = [name for name in PANELS if name in set(single["measure"])]
    several = summary["n_seeds"].max() > 1
    seeds = separation.by_seed(measures) if several else None
    told = "Short strokes: the seeds." if several else "One seed."
    report.section("How far apart are the domains, and does accuracy follow?")
    report.figure(
        separation_panels(single, drawn, seeds, references, marks=marks),
        f"Each domain by several measures. Bars: 95 % intervals over classes (Student's t). {told} Dotted: guessing.",
    )
    wide = whole.pivot(index="measure", columns="model", values="value")
    # `pivot` sorts models by name: they are in the order of the command line.
    wide = wide[measures["model"].unique()]
    report.table(
        wide.rename_axis(columns=None).reset_index(),
        "Measures of all domains together; the domain probe is one classifier of all domains (balanced accuracy).",
    )
    if change is not None:
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
    """Add the section on what was computed and how to read it, which comes first."""
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
"""The measure that does not change when the whole space shrinks, and the study's."""


@dataclass(frozen=True, kw_only=True)
class Config:
    """Settings of the measurement."""

    out: Path = Path("runs/embedding-separation")
    """Folder of the results: embeddings, tables and the report."""
    results: SmallTables = None
    models: tuple[str, ...]
    """Models as name=checkpoint; the first name is compared with the last."""
    model: str = "rn-tiny"
    """The model: its architecture, an open_clip name, a name shipped here, or the path of a model-config JSON."""
    data: Path
    """Folder of the images: <domain>/<class>/<file>."""
    split: str | None = "test"
    """Which of DomainNet's lists to use, where there are lists."""
    test_domain: str | None = None
    """Test domain: classes were held out of it in training, and one more map leaves it out."""
    held_out: tuple[str, ...] = ()
    """Held-out classes: their accuracy is measured separately (default: none)."""
    n_images: Count | None = 50
    """Images of a class in a domain, at random by --seed; all where there are fewer, or with None."""
    map: Annotated[str, one_of("auto", "umap", "pca")] = "auto"
    """How embeddings are mapped: umap, pca, or auto for UMAP where umap-learn is installed."""
    decoding: Decoding = "upright"
    device: str = "cpu"
    """Where the model runs: cpu, cuda, mps."""
    seed: SeedOption = 0


class ComparedModels(NamedTuple):
    """The images, and the checkpoints by name and seed."""

    images: DomainFolder
    checkpoints: dict[tuple[str, int], Path]
    test_domain: str | None
    held_out: tuple[str, ...]


class Measured(NamedTuple):
    """The measurements of one checkpoint."""

    digest: str
    measures: pd.DataFrame
    distances: tuple[Comparison, ...]  # by each of `DISTANCES`
    means: pd.DataFrame
    points: list[pd.DataFrame]  # maps of the first seed of a kind


def main(config: Config) -> Written:
    """Measure, write, and print where the report is."""
    compared = compared_models(config)
    first_seeds = dict(reversed(compared.checkpoints))  # by name, the first one given
    measured = dict[tuple[str, int], Measured]()
    for (name, seed), checkpoint in compared.checkpoints.items():
        print(f"[{name}, seed {seed}]", flush=True)
        # A map takes long, so that the first seed stands for its kind.
        with_map = seed == first_seeds[name]
        measured[name, seed] = measure(config, compared, checkpoint, with_map=with_map)
    return write(config, compared, measured)


def compared_models(config: Config) -> ComparedModels:
    """Return the images and checkpoints that the command line names."""
    checkpoints: dict[tuple[str, int], Path] = {}
    for entry in config.models:
        name, is_named, checkpoint = entry.partition("=")
        if not is_named or not name or not checkpoint:
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
    """Embed the images and class prompts by one model, and measure; map all domains, and without the test domain."""
    clip = load_clip(config.model, checkpoint=checkpoint, device=config.device)
    clip = clip.with_decoding(config.decoding)
    cache = config.out / "embeddings"
    images = embed_images(
        clip, compared.images, config.n_images, config.seed, cache_dir=cache
    )
    texts = embed_texts(clip, compared.images.all_classes, cache_dir=cache)
    maps = list[pd.DataFrame]()
    # A domain that lies far away would press all others into one corner of the map.
    for without in dict.fromkeys((None, compared.test_domain)) if with_map else ():
        maps.append(
            separation.map_table(images, config.map, without=without, seed=config.seed)
        )
    distances = tuple(
        separation.compare_distances(images, measure, seed=config.seed)
        for measure in DISTANCES
    )
    measures = separation.separation_measures(
        images, texts, compared.held_out, seed=config.seed
    )
    means = separation.mean_distances(images)
    return Measured(clip.digest, measures, distances, means, maps)


def write(
    config: Config, compared: ComparedModels, measured: dict[tuple[str, int], Measured]
) -> Written:
    """Write tables, figures and the report, and say where they are."""
    measures = separation.gather({key: of.measures for key, of in measured.items()})
    by_name = dict[str, list[tuple[Comparison, ...]]]()
    maps = list[pd.DataFrame]()
    means = list[pd.DataFrame]()
    digests = dict[str, str]()
    for (name, seed), of_model in measured.items():
        by_name.setdefault(name, []).append(of_model.distances)
        maps += [table.assign(model=name) for table in of_model.points]
        means.append(of_model.means.assign(model=name, seed=seed))
        digests[f"{name}, seed {seed}"] = of_model.digest
    names = list(by_name)
    change = None
    if len(names) > 1:
        change = separation.differences(measures, names[0], names[-1])
    distances = dict[str, list[Comparison]]()
    for name, seeds in by_name.items():
        # From a tuple of measures for each seed to the seeds of each measure.
        distances[name] = [over_seeds(of) for of in zip(*seeds, strict=True)]
    points = pd.concat(maps)
    without = points["without"].where(
        points["without"] == "", ", without " + points["without"]
    )
    points = points.assign(model=points["model"] + without).round({"x": 4, "y": 4})
    tables = {
        "measures": measures,
        "summary": separation.summarise(measures),
        "by_seed": separation.by_seed(measures),
        "map": points[["model", "kind", "domain", "class", "x", "y", "method"]],
        "distances": joined(distances, lambda one: one.values),
        "distances_per_domain": joined(distances, lambda one: one.over_depth()),
        "distance_tests": joined(distances, lambda one: one.tests()),
        "mean_distances": pd.concat(means),
    }
    if change is not None:
        tables["differences"] = change
    n_classes = len(compared.images.all_classes)
    marks = domain_marks(compared.images.domains)
    report = Report(
        "Do the domains lie apart in the embedding space?",
        f"{len(measured)} models ({', '.join(names)}) on images of {len(compared.images.classes)} classes in "
        f"{', '.join(compared.images.domains)}: where the images lie, how far the domains lie apart, and how accurate "
        "the models are there.",
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
        "images": len(compared.images),
        "classes": n_classes,
        "held_out": compared.held_out,
        "n_images": config.n_images,
        "per_domain": separation.PER_DOMAIN,
        "seed": config.seed,
        **versions(),
    }
    small = [name for name in tables if name not in ("measures", "distances")]
    looked_at = listings_of(compared.images, config.n_images, config.seed)
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
    """Put a table of every model and measure under each other, without the site: there is but one."""
    tables = list[pd.DataFrame]()
    for name, of_model in distances.items():
        for comparison in of_model:
            rows = table(comparison).drop(columns="site", errors="ignore")
            tables.append(rows.assign(model=name, measure=comparison.measure))
    return pd.concat(tables, ignore_index=True)
