"""Do domains share the features with which a CLIP model describes a class? A sparse autoencoder on its embeddings.

Trains a sparse autoencoder on the normalised embeddings of the training images (or loads one), takes the 20 strongest
features of every test image, and compares, class by class, the most frequent features of two domains. The nearest word
names a feature; the report shows the images with its largest activations.

The study claims that the domain in which classes were left out shares the fewest features with the others; another
domain that shares significantly fewer refutes it. The references are parts of the same images (the ceiling) and other
classes (features shared by all classes). Comparisons are saved in OUT/comparisons for `compare_models`.

    python -m experiments.study features      # the quickstart's model
    python -m experiments.study features --model RN50 --checkpoint epoch_32.pt --data DomainNet --out runs/features
    torchrun --nproc-per-node 6 -m experiments.study features --device cuda ...    # a domain for each process
"""

import shutil
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Annotated, ClassVar

from circuitry.runs import Job, JobFolder, Work, WorkSettings, versions
from circuitry import Clip, DomainFolder
from circuitry.analysis import QuickstartModel
from circuitry.bases import SparseAutoencoder
from circuitry.cards import read_vocabulary
from circuitry.data import image_listing
from circuitry.data.imagenet_classes import class_key
from circuitry.data.names import chosen_names
from circuitry.data.parts import DEFAULT_PARTS
from circuitry.models import load_sae
from circuitry.reports import Report, write_results
from circuitry.reports.figures import domain_marks
from circuitry.reports.listings import listings_of
from circuitry.reports.page import Written
from circuitry.representations import (
    ImageFeatures,
    compare_features,
    default_vocabulary,
    extract_features,
    name_features,
)
from circuitry.representations.features import Ranking
from circuitry.runs.given import Count, Seed, at_least
from circuitry.training import SaeTraining, caption_words, train_sae_on_images
from circuitry.training.run_folder import described
from experiments.study.feature_pages import add_features, add_sharing, feature_table, sharing_findings
from experiments.study.study_run import run_of

SMALL_TABLES = tuple(f"feature_sharing_{name}" for name in ("matrix", "levels", "summary", "paired_tests"))
"""Tables that are small enough to be committed."""


@dataclass(frozen=True)
class Config(QuickstartModel, WorkSettings):
    """Settings; the defaults are the quickstart's model and images."""

    NOT_BOTH: ClassVar = (("autoencoder", "more-tables"),)

    train_split: str | None = "train"
    """Which of DomainNet's lists to train on, where there are lists."""
    n_images: Count | None = None
    """Images of a class in a domain (default: all)."""
    autoencoder: Path | None = None
    """A trained autoencoder of the embedding, from circuitry train-sae (default: train one here on the images of
    --train-split and --more-tables, and keep it in --out)."""
    more_tables: tuple[Path, ...] = ()
    """Tables of more images to train on: as those of circuitry train-sae; the study's has CC12M."""
    training: SaeTraining = SaeTraining()
    """That training."""
    vocabulary: Path | None = None
    """Text file of words, one a line: they name features (default: the words of data/captions.tsv where that is, since
    a small model knows no others, else class names, styles and ImageNet's classes)."""
    features_shown: tuple[int, ...] | None = None
    """Features to show (default: the most and the least shared ones)."""
    held_out: tuple[str, ...] = ()
    """Held-out classes: a group of their own; the study scores only these."""
    ranking: Ranking = "activation"
    """Order of features that equally many images name: the more active first, or as in the study the order of
    torch.topk, which fills tops with unnamed features."""
    parts: Annotated[int, at_least(2)] = DEFAULT_PARTS
    """Parts of the images of a class in a domain, cut by item: the similarity of parts is the ceiling."""
    out: Path = Path("runs/shared_features")
    """Folder of the results: the autoencoder, the features of images, tables and the page."""
    results: Path | None = None
    """Also write the small tables and their provenance here, where the figures read them."""
    seed: Seed = 0
    """Seed of all random choices: images, bootstrap."""


