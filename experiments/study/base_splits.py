"""Training and validation images of a base set, by a published split or by a share. No torch."""

import hashlib
import json
import os
import warnings
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from circuitry.runs import InputError
from circuitry.training import CaptionedImage


@dataclass(frozen=True)
class Split:
    """Training and validation images of a base set, by file name or path below the root."""

    train: frozenset[str] | None
    """None: all except the validation images."""
    val: frozenset[str]


def read_split(path: str | os.PathLike[str]) -> Split:
    """Read the split of a base set: ``{"train": [...], "val": [...]}`` in JSON, else validation images line by line.

    Raises:
        InputError: For a missing file, JSON of another shape, and a file in both parts.
    """
    file = Path(path)
    if not file.is_file():
        raise InputError(f"Expected a split of a base set, but there is no file {file}: give its path.")
    text = file.read_text(encoding="utf-8")
    if file.suffix.lower() != ".json":
        return Split(None, frozenset(line.strip() for line in text.splitlines() if line.strip()))
    try:
        parts = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise InputError(f"The split {file} is damaged ({error}): download it again.") from None
    if not (isinstance(parts, dict) and parts.keys() == {"train", "val"} and all(map(_are_names, parts.values()))):
        shown = f"an object with {sorted(parts)}" if isinstance(parts, dict) else type(parts).__name__
        raise InputError(
            f'The split {file} must be JSON {{"train": [...], "val": [...]}} of file names, but it is {shown} or has '
            "other entries: download the published one."
        )
    train, val = (frozenset(parts[part]) for part in ("train", "val"))
    if both := sorted(train & val):
        raise InputError(f"The split {file} has {len(both)} files in both parts, such as {both[0]}: name each once.")
    return Split(train, val)


def _are_names(names: object) -> bool:
    return isinstance(names, list) and all(isinstance(name, str) for name in names)


def validation_part(
    images: Iterable[CaptionedImage], part: Literal["train", "val"], validation: float | Split, seed: int = 0
) -> Iterator[CaptionedImage]:
    """Yield the training or the validation images of a base set.

    A `Split` names them, and images in neither part are left out. With a share in 0..1 the seed and the relative path
    of an image alone decide, so its part is the same in every subset and on every machine.

    Warns:
        UserWarning: For names of a split that the base set lacks.

    Raises:
        InputError: For a share outside of 0..1; after the last image, for a split of another version, most of whose
            names the base set lacks.
    """
    if isinstance(validation, Split):
        return _named_part(images, part, validation)
    if not 0 <= validation <= 1:
        raise InputError(f"The share of validation images must be in 0..1, but {validation} was given.")
    below = validation * 2**64
    return (image for image in images if (_drawn(seed, image.relative) < below) == (part == "val"))


def _drawn(seed: int, name: str) -> int:
    """Return a random number below 2**64 that depends on seed and name alone."""
    return int.from_bytes(hashlib.sha256(f"{seed}\0{name}".encode()).digest()[:8])


def _named_part(
    images: Iterable[CaptionedImage], part: Literal["train", "val"], split: Split
) -> Iterator[CaptionedImage]:
    found = 0
    for image in images:
        names = (image.relative, image.relative.rpartition("/")[2])
        validates = not split.val.isdisjoint(names)
        trains = not validates and (split.train is None or not split.train.isdisjoint(names))
        found += validates or (trains and split.train is not None)
        if validates if part == "val" else trains:
            yield image
    named = len(split.val) + len(split.train or ())
    lost = named - found
    if lost * 2 > named:
        raise InputError(
            f"The base set lacks {lost} of the {named} images of its split, which is of another version: give the "
            "split of these captions."
        )
    if lost:
        warnings.warn(f"The base set lacks {lost} of the {named} images of its split.", stacklevel=2)
