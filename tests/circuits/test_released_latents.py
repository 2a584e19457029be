"""Circuits on the latents of a released autoencoder, from its file: scores, edges and patches against its formula."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from circuitry import Encoder, Task, class_logit, in_feature_basis, left_rule, mean_baseline, patch_effects
from circuitry.models import parse_saes
from tests.support.assert_same import assert_same
from tests.support.feature_bases import attribute
from tests.support.released_saes import PRISMA, SHAPES, tensors
from tests.support.towers import make_tower
from tests.support.work import QUIET

UP, SITE = "transformer.resblocks.0", "transformer.resblocks.1"
N, D = 64, 32


class Released:
    """A file in ViT-Prisma's layout, layer-normed, of the class token, and its formula in the scale of its input."""

    def __init__(self, folder: Path) -> None:
        shapes = {name: tuple({8: D, 32: N}[size] for size in shape) for name, shape in SHAPES.items()}
        rng = np.random.default_rng(2)
        weights = {name: np.asarray(rng.normal(size=shape) / 4, np.float32) for name, shape in shapes.items()}
        config = PRISMA | {"normalize_activations": "layer_norm", "cls_token_only": True, "expansion_factor": 2}
        (folder / "config.json").write_text(json.dumps(config))
        torch.save(tensors(weights), folder / "weights.pt")
        self.w = {name: weight.double() for name, weight in tensors(weights).items()}

    def latents(self, x: Tensor) -> Tensor:
        """Of the class token [batch, features], times its deviation."""
        mean, std = self.moments(x)
        z = (x[:, 0] - mean) / (std + 1e-5) - self.w["b_dec"]
        return std * (z @ self.w["W_enc"] + self.w["b_enc"]).clamp_min(0)

    def moments(self, x: Tensor) -> tuple[Tensor, Tensor]:
        return x[:, 0].mean(1, keepdim=True), x[:, 0].std(1, keepdim=True)


def added(x: Tensor, change: Tensor) -> Tensor:
    """Return an activation with something more at the class token."""
    return torch.cat([x[:, :1] + change[:, None], x[:, 1:]], 1)


@pytest.fixture
def released(tmp_path: Path) -> Released:
    return Released(tmp_path)


@pytest.fixture
def case(released: Released, tmp_path: Path) -> tuple[Encoder, Encoder, Tensor, Tensor]:
    """The tower as it is and in latents of the last block, images, and text weights."""
    plain = Encoder.from_tower(make_tower("vit").double())
    features = in_feature_basis(plain, parse_saes([f"{SITE}={tmp_path}"]))
    images, weights = torch.randn(3, 3, 32, 32, dtype=torch.double), torch.randn(4, 16, dtype=torch.double)
    return plain, features, images, F.normalize(weights, dim=-1)


def test_scores_and_edges(released: Released, case: tuple[Encoder, Encoder, Tensor, Tensor]) -> None:
    plain, features, images, weights = case
    settings = {"rule": left_rule(2), "sites": (UP, SITE), "node_fraction": 0.05}
    graph = attribute(features, images, weights, **settings)
    with torch.no_grad():
        before, x = plain(images, stop=UP), plain(images, stop=SITE)
    latents, w_dec = released.latents(x), released.w["W_dec"]
    effects, edges = torch.zeros(3, N), torch.zeros(len(graph.kept_units[SITE]), 3, 17, D)
    for t in (0.0, 0.5):
        # Without latents, error, deviation and mean nothing is left, so that the path is one of x to zero.
        moved = latents.clone().requires_grad_()
        y = plain(added((1 - t) * x, (moved - latents) @ w_dec), start=SITE)
        effects += torch.autograd.grad(class_logit(weights, 1)(y).sum(), moved)[0] * latents / 2
        here = ((1 - t) * before).requires_grad_()
        found = released.latents(plain(here, start=UP, stop=SITE))
        for row, unit in enumerate(graph.kept_units[SITE]):
            squares = (found[:, unit] - latents[:, unit]).square().sum()
            edges[row] -= torch.autograd.grad(squares, here, retain_graph=True)[0] * before / 2
    assert_same(graph.node_scores[SITE], effects.mean(0), 1e-4)
    assert_same(graph.edge_scores[UP, SITE], edges.mean((1, 2))[:, graph.kept_units[UP]], 1e-6)
    # With mean baselines the straight paths of both are the same.
    others = torch.randn_like(images)
    whole, parts = (
        attribute(one, images, weights, baseline=mean_baseline(one, [others]), **settings) for one in (plain, features)
    )
    total = parts.node_scores[SITE].sum() + parts.error_scores[SITE].sum()
    assert_same(total, whole.node_scores[SITE].sum(), 1e-4, rtol=1e-9)


def test_patches(released: Released, case: tuple[Encoder, Encoder, Tensor, Tensor]) -> None:
    plain, features, images, weights = case
    others, metric = torch.randn_like(images), class_logit(weights, 1)
    with torch.no_grad():
        x, theirs = plain(images, stop=SITE), plain(others, stop=SITE)
        change = released.latents(theirs) - released.latents(x)
        unit = int(change.abs().sum(0).argmax())
        y = plain(added(x, change[:, [unit]] * released.w["W_dec"][unit]), start=SITE)
        expected = float((metric(plain(images)) - metric(y)).mean())
    task = Task(features, images, metric, baseline=others, work=QUIET)
    assert patch_effects(task, units={SITE: [unit]}).scores[SITE][unit] == pytest.approx(expected, rel=1e-9)
    assert abs(expected) > 1e-6
