"""A sparse autoencoder: activations as sparse, non-negative combinations of learned directions, the features.

1. ``encode``: f = activation((x - b_dec) W_enc + b_enc), with b_dec subtracted and x scaled to length one only
   where the autoencoder was trained so. The activation keeps what is positive (ReLU; Bricken et al. 2023,
   transformer-circuits.pub/2023/monosemantic-features), what exceeds a threshold (JumpReLU; Rajamanoharan et al.
   2024, arXiv 2407.14435), or the k largest (TopK; Gao et al. 2024, arXiv 2406.04093);
2. ``decode``: x ~ f W_dec + b_dec; row i of W_dec is the direction of feature i;
3. ``save``: one safetensors file, which `load_sae` reads.

Training is in ``training.sae``.
"""

import os
from dataclasses import dataclass, field, fields, replace
from typing import Any, Literal, get_args

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from circuitry.runs.arrays import write_arrays
from circuitry.runs.errors import InputError

FORMAT = "circuitry-sae-1"
Activation = Literal["relu", "jumprelu", "topk"]


@dataclass(frozen=True, eq=False)
class SparseAutoencoder:
    """Weights of a sparse autoencoder and what it was trained on.

    Example:
        >>> sae = load_sae("runs/shared_features/sae.safetensors")
        >>> features = sae.encode(clip.encoder(images))  # [batch, features], mostly zeros
        >>> sae.decode(features)  # close to the embeddings, normalised where sae.normalised
    """

    w_enc: Tensor
    """[d, features]."""
    b_enc: Tensor
    """[features]."""
    w_dec: Tensor
    """[features, d]; row i is the direction of feature i."""
    b_dec: Tensor
    """[d]."""
    activation: Activation = "relu"
    threshold: Tensor | None = None
    """[features], for jumprelu: pre-activations up to this are put to zero."""
    k: int | None = None
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
        d, features = self.w_enc.shape
        expected = {"b_enc": (features,), "w_dec": (features, d), "b_dec": (d,), "threshold": (features,)}
        for name, shape in expected.items():
            tensor = getattr(self, name)
            if tensor is not None and tuple(tensor.shape) != shape:
                raise InputError(
                    f"With w_enc [{d}, {features}] a sparse autoencoder needs {name} {list(shape)}, but it is "
                    f"{list(tensor.shape)}: give weights of one autoencoder."
                )
        if self.activation not in get_args(Activation):
            raise InputError(
                f"Expected one of the activations {', '.join(get_args(Activation))}, but {self.activation!r} was given."
            )
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

    def decode(self, features: Float[Tensor, "*batch features"]) -> Float[Tensor, "*batch d"]:
        """Return the reconstruction; of inputs scaled to length one where ``normalised``."""
        return features @ self.w_dec + self.b_dec

    def to(self, device: torch.device | str | None = None, dtype: torch.dtype | None = None) -> "SparseAutoencoder":
        """Return the same autoencoder on another device or in another floating-point type."""
        moved: dict[str, Any] = {name: tensor.to(device=device, dtype=dtype) for name, tensor in self._tensors()}
        return replace(self, **moved)

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write one safetensors file with a JSON header and a checksum, whole or not at all."""
        tensors = {name: tensor.detach().cpu() for name, tensor in self._tensors()}
        header = {f.name: getattr(self, f.name) for f in fields(self) if f.name not in tensors}
        # numpy has no bfloat16; float32 holds its values exactly.
        exact = {name: t.float() if t.dtype == torch.bfloat16 else t for name, t in tensors.items()}
        write_arrays(path, FORMAT, header, {name: tensor.numpy() for name, tensor in exact.items()})

    def _tensors(self) -> list[tuple[str, Tensor]]:
        return [(f.name, value) for f in fields(self) if isinstance(value := getattr(self, f.name), Tensor)]
