"""Direct effects and pooling pairs add up to the class logit; texts that span what a head writes."""

from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from circuitry.bases import ResidualStream
from circuitry.circuits import direct_effects, direct_vectors, pooling_pairs
from circuitry.encoder import Encoder
from tests.support.towers import make_tower


def tower_and_images(name: str) -> tuple[Encoder, Tensor, Tensor]:
    encoder = Encoder.from_tower(make_tower(name).double())
    torch.manual_seed(1)
    images = torch.randn(3, 3, *encoder.image_size, dtype=torch.float64)
    return encoder, images, F.normalize(torch.randn(16, dtype=torch.float64), dim=0)


@pytest.mark.parametrize(
    "name",
    ["vit", "timm-vit", "vit-average-pooling", "eva", "gated", "root-mean-square"],
)
def test_effects_add_up_to_the_logit(name: str) -> None:
    encoder, images, weight = tower_and_images(name)
    found = direct_effects(ResidualStream.of(encoder), [images[:2], images[2:]], weight)
    with torch.no_grad():
        logits = F.normalize(encoder(images), dim=-1) @ weight
    np.testing.assert_allclose(found.logits, logits.numpy(), rtol=1e-9)
    np.testing.assert_allclose(
        found.effects.sum(1) + found.rest, found.logits, rtol=1e-9
    )


def test_an_effect_is_the_change_of_the_logit_with_the_scales_held() -> None:
    encoder, images, weight = tower_and_images("vit")
    stream = ResidualStream.of(encoder)
    found = direct_effects(stream, images, weight)
    tower: Any = encoder.tower
    with torch.no_grad():
        last = encoder(images, stop="transformer.resblocks.1")[:, 0]
        written = stream.written(dict(stream.components.run_with_cache(images)[1]))[
            :, :, 0
        ]
        scale = (last.var(-1, correction=0, keepdim=True) + tower.ln_post.eps).rsqrt()
        length = encoder(images).norm(dim=-1)
        for index, wrote in enumerate(written):
            centred = (
                (wrote - wrote.mean(-1, keepdim=True)) * scale * tower.ln_post.weight
            )
            np.testing.assert_allclose(
                found.effects[:, index],
                (centred @ tower.proj @ weight / length).numpy(),
            )


@pytest.mark.parametrize("name", ["vit", "timm-vit", "vit-average-pooling"])
def test_vectors_give_the_effects_on_any_class(name: str) -> None:
    encoder, images, weight = tower_and_images(name)
    stream = ResidualStream.of(encoder)
    vectors = direct_vectors(stream, images)
    with torch.no_grad():
        length = encoder(images).norm(dim=-1).numpy()
    expected = direct_effects(stream, images, weight).effects
    np.testing.assert_allclose(
        vectors @ weight.numpy() / length[:, None], expected, rtol=1e-8, atol=1e-12
    )


def test_effects_are_shown() -> None:
    encoder, images, weight = tower_and_images("vit")
    found = direct_effects(ResidualStream.of(encoder), images, weight)
    table = found.to_pandas()
    assert table["effect"].sum() == pytest.approx(found.logits.mean())
    largest = np.abs(found.effects.mean(0)).argmax()
    assert table["writer"].iloc[0] == found.writers[largest]
    assert found.writers[largest] in repr(found)


def test_pairs_add_up_to_the_embedding_and_the_logit_and_follow_the_units() -> None:
    encoder = Encoder.from_tower(make_tower("resnet").double())
    torch.manual_seed(1)
    images = torch.randn(3, 3, *encoder.image_size, dtype=torch.float64)
    weight = F.normalize(torch.randn(16, dtype=torch.float64), dim=0)
    found = pooling_pairs(encoder, [images[:2], images[2:]])
    with torch.no_grad():
        embeddings = encoder(images)
        last = encoder(images, stop="layer4.0")
        pool: Any = encoder.tower.attnpool
        tokens = (
            torch.cat([last.flatten(2).mean(2, keepdim=True), last.flatten(2)], 2).mT
            + pool.positional_embedding
        )
        q, k = (getattr(pool, f"{name}_proj")(tokens) for name in "qk")
        head, unit, size = 1, 5, q.shape[-1] // pool.num_heads
        rows = slice(head * size, (head + 1) * size)
        pattern = (q[:, :1, rows] @ k[..., rows].mT * size**-0.5).softmax(-1)
        only = torch.zeros_like(tokens)
        only[..., unit] = (tokens - pool.positional_embedding)[..., unit]
        out = (pattern @ (only @ pool.v_proj.weight.T)[..., rows])[
            :, 0
        ] @ pool.c_proj.weight[:, rows].T
        logits = F.normalize(embeddings, dim=-1) @ weight
    np.testing.assert_allclose(
        found.embeddings, embeddings.numpy(), rtol=1e-9, atol=1e-12
    )
    np.testing.assert_allclose(
        found.read[:, head, unit, None] * found.directions[head, unit],
        out.numpy(),
        rtol=1e-8,
    )
    lengths = np.linalg.norm(found.embeddings, axis=1)
    on_logit = found.read * (found.directions @ weight.numpy())
    effects = on_logit / lengths[:, None, None]
    rest = found.rest @ weight.numpy() / lengths
    np.testing.assert_allclose(
        effects[:, head, unit],
        (out @ weight / embeddings.norm(dim=-1)).numpy(),
        rtol=1e-8,
    )
    np.testing.assert_allclose(effects.sum((1, 2)) + rest, logits.numpy(), rtol=1e-8)
