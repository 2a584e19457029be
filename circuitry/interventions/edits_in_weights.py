"""The weights of a model after removing a part: units are ablated to their means in the weights, and not by hooks.

A unit u that always has its mean m is written by other weights. There are two ways; the first that gives the same
embeddings as the ablation is taken, site by site:

- The batch norm before the units gets the weight 0 and the bias m for u. This needs act(m) = m for what comes after the
  norm: a ReLU, or a ReLU6 for means of at most 6.
- The linear layer or 1 x 1 convolution that reads the units reads u no more, and what m would add is added once: to its
  bias, or taken from the running mean of the batch norm after it.
"""

from collections.abc import Iterator
from dataclasses import replace
from functools import partial

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn.functional import normalize
from torch.utils.hooks import RemovableHandle

from circuitry.circuits.graph import Circuit
from circuitry.encoder.baselines import Baseline
from circuitry.encoder.encoder import Encoder
from circuitry.encoder.sites import INPUT
from circuitry.encoder.task import Task
from circuitry.encoder.unit_kinds import UnitKind
from circuitry.interventions.kept_circuits import kept_embeddings
from circuitry.runs.arguments import checked
from circuitry.runs.errors import InputError

Changes = dict[str, Tensor]
"""New values of weights, by their names in the tower."""
Ran = list[list[tuple[str, nn.Module]]]
"""The norms and linear modules that each stage runs, with their names, in order."""
TOLERANCE = 1e-3
"""Largest difference between embeddings of length 1 by the edited weights and by the ablation."""
N_TRIED = 4
"""Number of images on which the two are compared."""


@checked
def edited_weights(task: Task, part: Circuit) -> Changes:
    """Return the weights of a tower that change when a part is removed for good.

    The units of the part are set to the means of the task's baseline. The edited tower gives the same embeddings as
    the ablation of the part, which is checked on a few images of the task.

    Args:
        task: The encoder of the part, some images, and the means: a baseline of the kind ``mean-unit``.
        part: The units, such as an own part; see `own_part`.

    Returns:
        New values by name of the weight, as in the state dict of ``task.encoder.tower``.

    Raises:
        InputError: if the baseline is not of the kind ``mean-unit``, if the part has edges, or if the units of a site
            cannot be written as weights, such as the residual stream of a transformer.

    Example:
        >>> from circuitry.interventions import edited_weights
        >>> hidden = circuitry.in_components(encoder)
        >>> of_class = circuitry.Task(hidden, images, metric, baseline="mean-unit", others=others)
        >>> changed = edited_weights(of_class, circuitry.own_part(of_class, share=0.02))
        >>> state = encoder.tower.state_dict() | changed
    """
    baseline = task.baseline
    if not isinstance(baseline, Baseline) or baseline.name != "mean-unit":
        raise InputError(
            f"Units are written into weights at their means over images, the baseline 'mean-unit', but the task has "
            f"{baseline.name!r}: make the task with baseline='mean-unit' and others=images."
        )
    if part.edges is not None:
        raise InputError(
            "Units are removed from weights, but this circuit has edges: give the circuit of its units."
        )
    images = next(task.batches(N_TRIED)).images[:N_TRIED]
    quiet = replace(task.work, progress=False)
    some = replace(task, images=images, others=None, work=quiet)
    own = dict[str, Circuit]()
    for site, units in part.units.items():
        if len(units):
            own[site] = Circuit(part.source, {site: units})
    with task.running():
        ran = _modules_run(task.encoder, images)
        # Mostly the first way is right at all sites, and one look shows it.
        together = Changes()
        for site, circuit in own.items():
            ways = _candidates(task.encoder, baseline, circuit, site, ran)
            together |= next(ways, Changes())
        if _same(some, part, together):
            return together
        changed = Changes()
        for site, circuit in own.items():
            ways = _candidates(task.encoder, baseline, circuit, site, ran)
            right = next((way for way in ways if _same(some, circuit, way)), None)
            if right is None:
                raise InputError(
                    f"Units of {site} cannot be written as weights of this {type(task.encoder.tower).__name__}: no "
                    "batch norm before them and no linear layer after them does the same. Find the part at other "
                    "sites (sites=), or ablate it by circuitry.patched."
                )
            changed |= right
    return changed


def _same(task: Task, part: Circuit, change: Changes) -> bool:
    """Return whether changed weights give the same embeddings as the ablation of a part, up to rounding."""
    (wanted,) = kept_embeddings(task, [part.complement()])
    embeddings = functional_call(task.encoder.tower, change, (task.images,))
    difference = normalize(embeddings, dim=-1) - normalize(wanted, dim=-1)
    return float(difference.abs().max()) <= TOLERANCE


def _candidates(
    encoder: Encoder, baseline: Baseline, part: Circuit, site: str, ran: Ran
) -> Iterator[Changes]:
    """Yield changes of weights that may remove the units of a site.

    Args:
        part: The units of this site.
        ran: The result of `_modules_run`.
    """
    if site == INPUT:
        return
    means = _means(baseline.values[site], encoder.kinds[site])
    n_units = encoder.count_units([site])[site]
    units = torch.from_numpy(part.units[site]).to(means.device)
    of_units = means[units]
    place = [stage.site for stage in encoder.stages].index(site)
    # A shortcut may be computed between the units and their site.
    before = [*ran[max(place - 1, 0)], *ran[place]] if place else ran[0]
    after = [*ran[place], *(ran[place + 1] if place + 1 < len(ran) else [])]
    for name, module in reversed(before):
        if isinstance(module, nn.BatchNorm2d) and module.num_features == n_units:
            weight = module.weight.clone()
            bias = module.bias.clone()
            weight[units] = 0
            bias[units] = of_units[:, 0]
            # The mean is what the norm now gives for u.
            yield {f"{name}.weight": weight, f"{name}.bias": bias}
    size = means.shape[1]
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
        if isinstance(module, nn.BatchNorm2d | nn.Conv2d | nn.Linear):
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
