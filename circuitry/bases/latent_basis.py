"""A change of basis: an activation as latents of an autoencoder and error, and back; see `feature_basis`.

Units are, in order, the latents f, the error e, and what the reconstruction takes besides them (the autoencoder's
``beside``). Going back is linear in all of them, up to a constant: x = f W_dec + e + beside rows (+ b_dec).
"""

from collections.abc import Callable
from dataclasses import dataclass, fields, replace
from functools import partial
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from circuitry.bases.blocks import Block
from circuitry.bases.sae import SparseAutoencoder, Transcoder
from circuitry.runs.provenance import digest, weights_digest


@dataclass(frozen=True, eq=False)
class FeatureBasis:
    """The basis of an autoencoder at a site of a tower."""

    sae: SparseAutoencoder
    unit_dim: int
    """Axis of the units."""
    acts: Float[Tensor, "position 1"] | None = None
    """One at the tokens that the autoencoder is of, zero at the others; None where it is of all positions."""

    @property
    def error_units(self) -> range:
        """The units behind the latents: the error and what stands beside the latents."""
        first = self.sae.n_features
        return range(first, first + self.sae.d + len(self.sae.beside_rows))

    def to_features(
        self, x: Float[Tensor, "..."], read: Float[Tensor, "..."] | None = None
    ) -> Float[Tensor, "..."]:
        """Return the units of an activation; a transcoder encodes ``read`` in its place."""
        x = x.movedim(self.unit_dim, -1)
        latents, beside = self._encoded(
            x if read is None else read.movedim(self.unit_dim, -1)
        )
        error = x - self.sae.recompose(latents, beside)
        return torch.cat([latents, error, beside], -1).movedim(-1, self.unit_dim)

    def from_features(self, units: Float[Tensor, "..."]) -> Float[Tensor, "..."]:
        """Return the activation of its units."""
        sizes = [self.sae.n_features, self.sae.d, len(self.sae.beside_rows)]
        latents, error, beside = torch.split(
            units.movedim(self.unit_dim, -1), sizes, -1
        )
        return (self.sae.recompose(latents, beside) + error).movedim(-1, self.unit_dim)

    def directions(self, units: Int[Tensor, " some"]) -> Float[Tensor, "some d"]:
        """Return what one more of each of these units adds to the activation."""
        sae = self.sae
        return torch.cat([sae.w_dec, torch.eye(sae.d).to(sae.w_dec), sae.beside_rows])[
            units
        ]

    def some_units(self, units: Int[Tensor, " some"]) -> Callable[[Tensor], Tensor]:
        """Return what makes these units of an activation, with as little of the autoencoder as they need.

        The error needs all latents, and so do latents that compete with each other, as in TopK.
        """
        sae, axis = self.sae, self.unit_dim
        if bool((units >= sae.n_features).any()):
            return lambda x: self.to_features(x).index_select(axis, units)
        if sae.k is not None:
            return lambda x: self.latents(x).index_select(axis, units)
        threshold = None if sae.threshold is None else sae.threshold[units]
        w_enc, b_enc, w_dec = sae.w_enc[:, units], sae.b_enc[units], sae.w_dec[units]
        return replace(
            self,
            sae=replace(
                sae, w_enc=w_enc, b_enc=b_enc, w_dec=w_dec, threshold=threshold
            ),
        ).latents

    def latents(self, x: Float[Tensor, "..."]) -> Float[Tensor, "..."]:
        """Return the latents of an activation alone."""
        return self._encoded(x.movedim(self.unit_dim, -1))[0].movedim(-1, self.unit_dim)

    def of_block(self, block: Block) -> Block:
        """Return a transformer block whose neurons are latents and error of what its MLP adds to the residual stream.

        Pre-activations of the latents come first, in their scale, then the units that have no nonlinearity.
        """
        sae, axis, n = self.sae, self.unit_dim, self.sae.n_features

        def before(read: Tensor) -> Tensor:
            out = block.mlp_out(block.activation(block.mlp_in(read)))
            encoded = read if isinstance(sae, Transcoder) else out
            pre = sae.in_scale(sae.before_activation(encoded), self._beside(encoded))
            return torch.cat([pre, self.to_features(out, encoded)[..., n:]], axis)

        def activated(pre: Tensor) -> Tensor:
            latents, rest = pre[..., :n], pre[..., n:]
            beside = rest[..., sae.d :]
            if sae.has_scale:
                latents = latents / beside[..., :1].clamp_min(
                    torch.finfo(pre.dtype).tiny
                )
            return torch.cat([sae.in_scale(sae.activate(latents), beside), rest], axis)

        return replace(
            block,
            n_neurons=self.error_units.stop,
            mlp_in=before,
            affine=False,
            activation=activated,
            mlp_out=self.from_features,
            error_units=self.error_units,
            basis=partial(sae_digest, sae),
        )

    def _encoded(self, x: Tensor) -> tuple[Tensor, Tensor]:
        beside = self._beside(x)
        return self.sae.in_scale(self.sae.encode(x), beside), beside

    def _beside(self, x: Tensor) -> Tensor:
        found = self.sae.beside(x)
        return found if self.acts is None else found * self.acts


def sae_digest(sae: SparseAutoencoder) -> str:
    """Return a short digest of what an autoencoder computes: weights, activation, scaling."""
    values: dict[str, Any] = {
        f.name: getattr(sae, f.name)
        for f in fields(sae)
        if f.name not in ("site", "about")
    }
    tensors = {
        name: value for name, value in values.items() if isinstance(value, Tensor)
    }
    plain = {name: value for name, value in values.items() if name not in tensors}
    return digest([weights_digest(tensors), plain])
