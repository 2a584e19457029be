"""Latents of sparse autoencoders as units: the same outputs, and scores against paper and loops that share no code."""

from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import circuitry
from circuitry import (
    AttributionGraph,
    Clip,
    Encoder,
    InputError,
    Task,
    class_logit,
    faithfulness_curve,
    in_feature_basis,
    left_rule,
    mean_baseline,
    midpoint_rule,
    patch_effects,
)
from circuitry.circuits import AttributionSettings, QuadratureRule, attribute_parts, gauss_legendre_rule
from circuitry.interventions import (
    AblationSettings,
    ClassScorer,
    add_error_units,
    kept_embeddings,
    transfer_circuits,
)
from circuitry.models import Baseline, SparseAutoencoder, Stage, parse_saes
from circuitry.models.feature_basis import sae_digest
from circuitry.models.narrowing import narrow_stage
from circuitry.models.tensor_batches import bytes_per_image
from tests.support.towers import make_tower
from tests.support.work import QUIET

KINDS = ("relu", "jumprelu", "topk", "normalised")
"""Activations, and relu on inputs scaled to length one."""


def make_sae(d: int, kind: str = "relu", factor: int = 2, dtype: torch.dtype = torch.double) -> SparseAutoencoder:
    """Random weights that miss a good part of their input; nothing is zero."""
    n = factor * d
    w_enc, w_dec = torch.randn(d, n, dtype=dtype) / d**0.5, torch.randn(n, d, dtype=dtype) / n**0.5
    b_enc, b_dec = 0.1 * torch.randn(n, dtype=dtype), 0.3 * torch.randn(d, dtype=dtype)
    special: dict[str, dict[str, Any]] = {
        "relu": {},
        "jumprelu": {"activation": "jumprelu", "threshold": 0.1 + 0.1 * torch.rand(n, dtype=dtype)},
        "topk": {"activation": "topk", "k": max(1, n // 4)},
        "normalised": {"normalised": True, "subtract_decoder_bias": False},
    }
    return SparseAutoencoder(w_enc, b_enc, w_dec, b_dec, **special[kind])


def encode_by_hand(sae: SparseAutoencoder, x: Tensor) -> Tensor:
    """Units last. Latents in the scale of x, so those of inputs of length one times the length of x."""
    length = x.square().sum(-1, keepdim=True).sqrt() if sae.normalised else torch.ones_like(x[..., :1])
    inner = x / length - (sae.b_dec if sae.subtract_decoder_bias else 0)
    pre = torch.einsum("...d,df->...f", inner, sae.w_enc) + sae.b_enc
    threshold = sae.threshold if sae.threshold is not None else torch.zeros_like(sae.b_enc)
    if sae.k is not None:
        threshold = pre.sort(-1).values[..., [-sae.k - 1]].clamp(min=0)
    return torch.where(pre > threshold, pre, torch.zeros_like(pre)) * length


def decode_by_hand(sae: SparseAutoencoder, latents: Tensor, length: Tensor | float = 1.0) -> Tensor:
    return torch.einsum("...f,fd->...d", latents, sae.w_dec) + length * sae.b_dec


def setting(name: str, kind: str, n: int = 3) -> tuple[Encoder, dict[str, SparseAutoencoder], Tensor, Tensor]:
    """A tower in double precision; autoencoders at two consecutive sites and at the last one; images and weights."""
    encoder = Encoder.from_tower(make_tower(name).double())
    images = torch.randn(n, 3, *encoder.image_size, dtype=torch.double)
    sites = (*encoder.sites[-4:-2], encoder.sites[-1])
    with torch.no_grad():
        _, cache = encoder.run_with_cache(images)
    saes = {site: make_sae(cache[site].shape[encoder.unit_dim(site)], kind) for site in sites}
    return encoder, saes, images, F.normalize(torch.randn(4, 16, dtype=torch.double), dim=-1)


def attribute(encoder: Encoder, images: Tensor | list[Tensor], weights: Tensor, **settings: object) -> AttributionGraph:
    return circuitry.attribute(encoder, images, class_logit(weights, 1), progress=False, **settings)  # type: ignore[arg-type]


def relative(found: np.ndarray, expected: np.ndarray) -> float:
    assert found.shape == expected.shape
    return float(np.linalg.norm(found - expected) / np.linalg.norm(expected))


# --- the chain -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("kind", "dtype", "tolerance"),
    [*((kind, torch.double, 1e-11) for kind in KINDS), ("relu", torch.float, 1e-4)],
)
@pytest.mark.parametrize("name", ["resnet", "vit", "swin", "convnext", "timm-vit"])
def test_outputs_are_those_of_the_tower(name: str, kind: str, dtype: torch.dtype, tolerance: float) -> None:
    plain, saes, images, _ = setting(name, kind)
    plain.tower.to(dtype)
    images = images.to(dtype)
    features = in_feature_basis(plain, saes)
    last = plain.sites[-1]
    assert features.sites == (*plain.sites, f"{last}.decoded")
    with torch.no_grad():
        embedding, before = plain.run_with_cache(images)
        found, cache = features.run_with_cache(images)
        torch.testing.assert_close(found, embedding, rtol=tolerance, atol=tolerance)
        for site in plain.sites:
            x = before[site]
            if site in saes:
                sae, units = saes[site].to(dtype=dtype), cache[site].movedim(plain.unit_dim(site), -1)
                x = x.movedim(plain.unit_dim(site), -1)
                latents = encode_by_hand(sae, x)
                assert (latents > 0).any()
                length = x.norm(dim=-1, keepdim=True) if sae.normalised else torch.ones_like(x[..., :1])
                error = x - decode_by_hand(sae, latents, length)
                assert error.norm() > 0.1 * x.norm()
                parts = [latents, error, *([length] if sae.normalised else [])]
                torch.testing.assert_close(units, torch.cat(parts, -1), rtol=tolerance, atol=10 * tolerance)
                assert features.error_units[site] == range(sae.n_features, units.shape[-1])
            else:
                torch.testing.assert_close(cache[site], x, rtol=tolerance, atol=tolerance)
            partial = features(cache[site], start=site)
            torch.testing.assert_close(partial, embedding, rtol=tolerance, atol=tolerance)
        first, second = list(saes)[:2]
        torch.testing.assert_close(
            features(cache[first], start=first, stop=second), cache[second], rtol=tolerance, atol=10 * tolerance
        )
        with features.fast():
            torch.testing.assert_close(features(images), embedding, rtol=tolerance, atol=tolerance)
    assert features.tower is plain.tower
    assert list(features.error_units) == list(saes)
    assert plain.error_units == {}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", ["resnet", "vit"])
def test_narrow_stages_equal_whole_ones(name: str, kind: str) -> None:
    """From and to any units, those of the error too, in value and in vector-Jacobian products."""
    plain, saes, images, _ = setting(name, kind)
    features = in_feature_basis(plain, saes)
    sites = features.sites[-6:-2]
    for up, down in pairwise(sites):
        stage = features.stages[features.position(up)]
        assert stage.narrow is not None
        with torch.no_grad():
            x, y = (features(images, stop=site) for site in (up, down))
        dims = features.unit_dim(up), features.unit_dim(down)
        size = y.movedim(dims[1], 0).flatten(1).abs().mean(1)
        strongest = size[: stage.error_units.start or None].topk(3).indices
        last_units = torch.arange(x.shape[dims[0]])[-3:]
        with_last = torch.tensor([int(strongest[0]), len(size) - 1])
        for rows, columns in ((torch.tensor([2, 0, 1]), strongest), (last_units, with_last)):
            delta = torch.randn_like(x.index_select(dims[0], rows)).requires_grad_()
            found = stage.narrow(rows, columns)(x, delta)
            expected = narrow_stage(stage.run, rows, columns, *dims)(x, delta)
            torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-9)
            cotangents = torch.randn(2, *found.shape, dtype=torch.double)
            mine, theirs = (
                torch.autograd.grad(z, delta, cotangents, is_grads_batched=True)[0] for z in (found, expected)
            )
            assert theirs.abs().max() > 1e-3
            torch.testing.assert_close(mine, theirs, rtol=1e-9, atol=1e-9)


