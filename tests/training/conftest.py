"""A model and a table for trainings."""

from pathlib import Path

import pytest
from PIL import Image

from circuitry.training import ClipTraining
from tests.support.clip_training import CONFIG, written


@pytest.fixture
def settings(tmp_path: Path) -> ClipTraining:
    return written(CONFIG, tmp_path / "rn-smallest.json")


@pytest.fixture
def train(tmp_path: Path) -> Path:
    """A training table of nine images: two batches of four, one image left over."""
    lines = ["filepath\ttitle"]
    for i in range(9):
        Image.new("RGB", (32, 32), (25 * i, 0, 255 - 25 * i)).save(tmp_path / f"{i}.png")
        lines.append(f"{tmp_path / f'{i}.png'}\ta picture of number {i}")
    table = tmp_path / "train.tsv"
    table.write_text("\n".join(lines) + "\n")
    return table
