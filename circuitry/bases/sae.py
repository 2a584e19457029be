"""A sparse autoencoder describes an activation as a sparse combination of learned directions, the features.

1. ``encode``: f = activation((x - b_dec) W_enc + b_enc). Some autoencoders do not subtract b_dec, and some normalise x
   first. The activation function keeps positive numbers (ReLU; Bricken et al. 2023,
   transformer-circuits.pub/2023/monosemantic-features), numbers above a threshold (JumpReLU; Rajamanoharan et al.
   2024, arXiv 2407.14435), or the k largest numbers (TopK; Gao et al. 2024, arXiv 2406.04093). A gated autoencoder is
   converted to an equal JumpReLU autoencoder (`gate_threshold`).
2. ``decode``: x ~ f W_dec + b_dec. Row i of W_dec is the direction of feature i.
3. ``beside`` computes numbers of the input that a reconstruction needs besides the features, such as the length of the
   input. ``recompose`` takes the features and these numbers, and returns the reconstruction of the input before its
   normalisation (see `feature_basis`).
4. ``save`` writes one safetensors file. `load_sae` reads this file, and also reads autoencoders that other projects
   released.

A `Transcoder` encodes the input of an MLP, and decodes to the output of the MLP. Training is in
``training.sae_training``.
"""

import os
from dataclasses import dataclass, field, fields, replace
from typing import Any, Literal

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from circuitry.runs.arguments import Count, Positive, checked
from circuitry.runs.arrays import write_arrays
from circuitry.runs.errors import InputError
from circuitry.runs.provenance import digest, weights_digest

SAE_FORMAT = "circuitry-sae-2"
Activation = Literal["relu", "jumprelu", "topk", "signed-topk"]
Normalisation = Literal["length", "layer-norm"]
Tokens = Literal["all", "class", "patches"]
LAYER_NORM_EPSILON = 1e-5
"""Number that ViT-Prisma and SAELens add to the standard deviation before they divide by it."""


