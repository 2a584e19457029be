"""Direct effects add up to the class logit, and are what a hook on the last stream finds."""

from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from circuitry.bases import ResidualStream
from circuitry.circuits import direct_effects, direct_vectors
from circuitry.encoder import Encoder
from tests.bases.test_components import FURTHER
from tests.support.towers import make_tower


def tower_and_images(name: str) -> tuple[Encoder, Tensor, Tensor]:
    tower = FURTHER[name]() if name in FURTHER else make_tower(name)
    encoder = Encoder.from_tower(tower.double())
    torch.manual_seed(1)
    images = torch.randn(3, 3, *encoder.image_size, dtype=torch.float64)
    return encoder, images, F.normalize(torch.randn(16, dtype=torch.float64), dim=0)


@pytest.mark.parametrize("name", ["vit", "timm-vit", "vit-average-pooling", "eva", "gated", "root-mean-square"])
def test_effects_add_up_to_the_logit(name: str) -> None:
    encoder, images, weight = tower_and_images(name)
    found = direct_effects(ResidualStream.of(encoder), [images[:2], images[2:]], weight)
    with torch.no_grad():
        logits = F.normalize(encoder(images), dim=-1) @ weight
    np.testing.assert_allclose(found.logits, logits.numpy(), rtol=1e-9)
    np.testing.assert_allclose(found.effects.sum(1) + found.rest, found.logits, rtol=1e-9)
    heads = [i for i, writer in enumerate(found.writers) if ".attn." in writer]
    np.testing.assert_allclose(found.by_position.sum(2), found.effects[:, heads], rtol=1e-8, atol=1e-12)


def test_an_effect_is_the_change_of_the_logit_with_the_scales_held() -> None:
    encoder, images, weight = tower_and_images("vit")
    stream = ResidualStream.of(encoder)
    found = direct_effects(stream, images, weight)
    tower: Any = encoder.tower
    with torch.no_grad():
        last = encoder(images, stop="transformer.resblocks.1")[:, 0]
        written = stream.written(dict(stream.components.run_with_cache(images)[1]))[:, :, 0]
        scale = (last.var(-1, correction=0, keepdim=True) + tower.ln_post.eps).rsqrt()
        length = encoder(images).norm(dim=-1)
        for index, wrote in enumerate(written):
            centred = (wrote - wrote.mean(-1, keepdim=True)) * scale * tower.ln_post.weight
            np.testing.assert_allclose(found.effects[:, index], (centred @ tower.proj @ weight / length).numpy())


@pytest.mark.parametrize("name", ["vit", "timm-vit", "vit-average-pooling"])
def test_vectors_give_the_effects_on_any_class(name: str) -> None:
    encoder, images, weight = tower_and_images(name)
    stream = ResidualStream.of(encoder)
    vectors = direct_vectors(stream, images)
    with torch.no_grad():
        length = encoder(images).norm(dim=-1).numpy()
    expected = direct_effects(stream, images, weight).effects
    np.testing.assert_allclose(vectors @ weight.numpy() / length[:, None], expected, rtol=1e-8, atol=1e-12)


def test_effects_are_shown() -> None:
    encoder, images, weight = tower_and_images("vit")
    found = direct_effects(ResidualStream.of(encoder), images, weight)
    table = found.to_pandas()
    assert table["effect"].sum() == pytest.approx(found.logits.mean())
    largest = np.abs(found.effects.mean(0)).argmax()
    assert table["writer"].iloc[0] == found.writers[largest]
    assert found.writers[largest] in repr(found)
