"""Features of sparse autoencoders as units of circuits (Marks et al. 2024, arXiv 2403.19647).

If some sites of a tower are in the basis of a sparse autoencoder, the chain of stages changes:

1. The stage that ends at such a site writes the latents f and the error e along the axis of the units, at every
   position: f = encode(x) and e = x - decode(f), where x is the activation of the tower.
2. The next stage first computes x = decode(f) + e, and then runs as before.
3. If the last site of the tower is in such a basis, a further stage computes x, so that the chain ends in the
   embedding.

If no unit is changed, the outputs equal the outputs of the tower up to rounding. All functions that take sites treat
latents as they treat channels. x is affine in f and e. So a straight path between two activations in the basis is a
straight path of x, and the effects of the latents and of the error sum to the effect of the site. Zero latents and zero
error give x = b_dec. The mean latents and the mean error give the mean of x.

Whether a circuit keeps the error is a setting (``keep_error``).

Some reconstructions need a number that is computed from the input, besides the latents; see `latent_basis`. This number
becomes a further unit after the error, so that x stays affine in the units:

    inputs scaled to length one   the length n = |x|, with f = n encode(x):                x = f W_dec + n b_dec + e
    layer-normed inputs           the deviation s and the mean m, with f = s encode(x):    x = f W_dec + s b_dec + m + e
    latents at some tokens only   t = 1 at these tokens and 0 at all other tokens:         x = f W_dec + t b_dec + e

Then x = 0 if all units are zero. At tokens without latents the error is x. An ablation of the error ablates these
further units, too. Each of the three formulas multiplies b_dec by a further unit, so the ablation also changes this
term. The change is small if the baseline is a mean.

The neurons of an MLP can be replaced by the latents of a transcoder, or by the latents of an autoencoder of the MLP's
output (`in_components`): y = f W_dec + b_dec + W_skip u + e. Here u is the input of the MLP, y is what the MLP adds to
the residual stream, and W_skip u becomes further units after the error. The latents then write to the residual stream
as neurons do, and edges join them to the heads and to the neurons or latents of other MLPs.
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
from circuitry.runs.arguments import checked
from circuitry.runs.errors import InputError, unknown_name
from circuitry.runs.identity import OF_TOWER, Identity


@checked
def in_feature_basis(
    encoder: Encoder, saes: Mapping[str, SparseAutoencoder]
) -> Encoder:
    """Return an encoder on the same tower whose units at some sites are the latents and the error of autoencoders.

    At such a site the units 0 to F - 1 are the F latents. The units after the latents hold the error, and for some
    autoencoders further numbers; their indices are ``error_units[site]`` of the encoder. An autoencoder encodes the
    vector of channels at each position of an activation: [B, C, H, W], [B, L, C] or [B, C]. In an encoder of heads and
    neurons, the latents of an MLP's output can replace the neurons of the MLP.

    Args:
        encoder: The encoder. The autoencoders are moved to its device and its precision.
        saes: Autoencoders and transcoders by site, or by TransformerLens' name of the site (`site_named`).

    Raises:
        InputError: if a site is unknown, is `input`, or is in a feature basis already; if an autoencoder belongs to
            another site, another tower or another width; or if it was trained on tokens that the tower does not have.

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
    # At sites of neurons the block is replaced. At all other sites the stages before and after the site are changed.
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
    # There is one more site than there are stages: stage i begins at site i.
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
        encoder: The encoder.
        name: The site itself, ``embedding`` for the last site, or a name of TransformerLens:
            ``blocks.8.hook_resid_post`` is the output of a block, and ``blocks.8.hook_mlp_out`` is the output of its
            MLP (only in an encoder of heads and neurons). A negative index of a block counts from the last block.

    Raises:
        InputError: if the name is unknown. The message suggests similar sites.

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
    """Return a copy of a stage that reads and writes features at each site that has a feature basis.

    At a site without a feature basis, the copy reads or writes the units of the tower, as the stage does. If neither
    site has a feature basis, the stage itself is returned.

    Args:
        stage: The stage that reads and writes the units of the tower.
        before: Basis of the site that the stage reads, or None if this site has the units of the tower.
        after: Basis of the site that the stage writes, or None if this site has the units of the tower.
        up_dim: Axis of the tower's units at the site that the stage reads.
    """
    if before is None and after is None:
        return stage

    def in_basis(run: Step) -> Step:
        if before is not None:
            run = in_order(before.from_features, run)
        return run if after is None else in_order(run, after.to_features)

    def narrowed(up: Tensor, down: Tensor) -> NarrowStage:
        # A latent reads all units of the tower and writes to all of them. So on a side that is in a basis, the inner
        # stage keeps all units of the tower.
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
    """Return the `NarrowStage` of a stage that reads or writes a site in a feature basis.

    Args:
        run: `NarrowStage` of the same stage for units of the tower. If a site is in a basis, ``run`` has all units of
            the tower at this site. Otherwise it has only the chosen units.
        before: Basis of the site that the stage reads, or None if this site has the units of the tower.
        after: Basis of the site that the stage writes, or None if this site has the units of the tower.
        up: Indices of the chosen upstream units, which are latents and error units if ``before`` is given.
        down: Indices of the chosen downstream units, which are latents and error units if ``after`` is given.
    """
    # [kept units, d]: the activation is affine in the units. So a change of the units, multiplied by these directions,
    # is the change of the activation.
    directions = None if before is None else before.directions(up)
    kept = None if after is None else after.some_units(down)

    def narrow(x: Tensor, change: Tensor) -> Tensor:
        if before is not None and directions is not None:
            x = before.from_features(x)
            axis = before.unit_dim
            change = (change.movedim(axis, -1) @ directions).movedim(-1, axis)
        y = run(x, change)
        return y if kept is None else kept(y)

    return narrow


def _checked(
    encoder: Encoder, given: Mapping[str, SparseAutoencoder]
) -> dict[str, FeatureBasis]:
    """Return the basis of each autoencoder, by site.

    Raises:
        InputError: if an autoencoder belongs to another model or site, or if it cannot be used at its site.
    """
    saes = {site_named(encoder, name): sae for name, sae in given.items()}
    for site, sae in saes.items():
        # Autoencoders that this package trained name their tower. Autoencoders that others released do not.
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
    """Return a mask [token, 1] of the tokens that an autoencoder was trained on, such as the class token.

    Return None if the autoencoder was trained on all tokens. Raise `InputError` if the tower has no tokens of the kind
    that the autoencoder was trained on, or if ``activation`` is not an activation of the tower's tokens.
    """
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
