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

from collections.abc import Mapping
from dataclasses import replace

import torch
from torch import Tensor

from circuitry.bases.components import in_components
from circuitry.bases.latent_basis import FeatureBasis
from circuitry.bases.sae import SparseAutoencoder, Transcoder
from circuitry.encoder.encoder import Encoder
from circuitry.encoder.narrowing import in_order, narrow_stage
from circuitry.encoder.sites import INPUT
from circuitry.encoder.stages import NarrowStage, Stage, Step
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
        >>> from circuitry.bases import SparseAutoencoder, in_feature_basis
        >>> width = encoder.read_unhooked(images, ["layer3.0"])["layer3.0"].shape[1]
        >>> directions = torch.eye(width)
        >>> sae = SparseAutoencoder(directions, torch.zeros(width), directions, torch.zeros(width))
        >>> features = in_feature_basis(encoder, {"layer3.0": sae})
        >>> features.kinds["layer3.0"].name, len(features.error_units["layer3.0"]) == width
        ('latent', True)
        >>> graph = circuitry.attribute(features, images, metric, method="gradient", progress=False)
        >>> graph.node_scores["layer3.0"].shape == (width,)     # the effect of every latent
        True
    """
    if not saes:
        return encoder
    bases = _checked(encoder, saes)
    blocks = {s.site: s.block for s in encoder.stages if s.block is not None}
    in_latents = {site: bases.pop(site) for site in blocks if site in bases}
    if in_latents:
        others = [site for site in encoder.error_units if site not in blocks]
        if others:
            raise InputError(
                f"MLPs are read in latents before other sites are, but {', '.join(others)} is in a feature basis "
                "already: give all autoencoders at once."
            )
        for site, basis in in_latents.items():
            blocks[site] = basis.of_block(blocks[site])
        encoder = in_components(encoder.in_channels(), blocks)

    stages: list[Stage] = []
    before: FeatureBasis | None = None
    for stage, previous in zip(encoder.stages, encoder.sites, strict=False):
        after = bases.get(stage.site)
        stages.append(_between(stage, before, after, encoder.unit_dim(previous)))
        before = after
    if before is not None:
        last = encoder.stages[-1]
        stages.append(Stage(f"{last.site}.decoded", before.from_features, last.units))
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
        >>> from circuitry.bases import site_named
        >>> site_named(vit.encoder, "blocks.1.hook_resid_post")
        'transformer.resblocks.1'
    """
    if name in encoder.sites:
        return name
    paths = list(encoder.chain.blocks)
    named = {"embedding": encoder.sites[-1]}
    for i, path in enumerate(paths):
        for number in (i, i - len(paths)):
            named[f"blocks.{number}.hook_resid_post"] = path
            named[f"blocks.{number}.hook_mlp_out"] = f"{path}.mlp"
    site = named.get(name, name)
    if site in encoder.sites:
        return site
    if site not in named.values():
        raise unknown_name("site", name, encoder.sites)
    why = "channels has no MLPs of blocks as sites: give clip.in_components() (--units components of a script)"
    if encoder.carried:
        why = (
            "heads and neurons has no outputs of blocks as sites: give clip.encoder itself "
            "(--units channels of a script)"
        )
    raise InputError(f"{name!r} is {site!r} of this tower, but an encoder in {why}.")


def _between(
    stage: Stage, before: FeatureBasis | None, after: FeatureBasis | None, up_dim: int
) -> Stage:
    """Return the stage that reads the basis of the site before it and writes the basis of its own site."""
    if before is None and after is None:
        return stage

    def in_basis(run: Step) -> Step:
        if before is not None:
            run = in_order(before.from_features, run)
        return run if after is None else in_order(run, after.to_features)

    def narrowed(up: Tensor, down: Tensor) -> NarrowStage:
        # Latents and error need all of the tower's own units.
        columns = up
        rows = down
        if before is not None:
            columns = torch.arange(before.sae.d, device=up.device)
        if after is not None:
            rows = torch.arange(after.sae.d, device=down.device)
        if stage.narrow is not None:
            inner = stage.narrow(columns, rows)
        else:
            run = stage.fast or stage.run
            inner = narrow_stage(run, columns, rows, up_dim, stage.unit_dim)
        return _narrow_in_basis(inner, before, after, up, down)

    read = replace(
        stage,
        run=in_basis(stage.run),
        fast=stage.fast and in_basis(stage.fast),
        narrow=narrowed,
    )
    if after is None:
        return read
    return replace(read, units=after.kind, error_units=after.error_units)


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
    units = activation.shape[encoder.unit_dim(site)]
    what = "units"
    if block is not None:
        units = block.width
        what = "dimensions of the stream that its MLP writes to"
    if units != sae.d:
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
    tokens = tokens_of(sae, encoder, activation)
    return FeatureBasis(moved, encoder.unit_dim(site), tokens)


def tokens_of(
    sae: SparseAutoencoder, encoder: Encoder, activation: Tensor
) -> Tensor | None:
    """Return [token, 1] with 1 at the tokens that an autoencoder was trained on, else 0; None where on all."""
    if sae.tokens == "all":
        return None
    grid = encoder.token_grid
    is_patch = sae.tokens == "patches"
    first = [not is_patch and name == CLASS_TOKEN for name in grid.first]
    chosen = first + [is_patch] * (len(grid) - len(first))
    if not any(chosen) or activation.dim() != 3 or activation.shape[1] != len(grid):
        raise InputError(
            f"This sparse autoencoder is of {sae.tokens} tokens of {len(grid)}, but the activation is "
            f"{list(activation.shape)} and the tower's first tokens are {', '.join(grid.first) or 'patches'}: give one "
            "of this place."
        )
    return torch.tensor(chosen, device=activation.device).to(activation)[:, None]
