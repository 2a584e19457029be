"""Sparse autoencoders against formulas in numpy, and the refusals; `test_released_saes` reads the files of others."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
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
def test_weights_that_do_not_fit_are_refused(unchecked: None, change: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        replace(small_sae(), **change)
    with pytest.raises(InputError, match=r"layer4 .* 6, .*\[2, 5\]"):
        small_sae(site="layer4").encode(torch.zeros(2, 5))
