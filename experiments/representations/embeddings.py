"""Images and texts as points in a CLIP model's embedding space.

All vectors are divided by their length, as CLIP does before it compares them.
"""

import logging
import os
from collections.abc import Mapping, Sequence
from itertools import product
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
    """Return the embeddings of images, in the order of ``images.records``, or by domain and class with ``n_images``.

    Hooks that act at sites of the encoder act here, too. If a hook is a function, no cache is read or written, because
    a function has no identity that could name the file.

    Args:
        images: Images to embed. Unreadable files are left out, with a warning each.
        n_images: Images per class and domain, as ``images.select`` chooses them by ``seed``; default: all.
        cache_dir: Folder in which results are kept, by a digest of the model and of the image files; default: the
            user's cache. If the folder cannot be written to, nothing is kept and no error is raised.

    Example:
        >>> embedded = embed_images(clip, DomainFolder("DomainNet"), n_images=20)
        >>> embedded.vectors.shape
        (41380, 1024)
    """
    records: Sequence[ImageRecord] = images.records
    if n_images is not None:
        chosen = list[ImageRecord]()
        for domain, name in product(images.domains, images.classes):
            chosen += images.select(name, domain, n_images, seed)
        records = chosen
    if cache_dir is None:
        cache_dir = user_cache_path("circuitry") / "embeddings"
    # The listing holds the digest of every file: an image that changes under its name is embedded anew.
    identity = clip.identity | {"images": list(image_listing(records).items())}
    arrays = cached_arrays(
        Path(cache_dir),
        identity,
        _FORMAT,
        "embeddings",
        lambda: _embedded(clip, records, work),
    )
    if work.strict and len(arrays["places"]) < len(records):
        # The cache is of a call that was not strict; to embed again raises the error that names the unreadable image.
        arrays = _embedded(clip, records, work)
    read = [records[place] for place in arrays["places"]]
    if len(read) < len(records):
        log.warning(
            "embeddings: %d of %d images cannot be read",
            len(records) - len(read),
            len(records),
        )
    # [3, images]: each row is one label of all images.
    labels = np.array([(r.relative, r.domain, r.class_name) for r in read]).T
    return Embeddings(arrays["vectors"], *labels)


def _embedded(
    clip: Clip, records: Sequence[ImageRecord], work: Work
) -> Mapping[str, np.ndarray]:
    """Return the ``vectors`` [images, d] of the images that can be read, and their ``places`` among the records."""
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
    for batch, acts in passed:
        # A batch lacks the images that cannot be read, so places are looked up by name.
        places += [place[record.relative] for record in batch]
        # Single precision before the division: half precision would leave lengths off by a thousandth.
        rows.append(F.normalize(acts[site].float(), dim=-1).cpu().numpy())
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
    """Return one embedding per class, made from the templates of zero-shot classification; see `Clip.text_weights`.

    Example:
        >>> embed_texts(clip, ["cat", "alarm_clock"]).source.tolist()
        ['cat', 'alarm clock']
    """
    # [classes, d]; `Clip.text_weights` averages over templates and divides each row by its length.
    weights = clip.text_weights(class_names, cache_dir=cache_dir).float().cpu().numpy()
    sources = np.array(list(map(readable, class_names)))
    return Embeddings(
        weights, sources, np.full(len(sources), ""), np.array(class_names)
    )
