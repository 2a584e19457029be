"""Images of noise, by domain and class."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image


def write_noise(
    root: Path, domains: Sequence[str], classes: Sequence[str], count: int
) -> Path:
    """Write so many images of every class in every domain; return the folder."""
    rng = np.random.default_rng(0)
    for folder in (root / domain / name for domain in domains for name in classes):
        folder.mkdir(parents=True)
        for i in range(count):
            Image.fromarray(rng.integers(0, 256, (64, 64, 3), np.uint8)).save(
                folder / f"{i}.png"
            )
    return root
