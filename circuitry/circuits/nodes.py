"""Node scores: what every unit contributes to the metric, by integrated gradients at its site.

For each batch of images (method: Sundararajan et al. 2017, arXiv 1703.01365, applied to a site):

1. one clean run gives the activations a at all sites; where the rule has the point t = 0, the same run's
   backward pass gives that point's gradient at every site at once;
2. for each site and each further point t, the rest of the tower runs from a + t (b - a), several points in
   one run as memory allows, and the metric's gradient comes back;
3. effect[unit] = sum over positions of (a - b) * sum_k w_k * gradient_k, then the mean over images.

A positive effect means that the unit helps: ablating it lowers the metric. The effects of a site sum to nearly
metric(clean) - metric(baseline at the site); both numbers are returned.
"""

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Any, NamedTuple

import numpy as np
import torch
from einops import rearrange
from jaxtyping import Int
from torch import Tensor

from circuitry.circuits.completeness import Completeness
from circuitry.circuits.quadrature import QuadratureRule
from circuitry.encoder.encoder import Encoder
from circuitry.encoder.metrics import Metric, checked_metric, metric_name
from circuitry.encoder.site_activations import check_finite
from circuitry.encoder.task import Batch, Task
from circuitry.encoder.tensor_batches import count_batches, rows_that_fit
from circuitry.runs.errors import InputError


@dataclass(frozen=True)
class NodeEffects:
    """Node scores of one set of images, before units are kept."""

    scores: dict[str, np.ndarray]
    """Mean effect [units] by site; positive where a unit helps."""
    completeness: dict[str, Completeness]
    """How far the effects of a site miss the metric's change, at sites without a stream past their units."""
    n_images: int
    """Images that scores are means over."""
    importance: dict[str, np.ndarray] | None = None
    """Numbers [units] by site that rank units, where effects do not; see `AttributionGraph.importance`."""


class ImageEffects(NamedTuple):
    """Node scores of some images, image by image."""

    batch: Batch
    """The images."""
    clean: dict[str, Tensor]
    """Activations by site."""
    ends: dict[str, Tensor]
    """The baseline's activations by site."""
    effects: dict[str, Tensor]
    """Effect [batch, units] by site; their mean over images are the node scores."""
    metric: Tensor
    """The clean metric [batch], in double precision."""


def image_effects(task: Task, rule: QuadratureRule) -> Iterator[ImageEffects]:
    """Yield every unit's effect on the metric in each image, batch by batch; the gradients of the task run.

    The rule ``left_rule(1)`` is gradient times activation, and takes a single run for all sites.
    """
    encoder, metric, sites = task.encoder, task.metric, task.sites
    rows = rows_that_fit(encoder, task.work.memory_gib)
    n_batches = count_batches(task.images, rows) or 0
    with task.bar("nodes", "site", n_batches * len(sites)) as bar:
        for batch in task.batches():
            # 1. One run, whose backward pass serves the point t = 0 of all sites.
            clean, first, values = clean_run(
                task, batch.images, sites, with_gradient=0.0 in rule.points
            )
            ends = batch.ends(clean)
            effects = dict[str, Tensor]()
            for site in sites:
                a = clean[site]
                b = ends[site]
                # 2. Popped, so that its memory is free for the runs of the next site.
                at_zero = first.pop(site, None)
                gradient = _path_gradient(
                    encoder, metric, a, b, site, rule, rows, at_zero
                )
                # 3. The way to the baseline times the mean gradient along it.
                effects[site] = unit_effects(task, site, (a - b) * gradient)
                bar.update()
            yield ImageEffects(batch, clean, ends, effects, values)


