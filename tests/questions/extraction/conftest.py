"""Generated images, and a finished folder of graphs."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from circuitry import Clip
from tests.support.extraction import COUNTS, CUT, run


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("images")
    rng = np.random.default_rng(0)
    for (domain, class_name), count in COUNTS.items():
        (folder / domain / class_name).mkdir(parents=True)
        for i in range(count):
            pixels = rng.integers(0, 256, size=(64, 64, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(folder / domain / class_name / f"{i}.png")
    broken = folder / "sketch" / "cat" / "1.png"
    broken.write_bytes(broken.read_bytes()[:CUT])
    return folder


@pytest.fixture(scope="module")
def made(clip: Clip, root: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("made") / "graphs"
    run(clip, root, out)
    return out
