"""A sparse autoencoder: activations as sparse combinations of learned directions, the features.

1. ``encode``: f = activation((x - b_dec) W_enc + b_enc). Some autoencoders do not subtract b_dec, some normalise x
   first. The activation keeps positive numbers (ReLU; Bricken et al. 2023,
   transformer-circuits.pub/2023/monosemantic-features), numbers above a threshold (JumpReLU; Rajamanoharan et al.
   2024, arXiv 2407.14435), or the k largest numbers (TopK; Gao et al. 2024, arXiv 2406.04093). A gated autoencoder is
   written as a JumpReLU one (`gate_threshold`);
2. ``decode``: x ~ f W_dec + b_dec; row i of W_dec is the direction of feature i;
3. ``beside`` and ``recompose``: the same in the scale of the input, which `feature_basis` needs;
4. ``save``: write one safetensors file, which `load_sae` reads, as it reads files that others released.

A `Transcoder` encodes the input of an MLP and decodes to its output. Training is in ``training.sae_training``.
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
"""Addition of ViT-Prisma and SAELens to the standard deviation before they divide by it."""


@checked
@dataclass(frozen=True, eq=False)
class SparseAutoencoder:
    """A sparse autoencoder: its weights, settings and training.

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
    """Activation function; ``signed-topk`` keeps the k largest numbers, ``topk`` the positive numbers among them."""
    threshold: Float[Tensor, " features"] | None = None
    """For jumprelu: thresholds [features]; smaller or equal pre-activations become zero."""
    k: Count | None = None
    """For topk and signed-topk: largest number of active features."""
    soft_cap: Positive | None = None
    """The c of a soft cap, where c tanh(f / c) replaces f; None without a cap."""
    subtract_decoder_bias: bool = True
    """Whether ``b_dec`` is subtracted before encoding."""
    normalised: Normalisation | None = None
    """Normalisation of inputs before encoding: to length one, or to mean zero and (unbiased) standard deviation one.
    ``decode`` then returns normalised reconstructions."""
    tokens: Tokens = "all"
    """Tokens of a transformer that it was trained on; at other tokens it has no features."""
    site: str | None = None
    """Site of the encoder whose units are its input, or TransformerLens' name of the site; None if not known."""
    about: dict[str, Any] = field(default_factory=dict)
    """Training settings and diagnostics, in values that JSON can hold."""

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
        """Number of features, active or not."""
        return self.w_enc.shape[1]

    def encode(self, x: Float[Tensor, "*batch d"]) -> Float[Tensor, "*batch features"]:
        """Return the features of inputs, differentiable in ``x``; only signed-topk has negative features."""
        return self.activate(self.before_activation(x))

    def before_activation(
        self, x: Float[Tensor, "*batch d"]
    ) -> Float[Tensor, "*batch features"]:
        """Return the pre-activations of inputs; raise `InputError` for inputs of another width."""
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
        """Return features, given their pre-activations."""
        if self.k is not None:
            top = before.topk(self.k, dim=-1)
            values = top.values
            if self.activation == "topk":
                values = values.relu()
            features = torch.zeros_like(before).scatter(-1, top.indices, values)
        elif self.threshold is not None:
            # ReLU as well: a gated autoencoder has thresholds below zero where its gate opens first.
            features = before.relu() * (before > self.threshold)
        else:
            features = before.relu()
        if self.soft_cap is None:
            return features
        return torch.tanh(features / self.soft_cap) * self.soft_cap

    def decode(
        self, features: Float[Tensor, "*batch features"]
    ) -> Float[Tensor, "*batch d"]:
        """Return the reconstruction of the inputs as they were encoded: normalised ones if ``normalised``."""
        return features @ self.w_dec + self.b_dec

    def scaled(self, x: Float[Tensor, "*batch d"]) -> Float[Tensor, "*batch d"]:
        """Return the inputs as they are encoded: normalised if ``normalised``."""
        if self.normalised == "length":
            return F.normalize(x, dim=-1)
        if self.normalised == "layer-norm":
            deviation, mean = _moments(x)
            return (x - mean) / (deviation + LAYER_NORM_EPSILON)
        return x

    @property
    def has_scale(self) -> bool:
        """Whether the first number of ``beside`` is a scale, by which features and b_dec are multiplied."""
        # With some tokens alone the scale is 1 at these and 0 elsewhere.
        return self.normalised is not None or self.tokens != "all"

    def beside(self, x: Float[Tensor, "*batch d"]) -> Float[Tensor, "*batch beside"]:
        """Return the numbers of the input that a reconstruction in the input's own scale needs besides the features.

        They are the length of an input that is normalised by length; standard deviation and mean of one that is
        layer-normed; 1 if only some tokens have features; else none.
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
        """Directions that the numbers of ``beside`` multiply in the reconstruction."""
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
        """Return features multiplied by the scale of their input, the first number of ``beside``."""
        if not self.has_scale:
            return features
        return features * beside[..., :1]

    def recompose(
        self,
        features: Float[Tensor, "*batch features"],
        beside: Float[Tensor, "*batch beside"],
    ) -> Float[Tensor, "*batch d"]:
        """Return the reconstruction in the input's own scale, of features in that scale; affine in both arguments."""
        x = features @ self.w_dec
        if beside.shape[-1]:
            x = x + beside @ self.beside_rows
        if self.has_scale:  # then b_dec is among the rows
            return x
        return x + self.b_dec

    def to(
        self, device: torch.device | str | None = None, dtype: torch.dtype | None = None
    ) -> "SparseAutoencoder":
        """Return the same autoencoder on another device or in another floating-point type."""
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
        """Write one safetensors file with a JSON header and a checksum; an interrupted write leaves no file."""
        header: dict[str, Any] = {}
        arrays = {}
        for f in fields(self):
            value = getattr(self, f.name)
            if not isinstance(value, Tensor):
                header[f.name] = value
                continue
            tensor = value.detach().cpu()
            # numpy has no bfloat16; float32 holds its values exactly.
            if tensor.dtype == torch.bfloat16:
                tensor = tensor.float()
            arrays[f.name] = tensor.numpy()
        header["kind"] = type(self).__name__
        write_arrays(path, SAE_FORMAT, header, arrays)

    @property
    def identity(self) -> str:
        """Short digest of weights, activation and scaling."""
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
    """A transcoder: it encodes the input of an MLP, behind its norm, and decodes to the MLP's output.

    Input and output have the same width. ``b_dec`` belongs to the output, so it is never subtracted from the input.
    ``normalised`` refers to the input; the output is multiplied by the input's scale. (Dunefsky et al. 2024, arXiv
    2406.11944; with a skip: Paulo et al. 2025, arXiv 2501.18823.)

    Example:
        >>> width = vit.encoder(images[:1], stop="ln_pre").shape[-1]
        >>> weights = torch.eye(width), torch.zeros(width), torch.eye(width), torch.zeros(width)
        >>> transcoder = Transcoder(*weights, subtract_decoder_bias=False)
        >>> features = vit.in_components().in_basis({"transformer.resblocks.1.mlp": transcoder})
        >>> features.encoder.kinds["transformer.resblocks.1.mlp"].name
        'latent'
    """

    w_skip: Float[Tensor, "d d"] | None = None
    """Weights [d, d] of a linear path, which adds x W_skip^T of the input x to the output; None without one."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.subtract_decoder_bias:
            raise InputError(
                "The decoder's bias of a transcoder is one of its output, so subtract_decoder_bias must be False: fold "
                "a bias of its input into b_enc."
            )

    def beside(self, x: Float[Tensor, "*batch d"]) -> Float[Tensor, "*batch beside"]:
        """Return the numbers of `SparseAutoencoder.beside`, then the addition of the skip to the output."""
        scale = super().beside(x)
        if self.w_skip is None:
            return scale
        return torch.cat([scale, self.in_scale(x @ self.w_skip.T, scale)], -1)

    @property
    def beside_rows(self) -> Float[Tensor, "beside d"]:
        """Directions that the numbers of ``beside`` multiply in the output."""
        rows = super().beside_rows
        if self.w_skip is None:
            return rows
        return torch.cat([rows, torch.eye(self.d).to(rows)])


def gate_threshold(b_mag: Tensor, r_mag: Tensor, b_gate: Tensor) -> Tensor:
    """Return the threshold [features] that makes a JumpReLU autoencoder equal to a gated one.

    With z the input and w a column of the encoder, a gated feature is relu(z w exp(r_mag) + b_mag) if z w + b_gate > 0,
    else zero. Its gate is open if its pre-activation exceeds b_mag - exp(r_mag) b_gate, which is the threshold; the
    weights of the JumpReLU autoencoder are w exp(r_mag). (Rajamanoharan et al. 2024, arXiv 2404.16014, section 3.)
    """
    return b_mag - r_mag.exp() * b_gate


def of_shifted_inputs(
    sae: SparseAutoencoder, mean: Tensor, scale: float
) -> SparseAutoencoder:
    """Return an autoencoder of x with the features of ``sae``, which was trained on (x - mean) / scale."""
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
    # If b_dec is subtracted, its new value subtracts the mean as well; else the encoder's bias has to.
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
    # By the norm, whose gradient at zero is zero; that of `std` is NaN for a constant vector.
    mean = x.mean(-1, keepdim=True)
    length = torch.linalg.vector_norm(x - mean, dim=-1, keepdim=True)
    return length / (x.shape[-1] - 1) ** 0.5, mean
