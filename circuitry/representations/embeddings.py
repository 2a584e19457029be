"""Images and texts as points in a CLIP model's embedding space.

All vectors are divided by their length, as CLIP does before it compares them.
"""

import logging
import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch.nn.functional as F
from platformdirs import user_cache_path

from circuitry.data.captions import readable
from circuitry.data.domains import DomainFolder, ImageRecord
from circuitry.data.images import image_listing
from circuitry.models.clip import Clip
from circuitry.models.image_pass import BATCH_SIZE, activations
from circuitry.models.prompts import Template, style_templates
from circuitry.representations.embedding_set import Embeddings
from circuitry.runs.errors import InputError
from circuitry.runs.provenance import digest

log = logging.getLogger(__name__)


def embed_images(
    clip: Clip,
    images: DomainFolder,
    n_images: int | None = None,
    seed: int = 0,
    *,
    batch_size: int = BATCH_SIZE,
    cache_dir: str | os.PathLike[str] | None = None,
    progress: bool = True,
) -> Embeddings:
    """Return the embeddings of images, in the order of ``images.records`` (with ``n_images``: by domain and class).

    Args:
        clip: The model.
        images: What to embed. Files that cannot be read are left out, with a warning each.
        n_images: Images per class and domain, as ``images.select`` chooses them by ``seed``; default: all.
        seed: Seed of the choice.
        batch_size: Images in one run; it changes no number but for rounding.
        cache_dir: Folder where results are kept, keyed by the model and the contents of the files;
            default: the user's cache. One that cannot be written to is no error.
        progress: Whether to show a bar over images.

    Raises:
        InputError: when no image can be read, or embeddings are not finite.

    Example:
        >>> embedded = embed_images(clip, DomainFolder("DomainNet"), n_images=20)
        >>> embedded.vectors.shape
        (41380, 1024)
    """
    records = _chosen(images, n_images, seed)
    folder = Path(cache_dir) if cache_dir is not None else user_cache_path("circuitry") / "embeddings"
    path = folder / f"{digest([clip.digest, list(image_listing(records).items())])}.safetensors"
    try:
        if path.is_file():
            return Embeddings.load(path)
    except (InputError, OSError) as error:
        log.warning("embeddings are made again: %s", error)
    embedded = _embedded(clip, records, batch_size, progress)
    try:
        embedded.save(path)
    except OSError as error:
        log.warning("embeddings are not kept for another time: %s", error)
    return embedded


def _chosen(images: DomainFolder, n_images: int | None, seed: int) -> Sequence[ImageRecord]:
    if n_images is None:
        return images.records
    cells = [(class_name, domain) for domain in images.domains for class_name in images.classes]
    return [record for cell in cells for record in images.select(*cell, n_images, seed)]


def _embedded(clip: Clip, records: Sequence[ImageRecord], batch_size: int, progress: bool) -> Embeddings:
    site = clip.encoder.sites[-1]
    read: list[ImageRecord] = []
    rows: list[np.ndarray] = []
    bar = "embedding" if progress else None
    passed = activations(clip.encoder, clip.preprocess, records, [site], batch_size=batch_size, progress=bar)
    for there, found in passed:
        read += there
        rows.append(F.normalize(found[site].float(), dim=-1).cpu().numpy())
    if not read:
        raise InputError(f"None of the {len(records)} images to embed can be read: give a folder with readable ones.")
    labels = [np.array([getattr(record, name) for record in read]) for name in ("relative", "domain", "class_name")]
    return Embeddings(np.concatenate(rows), *labels)


def embed_texts(
    clip: Clip,
    class_names: Sequence[str],
    styles: Sequence[str] | None = None,
    *,
    templates: Sequence[Template] | None = None,
    cache_dir: str | os.PathLike[str] | None = None,
) -> Embeddings:
    """Return one embedding per class, or per style and class, as `Clip.text_weights` makes them.

    Args:
        clip: The model.
        class_names: The classes.
        styles: Names of domains: each class gets a prompt in each, "a sketch of a cat." The word is the first of the
            domain's own in `STYLE_WORDS` ("photo" for real), or the domain's name. Default: no styles.
        templates: Templates of texts without a style; default: those of zero-shot classification.
        cache_dir: Folder where results are kept; default: the user's cache.

    Raises:
        InputError: for no classes, no styles, or templates together with styles.

    Example:
        >>> embed_texts(clip, ["cat", "dog"], styles=["sketch", "real"]).source[:2].tolist()
        ['a sketch of a cat.', 'a sketch of a dog.']
    """
    if styles is not None and (templates is not None or not styles):
        given = "templates, too, were" if templates is not None else "an empty list was"
        raise InputError(
            f"Texts in styles need names of styles, each of which is its own template, but {given} given: "
            "give one of the two."
        )
    weights, sources = [], []
    patterns = {"": "{}"} if styles is None else {style: style_templates(style)[0] for style in styles}
    for pattern in patterns.values():
        own = templates if styles is None else [pattern]
        weights.append(clip.text_weights(class_names, own, cache_dir=cache_dir).float().cpu().numpy())
        sources += [pattern.replace("{}", readable(name)) for name in class_names]
    domains = np.repeat(list(patterns), len(class_names))
    return Embeddings(np.concatenate(weights), np.array(sources), domains, np.tile(class_names, len(patterns)))
