"""Sparse autoencoders with random weights at sites of small towers, and what they compute, by hand."""

from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

import circuitry
from circuitry import AttributionGraph, Encoder, class_logit
from circuitry.bases import SparseAutoencoder
from tests.support.towers import make_tower
from tests.support.work import AS_STUDIED

KINDS = ("relu", "jumprelu", "topk", "normalised", "layer-normed")
"""Activations, and relu on inputs scaled to length one, or to mean zero and deviation one."""


def make_sae(
    d: int, kind: str = "relu", factor: int = 2, dtype: torch.dtype = torch.double
) -> SparseAutoencoder:
    """Random weights that miss a good part of their input; nothing is zero."""
    n = factor * d
    w_enc = torch.randn(d, n, dtype=dtype) / d**0.5
    w_dec = torch.randn(n, d, dtype=dtype) / n**0.5
    b_enc = 0.1 * torch.randn(n, dtype=dtype)
    b_dec = 0.3 * torch.randn(d, dtype=dtype)
    special: dict[str, dict[str, Any]] = {
        "relu": {},
        "jumprelu": {
            "activation": "jumprelu",
            "threshold": 0.1 + 0.1 * torch.rand(n, dtype=dtype),
        },
        "topk": {"activation": "topk", "k": max(1, n // 4)},
        "normalised": {"normalised": "length", "subtract_decoder_bias": False},
        "layer-normed": {"normalised": "layer-norm"},
    }
    return SparseAutoencoder(w_enc, b_enc, w_dec, b_dec, **special[kind])


def beside_by_hand(sae: SparseAutoencoder, x: Tensor) -> Tensor:
    """What normalising takes away, units last: the length; the deviation and the mean; else nothing."""
    if sae.normalised == "length":
        return x.square().sum(-1, keepdim=True).sqrt()
    mean = x.sum(-1, keepdim=True) / sae.d
    deviation = ((x - mean).square().sum(-1, keepdim=True) / (sae.d - 1)).sqrt()
    return torch.cat([deviation, mean], -1) if sae.normalised else x[..., :0]


def encode_by_hand(sae: SparseAutoencoder, x: Tensor) -> Tensor:
    """Units last. Latents in the scale of x, so those of normalised inputs times the length or deviation of x."""
    beside = beside_by_hand(sae, x)
    scale = beside[..., :1] if sae.normalised else torch.ones_like(x[..., :1])
    inner = (
        (x - beside[..., 1:]) / (scale + 1e-5)
        if sae.normalised == "layer-norm"
        else x / scale
    )
    inner = inner - (sae.b_dec if sae.subtract_decoder_bias else 0)
    pre = torch.einsum("...d,df->...f", inner, sae.w_enc) + sae.b_enc
    threshold = (
        sae.threshold if sae.threshold is not None else torch.zeros_like(sae.b_enc)
    )
    if sae.k is not None:
        threshold = pre.sort(-1).values[..., [-sae.k - 1]].clamp(min=0)
    return torch.where(pre > threshold, pre, torch.zeros_like(pre)) * scale


def decode_by_hand(sae: SparseAutoencoder, latents: Tensor, beside: Tensor) -> Tensor:
    scale = beside[..., :1] if sae.normalised else 1.0
    mean = beside[..., 1:2] if sae.normalised == "layer-norm" else 0.0
    return torch.einsum("...f,fd->...d", latents, sae.w_dec) + scale * sae.b_dec + mean


def setting(
    name: str, kind: str, n: int = 3
) -> tuple[Encoder, dict[str, SparseAutoencoder], Tensor, Tensor]:
    """A tower in double precision; autoencoders at two consecutive sites and at the last one; images and weights."""
    encoder = Encoder.from_tower(make_tower(name).double())
    images = torch.randn(n, 3, *encoder.image_size, dtype=torch.double)
    sites = (*encoder.sites[-4:-2], encoder.sites[-1])
    with torch.no_grad():
        _, cache = encoder.run_with_cache(images)
    saes = {
        site: make_sae(cache[site].shape[encoder.unit_dim(site)], kind)
        for site in sites
    }
    return (
        encoder,
        saes,
        images,
        F.normalize(torch.randn(4, 16, dtype=torch.double), dim=-1),
    )


def attribute(
    encoder: Encoder, images: Tensor | list[Tensor], weights: Tensor, **settings: object
) -> AttributionGraph:
    return circuitry.attribute(
        encoder,
        images,
        class_logit(weights, 1),
        progress=False,
        **(AS_STUDIED | settings),
    )


def relative(found: np.ndarray, expected: np.ndarray) -> float:
    assert found.shape == expected.shape
    return float(np.linalg.norm(found - expected) / np.linalg.norm(expected))


def clean_by_hand(
    plain: Encoder, sae: SparseAutoencoder, images: Tensor, site: str
) -> tuple[Tensor, Tensor, Tensor]:
    """Return latents, error and what normalising takes away, units last."""
    with torch.no_grad():
        x = plain(images, stop=site).movedim(plain.unit_dim(site), -1)
        latents = encode_by_hand(sae, x)
        beside = beside_by_hand(sae, x)
        return latents, x - decode_by_hand(sae, latents, beside), beside