def test_fast_stages_stay_fast() -> None:
    plain = Encoder.from_tower(make_tower("resnet"))
    features = in_feature_basis(plain, {"layer4.0": make_sae(256), "attnpool": make_sae(16)})
    was, fast = (encoder.stages[plain.position("attnpool") - 1] for encoder in (plain, features))
    assert was.fast is not None
    assert fast.fast is not None
    assert features.stages[0] is plain.stages[0]
    assert [stage.narrow for stage in features.stages[:2]] == [stage.narrow for stage in plain.stages[:2]]


def test_one_site_after_another() -> None:
    plain, saes, images, _ = setting("vit", "relu")
    at_once, one_by_one = in_feature_basis(plain, saes), plain
    for site, sae in saes.items():
        one_by_one = in_feature_basis(one_by_one, {site: sae})
    assert one_by_one.sites == at_once.sites
    assert one_by_one.error_units == at_once.error_units
    with torch.no_grad():
        for site in at_once.sites:
            assert torch.equal(one_by_one(images, stop=site), at_once(images, stop=site))
    assert in_feature_basis(plain, {}).sites == plain.sites


def test_a_blank_activation_has_finite_gradients() -> None:
    encoder = Encoder(nn.Linear(1, 1), (Stage("x", lambda x: x.flatten(1), 1),), (1, 1))
    features = in_feature_basis(encoder, {"x": make_sae(3, "normalised", dtype=torch.float)})
    x = torch.zeros(1, 3, 1, 1, requires_grad=True)
    y = features(x)
    assert torch.equal(y, torch.zeros(1, 3))
    (gradient,) = torch.autograd.grad(y.sum(), x)
    assert gradient.flatten().tolist() == pytest.approx([1, 1, 1], abs=1e-5)


