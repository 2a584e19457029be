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
from circuitry.runs.progress import Bar


@dataclass(frozen=True)
class NodeEffects:
    """Node scores of one set of images, before units are kept."""

    scores: dict[str, np.ndarray]
    """Mean effect [units] by site; positive where a unit helps."""
    completeness: dict[str, Completeness]
    n_images: int
    importance: dict[str, np.ndarray] | None = None
    """What ranks units, where it is not their effects; see `AttributionGraph.importance`."""


class ImageEffects(NamedTuple):
    """Node scores of some images, image by image."""

    batch: Batch
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
    total = (count_batches(task.images, rows) or 0) * len(sites) or None
    with Bar(
        total=total,
        desc="nodes",
        unit="site",
        disable=not task.work.progress,
        leave=False,
    ) as bar:
        for batch in task.batches():
            clean, first, values = clean_run(
                task, batch.images, sites, with_gradient=0.0 in rule.points
            )
            ends, effects = batch.ends(clean), dict[str, Tensor]()
            for site in sites:
                a, b = clean[site], ends[site]
                gradient = _path_gradient(
                    encoder, metric, a, b, site, rule, rows, first.pop(site, None)
                )
                effects[site] = unit_effects(task, site, (a - b) * gradient)
                bar.update()
            yield ImageEffects(batch, clean, ends, effects, values)


def part_effects(
    task: Task, rule: QuadratureRule, parts: Int[np.ndarray, " images"] | None = None
) -> tuple[NodeEffects, dict[int, NodeEffects]]:
    """Return every unit's mean effect on the metric on all images, and on each part of them, from one pass.

    The gradients of the task run.
    """
    encoder, metric, sites = task.encoder, task.metric, task.sites
    same = [
        site
        for site in sites
        if task.baseline.n_images is None and site not in encoder.carried
    ]
    at_same = dict[str, float]()
    sums = defaultdict[int, list[PartSum]](list)
    for batch, _, ends, effects, clean in image_effects(task, rule):
        if (
            not batch.start
        ):  # the baseline is the same for all images there, so once will do
            at_same = {
                site: float(_metric_at(encoder, metric, ends[site][:1], site))
                for site in same
            }
        at_ends = {
            site: _metric_at(encoder, metric, ends[site], site)
            for site in sites
            if site not in same
        }
        for part, found in part_sums(parts, batch, effects, clean, at_ends):
            sums[part].append(found)
    return effects_of(sums, parts, at_same)


def unit_effects(task: Task, site: str, effects: Tensor) -> Tensor:
    """Return the effects [batch, units] of a site's units from those of its activation, summed over positions."""
    found = per_unit(task.encoder.units_of(site, effects), task.encoder.unit_dim(site))
    if not bool(found.isfinite().all()):
        raise InputError(
            f"The gradient of the metric {metric_name(task.metric)!r} by the activation at site {site!r} is NaN or "
            "infinite on the path to the baseline, although the metric itself is finite: look at its derivative there."
        )
    return found


class PartSum(NamedTuple):
    """Sums over the images of a part in a batch."""

    effects: dict[str, np.ndarray]
    clean: float
    """Sum of the clean metric."""
    ends: dict[str, float]
    """Sum of the metric at the baseline, by site; only sites whose baseline differs between images."""
    n_images: int


def part_sums(
    parts: Int[np.ndarray, " images"] | None,
    batch: Batch,
    effects: Mapping[str, Tensor],
    clean: Tensor,
    at_ends: Mapping[str, Tensor],
) -> Iterator[tuple[int, PartSum]]:
    """Yield the sums of each part in a batch, of effects [batch, units] and of the metric [batch]."""
    last = batch.start + len(batch.images)
    numbers = (
        np.zeros(len(batch.images), int) if parts is None else parts[batch.start : last]
    )
    for part in np.unique(numbers).tolist():
        alone = (numbers == part).all()
        members: Any = (
            slice(None) if alone else torch.from_numpy(np.flatnonzero(numbers == part))
        )
        by_site = {
            site: found[members].sum(0).cpu().double().numpy()
            for site, found in effects.items()
        }
        ends = {site: float(values[members].sum()) for site, values in at_ends.items()}
        yield (
            part,
            PartSum(by_site, float(clean[members].sum()), ends, len(clean[members])),
        )


def effects_of(
    sums: Mapping[int, Sequence[PartSum]],
    parts: object | None,
    at_same: Mapping[str, float] = {},
) -> tuple[NodeEffects, dict[int, NodeEffects]]:
    """Return the means over all images, and over those of each part where there are parts.

    ``at_same`` is the metric at a baseline that all images share, by site.
    """
    whole = _mean_effects(
        [one for of_part in sums.values() for one in of_part], at_same
    )
    return whole, {} if parts is None else {
        part: _mean_effects(sums[part], at_same) for part in sorted(sums)
    }


def _mean_effects(sums: Sequence[PartSum], at_same: Mapping[str, float]) -> NodeEffects:
    count = sum(one.n_images for one in sums)
    scores = {
        site: sum((one.effects[site] for one in sums), np.zeros(())) / count
        for site in sums[0].effects
    }
    clean = sum(one.clean for one in sums) / count
    ends = {
        site: sum(one.ends[site] for one in sums) / count for site in sums[0].ends
    } | dict(at_same)
    told = {
        site: Completeness(float(scores[site].sum()), clean - ends[site])
        for site in scores
        if site in ends
    }
    return NodeEffects(scores, told, count)


def nodes_of(
    encoder: Encoder, scores: Mapping[str, np.ndarray]
) -> dict[str, np.ndarray]:
    """Return the scores of the units that may be nodes: in a feature basis the latents, never the error units."""
    ends = {site: units.start for site, units in encoder.error_units.items()}
    return {site: found[: ends.get(site)] for site, found in scores.items()}


def clean_run(
    task: Task, images: Tensor, sites: Sequence[str], *, with_gradient: bool
) -> tuple[dict[str, Tensor], dict[str, Tensor], Tensor]:
    """Return activations, the metric's gradient at every site (if wanted) and the metric [batch] in float64."""
    taps: dict[str, Tensor] = {}

    def tap(tensor: Tensor, hook: object) -> None:
        taps[hook.name] = tensor  # type: ignore[attr-defined]

    with torch.set_grad_enabled(with_gradient):
        x = images.detach().requires_grad_(with_gradient)
        embedding = task.encoder.run_with_hooks(
            x, fwd_hooks=[(site, tap) for site in sites]
        )
        check_finite(taps)
        value = checked_metric(task.metric, embedding)
    gradients: dict[str, Tensor] = {}
    if with_gradient:
        found = _gradients(value, list(taps.values()))
        gradients = dict(zip(taps, found, strict=True))
    return (
        {site: a.detach() for site, a in taps.items()},
        gradients,
        value.detach().cpu().double(),
    )


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
    at_once = max(1, rows // len(a))
    for k in range(0, len(todo), at_once):
        points, weights = zip(*todo[k : k + at_once], strict=True)
        x = torch.cat([a + t * (b - a) for t in points]).requires_grad_()
        with torch.enable_grad():
            value = checked_metric(metric, encoder(x, start=site))
        gradient = _gradients(value, [x])[0]
        parts = rearrange(
            gradient, "(point batch) ... -> point batch ...", point=len(points)
        )
        for w, part in zip(weights, parts, strict=True):
            total.add_(part, alpha=w)
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
