"""Do domains share the features with which a CLIP model describes a class? A sparse autoencoder on its embeddings.

Trains a sparse autoencoder on the normalised embeddings of the training images (or loads one), takes the 20 strongest
features of every test image, and compares, class by class, the most frequent features of two domains. The nearest word
names a feature; the report shows the images with its largest activations.

The study claims that the domain in which classes were left out shares the fewest features with the others; another
domain that shares significantly fewer refutes it. The references are folds of the same images (the ceiling) and other
classes. Comparisons are saved in OUT/comparisons for `compare_models`.

    python -m experiments.study features      # the quickstart's model
    python -m experiments.study features --model RN50 --checkpoint epoch_32.pt --data DomainNet --out runs/features
    torchrun --nproc-per-node 6 -m experiments.study features --device cuda ...    # a domain for each process
"""

import shutil
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Literal

from circuitry.runs import (
    Count,
    InputError,
    Job,
    JobFolder,
    Work,
    WorkSettings,
    versions,
)
from circuitry import Clip, DomainFolder
from circuitry.analysis import QuickstartModel
from circuitry.bases import SparseAutoencoder
from circuitry.cards import default_vocabulary, read_vocabulary
from circuitry.data import (
    DEFAULT_FOLDS,
    Folds,
    SeedOption,
    SmallTables,
    chosen_names,
    class_key,
    image_listing,
    load_image,
)
from circuitry.models import load_sae
from circuitry.reports import (
    Report,
    Written,
    add_comparison,
    class_or_domain,
    contact_sheet,
    how_much_shared,
    listings_of,
    which_differs,
    write_results,
)
from circuitry.reports.figures import domain_marks
from circuitry.training import SaeTraining, caption_words, train_sae_on_images
from experiments.representations.features import ImageFeatures, compare_features
from experiments.representations.strongest_features import (
    extract_features,
    name_features,
)
from experiments.study.study_run import run_of

import numpy as np
import pandas as pd


def feature_frequency(features: ImageFeatures) -> pd.DataFrame:
    """Return the share of each domain's images that name a feature: one row per feature, one column per domain."""
    columns = {}
    for domain, rows in features.images.groupby("domain").indices.items():
        named = features.strongest[rows]
        columns[domain] = np.bincount(
            named[named >= 0], minlength=features.n_features
        ) / len(rows)
    return pd.DataFrame(columns).rename_axis(index="feature", columns="domain")


def feature_summary(features: ImageFeatures) -> pd.DataFrame:
    """Return how far domains agree on each feature that is in some top 20, a row each.

    Returns:
        Columns feature, n_images (that name it), n_tops (classes in domains with it in their top 20), n_classes (of
        these), shared: the probability that another domain's top 20 of the same class holds it, given that one does.
        Features of classes with images in a single domain are left out.
    """
    by_class: dict[str, list[np.ndarray]] = {}
    for (name, _), rows in features.cells().items():
        by_class.setdefault(name, []).append(
            np.bincount(features.ranked(rows), minlength=features.n_features)
        )
    several = [members for members in by_class.values() if len(members) > 1]
    if not several:
        raise InputError(
            "Features are shared between domains, but no class has images in two of them."
        )
    counts = np.array([np.sum(members, axis=0) for members in several])
    others = np.array([[len(members) - 1] for members in several])
    tops = counts.sum(0)
    table = pd.DataFrame(
        {
            "feature": np.arange(features.n_features),
            "n_images": np.bincount(
                features.strongest[features.strongest >= 0],
                minlength=features.n_features,
            ),
            "n_tops": tops,
            "n_classes": (counts > 0).sum(0),
            "shared": (counts * (counts - 1) / others).sum(0) / np.maximum(tops, 1),
        }
    )
    return table.query("n_tops > 0").reset_index(drop=True)


def most_shared(
    summary: pd.DataFrame, n: int, *, least: bool = False, min_tops: int = 2
) -> list[int]:
    """Return the features that domains agree on most, or least; ties go to the fewest classes, or the most tops."""
    enough = summary[summary["n_tops"] >= min_tops]
    ascending = {
        "shared": least,
        **({} if least else {"n_classes": True}),
        "n_tops": False,
        "feature": True,
    }
    order = enough.sort_values(list(ascending), ascending=list(ascending.values()))
    return [int(feature) for feature in order["feature"][:n]]


