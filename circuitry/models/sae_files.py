"""Read sparse autoencoders from files: those of this package, and folders in SAELens' layout.

SAELens scales inputs and features in several ways that its configuration names; those that are linear are folded into
the weights, the others are refused.
"""

import json
import os
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from circuitry.models.sae import FORMAT, SparseAutoencoder
from circuitry.runs.arrays import read_arrays
from circuitry.runs.errors import InputError

SAELENS_KEYS = {"W_enc": "w_enc", "b_enc": "b_enc", "W_dec": "w_dec", "b_dec": "b_dec"}
"""SAELens' names of weights, and ours."""


def load_sae(path: str | os.PathLike[str], device: torch.device | str = "cpu") -> SparseAutoencoder:
    """Read a file that `SparseAutoencoder.save` wrote, or a folder in SAELens' layout.

    Args:
        path: A file of this package, or a folder with ``cfg.json`` and ``sae_weights.safetensors`` as SAELens'
            ``save_model`` writes it (versions 2 to 6; architectures standard, jumprelu and topk). Its
            ``site`` is SAELens' ``hook_name``: replace it where the encoder here names the place differently.
        device: Where it lives.

    Raises:
        InputError: for a missing or damaged file, or a kind of autoencoder that this package cannot run.

    Example:
        >>> load_sae("sae-blocks.9.hook_resid_post").activation
        'topk'
    """
    place = Path(path)
    if place.is_dir():
        return _from_saelens(place).to(device)
    header, arrays = read_arrays(place, FORMAT, "sparse autoencoder")
    tensors: dict[str, Any] = {name: torch.from_numpy(array) for name, array in arrays.items()}
    return SparseAutoencoder(**header, **tensors).to(device)


def _from_saelens(folder: Path) -> SparseAutoencoder:
    """Read SAELens' files; scalings that its configuration asks for are folded into the weights."""
    config = _saelens_config(folder)
    try:
        stored = {name: tensor.float() for name, tensor in load_file(folder / "sae_weights.safetensors").items()}
    except (SafetensorError, OSError) as error:
        raise InputError(f"{folder} holds no readable sae_weights.safetensors ({error}): download it again.") from error
    refused = _unsupported(config, stored)
    if refused:
        raise InputError(
            f"{folder} holds {refused}, which is not supported: standard, jumprelu and topk autoencoders on "
            "activations as they are, or scaled to constant length, can be read."
        )
    if missing := [name for name in SAELENS_KEYS if name not in stored]:
        raise InputError(f"{folder}/sae_weights.safetensors lacks {', '.join(missing)}: it is no autoencoder's.")
    weights: dict[str, Any] = {ours: stored[theirs] for theirs, ours in SAELENS_KEYS.items()}
    architecture = config["architecture"]
    sae = SparseAutoencoder(
        **weights,
        activation="relu" if architecture == "standard" else architecture,
        threshold=stored.get("threshold") if architecture == "jumprelu" else None,
        k=config.get("k") if architecture == "topk" else None,
        subtract_decoder_bias=config.get("apply_b_dec_to_input", True),
        site=config.get("hook_name"),
        about={"saelens": config},
    )
    if config.get("rescale_acts_by_decoder_norm"):  # features are compared as if the decoder's rows had length one
        norms = sae.w_dec.norm(dim=1)
        sae = replace(sae, w_enc=sae.w_enc * norms, b_enc=sae.b_enc * norms, w_dec=sae.w_dec / norms[:, None])
    if config.get("normalize_activations") == "constant_norm_rescale":  # to length sqrt(d); here to length one
        length = sae.d**0.5
        sae = replace(
            sae, normalised=True, w_enc=sae.w_enc * length, w_dec=sae.w_dec / length, b_dec=sae.b_dec / length
        )
    return sae


def _saelens_config(folder: Path) -> dict[str, Any]:
    """Return ``cfg.json`` in the names of SAELens 6, entries of its ``metadata`` beside the others."""
    try:
        config: dict[str, Any] = json.loads((folder / "cfg.json").read_text())
    except (OSError, ValueError) as error:
        raise InputError(
            f"{folder} is not a folder in SAELens' layout, with cfg.json and sae_weights.safetensors ({error}): give "
            "such a folder, or a file that SparseAutoencoder.save wrote."
        ) from error
    nested = config.pop("metadata", None) or config.pop("meta", None) or {}
    config = {**nested, **config}
    config.setdefault("hook_name", config.get("hook_point"))
    config.setdefault("architecture", "standard")
    activation = config.get("activation_fn_str") or config.get("activation_fn") or "relu"
    if activation == "topk":  # before version 6 an activation of the standard architecture
        config["architecture"] = "topk"
        config.setdefault("k", (config.get("activation_fn_kwargs") or {}).get("k"))
    return config


def _unsupported(config: Mapping[str, Any], stored: Mapping[str, Tensor]) -> str:
    """Return in words what makes an autoencoder one that cannot be run here; empty where nothing does."""
    if config["architecture"] not in ("standard", "jumprelu", "topk"):
        return f"an autoencoder of architecture {config['architecture']!r}"
    activation = config.get("activation_fn_str") or config.get("activation_fn") or "relu"
    if activation not in ("relu", "topk"):
        return f"an autoencoder with the activation {activation!r}"
    # Booleans are those of SAELens 2.
    normalisation = config.get("normalize_activations") or "none"
    if normalisation not in ("none", "constant_norm_rescale"):
        name = "expected_average_only_in" if normalisation is True else normalisation
        return f"an autoencoder whose inputs are normalised by {name!r}"
    for name in ("scaling_factor", "finetuning_scaling_factor"):
        if name in stored and not torch.allclose(stored[name], torch.ones_like(stored[name])):
            return f"an autoencoder with a {name} for its features"
    return ""
