"""Activation patching: the exact effect of every unit, site or position, by running with it replaced.

For each batch of images:

1. one clean run gives the activations a at all sites; the baseline gives the activations o, for counterfactual images
   those of the same sites, image by image;
2. for each site, copies of the base activation are stacked, each with one unit (or position) taken from the
   other side, and the rest of the tower runs on the stack, as many copies at a time as memory allows;
3. ``noise``: base a, o written in, effect = metric(a) - metric(patched);
   ``denoise``: base o, a written in, effect = metric(patched) - metric(o).

Both are positive where the unit helps, as node scores are, which they are the oracle for. Where
the rest of the tower is linear both equal the attribution. (Heimersheim & Nanda 2024, arXiv 2404.15255.)
"""

import math
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from itertools import pairwise

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor
from tqdm import tqdm

from circuitry.interventions.circuit_sets import mark_kept
from circuitry.interventions.effects import DIRECTIONS, PATCHED_BY, PatchEffects
from circuitry.interventions.patches import Chosen, Patch, patched
from circuitry.models.baselines import ZERO, AnyBaseline, Baseline, as_baseline, check_count
from circuitry.models.batches import ImageBatches, Images, rows_that_fit
from circuitry.models.encoder import Encoder, checked_sites, clean_activations
from circuitry.models.metrics import Metric, checked_metric
from circuitry.runs.errors import InputError
from circuitry.runs.workers import Work


def patch_effects(
    encoder: Encoder,
    images: Images,
    metric: Metric,
    *,
    by: str = "unit",
    baseline: AnyBaseline = "zero",
    direction: str = "noise",
    sites: Sequence[str] | Mapping[str, Chosen] | None = None,
    work: Work = Work(),
) -> PatchEffects:
    """Return the exact effect on the metric of patching each unit, each site or each position.

    Args:
        encoder: The encoder under study.
        images: Clean images: a tensor [B, 3, H, W] or an iterable of such batches.
        metric: Embeddings [B, D] -> one number per image, e.g. `class_logit`.
        by: What is patched at a time: ``"unit"`` at all its positions, ``"position"`` with all its units, or the
            whole ``"site"``.
        baseline: What is patched in; see `circuitry.models.baselines`.
        direction: ``"noise"`` or ``"denoise"``; see the module.
        sites: Sites to patch, in the encoder's order (default: all); for ``by="unit"`` also the units to patch by site.
        work: Memory and progress.

    Raises:
        InputError: for no images, a baseline that does not fit them, unknown sites or units, or a metric of the wrong
            shape.

    Example:
        >>> effects = patch_effects(encoder, photos, class_logit(weights, 3))
        >>> effects.scores["layer4.0"]            # [units], comparable to graph.node_scores["layer4.0"]
        >>> effects = patch_effects(encoder, clean, metric, by="position", baseline=corrupted, direction="denoise")
        >>> effects.scores["layer2.0"]            # [height, width]
    """
    for name, given, known in (("by", by, PATCHED_BY), ("direction", direction, DIRECTIONS)):
        if given not in known:
            raise InputError(f"Expected {name} to be one of {', '.join(known)}, but {given!r} was given.")
    chosen = sites if isinstance(sites, Mapping) else {}
    if chosen and by != "unit":
        raise InputError(f"Units are chosen when patching by 'unit', but by={by!r} was given with units.")
    names = checked_sites(encoder, sorted(sites, key=encoder.position) if isinstance(sites, Mapping) else sites)
    ends, rows = as_baseline(baseline), rows_that_fit(encoder, work.memory_gib)
    sums: dict[str, np.ndarray | float] = dict.fromkeys(names, 0.0)
    moved, clean_sum, count = dict.fromkeys(names, 0.0), 0.0, 0

    def run(activation: Tensor, site: str) -> Tensor:
        return checked_metric(metric, encoder(activation, start=site)).double()

    batches = ImageBatches(images, encoder, rows)
    with encoder.frozen(), torch.no_grad(), tqdm(desc="patching", unit="site", disable=not work.progress) as bar:
        for batch in batches:
            clean = clean_activations(encoder, batch, names)
            other = ends.activations(encoder, clean, count)
            clean_sum, count = clean_sum + float(run(batch, encoder.sites[0]).sum()), count + len(batch)
            for site in names:
                noise = direction == "noise"
                base, written = (clean[site], other[site]) if noise else (other[site], clean[site])
                moved[site] += float(run(other[site], site).sum())
                axes = _patched_axes(base, by, encoder.unit_dim(site))
                effects = _effects(
                    partial(run, site=site), base, written, axes, _wanted(encoder, base, site, by, chosen), rows
                )
                sums[site] = (effects if noise else -effects) + sums[site]
                bar.update()
    if not count:
        raise InputError("Activation patching needs at least one image, but there were none.")
    check_count(ends, count)
    return PatchEffects(
        names,
        {site: np.asarray(total / count) for site, total in sums.items()},
        by,
        direction,
        clean_sum / count,
        {site: total / count for site, total in moved.items()},
        count,
        {"baseline": ends.name},
    )