def images_of_feature(
    features: ImageFeatures, feature: int, domain: str, n: int
) -> list[str]:
    """Return the images of a domain, as paths below the data's root, in which a feature is most active."""
    rows, columns = np.nonzero(features.strongest == feature)
    inside = (features.images["domain"] == domain).to_numpy()[rows]
    rows = rows[inside]
    columns = columns[inside]
    order = np.argsort(-features.activation[rows, columns], kind="stable")[:n]
    return [str(path) for path in features.images["relative"].iloc[rows[order]]]


_SHOWN = 8  # features in each of the two tables
PER_CELL = 3  # images of each feature and domain


def add_features(
    report: Report,
    features: ImageFeatures,
    table: pd.DataFrame,
    images: DomainFolder,
    *,
    least: bool,
) -> None:
    """Add the section on the features that domains share most, or least: top images, name, frequency by domain."""
    heading = f"Features that domains {'do not ' * least}share"
    # Features in fewer tops than there are domains say little either way.
    enough = len(features.domains)
    chosen = most_shared(table, _SHOWN, least=least, min_tops=enough)
    known = table.set_index("feature")
    report.section(heading)
    if not chosen:
        report.text("There are none.")
        return
    rows = known.loc[chosen]
    labels = [
        f"{row.name}{'?' if row.weak else ''} ({row.Index})"
        for row in rows.itertuples()
    ]
    files = {record.relative: record.path for record in images.records}
    cells = {
        (label, domain): [
            load_image(files[path])
            for path in images_of_feature(features, feature, domain, PER_CELL)
        ]
        for feature, label in zip(chosen, labels, strict=True)
        for domain in features.domains
    }
    report.image(
        contact_sheet(cells, labels, list(features.domains), per_cell=PER_CELL),
        "The images of each domain in which a feature is most active; a dash where there are fewer.",
        alt=f"{heading}: top images by feature and domain",
    )
    shown = rows.assign(feature=labels).rename(
        columns={"n_classes": "classes", "runner_up": "next word"}
    )
    report.table(
        shown[
            ["feature", "shared", "classes", *features.domains, "cosine", "next word"]
        ].reset_index(drop=True),
        "shared: the chance that another domain has the feature among the first 20 of a class where one domain has it; "
        f"classes: the number of classes that have it among their first 20; then the share of each domain's images "
        f"with it. {int(rows['weak'].sum())} of these {len(chosen)} names are weak, with a question mark: word and "
        "feature are far apart, or the next word is nearly as close (`name_features`).",
        formats={"shared": ".2f", "cosine": ".2f"}
        | dict.fromkeys(features.domains, ".0%"),
    )


SMALL_TABLES = tuple(
    f"feature_sharing_{name}"
    for name in ("matrix", "levels", "summary", "paired_tests")
)
"""Tables that are small enough to be committed."""


@dataclass(frozen=True)
class Config(QuickstartModel, WorkSettings):
    """Settings; the defaults are the quickstart's model and images."""

    n_images: Count | None = None
    """Images of a class in a domain (default: all)."""
    autoencoder: Path | None = None
    """A trained autoencoder of the embedding, from circuitry train-sae (default: train one here on the training
    images, and keep it in --out)."""
    training: SaeTraining = SaeTraining()
    """That training."""
    vocabulary: Path | None = None
    """Text file of words, one a line: they name features (default: the words of data/captions.tsv where that is, since
    a small model knows no others, else class names, styles and ImageNet's classes)."""
    held_out: tuple[str, ...] = ()
    """Held-out classes: a group of their own; the study scores only these."""
    ranking: Literal["activation", "study"] = "activation"
    """Order of features that equally many images name: the more active first, or as in the study the order of
    torch.topk, which fills tops with unnamed features."""
    folds: Folds = DEFAULT_FOLDS
    out: Path = Path("runs/shared_features")
    """Folder of the results: the autoencoder, the features of images, tables and the page."""
    results: SmallTables = None
    seed: SeedOption = 0


