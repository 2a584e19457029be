"""Base sets of captioned photos, and their validation images. Does not import torch.

A base set is a data set of photos with captions, such as ImageNet-Captions or CC12M, to which a mixture adds images of
several domains.
"""

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
    """Yield the images of ImageNet-Captions, from its JSON: a list of entries with filename, wnid and texts.

    Args:
        captions: The JSON file.
        root: Folder of the images, ``root/<wnid>/<filename>``.

    Raises:
        InputError: If the file is no such list.
    """
    try:
        entries = json.loads(captions.read_text(encoding="utf-8-sig"))
        # All entries are checked before the first image is yielded, so that a damaged list is refused at once.
        paths = [f"{entry['wnid']}/{entry['filename']}" for entry in entries]
    except (ValueError, TypeError, KeyError) as error:
        raise InputError(
            f"{captions} must be a JSON list of entries with filename and wnid, but is not ({error!r}): download it "
            "again."
        ) from None
    for path, entry in zip(paths, entries, strict=True):
        yield CaptionedImage(
            f"{root.absolute()}/{path}",
            path,
            IMAGENET_CAPTIONS,
            entry["wnid"],
            joined_caption(entry),
        )


def joined_caption(entry: Mapping[str, Any]) -> str:
    """Return the title, the tags and the description of an entry, joined by "; ".

    Tags are joined by spaces. White space becomes single spaces, and texts that are missing or empty are left out.
    """
    tags = " ".join(str(tag) for tag in entry.get("tags") or () if tag is not None)
    texts = (entry.get("title"), tags, entry.get("description"))
    # The file has null in place of some texts.
    normalised = [" ".join(str(text or "").split()) for text in texts]
    return "; ".join(filter(None, normalised))


def caption_table(
    table: Path, name: str, root: Path | None = None
) -> Iterator[CaptionedImage]:
    """Yield the images of a table of paths and captions, which is read as by `caption_rows`.

    Args:
        table: The table.
        name: Name of the base set.
        root: Folder that relative paths start from (default: the folder of the table).
    """
    # Joined with "", a folder ends with one separator.
    prefix = os.path.join(os.path.abspath(root or table.parent), "")
    for path, caption in caption_rows(table):
        # A path that is absolute already stays as it is.
        full = os.path.join(prefix, path)
        yield CaptionedImage(full, full.removeprefix(prefix), name, "", caption)


@dataclass(frozen=True)
class BaseSet:
    """The files of a base set, and the choice of its validation images."""

    name: str
    path: Path  # the JSON of ImageNet-Captions; of other sets a table of paths and captions
    images: Path | None = (
        None  # folder that relative paths start from (default: the folder of ``path``)
    )
    validation: float | Mapping[str, frozenset[str]] | None = None
    """The validation images: their share, or a split, which has file names or paths of images for "train" and "val".
    If it is None, all images are for training."""

    def all_images(self) -> Iterator[CaptionedImage]:
        """Return all images of the set."""
        if self.name == IMAGENET_CAPTIONS:
            return imagenet_captions(self.path, self.images or self.path.parent)
        return caption_table(self.path, self.name, self.images)

    def images_for(
        self, purpose: Literal["train", "val"], seed: int = 0
    ) -> Iterator[CaptionedImage]:
        """Yield the training images or the validation images.

        Args:
            purpose: "train" or "val".
            seed: Seed of the draw, if a share of the images is for validation. A split ignores it.

        Raises:
            InputError: After the last image, if the set lacks more than half of the images of its split.
        """
        validation = self.validation
        if isinstance(validation, Mapping):
            yield from self._images_of_split(validation, purpose)
            return
        # The first 64 bits of a hash of seed and path are a uniform number, which depends on no other image.
        below = (validation or 0) * 2**64
        for image in self.all_images():
            drawn = int.from_bytes(drawn_by_name(seed, image.relative)[:8])
            if (drawn < below) == (purpose == "val"):
                yield image

    def _images_of_split(
        self, split: Mapping[str, frozenset[str]], purpose: Literal["train", "val"]
    ) -> Iterator[CaptionedImage]:
        """Yield the images that a split names for a purpose; images for both purposes are for validation."""
        n_named = sum(map(len, split.values()))
        n_present = 0
        for image in self.all_images():
            # Some splits name paths, others file names.
            names = (image.relative, image.relative.rpartition("/")[2])
            for_validation = not split["val"].isdisjoint(names)
            if for_validation or not split["train"].isdisjoint(names):
                n_present += 1
                if for_validation == (purpose == "val"):
                    yield image
        # Some photos may be missing; if more than half are, the split is of another version of the set.
        if n_present * 2 < n_named:
            raise InputError(
                f"The base set lacks {n_named - n_present} of the {n_named} images of its split, which is of another "
                "version: give the split of these captions."
            )


def named_base_sets(
    paths: Sequence[str], images: Sequence[str] = (), validation: Sequence[str] = ()
) -> dict[str, BaseSet]:
    """Return a dictionary from the name of each base set to the base set.

    Args:
        paths: Texts NAME=PATH of the command line, as in `BaseSet.path`.
        images: Texts NAME=FOLDER, as in `BaseSet.images`.
        validation: Texts NAME=SHARE or NAME=FILE, as in `BaseSet.validation`.
    """
    by_name = _named_values(paths)
    folders = _named_values(images)
    splits = _named_values(validation)
    for name in [*folders, *splits]:
        if name not in by_name:
            raise InputError(
                f"The base set {name!r} has images or a split but no path: give --base {name}=PATH."
            )
    base_sets = {}
    for name, path in by_name.items():
        folder = Path(folders[name]) if name in folders else None
        split = _share_or_split(splits[name]) if name in splits else None
        base_sets[name] = BaseSet(name, Path(path), folder, split)
    return base_sets


def _named_values(given: Sequence[str]) -> dict[str, str]:
    """Return a dictionary from NAME to VALUE of texts NAME=VALUE."""
    by_name = {}
    for text in given:
        # A value may hold further equals signs, as paths do.
        name, _, value = text.partition("=")
        if not (name and value):
            raise InputError(
                f"Base sets are named as NAME=VALUE, such as cc12m=cc12m.tsv, but {name!r} was given."
            )
        by_name[name] = value
    return by_name


def _share_or_split(given: str) -> float | dict[str, frozenset[str]]:
    """Return the share that a text gives, or the split in the file that the text names.

    The file is a JSON like ``{"train": [...], "val": [...]}``.
    """
    if given.endswith(".json"):
        by_purpose = json.loads(Path(given).read_text(encoding="utf-8"))
        return {purpose: frozenset(by_purpose[purpose]) for purpose in ("train", "val")}
    try:
        share = float(given)
    except ValueError:
        # A text that is no number gets the same message as a number outside the range.
        share = -1.0
    if not 0 <= share <= 1:
        raise InputError(
            f"Validation images are a share from 0 to 1 or a JSON of train and val, but {given!r} was given."
        )
    return share