def edge_movements(
    encoder: Encoder, images: Float[Tensor, "batch 3 h w"], *, baseline: Baseline = ZERO, sites: Sequence[str]
) -> dict[tuple[str, str], np.ndarray]:
    """Return how far each downstream unit moves when one upstream unit is replaced: the oracle of edge scores.

    Mean over images and positions of the squared distance from the clean activation, with only the stages between
    the two sites run; one run per upstream unit.

    Returns:
        Scores [units downstream, units upstream] by pair of consecutive ``sites``.
    """
    found = {}
    with encoder.frozen(), torch.no_grad():
        clean = clean_activations(encoder, images.to(encoder.device, encoder.dtype), checked_sites(encoder, sites))
        for up, down in pairwise(sites):
            a, dim, units = clean[up], encoder.unit_dim(up), clean[down].movedim(encoder.unit_dim(down), 0)
            columns = []
            for unit in range(a.shape[dim]):
                with patched(encoder, Patch(up, baseline, units=unit)):
                    moved = encoder(a, start=up, stop=down).movedim(encoder.unit_dim(down), 0)
                columns.append((moved - units).flatten(1).double().square().mean(1).cpu().numpy())
            found[up, down] = np.stack(columns, 1)
    return found


def _patched_axes(activation: Tensor, by: str, unit_dim: int) -> list[int]:
    """Return the axes along which one thing at a time is patched, in order."""
    unit_axis = unit_dim % activation.dim()
    positions = [axis for axis in range(1, activation.dim()) if axis != unit_axis]
    return {"unit": [unit_axis], "position": positions, "site": []}[by]


def _wanted(encoder: Encoder, activation: Tensor, site: str, by: str, chosen: Mapping[str, Chosen]) -> np.ndarray:
    """Return which of the things that can be patched at a site are, as a mask."""
    units = encoder.units_of(site, activation)
    axes = _patched_axes(activation, by, encoder.unit_dim(site))
    size = math.prod(units.shape[axis] for axis in axes)
    return mark_kept(chosen[site], size, site) if site in chosen else np.ones(size, dtype=bool)


def _effects(
    run: Callable[[Tensor], Tensor], base: Tensor, written: Tensor, axes: Sequence[int], wanted: np.ndarray, rows: int
) -> np.ndarray:
    """Return metric(base) - metric(patched), summed over images, for everything that is patched at a site."""
    reference = run(base)
    shape = [size if axis in axes else 1 for axis, size in enumerate(base.shape)][1:]
    places = math.prod(shape)
    out = np.full(len(wanted), np.nan)
    for chunk in torch.split(torch.from_numpy(np.flatnonzero(wanted)), max(1, rows // len(base))):
        mask = torch.zeros(len(chunk), places, dtype=torch.bool, device=base.device)
        mask[torch.arange(len(chunk)), chunk] = True
        stack = torch.where(mask.view(len(chunk), 1, *shape), written, base)
        values = run(stack.flatten(0, 1)).view(len(chunk), len(base))
        out[chunk.numpy()] = (reference - values).sum(1).cpu().numpy()
    return out if len(axes) == 1 else out.reshape([base.shape[axis] for axis in axes])
