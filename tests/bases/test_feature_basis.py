"""Sparse autoencoders against formulas in numpy, and their latents as units of a tower."""

from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from circuitry import Clip, Encoder, InputError, in_feature_basis
from circuitry.bases import SparseAutoencoder
from circuitry.encoder import Stage
from circuitry.encoder.narrowing import narrow_stage
from circuitry.models import load_sae, parse_saes
from tests.support.feature_bases import (
    KINDS,
    beside_by_hand,
    decode_by_hand,
    encode_by_hand,
    make_sae,
    setting,
)


@pytest.mark.parametrize(
    ("kind", "dtype", "tolerance"),
    [*((kind, torch.double, 1e-11) for kind in KINDS), ("relu", torch.float, 1e-4)],
)
@pytest.mark.parametrize("name", ["resnet", "vit", "swin", "convnext", "timm-vit"])
def test_outputs_are_those_of_the_tower(
    name: str, kind: str, dtype: torch.dtype, tolerance: float
) -> None:
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
                sae, units = (
                    saes[site].to(dtype=dtype),
                    cache[site].movedim(plain.unit_dim(site), -1),
                )
                x = x.movedim(plain.unit_dim(site), -1)
                latents = encode_by_hand(sae, x)
                assert (latents > 0).any()
                beside = beside_by_hand(sae, x)
                error = x - decode_by_hand(sae, latents, beside)
                assert error.norm() > 0.1 * x.norm()
                parts = torch.cat([latents, error, beside], -1)
                torch.testing.assert_close(
                    units, parts, rtol=tolerance, atol=10 * tolerance
                )
                assert features.error_units[site] == range(
                    sae.n_features, units.shape[-1]
                )
            else:
                torch.testing.assert_close(
                    cache[site], x, rtol=tolerance, atol=tolerance
                )
            partial = features(cache[site], start=site)
            torch.testing.assert_close(
                partial, embedding, rtol=tolerance, atol=tolerance
            )
        first, second = list(saes)[:2]
        torch.testing.assert_close(
            features(cache[first], start=first, stop=second),
            cache[second],
            rtol=tolerance,
            atol=10 * tolerance,
        )
        with features.fast():
            torch.testing.assert_close(
                features(images), embedding, rtol=tolerance, atol=tolerance
            )
    assert features.tower is plain.tower
    assert list(features.error_units) == list(saes)
    assert plain.error_units == {}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", ["resnet", "vit"])
