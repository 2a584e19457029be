"""Mixtures on disk: captions, tables whose JSON has the settings, and summaries of many. No torch."""

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
"""The study's 21 sentence patterns of ImageNet-Sketch."""


def stream_captions(
    root: Path, seed: int = STUDY_SEED, *, aligned: bool = False
) -> dict[str, dict[str, str]]:
    """Return the study's captions of all images of a listing: by split, as {path below the root: caption}.

    One generator goes through the domains in alphabetical order, train before test, line by line, whether or not the
    files exist; aligned captions restart it.
    """
    there = {
        path.stem.removesuffix(f"_{split}")
        for split in STREAM_SPLITS
        for path in root.glob(f"*_{split}.txt")
    }
    domains = sorted(DOMAINNET_ROUND if there <= set(DOMAINNET_ROUND) else there)
    names = [f"{domain}_{split}.txt" for domain in domains for split in STREAM_SPLITS]
    if missing := [name for name in names if not (root / name).is_file()]:
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
    for domain, (split, images) in product(domains, folders.items()):
        for record in images.records:
            if record.domain == domain:
                captions[split][record.relative] = caption(
                    record.class_name, domain, rng, aligned=aligned
                )
    return captions


def sketch_caption(class_name: str, rng: random.Random) -> str:
    """Return a random caption of an image of ImageNet-Sketch, by `SKETCH_PATTERNS`; most of them name the style."""
    said = rng.choice(SKETCH_PATTERNS).format(class_name)
    return said if rng.random() < 0.5 else said.removesuffix(".")


def sketch_captions(
    sketches: SketchSet, seed: Seed = STUDY_SEED, *, stream: bool
) -> dict[str, str]:
    """Return the captions of ImageNet-Sketch as {path below its root: caption}, of one random stream or by image."""
    rng = random.Random(seed)
    return {
        record.relative: sketch_caption(
            sketches.names[record.class_name],
            rng if stream else image_rng(record.relative, seed),
        )
        for record in sketches.images
    }


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
    """Write the table of a mixture, and a JSON that has its settings, by the policies of `write_captioned_table`."""
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
    """Count the images of mixtures by domain and group of classes: columns mixture, domain, group, images."""
    keys = {class_key(name) for name in held_out}
    rows = []
    for table in tables:
        described = read_description(table)
        for domain, by_class in described["counts"].items():
            images = sum(by_class.values())
            held = sum(
                n for class_name, n in by_class.items() if class_key(class_name) in keys
            )
            counts = (
                {"base": images}
                if domain == described["base"]
                else {"seen": images - held, "held-out": held}
            )
            rows += [(table.stem, domain, group, n) for group, n in counts.items()]
    return pd.DataFrame(rows, columns=["mixture", "domain", "group", "images"])
