"""Mixtures on disk: a table of images and captions whose JSON has the settings, and summaries of many. No torch."""

import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict
from itertools import chain
from pathlib import Path
from typing import Any

from circuitry.runs import InputError
from circuitry.data import ImageRecord, MissingFiles, class_key
from circuitry.training import (
    CaptionedImage,
    Captions,
    NoCaption,
    read_description,
    with_captions,
    write_captioned_table,
)
from experiments.study.selection import MixtureSettings

import pandas as pd

OF_ONE_STUDY = ("caption_source", "caption_seed", "caption_file", "held_out")
"""Entries that all mixtures of a study must share, so that their models are comparable."""


def write_mixture(
    records: Sequence[ImageRecord],
    captions: Captions,
    path: str | os.PathLike[str],
    settings: MixtureSettings,
    *,
    base: Iterable[CaptionedImage] = (),
    about: Mapping[str, Any] | None = None,
    missing_files: MissingFiles = "refuse",
    no_caption: NoCaption = "refuse",
) -> Path:
    """Write the table of a mixture, and a JSON that has its settings, as `write_captioned_table`.

    Args:
        records: Images of a mixture, from `mixture` or `admitted`.
        captions: Their captions.
        path: The table.
        settings: Settings that chose the records.
        base: Images of a base set, a stream from `base_sets`; they come first.
        about: More entries of the JSON, such as the source of captions, and `MixtureSpec.described`.
        missing_files, no_caption: See `write_captioned_table`.
    """
    told = {"settings": asdict(settings), **settings.described(), "sketches": None, "base": None, **(about or {})}
    images = chain(base, with_captions(records, captions))
    return write_captioned_table(images, path, about=told, missing_files=missing_files, no_caption=no_caption)


def check_one_study(described: Mapping[str, Mapping[str, Any]]) -> None:
    """Check that descriptions of mixtures, by name, agree in the entries `OF_ONE_STUDY` that they have.

    Raises:
        InputError: With the first two that differ, and both values.
    """
    first: dict[str, str] = {}
    for name, about in described.items():
        for key in OF_ONE_STUDY:
            if key not in about:
                continue
            other = first.setdefault(key, name)
            if described[other][key] != about[key]:
                raise InputError(
                    f"Mixtures of one study must have the same {key}, but {other} has {key} "
                    f"{described[other][key]!r} and {name} {about[key]!r}: use the same for all, or another folder "
                    "(--out)."
                )


def mixture_summary(tables: Sequence[str | os.PathLike[str]], held_out: Sequence[str]) -> pd.DataFrame:
    """Count the images of mixtures: one row per mixture, domain and part; columns mixture, domain, part, images.

    Part "held-out" has the images of held-out classes in any domain, "seen" all others, "base" those of a base set.

    Raises:
        InputError: As `read_description`.
    """
    keys = {class_key(name) for name in held_out}
    rows = []
    for table in tables:
        described = read_description(table)
        for domain, by_class in described["counts"].items():
            images = sum(by_class.values())
            held = sum(n for class_name, n in by_class.items() if class_key(class_name) in keys)
            parts = {"base": images} if domain == described["base"] else {"seen": images - held, "held-out": held}
            rows += [(Path(table).stem, domain, part, n) for part, n in parts.items()]
    return pd.DataFrame(rows, columns=["mixture", "domain", "part", "images"])
