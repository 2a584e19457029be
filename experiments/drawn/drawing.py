"""A drawn, DomainNet-like image set: everyday things in six styles, made by code from a seed. No torch.

Class and seed give a vector drawing, style and seed render it, so one seed gives the same thing in every style.
`write_toy` takes another seed for every image of every style.
"""

import os
import random
import zlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from itertools import product
from pathlib import Path
from typing import Annotated

from circuitry.runs import (
    Count,
    InputError,
    Job,
    JobFolder,
    Natural,
    Rank,
    Seed,
    at_least,
    whole_file,
)
from circuitry.data import caption, chosen_names
from circuitry.runs.arguments import DISTINCT, between, checked
from circuitry.runs.manifest import NAME
from circuitry.runs.processes import process_pool
from experiments.drawn.geometry import DrawnPiece
from experiments.drawn.shapes import posed_drawing, shapes
from experiments.drawn.styles_flat import clipart, infograph, quickdraw, sketch
from experiments.drawn.styles_light import painting, real

import numpy as np
from PIL import Image

Renderer = Callable[[Sequence[DrawnPiece], np.random.Generator, int], Image.Image]
RENDERERS: Mapping[str, Renderer] = {
    renderer.__name__: renderer
    for renderer in (clipart, infograph, painting, quickdraw, real, sketch)
}
"""Style -> function that renders pieces, back to front, as an RGB image of so many pixels a side."""
DRAWINGS: Mapping[int, Mapping[str, Renderer]] = {
    1: RENDERERS,
    2: {
        **RENDERERS,
        "quickdraw": partial(quickdraw, sparse=True),
        "real": partial(real, plain=True),
    },
}
"""Version of the drawings -> its renderers. A version is never changed: models are published that saw it."""
STYLES: tuple[str, ...] = tuple(RENDERERS)
"""The styles, by DomainNet's names, sorted."""
DRAWN_THINGS: tuple[str, ...] = tuple(sorted(shapes()))
"""All things that can be drawn."""
TOY_CLASSES: tuple[str, ...] = (
    *(
        "bicycle",
        "butterfly",
        "car",
        "clock",
        "cup",
        "fish",
        "flower",
        "house",
        "ice_cream",
        "key",
        "ladder",
    ),
    *("mushroom", "sailboat", "star", "tree", "umbrella"),
)
"""The things that the shipped models know, the default; sorted."""
_FORMAT = "circuitry toy 3"
Side = Annotated[int, at_least(16)]
"""Pixels of a side; of smaller drawings nobody knows what they are."""
Version = Annotated[
    int, between("a version of the drawings", 1, len(DRAWINGS), "give 1 or 2")
]
SEEDS_PER_STYLE = 1_000_000
IMAGES_PER_PROCESS = 400
"""Fewer images take less time than starting a process."""
LISTS: Job = ("lists",)
"""The job that writes lists and captions; every other job draws a class in a style."""


@checked
def draw_image(
    class_name: str, style: str, seed: Seed, size: Side = 64, version: Version = 1
) -> Image.Image:
    """Draw one RGB picture of ``size`` x ``size`` pixels; the same arguments give the same pixels.

    Example:
        >>> draw_image("ice_cream", "sketch", seed=3).size
        (64, 64)
    """
    chosen_names("toy class", (class_name,), DRAWN_THINGS)
    chosen_names("toy style", (style,), STYLES)
    class_key, style_key = zlib.crc32(class_name.encode()), zlib.crc32(style.encode())
    pieces = posed_drawing(class_name, np.random.default_rng([seed, class_key]))
    return DRAWINGS[version][style](
        pieces, np.random.default_rng([seed, class_key, style_key]), size
    )


@checked
@dataclass(frozen=True)
class DrawingSettings:
    """Everything that shapes a drawn image set; every name once."""

    n_train: Natural = 40
    """Training images of every class in every style."""
    n_test: Natural = 20
    """Test images of every class in every style."""
    classes: Annotated[tuple[str, ...], DISTINCT] = TOY_CLASSES
    """The things, sorted; a class's place is its label."""
    styles: Annotated[tuple[str, ...], DISTINCT] = STYLES  #: How they are drawn.
    size: Side = 64
    """Pixels of a side."""
    seed: Seed = 0  #: Of all random choices.
    first: Natural = 0
    """Number of the first drawing of a class: 30 gives only the test images of a set with 30 training images."""
    version: Version = 1
    """1: closed thick strokes in quickdraw, textured grounds in photographs, which the shipped models saw. 2: sparse
    open strokes, half of the photographs on plain grounds: harder doodles, and photographs that share outlines."""

    def __post_init__(self) -> None:
        for kind, given, known in (
            ("class", self.classes, DRAWN_THINGS),
            ("style", self.styles, STYLES),
        ):
            chosen_names(f"toy {kind}", given, known)
        object.__setattr__(self, "classes", tuple(sorted(self.classes)))
        object.__setattr__(self, "styles", tuple(sorted(self.styles)))
        if not 1 <= self.n_train + self.n_test <= SEEDS_PER_STYLE - self.first:
            raise InputError(
                f"Expected n_train and n_test of at least 0, together 1 to {SEEDS_PER_STYLE}, but "
                f"n_train={self.n_train}, n_test={self.n_test} was given."
            )


