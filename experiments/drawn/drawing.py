"""Draw an image set like DomainNet: everyday things in six styles, made by code from a seed. Does not import torch.

The class and the seed determine a vector drawing. The style and the seed determine how it is rendered. So a seed gives
the same thing in every style. `write_toy` takes a different seed for every image of every style, so that no image set
has one thing in two styles.
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
from circuitry.data.drawn_names import DRAWN_CLASSES
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
"""Renderers by style. A renderer takes the pieces from back to front, random numbers and the pixels of a side. It
returns an RGB image."""
DRAWINGS: Mapping[int, Mapping[str, Renderer]] = {
    1: RENDERERS,
    2: {
        **RENDERERS,
        "quickdraw": partial(quickdraw, sparse=True),
        "real": partial(real, plain=True),
    },
}
"""Renderers by version of the drawings. A version is never changed, because published models were trained on it."""
STYLES: tuple[str, ...] = tuple(RENDERERS)
"""The styles, by DomainNet's names, sorted."""
DRAWN_THINGS: tuple[str, ...] = tuple(sorted(shapes()))
"""All things that can be drawn."""
TOY_CLASSES: tuple[str, ...] = DRAWN_CLASSES
"""The default classes: the things that the shipped models know, sorted."""
_FORMAT = "circuitry toy 3"
Side = Annotated[int, at_least(16)]
"""Pixels of a side. In smaller drawings nobody recognises the thing."""
Version = Annotated[
    int, between("a version of the drawings", 1, len(DRAWINGS), "give 1 or 2")
]
SEEDS_PER_STYLE = 1_000_000
"""Seeds reserved for each style, so for most images of a class in it."""
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
    # Checksums of names, since Python's own hash differs between processes.
    class_key = zlib.crc32(class_name.encode())
    style_key = zlib.crc32(style.encode())
    # The shape has random numbers of its own, so that it does not depend on the style.
    pieces = posed_drawing(class_name, np.random.default_rng([seed, class_key]))
    rng = np.random.default_rng([seed, class_key, style_key])
    return DRAWINGS[version][style](pieces, rng, size)


