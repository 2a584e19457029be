"""Run a sparse autoencoder on the images of a model: the strongest features of each image, and names of features.

At a site with positions, the activation of a feature in an image is its largest activation over positions. At the
embedding of CLIP, the direction of a feature lies in one space with the embeddings of texts. So words can name the
features (Rao et al. 2024, arXiv 2407.14499).
"""

from collections.abc import Sequence
from itertools import chain, product
from pathlib import Path

from circuitry.runs import Count, InputError, Job, JobFolder, Seed, Work
from circuitry.bases.feature_basis import site_named, tokens_of
from circuitry.bases.sae import SparseAutoencoder
from circuitry.cards import default_vocabulary
from circuitry.data import DomainFolder, ImageRecord, image_listing
from circuitry.data.captions import distinct_words
from circuitry.encoder.modes import own_modes
from circuitry.models.clip import Clip
from circuitry.models.image_pass import activations
from circuitry.runs.arguments import checked
from circuitry.runs.identity import OF_MODEL, Identity
from experiments.representations.features import (
    FEATURES_FORMAT,
    NO_FEATURE,
    STRONGEST,
    WEAK_COSINE,
    WEAK_LEAD,
    ImageFeatures,
)

import numpy as np
import pandas as pd
import torch.nn.functional as F
from torch import Tensor


@checked
def image_features(
    clip: Clip,
    sae: SparseAutoencoder,
    images: DomainFolder,
    *,
    n_images: Count | None = None,
    seed: Seed = 0,
    work: Work = Work(),
) -> ImageFeatures:
    """Return the 20 strongest features of the images of every class and domain.

    Args:
        clip: The model that the autoencoder was trained on.
        sae: An autoencoder of one of the model's sites.
        images: The images; unreadable files are left out, with a warning each.
        n_images: Images per class and domain, as `DomainFolder.select` draws them; default: all.

    Example:
        >>> features = image_features(clip, load_sae("runs/shared_features/sae.safetensors"), images)
        >>> compare_features(features)
    """
    records = list[ImageRecord]()
    for name, domain in product(images.classes, images.domains):
        records += images.select(name, domain, n_images, seed)
    features = _read_features(clip, sae, records, work, "features")
    if features is None:
        raise _unreadable(len(records))
    return features


@checked
def extract_features(
    clip: Clip,
    sae: SparseAutoencoder,
    images: DomainFolder,
    out: str | Path,
    *,
    n_images: Count | None = None,
    seed: Seed = 0,
    work: Work = Work(),
) -> ImageFeatures:
    """Return the features of `image_features`, and keep them in a folder with one file per domain.

    Several processes can share the work, and a call goes on where another call stopped. Images are sorted by domain
    and class, while `image_features` sorts them by class and domain.

    Raises:
        InputError: for a folder made with another configuration or other images, and as `image_features`.
    """
    # Before anything is written: an autoencoder of another model must leave no folder.
    site = site_of(sae, clip)
    chosen = dict[str, list[ImageRecord]]()
    for domain in images.domains:
        chosen[domain] = []
        for name in images.classes:
            chosen[domain] += images.select(name, domain, n_images, seed)
    made_with = {
        "model": clip.name,
        **clip.identity,
        "site": site,
        "autoencoder": sae.identity,
        "n_images": n_images,
        "seed": seed,
    }
    listing = image_listing(chain.from_iterable(chosen.values()))
    folder = JobFolder(
        Path(out),
        FEATURES_FORMAT,
        made_with,
        # A job is a tuple: (domain,).
        list(product(chosen)),
        {"images": listing},
    )

    def read(job: Job, _: object) -> list[Path]:
        domain = job[0]
        features = _read_features(clip, sae, chosen[domain], work, domain)
        # A domain without readable images has no file; the other domains still count.
        if features is None:
            return []
        path = folder.path / f"{domain}.safetensors"
        features.save(path)
        return [path]

    folder.run(read, rank=work.rank)
    paths = chain.from_iterable(map(folder.files, folder.jobs))
    by_domain = list(map(ImageFeatures.load, paths))
    if not by_domain:
        raise _unreadable(len(listing))
    return ImageFeatures.join(by_domain)


@own_modes()
def _read_features(
    clip: Clip,
    sae: SparseAutoencoder,
    records: Sequence[ImageRecord],
    work: Work,
    bar: str,
) -> ImageFeatures | None:
    """Return the features of the images that can be read, or None if no image can be read."""
    site = site_of(sae, clip)
    encoder = clip.encoder
    sae = sae.to(encoder.device, encoder.dtype)
    rows: list[tuple[str, str, str]] = []
    strongest = []
    activation = []
    for batch, acts in activations(
        encoder,
        clip.preprocess,
        records,
        [site],
        strict=work.strict,
        progress=work.bar(bar),
    ):
        # The autoencoder takes units last: [images, positions ..., units].
        features = sae.encode(acts[site].movedim(encoder.unit_dim(site), -1))
        # [tokens, 1]: an autoencoder that was trained on some tokens alone is ignored at the other tokens.
        is_trained = tokens_of(sae, encoder, acts[site])
        if is_trained is not None:
            features = features * is_trained
        indices, values = _strongest(features)
        rows += [(r.relative, r.domain, r.class_name) for r in batch]
        strongest.append(indices)
        activation.append(values)
    if not rows:
        return None
    table = pd.DataFrame(rows, columns=["relative", "domain", "class"])
    return ImageFeatures(
        table, np.concatenate(strongest), np.concatenate(activation), sae.n_features
    )


