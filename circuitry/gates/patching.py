"""Activation patching: measure the exact effect of each unit, site or position by a run in which it is replaced.

For each batch of images:

1. A clean run gives the activation a at each site. The baseline gives the activation o at the same site. If the
   baseline is made of counterfactual images, o differs between images.
2. There are two directions. With ``noise``, o is written into a, and effect = metric(a) - metric(patched). With
   ``denoise``, a is written into o, and effect = metric(patched) - metric(o).
3. For each site, copies of the activation that is patched are stacked. In each copy, one unit (or position) is
   replaced. The stages after the site run on the stack, in chunks that fit into memory.

In both directions the effect is positive if the unit helps the metric, like a node score. A node score is an estimate
of the effect. If the metric depends linearly on the activation of the site, both effects equal the score. See
Heimersheim & Nanda 2024 (arXiv 2404.15255).

Only units are written. Some sites also carry a residual stream, which passes by their units (`in_components`). This
stream is not patched. So patching a site of heads or neurons does not change the residual stream at this site.
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
from circuitry.runs.plan import Forwards


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
        task: The task, with the baseline that is patched in and the sites that are patched.
        by: What is patched at a time: a ``"unit"`` at all its positions, a ``"position"`` with all its units, or a
            ``"site"`` with all its units and positions.
        direction: ``"noise"`` writes the baseline into clean runs. ``"denoise"`` writes clean activations into runs of
            the baseline.
        units: Units to patch by site. Only the sites that are listed are patched (default: all units at the sites of
            the task).

    Raises:
        InputError: if ``by`` or ``direction`` has another value, if ``units`` is given and ``by`` is not ``"unit"``, if
            units are unknown, or if `Task.batches` raises it.

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
            # 1. The base of the run, and the activations that are written into it.
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
                # A stream that is carried past the units is left out, because it is never written.
                units_there = encoder.units_of(site, base)
                size = math.prod(units_there.shape[axis] for axis in axes)
                wanted = np.ones(size, dtype=bool)
                if site in chosen:
                    wanted = mark_kept(chosen[site], size, site)
                # 2. and 3. A run from this site for each unit or position.
                falls = _effects(
                    partial(run, site=site), base, written[site], axes, wanted, rows
                )
                # If a unit helps, writing its baseline lowers the metric, and writing its clean activation raises it.
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


def patching_forwards(n_images: int, n_sites: int, n_units: int) -> Forwards:
    """Return about what `patch_effects` runs on a number of images.

    From a site on, some two thirds of the tower are left, as a mean over sites.
    """
    # Each site also runs as it is, and with all of its units replaced.
    of_image = 2 + (2 * n_sites + n_units) * 2 // 3
    return Forwards(alone=n_images * of_image)


def _patched_axes(activation: Tensor, by: str, unit_dim: int) -> list[int]:
    """Return the axes of an activation over which patching iterates, in rising order.

    If ``by`` is ``unit``, this is the axis of units. If ``by`` is ``position``, these are all axes of positions. If
    ``by`` is ``site``, the list is empty, because the whole site is patched at once.
    """
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
    """Return metric(base) - metric(patched), summed over images, for each unit or position of a site.

    Args:
        run: Function that returns the metric of each image, given the activation of the site.
        base: The activation that is patched.
        written: The activation whose units or positions are written into ``base``.
        axes: Axes over which patching iterates, see `_patched_axes`.
        wanted: Mask of the units or positions to patch. All others get NaN.
        rows: Largest number of images in one run.
    """
    reference = run(base)
    # A mask differs along the patched axes. It is the same along all other axes, so these get size 1.
    shape = [1] * (base.dim() - 1)
    for axis in axes:
        shape[axis - 1] = base.shape[axis]
    places = math.prod(shape)
    falls = np.full(len(wanted), np.nan)
    numbers = torch.from_numpy(np.flatnonzero(wanted))
    for chunk in torch.split(numbers, max(1, rows // len(base))):
        # [copies, 1, ...]: in each copy, one unit or position is taken from `written`.
        mask = torch.zeros(len(chunk), places, dtype=torch.bool)
        mask[torch.arange(len(chunk)), chunk] = True
        mask = mask.view(len(chunk), 1, *shape).to(base.device)
        stack = torch.where(mask, written, base)
        values = run(stack.flatten(0, 1)).view(len(chunk), len(base))
        falls[chunk.numpy()] = (reference - values).sum(1).cpu().numpy()
    if len(axes) == 1:
        return falls
    return falls.reshape([base.shape[axis] for axis in axes])
