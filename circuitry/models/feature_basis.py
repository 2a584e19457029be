"""Features of sparse autoencoders as units of circuits (Marks et al. 2024, arXiv 2403.19647).

A tower is a chain of stages, so an encoder that is read in another basis at some sites is another chain:

1. the stage that ends at such a site writes [latents f, error e] along the axis of the units, at every position:
   f = encode(x), e = x - decode(f), with x the tower's own activation;
2. the next stage first reads x = decode(f) + e, then does what it did;
3. behind the last site of the tower a further stage does only step 2, so that the chain still ends in the embedding.

With nothing changed, outputs equal the tower's up to rounding. Everything that reads or writes at sites works
on latents as on channels. Reading is affine in f and e, so a straight path between two activations in the basis is a
straight path of x: the effects of latents and error sum to the site's effect. Zero latents and zero error are
x = b_dec; the mean of latents and error is the mean of x.

Whether a circuit keeps the error is said explicitly (``keep_error``).

An autoencoder of inputs scaled to length one is made linear by its input's length n = |x|: f = n encode(x), and
x = f W_dec + n b_dec + e. The length is one more unit, the last of the error's; zero is then x = 0. Where the error is
ablated the share of b_dec goes to the baseline, too: take a mean baseline to keep it about where it was.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields, replace

import torch
from jaxtyping import Float, Int
from torch import Tensor

from circuitry.models.encoder import Encoder
from circuitry.models.narrowing import in_order, narrow_stage
from circuitry.models.sae import SparseAutoencoder, load_sae
from circuitry.models.sites import INPUT
from circuitry.models.stages import NarrowStage, Stage
from circuitry.runs.errors import InputError
from circuitry.runs.given import checked
from circuitry.runs.provenance import digest, weights_digest


@checked
def in_feature_basis(encoder: Encoder, saes: Mapping[str, SparseAutoencoder]) -> Encoder:
    """Return an encoder on the same tower whose activations at some sites are latents and error of autoencoders.

    Units 0 to F - 1 of such a site are the latents, the others the error: ``error_units[site]`` of the encoder.
    The tower's units are the channels of [B, C, H, W], encoded at each position, or the features of [B, L, C] and
    [B, C].

    Args:
        encoder: The encoder, on its device and in its precision, to which the autoencoders are moved.
        saes: Autoencoders by site.

    Raises:
        InputError: for an unknown site or `input`, a site that is in a feature basis already, or an autoencoder of
            another site or width.

    Example:
        >>> features = in_feature_basis(clip.encoder, {"layer3.0": sae})
        >>> graph = attribute(features, images, metric)
        >>> graph.node_scores["layer3.0"]                       # effect of every latent
        >>> graph.error_scores["layer3.0"].sum()                # effect of what the autoencoder misses
        >>> faithfulness_curve(Task(features, images, metric), graph, AblationSettings(keep_error=True))
    """
    bases = _checked(encoder, saes)
    stages: list[Stage] = []
    before: _Basis | None = None
    for stage, previous in zip(encoder.stages, encoder.sites, strict=False):
        after = bases.get(stage.site)
        stages.append(_between(stage, before, after, encoder.unit_dim(previous)))
        before = after
    if before is not None:
        stages.append(Stage(f"{encoder.sites[-1]}.decoded", before.from_features, before.unit_dim))
    return Encoder(encoder.tower, stages, encoder.image_size)


@dataclass(frozen=True, eq=False)
class _Basis:
    """A change of basis at a site: from the tower's activation to latents and error, and back."""

    sae: SparseAutoencoder
    unit_dim: int
    """Axis of the units."""

    @property
    def error_units(self) -> range:
        """The units behind the latents: error and, for inputs scaled to length one, length."""
        first = self.sae.n_features
        return range(first, first + self.sae.d + self.sae.normalised)

    def to_features(self, x: Float[Tensor, "..."]) -> Float[Tensor, "..."]:
        """Return latents, error and, for inputs scaled to length one, length of the tower's activation."""
        x = x.movedim(self.unit_dim, -1)
        latents = self._encoded(x)
        length = [x.norm(dim=-1, keepdim=True)] if self.sae.normalised else []
        return torch.cat([latents, x - self._decoded(latents, *length), *length], -1).movedim(-1, self.unit_dim)

    def from_features(self, units: Float[Tensor, "..."]) -> Float[Tensor, "..."]:
        """Return the tower's activation of latents, error and length."""
        sizes = [self.sae.n_features, self.sae.d, *([1] if self.sae.normalised else [])]
        latents, error, *length = torch.split(units.movedim(self.unit_dim, -1), sizes, -1)
        return (self._decoded(latents, *length) + error).movedim(-1, self.unit_dim)

    def directions(self, units: Int[Tensor, " some"]) -> Float[Tensor, "some d"]:
        """Return what one more of each of these units adds to the tower's activation."""
        sae = self.sae
        rows = [sae.w_dec, torch.eye(sae.d).to(sae.w_dec), *([sae.b_dec[None]] if sae.normalised else [])]
        return torch.cat(rows)[units]

    def some_units(self, units: Int[Tensor, " some"]) -> Callable[[Tensor], Tensor]:
        """Return what makes these units of the tower's activation, with as little of the autoencoder as they need.

        Error needs all latents, and so do latents that compete with each other, as those of TopK do.
        """
        sae, axis = self.sae, self.unit_dim
        if bool((units >= sae.n_features).any()):
            return lambda x: self.to_features(x).index_select(axis, units)
        if sae.k is not None:
            return lambda x: self._encoded(x.movedim(axis, -1)).index_select(-1, units).movedim(-1, axis)
        threshold = None if sae.threshold is None else sae.threshold[units]
        w_enc, b_enc, w_dec = sae.w_enc[:, units], sae.b_enc[units], sae.w_dec[units]
        small = replace(self, sae=replace(sae, w_enc=w_enc, b_enc=b_enc, w_dec=w_dec, threshold=threshold))
        return lambda x: small._encoded(x.movedim(axis, -1)).movedim(-1, axis)

    def _encoded(self, x: Tensor) -> Tensor:
        latents = self.sae.encode(x)
        return latents * x.norm(dim=-1, keepdim=True) if self.sae.normalised else latents

    def _decoded(self, latents: Tensor, length: Tensor | None = None) -> Tensor:
        return self.sae.decode(latents) if length is None else latents @ self.sae.w_dec + length * self.sae.b_dec


