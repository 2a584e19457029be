"""A drawn, DomainNet-like image set: sixteen everyday things in six styles, made by code from a seed. No torch.

1. Class and seed give a vector drawing (``toy_shapes``).
2. Style and seed render it (``toy_styles``).

So one seed gives the same thing in every style: ``draw("fish", "real", 7)`` and ``draw("fish", "sketch", 7)``
show the same fish.  ``write_toy`` takes another seed for every image of every style.
"""

import json
import multiprocessing
import os
import zlib
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import asdict, dataclass
from itertools import product
from pathlib import Path

import numpy as np
from PIL import Image
from tqdm import tqdm

from circuitry.data.captions import caption
from circuitry.data.toy.shapes import posed_drawing, shapes
from circuitry.data.toy.styles import RENDERERS
from circuitry.runs.errors import InputError
from circuitry.runs.files import whole_file

STYLES: tuple[str, ...] = tuple(sorted(RENDERERS))
"""The styles, by DomainNet's names."""
CLASSES: tuple[str, ...] = tuple(sorted(shapes()))
"""The things that are drawn."""

SETTINGS_FILE = "toy.json"
DRAWINGS_VERSION = 1
"""Raise it when the same seed gives another drawing: folders of old drawings are then refused."""
SMALLEST = 16
"""Pixels; below it no drawing can be told from another."""
SEEDS_PER_STYLE = 1_000_000
BATCH = 50
"""Images that a process draws before it reports."""
IMAGES_PER_PROCESS = 400
"""Fewer are drawn faster than a further process starts."""


def draw(class_name: str, style: str, seed: int, size: int = 64) -> Image.Image:
    """One RGB drawing of ``size`` x ``size`` pixels; the same arguments give the same pixels.

    Raises InputError for an unknown class or style, a negative seed, or a size below 16.

    Example:
        >>> draw("ice_cream", "sketch", seed=3).size
        (64, 64)
    """
    _check_known("class", (class_name,), CLASSES)
    _check_known("style", (style,), STYLES)
    _check_numbers(seed, size)
    class_key, style_key = zlib.crc32(class_name.encode()), zlib.crc32(style.encode())
    parts = posed_drawing(class_name, np.random.default_rng([seed, class_key]))
    return RENDERERS[style](parts, np.random.default_rng([seed, class_key, style_key]), size)


@dataclass(frozen=True)
class _Settings:
    """What the contents of a folder depend on; ``toy.json`` holds it."""

    n_train: int
    n_test: int
    classes: tuple[str, ...]
    styles: tuple[str, ...]
    size: int
    seed: int
    drawings_version: int = DRAWINGS_VERSION

    def __post_init__(self) -> None:
        _check_known("class", self.classes, CLASSES)
        _check_known("style", self.styles, STYLES)
        _check_numbers(self.seed, self.size)
        if min(self.n_train, self.n_test) < 0 or not 1 <= self.n_train + self.n_test <= SEEDS_PER_STYLE:
            raise InputError(
                f"expected n_train and n_test of at least 0, together 1 to {SEEDS_PER_STYLE}, got "
                f"n_train={self.n_train}, n_test={self.n_test}; change them"
            )


def write_toy(
    root: Path | str,
    n_train: int = 40,
    n_test: int = 20,
    *,
    classes: Sequence[str] = CLASSES,
    styles: Sequence[str] = STYLES,
    size: int = 64,
    seed: int = 0,
    workers: int | None = None,
    progress: bool = True,
) -> Path:
    """Draw ``n_train`` + ``n_test`` images of every class and style into ``root``, laid out like DomainNet.

    - ``<style>/<class>/<style>_<000123>.png``: the images, ``size`` x ``size`` pixels;
    - ``<style>_train.txt``, ``<style>_test.txt``: lines ``style/class/file label``, the label being the index in
      the sorted ``classes``;
    - ``captions.tsv``: columns filepath (below ``root``) and title, every image;
    - ``toy.json``: the settings, written last of all, so a folder without it is unfinished.

    A finished folder of the same settings is left as it is, an unfinished one is drawn again.  ``workers`` changes
    nothing but the time; None starts as many processes as pay off.  They are spawned, so a script calls this
    under ``if __name__ == "__main__":``.

    Raises InputError for impossible settings, a finished folder of other settings, or a folder with other files.

    Example:
        >>> write_toy(Path("data/toy"), n_train=400, n_test=100)
    """
    root = Path(root)
    settings = _Settings(n_train, n_test, tuple(sorted(classes)), tuple(sorted(styles)), size, seed)
    if workers is not None and workers < 1:
        raise InputError(f"expected at least one worker, or None, got workers={workers}; change it")
    if root.is_file():
        raise InputError(f"{root} is a file; choose a folder")
    if (root / SETTINGS_FILE).exists():
        _check_same(root, settings)
        return root
    texts = _lists(settings) | {"captions.tsv": _captions(settings)}
    _check_free(root, settings, texts)
    _draw_all(root, settings, workers, progress)
    for name, text in (texts | {SETTINGS_FILE: _as_json(settings)}).items():
        with whole_file(root / name) as temporary:
            temporary.write_text(text, encoding="utf-8", newline="\n")
    return root


