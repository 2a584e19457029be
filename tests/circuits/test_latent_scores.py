"""Scores of latents, and of edges between them, against paper and loops that share no code."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import circuitry
from circuitry import (
    Encoder,
    Task,
    class_logit,
    in_feature_basis,
    left_rule,
    mean_baseline,
    midpoint_rule,
    patch_effects,
)
from circuitry.bases import SparseAutoencoder
from circuitry.circuits import QuadratureRule, gauss_legendre_rule
from circuitry.encoder import Baseline, Stage
from tests.support.feature_bases import (
    KINDS,
    attribute,
    beside_by_hand,
    clean_by_hand,
    decode_by_hand,
    encode_by_hand,
    relative,
    setting,
)
from tests.support.work import AS_STUDIED, QUIET


def test_hand_worked_network() -> None:
    """Sites first (x0, x1) -> second (x0 x1, x1) -> embedding; metric second_0 + 10 second_1."""
    stages = (
        Stage("first", lambda x: x.flatten(1)[:, :2], 1),
        Stage("second", lambda x: torch.stack([x[:, 0] * x[:, 1], x[:, 1]], 1), 1),
    )
    plain = Encoder(nn.Linear(1, 1), stages, (1, 1))
    sae = SparseAutoencoder(
        torch.eye(2), torch.tensor([-2.0, 0]), torch.tensor([[1.0, 0], [1, 1]]), torch.tensor([-1.0, -1]),
        subtract_decoder_bias=False,
    )  # fmt: skip
    features = in_feature_basis(plain, {"first": sae})
    image = torch.tensor([5.0, 2, 0])[None, :, None, None]
    # x = (5, 2): latents (5 - 2, 2) = (3, 2), decoded 3 (1, 0) + 2 (1, 1) - (1, 1) = (4, 1), error (1, 1).
    assert features(image, stop="first").tolist() == [[3, 2, 1, 1]]
    assert features(image).tolist() == [[10, 2]]
    graph = circuitry.attribute(
        features,
        image,
        lambda y: y[:, 0] + 10 * y[:, 1],
        1.0,
        midpoint_rule(2),
        progress=False,
        **AS_STUDIED,
    )
    # Zero latents and error are x = (-1, -1), so the path is (5 - 6 t, 2 - 3 t), and the metric's gradient there
    # (2 - 3 t, 15 - 6 t), on average (1/2, 12). Times latent times its direction:
    assert graph.node_scores["first"].tolist() == [3 * 0.5, 2 * (0.5 + 12)]
    assert graph.error_scores["first"].tolist() == [0.5, 12]
    # The metric goes from 30 to 1 - 10.
    assert tuple(graph.completeness["first"]) == (39, 39)
    assert graph.node_scores["second"].tolist() == [10, 20]
    assert graph.kept_units["first"].tolist() == [1, 0]
    assert graph.kept_units["second"].tolist() == [1, 0]
    # Into second_0: it moves by r = (5 - 6 t)(2 - 3 t) - 10, at t = 1/4 and 3/4 by -5.625 and -10.125, and there x is
    # (3.5, 1.25) and (0.5, -0.25). Latent 0 moves x0: the gradient 2 r x1 is -14.0625 and 5.0625, on average -4.5,
    # times -3: 13.5. Latent 1 moves both: 2 r (x0 + x1) is -53.4375 and -5.0625, on average -29.25, times -2: 58.5.
    # Into second_1 = x1, which moves by -3 t: 2 (-3 t), on average -3, times -2: 6, and from latent 0 nothing.
    assert graph.edge_scores["first", "second"].tolist() == [[6, 0], [58.5, 13.5]]


def on_the_path(
    sae: SparseAutoencoder, clean: tuple[Tensor, ...], t: float
) -> tuple[Tensor, Tensor]:
    """Return latents that take a gradient, and the tower's activation with units last, a share t towards zero."""
    latents, error, beside = clean
    moved = ((1 - t) * latents).requires_grad_()
    return moved, decode_by_hand(sae, moved, (1 - t) * beside) + (1 - t) * error


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", ["resnet", "vit", "timm-vit"])
def test_latents_equal_brute_force(name: str, kind: str) -> None:
    plain, saes, images, weights = setting(name, kind)
    graph = attribute(
        in_feature_basis(plain, saes), images, weights, rule=left_rule(3), size=0.01
    )
    for site, sae in saes.items():
        clean = clean_by_hand(plain, sae, images, site)
        total = torch.zeros_like(clean[0])
        for k in range(3):
            latents, x = on_the_path(sae, clean, k / 3)
            x = x.movedim(-1, plain.unit_dim(site))
            y = plain.run_with_hooks(images, fwd_hooks=[(site, lambda _, hook, x=x: x)])
            logit = (F.normalize(y, dim=-1) @ weights[1]).sum()
            total += torch.autograd.grad(logit, latents)[0] / 3
        effect = (
            (clean[0] * total).flatten(1, -2).sum(1).mean(0)
            if total.dim() > 2
            else (clean[0] * total).mean(0)
        )
        assert relative(graph.node_scores[site], effect.numpy()) < 1e-9, site


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", ["resnet", "vit", "swin"])
def test_edges_equal_brute_force(name: str, kind: str) -> None:
    plain, saes, images, weights = setting(name, kind)
    features = in_feature_basis(plain, saes)
    sites = features.sites[-6:-2]
    assert [site in saes for site in sites] == [False, True, True, False]
    graph = attribute(
        features, images, weights, rule=left_rule(3), size=0.05, sites=sites
    )
    for (up, down), found in graph.edge_scores.items():
        with torch.no_grad():
            target = plain(images, stop=down).movedim(plain.unit_dim(down), -1)
            target = encode_by_hand(saes[down], target) if down in saes else target
            if up in saes:
                clean: tuple[Tensor, ...] = clean_by_hand(plain, saes[up], images, up)
            else:
                clean = (plain(images, stop=up).movedim(plain.unit_dim(up), -1),)
        for row, unit in enumerate(graph.kept_units[down]):
            total = torch.zeros_like(clean[0])
            for k in range(3):
                if up in saes:
                    moved, x = on_the_path(saes[up], clean, k / 3)
                else:
                    moved = x = ((1 - k / 3) * clean[0]).requires_grad_()
                y = plain(
                    x.movedim(-1, plain.unit_dim(up)), start=up, stop=down
                ).movedim(plain.unit_dim(down), -1)
                y = encode_by_hand(saes[down], y) if down in saes else y
                total += (
                    torch.autograd.grad(
                        F.mse_loss(y[..., unit], target[..., unit]), moved
                    )[0]
                    / 3
                )
            effect = (-clean[0] * total).flatten(0, -2).sum(0).numpy()
            expected = effect[graph.kept_units[up]]
            assert np.abs(expected).max() > 0
            assert relative(found[row], expected) < 1e-8, (up, down, row)


