"""The strongest features of many images: images through the encoder, activations through a sparse autoencoder.

Where a site has positions, a feature's activation is its largest over them. Memory does not grow with the number of
features.
"""

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from circuitry.data.domains import DomainFolder, ImageRecord
from circuitry.models.clip import Clip
from circuitry.models.image_pass import BATCH_SIZE, activations
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
