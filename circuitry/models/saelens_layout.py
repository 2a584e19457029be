"""SAELens' layout: a folder with cfg.json and sae_weights.safetensors, of versions 2 to 6.

Inputs and features are scaled there in several ways: linear ones are folded into the weights, the others are refused.
"""

from dataclasses import replace
from typing import Any, TypeVar

import torch
from torch import Tensor

from circuitry.bases.sae import SparseAutoencoder, Transcoder, gate_threshold
from circuitry.models.sae_files import SaeFile

Sae = TypeVar("Sae", bound=SparseAutoencoder)

WEIGHTS_FILE = "sae_weights.safetensors"
ACTIVATIONS = {
    "standard": "relu",
    "gated": "jumprelu",
    "jumprelu": "jumprelu",
    "topk": "topk",
    "batchtopk": "jumprelu",
    "matryoshka_batchtopk": "jumprelu",
}
"""Ours by architecture, without the words ``skip`` and ``transcoder``."""
THRESHOLDS = {"jumprelu": "threshold", "batchtopk": "topk_threshold", "matryoshka_batchtopk": "topk_threshold"}
"""The weight that is the threshold, one for all features or one for each."""


def is_saelens(file: SaeFile) -> bool:
    """Say whether a file has this layout."""
    return file.path.name == WEIGHTS_FILE


def read_saelens(file: SaeFile) -> SparseAutoencoder:
    """Read one; raise `InputError` for one that cannot be run here."""
    config = _settings(file)
    words = config["architecture"].split("_")
    is_transcoder, kind = "transcoder" in words, "_".join(w for w in words if w not in ("skip", "transcoder"))
    if refused := _unsupported(config, file.tensors, kind or "standard", is_transcoder):
        raise file.refuse(
            f"{refused}, which is not supported: standard, gated, jumprelu and topk autoencoders and transcoders on "
            "activations as they are, scaled to constant length or layer-normed, can be read"
        )
    w_enc, w_dec, b_dec = file.take("W_enc", "W_dec", "b_dec")
    more: dict[str, Any] = {"subtract_decoder_bias": config.get("apply_b_dec_to_input", True) and not is_transcoder}
    if kind == "gated":
        b_mag, r_mag, b_gate = file.take("b_mag", "r_mag", "b_gate")
        w_enc, b_enc, more["threshold"] = w_enc * r_mag.exp(), b_mag, gate_threshold(b_mag, r_mag, b_gate)
    else:
        (b_enc,) = file.take("b_enc")
        more["threshold"] = file.take(THRESHOLDS[kind])[0].expand(len(b_enc)) if kind in THRESHOLDS else None
    place = config.get("hook_name_out") if is_transcoder else config.get("hook_name")
    site = place or config.get("hook_name")
    if is_transcoder and site is not None:
        site = str(site).replace("ln2.hook_normalized", "hook_mlp_out").replace("hook_mlp_in", "hook_mlp_out")
    more |= {"activation": ACTIVATIONS[kind or "standard"], "k": config.get("k") if kind == "topk" else None}
    more |= {"site": site, "about": {"config": config}}
    if is_transcoder:
        w_skip = file.take("W_skip")[0] if "skip" in words else None
        return Transcoder(w_enc, b_enc, w_dec, b_dec, w_skip=w_skip, **more)
    return _folded(SparseAutoencoder(w_enc, b_enc, w_dec, b_dec, **more), config)


def of_constant_length(sae: Sae) -> Sae:
    """Return an autoencoder of inputs of length one, given one of inputs that were scaled to length sqrt(d)."""
    length = sae.d**0.5
    # A bias that is subtracted, and what gives a reconstruction, is as much shorter as its inputs.
    shorter = {"w_dec": sae.w_dec / length, "b_dec": sae.b_dec / length}
    if isinstance(sae, Transcoder) and sae.w_skip is not None:
        shorter["w_skip"] = sae.w_skip / length
    return replace(sae, normalised="length", w_enc=sae.w_enc * length, **shorter)


def _folded(sae: SparseAutoencoder, config: dict[str, Any]) -> SparseAutoencoder:
    if config.get("rescale_acts_by_decoder_norm"):  # features are compared as if the decoder's rows had length one
        norms = sae.w_dec.norm(dim=1)
        sae = replace(sae, w_enc=sae.w_enc * norms, b_enc=sae.b_enc * norms, w_dec=sae.w_dec / norms[:, None])
    if config.get("normalize_activations") == "constant_norm_rescale":
        sae = of_constant_length(sae)
    if config.get("normalize_activations") == "layer_norm":
        sae = replace(sae, normalised="layer-norm")
    return sae


def _settings(file: SaeFile) -> dict[str, Any]:
    """Return ``cfg.json`` in the names of SAELens 6, entries of its ``metadata`` beside the others."""
    if not file.config:
        raise file.refuse("SAELens' weights, but no cfg.json lies beside it, so that their activation is not known")
    config = dict(file.config)
    nested = config.pop("metadata", None) or config.pop("meta", None) or {}
    config = {**nested, **config}
    config.setdefault("hook_name", config.get("hook_point"))
    config.setdefault("architecture", "standard")
    activation = config.get("activation_fn_str") or config.get("activation_fn") or "relu"
    if activation == "topk":  # before version 6 an activation of the standard architecture
        config["architecture"] = "topk"
        config.setdefault("k", (config.get("activation_fn_kwargs") or {}).get("k"))
    return config


def _unsupported(config: dict[str, Any], stored: dict[str, Tensor], kind: str, is_transcoder: bool) -> str:
    """Return in words what makes an autoencoder one that cannot be run here; empty where nothing does."""
    if kind not in ACTIVATIONS:
        return f"an autoencoder of architecture {config['architecture']!r}"
    activation = config.get("activation_fn_str") or config.get("activation_fn") or "relu"
    if activation not in ("relu", "topk"):
        return f"an autoencoder with the activation {activation!r}"
    # Booleans are those of SAELens 2.
    normalisation = config.get("normalize_activations") or "none"
    if normalisation not in ("none", "constant_norm_rescale", "layer_norm") or (
        is_transcoder and normalisation != "none"
    ):
        name = "expected_average_only_in" if normalisation is True else normalisation
        return f"{'a transcoder' if is_transcoder else 'an autoencoder'} whose inputs are normalised by {name!r}"
    for name in ("scaling_factor", "finetuning_scaling_factor"):
        if name in stored and not torch.allclose(stored[name], torch.ones_like(stored[name])):
            return f"an autoencoder with a {name} for its features"
    return ""