@checked
@dataclass(frozen=True, eq=False)
class SparseAutoencoder:
    """A sparse autoencoder: its weights, its settings, and a record of its training.

    Example:
        >>> embeddings = encoder(images)
        >>> directions = torch.eye(64)
        >>> sae = SparseAutoencoder(directions, torch.zeros(64), directions, torch.zeros(64))
        >>> features = sae.encode(embeddings)
        >>> torch.equal(sae.decode(features), embeddings.relu())
        True
    """

    w_enc: Float[Tensor, "d features"]
    """Weights of the encoder [d, features]."""
    b_enc: Float[Tensor, " features"]
    """Bias of the encoder [features]."""
    w_dec: Float[Tensor, "features d"]
    """Weights of the decoder [features, d]; row i is the direction of feature i."""
    b_dec: Float[Tensor, " d"]
    """Bias of the decoder [d]."""
    activation: Activation = "relu"
    """Activation function.

    ``signed-topk`` keeps the k largest pre-activations. ``topk`` also keeps the k largest ones, but sets those that are
    negative to zero.
    """
    threshold: Float[Tensor, " features"] | None = None
    """For jumprelu: threshold of each feature [features]. A pre-activation that does not exceed it becomes zero."""
    k: Count | None = None
    """For topk and signed-topk: largest number of features that can be active for one input."""
    soft_cap: Positive | None = None
    """The number c of a soft cap, which replaces each feature f by c tanh(f / c). None means that there is no cap."""
    subtract_decoder_bias: bool = True
    """Whether ``b_dec`` is subtracted before encoding."""
    normalised: Normalisation | None = None
    """How inputs are normalised before encoding; None means that they are not normalised.

    ``length`` scales an input to length one. ``layer-norm`` shifts and scales it to mean zero and (unbiased) standard
    deviation one. ``decode`` then returns reconstructions of the normalised inputs.
    """
    tokens: Tokens = "all"
    """Tokens of a transformer that the autoencoder was trained on.

    In a feature basis (`in_feature_basis`) all features are zero at all other tokens.
    """
    site: str | None = None
    """Site whose activations are the input, or TransformerLens' name of this site. None if the site is not known."""
    about: dict[str, Any] = field(default_factory=dict)
    """Settings and diagnostics of the training, in values that JSON can hold."""

    def __post_init__(self) -> None:
        features = len(self.b_enc)
        is_topk = self.activation.endswith("topk")
        if (self.activation == "jumprelu") != (self.threshold is not None):
            raise InputError(
                f"A threshold belongs to the activation jumprelu and to no other, but {self.activation} was given "
                f"{'none' if self.threshold is None else 'one'}."
            )
        if is_topk != (self.k is not None) or not 1 <= (self.k or 1) <= features:
            raise InputError(
                f"The activations topk and signed-topk, and no others, need a k from 1 to the number of features "
                f"({features}), but {self.activation} was given k={self.k}."
            )

    @property
    def d(self) -> int:
        """Width of the input."""
        return self.w_enc.shape[0]

    @property
    def n_features(self) -> int:
        """Number of features, including features that are never active."""
        return self.w_enc.shape[1]

    def encode(self, x: Float[Tensor, "*batch d"]) -> Float[Tensor, "*batch features"]:
        """Return the features of inputs. They are differentiable with respect to ``x``.

        Only the activation function signed-topk gives negative features.
        """
        return self.activate(self.before_activation(x))

    def before_activation(
        self, x: Float[Tensor, "*batch d"]
    ) -> Float[Tensor, "*batch features"]:
        """Return the pre-activations of the features. Raise `InputError` if the inputs do not have the width `d`."""
        if x.shape[-1] != self.d:
            raise InputError(
                f"This sparse autoencoder{f' of site {self.site}' if self.site else ''} encodes vectors of width "
                f"{self.d}, but was given a tensor {list(x.shape)}: give its site's activations, units last."
            )
        x = self.scaled(x)
        if self.subtract_decoder_bias:
            x = x - self.b_dec
        return x @ self.w_enc + self.b_enc

    def activate(
        self, before: Float[Tensor, "*batch features"]
    ) -> Float[Tensor, "*batch features"]:
        """Apply the activation function and the soft cap to pre-activations, and return the features."""
        if self.k is not None:
            top = before.topk(self.k, dim=-1)
            values = top.values
            if self.activation == "topk":
                values = values.relu()
            features = torch.zeros_like(before).scatter(-1, top.indices, values)
        elif self.threshold is not None:
            # The ReLU is needed because an autoencoder that was gated can have thresholds below zero.
            features = before.relu() * (before > self.threshold)
        else:
            features = before.relu()
        if self.soft_cap is None:
            return features
        return torch.tanh(features / self.soft_cap) * self.soft_cap

    def decode(
        self, features: Float[Tensor, "*batch features"]
    ) -> Float[Tensor, "*batch d"]:
        """Return the reconstruction of the inputs.

        If the autoencoder normalises its inputs (``normalised``), this is the reconstruction of the normalised inputs.
        """
        return features @ self.w_dec + self.b_dec

    def scaled(self, x: Float[Tensor, "*batch d"]) -> Float[Tensor, "*batch d"]:
        """Return the inputs after their normalisation. If ``normalised`` is None, they do not change."""
        if self.normalised == "length":
            return F.normalize(x, dim=-1)
        if self.normalised == "layer-norm":
            deviation, mean = _moments(x)
            return (x - mean) / (deviation + LAYER_NORM_EPSILON)
        return x

    @property
    def has_scale(self) -> bool:
        """Whether the first number that `beside` returns is a scale of the input.

        If so, the features and ``b_dec`` are multiplied by this scale in `recompose`.
        """
        # If only some tokens have features, a basis sets the scale to 0 at all other tokens.
        return self.normalised is not None or self.tokens != "all"

    def beside(self, x: Float[Tensor, "*batch d"]) -> Float[Tensor, "*batch beside"]:
        """Return the numbers that `recompose` needs besides the features, computed from the inputs.

        Returns:
            An array whose last axis has the numbers of one input. If ``normalised`` is ``"length"``, there is one
            number: the length of the input. If it is ``"layer-norm"``, there are two: the standard deviation and the
            mean of the input. Without normalisation, there is the number 1 if the autoencoder was trained on some of
            the tokens only; otherwise the axis has size 0.
        """
        if self.normalised == "length":
            length: Tensor = torch.linalg.vector_norm(x, dim=-1, keepdim=True)
            return length
        if self.normalised == "layer-norm":
            return torch.cat(_moments(x), -1)
        if self.has_scale:
            return torch.ones_like(x[..., :1])
        return x[..., :0]

    @property
    def beside_rows(self) -> Float[Tensor, "beside d"]:
        """Directions [beside, d], by which `recompose` multiplies the numbers of `beside`."""
        if self.normalised == "layer-norm":
            return torch.stack([self.b_dec, torch.ones_like(self.b_dec)])
        if self.has_scale:
            return self.b_dec[None]
        return self.b_dec.new_zeros(0, self.d)

    def in_scale(
        self,
        features: Float[Tensor, "*batch features"],
        beside: Float[Tensor, "*batch beside"],
    ) -> Float[Tensor, "*batch features"]:
        """Return the features multiplied by the scale of their input. Without such a scale, the features do not change.

        Args:
            features: Features of the normalised input, as `encode` returns them.
            beside: Numbers that `beside` computed from the input. The first number is the scale; see `has_scale`.
        """
        if not self.has_scale:
            return features
        return features * beside[..., :1]

    def recompose(
        self,
        features: Float[Tensor, "*batch features"],
        beside: Float[Tensor, "*batch beside"],
    ) -> Float[Tensor, "*batch d"]:
        """Return the reconstruction of the input before its normalisation.

        The reconstruction is an affine function of both arguments together.

        Args:
            features: Features multiplied by the scale of the input; see `in_scale`.
            beside: Numbers that `beside` computed from the input.
        """
        x = features @ self.w_dec
        if beside.shape[-1]:
            x = x + beside @ self.beside_rows
        if self.has_scale:  # then `beside_rows` has b_dec
            return x
        return x + self.b_dec

    def to(
        self, device: torch.device | str | None = None, dtype: torch.dtype | None = None
    ) -> "SparseAutoencoder":
        """Return the same autoencoder on another device or in another floating-point type.

        Raises:
            InputError: if the device cannot be used.
        """
        try:
            moved: dict[str, Any] = {
                name: tensor.to(device=device, dtype=dtype)
                for name, tensor in self._tensors().items()
            }
        except (RuntimeError, AssertionError) as error:
            reason = str(error).splitlines()[0]
            raise InputError(
                f"Device {str(device)!r} cannot be used here ({reason}): give cpu, or cuda."
            ) from error
        return replace(self, **moved)

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the autoencoder as one safetensors file with a JSON header and a checksum.

        If the write is interrupted, no incomplete file is left.
        """
        header: dict[str, Any] = {}
        arrays = {}
        for f in fields(self):
            value = getattr(self, f.name)
            if not isinstance(value, Tensor):
                header[f.name] = value
                continue
            tensor = value.detach().cpu()
            # numpy has no bfloat16. float32 holds every bfloat16 value exactly.
            if tensor.dtype == torch.bfloat16:
                tensor = tensor.float()
            arrays[f.name] = tensor.numpy()
        header["kind"] = type(self).__name__
        write_arrays(path, SAE_FORMAT, header, arrays)

    @property
    def identity(self) -> str:
        """Short digest of the weights and of all settings except ``site`` and ``about``."""
        tensors = self._tensors()
        no_number = ("site", "about", *tensors)
        plain = {
            f.name: getattr(self, f.name)
            for f in fields(self)
            if f.name not in no_number
        }
        return digest([weights_digest(tensors), plain])

    def _tensors(self) -> dict[str, Tensor]:
        values = {f.name: getattr(self, f.name) for f in fields(self)}
        return {
            name: value for name, value in values.items() if isinstance(value, Tensor)
        }


@checked
@dataclass(frozen=True, eq=False)
class Transcoder(SparseAutoencoder):
    """A transcoder encodes the input of an MLP, after the norm before the MLP, and decodes to the MLP's output.

    Input and output have the same width. ``b_dec`` belongs to the output, so it is never subtracted from the input.
    ``normalised`` normalises the input, and the output is then multiplied by the scale of the input. Transcoders are
    from Dunefsky et al. 2024 (arXiv 2406.11944), transcoders with a skip from Paulo et al. 2025 (arXiv 2501.18823).

    Example:
        >>> width = vit.encoder(images[:1], stop="ln_pre").shape[-1]
        >>> weights = torch.eye(width), torch.zeros(width), torch.eye(width), torch.zeros(width)
        >>> transcoder = Transcoder(*weights, subtract_decoder_bias=False)
        >>> features = vit.in_components().in_basis({"transformer.resblocks.1.mlp": transcoder})
        >>> features.encoder.kinds["transformer.resblocks.1.mlp"].name
        'latent'
    """

    w_skip: Float[Tensor, "d d"] | None = None
    """Weights [d, d] of a linear skip, which adds x W_skip^T to the output for the input x. None means no skip."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.subtract_decoder_bias:
            raise InputError(
                "The decoder's bias of a transcoder is one of its output, so subtract_decoder_bias must be False: fold "
                "a bias of its input into b_enc."
            )

    def beside(self, x: Float[Tensor, "*batch d"]) -> Float[Tensor, "*batch beside"]:
        """Return the numbers that `recompose` needs besides the features, computed from the inputs.

        They are the numbers of `SparseAutoencoder.beside`. If there is a skip, they are followed by the vector that the
        skip adds to the output.
        """
        scale = super().beside(x)
        if self.w_skip is None:
            return scale
        return torch.cat([scale, self.in_scale(x @ self.w_skip.T, scale)], -1)

    @property
    def beside_rows(self) -> Float[Tensor, "beside d"]:
        """Directions [beside, d], by which `recompose` multiplies the numbers of `beside`."""
        rows = super().beside_rows
        if self.w_skip is None:
            return rows
        return torch.cat([rows, torch.eye(self.d).to(rows)])


