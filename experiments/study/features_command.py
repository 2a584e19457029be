"""Do domains share the features by which a sparse autoencoder describes the images of a class?

The program trains a sparse autoencoder on the normalised embeddings of the training images, or loads an autoencoder.
It takes the 20 strongest features of every test image and compares, class by class, the most frequent features of two
domains. Each feature has the nearest word as its name, and the report shows the images in which the feature is most
active.

The study claims that the domain in which classes were left out shares fewer features with the other domains than any
other domain does. The claim is refuted if another domain shares significantly fewer. The numbers are compared with
two references: folds of the same images (the ceiling), and images of other classes. Comparisons are saved in
OUT/comparisons for `compare_models`.

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
    """Return the share of each domain's images that have a feature among their strongest features.

    Returns:
        A row for each feature, a column for each domain.
    """
    columns = {}
    for domain, rows in features.images.groupby("domain").indices.items():
        named = features.strongest[rows]
        # -1 fills the places of images with fewer active features.
        counts = np.bincount(named[named >= 0], minlength=features.n_features)
        columns[domain] = counts / len(rows)
    return pd.DataFrame(columns).rename_axis(index="feature", columns="domain")


def feature_summary(features: ImageFeatures) -> pd.DataFrame:
    """Return how far domains agree on each feature.

    The top of a class in a domain is its 20 most frequent features. Classes with images in a single domain are ignored.

    Returns:
        A row for each feature that is in a top, with the columns

        - ``feature``: index of the feature,
        - ``n_images``: number of images with the feature among their strongest features,
        - ``n_tops``: number of tops with the feature,
        - ``n_classes``: number of classes with the feature in a top,
        - ``shared``: probability that the top of another domain has the feature, if the top of a domain of the same
          class has it.

    Raises:
        InputError: If no class has images in two domains.
    """
    by_class: dict[str, list[np.ndarray]] = {}
    for (name, _), rows in features.cells().items():
        # 0 or 1 for each feature: whether it is in the top.
        in_top = np.bincount(features.ranked(rows), minlength=features.n_features)
        by_class.setdefault(name, []).append(in_top)
    # The other domains of a class are needed below.
    several = [tops for tops in by_class.values() if len(tops) > 1]
    if not several:
        raise InputError(
            "Features are shared between domains, but no class has images in two of them."
        )
    counts = np.array([np.sum(tops, axis=0) for tops in several])  # [classes, features]
    n_others = np.array([[len(tops) - 1] for tops in several])
    n_tops = counts.sum(0)
    strongest = features.strongest[features.strongest >= 0]
    # Of c tops with a feature each meets c - 1 others with it, among the class's n_others other domains.
    shared = (counts * (counts - 1) / n_others).sum(0) / np.maximum(n_tops, 1)
    table = pd.DataFrame(
        {
            "feature": np.arange(features.n_features),
            "n_images": np.bincount(strongest, minlength=features.n_features),
            "n_tops": n_tops,
            "n_classes": (counts > 0).sum(0),
            "shared": shared,
        }
    )
    return table.query("n_tops > 0").reset_index(drop=True)


def most_shared(
    summary: pd.DataFrame, n: int, *, least: bool = False, min_tops: int = 2
) -> list[int]:
    """Return the n features that domains share most, or least, according to `feature_summary`.

    Args:
        summary: The table of `feature_summary`.
        n: How many features are returned.
        least: True for the features that domains share least.
        min_tops: Features in fewer tops are ignored.
    """
    enough = summary[summary["n_tops"] >= min_tops]
    ascending = {"shared": least, "n_classes": True, "n_tops": False, "feature": True}
    if least:
        # Many features tie at 0: among them, the features in most tops say most.
        del ascending["n_classes"]
    order = enough.sort_values([*ascending], ascending=[*ascending.values()])
    return order["feature"][:n].tolist()


def images_of_feature(
    features: ImageFeatures, feature: int, domain: str, n: int
) -> list[str]:
    """Return the n images of a domain in which a feature is most active, as paths below the root of the data."""
    rows, columns = np.nonzero(features.strongest == feature)
    # `strongest` is [images, places]: an image has a feature at one place at most.
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
    """Add a section on the features that domains share most, or least.

    It shows the images in which each feature is most active, its name, and its frequency in each domain.

    Args:
        report: The report.
        features: The features of images.
        table: Columns of `feature_summary`, `feature_frequency` and `name_features`.
        images: The folder of the images.
        least: True for the features that domains share least.
    """
    verb = "do not share" if least else "share"
    heading = f"Features that domains {verb}"
    # Features in fewer tops than there are domains say little either way.
    enough = len(features.domains)
    chosen = most_shared(table, _SHOWN, least=least, min_tops=enough)
    report.section(heading)
    if not chosen:
        report.text("There are none.")
        return
    rows = table.set_index("feature").loc[chosen]
    files = {record.relative: record.path for record in images.records}
    labels = []
    cells = {}
    for feature in chosen:
        row = rows.loc[feature]
        doubt = "?" if row["weak"] else ""
        # Two features may have one name, so the index of the feature stands beside.
        label = f"{row['name']}{doubt} ({feature})"
        labels.append(label)
        for domain in features.domains:
            paths = images_of_feature(features, feature, domain, PER_CELL)
            cells[label, domain] = [load_image(files[path]) for path in paths]
    report.image(
        contact_sheet(cells, labels, list(features.domains), per_cell=PER_CELL),
        "The images of each domain in which a feature is most active; a dash where there are fewer.",
        alt=f"{heading}: top images by feature and domain",
    )
    names = {"n_classes": "classes", "runner_up": "next word"}
    shown = rows.assign(feature=labels).rename(columns=names)
    columns = ["feature", "shared", "classes", *features.domains, "cosine", "next word"]
    report.table(
        shown[columns].reset_index(drop=True),
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
    """File of a trained autoencoder of the embedding, from circuitry train-sae (default: an autoencoder is trained on
    the training images and kept in --out)."""
    training: SaeTraining = SaeTraining()
    """Settings of the training, if an autoencoder is trained."""
    vocabulary: Path | None = None
    """Text file of the words that name features, a word a line. By default, if there is a file data/captions.tsv, they
    are its words, because a small model knows no other words. Otherwise they are the names of classes and styles and
    the names of ImageNet's classes."""
    held_out: tuple[str, ...] = ()
    """Held-out classes. They are a group of their own, and the study scores only this group."""
    ranking: Literal["activation", "study"] = "activation"
    """Order of features that are among the strongest features of equally many images. With activation, the more active
    feature comes first. With study, features have the order of torch.topk, as in the study, which fills tops with
    features that no image has."""
    folds: Folds = DEFAULT_FOLDS
    out: Path = Path("runs/shared_features")
    """Folder of the results: the autoencoder, the features of images, the tables and the page."""
    results: SmallTables = None
    seed: SeedOption = 0


