"""Mixtures on disk: the trainer's table, a JSON beside it that says how it was made, and tables of many. No torch."""

import json
import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict
from itertools import chain
from pathlib import Path
from typing import Any

import pandas as pd

from circuitry.data.captions import caption, image_rng
from circuitry.data.domains import ImageRecord, check_records
from circuitry.data.file_check import MissingFiles, check_file
from circuitry.data.imagenet_classes import class_key
from circuitry.runs.errors import InputError
from circuitry.runs.files import whole_file
from circuitry.runs.provenance import versions
from circuitry.study.mixtures.selection import MixtureSettings
from circuitry.study.mixtures.trainer_table import CaptionedImage, NoCaption, caption_rows, write_table

_FORMAT = "circuitry mixture 2"

Captions = Mapping[str, str] | Callable[[ImageRecord], str]
"""The captions of images: {path below the root: caption}, as `read_captions` reads it, or a function."""

OF_ONE_STUDY = ("caption_source", "caption_seed", "caption_file", "held_out")
"""What the mixtures of a study have in common, so that models trained on them can be compared."""


def read_captions(place: str | os.PathLike[str]) -> dict[str, str]:
    """Read a table of captions, or ``captions.tsv`` in a folder, as {path below the root: caption}.

    Raises:
        InputError: For no such file, and for other columns than ``filepath`` and ``title``.
    """
    path = Path(place)
    return dict(caption_rows(path if path.is_file() else path / "captions.tsv"))


def generated_captions(seed: int = 0, *, aligned: bool = False) -> Callable[[ImageRecord], str]:
    """Return captions drawn image by image: sentences round a style word (``aligned``: a shared one) and the class.

    Example:
        >>> write_mixture(records, generated_captions(seed=0, aligned=settings.aligned), "runs/train.tsv")
    """

    def of_image(record: ImageRecord) -> str:
        return caption(record.class_name, record.domain, image_rng(record.relative, seed), aligned=aligned)

    return of_image


def with_captions(records: Iterable[ImageRecord], captions: Captions) -> Iterator[CaptionedImage]:
    """Join images and captions; a caption that a mapping lacks is empty."""
    of_image = captions if callable(captions) else lambda record: captions.get(record.relative, "")
    for record in records:
        path = str(record.path.absolute())
        yield CaptionedImage(path, record.relative, record.domain, record.class_name, of_image(record))


def write_mixture(
    records: Sequence[ImageRecord],
    captions: Captions,
    path: str | os.PathLike[str],
    *,
    settings: MixtureSettings | None = None,
    base: Iterable[CaptionedImage] = (),
    about: Mapping[str, Any] | None = None,
    missing_files: MissingFiles = "refuse",
    no_caption: NoCaption = "refuse",
) -> Path:
    """Write the table open_clip's trainer reads, ``filepath<TAB>title``, and beside it ``.json``: how it was made.

    The JSON holds the settings, once as they are and once as `MixtureSettings.described` tells them, ``about`` (which
    may say otherwise), the number of images per domain and class, of the base set and of those left out, the versions
    of the packages, and a digest of the content: relative paths and captions in their order, so the same on every
    machine.

    Args:
        records: Images of a mixture, from `mixture` or `admitted`.
        captions: See `Captions`; white space in captions is written as single spaces.
        path: Where the table is written.
        settings: What chose the records.
        base: Images of a base set, a stream from `base_sets`; they come first.
        about: More to be said in the JSON, such as where captions come from, and `MixtureSpec.described`.
        missing_files: What happens to images without a file, see `write_table`.
        no_caption: What happens to images without a caption, see `write_table`.

    Returns:
        The path of the table.

    Raises:
        InputError: As `write_table`, and for anything else than image records.

    Example:
        >>> settings = MixtureSettings("cg-high", "sketch", ("axe", "lion"))
        >>> write_mixture(mixture(train, settings), read_captions(root), "runs/train.tsv", settings=settings)
    """
    check_records(records)
    images = chain(base, with_captions(records, captions))
    table = write_table(images, path, missing_files=missing_files, no_caption=no_caption)
    counts: dict[str, dict[str, int]] = {}
    for (domain, class_name), n in table.counts.items():
        counts.setdefault(domain, {})[class_name] = n
    ours = {record.domain for record in records}
    based = {domain: sum(by_class.values()) for domain, by_class in counts.items() if domain not in ours}
    made = {
        "format": _FORMAT,
        "digest": table.digest,
        "images": table.images,
        "settings": asdict(settings) if settings else None,
        **(settings.described() if settings else {}),
        "sketches": None,
        "base": "+".join(based) or None,
        **(about or {}),
        "base_images": based,
        "left_out": {"missing_files": table.missing_files, "no_caption": table.no_caption},
        "counts": counts,
        "versions": versions(),
    }
    with whole_file(table.path.with_suffix(".json")) as temporary:
        temporary.write_text(json.dumps(made, indent=1) + "\n", encoding="utf-8")
    return table.path


def read_description(table: str | os.PathLike[str]) -> dict[str, Any]:
    """Return the JSON beside a table; InputError for none there, and for one that describes no mixture."""
    path = Path(table).with_suffix(".json")
    check_file(path, "a mixture's description", "make it with write_mixture")
    try:
        described: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise InputError(f"{path} is damaged ({error}); make the mixture again.") from None
    if not isinstance(described, dict) or described.get("format") != _FORMAT:
        raise InputError(f"{path} does not describe a mixture (format {_FORMAT!r}); make it with write_mixture.")
    return described


def check_one_study(described: Mapping[str, Mapping[str, Any]]) -> None:
    """Refuse descriptions of mixtures, by name, that differ in what `OF_ONE_STUDY` lists, where they say it.

    Raises:
        InputError: With the first two that differ, and in what.
    """
    first: dict[str, str] = {}
    for name, about in described.items():
        for key in OF_ONE_STUDY:
            if key not in about:
                continue
            other = first.setdefault(key, name)
            if described[other][key] != about[key]:
                raise InputError(
                    f"Mixtures of one study must be made alike, but {other} has {key} {described[other][key]!r} and "
                    f"{name} {about[key]!r}; use the same for all, or another folder for these (--out)."
                )


def mixture_summary(tables: Sequence[str | os.PathLike[str]], held_out: Sequence[str]) -> pd.DataFrame:
    """Return what went into mixtures: one row per mixture, domain and part; columns mixture, domain, part, images.

    Part "held-out" holds the images of the held-out classes, in whichever domain, "seen" those of the others, and
    "base" those of a base set.

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
            parts = (
                {"base": images} if domain in described["base_images"] else {"seen": images - held, "held-out": held}
            )
            rows += [(Path(table).stem, domain, part, n) for part, n in parts.items()]
    return pd.DataFrame(rows, columns=["mixture", "domain", "part", "images"])
