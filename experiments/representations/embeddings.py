"""Images and texts as points in a CLIP model's embedding space.

All vectors are divided by their length, as CLIP does before it compares them.
"""

import logging
import os
from collections.abc import Mapping, Sequence
from pathlib import Path

from circuitry.runs import Count, InputError, Seed, Work
from circuitry.data import DomainFolder, ImageRecord, image_listing, readable
from circuitry.encoder.modes import own_modes
from circuitry.models.clip import Clip
from circuitry.models.image_pass import activations
from circuitry.runs.arguments import Names, checked
from circuitry.runs.arrays import cached_arrays
from experiments.representations.embedding_set import Embeddings

import numpy as np
import torch.nn.functional as F
from platformdirs import user_cache_path

_FORMAT = "circuitry embeddings 2"

log = logging.getLogger(__name__)


@own_modes()
@checked
def embed_images(
    clip: Clip,
    images: DomainFolder,
    n_images: Count | None = None,
    seed: Seed = 0,
    *,
    cache_dir: str | os.PathLike[str] | None = None,
    work: Work = Work(),
) -> Embeddings:
    """Return the embeddings of images, in the order of ``images.records`` (with ``n_images``: by domain and class).

    While hooks act at sites of the encoder, they act here, too; where one is a function, no cache is read or written.

    Args:
        images: Images to embed. Unreadable files are left out, with a warning each.
        n_images: Images per class and domain, as ``images.select`` chooses them by ``seed``; default: all.
        cache_dir: Folder of the results, whose names hold the digests of the model and of the files;
            default: the user's cache. A folder that cannot be written to is no error.

    Example:
        >>> embedded = embed_images(clip, DomainFolder("DomainNet"), n_images=20)
        >>> embedded.vectors.shape
        (41380, 1024)
    """
    records: Sequence[ImageRecord] = images.records
    if n_images is not None:
        records = [
            r
            for d in images.domains
            for c in images.classes
            for r in images.select(c, d, n_images, seed)
        ]
    folder = (
        Path(cache_dir)
        if cache_dir is not None
        else user_cache_path("circuitry") / "embeddings"
    )
    identity = clip.identity | {"images": list(image_listing(records).items())}
    found = cached_arrays(
        folder, identity, _FORMAT, "embeddings", lambda: _embedded(clip, records, work)
    )
    if work.strict and len(found["places"]) < len(records):
        # Names the image that an earlier call left out.
        found = _embedded(clip, records, work)
    read = [records[place] for place in found["places"]]
    if len(read) < len(records):
        log.warning(
            "embeddings: %d of %d images cannot be read",
            len(records) - len(read),
            len(records),
        )
    labels = [
        np.array([getattr(record, name) for record in read])
        for name in ("relative", "domain", "class_name")
    ]
    return Embeddings(found["vectors"], *labels)


def _embedded(
    clip: Clip, records: Sequence[ImageRecord], work: Work
) -> Mapping[str, np.ndarray]:
    """Return the embeddings of the images that can be read, and their places among the records."""
    site = clip.encoder.sites[-1]
    place = {record.relative: i for i, record in enumerate(records)}
    places: list[int] = []
    rows: list[np.ndarray] = []
    passed = activations(
        clip.encoder,
        clip.preprocess,
        records,
        [site],
        strict=work.strict,
        progress=work.bar("embedding"),
    )
    for there, found in passed:
        places += [place[record.relative] for record in there]
        rows.append(F.normalize(found[site].float(), dim=-1).cpu().numpy())
    if not places:
        raise InputError(
            f"None of the {len(records)} images to embed can be read: give a folder with readable ones."
        )
    return {"vectors": np.concatenate(rows), "places": np.array(places)}


@checked
def embed_texts(
    clip: Clip,
    class_names: Names,
    *,
    cache_dir: str | os.PathLike[str] | None = None,
) -> Embeddings:
    """Return one embedding per class, by the templates of zero-shot classification; see `Clip.text_weights`.

    Example:
        >>> embed_texts(clip, ["cat", "alarm_clock"]).source.tolist()
        ['cat', 'alarm clock']
    """
    weights = clip.text_weights(class_names, cache_dir=cache_dir).float().cpu().numpy()
    sources = np.array([readable(name) for name in class_names])
    return Embeddings(
        weights, sources, np.full(len(sources), ""), np.array(class_names)
    )
