"""The strongest features of many images: images through the encoder, activations through a sparse autoencoder.

1. stream the images of every class and domain through the encoder up to the autoencoder's site;
2. encode; where a site has positions, a feature's activation is its largest over them;
3. keep each image's 20 strongest positive features: memory does not grow with the number of features.
"""

import warnings
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from torch import Tensor
from tqdm import tqdm

from circuitry.data.batches import load_batches
from circuitry.data.domains import DomainFolder
from circuitry.models.clip import Clip
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
    batch_size: int = 64,
    progress: bool = True,
) -> ImageFeatures:
    """Return the 20 strongest features of the images of every class and domain.

    Args:
        clip: The model that the autoencoder was trained on.
        sae: An autoencoder of one of its sites.
        images: What to look at; files that cannot be read are left out, with a warning each.
        n_images: Images per class and domain, as `DomainFolder.select` draws them; all unless told.
        seed: Seed of that choice.
        batch_size: Images in one run.
        progress: Show a bar.

    Raises:
        InputError: for an autoencoder of another model, of no site or another width; for no images.

    Example:
        >>> features = image_features(clip, load_sae("runs/shared_features/sae.safetensors"), images)
        >>> compare_features(features)
    """
    site = site_of(sae, clip)
    records = [r for name in images.classes for d in images.domains for r in images.select(name, d, n_images, seed)]
    skipped: set[Path] = set()

    def skip(path: Path, reason: str) -> None:
        skipped.add(path)
        warnings.warn(f"skipped an image: {reason}", stacklevel=2)

    sae = sae.to(clip.encoder.device, clip.encoder.dtype)
    strongest, activation = [], []
    batches = load_batches([record.path for record in records], clip.preprocess, batch_size, on_skip=skip)
    with tqdm(total=len(records), unit="image", desc="features", disable=not progress, leave=False) as bar:
        for batch in batches:
            at_site = clip.encoder(batch.to(clip.encoder.device, clip.encoder.dtype), stop=site)
            found = _strongest(sae.encode(at_site.movedim(clip.encoder.unit_dim(site), -1)))
            strongest.append(found[0])
            activation.append(found[1])
            bar.update(len(batch))
    kept = [record for record in records if record.path not in skipped]
    if not kept:
        raise InputError("Features are compared on at least one image, but there were none.")
    table = pd.DataFrame(
        {
            "relative": [record.relative for record in kept],
            "domain": [record.domain for record in kept],
            "class": [record.class_name for record in kept],
        }
    )
    return ImageFeatures(table, np.concatenate(strongest), np.concatenate(activation), sae.n_features)


def site_of(sae: SparseAutoencoder, clip: Clip) -> str:
    """Return the site of a model that an autoencoder belongs to.

    Raises:
        InputError: for an autoencoder of another model, or of no site that the model has.
    """
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