def gate_threshold(b_mag: Tensor, r_mag: Tensor, b_gate: Tensor) -> Tensor:
    """Return the thresholds [features] with which a JumpReLU autoencoder equals a gated autoencoder.

    Let z be the input and w a column of the encoder. A gated feature is relu(z w exp(r_mag) + b_mag) if
    z w + b_gate > 0, and zero otherwise. With weights w exp(r_mag) and bias b_mag, the gate is open if the
    pre-activation exceeds b_mag - exp(r_mag) b_gate. This is the threshold. See Rajamanoharan et al. 2024 (arXiv
    2404.16014), section 3.
    """
    return b_mag - r_mag.exp() * b_gate


def of_shifted_inputs(
    sae: SparseAutoencoder, mean: Tensor, scale: float
) -> SparseAutoencoder:
    """Return an autoencoder whose features for x equal the features of ``sae`` for (x - mean) / scale.

    Args:
        sae: An autoencoder that was trained on inputs (x - mean) / scale.
        mean: The mean, as one number or with one entry for each dimension [d].
        scale: The scale.

    Raises:
        InputError: if the mean or the scale cannot be used, or if ``sae`` normalises its inputs or is a transcoder.
    """
    is_finite = bool(mean.isfinite().all())
    is_wide = mean.dim() == 0 or tuple(mean.shape) == (sae.d,)
    if not 0 < scale < float("inf") or not is_wide or not is_finite:
        shown = list(mean.shape) if is_finite else "with NaN or infinity"
        raise InputError(
            f"Inputs (x - mean) / scale need a finite mean of width {sae.d} and a positive finite scale, but a mean "
            f"{shown} and {scale} were given."
        )
    if sae.normalised is not None or isinstance(sae, Transcoder):
        raise InputError(
            f"A {type(sae).__name__} that is normalised by {sae.normalised} takes no mean and scale: leave them out."
        )
    mean = mean.to(sae.w_enc).expand(sae.d)
    w_enc = sae.w_enc / scale
    # If b_dec is subtracted, its new value also subtracts the mean. Otherwise the bias of the encoder has to do so.
    b_enc = sae.b_enc if sae.subtract_decoder_bias else sae.b_enc - mean @ w_enc
    return replace(
        sae,
        w_enc=w_enc,
        b_enc=b_enc,
        w_dec=sae.w_dec * scale,
        b_dec=sae.b_dec * scale + mean,
    )


def _moments(
    x: Float[Tensor, "*batch d"],
) -> tuple[Float[Tensor, "*batch 1"], Float[Tensor, "*batch 1"]]:
    """Return the unbiased standard deviation and the mean of vectors."""
    # The norm is used, because its gradient at zero is zero. The gradient of `std` at a constant vector is NaN.
    mean = x.mean(-1, keepdim=True)
    length = torch.linalg.vector_norm(x - mean, dim=-1, keepdim=True)
    return length / (x.shape[-1] - 1) ** 0.5, mean