def test_narrow_stages_equal_whole_ones(name: str, kind: str) -> None:
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
        for rows, columns in (
            (torch.tensor([2, 0, 1]), strongest),
            (last_units, with_last),
        ):
            delta = torch.randn_like(x.index_select(dims[0], rows)).requires_grad_()
            found = stage.narrow(rows, columns)(x, delta)
            expected = narrow_stage(stage.run, rows, columns, *dims)(x, delta)
            torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-9)
            cotangents = torch.randn(2, *found.shape, dtype=torch.double)
            mine, theirs = (
                torch.autograd.grad(z, delta, cotangents, is_grads_batched=True)[0]
                for z in (found, expected)
            )
            assert theirs.abs().max() > 1e-3
            torch.testing.assert_close(mine, theirs, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("kind", ["relu", "normalised", "layer-normed"])
@pytest.mark.parametrize(
    ("tokens", "first", "end"), [("class", 0, 1), ("patches", 1, 17)]
)
def test_of_some_tokens_alone(kind: str, tokens: Any, first: int, end: int) -> None:
    """Elsewhere there are no latents, and the error is the activation."""
    plain, saes, images, _ = setting("vit", kind)
    up, down = plain.sites[-3:-1]
    saes = {site: replace(make_sae(32, kind), tokens=tokens) for site in (up, down)}
    features = in_feature_basis(plain, saes)
    with torch.no_grad():
        torch.testing.assert_close(
            features(images), plain(images), rtol=1e-11, atol=1e-11
        )
        for site, sae in saes.items():
            x, units = plain(images, stop=site), features(images, stop=site)
            acts = torch.zeros(17, 1, dtype=torch.double)
            acts[first:end] = 1
            latents, beside = acts * encode_by_hand(sae, x), beside_by_hand(sae, x)
            error = x - acts * decode_by_hand(sae, encode_by_hand(sae, x), beside)
            beside = acts * (beside if sae.normalised else torch.ones_like(x[..., :1]))
            torch.testing.assert_close(
                units, torch.cat([latents, error, beside], -1), rtol=1e-10, atol=1e-10
            )
            assert torch.equal(error[:, acts[:, 0] == 0], x[:, acts[:, 0] == 0])
    stage = features.stages[features.position(down) - 1]
    assert stage.narrow is not None
    x = features(images, stop=up)
    alive = features(images, stop=down).abs().sum((0, 1)).topk(3).indices
    for rows, columns in (
        (alive, alive),
        (torch.tensor([1, x.shape[-1] - 1]), torch.tensor([2, 70])),
    ):
        delta = torch.randn_like(x[..., rows])
        found, whole = (
            stage.narrow(rows, columns)(x, delta),
            narrow_stage(stage.run, rows, columns, -1, -1)(x, delta),
        )
        torch.testing.assert_close(found, whole, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("kind", ["normalised", "layer-normed"])
def test_a_blank_activation_has_finite_gradients(kind: str) -> None:
    encoder = Encoder(nn.Linear(1, 1), (Stage("x", lambda x: x.flatten(1), 1),), (1, 1))
    features = in_feature_basis(encoder, {"x": make_sae(3, kind, dtype=torch.float)})
    x = torch.zeros(1, 3, 1, 1, requires_grad=True)
    y = features(x)
    assert torch.equal(y, torch.zeros(1, 3))
    (gradient,) = torch.autograd.grad(y.sum(), x)
    assert gradient.flatten().tolist() == pytest.approx([1, 1, 1], abs=1e-5)


def test_a_model_in_a_basis_has_its_own_digest(
    clip: Clip, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    one, other = make_sae(256, dtype=torch.float), make_sae(256, dtype=torch.float)
    features = clip.in_basis({"layer4.0": one})
    assert features.encoder.error_units == {"layer4.0": range(512, 768)}
    digests = {
        clip.digest,
        features.digest,
        clip.in_basis({"layer4.0": other}).digest,
        features.in_basis({"attnpool": make_sae(16, dtype=torch.float)}).digest,
        clip.in_basis({"layer4.0": replace(one, normalised="length")}).digest,
    }
    assert len(digests) == 5
    assert (
        clip.in_basis(
            {"layer4.0": replace(one, about={"steps": 3}, site="layer4.0")}
        ).digest
        == features.digest
    )
    assert one.identity != replace(one, subtract_decoder_bias=False).identity
    assert clip.in_basis({}).digest == clip.digest
    # The text side is the same model's: its weights are not made again.
    weights = clip.text_weights(["axe"], ["a {}."], cache_dir=tmp_path)
    monkeypatch.setattr(Clip, "_encode", None)
    assert torch.equal(
        features.text_weights(["axe"], ["a {}."], cache_dir=tmp_path), weights
    )


def test_bad_input_is_refused(resnet: Any, tmp_path: Path) -> None:
    encoder = Encoder.from_tower(resnet)
    sae = make_sae(64, dtype=torch.float)
    with pytest.raises(InputError, match=r"'layer9\.0'.*layer1\.0"):
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
    assert found["layer2.0"].identity == sae.identity
    assert parse_saes([]) == {}
    for wrong in ("layer2.0", "=x", "layer2.0="):
        with pytest.raises(InputError, match=f"SITE=PATH.*'{wrong}'"):
            parse_saes([wrong])
    with pytest.raises(InputError, match="another one of that site"):
        parse_saes([f"x={tmp_path}/a=b"] * 2)


D, FEATURES = 6, 10
ACTIVATIONS: dict[str, dict[str, Any]] = {
    "relu": {},
    "jumprelu": {
        "activation": "jumprelu",
        "threshold": torch.linspace(-0.2, 1.0, FEATURES, dtype=torch.float64),
    },
    "topk": {"activation": "topk", "k": 3},
    "signed-topk": {"activation": "signed-topk", "k": 6},
    "capped": {"soft_cap": 0.7},
}
NORMALISATIONS = (None, "length", "layer-norm")


def small_sae(kind: str = "relu", **more: Any) -> SparseAutoencoder:
    generator = torch.Generator().manual_seed(1)
    shapes = ((D, FEATURES), (FEATURES,), (FEATURES, D), (D,))
    w_enc, b_enc, w_dec, b_dec = (
        torch.randn(*s, generator=generator, dtype=torch.float64) for s in shapes
    )
    return SparseAutoencoder(w_enc, b_enc, w_dec, b_dec, **ACTIVATIONS[kind], **more)


def inputs(*batch: int) -> Tensor:
    return torch.randn(
        *batch, D, generator=torch.Generator().manual_seed(2), dtype=torch.float64
    )


def by_numpy(sae: SparseAutoencoder, x: Tensor) -> tuple[np.ndarray, np.ndarray]:
    """Features and reconstruction of vectors [n, d], one at a time."""
    w_enc, b_enc, w_dec, b_dec = (
        w.numpy() for w in (sae.w_enc, sae.b_enc, sae.w_dec, sae.b_dec)
    )
    rows = []
    for v in x.numpy():
        v = v / np.linalg.norm(v) if sae.normalised == "length" else v
        v = (
            (v - v.mean()) / (v.std(ddof=1) + 1e-5)
            if sae.normalised == "layer-norm"
            else v
        )
        before = (v - b_dec if sae.subtract_decoder_bias else v) @ w_enc + b_enc
        f = np.maximum(before, 0)
        if sae.activation == "jumprelu":
            assert sae.threshold is not None
            f[before <= sae.threshold.numpy()] = 0
        if sae.activation in ("topk", "signed-topk"):
            f = before if sae.activation == "signed-topk" else f
            f[np.argsort(before)[: len(before) - (sae.k or 0)]] = 0
        if sae.soft_cap is not None:
            f = sae.soft_cap * np.tanh(f / sae.soft_cap)
        rows.append(f)
    return np.array(rows), np.array(rows) @ w_dec + b_dec


@pytest.mark.parametrize("subtract", [True, False])
@pytest.mark.parametrize("normalised", NORMALISATIONS)
@pytest.mark.parametrize("kind", list(ACTIVATIONS))
def test_encode_and_decode_are_the_formulas(
    kind: str, normalised: Any, subtract: bool
) -> None:
    sae = small_sae(kind, normalised=normalised, subtract_decoder_bias=subtract)
    x = inputs(7)
    features, reconstruction = by_numpy(sae, x)
    np.testing.assert_allclose(sae.encode(x).numpy(), features, atol=1e-12)
    np.testing.assert_allclose(
        sae.decode(sae.encode(x)).numpy(), reconstruction, atol=1e-12
    )
    assert 0 < (features > 0).sum() < features.size


@pytest.mark.parametrize("normalised", NORMALISATIONS)
@pytest.mark.parametrize("kind", list(ACTIVATIONS))
def test_encoding_is_differentiable(kind: str, normalised: Any) -> None:
    sae = small_sae(kind, normalised=normalised)
    assert torch.autograd.gradcheck(
        lambda x: sae.decode(sae.encode(x)), inputs(3).requires_grad_()
    )


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 10_000), st.floats(0.1, 100))
def test_laws_of_the_features(seed: int, length: float) -> None:
    x = torch.randn(
        5, D, generator=torch.Generator().manual_seed(seed), dtype=torch.float64
    )
    for kind in ("relu", "jumprelu", "topk"):
        features = small_sae(kind).encode(x)
        assert bool((features >= 0).all())
        relu = small_sae().encode(x)
        assert torch.equal(
            features, torch.where(features > 0, relu, 0)
        )  # the others only put features to zero
    assert int((small_sae("topk").encode(x) > 0).sum(-1).max()) <= 3
    assert bool((small_sae("capped").encode(x) <= 0.7).all())
    scaled = small_sae(normalised="length")
    torch.testing.assert_close(scaled.encode(length * x), scaled.encode(x))
    scaled = small_sae(normalised="layer-norm")
    torch.testing.assert_close(
        scaled.encode(length * x + 3), scaled.encode(x), rtol=1e-3, atol=1e-3
    )


def test_bfloat16_is_saved_exactly(tmp_path: Path) -> None:
    sae = small_sae().to(dtype=torch.bfloat16)
    sae.save(tmp_path / "sae.safetensors")
    assert torch.equal(load_sae(tmp_path / "sae.safetensors").w_enc, sae.w_enc.float())


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"b_enc": torch.zeros(D)}, r"b_enc.*\[6\]"),
        ({"activation": "jumprelu"}, "jumprelu was given none"),
        ({"activation": "topk", "k": FEATURES + 1}, "k=11"),
        ({"k": 3}, "relu was given k=3"),
    ],
)
def test_weights_that_do_not_fit_are_refused(
    unchecked: None, change: dict[str, Any], message: str
) -> None:
    with pytest.raises(InputError, match=message):
        replace(small_sae(), **change)
    with pytest.raises(InputError, match=r"layer4 .* 6, .*\[2, 5\]"):
        small_sae(site="layer4").encode(torch.zeros(2, 5))
