"""Activation patching: the exact effect of every unit, site or position, by running with it replaced.

For each batch of images:

1. one clean run gives the activations a at all sites; the baseline gives the activations o, for counterfactual images
   those of the same sites, image by image;
2. for each site, copies of the base activation are stacked, each with one unit (or position) taken from the
   other side, and the rest of the tower runs on the stack, as many copies at a time as memory allows;
3. ``noise``: base a, o written in, effect = metric(patched) - metric(a);
   ``denoise``: base o, a written in, effect = metric(o) - metric(patched).

Both are the effect of moving to the baseline, with the sign of node scores, which they are the oracle for. Where
the rest of the tower is linear both equal the attribution. (Heimersheim & Nanda 2024, arXiv 2404.15255.)
"""

import math
from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor
from tqdm import tqdm

from circuitry.interventions.circuit_sets import mark_kept
from circuitry.interventions.effects import DIRECTIONS, PATCHED_BY, PatchEffects
from circuitry.interventions.patches import Chosen, Patch, patched
from circuitry.models.baselines import ZERO, AnyBaseline, Baseline, Counterfactual, as_baseline, check_count
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
    sweep = _Sweep(encoder, metric, by, as_baseline(baseline), direction, sites, work.memory_gib)
    batches = ImageBatches(images, encoder, sweep.rows)
    with encoder.frozen(), torch.no_grad(), tqdm(desc="patching", unit="site", disable=not work.progress) as bar:
        for batch in batches:
            sweep.add(batch, bar)
    return sweep.result()


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


class _Sweep:
    """Sums over batches: the metric and the effects."""

    def __init__(
        self,
        encoder: Encoder,
        metric: Metric,
        by: str,
        baseline: Baseline | Counterfactual,
        direction: str,
        sites: Sequence[str] | Mapping[str, Chosen] | None,
        memory_gib: float,
    ) -> None:
        for name, given, known in (("by", by, PATCHED_BY), ("direction", direction, DIRECTIONS)):
            if given not in known:
                raise InputError(f"Expected {name} to be one of {', '.join(known)}, but {given!r} was given.")
        self.units = sites if isinstance(sites, Mapping) else {}
        names = sorted(sites, key=encoder.position) if isinstance(sites, Mapping) else sites
        if self.units and by != "unit":
            raise InputError(f"Units are chosen when patching by 'unit', but by={by!r} was given with units.")
        self.encoder, self.metric, self.by, self.baseline, self.direction = encoder, metric, by, baseline, direction
        self.sites = checked_sites(encoder, names)
        self.rows = rows_that_fit(encoder, memory_gib)
        self.count, self.clean = 0, 0.0
        self.moved: dict[str, float] = dict.fromkeys(self.sites, 0.0)
        self.sums: dict[str, np.ndarray] = {}

    def add(self, batch: Tensor, bar: "tqdm[Any]") -> None:
        """Patch everything on one batch."""
        clean = clean_activations(self.encoder, batch, self.sites)
        other = self.baseline.activations(self.encoder, clean, self.count)
        self.clean += float(self._run(batch, self.encoder.sites[0]).sum())
        self.count += len(batch)
        for site in self.sites:
            a, o = clean[site], other[site]
            base, written = (a, o) if self.direction == "noise" else (o, a)
            self.moved[site] += float(self._run(o, site).sum())
            effects = self._effects(site, base, written)
            signed = effects if self.direction == "noise" else -effects
            self.sums[site] = signed + self.sums.get(site, 0.0)
            bar.update()

    def _run(self, activation: Tensor, site: str) -> Tensor:
        return checked_metric(self.metric, self.encoder(activation, start=site)).double()

    def _effects(self, site: str, base: Tensor, written: Tensor) -> np.ndarray:
        """Return metric(patched) - metric(base), summed over images, for everything that is patched at a site."""
        reference = self._run(base, site)
        unit_axis = self.encoder.unit_dim(site) % base.dim()
        patched_axes = {
            "unit": {unit_axis},
            "position": set(range(1, base.dim())) - {unit_axis},
            "site": set[int](),
        }[self.by]
        shape = [size if axis in patched_axes else 1 for axis, size in enumerate(base.shape)][1:]
        out = np.full(math.prod(shape), np.nan)
        wanted = self._wanted(site, len(out))
        for chunk in torch.split(wanted, max(1, self.rows // len(base))):
            mask = torch.zeros(len(chunk), len(out), dtype=torch.bool, device=base.device)
            mask[torch.arange(len(chunk)), chunk] = True
            stack = torch.where(mask.view(len(chunk), 1, *shape), written, base)
            values = self._run(stack.flatten(0, 1), site).view(len(chunk), len(base))
            out[chunk.numpy()] = (values - reference).sum(1).cpu().numpy()
        return out.reshape([base.shape[axis] for axis in sorted(patched_axes)])

    def _wanted(self, site: str, size: int) -> Tensor:
        if site not in self.units:
            return torch.arange(size)
        return torch.from_numpy(np.flatnonzero(mark_kept(self.units[site], size, site)))

    def result(self) -> PatchEffects:
        if not self.count:
            raise InputError("Activation patching needs at least one image, but there were none.")
        check_count(self.baseline, self.count)
        return PatchEffects(
            self.sites,
            {site: np.asarray(total / self.count) for site, total in self.sums.items()},
            self.by,
            self.direction,
            self.clean / self.count,
            {site: total / self.count for site, total in self.moved.items()},
            self.count,
            {"baseline": self.baseline.name},
        )
