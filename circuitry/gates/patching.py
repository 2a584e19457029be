"""Activation patching: measure the exact effect of each unit, site or position by a run in which it is replaced.

For each batch of images:

1. A clean run gives the activation a at each site. The baseline gives the activation o at the same site. If the
   baseline is made of counterfactual images, o differs between images.
2. There are two directions. With ``noise``, o is written into a, and effect = metric(a) - metric(patched). With
   ``denoise``, a is written into o, and effect = metric(patched) - metric(o).
3. For each unit (or position) of a site there is a copy of the activation that is patched, in which this unit is
   replaced. One more copy is the baseline of the whole site.
4. As many copies as fit into memory share a run. If they are of several sites, the run starts at the first of these
   sites, and the copies of each later site join it there.

In both directions the effect is positive if the unit helps the metric, like a node score. A node score is an estimate
of the effect. If the metric depends linearly on the activation of the site, both effects equal the score. See
Heimersheim & Nanda 2024 (arXiv 2404.15255).

Only units are written. Some sites also carry a residual stream, which passes by their units (`in_components`). This
stream is not patched. So patching a site of heads or neurons does not change the residual stream at this site.
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Annotated, NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from circuitry.encoder.doubles import in_double
from circuitry.encoder.metrics import checked_metric
from circuitry.encoder.task import Batch, Task
from circuitry.encoder.tensor_batches import count_batches, rows_that_fit
from circuitry.gates.effects_of_patches import DIRECTIONS, PATCHED_BY, PatchEffects
from circuitry.gates.patches import Chosen, mark_kept
from circuitry.runs.arguments import checked, one_of
from circuitry.runs.errors import InputError
from circuitry.runs.plan import Forwards

WHOLE = -1
"""In the place of the index of a unit or position: all units and positions of a site."""


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
    effects = measure_patches(task, by, direction, units)
    effects.settings.update(task.identity)
    return effects


def measure_patches(
    task: Task,
    by: str = "unit",
    direction: str = "noise",
    units: Mapping[str, Chosen] | None = None,
) -> PatchEffects:
    """Return the result of `patch_effects` without its settings, whose digests take as long as a few runs."""
    encoder = task.encoder
    rows = rows_that_fit(encoder, task.work.memory_gib, gradients=False)
    sites = task.sites if units is None else tuple(sorted(units, key=encoder.position))
    sums: dict[str, np.ndarray | float] = dict.fromkeys(sites, 0.0)
    moved = dict.fromkeys(sites, 0.0)
    clean_sum = 0.0
    count = 0
    n_batches = count_batches(task.images, rows) or 0
    with (
        task.running(),
        task.bar("patching", "site", n_batches * len(sites)) as bar,
    ):
        for batch in task.batches():
            patches = _Patches(batch, sites, by, direction)
            clean_sum += float(patches.clean_metric.sum())
            count += len(batch.images)
            for site, of_site in patches.effects(units or {}, rows):
                sums[site] = of_site.effects + sums[site]
                moved[site] += of_site.at_baseline
                bar.update()
    scores = {site: np.asarray(total / count) for site, total in sums.items()}
    baseline_metric = {site: total / count for site, total in moved.items()}
    return PatchEffects(
        sites, scores, by, direction, clean_sum / count, baseline_metric, count
    )


def patching_forwards(n_images: int, n_sites: int, n_units: int) -> Forwards:
    """Return about what `patch_effects` runs on a number of images.

    From a site on, some two thirds of the tower are left, as a mean over sites.
    """
    # Each site also runs with all of its units replaced.
    of_image = 1 + (n_sites + n_units) * 2 // 3
    return Forwards(alone=n_images * of_image)


class _SiteEffects(NamedTuple):
    """What patching one site did to the images of a batch."""

    effects: np.ndarray
    """Effect of each unit or position, summed over images. Those that are not patched have NaN."""
    at_baseline: float
    """The metric with the whole site at the baseline, summed over images."""


class _Patches:
    """The activations of a batch that are patched, and the activations that are written into them."""

    def __init__(
        self, batch: Batch, sites: Sequence[str], by: str, direction: str
    ) -> None:
        self.task = batch.task
        self.encoder = batch.task.encoder
        self.by = by
        self.noise = direction == "noise"
        # The last site of the encoder is the embedding, so one run gives the activations and the clean metric.
        embedding = self.encoder.sites[-1]
        clean = batch.clean((*sites, embedding))
        self.clean_metric = self.metric(clean[embedding])
        clean = {site: clean[site] for site in sites}
        if self.noise:
            self.bases = clean
            self.written = batch.ends(clean)
            return
        baseline = self.task.baseline
        self.bases = baseline.activations(self.encoder, clean, batch.start)
        self.written = {
            site: self.encoder.carry(site, clean[site], base)
            for site, base in self.bases.items()
        }

    def metric(self, embedding: Tensor) -> Tensor:
        """Return the metric of embeddings, in double precision."""
        # A metric may compute in place, and the embedding may be an activation that is used again.
        return in_double(checked_metric(self.task.metric, embedding.clone()))

    def effects(
        self, units: Mapping[str, Chosen], rows: int
    ) -> Iterator[tuple[str, _SiteEffects]]:
        """Yield the effects at one site after the other.

        Args:
            units: Units to patch by site. At a site that is not listed, everything is patched.
            rows: Largest number of images in one run.
        """
        n_images = len(self.clean_metric)
        copies = dict[str, Tensor]()
        for site in self.bases:
            patched = torch.arange(math.prod(self.sizes(site)))
            if site in units:
                mask = mark_kept(units[site], len(patched), site)
                patched = patched[torch.from_numpy(mask)]
            copies[site] = F.pad(patched, (0, 1), value=WHOLE)
        values: dict[str, list[Tensor]] = {site: [] for site in copies}
        # Hooks act at both ends of a run, so they would act twice where copies join it.
        alone = bool(self.encoder.hooked_sites)
        for together in _shared_runs(copies, max(1, rows // n_images), alone):
            of_run = self.run(together).view(-1, n_images)
            numbers = list(map(len, together.values()))
            for site, of_site in zip(
                together, torch.split(of_run, numbers), strict=True
            ):
                values[site].append(of_site)
                if together[site][-1] == WHOLE:
                    yield site, self.compared(site, copies[site], values.pop(site))

    def run(self, copies: Mapping[str, Tensor]) -> Tensor:
        """Return the metric [copies x images] of a run that the copies of each site join at their site.

        Args:
            copies: Index of the unit or position that is replaced in each copy, by site in the order of the encoder.
        """
        start, *later = copies
        x = self.patched(start, copies[start])
        for site in later:
            passing = self.encoder(x, start=start, stop=site)
            x = torch.cat([passing, self.patched(site, copies[site])])
            start = site
        return self.metric(self.encoder(x, start=start))

    def patched(self, site: str, indices: Tensor) -> Tensor:
        """Return the copies [copies x images, ...] of the activation of a site."""
        base = self.bases[site]
        # A mask differs along the patched axes. It is the same along all other axes, so these get size 1.
        shape = [1] * (base.dim() - 1)
        for axis in self.axes(site):
            shape[axis - 1] = base.shape[axis]
        mask = torch.arange(math.prod(shape)) == indices[:, None]
        # The baseline of a site is what noise writes, and what denoising writes into.
        mask[indices == WHOLE] = self.noise
        mask = mask.view(len(indices), 1, *shape).to(base.device)
        return torch.where(mask, self.written[site], base).flatten(0, 1)

    def compared(
        self, site: str, indices: Tensor, values: list[Tensor]
    ) -> _SiteEffects:
        """Return the effects at a site, given the metric [copies, images] of all copies of the site."""
        of_copies = torch.cat(values)
        at_baseline = of_copies[-1]
        reference = self.clean_metric if self.noise else at_baseline
        if self.noise and self.encoder.hooked_sites:
            # A hook at the site acts on the copies once more, and so it has to act on what they are compared with.
            reference = self.metric(self.encoder(self.bases[site], start=site))
        # If a unit helps, writing its baseline lowers the metric, and writing its clean activation raises it.
        falls = (reference - of_copies[:-1]).sum(1)
        sizes = self.sizes(site)
        effects = np.full(math.prod(sizes), np.nan)
        effects[indices[:-1].numpy()] = (falls if self.noise else -falls).cpu().numpy()
        return _SiteEffects(effects.reshape(sizes), float(at_baseline.sum()))

    def axes(self, site: str) -> list[int]:
        """Return the axes of an activation over which patching iterates, in rising order.

        For units, this is the axis of units. For positions, these are all axes of positions. For a site, the list is
        empty, because the whole site is patched at once.
        """
        n_axes = self.bases[site].dim()
        unit_axis = self.encoder.unit_dim(site) % n_axes
        if self.by == "unit":
            return [unit_axis]
        if self.by == "site":
            return []
        return [axis for axis in range(1, n_axes) if axis != unit_axis]

    def sizes(self, site: str) -> list[int]:
        """Return the number of units, or of positions along each axis."""
        # A stream that is carried past the units is left out, because it is never written.
        units = self.encoder.units_of(site, self.bases[site])
        return [units.shape[axis] for axis in self.axes(site)]


def _shared_runs(
    copies: Mapping[str, Tensor], at_once: int, alone: bool
) -> Iterator[dict[str, Tensor]]:
    """Yield the copies of each run by site: at most ``at_once``, in the order of the sites.

    If ``alone`` is true, each run has copies of one site only.
    """
    run = dict[str, Tensor]()
    left = at_once
    for site, indices in copies.items():
        while len(indices):
            run[site] = indices[:left]
            indices = indices[left:]
            left -= len(run[site])
            if alone or not left:
                yield run
                run = {}
                left = at_once
    if run:
        yield run
