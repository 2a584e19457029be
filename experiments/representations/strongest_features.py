"""Run a sparse autoencoder on the images of a model: the strongest features of each image, and names of features.

At a site with positions, a feature's activation is its largest over them. On CLIP's embeddings a feature's direction
and the embeddings of texts lie in one space, so that words can name features (Rao et al. 2024, arXiv 2407.14499).
"""

from collections.abc import Sequence
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
        sae: An autoencoder of one of its sites.
        images: The images; unreadable files are left out, with a warning each.
        n_images: Images per class and domain, as `DomainFolder.select` draws them; default: all.

    Example:
        >>> features = image_features(clip, load_sae("runs/shared_features/sae.safetensors"), images)
        >>> compare_features(features)
    """
    records = [
        r
        for name in images.classes
        for d in images.domains
        for r in images.select(name, d, n_images, seed)
    ]
    found = _read_features(clip, sae, records, work, "features")
    if found is None:
        raise _unreadable(len(records))
    return found


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
    """Do the same as `image_features`, domain by domain into a folder that processes share and resume.

    Raises:
        InputError: for a folder made with another configuration or other images, and as `image_features`.
    """
    site = site_of(sae, clip)
    chosen = {
        d: [r for c in images.classes for r in images.select(c, d, n_images, seed)]
        for d in images.domains
    }
    made_with = {
        "model": clip.name,
        **clip.identity,
        "site": site,
        "autoencoder": sae.identity,
    }
    listing = image_listing(record for records in chosen.values() for record in records)
    folder = JobFolder(
        Path(out),
        FEATURES_FORMAT,
        made_with | {"n_images": n_images, "seed": seed},
        [(d,) for d in chosen],
        {"images": listing},
    )

    def read(job: Job, _: object) -> list[Path]:
        found = _read_features(clip, sae, chosen[job[0]], work, job[0])
        if found is None:
            return []
        path = folder.path / f"{job[0]}.safetensors"
        found.save(path)
        return [path]

    folder.run(read, rank=work.rank)
    parts = [
        ImageFeatures.load(path) for job in folder.jobs for path in folder.files(job)
    ]
    if not parts:
        raise _unreadable(len(listing))
    return ImageFeatures.join(parts)


@own_modes()
def _read_features(
    clip: Clip,
    sae: SparseAutoencoder,
    records: Sequence[ImageRecord],
    work: Work,
    bar: str,
) -> ImageFeatures | None:
    """Return the features of the images that can be read; None without any."""
    site = site_of(sae, clip)
    encoder = clip.encoder
    sae = sae.to(encoder.device, encoder.dtype)
    rows: list[tuple[str, str, str]] = []
    strongest = []
    activation = []
    for there, found in activations(
        encoder,
        clip.preprocess,
        records,
        [site],
        strict=work.strict,
        progress=work.bar(bar),
    ):
        features = sae.encode(found[site].movedim(encoder.unit_dim(site), -1))
        acts = tokens_of(sae, encoder, found[site])
        numbers, values = _strongest(features if acts is None else features * acts)
        rows += [
            (record.relative, record.domain, record.class_name) for record in there
        ]
        strongest.append(numbers)
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
    """Return the site of an autoencoder; raise `InputError` for another model's, or an unknown site."""
    parts = [name for name in OF_MODEL if name != "hooks"]
    Identity(sae.about).check(
        clip.identity, "this sparse autoencoder", f"the given {clip.name}", parts
    )
    if sae.site is None:
        raise InputError(
            "A sparse autoencoder needs its site, but this one has none: set it with dataclasses.replace(sae, "
            f"site=...), for embeddings {clip.encoder.sites[-1]!r}."
        )
    return site_named(clip.encoder, sae.site)


def _strongest(features: Tensor) -> tuple[np.ndarray, np.ndarray]:
    """Return numbers and activations of each image's strongest positive features, filled up with -1 and 0."""
    by_image = features.reshape(len(features), -1, features.shape[-1]).amax(1)
    top = by_image.float().topk(min(STRONGEST, by_image.shape[1]), dim=-1)
    numbers = top.indices.masked_fill(top.values <= 0, NO_FEATURE)
    return numbers.cpu().numpy(), top.values.clamp_min(0).cpu().numpy()


@own_modes()
@checked
def name_features(
    sae: SparseAutoencoder,
    clip: Clip,
    vocabulary: Sequence[str] | None = None,
) -> pd.DataFrame:
    """Name every feature by the word whose text embedding is nearest to its decoder row, with the certainty.

    Args:
        sae: An autoencoder of the model's embedding.
        clip: The model, whose text encoder embeds the words.
        vocabulary: Words and phrases; default: `default_vocabulary`. For a small model give the words of its training:
            it embeds others arbitrarily.

    Returns:
        Columns feature, name, cosine, runner_up (the second nearest word; None for a single word), lead (cosine less
        that of the runner-up), weak: whether the cosine is below `WEAK_COSINE` or the lead below `WEAK_LEAD`.

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
    words = (
        clip.known(default_vocabulary())
        if vocabulary is None
        else distinct_words(vocabulary)
    )
    texts = clip.text_weights(words, ["{}"])
    if texts.shape[1] != sae.d:
        raise InputError(
            f"{clip.name} embeds texts in {texts.shape[1]} dimensions, but this sparse autoencoder has {sae.d}: give "
            "the model that it was trained on."
        )
    nearest = (F.normalize(sae.w_dec.to(texts), dim=-1) @ texts.T).topk(
        min(2, len(words)), dim=1
    )
    cosine = nearest.values[:, 0].cpu().numpy()
    second = nearest.values[:, 1:].cpu().numpy()
    lead = cosine - second[:, 0] if second.size else np.full(len(cosine), np.inf)
    named = [[words[i] for i in row] for row in nearest.indices.tolist()]
    return pd.DataFrame(
        {
            "feature": range(sae.n_features),
            "name": [row[0] for row in named],
            "cosine": cosine,
            "runner_up": [row[1] if len(row) > 1 else None for row in named],
            "lead": lead,
            "weak": (cosine < WEAK_COSINE) | (lead < WEAK_LEAD),
        }
    )
