"""Activation patching: the exact effect of every unit, site or position, by running with it replaced.

For each batch of images:

1. one clean run gives the activations a at all sites; the baseline gives the activations o at the same sites, one for
   every image if it is made of counterfactual images;
2. for each site, copies of the base activation are stacked, each with one unit (or position) taken from the
   other side, and the rest of the tower runs on the stack, as many copies at a time as memory allows;
3. ``noise``: base a, o written in, effect = metric(a) - metric(patched);
   ``denoise``: base o, a written in, effect = metric(patched) - metric(o).

Both are positive where the unit helps, as node scores are, which they are the oracle for. Where
the rest of the tower is linear both equal the attribution. (Heimersheim & Nanda 2024, arXiv 2404.15255.)

Units alone are written. What a site carries past its units (`in_components`) stays that of the base's run, as with
`Patch`; so a site of heads or neurons moves these and no residual stream.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Annotated

import numpy as np
import torch
from torch import Tensor

from circuitry.encoder.doubles import in_double
from circuitry.encoder.metrics import checked_metric
from circuitry.encoder.task import Task
from circuitry.encoder.tensor_batches import count_batches, rows_that_fit
from circuitry.gates.effects_of_patches import DIRECTIONS, PATCHED_BY, PatchEffects
from circuitry.gates.patches import Chosen, mark_kept
from circuitry.runs.errors import InputError
from circuitry.runs.given import checked, one_of
from circuitry.runs.progress import Bar


@checked
def patch_effects(
    task: Task,
    *,
    by: Annotated[str, one_of(*PATCHED_BY)] = "unit",
    direction: Annotated[str, one_of(*DIRECTIONS)] = "noise",
    units: Mapping[str, Chosen] | None = None,
) -> PatchEffects:
    """Return the exact effect on the metric of patching each unit, each site or each position.

    Args:
        task: Whose baseline is patched in, at whose sites.
        by: The patched thing: one ``"unit"`` at all its positions, ``"position"`` with all its units, or all units
            of the ``"site"``. What is carried past the units is never written.
        direction: ``"noise"`` or ``"denoise"``; see the module.
        units: Units to patch by site, at these sites alone (default: all units at the task's sites).

    Raises:
        InputError: for another ``by`` or direction, units with another ``by`` than ``"unit"``, unknown units, and what
            `Task.batches` raises.

    Example:
        >>> effects = patch_effects(Task(encoder, photos, class_logit(weights, 3)))
        >>> effects.scores["layer4.0"]            # [units], comparable to graph.node_scores["layer4.0"]
        >>> pair = Task(encoder, clean, metric, baseline=corrupted)
        >>> effects = patch_effects(pair, by="position", direction="denoise")
        >>> effects.scores["layer2.0"]            # [height, width]
    """
    if units is not None and by != "unit":
        raise InputError(
            f"Units are chosen with by='unit', but by={by!r} was given: leave out units=."
        )
    encoder, chosen = task.encoder, units or {}
    rows = rows_that_fit(encoder, task.work.memory_gib)
    sites = task.sites if units is None else tuple(sorted(units, key=encoder.position))
    sums: dict[str, np.ndarray | float] = dict.fromkeys(sites, 0.0)
    moved, clean_sum, count = dict.fromkeys(sites, 0.0), 0.0, 0
    noise = direction == "noise"

    def run(activation: Tensor, site: str) -> Tensor:
        return in_double(checked_metric(task.metric, encoder(activation, start=site)))

    total = (count_batches(task.images, rows) or 0) * len(sites) or None
    with (
        task.running(),
        Bar(
            total=total, desc="patching", unit="site", disable=not task.work.progress
        ) as bar,
    ):
        for batch in task.batches():
            clean = batch.clean(sites)
            if noise:
                bases, written = clean, batch.ends(clean)
            else:
                bases = task.baseline.activations(encoder, clean, batch.start)
                written = {
                    site: encoder.carry(site, clean[site], base)
                    for site, base in bases.items()
                }
            at_baseline = written if noise else bases
            clean_sum += float(run(batch.images, encoder.sites[0]).sum())
            count += len(batch.images)
            for site in sites:
                base = bases[site]
                moved[site] += float(run(at_baseline[site], site).sum())
                axes = _patched_axes(base, by, encoder.unit_dim(site))
                units_there = encoder.units_of(
                    site, base
                )  # not what is carried past them
                size = math.prod(units_there.shape[axis] for axis in axes)
                wanted = (
                    mark_kept(chosen[site], size, site)
                    if site in chosen
                    else np.ones(size, dtype=bool)
                )
                effects = _effects(
                    partial(run, site=site), base, written[site], axes, wanted, rows
                )
                sums[site] = (effects if noise else -effects) + sums[site]
                bar.update()
    return PatchEffects(
        sites,
        {site: np.asarray(total / count) for site, total in sums.items()},
        by,
        direction,
        clean_sum / count,
        {site: total / count for site, total in moved.items()},
        count,
        task.identity,
    )


def _patched_axes(activation: Tensor, by: str, unit_dim: int) -> list[int]:
    """Return the axes along which one thing at a time is patched, in order."""
    unit_axis = unit_dim % activation.dim()
    positions = [axis for axis in range(1, activation.dim()) if axis != unit_axis]
    return {"unit": [unit_axis], "position": positions, "site": []}[by]


def _effects(
    run: Callable[[Tensor], Tensor],
    base: Tensor,
    written: Tensor,
    axes: Sequence[int],
    wanted: np.ndarray,
    rows: int,
) -> np.ndarray:
    """Return metric(base) - metric(patched), summed over images, for everything that is patched at a site."""
    reference = run(base)
    shape = [size if axis in axes else 1 for axis, size in enumerate(base.shape)][1:]
    places = math.prod(shape)
    out = np.full(len(wanted), np.nan)
    for chunk in torch.split(
        torch.from_numpy(np.flatnonzero(wanted)), max(1, rows // len(base))
    ):
        mask = torch.zeros(len(chunk), places, dtype=torch.bool)
        mask[torch.arange(len(chunk)), chunk] = True
        stack = torch.where(
            mask.view(len(chunk), 1, *shape).to(base.device), written, base
        )
        values = run(stack.flatten(0, 1)).view(len(chunk), len(base))
        out[chunk.numpy()] = (reference - values).sum(1).cpu().numpy()
    return out if len(axes) == 1 else out.reshape([base.shape[axis] for axis in axes])
