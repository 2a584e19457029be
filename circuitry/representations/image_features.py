"""The features of a sparse autoencoder at work in a model: the strongest ones of many images, and names for them.

Where a site has positions, a feature's activation is its largest over them. On CLIP's embeddings a feature's direction
and the embeddings of texts lie in one space, so that a feature can be called by a word (Rao et al. 2024, arXiv
2407.14499).
"""

from collections.abc import Sequence

import numpy as np
import pandas as pd
import torch
import torch.nn.functional as F
from torch import Tensor

from circuitry.data.captions import STYLE_WORDS, readable
from circuitry.data.domains import DomainFolder, ImageRecord
from circuitry.models.clip import Clip
from circuitry.models.image_pass import BATCH_SIZE, activations
from circuitry.models.prompts import Template
from circuitry.models.sae import SparseAutoencoder
from circuitry.representations.features import STRONGEST, ImageFeatures
from circuitry.runs.errors import InputError


@torch.no_grad()
def image_features(
    clip: Clip,
    sae: SparseAutoencoder,
    images: DomainFolder,
    *,
    n_images: int | None = None,
    seed: int = 0,
    batch_size: int = BATCH_SIZE,
    progress: bool = True,
) -> ImageFeatures:
    """Return the 20 strongest features of the images of every class and domain.

    Args:
        clip: The model that the autoencoder was trained on.
        sae: An autoencoder of one of its sites.
        images: What to look at; files that cannot be read are left out, with a warning each.
        n_images: Images per class and domain, as `DomainFolder.select` draws them; default: all.
        seed: Seed of that choice.
        batch_size: Images in one run; it changes no number but for rounding.
        progress: Whether to show a bar over images.

    Raises:
        InputError: for an autoencoder of another model, of no site or another width; for no readable images.

    Example:
        >>> features = image_features(clip, load_sae("runs/shared_features/sae.safetensors"), images)
        >>> compare_features(features)
    """
    site = site_of(sae, clip)
    records = [r for name in images.classes for d in images.domains for r in images.select(name, d, n_images, seed)]
    sae = sae.to(clip.encoder.device, clip.encoder.dtype)
    read: list[ImageRecord] = []
    strongest, activation = [], []
    for there, found in activations(
        clip.encoder, clip.preprocess, records, [site], batch_size=batch_size, progress="features" if progress else None
    ):
        numbers, values = _strongest(sae.encode(found[site].movedim(clip.encoder.unit_dim(site), -1)))
        read += there
        strongest.append(numbers)
        activation.append(values)
    if not read:
        raise InputError(f"None of the {len(records)} images to look at can be read: give a folder with readable ones.")
    rows = [(record.relative, record.domain, record.class_name) for record in read]
    table = pd.DataFrame(rows, columns=["relative", "domain", "class"])
    return ImageFeatures(table, np.concatenate(strongest), np.concatenate(activation), sae.n_features)


def site_of(sae: SparseAutoencoder, clip: Clip) -> str:
    """Return the site of an autoencoder; raise `InputError` for one of another model, or of no site that it has."""
    made_with = sae.about.get("model_digest")
    if made_with not in (None, clip.digest):
        raise InputError(
            f"This sparse autoencoder was trained on the model with digest {made_with}, but {clip.name} with digest "
            f"{clip.digest} was given: give the checkpoint that it was trained on."
        )
    if sae.site is None:
        raise InputError(
            "This sparse autoencoder does not say which site it belongs to: set it with dataclasses.replace(sae, "
            f"site=...), for embeddings {clip.encoder.sites[-1]!r}."
        )
    clip.encoder.position(sae.site)
    return sae.site


def _strongest(features: Tensor) -> tuple[np.ndarray, np.ndarray]:
    """Return numbers and activations of each image's strongest positive features; -1 and 0 where there are fewer."""
    by_image = features.reshape(len(features), -1, features.shape[-1]).amax(1)
    top = by_image.float().topk(min(STRONGEST, by_image.shape[1]), dim=-1)
    numbers = top.indices.masked_fill(top.values <= 0, -1)
    return numbers.cpu().numpy(), top.values.clamp_min(0).cpu().numpy()


def default_vocabulary(class_names: Sequence[str] = ()) -> tuple[str, ...]:
    """Return class names, the words of DomainNet's styles, and the names of ImageNet's 1000 classes."""
    from open_clip import IMAGENET_CLASSNAMES

    styles = [word for words in STYLE_WORDS.values() for word in words]
    return tuple(dict.fromkeys(map(readable, [*class_names, *STYLE_WORDS, *styles, *IMAGENET_CLASSNAMES])))


def name_features(
    sae: SparseAutoencoder,
    clip: Clip,
    vocabulary: Sequence[str] | None = None,
    templates: Sequence[Template] = ("{}",),
) -> pd.DataFrame:
    """Name every feature by the word whose text embedding is nearest to its decoder row.

    Args:
        sae: An autoencoder of the model's embedding.
        clip: The model, whose text encoder embeds the words.
        vocabulary: Words and phrases; default: `default_vocabulary`. For a small model give the words that it was
            trained on: others have arbitrary embeddings.
        templates: Prompts, averaged as in `Clip.text_weights`; default: the bare word.

    Returns:
        Columns feature, name, cosine. Images and texts lie apart in CLIP's space, so cosines are small; what counts
        is which is the largest.

    Raises:
        InputError: for an autoencoder of another site than the embedding, or of another width.

    Example:
        >>> name_features(sae, clip, default_vocabulary(images.classes)).head(1)
           feature      name    cosine
        0        0  corduroy     0.31
    """
    embedding = clip.encoder.sites[-1]
    if site_of(sae, clip) != embedding:
        raise InputError(
            f"Only features of the embedding ({embedding!r}) can be compared with texts, but this sparse autoencoder "
            f"is of site {sae.site!r}: look at the images in which its features are active instead."
        )
    words = default_vocabulary() if vocabulary is None else tuple(dict.fromkeys(map(readable, vocabulary)))
    texts = clip.text_weights(words, templates)
    if texts.shape[1] != sae.d:
        raise InputError(
            f"{clip.name} embeds texts in {texts.shape[1]} dimensions, but this sparse autoencoder has {sae.d}: give "
            "the model that it was trained on."
        )
    nearest = (F.normalize(sae.w_dec.to(texts), dim=-1) @ texts.T).max(dim=1)
    names = [words[i] for i in nearest.indices.tolist()]
    return pd.DataFrame({"feature": range(sae.n_features), "name": names, "cosine": nearest.values.tolist()})