def main(config: Config) -> Written | None:
    """Train or load, compare, name, write; print where the page is."""
    if not config.share_out(partial(read_share, config), config.out / "jobs"):
        return None
    images = config.images()
    held_out = (
        chosen_names("held-out class", config.held_out, images.classes, class_key)
        if config.held_out
        else ()
    )
    clip = config.clip()
    sae, found = read_features(config, clip, config.work())
    names = name_features(sae, clip, words(config, clip, images))
    comparison = compare_features(
        found,
        {"held-out": held_out},
        ranking=config.ranking,
        n_folds=config.folds,
        seed=config.seed,
    )
    # Those in some top 20.
    shared = names.merge(feature_summary(found), on="feature", validate="one_to_one")
    shared = shared.merge(feature_frequency(found), left_on="feature", right_index=True)
    tables = comparison.tables() | {"features": shared}
    quality = {
        name: f"{value:.3g}" for name, value in sae.about.get("diagnostics", {}).items()
    }
    told = "{dead} of them dead, {l0} active per image, {explained_variance} of the variance explained, in training"
    report = Report(
        f"Which features do {len(found.domains)} domains share in {clip.name}?",
        f"A sparse autoencoder describes image embeddings by {sae.n_features} features"
        f"{f' ({told.format(**quality)})' if quality else ''}. Features of {len(found.images)} images are compared "
        "between domains, class by class.",
    )
    report.summary(
        [
            how_much_shared(comparison, "features"),
            which_differs(comparison),
            class_or_domain(comparison),
        ]
    )
    report.section("How many features do domains share?")
    report.text(
        "Each image has its 20 strongest features. For a class in a domain, features are ranked by how many of its "
        "images have them. Feature sharing of two domains is the share of their first k features that are equal, "
        "averaged over k = 5, 10, 15, 20 and over classes."
    )
    add_comparison(
        report, comparison, domain_marks(found.domains), title="Shared features"
    )
    for least in (False, True):
        add_features(report, found, tables["features"], images, least=least)
    for table in (comparison.matrix(), comparison.levels().set_index("what")):
        print(table.to_string(float_format=lambda value: f"{value:.3f}"))
    about = {
        "autoencoder": {
            key: value for key, value in sae.about.items() if key != "history"
        }
    }
    names_of = ("data", "split", "n_images", "seed", "held_out", "ranking", "folds")
    chosen = {name: getattr(config, name) for name in names_of} | {
        "trained_on": trained_on(config)
    }
    provenance = {
        "model": clip.name,
        "model_digest": clip.digest,
        **chosen,
        **about,
        **versions(),
    }
    looked_at = listings_of(images, config.n_images, config.seed)
    if config.results is not None:
        # The study compares models by it.
        comparison.save(config.results / "feature_sharing")
    saved = {comparison.measure: comparison}
    return write_results(
        report,
        tables,
        config.out,
        config.results,
        provenance,
        SMALL_TABLES,
        looked_at,
        saved,
    )


def trained_on(config: Config) -> dict[str, object] | None:
    """Return the model's training data, from the run of its checkpoint; None if unknown."""
    parents = () if config.checkpoint is None else config.checkpoint.parents
    folders = [folder for folder in parents if (folder / "run.json").is_file()]
    run = run_of(folders[0]) if folders else None
    # The path above the folder is of one machine only.
    return {**asdict(run), "folder": run.folder.name} if run else None


def read_share(config: Config, work: Work) -> None:
    """Do one process's share of the training and of the domains."""
    read_features(
        config, replace(config, device=work.rank.device(config.device)).clip(), work
    )


def read_features(
    config: Config, clip: Clip, work: Work
) -> tuple[SparseAutoencoder, ImageFeatures]:
    """Return the autoencoder and the features of all images; read finished shares."""
    sae = autoencoder(config, clip, work)
    return sae, extract_features(
        clip,
        sae,
        config.images(),
        config.out / "features",
        n_images=config.n_images,
        seed=config.seed,
        work=work,
    )


def autoencoder(config: Config, clip: Clip, work: Work) -> SparseAutoencoder:
    """Return the given autoencoder, or the one that one of the processes trains and keeps."""
    if config.autoencoder is not None:
        return load_sae(config.autoencoder, config.device)
    images = config.images_of("train")
    made_with = {"model": clip.name, **clip.identity, **asdict(config.training)}
    folder = JobFolder(
        config.out,
        "circuitry autoencoder 1",
        made_with,
        [("autoencoder",)],
        {"images": image_listing(images.records)},
    )
    path = config.out / "sae.safetensors"
    unfinished = config.out / "training"

    def train(job: Job, _: object) -> list[Path]:
        train_sae_on_images(clip, images, config.training, folder=unfinished).save(path)
        return [path]

    folder.run(train, rank=work.rank)
    shutil.rmtree(unfinished, ignore_errors=True)
    return load_sae(path, config.device)


def words(config: Config, clip: Clip, images: DomainFolder) -> tuple[str, ...]:
    """Return the vocabulary."""
    if config.vocabulary is not None:
        return read_vocabulary(config.vocabulary)
    if not (config.data / "captions.tsv").is_file():
        return (*images.all_classes, *clip.known(default_vocabulary()))
    return (*images.all_classes, *caption_words(config.data))
