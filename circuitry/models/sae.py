"""A sparse autoencoder: activations as sparse, non-negative combinations of learned directions, the features.

1. ``encode``: f = activation((x - b_dec) W_enc + b_enc), with b_dec subtracted and x scaled to length one only
   where the autoencoder was trained so. The activation keeps what is positive (ReLU; Bricken et al. 2023,
   transformer-circuits.pub/2023/monosemantic-features), what exceeds a threshold (JumpReLU; Rajamanoharan et al.
   2024, arXiv 2407.14435), or the k largest (TopK; Gao et al. 2024, arXiv 2406.04093);
2. ``decode``: x ~ f W_dec + b_dec; row i of W_dec is the direction of feature i;
3. ``save``: one safetensors file, which `load_sae` reads, as it does folders in SAELens' layout. SAELens scales inputs
   and features in several ways: linear ones are folded into the weights, the others are refused.

Training is in ``training.sae``.
"""

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any, Literal

import torch
import torch.nn.functional as F
from jaxtyping import Float
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from circuitry.runs.arrays import read_arrays, write_arrays
from circuitry.runs.errors import InputError, naming_damage
from circuitry.runs.given import Count, checked

SAE_FORMAT = "circuitry-sae-1"
Activation = Literal["relu", "jumprelu", "topk"]


@checked
@dataclass(frozen=True, eq=False)
class SparseAutoencoder:
    """Weights of a sparse autoencoder and what it was trained on.

    Example:
        >>> sae = load_sae("runs/shared_features/sae.safetensors")
        >>> features = sae.encode(clip.encoder(images))  # [batch, features], mostly zeros
        >>> sae.decode(features)  # close to the embeddings, normalised where sae.normalised
    """

    w_enc: Float[Tensor, "d features"]
    """[d, features]."""
    b_enc: Float[Tensor, " features"]
    """[features]."""
    w_dec: Float[Tensor, "features d"]
    """[features, d]; row i is the direction of feature i."""
    b_dec: Float[Tensor, " d"]
    """[d]."""
    activation: Activation = "relu"
    threshold: Float[Tensor, " features"] | None = None
    """[features], for jumprelu: pre-activations up to this are put to zero."""
    k: Count | None = None
    """For topk: how many features may be active."""
    subtract_decoder_bias: bool = True
    """Whether ``b_dec`` is subtracted before encoding."""
    normalised: bool = False
    """Whether inputs are scaled to length one before encoding; reconstructions are then of that scale."""
    site: str | None = None
    """Site of the encoder whose units are its input; None where that is not known."""
    about: dict[str, Any] = field(default_factory=dict)
    """Training settings and diagnostics, in values that JSON can hold."""

    def __post_init__(self) -> None:
        features = len(self.b_enc)
        if (self.activation == "jumprelu") != (self.threshold is not None):
            raise InputError(
                f"A threshold belongs to the activation jumprelu and to no other, but {self.activation} was given "
                f"{'none' if self.threshold is None else 'one'}."
            )
        if (self.activation == "topk") != (self.k is not None) or not 1 <= (self.k or 1) <= features:
            raise InputError(
                f"The activation topk, and no other, needs a k from 1 to the number of features ({features}), but "
                f"{self.activation} was given k={self.k}."
            )

    @property
    def d(self) -> int:
        """Width of the input."""
        return self.w_enc.shape[0]

    @property
    def n_features(self) -> int:
        """Number of features, active or not."""
        return self.w_enc.shape[1]

    @checked
    def encode(self, x: Float[Tensor, "*batch d"]) -> Float[Tensor, "*batch features"]:
        """Return the features' activations, zero or positive; differentiable in ``x``.

        Raises:
            InputError: for inputs of another width.
        """
        if x.shape[-1] != self.d:
            raise InputError(
                f"This sparse autoencoder{f' of site {self.site}' if self.site else ''} encodes vectors of width "
                f"{self.d}, but was given a tensor {list(x.shape)}: give its site's activations, units last."
            )
        if self.normalised:
            x = F.normalize(x, dim=-1)
        if self.subtract_decoder_bias:
            x = x - self.b_dec
        before = x @ self.w_enc + self.b_enc
        if self.k is not None:
            top = before.topk(self.k, dim=-1)
            return torch.zeros_like(before).scatter(-1, top.indices, top.values.relu())
        if self.threshold is not None:
            return before.relu() * (before > self.threshold)
        return before.relu()

    @checked
    def decode(self, features: Float[Tensor, "*batch features"]) -> Float[Tensor, "*batch d"]:
        """Return the reconstruction; of inputs scaled to length one where ``normalised``."""
        return features @ self.w_dec + self.b_dec

    @checked
    def to(self, device: torch.device | str | None = None, dtype: torch.dtype | None = None) -> "SparseAutoencoder":
        """Return the same autoencoder on another device or in another floating-point type."""
        moved: dict[str, Any] = {name: tensor.to(device=device, dtype=dtype) for name, tensor in self._tensors()}
        return replace(self, **moved)

    @checked
    def save(self, path: str | os.PathLike[str]) -> None:
        """Write one safetensors file with a JSON header and a checksum, whole or not at all."""
        tensors = {name: tensor.detach().cpu() for name, tensor in self._tensors()}
        header = {f.name: getattr(self, f.name) for f in fields(self) if f.name not in tensors}
        # numpy has no bfloat16; float32 holds its values exactly.
        exact = {name: t.float() if t.dtype == torch.bfloat16 else t for name, t in tensors.items()}
        write_arrays(path, SAE_FORMAT, header, {name: tensor.numpy() for name, tensor in exact.items()})

    def _tensors(self) -> list[tuple[str, Tensor]]:
        return [(f.name, value) for f in fields(self) if isinstance(value := getattr(self, f.name), Tensor)]


SAELENS_KEYS = {"W_enc": "w_enc", "b_enc": "b_enc", "W_dec": "w_dec", "b_dec": "b_dec"}
"""SAELens' names of weights, and ours."""


@checked
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
    header, arrays = read_arrays(place, SAE_FORMAT, "sparse autoencoder")
    with naming_damage(path):
        tensors: dict[str, Any] = {name: torch.from_numpy(array) for name, array in arrays.items()}
        return SparseAutoencoder(**header, **tensors).to(device)


def _from_saelens(folder: Path) -> SparseAutoencoder:
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