# --- scores by hand --------------------------------------------------------------------------------------------------


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
        features, image, lambda y: y[:, 0] + 10 * y[:, 1], node_fraction=1.0, rule=midpoint_rule(2), progress=False
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


# --- scores by brute force -------------------------------------------------------------------------------------------


def clean_by_hand(plain: Encoder, sae: SparseAutoencoder, images: Tensor, site: str) -> tuple[Tensor, ...]:
    """Return latents, error and length (one where the autoencoder has no use for it), units last."""
    with torch.no_grad():
        x = plain(images, stop=site).movedim(plain.unit_dim(site), -1)
        length = x.norm(dim=-1, keepdim=True) if sae.normalised else torch.ones_like(x[..., :1])
        latents = encode_by_hand(sae, x)
        return latents, x - decode_by_hand(sae, latents, length), length


def on_the_path(sae: SparseAutoencoder, clean: tuple[Tensor, ...], t: float) -> tuple[Tensor, Tensor]:
    """Return latents that take a gradient, and the tower's activation with units last, a share t towards zero."""
    latents, error, length = clean
    moved = ((1 - t) * latents).requires_grad_()
    scale = (1 - t) * length if sae.normalised else length
    return moved, decode_by_hand(sae, moved, scale) + (1 - t) * error


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", ["resnet", "vit", "timm-vit"])
def test_latents_equal_brute_force(name: str, kind: str) -> None:
    plain, saes, images, weights = setting(name, kind)
    graph = attribute(in_feature_basis(plain, saes), images, weights, rule=left_rule(3))
    for site, sae in saes.items():
        clean = clean_by_hand(plain, sae, images, site)
        total = torch.zeros_like(clean[0])
        for k in range(3):
            latents, x = on_the_path(sae, clean, k / 3)
            x = x.movedim(-1, plain.unit_dim(site))
            y = plain.run_with_hooks(images, fwd_hooks=[(site, lambda _, hook, x=x: x)])
            logit = (F.normalize(y, dim=-1) @ weights[1]).sum()
            total += torch.autograd.grad(logit, latents)[0] / 3
        effect = (clean[0] * total).flatten(1, -2).sum(1).mean(0) if total.dim() > 2 else (clean[0] * total).mean(0)
        assert relative(graph.node_scores[site], effect.numpy()) < 1e-9, site


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", ["resnet", "vit", "swin"])
def test_edges_equal_brute_force(name: str, kind: str) -> None:
    """From channels to latents, from latents to latents, and from latents to channels."""
    plain, saes, images, weights = setting(name, kind)
    features = in_feature_basis(plain, saes)
    sites = features.sites[-6:-2]
    assert [site in saes for site in sites] == [False, True, True, False]
    graph = attribute(features, images, weights, rule=left_rule(3), node_fraction=0.05, sites=sites)
    for (up, down), found in graph.edge_scores.items():
        with torch.no_grad():
            target = plain(images, stop=down).movedim(plain.unit_dim(down), -1)
            target = encode_by_hand(saes[down], target) if down in saes else target
            if up in saes:
                clean = clean_by_hand(plain, saes[up], images, up)
            else:
                clean = (plain(images, stop=up).movedim(plain.unit_dim(up), -1),)
        for row, unit in enumerate(graph.kept_units[down]):
            total = torch.zeros_like(clean[0])
            for k in range(3):
                if up in saes:
                    moved, x = on_the_path(saes[up], clean, k / 3)
                else:
                    moved = x = ((1 - k / 3) * clean[0]).requires_grad_()
                y = plain(x.movedim(-1, plain.unit_dim(up)), start=up, stop=down).movedim(plain.unit_dim(down), -1)
                y = encode_by_hand(saes[down], y) if down in saes else y
                total += torch.autograd.grad(F.mse_loss(y[..., unit], target[..., unit]), moved)[0] / 3
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
    task = Task(in_feature_basis(plain, saes), images, class_logit(weights, 1), baseline=baseline, work=QUIET)
    found = patch_effects(task, units={site: [unit]}).scores[site][unit]

    def patch(x: Tensor, hook: object) -> Tensor:
        x = x.movedim(1, -1)
        latents = encode_by_hand(sae, x)
        length = x.norm(dim=-1, keepdim=True) if sae.normalised else 1.0
        error = x - decode_by_hand(sae, latents, length)
        latents[..., unit] = other
        return (decode_by_hand(sae, latents, length) + error).movedim(-1, 1)

    def logits(y: Tensor) -> Tensor:
        return F.normalize(y, dim=-1) @ weights[1]

    with torch.no_grad():
        expected = (logits(plain(images)) - logits(plain.run_with_hooks(images, fwd_hooks=[(site, patch)]))).mean()
    assert abs(expected) > 1e-6
    assert found == pytest.approx(float(expected), rel=1e-8)


