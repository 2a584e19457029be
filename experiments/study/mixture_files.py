"""Mixtures on disk: a table of images and captions whose JSON has the settings, and summaries of many. No torch."""

import os
import random
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict
from functools import cache, cached_property
from itertools import chain
from pathlib import Path
from typing import Any, Literal

from circuitry.runs import InputError, Seed, digest
from circuitry.data import DomainFolder, ImageRecord, MissingFiles, caption, chosen_names, class_key, image_rng
from circuitry.training import (
    CaptionedImage,
    Captions,
    NoCaption,
    generated_captions,
    read_captions,
    read_description,
    with_captions,
    write_captioned_table,
)
from experiments.study.selection import DOMAINNET_ROUND, MixtureSettings, SketchSet

import pandas as pd

STUDY_SEED = 42  # seed of all random draws of the study

CaptionSource = Literal["file", "stream", "by-image"]
"""Source of captions: a table; one random stream through all lists, as in the study; a hash of each image's path.

The stream reproduces the study on its own listing, where one line more or less changes every later caption. By image,
a caption is the same in any part of a data set.
"""

STREAM_SPLITS = ("train", "test")


SKETCH_PATTERNS = (
    *("{}.", "a {}.", "the {}."),
    *(
        pattern.format(word, article)
        for word, article in (("drawing", "a"), ("sketch", "a"), ("image", "an"))
        for pattern in (
            *("{{}} {0}.", "{0} of a {{}}.", "{0} of the {{}}."),
            *("a {{}} {0}.", "{1} {0} of a {{}}.", "{1} {0} of the {{}}."),
        )
    ),
)  # the study's 21 sentence patterns of ImageNet-Sketch


def check_listed(captions: Mapping[str, str], root: str | os.PathLike[str], table: Path) -> None:
    """Check that the listing has all captioned images of its domains; otherwise the table is of another listing."""
    splits = sorted({path.stem.rpartition("_")[2] for path in Path(root).glob("*_*.txt")})
    folders = [DomainFolder(root, split, missing_files="unchecked") for split in splits or (None,)]
    domains = {domain for images in folders for domain in images.domains}
    listed = {record.relative for images in folders for record in images.records}
    if lost := [name for name in captions if name not in listed and name.partition("/")[0] in domains]:
        raise InputError(
            f"{table} has captions of {len(lost)} images that the listing in {root} lacks, such as {lost[0]}: complete "
            "the lists, or remove the lines of these images."
        )


def stream_captions(
    root: str | os.PathLike[str], seed: int = STUDY_SEED, *, aligned: bool = False
) -> dict[str, dict[str, str]]:
    """Return the study's captions of all images of a listing: by split, as {path below the root: caption}.

    One generator goes through the domains in alphabetical order, train before test, line by line, whether or not the
    files exist; aligned captions restart it.
    """
    _check_lists(Path(root))
    folders = {split: DomainFolder(root, split, missing_files="unchecked") for split in STREAM_SPLITS}
    rng = random.Random(seed)
    captions: dict[str, dict[str, str]] = {split: {} for split in STREAM_SPLITS}
    for domain in sorted({domain for images in folders.values() for domain in images.domains}):
        for split, images in folders.items():
            for record in images.records:
                if record.domain == domain:
                    captions[split][record.relative] = caption(record.class_name, domain, rng, aligned=aligned)
    return captions


def _check_lists(root: Path) -> None:
    there = {path.stem.removesuffix(f"_{split}") for split in STREAM_SPLITS for path in root.glob(f"*_{split}.txt")}
    domains = DOMAINNET_ROUND if there <= set(DOMAINNET_ROUND) else there
    names = [f"{domain}_{split}.txt" for domain in sorted(domains) for split in STREAM_SPLITS]
    missing = [name for name in names if not (root / name).is_file()]
    if missing:
        raise InputError(
            f"The study's captions are one random stream through all {len(names)} lists, but {root} lacks "
            f"{len(missing)}, such as {missing[0]}: add the lists (images may be missing), or take captions by-image."
        )


def sketch_caption(class_name: str, rng: random.Random) -> str:
    """Return a random caption of an image of ImageNet-Sketch, by `SKETCH_PATTERNS`; most of them name the style."""
    said = rng.choice(SKETCH_PATTERNS).format(class_name)
    return said if rng.random() < 0.5 else said.removesuffix(".")


def sketch_captions(sketches: SketchSet, source: CaptionSource, seed: Seed = STUDY_SEED) -> dict[str, str]:
    """Return the captions of ImageNet-Sketch as {path below its root: caption}; by image also for "file"."""
    rng = random.Random(seed)
    return {
        record.relative: sketch_caption(
            sketches.names[record.class_name], rng if source == "stream" else image_rng(record.relative, seed)
        )
        for record in sketches.images
    }


class Captioning:
    """The captions of a study's mixtures, read or drawn once."""

    def __init__(
        self, root: Path, captions: CaptionSource | Path | None, seed: int = 0, aligned_captions: Path | None = None
    ) -> None:
        table = captions if isinstance(captions, Path) else root / "captions.tsv"
        found: CaptionSource = "file" if table.is_file() else "by-image"
        self.source: CaptionSource = "file" if isinstance(captions, Path) else captions or found
        self.root, self.seed = root, seed
        self.tables = {False: table, True: aligned_captions}
        self._stream = cache(stream_captions)
        self._table = cache(self._read)

    def of(self, split: str, *, aligned: bool = False) -> Captions:
        """Return the captions of the images in the lists of a split."""
        if self.source == "stream":
            captions = self._stream(self.root, self.seed, aligned=aligned)
            return captions[chosen_names("split", [split], list(captions))[0]]
        if self.source == "by-image":
            return generated_captions(self.seed, aligned=aligned)
        return self._table(aligned)

    def _read(self, aligned: bool) -> dict[str, str]:
        table = self.tables[aligned]
        if table is None:
            raise InputError(
                "Captions of a table need a second table of aligned captions: give --aligned-captions FILE, or draw "
                "both (--captions stream or by-image)."
            )
        captions = read_captions(table)
        check_listed(captions, self.root, table)
        return captions

    def described(self) -> dict[str, Any]:
        """Return the entries on the source of captions in a mixture's JSON."""
        from_file = self.source == "file"
        return {
            "caption_source": self.source,
            "caption_seed": None if from_file else self.seed,
            "caption_file": self._digest if from_file else None,
        }

    @cached_property
    def _digest(self) -> str:
        return digest(sorted(read_captions(self.tables[False] or self.root).items()))


def first_of(known: Mapping[str, str], others: Captions) -> Callable[[ImageRecord], str]:
    """Return captions from a table, and from others for images that it lacks."""
    of_image = others if callable(others) else lambda record: others.get(record.relative, "")
    return lambda record: known.get(record.relative) or of_image(record)


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
    """Write the table of a mixture, and a JSON that has its settings, as `write_captioned_table`."""
    told = {"settings": asdict(settings), **settings.described(), "sketches": None, "base": None, **(about or {})}
    images = chain(base, with_captions(records, captions))
    return write_captioned_table(images, path, about=told, missing_files=missing_files, no_caption=no_caption)


def check_one_study(described: Mapping[str, Mapping[str, Any]]) -> None:
    """Check that descriptions of mixtures, by name, agree in the entries `OF_ONE_STUDY` that they have."""
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
    """Count the images of mixtures: one row per mixture, domain and part; columns mixture, domain, part, images."""
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
