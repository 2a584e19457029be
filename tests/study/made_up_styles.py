"""Styles without a model, whose embeddings are made up, and small drawings in styles that differ in colour."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.nn.functional import normalize

from experiments.study.style_edits import Pictures, StyleQuestion

STYLES = ("cartoon", "photo", "sketch")
CLASSES = ("car", "cup", "fish")
SKETCH = STYLES.index("sketch")


def pictures_of(
    cells: Sequence[tuple[str, str, int]], embeddings: Tensor | None = None
) -> Pictures:
    """Return pictures by style, class and number, with embeddings near the sum of directions of both."""
    labels, styles = list[int](), list[int]()
    for style, name, n in cells:
        labels += [CLASSES.index(name)] * n
        styles += [STYLES.index(style)] * n
    if embeddings is None:
        generator = torch.Generator().manual_seed(1)
        noise = 0.1 * torch.randn(len(labels), 8, generator=generator)
        rows = torch.eye(8)
        embeddings = rows[labels] + 0.8 * rows[3:][styles] + noise
    z = normalize(embeddings, dim=1)
    no_pixels = torch.zeros(len(labels), 3, 1, 1)
    return Pictures(no_pixels, torch.tensor(labels), torch.tensor(styles), z)


@dataclass(frozen=True, eq=False, kw_only=True)
class MadeUp(StyleQuestion):
    """A question about sketches without cars, whose fitting pictures and texts are given."""

    clip: Any = None
    train: Any = None
    style: str = "sketch"
    held_out: tuple[str, ...] = ("car",)
    given: Pictures
    texts: Tensor = field(default_factory=lambda: torch.eye(8)[:3])

    @property
    def classes(self) -> list[str]:
        return list(CLASSES)

    @property
    def styles(self) -> list[str]:
        return list(STYLES)

    @cached_property
    def fitting(self) -> Pictures:
        return self.given

    @cached_property
    def class_weights(self) -> Tensor:
        return self.texts

    @property
    def style_weights(self) -> Tensor:
        return torch.eye(8)[3:6]

    @property
    def scale(self) -> float:
        return 10.0


def write_drawings(root: Path, n: int, classes: Sequence[str], seed: int) -> Path:
    """Write noisy pictures with a stripe whose place is the class, in a colour for each style."""
    for s, style in enumerate(STYLES):
        for c, name in enumerate(classes):
            folder = root / style / name
            folder.mkdir(parents=True)
            rng = np.random.default_rng([seed, s, c])
            for i in range(n):
                pixels = rng.normal(0, 25, (16, 16, 3))
                pixels[..., s] += 90
                pixels[4 * c : 4 * c + 4] += 120
                picture = Image.fromarray(pixels.clip(0, 255).astype(np.uint8))
                picture.save(folder / f"{i}.png")
    return root
