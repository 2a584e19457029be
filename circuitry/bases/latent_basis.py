"""Convert an activation to the latents and the error of an autoencoder, and convert these back; see `feature_basis`.

The units are, in order, the latents f, the error e, and further numbers computed from the input. A reconstruction needs
the further numbers besides the latents, for example the length of the input (`SparseAutoencoder.beside`). The
activation is affine in all units: x = f W_dec + e + beside R, where the rows of R are the ``beside_rows`` of the
autoencoder. If b_dec is not among these rows, b_dec is added.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from jaxtyping import Float, Int
from torch import Tensor

from circuitry.bases.blocks import Block
from circuitry.bases.sae import SparseAutoencoder, Transcoder
from circuitry.encoder.unit_kinds import UnitKind


@dataclass(frozen=True, eq=False)
class FeatureBasis:
    """A basis in which the units of a site are the latents of an autoencoder, its error, and its further numbers."""

    sae: SparseAutoencoder
    unit_dim: int
    """Axis of the units in the activation."""
    acts: Float[Tensor, "position 1"] | None = None
    """Mask that is 1 at the tokens that the autoencoder was trained on and 0 at all other tokens.

    None means that the autoencoder is used at all positions.
    """

    @property
    def kind(self) -> UnitKind:
        """Kind of the units. The autoencoder is the definition of the kind (`UnitKind.made_of`)."""
        return UnitKind("latent", self.unit_dim, made_of=self.sae)

    @property
    def error_units(self) -> range:
        """Indices of all units after the latents.

        The first ``sae.d`` of them are the reconstruction error. Then come the further numbers that
        `SparseAutoencoder.beside` computes from the input, such as the length of the input.
        """
        first = self.sae.n_features
        return range(first, first + self.sae.d + len(self.sae.beside_rows))

    def to_features(
        self, x: Float[Tensor, "..."], read: Float[Tensor, "..."] | None = None
    ) -> Float[Tensor, "..."]:
        """Return the units of an activation.

        Args:
            x: The activation that the units reconstruct.
            read: The activation that is encoded (default: ``x``). A transcoder encodes the input of an MLP, and ``x``
                is the output of this MLP.
        """
        x = x.movedim(self.unit_dim, -1)
        encoded = x if read is None else read.movedim(self.unit_dim, -1)
        latents, beside = self._encoded(encoded)
        error = x - self.sae.recompose(latents, beside)
        return torch.cat([latents, error, beside], -1).movedim(-1, self.unit_dim)

    def from_features(self, units: Float[Tensor, "..."]) -> Float[Tensor, "..."]:
        """Return the activation, given its units. This is the inverse of `to_features`."""
        sizes = [self.sae.n_features, self.sae.d, len(self.sae.beside_rows)]
        units_last = units.movedim(self.unit_dim, -1)
        latents, error, beside = torch.split(units_last, sizes, -1)
        return (self.sae.recompose(latents, beside) + error).movedim(-1, self.unit_dim)

    def directions(self, units: Int[Tensor, " some"]) -> Float[Tensor, "some d"]:
        """Return the derivative of the activation with respect to each of the given units."""
        w_dec = self.sae.w_dec
        of_error = torch.eye(self.sae.d).to(w_dec)
        return torch.cat([w_dec, of_error, self.sae.beside_rows])[units]

    def some_units(self, units: Int[Tensor, " some"]) -> Callable[[Tensor], Tensor]:
        """Return a function that computes only the given units of an activation, as cheaply as possible."""
        sae = self.sae
        # All latents must be computed for the error. They must also be computed for TopK, because it keeps the largest.
        if bool((units >= sae.n_features).any()):
            return lambda x: self.to_features(x).index_select(self.unit_dim, units)
        if sae.k is not None:
            return lambda x: self.latents(x).index_select(self.unit_dim, units)
        smaller = replace(
            sae,
            w_enc=sae.w_enc[:, units],
            b_enc=sae.b_enc[units],
            w_dec=sae.w_dec[units],
            threshold=None if sae.threshold is None else sae.threshold[units],
        )
        return replace(self, sae=smaller).latents

    def latents(self, x: Float[Tensor, "..."]) -> Float[Tensor, "..."]:
        """Return the latents of an activation, without the other units."""
        return self._encoded(x.movedim(self.unit_dim, -1))[0].movedim(-1, self.unit_dim)

    def of_block(self, block: Block) -> Block:
        """Return a transformer block whose neurons are replaced by the units of this basis.

        The latents reconstruct what the MLP adds to the residual stream, and the error is the difference between this
        addition and its reconstruction. The step ``mlp_in`` of the returned block gives the pre-activations of the
        latents, multiplied by the scale of the input. After them it gives the error units, which no activation function
        changes. This step also runs the MLP itself, because the error depends on the output of the MLP.
        """
        sae = self.sae
        n = sae.n_features

        def before(read: Tensor) -> Tensor:
            out = block.mlp_out(block.activation(block.mlp_in(read)))
            encoded = read if isinstance(sae, Transcoder) else out
            pre = sae.in_scale(sae.before_activation(encoded), self._beside(encoded))
            rest = self.to_features(out, encoded)[..., n:]
            return torch.cat([pre, rest], self.unit_dim)

        def activated(pre: Tensor) -> Tensor:
            in_scale = pre[..., :n]
            rest = pre[..., n:]
            beside = rest[..., sae.d :]
            if sae.has_scale:
                # Thresholds and TopK apply in the scale of the autoencoder. For an input of zeros, `tiny` avoids 0 / 0.
                tiny = torch.finfo(pre.dtype).tiny
                in_scale = in_scale / beside[..., :1].clamp_min(tiny)
            latents = sae.in_scale(sae.activate(in_scale), beside)
            return torch.cat([latents, rest], self.unit_dim)

        return replace(
            block,
            n_neurons=self.error_units.stop,
            mlp_in=before,
            affine=False,
            activation=activated,
            mlp_out=self.from_features,
            error_units=self.error_units,
            kind=self.kind,
        )

    def _encoded(self, x: Tensor) -> tuple[Tensor, Tensor]:
        beside = self._beside(x)
        return self.sae.in_scale(self.sae.encode(x), beside), beside

    def _beside(self, x: Tensor) -> Tensor:
        beside = self.sae.beside(x)
        if self.acts is None:
            return beside
        # At all other tokens these numbers become zero. So do the latents there, as `in_scale` multiplies by the first.
        return beside * self.acts
