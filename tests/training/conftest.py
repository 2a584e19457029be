"""A model and a table for trainings."""

from pathlib import Path

import pytest

from circuitry.training import ClipTraining
from tests.support.clip_training import CONFIG, write_images, written


@pytest.fixture
def settings(tmp_path: Path) -> ClipTraining:
    return written(CONFIG, tmp_path / "rn-smallest.json")


@pytest.fixture
def train(tmp_path: Path) -> Path:
    """A training table of nine images: two batches of four, one image left over."""
    return write_images(tmp_path, 9)
