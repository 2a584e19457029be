"""Base sets of captioned photos, as streams in constant memory, and their validation images. No torch."""

import hashlib
import json
import os
import re
import tarfile
import warnings
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby, islice
from pathlib import Path
from typing import Any, Literal

from circuitry.runs import InputError
from circuitry.data import IMAGE_SUFFIXES
from circuitry.training import CaptionedImage, caption_rows


@dataclass(frozen=True)
class Split:
    """Training and validation images of a base set, by file name or path below the root."""

    train: frozenset[str] | None  # None: all except the validation images
    val: frozenset[str]


def read_split(path: str | os.PathLike[str]) -> Split:
    """Read the split of a base set: ``{"train": [...], "val": [...]}`` in JSON, else validation images line by line."""
    file = Path(path)
    text = file.read_text(encoding="utf-8")
    if file.suffix.lower() != ".json":
        return Split(None, frozenset(line.strip() for line in text.splitlines() if line.strip()))
    parts = json.loads(text)
    train, val = (frozenset(parts[part]) for part in ("train", "val"))
    return Split(train, val)


def validation_part(
    images: Iterable[CaptionedImage], part: Literal["train", "val"], validation: float | Split, seed: int = 0
) -> Iterator[CaptionedImage]:
    """Yield the training or the validation images of a base set."""
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


IMAGENET_CAPTIONS = "imagenet-captions"
FIRST = 100  # images that `BaseSet.check_images` looks for
_CHUNK = 1 << 20  # characters of a JSON file in memory at a time
_LONGEST_ENTRY = 1 << 26  # characters of the longest entry of a JSON list; a longer one is damaged
_BETWEEN = re.compile(r"[\s,]*")


def imagenet_captions(captions: str | os.PathLike[str], root: str | os.PathLike[str]) -> Iterator[CaptionedImage]:
    """Read ImageNet-Captions: a JSON list of entries with filename, wnid, title, tags and description."""
    folder = os.path.abspath(root)
    for number, entry in enumerate(_json_list(Path(captions)), start=1):
        if not (isinstance(entry, dict) and entry.get("filename") and entry.get("wnid")):
            raise InputError(
                f"{captions}, entry {number}: expected filename and wnid, given {str(entry)[:200]}; download it again."
            )
        wnid, relative = str(entry["wnid"]), f"{entry['wnid']}/{entry['filename']}"
        yield CaptionedImage(f"{folder}/{relative}", relative, IMAGENET_CAPTIONS, wnid, joined_caption(entry))


def joined_caption(entry: Mapping[str, Any]) -> str:
    """Return title, tags (with spaces between them) and description joined by "; ", white space normalised."""
    tags = entry.get("tags") or ()
    joined = tags if isinstance(tags, str) else " ".join(str(tag) for tag in tags if tag is not None)
    parts = (entry.get("title"), joined, entry.get("description"))
    return "; ".join(text for part in parts if part is not None and (text := " ".join(str(part).split())))


def caption_table(
    table: str | os.PathLike[str], name: str, root: str | os.PathLike[str] | None = None
) -> Iterator[CaptionedImage]:
    """Read a table of paths and captions, as `caption_rows` does."""
    folder = os.path.abspath(Path(table).parent if root is None else root)
    prefix = os.path.join(folder, "")
    for path, caption in caption_rows(table):
        if os.path.isabs(path):
            below = path.removeprefix(prefix)
        else:
            below, path = path, prefix + path
        yield CaptionedImage(path, below if os.sep == "/" else below.replace(os.sep, "/"), name, "", caption)


def shard_captions(shards: Iterable[str | os.PathLike[str]], name: str) -> Iterator[CaptionedImage]:
    """List the images of webdataset shards, without reading them: paths ``<shard>.tar/<key>.jpg``, and captions."""
    for shard in shards:
        path = Path(shard)
        try:
            with tarfile.open(path, "r:") as tar:
                yield from _shard_images(tar, path, name)
        except (tarfile.TarError, EOFError, ValueError) as error:
            raise InputError(f"Cannot read the shard {path} ({error}): complete the download.") from error


def _shard_images(tar: tarfile.TarFile, shard: Path, name: str) -> Iterator[CaptionedImage]:
    for _, members in groupby(_files(tar), key=_sample):
        image, texts = "", dict[str, str]()
        for member in members:
            suffix = "." + member.name.rpartition("/")[2].partition(".")[2].lower()
            if suffix in IMAGE_SUFFIXES:
                image = member.name
            elif suffix in (".txt", ".json") and (content := tar.extractfile(member)):
                texts[suffix] = content.read().decode("utf-8")
        if image:
            relative = f"{shard.name}/{image}"
            yield CaptionedImage(f"{os.path.abspath(shard)}/{image}", relative, name, "", _shard_caption(texts))