# --- laws ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "rule"),
    [("vit", left_rule(3)), ("vit", gauss_legendre_rule(3)), ("resnet", midpoint_rule(1))],
    ids=lambda value: getattr(value, "name", value),
)
@pytest.mark.parametrize("kind", ["topk", "normalised"])
def test_latents_and_error_sum_to_the_effect_of_the_site(name: str, kind: str, rule: QuadratureRule) -> None:
    plain, saes, images, weights = setting(name, kind)
    features = in_feature_basis(plain, saes)
    reference = torch.randn_like(images)
    shapes = plain.run_with_cache(images)[1]
    sites = plain.sites[-5:]
    assert saes.keys() < set(sites)

    def at_zero(site: str) -> Tensor:
        shape = [1] * shapes[site].dim()
        shape[plain.unit_dim(site)] = -1
        return (0.0 if kind == "normalised" else 1.0) * saes[site].b_dec.view(shape)

    pairs: list[tuple[str | Baseline, str | Baseline]] = [
        ("zero", Baseline("decoded zero", {site: at_zero(site) for site in saes})),
        (mean_baseline(features, [reference]), mean_baseline(plain, [reference])),
        (mean_baseline(features, [reference], per="unit"), mean_baseline(plain, [reference], per="unit")),
    ]
    for baseline, decoded in pairs:
        found, expected = (
            attribute(encoder, images, weights, rule=rule, baseline=b, node_fraction=0.01, sites=sites)
            for encoder, b in ((features, baseline), (plain, decoded))
        )
        for site in sites:
            total = found.node_scores[site].sum() + found.error_scores.get(site, np.zeros(1)).sum()
            assert total == pytest.approx(expected.node_scores[site].sum(), rel=1e-8, abs=1e-12)
            assert tuple(found.completeness[site]) == pytest.approx(
                tuple(expected.completeness[site]), rel=1e-8, abs=1e-12
            )
            if site in saes:
                assert abs(found.error_scores[site].sum()) > 1e-6 or site == plain.sites[-1]
            else:
                assert relative(found.node_scores[site], expected.node_scores[site]) < 1e-8