def main(config: Config) -> Written | None:
    """Train or load the autoencoder, compare features, write the results, and print where the page is.

    Returns:
        What was written, or None in a process that only shares the work.
    """
    if not config.share_out(partial(read_share, config), config.out / "jobs"):
        return None
    images = config.images()
    held_out: tuple[str, ...] = ()
    if config.held_out:
        held_out = chosen_names(
            "held-out class", config.held_out, images.classes, class_key
        )
    clip = config.clip()
    sae, features = read_features(config, clip, config.work())
    names = name_features(sae, clip, words(config, clip, images))
    comparison = compare_features(
        features,
        {"held-out": held_out},
        ranking=config.ranking,
        n_folds=config.folds,
        seed=config.seed,
    )
    # The join keeps only features that are in a top.
    shared = names.merge(feature_summary(features), on="feature", validate="one_to_one")
    frequency = feature_frequency(features)
    shared = shared.merge(frequency, left_on="feature", right_index=True)
    tables = comparison.tables() | {"features": shared}
    trained = ""
    # An autoencoder from elsewhere has no diagnostics of its training.
    quality = sae.about.get("diagnostics")
    if quality:
        trained = (
            f" ({quality['dead']:.3g} of them dead, {quality['l0']:.3g} active per image, "
            f"{quality['explained_variance']:.3g} of the variance explained, in training)"
        )
    report = Report(
        f"Which features do {len(features.domains)} domains share in {clip.name}?",
        f"A sparse autoencoder describes image embeddings by {sae.n_features} features{trained}. Features of "
        f"{len(features.images)} images are compared between domains, class by class.",
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
    marks = domain_marks(features.domains)
    add_comparison(report, comparison, marks, title="Shared features")
    for least in (False, True):
        add_features(report, features, shared, images, least=least)
    for table in (comparison.matrix(), comparison.levels().set_index("what")):
        print(table.to_string(float_format=lambda value: f"{value:.3f}"))
    about = dict(sae.about)
    # The losses over the training would bury the other entries of the file.
    about.pop("history", None)
    options = ("data", "split", "n_images", "seed", "held_out", "ranking", "folds")
    provenance = {
        "model": clip.name,
        "model_digest": clip.digest,
        **{name: getattr(config, name) for name in options},
        "trained_on": trained_on(config),
        "autoencoder": about,
        **versions(),
    }
    looked_at = listings_of(images, config.n_images, config.seed)
    if config.results is not None:
        # The program features-over-settings compares models by this file.
        comparison.save(config.results / "feature_sharing")
    return write_results(
        report,
        tables,
        config.out,
        config.results,
        provenance,
        SMALL_TABLES,
        looked_at,
        {comparison.measure: comparison},
    )


def trained_on(config: Config) -> dict[str, object] | None:
    """Return the fields of the run that the checkpoint belongs to, or None if the checkpoint belongs to no run."""
    parents = () if config.checkpoint is None else config.checkpoint.parents
    for folder in parents:
        # Of folders inside each other, the closest to the checkpoint is its run.
        if (folder / "run.json").is_file():
            run = run_of(folder)
            # The path above the folder is different on each machine.
            return {**asdict(run), "folder": folder.name} if run else None
    return None


def read_share(config: Config, work: Work) -> None:
    """Do the share of a process in training the autoencoder and in computing the features of domains."""
    # Each process has its own GPU.
    device = work.rank.device(config.device)
    read_features(config, replace(config, device=device).clip(), work)


def read_features(
    config: Config, clip: Clip, work: Work
) -> tuple[SparseAutoencoder, ImageFeatures]:
    """Return the autoencoder and the features of all images. Finished work is read from files."""
    sae = autoencoder(config, clip, work)
    features = extract_features(
        clip,
        sae,
        config.images(),
        config.out / "features",
        n_images=config.n_images,
        seed=config.seed,
        work=work,
    )
    return sae, features


def autoencoder(config: Config, clip: Clip, work: Work) -> SparseAutoencoder:
    """Return the autoencoder of the command line; without it, train an autoencoder and keep it.

    If several processes work, a single process trains, and the other processes wait for its file.
    """
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
    # Embeddings and checkpoints of the training, with which it resumes.
    unfinished = config.out / "training"

    def train(job: Job, _: object) -> list[Path]:
        """Train the autoencoder; return its file."""
        train_sae_on_images(clip, images, config.training, folder=unfinished).save(path)
        return [path]

    folder.run(train, rank=work.rank)
    shutil.rmtree(unfinished, ignore_errors=True)
    return load_sae(path, config.device)


def words(config: Config, clip: Clip, images: DomainFolder) -> tuple[str, ...]:
    """Return the words that name features; see `Config.vocabulary`."""
    if config.vocabulary is not None:
        return read_vocabulary(config.vocabulary)
    if not (config.data / "captions.tsv").is_file():
        return (*images.all_classes, *clip.known(default_vocabulary()))
    return (*images.all_classes, *caption_words(config.data))
