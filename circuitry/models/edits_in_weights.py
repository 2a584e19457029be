"""The weights of a model after removing a part: units are ablated to their means in the weights, and not by hooks.

A unit u that always has its mean m is written by other weights. There are two ways; the first that gives the same
embeddings as the ablation is taken, site by site:

- The norm before the units gets the weight 0 and the bias m for u. This needs act(m) = m for what comes after the norm:
  nothing, a ReLU, or a ReLU6 for means of at most 6.
- The linear layer or 1 x 1 convolution that reads the units reads u no more, and what m would add is added once: to its
  bias, or taken from the running mean of the batch norm after it.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn.functional import normalize
from torch.utils.hooks import RemovableHandle

from circuitry.encoder.baselines import Baseline
from circuitry.encoder.encoder import Encoder
from circuitry.encoder.sites import INPUT
from circuitry.encoder.unit_kinds import UnitKind
from circuitry.gates.patches import Patch, patched
from circuitry.runs.arguments import checked
from circuitry.runs.errors import InputError

Changes = dict[str, Tensor]
"""New values of weights, by their names in the tower."""
Ran = list[list[tuple[str, nn.Module]]]
"""The norms and linear modules that each stage runs, with their names, in order."""
TOLERANCE = 3e-5
"""Largest distance between embeddings of length 1 by the edited weights and by the ablation."""
ROUNDING = 2e-6
"""A distance between embeddings that rounding alone may give."""

_KINDS = (nn.BatchNorm2d, nn.LayerNorm, nn.Conv2d, nn.Linear)
"""Modules whose weights may be changed."""


@checked
def edited_weights(
    encoder: Encoder,
    patches: Sequence[Patch],
    images: Float[Tensor, "images 3 h w"],
) -> Changes:
    """Return the weights of a tower that change when units are set to a baseline for good.

    The edited tower gives the same embeddings as the patched encoder. A weight has one value for all positions: where a
    baseline differs between positions, its mean over them is taken, and `embedding_distance` says how far that is off.

    Args:
        encoder: The encoder of the units.
        patches: Units, and the baseline that they are set to, the same for all images. `Clip.without` makes them.
        images: A few images, on which the ways to write a unit are compared with the patches.

    Returns:
        New values by name of the weight, as in the state dict of ``encoder.tower``.

    Raises:
        InputError: if a patch has positions or another value than a baseline for all images, or if the units of a site
            cannot be written as weights, such as the residual stream of a transformer.

    Example:
        >>> from circuitry.models import edited_weights
        >>> hidden = circuitry.in_components(encoder)
        >>> means = circuitry.mean_baseline(hidden, images, "unit", progress=False)
        >>> changed = edited_weights(hidden, [circuitry.Patch("layer1.0.act1", means, units=[3])], images)
        >>> state = encoder.tower.state_dict() | changed
    """
    with encoder.running():
        clean = encoder.read_unhooked(images[:1], {patch.site for patch in patches})
        by_site = dict[str, list[Patch]]()
        for patch in patches:
            flat = _mean_over_positions(patch, clean[patch.site], encoder)
            by_site.setdefault(patch.site, []).append(flat)
        ran = _modules_run(encoder, images)
        # Mostly the first way is right at all sites, and one look shows it.
        together = Changes()
        for of_site in by_site.values():
            ways = _candidates(encoder, of_site, ran)
            together |= next(ways, Changes())
        every = [patch for of_site in by_site.values() for patch in of_site]
        if _same(encoder, every, together, images):
            return together
        changed = Changes()
        for site, of_site in by_site.items():
            ways = _candidates(encoder, of_site, ran)
            right = (way for way in ways if _same(encoder, of_site, way, images))
            change = next(right, None)
            if change is None:
                raise InputError(
                    f"Units of {site} cannot be written as weights of this {type(encoder.tower).__name__}: no "
                    "norm before them and no linear layer after them does the same. Find the part at other sites "
                    "(sites=), or use the model that clip.without returns in Python."
                )
            changed |= change
    return changed


def embedding_distance(
    encoder: Encoder, change: Mapping[str, Tensor], images: Tensor
) -> float:
    """Return the largest distance between embeddings of length 1 by an encoder and by its tower with changed weights.

    It is 0 for the same answers, and at most 2.
    """
    with encoder.running():
        wanted = normalize(encoder(images), dim=-1)
        given = functional_call(encoder.tower, dict(change), (images,))
    return float((normalize(given, dim=-1) - wanted).norm(dim=-1).max())


def _same(
    encoder: Encoder, patches: Sequence[Patch], change: Changes, images: Tensor
) -> bool:
    """Return whether changed weights give the same embeddings as some patches, up to rounding."""
    with patched(encoder, patches):
        moved = embedding_distance(encoder, {}, images)
        left = embedding_distance(encoder, change, images)
    # A wrong way is near, too, where the units do little.
    return left <= min(TOLERANCE, max(moved / 100, ROUNDING))


def _mean_over_positions(patch: Patch, clean: Tensor, encoder: Encoder) -> Patch:
    """Return a patch that writes at every position what the given patch writes in the mean over positions.

    Args:
        patch: The patch.
        clean: Activation of its site for one image.
        encoder: The encoder.
    """
    baseline = patch.value
    is_one = isinstance(baseline, Baseline) and baseline.n_images is None
    if not is_one or patch.positions is not None:
        raise InputError(
            f"Weights hold units that are set to one baseline for all images, but the patch at {patch} is of another "
            "kind: give Patch(site, baseline, units) with zero or with means over images."
        )
    assert isinstance(baseline, Baseline)
    value = baseline.at(patch.site, clean)
    kind = encoder.kinds[patch.site]
    kept = {0, kind.axis % value.dim()}
    if kind.is_vector:
        kept.add(value.dim() - 1)
    positions = [axis for axis in range(value.dim()) if axis not in kept]
    if positions:
        value = value.mean(positions, keepdim=True).expand_as(value)
    return replace(patch, value=Baseline(baseline.name, {patch.site: value}))


def _candidates(
    encoder: Encoder, patches: Sequence[Patch], ran: Ran
) -> Iterator[Changes]:
    """Yield changes of weights that may set the units of a site to what some patches write.

    Args:
        encoder: The encoder.
        patches: Patches of one site, which write the same at all positions.
        ran: The result of `_modules_run`.
    """
    site = patches[0].site
    if site == INPUT:
        return
    n_units = encoder.count_units([site])[site]
    chosen = list[int]()
    values = list[Tensor]()
    for patch in patches:
        places = patch.places("units")
        own = range(n_units) if places is None else places.indices
        assert isinstance(patch.value, Baseline)
        means = _means(patch.value.values[site], encoder.kinds[site])
        chosen += own
        values.append(means[list(own)])
    of_units = torch.cat(values)
    units = torch.tensor(chosen, device=of_units.device)
    place = [stage.site for stage in encoder.stages].index(site)
    # A shortcut may be computed between the units and their site.
    before = [*ran[max(place - 1, 0)], *ran[place]] if place else ran[0]
    after = [*ran[place], *(ran[place + 1] if place + 1 < len(ran) else [])]
    for name, module in reversed(before):
        if not isinstance(module, nn.BatchNorm2d | nn.LayerNorm):
            continue
        if module.bias is not None and len(module.bias) == n_units:
            weight = module.weight.clone()
            bias = module.bias.clone()
            weight[units] = 0
            bias[units] = of_units[:, 0]
            # The mean is what the norm now gives for u.
            yield {f"{name}.weight": weight, f"{name}.bias": bias}
    size = of_units.shape[1]
    columns = (units[:, None] * size + torch.arange(size).to(units)).flatten()
    for position, (name, module) in enumerate(after):
        if not isinstance(module, nn.Linear | nn.Conv2d):
            continue
        if not _reads(module, n_units * size):
            continue
        weight = module.weight.clone()
        added = weight[:, columns].flatten(1) @ of_units.flatten()
        weight[:, columns] = 0
        change = {f"{name}.weight": weight}
        if module.bias is not None:
            yield change | {f"{name}.bias": module.bias + added}
            continue
        for norm_name, norm in after[position + 1 :]:
            if isinstance(norm, nn.BatchNorm2d) and norm.running_mean is not None:
                yield change | {f"{norm_name}.running_mean": norm.running_mean - added}
                break


def _means(values: Tensor, kind: UnitKind) -> Tensor:
    """Return the mean of each unit [units, size]; a head has as many numbers as it has dimensions.

    Args:
        values: The means at all positions [1, ...], where they are the same.
    """
    by_unit = values.movedim(kind.axis, 0)
    size = by_unit.shape[-1] if kind.is_vector else 1
    return by_unit.reshape(len(by_unit), -1)[:, :size]


def _reads(module: nn.Linear | nn.Conv2d, width: int) -> bool:
    """Return whether a module is a linear layer, or a 1 x 1 convolution, of so many inputs."""
    if isinstance(module, nn.Conv2d):
        plain = module.kernel_size == (1, 1) and module.groups == 1
        return plain and module.in_channels == width
    return module.in_features == width


def _modules_run(encoder: Encoder, images: Tensor) -> list[list[tuple[str, nn.Module]]]:
    """Return the norms and linear modules that each stage runs, with their names, in order."""
    ran = list[tuple[str, nn.Module]]()

    def record(name: str, module: nn.Module, *_: object) -> None:
        ran.append((name, module))

    hooks = list[RemovableHandle]()
    for name, module in encoder.tower.named_modules():
        if isinstance(module, _KINDS):
            hooks.append(module.register_forward_hook(partial(record, name)))
    of_stages = Ran()
    x = images
    try:
        for stage in encoder.stages:
            ran.clear()
            x = stage.run(x)
            of_stages.append(list(ran))
    finally:
        for hook in hooks:
            hook.remove()
    return of_stages