def fold_effects(
    task: Task, rule: QuadratureRule, folds: Int[np.ndarray, " images"] | None = None
) -> tuple[NodeEffects, dict[int, NodeEffects]]:
    """Return every unit's mean effect on the metric on all images, and on each fold of them, from one pass.

    The gradients of the task run.
    """
    encoder = task.encoder
    metric = task.metric
    # A mean baseline is the same for all images; what is carried past units differs from image to image.
    same = set[str]()
    if task.baseline.n_images is None:
        same = set(task.sites) - set(encoder.carried)
    at_same = dict[str, float]()
    sums = defaultdict[int, list[FoldSum]](list)
    for batch, _, ends, effects, clean in image_effects(task, rule):
        at_ends = dict[str, Tensor]()
        for site in task.sites:
            if site not in same:
                at_ends[site] = _metric_at(encoder, metric, ends[site], site)
            elif not batch.start:  # once serves all batches
                at_end = _metric_at(encoder, metric, ends[site][:1], site)
                at_same[site] = float(at_end)
        for fold, of_fold in fold_sums(folds, batch, effects, clean, at_ends):
            sums[fold].append(of_fold)
    return effects_of(sums, folds, at_same)


def unit_effects(task: Task, site: str, effects: Tensor) -> Tensor:
    """Return the effects [batch, units] of a site's units from those of its activation, summed over positions."""
    units = task.encoder.units_of(site, effects)
    of_units = per_unit(units, task.encoder.unit_dim(site))
    if not bool(of_units.isfinite().all()):
        raise InputError(
            f"The gradient of the metric {metric_name(task.metric)!r} by the activation at site {site!r} is NaN or "
            "infinite on the path to the baseline, although the metric itself is finite: look at its derivative there."
        )
    return of_units


class FoldSum(NamedTuple):
    """Sums over the images of a fold in a batch."""

    effects: dict[str, np.ndarray]
    """Sum of the effects [units] by site."""
    clean: float
    """Sum of the clean metric."""
    ends: dict[str, float]
    """Sum of the metric at the baseline, by site; only sites whose baseline differs between images."""
    n_images: int
    """Number of the images."""


def fold_sums(
    folds: Int[np.ndarray, " images"] | None,
    batch: Batch,
    effects: Mapping[str, Tensor],
    clean: Tensor,
    at_ends: Mapping[str, Tensor],
) -> Iterator[tuple[int, FoldSum]]:
    """Yield the number of each fold in a batch, and the sums of its effects [units] and of the metric."""
    n_images = len(batch.images)
    numbers = np.zeros(n_images, int)
    if folds is not None:
        numbers = folds[batch.start : batch.start + n_images]
    for fold in np.unique(numbers).tolist():
        members: Any = torch.from_numpy(np.flatnonzero(numbers == fold))
        if len(members) == n_images:
            members = slice(None)  # no copy of the whole batch
        by_site = dict[str, np.ndarray]()
        for site, of_images in effects.items():
            # Summed where it lies, in its own precision; over batches in double precision.
            by_site[site] = of_images[members].sum(0).cpu().double().numpy()
        of_fold = clean[members]
        ends = {site: float(values[members].sum()) for site, values in at_ends.items()}
        yield fold, FoldSum(by_site, float(of_fold.sum()), ends, len(of_fold))


def effects_of(
    sums: Mapping[int, Sequence[FoldSum]],
    folds: object | None,
    at_same: Mapping[str, float] = {},
) -> tuple[NodeEffects, dict[int, NodeEffects]]:
    """Return the means over all images, and, where there are folds, over the images of each fold.

    ``at_same`` is the metric at a baseline that all images share, by site.
    """
    whole = _mean_effects(list(chain.from_iterable(sums.values())), at_same)
    if folds is None:
        return whole, {}
    return whole, {fold: _mean_effects(sums[fold], at_same) for fold in sorted(sums)}


def _mean_effects(sums: Sequence[FoldSum], at_same: Mapping[str, float]) -> NodeEffects:
    count = sum(of_batch.n_images for of_batch in sums)
    clean = sum(of_batch.clean for of_batch in sums) / count
    scores = dict[str, np.ndarray]()
    completeness = dict[str, Completeness]()
    for site in sums[0].effects:
        total = sum((of_batch.effects[site] for of_batch in sums), np.zeros(()))
        scores[site] = total / count
        if site in at_same:
            at_end = at_same[site]
        elif site in sums[0].ends:
            at_end = sum(of_batch.ends[site] for of_batch in sums) / count
        else:
            continue  # part of the change goes past the units: there is nothing to sum to
        effect = float(scores[site].sum())
        completeness[site] = Completeness(effect, clean - at_end)
    return NodeEffects(scores, completeness, count)


