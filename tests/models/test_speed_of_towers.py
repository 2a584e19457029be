"""The speed of a tower is measured on images that can be read."""

from pathlib import Path

import pytest
from torch import nn

from circuitry import Clip, DomainFolder, InputError
from circuitry.models import random_clip, tower_speed
from circuitry.runs import Work
from tests.support.noise_images import write_noise


def test_damaged_images_are_passed_over_and_none_is_an_error(
    clip: Clip, tmp_path: Path
) -> None:
    write_noise(tmp_path, ["real"], ["axe"], 5)
    records = DomainFolder(tmp_path).records
    for record in records[:3]:
        record.path.write_bytes(b"torn")
    skipped = pytest.warns(UserWarning, match="Skipped an image")
    with skipped:
        speed = tower_speed(clip, records, Work(progress=False))
    assert min(speed.alone, speed.back, speed.read) > 0
    assert speed.rows_alone >= speed.rows
    with skipped, pytest.raises(InputError, match="none of 3 can be read"):
        tower_speed(clip, records[:3])


def test_no_block_of_a_random_model_is_without_effect() -> None:
    norms = [
        module
        for module in random_clip("rn-tiny").model.modules()
        if isinstance(module, nn.BatchNorm2d)
    ]
    assert norms
    assert all(norm.weight.any() for norm in norms)