def write_toy(
    root: Path | str,
    settings: DrawingSettings | None = None,
    *,
    workers: Count | None = None,
    progress: bool = True,
) -> Path:
    """Draw an image set into ``root``, laid out like DomainNet, and return it.

    - ``<style>/<class>/<style>_<000123>.png``: the images;
    - ``<style>_train.txt``, ``<style>_test.txt``: lines ``style/class/file label``, the label being the index in
      the sorted classes;
    - ``captions.tsv``: columns filepath (below ``root``) and title, every image;
    - ``manifest.json`` and ``checksums/``: the settings, and what every file must be.

    What is missing or damaged is drawn, so a call goes on where another stopped. Processes are spawned: a script calls
    this under ``if __name__ == "__main__":``.

    Args:
        root: Folder of the images; new, empty, or one of the same settings.
        settings: What is drawn (default: 40 training and 20 test images of everything).
        workers: Processes, which change nothing but the time (default: as many as pay off).

    Example:
        >>> write_toy(Path("data/toy"), DrawingSettings(n_train=400, n_test=100))
    """
    root, settings = Path(root), settings or DrawingSettings()
    _check_free(root)
    left = _folder(root, settings).unfinished()
    if not left:
        return root
    images = len(left) * (settings.n_train + settings.n_test)
    n_workers = workers or min(os.cpu_count() or 1, -(-images // IMAGES_PER_PROCESS))
    bars = ["drawing" if progress else None, *[None] * (n_workers - 1)]
    with process_pool(n_workers) as pool:
        drawn = [
            pool.submit(_draw_share, root, settings, Rank(i, n_workers), bar)
            for i, bar in enumerate(bars)
        ]
        for share in drawn:
            share.result()
    return root


def _check_free(root: Path) -> None:
    """Check that the folder is new, or one of drawn images; InputError for a file and for other files in it."""
    if root.is_file():
        raise InputError(
            f"A toy data set needs a folder, but {root} is a file: choose a folder."
        )
    if (root / NAME).is_file():
        return
    for file in root.rglob("*"):
        path = file.relative_to(root)
        if file.is_file() and not any(part.startswith(".") for part in path.parts):
            raise InputError(
                f"A toy data set needs an empty folder, but {root} has {path} and no {NAME}: choose another."
            )


def _folder(root: Path, settings: DrawingSettings) -> JobFolder:
    config = asdict(settings)
    config["drawings_version"] = config.pop("version")
    return JobFolder(
        root, _FORMAT, config, [LISTS, *product(settings.styles, settings.classes)]
    )


def _draw_share(
    root: Path, settings: DrawingSettings, rank: Rank, progress: str | None
) -> None:
    """Draw this process's share of what is missing, and what the others leave."""
    _folder(root, settings).run(
        lambda job, _: _write(root, settings, job),
        rank=rank,
        progress=progress,
        unit="job",
    )


def _write(root: Path, settings: DrawingSettings, job: Job) -> list[Path]:
    """Write the files of a job: lists and captions, or all images of a class in a style."""
    if job == LISTS:
        texts = _lists(settings) | {"captions.tsv": captions(settings)}
        for name, text in texts.items():
            with whole_file(root / name) as temporary:
                temporary.write_text(text, encoding="utf-8", newline="\n")
        return [root / name for name in texts]
    style, class_name = job
    (root / style / class_name).mkdir(parents=True, exist_ok=True)
    paths = []
    for number in _numbers(settings):
        path, seed = image_of(settings, style, class_name, number)
        draw_image(class_name, style, seed, settings.size, settings.version).save(
            root / path
        )
        paths.append(root / path)
    return paths


def _numbers(settings: DrawingSettings) -> range:
    return range(settings.first, settings.first + settings.n_train + settings.n_test)


def image_of(
    settings: DrawingSettings, style: str, class_name: str, number: int
) -> tuple[str, int]:
    """Return path below the root and seed of an image; no two images share a seed and a style."""
    first = (settings.seed * len(STYLES) + STYLES.index(style)) * SEEDS_PER_STYLE
    return f"{style}/{class_name}/{style}_{number:06d}.png", first + number


def _lists(settings: DrawingSettings) -> dict[str, str]:
    """Return DomainNet's lists, by file name: the first ``n_train`` images of a class train, the others test."""
    numbers = _numbers(settings)
    of_split = {
        "train": numbers[: settings.n_train],
        "test": numbers[settings.n_train :],
    }
    return {
        f"{style}_{split}.txt": "".join(
            f"{image_of(settings, style, class_name, number)[0]} {label}\n"
            for label, class_name in enumerate(settings.classes)
            for number in of_split[split]
        )
        for style, split in product(settings.styles, of_split)
    }


def captions(settings: DrawingSettings) -> str:
    lines = ["filepath\ttitle\n"]
    numbers = _numbers(settings)
    for style, class_name, number in product(
        settings.styles, settings.classes, numbers
    ):
        path, seed = image_of(settings, style, class_name, number)
        rng = random.Random(f"caption of {class_name} {seed}")
        lines.append(f"{path}\t{caption(class_name, style, rng)}\n")
    return "".join(lines)
