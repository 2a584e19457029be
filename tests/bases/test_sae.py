"""Sparse autoencoders against formulas in numpy, files of this package and in SAELens' layout, and the refusals.

Layouts of others are in `test_released_saes`.
"""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.numpy import save_file
from torch import Tensor

from circuitry import InputError
from circuitry.bases import SparseAutoencoder
from circuitry.models import load_sae

D, FEATURES = 6, 10
KINDS: dict[str, dict[str, Any]] = {
    "relu": {},
    "jumprelu": {"activation": "jumprelu", "threshold": torch.linspace(-0.2, 1.0, FEATURES, dtype=torch.float64)},
    "topk": {"activation": "topk", "k": 3},
    "signed-topk": {"activation": "signed-topk", "k": 6},
    "capped": {"soft_cap": 0.7},
}
NORMALISATIONS = (None, "length", "layer-norm")


def small_sae(kind: str = "relu", **more: Any) -> SparseAutoencoder:
    """A random autoencoder in double precision."""
    generator = torch.Generator().manual_seed(1)
    shapes = ((D, FEATURES), (FEATURES,), (FEATURES, D), (D,))
    w_enc, b_enc, w_dec, b_dec = (torch.randn(*s, generator=generator, dtype=torch.float64) for s in shapes)
    return SparseAutoencoder(w_enc, b_enc, w_dec, b_dec, **KINDS[kind], **more)


def inputs(*batch: int) -> Tensor:
    return torch.randn(*batch, D, generator=torch.Generator().manual_seed(2), dtype=torch.float64)


def by_numpy(sae: SparseAutoencoder, x: Tensor) -> tuple[np.ndarray, np.ndarray]:
    """Features and reconstruction of vectors [n, d], one at a time."""
    w_enc, b_enc, w_dec, b_dec = (w.numpy() for w in (sae.w_enc, sae.b_enc, sae.w_dec, sae.b_dec))
    rows = []
    for v in x.numpy():
        v = v / np.linalg.norm(v) if sae.normalised == "length" else v
        v = (v - v.mean()) / (v.std(ddof=1) + 1e-5) if sae.normalised == "layer-norm" else v
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


# Encoding


@pytest.mark.parametrize("subtract", [True, False])
@pytest.mark.parametrize("normalised", NORMALISATIONS)
@pytest.mark.parametrize("kind", list(KINDS))
def test_encode_and_decode_are_the_formulas(kind: str, normalised: Any, subtract: bool) -> None:
    sae = small_sae(kind, normalised=normalised, subtract_decoder_bias=subtract)
    x = inputs(7)
    features, reconstruction = by_numpy(sae, x)
    np.testing.assert_allclose(sae.encode(x).numpy(), features, atol=1e-12)
    np.testing.assert_allclose(sae.decode(sae.encode(x)).numpy(), reconstruction, atol=1e-12)
    assert 0 < (features > 0).sum() < features.size


@pytest.mark.parametrize("kind", list(KINDS))
def test_any_number_of_batch_axes(kind: str) -> None:
    sae, x = small_sae(kind), inputs(2, 3, 4)
    assert sae.encode(x).shape == (2, 3, 4, FEATURES)
    for index in np.ndindex(2, 3, 4):
        torch.testing.assert_close(sae.encode(x)[index], sae.encode(x[index]))


