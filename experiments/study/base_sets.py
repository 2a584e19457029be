"""Base sets of captioned photos, and their validation images. No torch."""

import json
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from circuitry.runs import InputError
from circuitry.data import drawn_by_name
from circuitry.training import CaptionedImage, caption_rows

IMAGENET_CAPTIONS = "imagenet-captions"


def imagenet_captions(captions: Path, root: Path) -> Iterator[CaptionedImage]:
    """Read ImageNet-Captions: a JSON list of entries with filename, wnid, title, tags and description."""
    try:
        entries = json.loads(captions.read_text(encoding="utf-8-sig"))
        names = [
            (entry["wnid"], f"{entry['wnid']}/{entry['filename']}") for entry in entries
        ]
    except (ValueError, TypeError, KeyError) as error:
        raise InputError(
            f"{captions} must be a JSON list of entries with filename and wnid, but is not ({error!r}): download it "
            "again."
        ) from None
    for (wnid, relative), entry in zip(names, entries, strict=True):
        yield CaptionedImage(
            f"{root.absolute()}/{relative}",
            relative,
            IMAGENET_CAPTIONS,
            wnid,
            joined_caption(entry),
        )


def joined_caption(entry: Mapping[str, Any]) -> str:
    """Return title, tags (with spaces between them) and description joined by "; ", white space normalised."""
    tags = " ".join(str(tag) for tag in entry.get("tags") or () if tag is not None)
    texts = (
        " ".join(str(part or "").split())
        for part in (entry.get("title"), tags, entry.get("description"))
    )
    return "; ".join(text for text in texts if text)


def caption_table(
    table: Path, name: str, root: Path | None = None
) -> Iterator[CaptionedImage]:
    """Read a table of paths, below its folder or ``root``, and captions, as `caption_rows` does."""
    prefix = os.path.join(os.path.abspath(root or table.parent), "")
    for path, caption in caption_rows(table):
        full = os.path.join(prefix, path)
        yield CaptionedImage(full, full.removeprefix(prefix), name, "", caption)


@dataclass(frozen=True)
class BaseSet:
    """Files of a base set, and its validation images."""

    name: str
    path: Path  # ImageNet-Captions: its JSON; others: a table of paths and captions
    images: Path | None = None  # folder of relative paths (default: that of the table)
    validation: float | Mapping[str, frozenset[str]] | None = None
    """Validation images: their share, or the names (or paths) of the images for both purposes, train and val."""

    def all_images(self) -> Iterator[CaptionedImage]:
        """Return all of its images."""
        if self.name == IMAGENET_CAPTIONS:
            return imagenet_captions(self.path, self.images or self.path.parent)
        return caption_table(self.path, self.name, self.images)

    def images_for(
        self, purpose: Literal["train", "val"], seed: int = 0
    ) -> Iterator[CaptionedImage]:
        """Yield its training or validation images; a share is drawn by seed and path alone."""
        split = self.validation if isinstance(self.validation, Mapping) else {}
        below = (
            0
            if isinstance(self.validation, Mapping)
            else (self.validation or 0) * 2**64
        )
        found = 0
        named = sum(map(len, split.values()))
        for image in self.all_images():
            if split:
                names = (image.relative, image.relative.rpartition("/")[2])
                own = next(
                    (
                        one
                        for one in ("val", "train")
                        if not split[one].isdisjoint(names)
                    ),
                    None,
                )
            else:
                own = (
                    "val"
                    if int.from_bytes(drawn_by_name(seed, image.relative)[:8]) < below
                    else "train"
                )
            found += own is not None
            if own == purpose:
                yield image
        if found * 2 < named:
            raise InputError(
                f"The base set lacks {named - found} of the {named} images of its split, which is of another version: "
                "give the split of these captions."
            )


def named_base_sets(
    paths: Sequence[str], images: Sequence[str] = (), validation: Sequence[str] = ()
) -> dict[str, BaseSet]:
    """Return base sets by name, from NAME=VALUE of command lines."""
    by_name, folders, splits = (
        _named_values(given) for given in (paths, images, validation)
    )
    for name in [*folders, *splits]:
        if name not in by_name:
            raise InputError(
                f"The base set {name!r} has images or a split but no path: give --base {name}=PATH."
            )
    return {
        name: BaseSet(
            name,
            Path(path),
            Path(folders[name]) if name in folders else None,
            _share_or_split(splits[name]) if name in splits else None,
        )
        for name, path in by_name.items()
    }


def _named_values(given: Sequence[str]) -> dict[str, str]:
    pairs = [text.partition("=") for text in given]
    for name, _, value in pairs:
        if not (name and value):
            raise InputError(
                f"Base sets are named as NAME=VALUE, such as cc12m=cc12m.tsv, but {name!r} was given."
            )
    return {name: value for name, _, value in pairs}


def _share_or_split(given: str) -> float | dict[str, frozenset[str]]:
    """Return a share, or the images for both purposes, from a JSON like ``{"train": [...], "val": [...]}``."""
    if given.endswith(".json"):
        by_purpose = json.loads(Path(given).read_text(encoding="utf-8"))
        return {purpose: frozenset(by_purpose[purpose]) for purpose in ("train", "val")}
    try:
        share = float(given)
    except ValueError:
        share = -1.0
    if not 0 <= share <= 1:
        raise InputError(
            f"Validation images are a share from 0 to 1 or a JSON of train and val, but {given!r} was given."
        )
    return share