def test_any_cut_and_precision_gives_the_same() -> None:
    plain, saes, images, weights = setting("vit", "jumprelu", n=5)
    features = in_feature_basis(plain, saes)
    whole = attribute(features, images, weights, rule=left_rule(2))
    parts = attribute(features, [images[:2], images[2:]], weights, rule=left_rule(2), memory_gib=0.004)
    plain.tower.float()
    single = attribute(in_feature_basis(plain, saes), images.float(), weights.float(), rule=left_rule(2))
    # Not the edges in single precision: a layer norm undoes the scale of its input, and little but rounding is left.
    for other, tolerance, compared in ((parts, 1e-9, ("edge_scores",)), (single, 1e-4, ())):
        for arrays in ("node_scores", "error_scores", *compared):
            for key, values in getattr(whole, arrays).items():
                assert relative(getattr(other, arrays)[key], values) < tolerance


def test_autocast_ranks_alike() -> None:
    plain, saes, images, weights = setting("vit", "topk")
    plain.tower.float()
    features = in_feature_basis(plain, saes)
    exact, half = (
        attribute_parts(
            Task(features, images.float(), class_logit(weights.float(), 1), work=QUIET),
            AttributionSettings(rule=midpoint_rule(1), autocast=dtype),
            np.zeros(len(images), int),
        ).whole
        for dtype in (None, "bfloat16")
    )
    site = next(iter(saes))
    assert np.corrcoef(exact.node_scores[site], half.node_scores[site])[0, 1] > 0.95


def test_weights_of_autoencoders_are_not_memory_of_an_image() -> None:
    plain = Encoder.from_tower(make_tower("vit"))
    features = in_feature_basis(plain, {"proj": make_sae(16, factor=1000, dtype=torch.float)})
    of_latents = 4 * 16000  # bytes; one of the autoencoder's weights has 16 times as much
    assert of_latents < bytes_per_image(features) - bytes_per_image(plain) < 15 * of_latents


# --- circuits --------------------------------------------------------------------------------------------------------


def test_a_graph_knows_its_basis(tmp_path: Path) -> None:
    plain, saes, images, weights = setting("vit", "relu")
    site, *others = saes
    features = in_feature_basis(plain, {site: saes[site]})
    graphs = [attribute(encoder, images, weights, rule=left_rule(1)) for encoder in (plain, features)]
    assert [graph.settings["basis"] for graph in graphs] == [{}, {site: sae_digest(saes[site])}]
    assert graphs[0].settings["model_digest"] == graphs[1].settings["model_digest"]  # the same tower
    graphs[1].save(tmp_path / "graph.safetensors")
    assert AttributionGraph.load(tmp_path / "graph.safetensors").settings == graphs[1].settings
    both = in_feature_basis(features, {other: saes[other] for other in others})
    assert both.basis == {site: sae_digest(sae) for site, sae in saes.items()}