@pytest.mark.parametrize("kind", ["relu", "normalised"])
@pytest.mark.parametrize("corrupted", [False, True])
def test_patching_a_latent_equals_a_run_with_a_hook(kind: str, corrupted: bool) -> None:
    plain, saes, images, weights = setting("resnet", kind)
    site, sae = next(iter(saes.items()))
    others = torch.randn_like(images)
    unit = int(clean_by_hand(plain, sae, images, site)[0].sum((0, 1, 2)).argmax())
    other = clean_by_hand(plain, sae, others, site)[0][..., unit] if corrupted else 0.0
    baseline = others if corrupted else "zero"
    task = Task(
        in_feature_basis(plain, saes),
        images,
        class_logit(weights, 1),
        baseline=baseline,
        work=QUIET,
    )
    found = patch_effects(task, units={site: [unit]}).scores[site][unit]

    def patch(x: Tensor, hook: object) -> Tensor:
        x = x.movedim(1, -1)
        latents = encode_by_hand(sae, x)
        beside = beside_by_hand(sae, x)
        error = x - decode_by_hand(sae, latents, beside)
        latents[..., unit] = other
        return (decode_by_hand(sae, latents, beside) + error).movedim(-1, 1)

    def logits(y: Tensor) -> Tensor:
        return F.normalize(y, dim=-1) @ weights[1]

    with torch.no_grad():
        expected = (
            logits(plain(images))
            - logits(plain.run_with_hooks(images, fwd_hooks=[(site, patch)]))
        ).mean()
    assert abs(expected) > 1e-6
    assert found == pytest.approx(float(expected), rel=1e-8)


@pytest.mark.parametrize(
    ("name", "rule"),
    [
        ("vit", left_rule(3)),
        ("vit", gauss_legendre_rule(3)),
        ("resnet", midpoint_rule(1)),
    ],
    ids=lambda value: getattr(value, "name", value),
)
@pytest.mark.parametrize("kind", ["topk", "normalised", "layer-normed"])
def test_latents_and_error_sum_to_the_effect_of_the_site(
    name: str, kind: str, rule: QuadratureRule
) -> None:
    plain, saes, images, weights = setting(name, kind)
    features = in_feature_basis(plain, saes)
    reference = torch.randn_like(images)
    shapes = plain.run_with_cache(images)[1]
    sites = plain.sites[-5:]
    assert saes.keys() < set(sites)

    def at_zero(site: str) -> Tensor:
        shape = [1] * shapes[site].dim()
        shape[plain.unit_dim(site)] = -1
        return (0.0 if kind != "topk" else 1.0) * saes[site].b_dec.view(shape)

    pairs: list[tuple[str | Baseline, str | Baseline]] = [
        ("zero", Baseline("decoded zero", {site: at_zero(site) for site in saes})),
        (mean_baseline(features, [reference]), mean_baseline(plain, [reference])),
        (
            mean_baseline(features, [reference], per="unit"),
            mean_baseline(plain, [reference], per="unit"),
        ),
    ]
    for baseline, decoded in pairs:
        found, expected = (
            attribute(
                encoder, images, weights, rule=rule, baseline=b, size=0.01, sites=sites
            )
            for encoder, b in ((features, baseline), (plain, decoded))
        )
        for site in sites:
            total = (
                found.node_scores[site].sum()
                + found.error_scores.get(site, np.zeros(1)).sum()
            )
            assert total == pytest.approx(
                expected.node_scores[site].sum(), rel=1e-8, abs=1e-12
            )
            assert found.completeness[site] == pytest.approx(
                expected.completeness[site], rel=1e-8, abs=1e-12
            )
            if site in saes:
                assert (
                    abs(found.error_scores[site].sum()) > 1e-6
                    or site == plain.sites[-1]
                )
            else:
                assert (
                    relative(found.node_scores[site], expected.node_scores[site]) < 1e-8
                )
