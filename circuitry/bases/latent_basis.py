"""Change the basis of an activation to latents and error of an autoencoder, and back; see `feature_basis`.

The units are, in order, the latents f, the error e, and the numbers of the input that a reconstruction needs besides
the latents (``beside`` of the autoencoder). The way back is affine in all units: x = f W_dec + e + beside rows
(+ b_dec).
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
    """The basis of an autoencoder at a site of a tower."""

    sae: SparseAutoencoder
    unit_dim: int
    """Axis of the units in the activation."""
    acts: Float[Tensor, "position 1"] | None = None
    """Mask of the tokens that the autoencoder was trained on: 1 there, 0 elsewhere; None for all positions."""

    @property
    def kind(self) -> UnitKind:
        """Kind of the units, identified by the autoencoder."""
        return UnitKind("latent", self.unit_dim, made_of=self.sae)

    @property
    def error_units(self) -> range:
        """The units behind the latents: the error, then the numbers of ``beside``."""
        first = self.sae.n_features
        return range(first, first + self.sae.d + len(self.sae.beside_rows))

    def to_features(
        self, x: Float[Tensor, "..."], read: Float[Tensor, "..."] | None = None
    ) -> Float[Tensor, "..."]:
        """Return the units of an activation ``x``; a transcoder encodes ``read``, the MLP's input, instead of x."""
        x = x.movedim(self.unit_dim, -1)
        encoded = x if read is None else read.movedim(self.unit_dim, -1)
        latents, beside = self._encoded(encoded)
        error = x - self.sae.recompose(latents, beside)
        return torch.cat([latents, error, beside], -1).movedim(-1, self.unit_dim)

    def from_features(self, units: Float[Tensor, "..."]) -> Float[Tensor, "..."]:
        """Return the activation, given its units; the inverse of `to_features`."""
        sizes = [self.sae.n_features, self.sae.d, len(self.sae.beside_rows)]
        units_last = units.movedim(self.unit_dim, -1)
        latents, error, beside = torch.split(units_last, sizes, -1)
        return (self.sae.recompose(latents, beside) + error).movedim(-1, self.unit_dim)

    def directions(self, units: Int[Tensor, " some"]) -> Float[Tensor, "some d"]:
        """Return the derivative of the activation by each of these units."""
        w_dec = self.sae.w_dec
        of_error = torch.eye(self.sae.d).to(w_dec)
        return torch.cat([w_dec, of_error, self.sae.beside_rows])[units]

    def some_units(self, units: Int[Tensor, " some"]) -> Callable[[Tensor], Tensor]:
        """Return a function of an activation that computes only these units, as cheaply as possible."""
        sae = self.sae
        # The error needs all latents. So does TopK, whose latents compete with each other.
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
        """Return the latents of an activation, without error."""
        return self._encoded(x.movedim(self.unit_dim, -1))[0].movedim(-1, self.unit_dim)

    def of_block(self, block: Block) -> Block:
        """Return a transformer block whose neurons are latents and error of its MLP's addition to the residual stream.

        Its ``mlp_in`` gives pre-activations of the latents in the scale of the input, then the units without
        nonlinearity: error and ``beside``. The MLP itself runs in ``mlp_in``, since the error needs its output.
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
                # Thresholds and TopK hold in the autoencoder's own scale; tiny keeps an input of zeros from 0 / 0.
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
        # Zero at other tokens, and with it their latents, which are multiplied by it (`in_scale`).
        return beside * self.acts