def _between(stage: Stage, before: _Basis | None, after: _Basis | None, up_dim: int) -> Stage:
    """Return the stage that reads the basis of the site before it, and writes that of its own."""
    if before is None and after is None:
        return stage

    def in_basis(run: Callable[[Tensor], Tensor]) -> Callable[[Tensor], Tensor]:
        first = [] if before is None else [before.from_features]
        return in_order(*first, run, *([] if after is None else [after.to_features]))

    def narrowed(up: Tensor, down: Tensor) -> NarrowStage:
        columns = up if before is None else torch.arange(before.sae.d, device=up.device)
        rows = down if after is None else torch.arange(after.sae.d, device=down.device)
        if stage.narrow is not None:
            inner = stage.narrow(columns, rows)
        else:
            inner = narrow_stage(stage.fast or stage.run, columns, rows, up_dim, stage.unit_dim)
        return _narrow_in_basis(inner, before, after, up, down)

    return replace(
        stage,
        run=in_basis(stage.run),
        fast=None if stage.fast is None else in_basis(stage.fast),
        narrow=narrowed,
        error_units=stage.error_units if after is None else after.error_units,
        basis=stage.basis if after is None else sae_digest(after.sae),
    )


def _narrow_in_basis(
    run: NarrowStage, before: _Basis | None, after: _Basis | None, up: Tensor, down: Tensor
) -> NarrowStage:
    """Return a narrowed stage for kept units of the bases.

    ``run`` is in the tower's own units: it takes the change of all of them, or of the kept ones where the site before
    is in no basis; it gives all of them, or the kept ones where its own site is in none.
    """
    directions = None if before is None else before.directions(up)
    kept = None if after is None else after.some_units(down)

    def narrow(x: Tensor, change: Tensor) -> Tensor:
        if before is not None and directions is not None:
            x, axis = before.from_features(x), before.unit_dim
            change = (change.movedim(axis, -1) @ directions).movedim(-1, axis)
        y = run(x, change)
        return y if kept is None else kept(y)

    return narrow


def _checked(encoder: Encoder, saes: Mapping[str, SparseAutoencoder]) -> dict[str, _Basis]:
    for site, sae in saes.items():
        if encoder.position(site) == 0:
            raise InputError(
                f"A feature basis is one of activations, but {INPUT!r} is the image itself: give a site after it."
            )
        if site in encoder.error_units:
            raise InputError(f"Site {site!r} is in a feature basis already: start from the encoder without it.")
        if sae.site not in (None, site):
            raise InputError(
                f"The sparse autoencoder given for site {site!r} is of {sae.site!r}: give one of {site!r}, or "
                "dataclasses.replace(sae, site=None) where both names mean the same place."
            )
    blank = torch.zeros(1, 3, *encoder.image_size, device=encoder.device, dtype=encoder.dtype)
    with torch.no_grad(), encoder.frozen():
        _, cache = encoder.run_with_cache(blank, names_filter=list(saes))
    for site, sae in saes.items():
        units = cache[site].shape[encoder.unit_dim(site)]
        if units != sae.d:
            raise InputError(
                f"Site {site!r} has {units} units, but its sparse autoencoder encodes vectors of width {sae.d}: "
                "give one trained at this site of this model."
            )
    return {site: _Basis(sae.to(encoder.device, encoder.dtype), encoder.unit_dim(site)) for site, sae in saes.items()}


def sae_digest(sae: SparseAutoencoder) -> str:
    """Return a short digest of what an autoencoder computes: weights, activation, scaling."""
    values = {f.name: getattr(sae, f.name) for f in fields(sae) if f.name not in ("site", "about")}
    tensors = {name: value for name, value in values.items() if isinstance(value, Tensor)}
    plain = {name: value for name, value in values.items() if name not in tensors}
    return digest([weights_digest(tensors), plain])


@checked
def parse_saes(arguments: Sequence[str]) -> dict[str, SparseAutoencoder]:
    """Read the autoencoders that a command line names.

    Raises:
        InputError: for an argument that is not SITE=PATH, a site named twice, and what `load_sae` raises.

    Example:
        >>> parse_saes(["layer3.0=runs/sae.safetensors"])["layer3.0"].n_features
        4096
    """
    found: dict[str, SparseAutoencoder] = {}
    for argument in arguments:
        site, equals, path = argument.partition("=")
        if not (site and equals and path) or site in found:
            raise InputError(
                f"Expected one autoencoder per site as SITE=PATH, such as layer3.0=sae.safetensors, but {argument!r} "
                f"was given{' after another one of that site' if site in found else ''}."
            )
        found[site] = load_sae(path)
    return found