def test_only_latents_are_nodes(tmp_path: Path) -> None:
    plain, saes, images, weights = setting("resnet", "relu")
    features = in_feature_basis(plain, saes)
    graph = attribute(features, images, weights, node_fraction=1.0, rule=left_rule(1))
    for site, sae in saes.items():
        assert sorted(graph.kept_units[site]) == list(range(sae.n_features))
        assert graph.error_scores[site].shape == (sae.d,)
        assert graph.n_units(site) == sae.n_features + sae.d
    assert graph.n_units("act1") == 4
    assert f"{next(iter(saes))}/0" in graph.circuit().graph
    graph.save(tmp_path / "graph")
    stored = AttributionGraph.load(tmp_path / "graph")
    assert stored.error_scores.keys() == saes.keys()
    assert all(np.array_equal(stored.error_scores[site], graph.error_scores[site]) for site in saes)
    # Sites that were not asked for have no scores.
    some = attribute(features, images, weights, rule=left_rule(1), sites=("act1", "layer4.0"))
    assert (list(some.node_scores), list(some.error_scores)) == (["act1", "layer4.0"], [])


@pytest.mark.parametrize("name", ["resnet", "vit"])
def test_circuits_with_and_without_error(name: str) -> None:
    plain, saes, images, _ = setting(name, "relu")
    features = in_feature_basis(plain, saes)
    site, sae = next(iter(saes.items()))
    kept = [1, 4, 6]
    latents, error, _ = clean_by_hand(plain, sae, images, site)
    alone = torch.zeros_like(latents)
    alone[..., kept] = latents[..., kept]

    def embedded(x: Tensor) -> Tensor:
        with torch.no_grad():
            embedding: Tensor = plain(x.movedim(-1, plain.unit_dim(site)), start=site)
        return embedding

    circuit = {site: kept}
    task = Task(features, images, lambda e: e[:, 0], work=QUIET)
    found = kept_embeddings(task, [circuit, add_error_units(features, circuit), {}])
    expected = [embedded(decode_by_hand(sae, alone)), embedded(decode_by_hand(sae, alone) + error), plain(images)]
    for mine, theirs in zip(found, expected, strict=True):
        torch.testing.assert_close(mine, theirs, rtol=1e-9, atol=1e-9)
    channels = plain.sites[-2]
    assert add_error_units(features, {channels: [2]})[channels].tolist() == [2]


@pytest.mark.parametrize("keep_error", [False, True])
def test_ends_of_the_curve(keep_error: bool) -> None:
    plain, saes, images, _ = setting("vit", "relu", n=4)
    features = in_feature_basis(plain, saes)
    reference = torch.randn_like(images)
    baseline = mean_baseline(features, [reference])
    with torch.no_grad():
        direction = plain(images).mean(0) - plain(reference).mean(0)

    def metric(e: Tensor) -> Tensor:
        out: Tensor = e @ direction
        return out

    graph = circuitry.attribute(features, images, metric, rule=midpoint_rule(1), baseline=baseline, progress=False)
    task = Task(features, images, metric, baseline=baseline, work=QUIET)
    settings = AblationSettings(fractions=(0.1, 1.0), random_draws=2, keep_error=keep_error)
    curve = faithfulness_curve(task, graph, settings)
    with torch.no_grad():
        assert curve.full == pytest.approx(metric(plain(images)).numpy(), rel=1e-9)
    nothing: dict[str, list[int]] = {site: [] for site in graph.sites if site != "input"}
    everything = {site: range(len(graph.node_scores[site])) for site in nothing}
    all_nodes = add_error_units(features, everything) if keep_error else everything
    kept = metric(kept_embeddings(task, [all_nodes])[0]).numpy()
    empty = metric(kept_embeddings(task, [nothing])[0]).numpy()
    assert curve.empty == pytest.approx(empty, rel=1e-9)
    assert curve.kept[-1] == pytest.approx(kept, rel=1e-9)
    assert curve.random[:, -1] == pytest.approx(np.stack([kept, kept]), rel=1e-9)
    assert curve.n_units[-1] == sum(len(graph.node_scores[site]) for site in nothing)
    assert curve.settings["keep_error"] is keep_error
    if keep_error:
        assert (curve.faithfulness[-1], curve.completeness[-1]) == (1, 0)
    else:  # what the latents explain, and what is left to the error
        assert not np.isclose(curve.faithfulness[-1], 1)
        error_units = {site: features.error_units.get(site, ()) for site in nothing}
        left = metric(kept_embeddings(task, [error_units])[0]).numpy()
        assert curve.complement[-1] == pytest.approx(left, rel=1e-9)