def nodes_of(
    encoder: Encoder, scores: Mapping[str, np.ndarray]
) -> dict[str, np.ndarray]:
    """Return the scores of the units that may be nodes: in a feature basis the latents, never the error units."""
    nodes = dict(scores)
    for site, errors in encoder.error_units.items():
        if site in nodes:
            # Error units are the last of their site.
            nodes[site] = nodes[site][: errors.start]
    return nodes


def clean_run(
    task: Task, images: Tensor, sites: Sequence[str], *, with_gradient: bool
) -> tuple[dict[str, Tensor], dict[str, Tensor], Tensor]:
    """Return activations, the metric's gradient at every site (if wanted) and the metric [batch] in float64."""
    taps: dict[str, Tensor] = {}

    def tap(tensor: Tensor, hook: object) -> None:
        taps[hook.name] = tensor  # type: ignore[attr-defined]

    with torch.set_grad_enabled(with_gradient):
        # Weights may need no gradient, so the image has to: else no operation is recorded.
        x = images.detach().requires_grad_(with_gradient)
        hooks = [(site, tap) for site in sites]
        embedding = task.encoder.run_with_hooks(x, fwd_hooks=hooks)
        check_finite(taps)
        value = checked_metric(task.metric, embedding)
    gradients: dict[str, Tensor] = {}
    if with_gradient:
        by_site = _gradients(value, list(taps.values()))
        gradients = dict(zip(taps, by_site, strict=True))
    activations = {site: a.detach() for site, a in taps.items()}
    return activations, gradients, value.detach().cpu().double()


def _path_gradient(
    encoder: Encoder,
    metric: Metric,
    a: Tensor,
    b: Tensor,
    site: str,
    rule: QuadratureRule,
    rows: int,
    gradient_at_zero: Tensor | None,
) -> Tensor:
    """Return the weighted mean of the metric's gradient along the path from ``a`` to ``b`` [B, ...]."""
    todo = list(zip(rule.points, rule.weights, strict=True))
    total = torch.zeros_like(a)
    if gradient_at_zero is not None:
        total += sum(w for t, w in todo if t == 0.0) * gradient_at_zero
        todo = [(t, w) for t, w in todo if t != 0.0]
    # As many points in one run as images fit; each point is a copy of all images.
    at_once = max(1, rows // len(a))
    for k in range(0, len(todo), at_once):
        some = todo[k : k + at_once]
        x = torch.cat([a + t * (b - a) for t, _ in some]).requires_grad_()
        with torch.enable_grad():
            value = checked_metric(metric, encoder(x, start=site))
        gradient = _gradients(value, [x])[0]
        pieces = rearrange(
            gradient, "(point batch) ... -> point batch ...", point=len(some)
        )
        # Added point by point: the sum does not depend on how many share a run.
        for (_, weight), piece in zip(some, pieces, strict=True):
            total.add_(piece, alpha=weight)
    return total


def _gradients(value: Tensor, inputs: Sequence[Tensor]) -> tuple[Tensor, ...]:
    # Without autocast: the forward run chose the precision of each operation.
    with torch.enable_grad(), torch.autocast(value.device.type, enabled=False):
        return torch.autograd.grad(value.sum(), inputs)


def _metric_at(
    encoder: Encoder, metric: Metric, activation: Tensor, site: str
) -> Tensor:
    with torch.no_grad():
        return checked_metric(metric, encoder(activation, start=site)).cpu().double()


def per_unit(x: Tensor, unit_dim: int) -> Tensor:
    """Sum over positions, in single precision at least: [B, ...] -> [B, units]."""
    x = x.to(torch.promote_types(x.dtype, torch.float32)).movedim(unit_dim, 1)
    return x.flatten(2).sum(2) if x.dim() > 2 else x