@checked
@dataclass(frozen=True)
class DrawingSettings:
    """Settings of a drawn image set. No name of a class or style may occur twice."""

    n_train: Natural = 40
    """Training images of every class in every style."""
    n_test: Natural = 20
    """Test images of every class in every style."""
    classes: Annotated[tuple[str, ...], DISTINCT] = TOY_CLASSES
    """The things. They are sorted, and the label of a class is its index."""
    styles: Annotated[tuple[str, ...], DISTINCT] = STYLES
    """The styles in which each thing is drawn; they are sorted, too."""
    size: Side = 64
    """Pixels of a side."""
    seed: Seed = 0
    """Seed of all random choices."""
    first: Natural = 0
    """Number of the first image of a class. For example, 30 skips the training images of a set that has 30 of them."""
    version: Version = 1
    """Version of the drawings. In version 1, on which the shipped models were trained, quickdraws have closed thick
    strokes and photographs have textured grounds. In version 2, quickdraws have sparse open strokes, which are harder
    to recognise, and half of the photographs have plain grounds, so that outlines are easier to see."""

    def __post_init__(self) -> None:
        chosen_names("toy class", self.classes, DRAWN_THINGS)
        chosen_names("toy style", self.styles, STYLES)
        # Sorted, so that labels do not depend on the order that was given; the class is frozen, hence `object`.
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
    """Draw an image set into the folder ``root``, laid out like DomainNet, and return its path.

    - ``<style>/<class>/<style>_<000123>.png``: the images;
    - ``<style>_train.txt``, ``<style>_test.txt``: lines ``style/class/file label``, where the label is the index in
      the sorted classes;
    - ``captions.tsv``: columns filepath (below ``root``) and title, with a row for every image;
    - ``manifest.json`` and ``checksums/``: the settings, and the checksum of every file.

    Only missing and damaged files are drawn, so a call goes on where another call stopped. Processes are spawned, so a
    script must call this function under ``if __name__ == "__main__":``.

    Args:
        root: Folder of the images. It may be new or empty, or hold images of the same settings.
        settings: What is drawn (default: 40 training and 20 test images of every class in every style).
        workers: Number of processes, which changes nothing but the time (default: as many as save time).
        progress: Whether to show a bar.

    Example:
        >>> write_toy(Path("data/toy"), DrawingSettings(n_train=400, n_test=100))
    """
    root = Path(root)
    settings = settings or DrawingSettings()
    _check_free(root)
    left = _folder(root, settings).unfinished()
    if not left:
        return root
    images = len(left) * (settings.n_train + settings.n_test)
    # The negated floor division rounds up.
    n_workers = workers or min(os.cpu_count() or 1, -(-images // IMAGES_PER_PROCESS))
    with process_pool(n_workers) as pool:
        shares = []
        for i in range(n_workers):
            # Only the first process has a bar: bars of several processes would overwrite each other.
            bar = "drawing" if progress and i == 0 else None
            rank = Rank(i, n_workers)
            shares.append(pool.submit(_draw_share, root, settings, rank, bar))
        # An error in a process is raised here.
        for share in shares:
            share.result()
    return root


def _check_free(root: Path) -> None:
    """Raise `InputError` if the path is a file, or a folder with files that are no drawn image set."""
    if root.is_file():
        raise InputError(
            f"A toy data set needs a folder, but {root} is a file: choose a folder."
        )
    # A manifest says which settings the folder is of; `JobFolder` compares it.
    if (root / NAME).is_file():
        return
    for file in root.rglob("*"):
        path = file.relative_to(root)
        # Hidden files, such as a file manager's, do not count.
        if file.is_file() and not any(part.startswith(".") for part in path.parts):
            raise InputError(
                f"A toy data set needs an empty folder, but {root} has {path} and no {NAME}: choose another."
            )


def _folder(root: Path, settings: DrawingSettings) -> JobFolder:
    """Return the folder with a job for each class in a style, and a job for the lists and captions."""
    config = asdict(settings)
    # The name of the entry in folders that exist; "version" alone could be the version of the format.
    config["drawings_version"] = config.pop("version")
    return JobFolder(
        root, _FORMAT, config, [LISTS, *product(settings.styles, settings.classes)]
    )


def _draw_share(
    root: Path, settings: DrawingSettings, rank: Rank, progress: str | None
) -> None:
    """Draw this process's share of the missing images, and then any images that other processes leave."""
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
            # The same bytes on every platform, and never half a file.
            with whole_file(root / name) as temporary:
                temporary.write_text(text, encoding="utf-8", newline="\n")
        return [root / name for name in texts]
    style, class_name = job
    (root / style / class_name).mkdir(parents=True, exist_ok=True)
    paths = []
    for number in _numbers(settings):
        relative, seed = image_of(settings, style, class_name, number)
        path = root / relative
        draw_image(class_name, style, seed, settings.size, settings.version).save(path)
        paths.append(path)
    return paths


def _numbers(settings: DrawingSettings) -> range:
    """Return the numbers of the images of each class in each style, training images first."""
    return range(settings.first, settings.first + settings.n_train + settings.n_test)


def image_of(
    settings: DrawingSettings, style: str, class_name: str, number: int
) -> tuple[str, int]:
    """Return the path of an image below the root, and the image's seed.

    Two images of a class never have the same seed, whatever their styles.
    """
    # Every (seed of the settings, style) has a range of seeds of its own.
    first = (settings.seed * len(STYLES) + STYLES.index(style)) * SEEDS_PER_STYLE
    return f"{style}/{class_name}/{style}_{number:06d}.png", first + number


def _lists(settings: DrawingSettings) -> dict[str, str]:
    """Return the text of DomainNet's lists by file name.

    The first ``n_train`` images of a class in a style are for training, and the other images are for testing.
    """
    numbers = _numbers(settings)
    of_split = {
        "train": numbers[: settings.n_train],
        "test": numbers[settings.n_train :],
    }
    lists = dict[str, str]()
    for style, split in product(settings.styles, of_split):
        # An empty split has an empty file, since readers expect both.
        text = ""
        for label, class_name in enumerate(settings.classes):
            for number in of_split[split]:
                path = image_of(settings, style, class_name, number)[0]
                text += f"{path} {label}\n"
        lists[f"{style}_{split}.txt"] = text
    return lists


def captions(settings: DrawingSettings) -> str:
    """Return the text of ``captions.tsv``: a header, and a line with path and caption for every image."""
    text = "filepath\ttitle\n"
    images = product(settings.styles, settings.classes, _numbers(settings))
    for style, class_name, number in images:
        path, seed = image_of(settings, style, class_name, number)
        # Seeded by the image, so that a caption does not depend on which images come before.
        rng = random.Random(f"caption of {class_name} {seed}")
        text += f"{path}\t{caption(class_name, style, rng)}\n"
    return text
