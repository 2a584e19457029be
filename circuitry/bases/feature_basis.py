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

A circuit says whether it keeps the error (``keep_error``).

Some reconstructions take more from their input than latents; see `latent_basis`. That is made linear, too, by further
units, the last of the error's:

    inputs scaled to length one   the length n = |x|, with f = n encode(x):     x = f W_dec + n b_dec + e
    layer-normed inputs           deviation s and mean m, with f = s encode(x): x = f W_dec + s b_dec + m + e
    some tokens alone             t, one there and zero elsewhere:              x = f W_dec + t b_dec + e

Zero is then x = 0, and where there are no latents the error is x. Where the error is ablated the share of b_dec goes to
the baseline, too: take a mean baseline to keep it about where it was.

An MLP is read in the basis of a transcoder, or of an autoencoder of its output, in place of its neurons
(`in_components`): y = f W_dec + b_dec + W_skip u + e, with u what the MLP reads, y what it adds to the residual stream,
and W_skip u as further units of the error's. Edges then run between its latents, heads, and other neurons and latents
through the residual stream.
"""

from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial

import torch
from torch import Tensor

from circuitry.bases.components import in_components
from circuitry.bases.latent_basis import FeatureBasis, sae_digest
from circuitry.bases.sae import SparseAutoencoder, Transcoder
from circuitry.encoder.encoder import Encoder
from circuitry.encoder.narrowing import in_order, narrow_stage
from circuitry.encoder.sites import INPUT
from circuitry.encoder.stages import NarrowStage, Stage
from circuitry.encoder.tokens import CLASS_TOKEN
from circuitry.runs.errors import InputError, unknown_name
from circuitry.runs.given import checked
from circuitry.runs.identity import OF_TOWER, Identity


@checked
def in_feature_basis(
    encoder: Encoder, saes: Mapping[str, SparseAutoencoder]
) -> Encoder:
    """Return an encoder on the same tower whose activations at some sites are latents and error of autoencoders.

    Units 0 to F - 1 of such a site are the latents, the others the error: ``error_units[site]`` of the encoder.
    The tower's units are the channels of [B, C, H, W], encoded at each position, or the features of [B, L, C] and
    [B, C]. Of an encoder in heads and neurons, neurons of an MLP may be replaced by latents of what it writes.

    Args:
        encoder: The encoder, on its device and in its precision, to which the autoencoders are moved.
        saes: Autoencoders and transcoders by site, or by TransformerLens' name of the place (`site_named`).

    Raises:
        InputError: for an unknown site or `input`, a site that is in a feature basis already, an autoencoder of
            another site or width, or one of tokens that the tower does not have.

    Example:
        >>> features = in_feature_basis(clip.encoder, {"layer3.0": sae})
        >>> graph = attribute(features, images, metric)
        >>> graph.node_scores["layer3.0"]                       # effect of every latent
        >>> graph.error_scores["layer3.0"].sum()                # effect of what the autoencoder misses
        >>> measure_circuits(Task(features, images, metric), [replace(graph.circuit(None), keep_error=True)])
        >>> in_feature_basis(in_components(encoder), {"blocks.8.hook_mlp_out": transcoder})
    """
    if not saes:
        return encoder
    bases = _checked(encoder, saes)
    mlps = {
        stage.site: stage.block for stage in encoder.stages if stage.block is not None
    }
    if replaced := {
        site: bases.pop(site).of_block(mlps[site]) for site in mlps if site in bases
    }:
        if other := [site for site in encoder.error_units if site not in mlps]:
            raise InputError(
                f"MLPs are read in latents before other sites are, but {', '.join(other)} is in a feature basis "
                "already: give all autoencoders at once."
            )
        encoder = in_components(encoder.in_channels(), mlps | replaced)
    stages: list[Stage] = []
    before: FeatureBasis | None = None
    for stage, previous in zip(encoder.stages, encoder.sites, strict=False):
        after = bases.get(stage.site)
        stages.append(_between(stage, before, after, encoder.unit_dim(previous)))
        before = after
    if before is not None:
        stages.append(
            Stage(f"{encoder.sites[-1]}.decoded", before.from_features, before.unit_dim)
        )
    return Encoder(
        encoder.tower,
        stages,
        encoder.image_size,
        points=encoder.points,
        chain=encoder.chain,
    )


def site_named(encoder: Encoder, name: str) -> str:
    """Return the site of an encoder that a name means.

    Args:
        name: A site; ``embedding``; or TransformerLens' name of the output of a block (``blocks.8.hook_resid_post``) or
            of its MLP (``blocks.8.hook_mlp_out``, a site of encoders in heads and neurons). Negative numbers count
            from the last block.

    Raises:
        InputError: for a name of no site; the message shows sites that come close.

    Example:
        >>> site_named(load_clip("ViT-B-32", pretrained="openai").encoder, "blocks.-2.hook_resid_post")
        'transformer.resblocks.10'
    """
    if name in encoder.sites:
        return name
    blocks = list(encoder.chain.blocks)
    named = {"embedding": encoder.sites[-1]}
    for i, path in enumerate(blocks):
        for number in (i, i - len(blocks)):
            named |= {
                f"blocks.{number}.hook_resid_post": path,
                f"blocks.{number}.hook_mlp_out": f"{path}.mlp",
            }
    site = named.get(name, name)
    if site in encoder.sites:
        return site
    if name in named or site in named.values():
        has, lacks = (
            ("heads and neurons", "outputs")
            if encoder.carried
            else ("channels", "MLPs")
        )
        raise InputError(
            f"{name!r} is {site!r} of this tower, but an encoder in {has} has no {lacks} of blocks as sites: give "
            f"{'clip.encoder itself' if encoder.carried else 'clip.in_components()'} "
            f"(--units {'channels' if encoder.carried else 'components'} of a script)."
        )
    raise unknown_name("site", name, encoder.sites)


def _between(
    stage: Stage, before: FeatureBasis | None, after: FeatureBasis | None, up_dim: int
) -> Stage:
    """Return the stage that reads the basis of the site before it and writes the basis of its own site."""
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
            inner = narrow_stage(
                stage.fast or stage.run, columns, rows, up_dim, stage.unit_dim
            )
        return _narrow_in_basis(inner, before, after, up, down)

    return replace(
        stage,
        run=in_basis(stage.run),
        fast=None if stage.fast is None else in_basis(stage.fast),
        narrow=narrowed,
        error_units=stage.error_units if after is None else after.error_units,
        basis=stage.basis if after is None else partial(sae_digest, after.sae),
    )


def _narrow_in_basis(
    run: NarrowStage,
    before: FeatureBasis | None,
    after: FeatureBasis | None,
    up: Tensor,
    down: Tensor,
) -> NarrowStage:
    """Return a narrowed stage for some units of the bases.

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


