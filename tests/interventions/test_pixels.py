"""Pixel attributions: exact for a linear network, complete for others, silent where nothing is kept."""

import pytest
import torch
import torch.nn.functional as F

from circuitry import Encoder, InputError, class_logit, patched
from circuitry.interventions import ablate_all_but, logit_pixels, unit_pixels
from tests.interventions.test_patching import linear_encoder
from tests.support.towers import make_tower


def test_a_linear_unit_is_its_gradient_times_the_pixels() -> None:
    encoder = linear_encoder()
    images = torch.randn(2, 3, 6, 6, dtype=torch.double)
    found = unit_pixels(encoder, images, "first", 2, steps=3)
    one = images.clone().requires_grad_()
    activation = encoder(one, stop="first").movedim(encoder.unit_dim("first"), 1)[:, 2].reshape(2, -1).mean(1)
    gradient = torch.autograd.grad(activation.sum(), one)[0]
    assert torch.allclose(found, (gradient * images).sum(1), atol=1e-6)


@pytest.mark.parametrize("tower", ["resnet", "vit"])
def test_maps_sum_to_what_the_path_changes(tower: str) -> None:
    encoder = Encoder.from_tower(make_tower(tower).double())
    images = 0.5 * torch.randn(2, 3, *encoder.image_size, dtype=torch.double)
    metric = class_logit(F.normalize(torch.randn(3, 16, dtype=torch.double), dim=-1), 1)
    site = encoder.sites[2]
    circuit = {site: list(range(3))}
    for kept in (None, circuit):
        found = logit_pixels(encoder, images, metric, kept, steps=200)
        with torch.no_grad(), patched(encoder, [] if kept is None else ablate_all_but(encoder, kept)):
            change = metric(encoder(images)) - metric(encoder(torch.zeros_like(images)))
        assert found.shape == (2, *encoder.image_size)
        assert found.sum((1, 2)).tolist() == pytest.approx(change.tolist(), abs=5e-3)
    assert not any(hook.fwd_hooks for hook in encoder.hook_dict.values())


def test_nothing_kept_has_no_pixels() -> None:
    encoder = Encoder.from_tower(make_tower("resnet"))
    metric = class_logit(F.normalize(torch.randn(3, 16), dim=-1), 1)
    images = torch.randn(3, 3, 64, 64)
    assert not logit_pixels(encoder, images, metric, {"layer4.0": []}, steps=2).any()
    many = logit_pixels(encoder, images, metric, steps=4)
    assert torch.allclose(logit_pixels(encoder, images, metric, steps=4, memory_gib=1e-6), many, atol=1e-6)


def test_bad_input() -> None:
    encoder = Encoder.from_tower(make_tower("resnet"))
    images = torch.randn(1, 3, 64, 64)
    with pytest.raises(InputError, match="There is no site 'nowhere'"):
        unit_pixels(encoder, images, "nowhere", 0)
    with pytest.raises(InputError, match="has units 0 to 255, but 256 was asked for"):
        unit_pixels(encoder, images, "layer4.0", 256)
    with pytest.raises(InputError, match="at least one step, but steps=0"):
        unit_pixels(encoder, images, "layer4.0", 0, steps=0)
    with pytest.raises(InputError, match="one number per image"):
        logit_pixels(encoder, images, lambda e: e, steps=1)
