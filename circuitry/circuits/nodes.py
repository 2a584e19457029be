"""Node scores: what every unit contributes to the metric, by integrated gradients at its site.

The method of Sundararajan et al. 2017 (arXiv 1703.01365) is applied to a site instead of the image. For each batch of
images:

1. One clean run gives the activations a at all sites. If the rule has the point t = 0, the backward pass of this run
   gives the gradients of that point at all sites at once.
2. For each site and each further point t, the tower is run from this site on, starting with a + t (b - a), where b is
   the baseline. The backward pass gives the metric's gradient. Several points share a run as far as the memory allows.
3. effect[unit] = sum over positions of (a - b) * sum_k w_k * gradient_k, and then the mean over images.

A positive effect means that the unit helps: ablating it lowers the metric. The effects of a site sum to nearly
metric(clean) - metric(baseline at the site). Both numbers are returned (`Completeness`).
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
from circuitry.encoder.site_activations import check_finite, first_not_finite
from circuitry.encoder.task import Batch, Task
from circuitry.encoder.tensor_batches import count_batches, rows_that_fit
from circuitry.runs.errors import InputError


@dataclass(frozen=True)
class NodeEffects:
    """Scores of all units on one set of images, from which the units to keep are chosen later."""

    scores: dict[str, np.ndarray]
    """Mean effect [units] by site; positive for a unit that helps."""
    completeness: dict[str, Completeness]
    """Sum of the effects and the metric's change, by site. A site is absent if the change that its effects should sum
    to is unknown: in conductance, if a stream is carried past its units."""
    n_images: int
    """Number of images that the scores are means over."""
    importance: dict[str, np.ndarray] | None = None
    """Numbers [units] by site that rank the units; None if the effects rank them. See `Scores.importance`."""


class ImageEffects(NamedTuple):
    """Effects of units on the images of a batch, image by image."""

    batch: Batch
    """The images."""
    clean: dict[str, Tensor]
    """Clean activations by site."""
    ends: dict[str, Tensor]
    """Activations of the baseline by site."""
    effects: dict[str, Tensor]
    """Effects [batch, units] by site. Their means over images are the node scores."""
    metric: Tensor
    """The metric of the clean run [batch], in double precision."""


def image_effects(task: Task, rule: QuadratureRule) -> Iterator[ImageEffects]:
    """Yield the effect of every unit on the metric of each image, batch by batch.

    Call it within ``task.running(gradients=True)``. With the rule ``left_rule(1)`` the effect is gradient x (activation
    - baseline), and a single run serves all sites.
    """
    encoder, metric, sites = task.encoder, task.metric, task.sites
    rows = rows_that_fit(encoder, task.work.memory_gib)
    n_batches = count_batches(task.images, rows) or 0
    with task.bar("nodes", "site", n_batches * len(sites)) as bar:
        for batch in task.batches():
            # 1. One run, whose backward pass gives the gradients at t = 0 for all sites.
            clean, first, values = clean_run(
                task, batch.images, sites, with_gradient=0.0 in rule.points
            )
            ends = batch.ends(clean)
            effects = dict[str, Tensor]()
            for site in sites:
                a = clean[site]
                b = ends[site]
                # 2. Popped, so that the memory of this gradient is free during the runs of the next site.
                at_zero = first.pop(site, None)
                gradient = _path_gradient(
                    encoder, metric, a, b, site, rule, rows, at_zero
                )
                # 3. The step from the baseline to the clean activation, times the mean gradient on the path.
                effects[site] = unit_effects(encoder, site, (a - b) * gradient)
                bar.update()
            check_effects(metric, effects)
            yield ImageEffects(batch, clean, ends, effects, values)


def fold_effects(
    task: Task, rule: QuadratureRule, folds: Int[np.ndarray, " images"] | None = None
) -> tuple[NodeEffects, dict[int, NodeEffects]]:
    """Return the mean effects of all units on the metric: on all images, and on each fold of the images.

    One pass over the images computes all of these effects. Call it within ``task.running(gradients=True)``.

    Args:
        task: Encoder, images, metric, baseline and sites.
        rule: Quadrature rule of the path from the clean activation to the baseline.
        folds: Index of the fold of each image. If None, the second result is empty.

    Returns:
        The effects on all images, and a dictionary from the index of a fold to the effects on this fold.
    """
    encoder = task.encoder
    metric = task.metric
    # A baseline without an activation per image is the same for all images, but a carried stream is not.
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
            elif not batch.start:  # the first batch gives the value for all batches
                at_end = _metric_at(encoder, metric, ends[site][:1], site)
                at_same[site] = float(at_end)
        for fold, of_fold in fold_sums(folds, batch, effects, clean, at_ends):
            sums[fold].append(of_fold)
    return effects_of(sums, folds, at_same)


def unit_effects(encoder: Encoder, site: str, effects: Tensor) -> Tensor:
    """Return the effects [batch, units] of a site's units, summed over positions.

    Args:
        encoder: The encoder.
        site: The site.
        effects: Effect of each value of the site's activation, with the shape of the activation.
    """
    return per_unit(encoder.units_of(site, effects), encoder.unit_dim(site))


def check_effects(metric: Metric, effects: Mapping[str, Tensor]) -> None:
    """Raise `InputError` if an effect is not finite, and name the first site with such an effect.

    Args:
        metric: The metric whose gradients gave the effects.
        effects: Effects [batch, units] by site.
    """
    site = first_not_finite(effects)
    if site is not None:
        raise InputError(
            f"The gradient of the metric {metric_name(metric)!r} by the activation at site {site!r} is NaN or "
            "infinite on the path to the baseline, although the metric itself is finite: look at its derivative there."
        )


class FoldSum(NamedTuple):
    """Sums over those images of a batch that belong to one fold."""

    effects: dict[str, np.ndarray]
    """Sums of the effects [units] by site."""
    clean: float
    """Sum of the metric of the clean images."""
    ends: dict[str, float]
    """Sum of the metric with a site at its baseline, by site. Only sites at which this metric is measured for each
    image are present."""
    n_images: int
    """Number of the images."""


def fold_sums(
    folds: Int[np.ndarray, " images"] | None,
    batch: Batch,
    effects: Mapping[str, Tensor],
    clean: Tensor,
    at_ends: Mapping[str, Tensor],
) -> Iterator[tuple[int, FoldSum]]:
    """Yield, for each fold with images in a batch, the index of the fold and the sums over its images.

    Args:
        folds: Index of the fold of each image of the task. If None, all images are in the fold 0.
        batch: The batch.
        effects: Effects [batch, units] by site.
        clean: The metric of the clean images [batch].
        at_ends: The metric with a site at its baseline [batch], by site.
    """
    n_images = len(batch.images)
    numbers = np.zeros(n_images, int)
    if folds is not None:
        numbers = folds[batch.start : batch.start + n_images]
    for fold in np.unique(numbers).tolist():
        members: Any = torch.from_numpy(np.flatnonzero(numbers == fold))
        of_fold = clean[members]
        # The effects are on the device; all other numbers are on the CPU.
        on_device: Any = slice(None)  # no copy of the whole batch
        if len(members) < n_images:
            on_device = members.to(batch.images.device)
        # Sums within a batch stay on the device and in the precision of the effects; sums over batches are in double
        # precision. The sums of all sites are read together, because Python waits for the GPU at each read.
        totals = [of_images[on_device].sum(0) for of_images in effects.values()]
        pieces = torch.split(torch.cat(totals).cpu().double(), list(map(len, totals)))
        by_site = {
            site: piece.numpy() for site, piece in zip(effects, pieces, strict=True)
        }
        ends = {site: float(values[members].sum()) for site, values in at_ends.items()}
        yield fold, FoldSum(by_site, float(of_fold.sum()), ends, len(of_fold))


def effects_of(
    sums: Mapping[int, Sequence[FoldSum]],
    folds: object | None,
    at_same: Mapping[str, float] = {},
) -> tuple[NodeEffects, dict[int, NodeEffects]]:
    """Return the mean effects on all images, and a dictionary from the index of a fold to the effects on this fold.

    Args:
        sums: Sums of the batches, by the index of the fold; if there are no folds, all sums are under the index 0.
        folds: The argument ``folds`` that `fold_sums` got. If None, the dictionary is empty.
        at_same: The metric with a site at its baseline, by site. It has only the sites where this value is the same for
            all images.
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
            continue  # some of the change is carried past the units, so there is no total to compare the sum with
        effect = float(scores[site].sum())
        completeness[site] = Completeness(effect, clean - at_end)
    return NodeEffects(scores, completeness, count)


