"""Files of mixtures: captions of images, tables with a JSON of the settings, and a summary of tables.

A mixture is a choice of training images from several domains, which a table lists with their captions.

Does not import torch.
"""

import os
import random
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict
from itertools import chain, product
from pathlib import Path
from typing import Any

from circuitry.runs import InputError, Seed
from circuitry.data import DomainFolder, ImageRecord, caption, class_key, image_rng
from circuitry.training import (
    CaptionedImage,
    Captions,
    read_description,
    with_captions,
    write_captioned_table,
)
from experiments.study.selection import DOMAINNET_ROUND, MixtureSettings, SketchSet

import pandas as pd

STUDY_SEED = 42  # seed of all random draws of the study

STREAM_SPLITS = ("train", "test")
"""Splits in the order in which the study drew captions."""

SKETCH_PATTERNS = (
    "{}.",
    "a {}.",
    "the {}.",
    "{} drawing.",
    "drawing of a {}.",
    "drawing of the {}.",
    "a {} drawing.",
    "a drawing of a {}.",
    "a drawing of the {}.",
    "{} sketch.",
    "sketch of a {}.",
    "sketch of the {}.",
    "a {} sketch.",
    "a sketch of a {}.",
    "a sketch of the {}.",
    "{} image.",
    "image of a {}.",
    "image of the {}.",
    "a {} image.",
    "an image of a {}.",
    "an image of the {}.",
)
"""The 21 sentences that describe images of ImageNet-Sketch in the study. The name of the class replaces ``{}``."""


def stream_captions(
    root: Path, seed: int = STUDY_SEED, *, aligned: bool = False
) -> dict[str, dict[str, str]]:
    """Return the captions that the study gave to all images in the lists of a data set.

    The captions of all images are draws of a single random generator. It goes through the domains in alphabetical
    order, in each domain through the splits, and in each split through the lines of the list, also if files of images
    are missing.

    Args:
        root: Folder of the lists, ``<domain>_<split>.txt``.
        seed: Seed of the generator.
        aligned: True for captions that name only styles that all domains share. Each call begins anew with the seed.

    Returns:
        A dictionary from each split to a dictionary from the path below the root to the caption.

    Raises:
        InputError: If a list is missing.
    """
    listed = set[str]()
    for split in STREAM_SPLITS:
        for path in root.glob(f"*_{split}.txt"):
            listed.add(path.stem.removesuffix(f"_{split}"))
    # The stream of DomainNet goes through all six domains: without a list, all later captions would differ.
    domains = sorted(DOMAINNET_ROUND if listed <= set(DOMAINNET_ROUND) else listed)
    names = [f"{domain}_{split}.txt" for domain in domains for split in STREAM_SPLITS]
    missing = [name for name in names if not (root / name).is_file()]
    if missing:
        raise InputError(
            f"The study's captions are one random stream through all {len(names)} lists, but {root} lacks "
            f"{len(missing)}, such as {missing[0]}: add the lists (images may be missing), or take captions by-image."
        )
    folders = {
        split: DomainFolder(root, split, missing_files="unchecked")
        for split in STREAM_SPLITS
    }
    rng = random.Random(seed)
    captions: dict[str, dict[str, str]] = {split: {} for split in STREAM_SPLITS}
    # The order of these loops is the order of the draws.
    for domain, split in product(domains, STREAM_SPLITS):
        for record in folders[split].records:
            if record.domain == domain:
                text = caption(record.class_name, domain, rng, aligned=aligned)
                captions[split][record.relative] = text
    return captions


def sketch_caption(class_name: str, rng: random.Random) -> str:
    """Return a random caption of an image of ImageNet-Sketch.

    It is one of `SKETCH_PATTERNS`, and in half of the draws it loses its full stop. Most captions name the style.
    """
    text = rng.choice(SKETCH_PATTERNS).format(class_name)
    return text if rng.random() < 0.5 else text.removesuffix(".")


def sketch_captions(
    sketches: SketchSet, seed: Seed = STUDY_SEED, *, stream: bool
) -> dict[str, str]:
    """Return the captions of ImageNet-Sketch, as a dictionary from the path below its root to the caption.

    Args:
        sketches: The images, and the names of their classes.
        seed: Seed of the draws.
        stream: True if all captions are draws of a single generator, as in the study. False if the caption of an image
            depends only on the seed and its path.
    """
    rng = random.Random(seed)
    captions = {}
    for record in sketches.images:
        if not stream:
            rng = image_rng(record.relative, seed)
        name = sketches.names[record.class_name]
        captions[record.relative] = sketch_caption(name, rng)
    return captions


def write_mixture(
    records: Sequence[ImageRecord],
    captions: Captions,
    path: str | os.PathLike[str],
    settings: MixtureSettings,
    *,
    base: Iterable[CaptionedImage] = (),
    about: Mapping[str, Any] | None = None,
    **policies: Any,
) -> Path:
    """Write the table of a mixture, and beside it a JSON with the settings; return the table.

    Args:
        records: Images of the domains.
        captions: Captions of these images.
        path: File of the table.
        settings: Settings of the mixture.
        base: Images of the base set, with their captions.
        about: More entries of the JSON.
        policies: Options of `write_captioned_table` for missing files and captions.
    """
    told = {
        "settings": asdict(settings),
        **settings.described(),
        "sketches": None,
        "base": None,
        **(about or {}),
    }
    images = chain(base, with_captions(records, captions))
    return write_captioned_table(images, path, about=told, **policies)


def mixture_summary(tables: Sequence[Path], held_out: Sequence[str]) -> pd.DataFrame:
    """Count the images of mixtures by domain and group of classes.

    Args:
        tables: Tables of mixtures.
        held_out: Names of the held-out classes.

    Returns:
        Columns mixture, domain, group (``base``, ``seen`` or ``held-out``) and images.
    """
    keys = {class_key(name) for name in held_out}
    rows = []
    for table in tables:
        described = read_description(table)
        for domain, by_class in described["counts"].items():
            images = sum(by_class.values())
            # A base set counts as a domain, but classes are held out of other domains only.
            if domain == described["base"]:
                rows.append((table.stem, domain, "base", images))
                continue
            held = sum(n for name, n in by_class.items() if class_key(name) in keys)
            rows.append((table.stem, domain, "seen", images - held))
            rows.append((table.stem, domain, "held-out", held))
    return pd.DataFrame(rows, columns=["mixture", "domain", "group", "images"])
