"""A table of images and captions on disk, as the trainer reads it, with a JSON that describes it. No torch."""

import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from circuitry.data.captions import PATTERNS, caption, image_rng
from circuitry.data.domains import ImageRecord
from circuitry.data.file_check import MissingFiles
from circuitry.runs.errors import InputError
from circuitry.runs.given import Seed, checked
from circuitry.runs.manifest import check_format, read_sealed, write_sealed
from circuitry.runs.provenance import versions
from circuitry.training.trainer_table import CaptionedImage, NoCaption, caption_rows, write_table

_FORMAT = "circuitry table 2"

Captions = Mapping[str, str] | Callable[[ImageRecord], str]
"""The captions of images: {path below the root: caption}, as of `read_captions`, or a function."""


@checked
def read_captions(place: str | os.PathLike[str]) -> dict[str, str]:
    """Read a table of captions, or ``captions.tsv`` in a folder, as {path below the root: caption}."""
    path = Path(place)
    return dict(caption_rows(path if path.is_file() else path / "captions.tsv"))


def caption_words(place: str | os.PathLike[str]) -> tuple[str, ...]:
    """Return the words of a table of captions, sorted: all that a model trained on them alone can know.

    Articles and the words of the sentences round style and class are left out.
    """
    found = {word.strip(".,") for caption in read_captions(place).values() for word in caption.split()}
    sentence = {word.strip(".,") for pattern in PATTERNS for word in pattern.split()}
    return tuple(sorted(found - sentence - {"", "a", "an"}))


def generated_captions(seed: Seed = 0, *, aligned: bool = False) -> Callable[[ImageRecord], str]:
    """Return captions drawn image by image: sentences with a style word (``aligned``: a shared word) and the class.

    Example:
        >>> images = with_captions(records, generated_captions(seed=0, aligned=True))
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


def write_captioned_table(
    images: Iterable[CaptionedImage],
    path: str | os.PathLike[str],
    *,
    about: Mapping[str, Any] | None = None,
    missing_files: MissingFiles = "refuse",
    no_caption: NoCaption = "refuse",
) -> Path:
    """Write the table of open_clip's trainer, ``filepath<TAB>title``, and a ``.json`` that describes it.

    The JSON has ``about``, the numbers of images per domain and class and of images left out, package versions, and a
    digest of relative paths and captions, which is the same on every machine.

    Args:
        images: Images with captions, from `with_captions`, or any stream; white space becomes single spaces.
        missing_files, no_caption: Whether images without a file, or without a caption that the trainer reads as text,
            are refused or left out and counted.

    Example:
        >>> photos = DomainFolder("DomainNet", split="train", domains=("real",))
        >>> write_captioned_table(with_captions(photos.records, read_captions("DomainNet")), "runs/train.tsv")
    """
    table = Path(path)
    written = write_table(images, table, missing_files=missing_files, no_caption=no_caption)
    made = {"format": _FORMAT, **written, **(about or {}), "versions": versions()}
    write_sealed(description_file(table), made)
    return table


def description_file(table: Path) -> Path:
    """Return the path of the JSON beside a table."""
    if not table.name:
        raise InputError(f"Expected the path of a table, but {str(table)!r} was given: add the name of its file.")
    return table.with_suffix(".json")


@checked
def read_description(table: str | os.PathLike[str]) -> dict[str, Any]:
    """Read the JSON beside a table; InputError if it is missing, damaged, or describes no table."""
    path = description_file(Path(table))
    described = read_sealed(path, "make the table again, with write_captioned_table")
    check_format(path, described.get("format"), _FORMAT)
    return described