def nodes_of(
    encoder: Encoder, scores: Mapping[str, np.ndarray]
) -> dict[str, np.ndarray]:
    """Return the scores by site without the scores of error units, because error units cannot be nodes of a circuit."""
    nodes = dict(scores)
    for site, errors in encoder.error_units.items():
        if site in nodes:
            # Error units are the last units of their site.
            nodes[site] = nodes[site][: errors.start]
    return nodes


def clean_run(
    task: Task, images: Tensor, sites: Sequence[str], *, with_gradient: bool
) -> tuple[dict[str, Tensor], dict[str, Tensor], Tensor]:
    """Run the encoder on images; return activations by site, gradients by site, and the metric [batch] in float64.

    Args:
        task: A task with the encoder and the metric.
        images: The images.
        sites: Sites whose activations and gradients are returned.
        with_gradient: Whether to compute the gradients of the metric with respect to the activations. If False, the
            second result is empty.
    """
    taps: dict[str, Tensor] = {}

    def tap(tensor: Tensor, hook: object) -> None:
        taps[hook.name] = tensor  # type: ignore[attr-defined]

    with torch.set_grad_enabled(with_gradient):
        # The weights may not require gradients. Then autograd records operations only if the image requires them.
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
    """Return the weighted mean [B, ...] of the metric's gradient at the rule's points on the path from ``a`` to ``b``.

    Args:
        encoder, metric: Each point is run from ``site`` to the metric.
        a, b: Activations at the start and the end of the path.
        site: Site of these activations.
        rule: Points and weights.
        rows: Number of images that fit into the memory at once.
        gradient_at_zero: Gradient at t = 0 if it is already known, otherwise None.
    """
    todo = list(zip(rule.points, rule.weights, strict=True))
    total = torch.zeros_like(a)
    if gradient_at_zero is not None:
        total += sum(w for t, w in todo if t == 0.0) * gradient_at_zero
        todo = [(t, w) for t, w in todo if t != 0.0]
    # Each point needs a copy of all images, so a run takes as many points as copies fit into the memory.
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
        # Added point by point, so that the sum does not depend on how many points share a run.
        for (_, weight), piece in zip(some, pieces, strict=True):
            total.add_(piece, alpha=weight)
    return total


def _gradients(value: Tensor, inputs: Sequence[Tensor]) -> tuple[Tensor, ...]:
    # Without autocast, because the forward run has already chosen the precision of each operation.
    with torch.enable_grad(), torch.autocast(value.device.type, enabled=False):
        return torch.autograd.grad(value.sum(), inputs)


def _metric_at(
    encoder: Encoder, metric: Metric, activation: Tensor, site: str
) -> Tensor:
    with torch.no_grad():
        return checked_metric(metric, encoder(activation, start=site)).cpu().double()


def per_unit(x: Tensor, unit_dim: int) -> Tensor:
    """Return the sums [B, units] of ``x`` over positions, at least in single precision.

    Args:
        x: Values [B, ...] at a site.
        unit_dim: Axis of the units.
    """
    x = x.to(torch.promote_types(x.dtype, torch.float32)).movedim(unit_dim, 1)
    return x.flatten(2).sum(2) if x.dim() > 2 else x