@pytest.mark.parametrize("normalised", NORMALISATIONS)
@pytest.mark.parametrize("kind", list(KINDS))
def test_encoding_is_differentiable(kind: str, normalised: Any) -> None:
    sae = small_sae(kind, normalised=normalised)
    assert torch.autograd.gradcheck(lambda x: sae.decode(sae.encode(x)), inputs(3).requires_grad_())


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 10_000), st.floats(0.1, 100))
def test_laws_of_the_features(seed: int, length: float) -> None:
    x = torch.randn(5, D, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    for kind in ("relu", "jumprelu", "topk"):
        features = small_sae(kind).encode(x)
        assert bool((features >= 0).all())
        relu = small_sae().encode(x)
        assert torch.equal(features, torch.where(features > 0, relu, 0))  # the others only put features to zero
    assert int((small_sae("topk").encode(x) > 0).sum(-1).max()) <= 3
    assert bool((small_sae("capped").encode(x) <= 0.7).all())
    scaled = small_sae(normalised="length")
    torch.testing.assert_close(scaled.encode(length * x), scaled.encode(x))
    scaled = small_sae(normalised="layer-norm")
    torch.testing.assert_close(scaled.encode(length * x + 3), scaled.encode(x), rtol=1e-3, atol=1e-3)


def test_another_type_and_the_widths() -> None:
    sae = small_sae("jumprelu", site="layer4").to(dtype=torch.float32)
    assert sae.encode(inputs(2).float()).dtype == torch.float32
    assert (sae.d, sae.n_features, sae.site) == (D, FEATURES, "layer4")
    assert sae.threshold is not None
    assert sae.threshold.dtype == torch.float32


# Files of this package


@pytest.mark.parametrize("kind", list(KINDS))
def test_saved_and_loaded_it_is_the_same(kind: str, tmp_path: Path) -> None:
    about = {"training": {"l1": 0.1}}
    sae = small_sae(kind, normalised="length", subtract_decoder_bias=False, site="attnpool", about=about)
    sae.save(tmp_path / "sae.safetensors")
    loaded = load_sae(tmp_path / "sae.safetensors")
    assert torch.equal(loaded.encode(inputs(4)), sae.encode(inputs(4)))
    assert torch.equal(loaded.w_dec, sae.w_dec)
    assert (loaded.site, loaded.about, loaded.k) == ("attnpool", about, sae.k)
    assert [path.name for path in tmp_path.iterdir()] == ["sae.safetensors"]


def test_bfloat16_is_saved_exactly(tmp_path: Path) -> None:
    sae = small_sae().to(dtype=torch.bfloat16)
    sae.save(tmp_path / "sae.safetensors")
    assert torch.equal(load_sae(tmp_path / "sae.safetensors").w_enc, sae.w_enc.float())


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"b_enc": torch.zeros(D)}, r"b_enc.*\[6\]"),
        ({"threshold": torch.zeros(FEATURES)}, "threshold.*jumprelu.*relu"),
        ({"activation": "jumprelu"}, "jumprelu was given none"),
        ({"activation": "topk"}, "k=None"),
        ({"activation": "topk", "k": FEATURES + 1}, "k=11"),
        ({"k": 3}, "relu was given k=3"),
    ],
)
def test_weights_that_do_not_fit_are_refused(unchecked: None, change: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        replace(small_sae(), **change)


def test_inputs_of_another_width_are_refused() -> None:
    with pytest.raises(InputError, match=r"layer4 .* 6, .*\[2, 5\]"):
        small_sae(site="layer4").encode(torch.zeros(2, 5))


# SAELens' layout

Weights = dict[str, Any]
Formula = Callable[[Weights, np.ndarray], np.ndarray]
V6 = {"d_in": D, "d_sae": FEATURES, "dtype": "float32", "normalize_activations": "none", "apply_b_dec_to_input": True}


def written(folder: Path, config: dict[str, Any], **more: np.ndarray) -> Weights:
    """Write a folder as SAELens does, and return its weights in double precision."""
    rng = np.random.default_rng(3)
    shapes = {"W_enc": (D, FEATURES), "b_enc": (FEATURES,), "W_dec": (FEATURES, D), "b_dec": (D,)}
    weights = {name: rng.normal(size=shape).astype(np.float32) for name, shape in shapes.items()} | more
    save_file(weights, folder / "sae_weights.safetensors")
    (folder / "cfg.json").write_text(json.dumps(config))
    return {name: weight.astype(np.float64) for name, weight in weights.items()}


def encoded(weights: Weights, x: np.ndarray, *, bias: bool = True) -> np.ndarray:
    """Pre-activations as SAELens computes them."""
    before: np.ndarray = (x - bias * weights["b_dec"]) @ weights["W_enc"] + weights["b_enc"]
    return before


def keep_largest(before: np.ndarray, k: int) -> np.ndarray:
    kept: np.ndarray = np.maximum(before, 0)
    for row in kept:
        row[np.argsort(row)[:-k]] = 0
    return kept


def assert_encodes(folder: Path, expected: Formula, weights: Weights) -> None:
    sae = load_sae(folder)
    x = inputs(9).float()
    found = sae.encode(x)
    np.testing.assert_allclose(found.numpy(), expected(weights, x.numpy().astype(np.float64)), atol=2e-5)
    assert 0 < int((found > 0).sum()) < found.numel()


def test_a_standard_one_of_version_6(tmp_path: Path) -> None:
    config = V6 | {"architecture": "standard", "metadata": {"hook_name": "blocks.9.hook_mlp_out", "model_name": "x"}}
    weights = written(tmp_path, config)
    assert_encodes(tmp_path, lambda w, x: np.maximum(encoded(w, x), 0), weights)
    sae = load_sae(tmp_path)
    assert (sae.activation, sae.site, sae.normalised) == ("relu", "blocks.9.hook_mlp_out", None)
    np.testing.assert_array_equal(sae.w_dec.numpy(), weights["W_dec"].astype(np.float32))
    assert (sae.about["reader"], sae.about["config"]["model_name"]) == ("SAELens", "x")


def test_an_old_one_with_its_own_names(tmp_path: Path) -> None:
    config = {"hook_point": "blocks.1", "activation_fn": "relu", "apply_b_dec_to_input": False}
    config |= {"normalize_activations": False}
    weights = written(tmp_path, config, scaling_factor=np.ones(FEATURES, np.float32))
    assert_encodes(tmp_path, lambda w, x: np.maximum(encoded(w, x, bias=False), 0), weights)
    assert load_sae(tmp_path).site == "blocks.1"


def test_jumprelu(tmp_path: Path) -> None:
    threshold = np.linspace(0, 1.5, FEATURES, dtype=np.float32)
    weights = written(tmp_path, V6 | {"architecture": "jumprelu"}, threshold=threshold)

    def expected(w: Weights, x: np.ndarray) -> np.ndarray:
        before = encoded(w, x)
        before[before <= np.maximum(w["threshold"], 0)] = 0
        return before

    assert_encodes(tmp_path, expected, weights)
    assert load_sae(tmp_path).site is None


@pytest.mark.parametrize(
    "config",
    [V6 | {"architecture": "topk", "k": 2}, V6 | {"activation_fn_str": "topk", "activation_fn_kwargs": {"k": 2}}],
    ids=["version 6", "before"],
)
def test_topk(config: dict[str, Any], tmp_path: Path) -> None:
    weights = written(tmp_path, config)
    assert_encodes(tmp_path, lambda w, x: keep_largest(encoded(w, x), 2), weights)


def test_a_decoder_that_counts_as_normalised_is_folded_in(tmp_path: Path) -> None:
    config = V6 | {"architecture": "topk", "k": 2, "rescale_acts_by_decoder_norm": True}
    weights = written(tmp_path, config)
    norms = np.linalg.norm(weights["W_dec"], axis=1)
    assert_encodes(tmp_path, lambda w, x: keep_largest(encoded(w, x) * norms, 2), weights)
    sae = load_sae(tmp_path)
    features = sae.encode(inputs(4).float())
    expected = (features.numpy() / norms) @ weights["W_dec"] + weights["b_dec"]
    np.testing.assert_allclose(sae.decode(features).numpy(), expected, atol=2e-5)


def test_inputs_scaled_to_constant_length_are_folded_in(tmp_path: Path) -> None:
    weights = written(tmp_path, V6 | {"architecture": "standard", "normalize_activations": "constant_norm_rescale"})

    def expected(w: Weights, x: np.ndarray) -> np.ndarray:
        return keep_largest(encoded(w, x * np.sqrt(D) / np.linalg.norm(x, axis=1, keepdims=True)), FEATURES)

    assert_encodes(tmp_path, expected, weights)
    sae, x = load_sae(tmp_path), inputs(4).float()
    decoded = sae.decode(sae.encode(x)) * x.norm(dim=1, keepdim=True)  # SAELens gives back the length of the input
    theirs = expected(weights, x.numpy()) @ weights["W_dec"] + weights["b_dec"]
    np.testing.assert_allclose(decoded.numpy(), theirs * x.norm(dim=1, keepdim=True).numpy() / np.sqrt(D), atol=2e-5)


@pytest.mark.parametrize(
    ("config", "more", "message"),
    [
        ({"architecture": "temporal"}, {}, "architecture 'temporal', which is not supported"),
        ({"activation_fn": "tanh-relu"}, {}, "the activation 'tanh-relu'"),
        ({"normalize_activations": "covariance_whitening"}, {}, "normalised by 'covariance_whitening'"),
        (
            {"architecture": "transcoder", "normalize_activations": "layer_norm"},
            {},
            "transcoder .*'layer_norm'",
        ),
        ({"normalize_activations": True}, {}, "normalised by 'expected_average_only_in'"),
        ({}, {"scaling_factor": np.full(FEATURES, 2, np.float32)}, "with a scaling_factor for its features"),
    ],
)
def test_other_kinds_are_refused(config: dict[str, Any], more: Weights, message: str, tmp_path: Path) -> None:
    written(tmp_path, V6 | config, **more)
    with pytest.raises(InputError, match=message):
        load_sae(tmp_path)


def test_folders_of_something_else_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"cfg.json"):
        load_sae(tmp_path)
    save_file({"W_enc": np.zeros((2, 2), np.float32)}, tmp_path / "sae_weights.safetensors")
    with pytest.raises(InputError, match=r"cfg.json"):
        load_sae(tmp_path)
    (tmp_path / "cfg.json").write_text('{"architecture": "standard"}')
    with pytest.raises(InputError, match="lacks W_dec, b_dec"):
        load_sae(tmp_path)
