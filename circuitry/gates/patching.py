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
from circuitry.runs.arguments import checked, one_of
from circuitry.runs.errors import InputError


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
        >>> exact = patch_effects(task, units={"layer4.0": [0, 5]})
        >>> exact.scores["layer4.0"].shape == graph.node_scores["layer4.0"].shape
        True
        >>> pair = circuitry.Task(encoder, images, metric, sites=["layer2.0"], baseline=others[:1])
        >>> by_position = patch_effects(pair, by="position", direction="denoise")
        >>> by_position.scores["layer2.0"].ndim  # [height, width]
        2
    """
    if units is not None and by != "unit":
        raise InputError(
            f"Units are chosen with by='unit', but by={by!r} was given: leave out units=."
        )
    encoder = task.encoder
    chosen = units or {}
    rows = rows_that_fit(encoder, task.work.memory_gib)
    sites = task.sites if units is None else tuple(sorted(units, key=encoder.position))
    sums: dict[str, np.ndarray | float] = dict.fromkeys(sites, 0.0)
    moved = dict.fromkeys(sites, 0.0)
    clean_sum = 0.0
    count = 0
    noise = direction == "noise"

    def run(activation: Tensor, site: str) -> Tensor:
        return in_double(checked_metric(task.metric, encoder(activation, start=site)))

    n_batches = count_batches(task.images, rows) or 0
    with (
        task.running(),
        task.bar("patching", "site", n_batches * len(sites)) as bar,
    ):
        for batch in task.batches():
            clean = batch.clean(sites)
            # 1. The base of the run, and the other side, whose things are written into it.
            if noise:
                bases = clean
                written = batch.ends(clean)
            else:
                bases = task.baseline.activations(encoder, clean, batch.start)
                written = dict[str, Tensor]()
                for site, base in bases.items():
                    written[site] = encoder.carry(site, clean[site], base)
            at_baseline = written if noise else bases
            clean_sum += float(run(batch.images, encoder.sites[0]).sum())
            count += len(batch.images)
            for site in sites:
                base = bases[site]
                moved[site] += float(run(at_baseline[site], site).sum())
                axes = _patched_axes(base, by, encoder.unit_dim(site))
                # Without the stream that is carried past the units, which is never written.
                units_there = encoder.units_of(site, base)
                size = math.prod(units_there.shape[axis] for axis in axes)
                wanted = np.ones(size, dtype=bool)
                if site in chosen:
                    wanted = mark_kept(chosen[site], size, site)
                # 2. and 3. One run for each thing, at the site where it is.
                falls = _effects(
                    partial(run, site=site), base, written[site], axes, wanted, rows
                )
                # Noise lowers the metric where a thing helps, its clean activation raises it.
                sums[site] = (falls if noise else -falls) + sums[site]
                bar.update()
    scores = {site: np.asarray(total / count) for site, total in sums.items()}
    baseline_metric = {site: total / count for site, total in moved.items()}
    return PatchEffects(
        sites,
        scores,
        by,
        direction,
        clean_sum / count,
        baseline_metric,
        count,
        task.identity,
    )


def _patched_axes(activation: Tensor, by: str, unit_dim: int) -> list[int]:
    """Return the axes along which one thing at a time is patched, in order."""
    unit_axis = unit_dim % activation.dim()
    if by == "unit":
        return [unit_axis]
    if by == "site":
        return []
    return [axis for axis in range(1, activation.dim()) if axis != unit_axis]


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
    # The patched axes keep their size; along all others a mask is the same.
    shape = [1] * (base.dim() - 1)
    for axis in axes:
        shape[axis - 1] = base.shape[axis]
    places = math.prod(shape)
    falls = np.full(len(wanted), np.nan)
    numbers = torch.from_numpy(np.flatnonzero(wanted))
    for chunk in torch.split(numbers, max(1, rows // len(base))):
        # [copies, 1, ...]: each copy has one place taken from the other side.
        mask = torch.zeros(len(chunk), places, dtype=torch.bool)
        mask[torch.arange(len(chunk)), chunk] = True
        mask = mask.view(len(chunk), 1, *shape).to(base.device)
        stack = torch.where(mask, written, base)
        values = run(stack.flatten(0, 1)).view(len(chunk), len(base))
        falls[chunk.numpy()] = (reference - values).sum(1).cpu().numpy()
    if len(axes) == 1:
        return falls
    return falls.reshape([base.shape[axis] for axis in axes])
