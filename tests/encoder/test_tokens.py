"""Where tokens lie: as many as a tower has, patches where the image is, and no class token where there is none."""

import numpy as np
import pytest
import timm.models as timm_models
import torch

from circuitry.encoder import Encoder
from circuitry.runs import InputError
from tests.bases.test_components import FURTHER
from tests.support.towers import make_tower, timm_vit


@pytest.mark.parametrize(
    ("name", "first"),
    [
        ("vit", ("class token",)),
        ("vit-average-pooling", ("class token",)),
        ("eva02", ("class token",)),
        ("registers-and-layer-scale", ("class token", "register 1", "register 2")),
        ("siglip", ()),
        ("relative-positions", ("class token",)),
    ],
)
def test_a_patch_is_the_token_that_a_change_of_its_pixels_reaches_first(name: str, first: tuple[str, ...]) -> None:
    encoder = Encoder.from_tower(FURTHER[name]() if name in FURTHER else make_tower(name))
    grid = encoder.token_grid
    assert grid.first == first
    images = torch.zeros(1, 3, *encoder.image_size)
    row, column = grid.height - 1, 0
    changed = images.clone()
    side = encoder.image_size[0] // grid.height
    changed[..., row * side : (row + 1) * side, column * side : (column + 1) * side] = 1
    with torch.no_grad():
        a, b = (encoder(x, stop=encoder.sites[1])[0] for x in (images, changed))
    moved = (a != b).any(-1).numpy()
    assert len(moved) == len(grid)
    assert np.argwhere(grid.patches(moved)).tolist() == [[row, column]]
    assert not moved[: len(first)].any()


def test_other_numbers_and_other_towers_are_refused() -> None:
    grid = Encoder.from_tower(timm_vit(class_token=False, reg_tokens=1, global_pool="avg")).token_grid
    assert grid.first == ("register 1",)
    with pytest.raises(InputError, match=r"5 tokens \(1 and 2 x 2 patches\).*\[2, 4\]"):
        grid.patches(np.zeros((2, 4)))
    with pytest.raises(InputError, match="ModifiedResNet"):
        len(Encoder.from_tower(make_tower("resnet")).token_grid)
    assert Encoder.from_tower(timm_vit(timm_models.Eva, class_token=False, global_pool="avg")).token_grid.first == ()
