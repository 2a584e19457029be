"""Pairs of a pooling head and a unit add up to the embedding, and are what plain attention makes of one unit."""

from typing import Any

import numpy as np
import torch
import torch.nn.functional as F

from circuitry.circuits import pooling_pairs
from circuitry.encoder import Encoder
from tests.support.towers import make_tower


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
        tokens = torch.cat([last.flatten(2).mean(2, keepdim=True), last.flatten(2)], 2).mT + pool.positional_embedding
        q, k = (getattr(pool, f"{name}_proj")(tokens) for name in "qk")
        head, unit, size = 1, 5, q.shape[-1] // pool.num_heads
        rows = slice(head * size, (head + 1) * size)
        pattern = (q[:, :1, rows] @ k[..., rows].mT * size**-0.5).softmax(-1)
        only = torch.zeros_like(tokens)
        only[..., unit] = (tokens - pool.positional_embedding)[..., unit]
        out = (pattern @ (only @ pool.v_proj.weight.T)[..., rows])[:, 0] @ pool.c_proj.weight[:, rows].T
        logits = F.normalize(embeddings, dim=-1) @ weight
    np.testing.assert_allclose(found.embeddings, embeddings.numpy(), rtol=1e-9, atol=1e-12)
    np.testing.assert_allclose(found.read[:, head, unit, None] * found.directions[head, unit], out.numpy(), rtol=1e-8)
    effects = found.effects(weight.numpy())
    rest = found.rest @ weight.numpy() / np.linalg.norm(found.embeddings, axis=1)
    np.testing.assert_allclose(effects[:, head, unit], (out @ weight / embeddings.norm(dim=-1)).numpy(), rtol=1e-8)
    np.testing.assert_allclose(effects.sum((1, 2)) + rest, logits.numpy(), rtol=1e-8)