def _check_known(kind: str, given: Sequence[str], known: Sequence[str]) -> None:
    for name in given:
        if name not in known:
            raise InputError(f"there is no toy {kind} {name!r}; choose among {', '.join(known)}")
    if not given or len(set(given)) < len(given):
        raise InputError(f"expected at least one toy {kind}, each once, got {list(given)}; change the choice")


def _check_numbers(seed: int, size: int) -> None:
    if seed < 0 or size < SMALLEST:
        raise InputError(
            f"expected a seed of at least 0 and a size of at least {SMALLEST} pixels, got seed={seed}, size={size}; "
            "change them"
        )


def _check_same(root: Path, settings: _Settings) -> None:
    """Refuse a finished folder of other settings, naming the first that differs."""
    try:
        found = json.loads((root / SETTINGS_FILE).read_text(encoding="utf-8"))
    except ValueError:
        found = None
    if not isinstance(found, dict):
        raise InputError(f"{root / SETTINGS_FILE} holds no settings of a toy data set; choose another folder")
    for name, wanted in json.loads(_as_json(settings)).items():
        if found.get(name) != wanted:
            raise InputError(
                f"{root} holds a toy data set with {name}={found.get(name)!r}, but {name}={wanted!r} was asked "
                "for; ask for the same or choose another folder"
            )


def _check_free(root: Path, settings: _Settings, texts: Mapping[str, str]) -> None:
    """Refuse to draw among files of something else, DomainNet itself for one."""
    planned = {path for path, _ in _images(settings)}
    for file in root.rglob("*"):
        path = file.relative_to(root).as_posix()
        if file.is_dir() or path in planned or file.name.startswith("."):
            continue
        if path not in texts or file.read_text(encoding="utf-8", errors="replace") != texts[path]:
            raise InputError(
                f"{root} has no {SETTINGS_FILE} but {path}, which this toy data set would not write; choose an "
                "empty folder or delete what another run left behind"
            )


def _images(settings: _Settings) -> Iterator[tuple[str, int]]:
    """Path below the root and seed of every image; no two images share a seed and a style."""
    for style, class_name in product(settings.styles, settings.classes):
        for number in range(settings.n_train + settings.n_test):
            yield _image(settings, style, class_name, number)


def _image(settings: _Settings, style: str, class_name: str, number: int) -> tuple[str, int]:
    first = (settings.seed * len(STYLES) + STYLES.index(style)) * SEEDS_PER_STYLE
    return f"{style}/{class_name}/{style}_{number:06d}.png", first + number


def _lists(settings: _Settings) -> dict[str, str]:
    """DomainNet's lists, by file name: the first ``n_train`` images of a class train, the others test."""
    numbers = {
        "train": range(settings.n_train),
        "test": range(settings.n_train, settings.n_train + settings.n_test),
    }
    return {
        f"{style}_{split}.txt": "".join(
            f"{_image(settings, style, class_name, number)[0]} {label}\n"
            for label, class_name in enumerate(settings.classes)
            for number in numbers[split]
        )
        for style, split in product(settings.styles, numbers)
    }


def _captions(settings: _Settings) -> str:
    lines = ["filepath\ttitle\n"]
    for path, seed in _images(settings):
        style, class_name, _ = path.split("/")
        rng = np.random.default_rng([seed, zlib.crc32(class_name.encode()), zlib.crc32(b"caption")])
        lines.append(f"{path}\t{caption(class_name, style, rng)}\n")
    return "".join(lines)


def _as_json(settings: _Settings) -> str:
    return json.dumps(asdict(settings), indent=2) + "\n"


def _draw_all(root: Path, settings: _Settings, workers: int | None, progress: bool) -> None:
    for style, class_name in product(settings.styles, settings.classes):
        (root / style / class_name).mkdir(parents=True, exist_ok=True)
    images = list(_images(settings))
    batches = [images[start : start + BATCH] for start in range(0, len(images), BATCH)]
    if workers is None:
        workers = min(os.cpu_count() or 1, -(-len(images) // IMAGES_PER_PROCESS))
    with tqdm(total=len(images), desc="drawing", unit="image", disable=not progress) as bar:
        if workers == 1:
            for batch in batches:
                bar.update(_draw_batch(root, batch, settings.size))
            return
        # Spawned, not forked: a child forked while torch runs threads never sees their locks released.
        with ProcessPoolExecutor(workers, mp_context=multiprocessing.get_context("spawn")) as pool:
            jobs = [pool.submit(_draw_batch, root, batch, settings.size) for batch in batches]
            for job in as_completed(jobs):
                bar.update(job.result())


def _draw_batch(root: Path, images: Sequence[tuple[str, int]], size: int) -> int:
    """Draw and write these images; returns how many."""
    for path, seed in images:
        style, class_name, _ = path.split("/")
        draw(class_name, style, seed, size).save(root / path)
    return len(images)
