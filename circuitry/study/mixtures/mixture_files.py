"""Mixtures on disk: the trainer's table, a JSON that describes it, and summaries of many. No torch."""

import json
import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict
from itertools import chain
from pathlib import Path
from typing import Any

import pandas as pd

from circuitry.data.captions import PATTERNS, caption, image_rng
from circuitry.data.domains import ImageRecord
from circuitry.data.file_check import MissingFiles, check_file
from circuitry.data.imagenet_classes import class_key
from circuitry.runs.errors import InputError
from circuitry.runs.files import whole_file
from circuitry.runs.given import Names, Seed, checked
from circuitry.runs.provenance import versions
from circuitry.study.mixtures.selection import MixtureSettings
from circuitry.training.trainer_table import CaptionedImage, NoCaption, caption_rows, write_table

_FORMAT = "circuitry mixture 2"

Captions = Mapping[str, str] | Callable[[ImageRecord], str]
"""The captions of images: {path below the root: caption}, as of `read_captions`, or a function."""

OF_ONE_STUDY = ("caption_source", "caption_seed", "caption_file", "held_out")
"""Entries that all mixtures of a study must share, so that their models are comparable."""


@checked
def read_captions(place: str | os.PathLike[str]) -> dict[str, str]:
    """Read a table of captions, or ``captions.tsv`` in a folder, as {path below the root: caption}.

    Raises:
        InputError: For a missing file, and for other columns than ``filepath`` and ``title``.
    """
    path = Path(place)
    return dict(caption_rows(path if path.is_file() else path / "captions.tsv"))


@checked
def caption_words(place: str | os.PathLike[str]) -> tuple[str, ...]:
    """Return the words of a table of captions, sorted: all that a model trained on them alone can know.

    Articles and the words of the sentences round style and class are left out.

    Raises:
        InputError: as `read_captions`.
    """
    found = {word.strip(".,") for caption in read_captions(place).values() for word in caption.split()}
    sentence = {word.strip(".,") for pattern in PATTERNS for word in pattern.split()}
    return tuple(sorted(found - sentence - {"", "a", "an"}))


@checked
def generated_captions(seed: Seed = 0, *, aligned: bool = False) -> Callable[[ImageRecord], str]:
    """Return captions drawn image by image: sentences with a style word (``aligned``: a shared word) and the class.

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


@checked
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
    """Write the table of open_clip's trainer, ``filepath<TAB>title``, and a ``.json`` that describes it.

    The JSON has the settings, the entries of `MixtureSettings.described` and ``about`` (which overrides them), the
    numbers of images per domain and class, of the base set and of images left out, package versions, and a digest of
    relative paths and captions, which is the same on every machine.

    Args:
        records: Images of a mixture, from `mixture` or `admitted`.
        captions: See `Captions`; white space becomes single spaces.
        path: The table.
        settings: Settings that chose the records.
        base: Images of a base set, a stream from `base_sets`; they come first.
        about: More entries of the JSON, such as the source of captions, and `MixtureSpec.described`.
        missing_files, no_caption: See `write_table`.

    Returns:
        The path of the table.

    Raises:
        InputError: As `write_table`, and for other objects than image records.

    Example:
        >>> settings = MixtureSettings("cg-high", "sketch", ("axe", "lion"))
        >>> write_mixture(mixture(train, settings), read_captions(root), "runs/train.tsv", settings=settings)
    """
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
    with whole_file(description_file(table.path)) as temporary:
        temporary.write_text(json.dumps(made, indent=1) + "\n", encoding="utf-8")
    return table.path


def description_file(table: Path) -> Path:
    """Return the path of the JSON beside a table."""
    if not table.name:
        raise InputError(f"Expected the path of a table, but {str(table)!r} was given: add the name of its file.")
    return table.with_suffix(".json")


@checked
def read_description(table: str | os.PathLike[str]) -> dict[str, Any]:
    """Read the JSON beside a table; InputError if it is missing, damaged, or describes no mixture."""
    path = description_file(Path(table))
    check_file(path, "a mixture's description", "make it with write_mixture")
    try:
        described: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise InputError(f"{path} is damaged ({error}): make the mixture again.") from None
    if not isinstance(described, dict) or described.get("format") != _FORMAT:
        raise InputError(f"{path} does not describe a mixture (format {_FORMAT!r}): make it with write_mixture.")
    return described


@checked
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


@checked
def mixture_summary(tables: Sequence[str | os.PathLike[str]], held_out: Names) -> pd.DataFrame:
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
            parts = (
                {"base": images} if domain in described["base_images"] else {"seen": images - held, "held-out": held}
            )
            rows += [(Path(table).stem, domain, part, n) for part, n in parts.items()]
    return pd.DataFrame(rows, columns=["mixture", "domain", "part", "images"])