def _files(tar: tarfile.TarFile) -> Iterator[tarfile.TarInfo]:
    for member in tar:
        tar.members = []  # type: ignore[attr-defined]  # tarfile keeps every header
        if member.isfile() and _sample(member)[1]:
            yield member


def _sample(member: tarfile.TarInfo) -> tuple[str, str]:
    """Return the folder and the name up to the first dot, which all files of a sample share."""
    folder, _, file = member.name.rpartition("/")
    return folder, file.partition(".")[0]


def _shard_caption(texts: Mapping[str, str]) -> str:
    if ".txt" in texts:
        return texts[".txt"]
    about = json.loads(texts.get(".json", "{}"))
    return str(about.get("caption") or "") if isinstance(about, dict) else ""


@dataclass(frozen=True)
class BaseSet:
    """Files of a base set, and its validation images."""

    name: str
    path: Path  # ImageNet-Captions: its JSON; others: a table of paths and captions, or (a folder of) webdataset shards
    images: Path | None = None  # folder of relative paths (default: that of the table)
    validation: float | Split | None = None  # validation images: their share, or a split

    @property
    def shards(self) -> list[Path]:
        """Return its webdataset shards, if any."""
        if self.path.is_dir():
            return sorted(self.path.glob("*.tar"))
        return [self.path] if self.path.suffix == ".tar" else []

    def all_images(self) -> Iterator[CaptionedImage]:
        """Return all of its images, as a stream."""
        if self.name == IMAGENET_CAPTIONS:
            if self.images is None:
                raise InputError(
                    f"{IMAGENET_CAPTIONS} needs the folder <wnid>/<file> of ImageNet: give --base-images "
                    f"{IMAGENET_CAPTIONS}=FOLDER."
                )
            return imagenet_captions(self.path, self.images)
        if shards := self.shards:
            return shard_captions(shards, self.name)
        return caption_table(self.path, self.name, self.images)

    def part(self, part: Literal["train", "val"], seed: int = 0) -> Iterator[CaptionedImage]:
        """Return its training or validation images, as a stream."""
        if self.validation is None:
            return self.all_images() if part == "train" else iter(())
        return validation_part(self.all_images(), part, self.validation, seed)

    def check_images(self) -> None:
        """Check that one of the first images exists, unless they are in shards."""
        first = [] if self.shards else [image.path for image in islice(self.all_images(), FIRST)]
        if first and not any(map(os.path.isfile, first)):
            raise InputError(
                f"None of the first {len(first)} images of {self.name} exists, such as {first[0]}: give the folder of "
                f"their paths (--base-images {self.name}=FOLDER)."
            )


def named_base_sets(
    paths: Sequence[str], images: Sequence[str] = (), validation: Sequence[str] = ()
) -> dict[str, BaseSet]:
    """Return base sets by name, from NAME=VALUE of command lines."""
    by_name, folders, splits = (_named_values(given) for given in (paths, images, validation))
    for name in [*folders, *splits]:
        if name not in by_name:
            raise InputError(f"The base set {name!r} has images or a split but no path: give --base {name}=PATH.")
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
    found = {}
    for text in given:
        name, _, value = text.partition("=")
        if not (name and value):
            raise InputError(f"Base sets are named as NAME=VALUE, such as cc12m=cc12m.tsv, but {text!r} was given.")
        found[name] = value
    return found


def _share_or_split(given: str) -> float | Split:
    try:
        return float(given)
    except ValueError:
        return read_split(given)


def _json_list(path: Path) -> Iterator[Any]:
    """Yield the entries of a JSON list; the file need not fit into memory."""
    decoder = json.JSONDecoder()
    with open(path, encoding="utf-8-sig") as file:
        text = file.read(_CHUNK).lstrip()
        if not text.startswith("["):
            raise InputError(f"{path} must be a JSON list, but starts with {text[:20]!r}: download it again.")
        place = 1
        while True:
            place = _BETWEEN.match(text, place).end()  # type: ignore[union-attr]  # it matches nothing, too
            if text.startswith("]", place):
                return
            try:
                entry, place = decoder.raw_decode(text, place)
            except json.JSONDecodeError as error:  # cut by the end of a chunk, or damaged
                more = file.read(_CHUNK)
                if not more or len(text) - place > _LONGEST_ENTRY:
                    shown = text[place : place + 60]
                    raise InputError(f"{path} is damaged at {shown!r} ({error.msg}): download it again.") from None
                text, place = text[place:] + more, 0
                continue
            yield entry
