"""Captions of a whole data set: of a listing, and of ImageNet-Sketch. No torch."""

import os
import random
from collections.abc import Callable, Mapping
from functools import cache, cached_property
from pathlib import Path
from typing import Any, Literal

from circuitry.runs import InputError, Seed, digest
from circuitry.data import DomainFolder, ImageRecord, caption, chosen_names, image_rng
from circuitry.training import Captions, generated_captions, read_captions
from experiments.study.sketch_sets import SketchSet
from experiments.study.subsampling import DOMAINNET_ROUND

STUDY_SEED = 42
"""Seed of all random draws of the study."""

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
)
"""The study's 21 sentence patterns of ImageNet-Sketch."""


def check_listed(captions: Mapping[str, str], root: str | os.PathLike[str], table: Path) -> None:
    """Check that the listing has all captioned images of its domains; otherwise the table is of another listing.

    Raises:
        InputError: With the number of such images and some of their names.
    """
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

    Raises:
        InputError: For missing lists, which would change all later captions.

    Example:
        >>> stream_captions("DomainNet")["train"]["clipart/aircraft_carrier/clipart_001_000001.jpg"]
        'a aircraft carrier is visible in a clipart.'
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
    """Return a random caption of an image of ImageNet-Sketch, by `SKETCH_PATTERNS`; most of them name the style.

    Example:
        >>> sketch_caption("tench", random.Random(42))
        'an image of the tench.'
    """
    said = rng.choice(SKETCH_PATTERNS).format(class_name)
    return said if rng.random() < 0.5 else said.removesuffix(".")


def sketch_captions(sketches: SketchSet, source: CaptionSource, seed: Seed = STUDY_SEED) -> dict[str, str]:
    """Return the captions of ImageNet-Sketch as {path below its root: caption}; by image also for "file".

    By stream, one generator goes through all of its images by class index, including those left out of mixtures.
    """
    if unknown := {record.class_name for record in sketches.images} - set(sketches.names):
        raise InputError(f"Captions need a name of every class, but {min(unknown)} has none: add it.")
    rng = random.Random(seed)
    return {
        record.relative: sketch_caption(
            sketches.names[record.class_name], rng if source == "stream" else image_rng(record.relative, seed)
        )
        for record in sketches.images
    }


class Captioning:
    """The captions of a study's mixtures, read or drawn once.

    Args:
        root: Folder of the lists.
        captions: A table, or a random source; None: ``captions.tsv`` beside the lists if it exists, else by image.
        seed: Seed of a random source.
        aligned_captions: Table of the aligned captions, if the others come from a table.
    """

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
        """Return the captions of the images in the lists of a split.

        Raises:
            InputError: For aligned captions without a table if the others come from a table, and as `stream_captions`
                and `check_listed`.
        """
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
