"""Base sets of captioned photos, read as streams of `CaptionedImage`: millions in constant memory. No torch."""

import json
import os
import re
import tarfile
from collections.abc import Collection, Iterable, Iterator, Mapping
from itertools import groupby
from pathlib import Path
from typing import Any, Literal

from circuitry.data.domains import IMAGE_SUFFIXES
from circuitry.data.file_check import check_file
from circuitry.data.mixtures.trainer_table import CaptionedImage, caption_rows
from circuitry.data.names import drawn_by_name
from circuitry.runs.errors import InputError

CHUNK = 1 << 20
"""Characters of a JSON file that are read at a time."""
LONGEST_ENTRY = 1 << 26
"""Characters after which an entry of a JSON list is taken for damaged."""
_BETWEEN = re.compile(r"[\s,]*")


def imagenet_captions(
    captions: str | os.PathLike[str], root: str | os.PathLike[str], name: str = "imagenet-captions"
) -> Iterator[CaptionedImage]:
    """Read ImageNet-Captions: a JSON list of entries with filename, wnid, title, tags and description.

    The caption is the title, the tags and the description joined by "; ", each with single spaces; empty parts are
    left out. Images are expected at ``root/<wnid>/<filename>``; the class is the WordNet id.

    Args:
        captions: The JSON file.
        root: Folder of ImageNet's class folders.
        name: What the base set is called.

    Raises:
        InputError: For no such file, one that is no JSON list, and an entry without filename or wnid.
    """
    folder = os.path.abspath(root)
    for number, entry in enumerate(_json_list(Path(captions)), start=1):
        if not (isinstance(entry, dict) and entry.get("filename") and entry.get("wnid")):
            raise InputError(f"{captions}, entry {number}: expected filename and wnid, given {str(entry)[:200]}.")
        wnid, relative = str(entry["wnid"]), f"{entry['wnid']}/{entry['filename']}"
        yield CaptionedImage(f"{folder}/{relative}", relative, name, wnid, joined_caption(entry))


def joined_caption(entry: Mapping[str, Any]) -> str:
    """Return title, tags and description of an entry joined by "; ", white space normalised, empty parts left out.

    Example:
        >>> joined_caption({"title": "My  cat", "tags": ["cat", "pet"], "description": ""})
        'My cat; cat; pet'
    """
    tags = entry.get("tags") or ()
    parts = (entry.get("title"), *((tags,) if isinstance(tags, str) else tags), entry.get("description"))
    return "; ".join(text for part in parts if part is not None and (text := " ".join(str(part).split())))


def caption_table(
    table: str | os.PathLike[str], name: str, root: str | os.PathLike[str] | None = None
) -> Iterator[CaptionedImage]:
    """Read a table of paths and captions, as `caption_rows` does.

    Args:
        table: Tab-separated, with or without a header.
        name: What the base set is called.
        root: Folder that relative paths start from (default: that of the table). Absolute paths below it are digested
            relative to it, others as they are, so that a digest then depends on the machine.

    Raises:
        InputError: As `caption_rows`.
    """
    folder = os.path.abspath(Path(table).parent if root is None else root)
    prefix = os.path.join(folder, "")
    for path, caption in caption_rows(table):
        if os.path.isabs(path):
            below = path.removeprefix(prefix)
        else:
            below, path = path, prefix + path
        yield CaptionedImage(path, below if os.sep == "/" else below.replace(os.sep, "/"), name, "", caption)


def shard_captions(shards: Iterable[str | os.PathLike[str]], name: str) -> Iterator[CaptionedImage]:
    """List the images of webdataset shards: paths ``<shard>.tar/<key>.jpg``, captions from ``.txt`` or ``.json``.

    Images are not read. The files of a sample lie side by side in its shard and share their name up to the first dot,
    as webdataset demands; the caption is the text of ``<key>.txt``, else "caption" in ``<key>.json``, else empty.

    open_clip's csv trainer opens paths as files, so it cannot train on members of a shard, and `write_table` checks
    files only outside of shards (``missing_files="unchecked"``). Either train with ``--dataset-type webdataset`` on
    the shards themselves, with the mixture's other images packed into shards, too; or extract the shards into folders
    (``tar -xf``) and write the list of those with `caption_table`.

    Raises:
        InputError: For a shard that is missing or damaged.
    """
    for shard in shards:
        path = Path(shard)
        check_file(path, "a webdataset shard", "shards are .tar files")
        try:
            with tarfile.open(path, "r:") as tar:
                yield from _shard_images(tar, path, name)
        except (tarfile.TarError, EOFError, ValueError) as error:
            raise InputError(f"Cannot read the shard {path} ({error}); complete the download.") from error


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
        tar.members = []  # type: ignore[attr-defined]  # tarfile keeps every header that it has seen
        if member.isfile() and _sample(member)[1]:
            yield member


def _sample(member: tarfile.TarInfo) -> tuple[str, str]:
    """Return what the files of a sample share: their folder, and their name up to the first dot."""
    folder, _, file = member.name.rpartition("/")
    return folder, file.partition(".")[0]


def _shard_caption(texts: Mapping[str, str]) -> str:
    if ".txt" in texts:
        return texts[".txt"]
    about = json.loads(texts.get(".json", "{}"))
    return str(about.get("caption") or "") if isinstance(about, dict) else ""


def validation_part(
    images: Iterable[CaptionedImage],
    part: Literal["train", "val"],
    validation: float | Collection[str],
    seed: int = 0,
) -> Iterator[CaptionedImage]:
    """Pass on the training or the validation images of a base set.

    Those are named by relative path or file name, or given as a share in 0..1: an image's place is then drawn by seed
    and relative path alone, so it holds for every subset and machine.
    """
    if isinstance(validation, int | float):
        if not 0 <= validation <= 1:
            raise InputError(f"The share of validation images must lie in 0..1, but {validation} was given.")
        below = validation * 2**64

        def chosen(relative: str) -> bool:
            return int.from_bytes(drawn_by_name(seed, relative)[:8]) < below
    else:
        names = frozenset(validation)

        def chosen(relative: str) -> bool:
            return relative in names or relative.rpartition("/")[2] in names

    return (image for image in images if chosen(image.relative) == (part == "val"))


def _json_list(path: Path) -> Iterator[Any]:
    """Yield the entries of a JSON list; the file need not fit into memory."""
    check_file(path, "ImageNet-Captions' JSON file", "download it")
    decoder = json.JSONDecoder()
    with open(path, encoding="utf-8-sig") as file:
        text = file.read(CHUNK).lstrip()
        if not text.startswith("["):
            raise InputError(f"{path} must be a JSON list of entries, but starts with {text[:20]!r}.")
        place = 1
        while True:
            place = _BETWEEN.match(text, place).end()  # type: ignore[union-attr]  # it matches nothing, too
            if text.startswith("]", place):
                return
            try:
                entry, place = decoder.raw_decode(text, place)
            except json.JSONDecodeError as error:  # cut by the end of a chunk, or damaged
                more = file.read(CHUNK)
                if not more or len(text) - place > LONGEST_ENTRY:
                    shown = text[place : place + 60]
                    raise InputError(f"{path} is damaged at {shown!r} ({error.msg}); download it again.") from None
                text, place = text[place:] + more, 0
                continue
            yield entry