def _checked(
    encoder: Encoder, given: Mapping[str, SparseAutoencoder]
) -> dict[str, FeatureBasis]:
    saes = {site_named(encoder, name): sae for name, sae in given.items()}
    for site, sae in saes.items():
        if sae.about.keys() & set(OF_TOWER):
            Identity(sae.about).check(
                encoder.identity,
                f"the autoencoder given for {site!r}",
                "the encoder",
                OF_TOWER,
            )
        if encoder.position(site) == 0:
            raise InputError(
                f"A feature basis is one of activations, but {INPUT!r} is the image itself: give a site after it."
            )
        if site in encoder.error_units:
            raise InputError(
                f"Site {site!r} is in a feature basis already: start from the encoder without it."
            )
        if sae.site is not None and site_named(encoder, sae.site) != site:
            raise InputError(
                f"The sparse autoencoder given for site {site!r} is of {sae.site!r}: give one of {site!r}, or "
                "dataclasses.replace(sae, site=None) where both names mean the same place."
            )
    with encoder.running():
        _, cache = encoder.run_with_cache(encoder.blank(), names_filter=list(saes))
    return {site: _basis(encoder, site, sae, cache[site]) for site, sae in saes.items()}


def _basis(
    encoder: Encoder, site: str, sae: SparseAutoencoder, activation: Tensor
) -> FeatureBasis:
    """Return the basis of an autoencoder after checking that it fits the site."""
    block = encoder.stages[encoder.position(site) - 1].block
    units = activation.shape[encoder.unit_dim(site)] if block is None else block.width
    if units != sae.d:
        what = (
            "units"
            if block is None
            else "dimensions of the stream that its MLP writes to"
        )
        raise InputError(
            f"Site {site!r} has {units} {what}, but its sparse autoencoder encodes vectors of width {sae.d}: "
            "give one trained at this site of this model."
        )
    if block is None and isinstance(sae, Transcoder):
        raise InputError(
            f"A transcoder is of an MLP, but {site!r} is no site of one: give clip.in_components() and the site of "
            "neurons that it replaces."
        )
    moved = sae.to(encoder.device, encoder.dtype)
    return FeatureBasis(
        moved, encoder.unit_dim(site), tokens_of(sae, encoder, activation)
    )


def tokens_of(
    sae: SparseAutoencoder, encoder: Encoder, activation: Tensor
) -> Tensor | None:
    """Return one at the tokens [token, 1] that an autoencoder is of, zero at the others; none where it is of all."""
    if sae.tokens == "all":
        return None
    grid = encoder.token_grid
    first = [sae.tokens == "class" and name == CLASS_TOKEN for name in grid.first]
    chosen = [*first, *[sae.tokens == "patches"] * (len(grid) - len(first))]
    if not any(chosen) or activation.dim() != 3 or activation.shape[1] != len(grid):
        raise InputError(
            f"This sparse autoencoder is of {sae.tokens} tokens of {len(grid)}, but the activation is "
            f"{list(activation.shape)} and the tower's first tokens are {', '.join(grid.first) or 'patches'}: give one "
            "of this place."
        )
    return torch.tensor(chosen, device=activation.device).to(activation)[:, None]