def main(config: Config) -> Written | None:
    """Train or load, compare, name, write; print where the page is."""
    if not config.share_out(partial(read_share, config), config.out / "jobs"):
        return None
    images = config.images()
    held_out = chosen_names("held-out class", config.held_out, images.classes, class_key) if config.held_out else ()
    clip = config.clip()
    sae, found = read_features(config, clip, config.work())
    names = name_features(sae, clip, words(config, clip, images))
    comparison = compare_features(
        found, {"held-out": held_out}, ranking=config.ranking, n_parts=config.parts, seed=config.seed
    )
    tables = comparison.tables() | {"features": feature_table(found, names)}
    quality = {name: f"{value:.3g}" for name, value in sae.about.get("diagnostics", {}).items()}
    report = Report(
        f"Which features do {len(found.domains)} domains share in {clip.name}?",
        f"A sparse autoencoder describes image embeddings by {sae.n_features} features"
        + (
            f" ({quality['dead']} of them dead, {quality['l0']} active per image, {quality['explained_variance']} of "
            "the variance explained, on its training images)"
            if quality
            else ""
        )
        + f". Features of {len(found.images)} images are compared between domains, class by class.",
    )
    report.summary(sharing_findings(comparison))
    add_sharing(report, comparison, domain_marks(found.domains))
    add_features(report, found, tables["features"], images, config.features_shown)
    for table in (comparison.matrix(), comparison.levels().set_index("what")):
        print(table.to_string(float_format=lambda value: f"{value:.3f}"))
    about = {"autoencoder": {key: value for key, value in sae.about.items() if key != "history"}}
    names_of = ("data", "split", "n_images", "seed", "held_out", "ranking", "parts")
    chosen = {name: getattr(config, name) for name in names_of} | {"trained_on": trained_on(config)}
    provenance = {"model": clip.name, "model_digest": clip.digest, **chosen, **about, **versions()}
    looked_at = listings_of(images, config.n_images, config.seed)
    if config.results is not None:
        comparison.save(config.results / "feature_sharing")  # the study compares models by it
    saved = {comparison.measure: comparison}
    return write_results(report, tables, config.out, config.results, provenance, SMALL_TABLES, looked_at, saved)


def trained_on(config: Config) -> dict[str, object] | None:
    """Return the model's training data, from the run of its checkpoint; None if unknown."""
    checkpoint = config.checkpoint
    if checkpoint is None:
        return None
    folders = [folder for folder in checkpoint.parents if (folder / "run.json").is_file()]
    run = run_of(folders[0]) if folders else None
    return {**asdict(run), "folder": run.folder.name} if run else None


def read_share(config: Config, work: Work) -> None:
    """Do one process's share of the training and of the domains."""
    read_features(config, replace(config, device=work.rank.device(config.device)).clip(), work)


def read_features(config: Config, clip: Clip, work: Work) -> tuple[SparseAutoencoder, ImageFeatures]:
    """Return the autoencoder and the features of all images; read finished parts."""
    sae = autoencoder(config, clip, work)
    return sae, extract_features(
        clip, sae, config.images(), config.out / "features", n_images=config.n_images, seed=config.seed, work=work
    )


def autoencoder(config: Config, clip: Clip, work: Work) -> SparseAutoencoder:
    """Return the given autoencoder, or the one that one of the processes trains and keeps."""
    if config.autoencoder is not None:
        return load_sae(config.autoencoder, config.device)
    images = config.images_of(config.train_split)
    made_with = {"model": clip.name, "model_digest": clip.digest, **asdict(config.training)}
    made_with |= {"tables": [described(table) for table in config.more_tables]}
    folder = JobFolder(
        config.out, "circuitry autoencoder 1", made_with, [("autoencoder",)], {"images": image_listing(images.records)}
    )
    path, unfinished = config.out / "sae.safetensors", config.out / "training"

    def train(job: Job, _: object) -> list[Path]:
        train_sae_on_images(clip, images, config.training, tables=config.more_tables, folder=unfinished).save(path)
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