def test_transfer_keeps_the_error_where_told() -> None:
    plain, saes, images, weights = setting("vit", "relu")
    features = in_feature_basis(plain, saes)
    graph = replace(
        attribute(features, images, weights, node_fraction=1.0, rule=left_rule(1)), class_name="a", domain="x"
    )
    key = ("a", "x")

    def row(keep_error: bool) -> Any:
        tasks = {key: Task(features, images, class_logit(weights, 1), work=QUIET)}
        return transfer_circuits(tasks, {key: graph}, ClassScorer(weights, {"a": 1}), keep_error=keep_error).iloc[0]

    assert row(True)["metric"] == row(True)["full_metric"] == pytest.approx(row(False)["full_metric"])
    assert row(False)["metric"] != pytest.approx(row(False)["full_metric"])
    with torch.no_grad():
        assert row(False)["full_metric"] == pytest.approx(float(class_logit(weights, 1)(plain(images)).mean()))


def test_a_model_in_a_basis_has_its_own_digest(clip: Clip, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    one, other = make_sae(256, dtype=torch.float), make_sae(256, dtype=torch.float)
    features = clip.in_basis({"layer4.0": one})
    assert features.encoder.error_units == {"layer4.0": range(512, 768)}
    digests = {
        clip.digest,
        features.digest,
        clip.in_basis({"layer4.0": other}).digest,
        features.in_basis({"attnpool": make_sae(16, dtype=torch.float)}).digest,
        clip.in_basis({"layer4.0": replace(one, normalised=True)}).digest,
    }
    assert len(digests) == 5
    assert clip.in_basis({"layer4.0": replace(one, about={"steps": 3}, site="layer4.0")}).digest == features.digest
    assert sae_digest(one) != sae_digest(replace(one, subtract_decoder_bias=False))
    assert clip.in_basis({}).digest == clip.digest
    # The text side is the same model's: its weights are not made again.
    weights = clip.text_weights(["axe"], ["a {}."], cache_dir=tmp_path)
    monkeypatch.setattr(Clip, "_encode", None)
    assert torch.equal(features.text_weights(["axe"], ["a {}."], cache_dir=tmp_path), weights)


# --- bad input -------------------------------------------------------------------------------------------------------


def test_bad_input_is_refused(resnet: Any, tmp_path: Path) -> None:
    encoder = Encoder.from_tower(resnet)
    sae = make_sae(64, dtype=torch.float)
    with pytest.raises(InputError, match=r"'layer9\.0'.*input, act1"):
        in_feature_basis(encoder, {"layer9.0": sae})
    with pytest.raises(InputError, match="'input'"):
        in_feature_basis(encoder, {"input": make_sae(3)})
    with pytest.raises(InputError, match=r"'layer3\.0' .*128 .*64"):
        in_feature_basis(encoder, {"layer3.0": sae})
    with pytest.raises(InputError, match=r"'layer2\.0' is of 'layer2\.1'"):
        in_feature_basis(encoder, {"layer2.0": replace(sae, site="layer2.1")})
    features = in_feature_basis(encoder, {"layer2.0": replace(sae, site="layer2.0")})
    with pytest.raises(InputError, match=r"'layer2\.0'"):
        in_feature_basis(features, {"layer2.0": sae})


def test_autoencoders_on_a_command_line(tmp_path: Path) -> None:
    sae = make_sae(3, "jumprelu")
    sae.save(tmp_path / "a=b")
    found = parse_saes([f"layer2.0={tmp_path}/a=b"])
    assert list(found) == ["layer2.0"]
    assert sae_digest(found["layer2.0"]) == sae_digest(sae)
    assert parse_saes([]) == {}
    for wrong in ("layer2.0", "=x", "layer2.0="):
        with pytest.raises(InputError, match=f"SITE=PATH.*'{wrong}'"):
            parse_saes([wrong])
    with pytest.raises(InputError, match="another one of that site"):
        parse_saes([f"x={tmp_path}/a=b"] * 2)