def _unreadable(n: int) -> InputError:
    return InputError(
        f"None of the {n} images to look at can be read: give a folder with readable ones."
    )


def site_of(sae: SparseAutoencoder, clip: Clip) -> str:
    """Return the site of an autoencoder.

    Raises:
        InputError: for an autoencoder of another model, without a site, or of a site that the model does not have.
    """
    # Hooks may differ: an autoencoder can be run on a model whose activations are changed.
    entries = [name for name in OF_MODEL if name != "hooks"]
    Identity(sae.about).check(
        clip.identity, "this sparse autoencoder", f"the given {clip.name}", entries
    )
    if sae.site is None:
        raise InputError(
            "A sparse autoencoder needs its site, but this one has none: set it with dataclasses.replace(sae, "
            f"site=...), for embeddings {clip.encoder.sites[-1]!r}."
        )
    return site_named(clip.encoder, sae.site)


def _strongest(features: Tensor) -> tuple[np.ndarray, np.ndarray]:
    """Return the indices and activations of each image's strongest positive features, filled up with -1 and 0.

    Both arrays are [images, 20], or as wide as there are features if these are fewer.
    """
    # [images, features]; at a site without positions the reshaped axis has length 1.
    by_image = features.reshape(len(features), -1, features.shape[-1]).amax(1)
    top = by_image.float().topk(min(STRONGEST, by_image.shape[1]), dim=-1)
    # A feature at zero is not active, even if it is among the 20 largest.
    indices = top.indices.masked_fill(top.values <= 0, NO_FEATURE)
    return indices.cpu().numpy(), top.values.clamp_min(0).cpu().numpy()


@own_modes()
@checked
def name_features(
    sae: SparseAutoencoder,
    clip: Clip,
    vocabulary: Sequence[str] | None = None,
) -> pd.DataFrame:
    """Name every feature by the word whose text embedding is nearest to the feature's decoder row.

    Args:
        sae: An autoencoder of the model's embedding.
        clip: The model, whose text encoder embeds the words.
        vocabulary: Words and phrases; default: `default_vocabulary`. For a small model give the words that it was
            trained on, because it embeds other words arbitrarily.

    Returns:
        Columns feature, name, cosine, runner_up (the second nearest word; None if the vocabulary is a single word),
        lead (by how much the cosine exceeds the cosine of the runner-up) and weak (whether the cosine is below
        `WEAK_COSINE` or the lead below `WEAK_LEAD`).

    Example:
        >>> name_features(sae, clip, default_vocabulary(images.classes)).head(1)
           feature      name  cosine runner_up  lead   weak
        0        0  corduroy    0.31    velvet  0.04  False
    """
    embedding = clip.encoder.sites[-1]
    if site_of(sae, clip) != embedding:
        raise InputError(
            f"Only features of the embedding ({embedding!r}) can be compared with texts, but this sparse autoencoder "
            f"is of site {sae.site!r}: look at the images in which its features are active instead."
        )
    # Packed weights store the embeddings of some tokens only, so most default words are unknown to a shipped model.
    words = (
        clip.known(default_vocabulary())
        if vocabulary is None
        else distinct_words(vocabulary)
    )
    # The words alone: a template such as "a photo of a {}" names a style, and features are of all styles.
    texts = clip.text_weights(words, ["{}"])
    if texts.shape[1] != sae.d:
        raise InputError(
            f"{clip.name} embeds texts in {texts.shape[1]} dimensions, but this sparse autoencoder has {sae.d}: give "
            "the model that it was trained on."
        )
    # Texts have length 1 already, so these are cosines [features, words].
    cosines = F.normalize(sae.w_dec.to(texts), dim=-1) @ texts.T
    nearest = cosines.topk(min(2, len(words)), dim=1)
    cosine = nearest.values[:, 0].cpu().numpy()
    # [features, 1 or 2]
    named = np.array(words, dtype=object)[nearest.indices.cpu().numpy()]
    runner_up: list[str | None] = [None] * len(cosine)
    # A single word has no rival: only its cosine can make the name weak.
    lead = np.full(len(cosine), np.inf)
    if len(words) > 1:
        runner_up = named[:, 1].tolist()
        lead = cosine - nearest.values[:, 1].cpu().numpy()
    return pd.DataFrame(
        {
            "feature": range(sae.n_features),
            "name": named[:, 0].tolist(),
            "cosine": cosine,
            "runner_up": runner_up,
            "lead": lead,
            "weak": (cosine < WEAK_COSINE) | (lead < WEAK_LEAD),
        }
    )
