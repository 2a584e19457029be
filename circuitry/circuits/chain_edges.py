"""Edge scores: how far each kept unit moves when the kept units of the site before go to their baseline.

The metric of an edge is the mean squared distance of a downstream unit d from its clean activation,

    gap_d(x) = mean over images and positions of (stage(x)_d - a_down_d)^2

and its integrated gradient by the upstream unit is the edge's score (the study, section 5). Only the stages
between the two sites take part, so only they are run:

1. one clean run per batch gives the activations at all sites;
2. per point t of the rule, one forward of the narrowed stage (see `narrowing`) from a + t (b - a) gives the residual
   of every downstream unit;
3. with J the stage's Jacobian there, the score of an edge is residual_d . J (b - a)_u: vector-Jacobian products with
   one residual each, or Jacobian-vector products with one upstream unit's step each, whichever side has fewer
   units; vectorised in chunks that fit memory;
4. contracted with the other side over images and positions.

At t = 0 the residual is zero and so is the gradient: that point is never computed. Scores are means over images and
positions, whatever the cut into batches; the study divides them by the number of images once more.
"""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from itertools import pairwise
from typing import Any

import numpy as np
import torch
from jaxtyping import Int
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel

from circuitry.circuits.quadrature import QuadratureRule
from circuitry.models.narrowing import narrowest
from circuitry.models.sites import INPUT
from circuitry.models.stages import NarrowStage
from circuitry.models.task import Task
from circuitry.models.tensor_batches import count_batches, rows_that_fit
from circuitry.runs.errors import InputError
from circuitry.runs.progress import Bar
from circuitry.runs.turns import TurnLock

CACHED_BYTES = 2**27
"""Most bytes of one chunk of products on a CPU: larger ones fall out of its caches (on RN50 1.6 times slower)."""


def edge_effects(
    task: Task, kept_units: Mapping[str, Int[np.ndarray, " kept"]], rule: QuadratureRule
) -> dict[tuple[str, str], np.ndarray]:
    """Return the scores [kept downstream, kept upstream] of all edges between consecutive sites.

    Args:
        task: With gradients running; its metric plays no part. Products with the Jacobian take less than its memory on
            a CPU, see `CACHED_BYTES`.
        kept_units: Units of the circuit by site.
        rule: Points and weights of the path integral.

    Raises:
        InputError: for activations or scores that are not finite, or a baseline that does not fit.
    """
    encoder = task.encoder
    inner = [site for site in task.sites if site != INPUT]
    memory = int(task.work.memory_gib * 2**30)
    budget = min(memory, CACHED_BYTES) if encoder.device.type == "cpu" else memory
    kept = {site: torch.from_numpy(kept_units[site]).to(encoder.device) for site in inner}
    narrow = {
        (up, down): narrowest(
            encoder.stages[encoder.position(up) : encoder.position(down)],
            kept[up],
            kept[down],
            encoder.unit_dim(up),
        )
        for up, down in pairwise(inner)
        if len(kept[up]) and len(kept[down])  # a global budget may keep no unit of a site
    }
    sums = {(up, down): np.zeros((len(kept[down]), len(kept[up]))) for up, down in pairwise(inner)}
    positions: dict[tuple[str, str], int] = {}
    count = 0
    total = (count_batches(task.images, rows_that_fit(encoder, task.work.memory_gib)) or 0) * len(narrow) or None
    with Bar(total=total, desc="edges", unit="pair", disable=not task.work.progress, leave=False) as bar:
        for batch in task.batches():
            clean = batch.clean(inner)
            ends = batch.ends({up: clean[up] for up, _ in narrow})
            for (up, down), stage in narrow.items():
                a = clean[up]
                target = clean[down].index_select(encoder.unit_dim(down), kept[down])
                positions[up, down] = target[0].numel() // len(kept[down])
                scores = _pair_scores(
                    stage,
                    a,
                    ends[up] - a,
                    target,
                    kept[up],
                    (encoder.unit_dim(up), encoder.unit_dim(down)),
                    rule,
                    units_at_once=max(1, budget // (4 * a.element_size() * max(a.numel(), clean[down].numel()))),
                )
                sums[up, down] += scores.cpu().double().numpy()
                if not np.isfinite(sums[up, down]).all():
                    raise InputError(
                        f"Scores of edges from {up!r} to {down!r} are NaN or infinite, although both activations are "
                        "finite: give an encoder of higher precision, or look at the stage between them."
                    )
                bar.update()
            count += len(batch.images)
    return {pair: 2 * total / (count * positions.get(pair, 1)) for pair, total in sums.items()}


def _pair_scores(
    stage: NarrowStage,
    a: Tensor,
    step: Tensor,
    target: Tensor,
    up: Tensor,
    unit_dims: tuple[int, int],
    rule: QuadratureRule,
    units_at_once: int,
) -> Tensor:
    """Return sum_k w_k sum over images and positions of step_u * d/dx_u |stage(x)_d - target_d|^2 / 2 at t_k."""
    up_dim, down_dim = unit_dims = unit_dims[0] % step.dim(), unit_dims[1] % target.dim()
    kept_step = step.index_select(up_dim, up)
    total = torch.zeros(target.shape[down_dim], len(up), dtype=_at_least_single(a.dtype), device=a.device)
    by_inputs = kept_step.shape[up_dim] < target.shape[down_dim]
    route = _jacobian_times_steps if by_inputs else _residuals_times_jacobian
    for t, w in zip(rule.points, rule.weights, strict=True):
        if t != 0.0:
            total += w * route(partial(stage, a + t * step), kept_step, target, unit_dims, units_at_once)
    return total


def _residuals_times_jacobian(
    stage: Callable[[Tensor], Tensor], step: Tensor, target: Tensor, unit_dims: tuple[int, int], units_at_once: int
) -> Tensor:
    """Return residual_d . J step_u [down, up] by one vector-Jacobian product per downstream unit."""
    up_dim, down_dim = unit_dims
    delta = torch.zeros_like(step, requires_grad=True)
    with torch.enable_grad(), _batchable():
        y = stage(delta)

    def product(cotangent: Tensor) -> Tensor:
        return torch.autograd.grad(y, delta, cotangent, retain_graph=True)[0]

    residuals = _one_unit_each(y.detach() - target, down_dim)
    weight = _units_first(step, up_dim)
    rows = []
    for chunk in torch.split(torch.arange(target.shape[down_dim]), units_at_once):
        gradient = torch.func.vmap(product)(residuals(chunk))
        flat = _units_first(gradient, up_dim + 1, lead=2)
        rows.append(torch.einsum("nbup,bup->nu", flat, weight))
    return torch.cat(rows)


def _jacobian_times_steps(
    stage: Callable[[Tensor], Tensor], step: Tensor, target: Tensor, unit_dims: tuple[int, int], units_at_once: int
) -> Tensor:
    """Return the same as `_residuals_times_jacobian` by one Jacobian-vector product per upstream unit."""
    up_dim, down_dim = unit_dims
    start = torch.zeros_like(step)
    steps = _one_unit_each(step, up_dim)

    def moved(tangent: Tensor) -> Any:
        return torch.func.jvp(stage, (start,), (tangent,))

    columns = []
    with _batchable():
        for chunk in torch.split(torch.arange(step.shape[up_dim]), units_at_once):
            y, movement = torch.func.vmap(moved, out_dims=(None, 0))(steps(chunk))  # type: ignore[arg-type]
            flat = _units_first(movement, down_dim + 1, lead=2)
            columns.append(torch.einsum("nbdp,bdp->dn", flat, _units_first(y - target, down_dim)))
    return torch.cat(columns, 1)


_ONE_AT_A_TIME = TurnLock("the edges of an encoder")
"""PyTorch's choice of kernels and its levels of forward differentiation belong to the process, not to a thread."""


@contextmanager
def _batchable() -> Iterator[None]:
    """Within the block attention takes the kernels that vmap and forward differentiation know."""
    with _ONE_AT_A_TIME:
        fast = torch.backends.mha.get_fastpath_enabled()
        torch.backends.mha.set_fastpath_enabled(False)
        try:
            with sdpa_kernel(SDPBackend.MATH):
                yield
        finally:
            torch.backends.mha.set_fastpath_enabled(fast)


def _one_unit_each(x: Tensor, unit_dim: int) -> Callable[[Tensor], Tensor]:
    """Return the function from a chunk of units to copies of ``x``, each zero except at one of these units."""

    def copies(chunk: Tensor) -> Tensor:
        out = torch.zeros(len(chunk), *x.shape, dtype=x.dtype, device=x.device).movedim(unit_dim + 1, 1)
        out[torch.arange(len(chunk)), chunk] = x.movedim(unit_dim, 0)[chunk.to(x.device)]
        return out.movedim(1, unit_dim + 1)

    return copies


def _units_first(x: Tensor, unit_dim: int, lead: int = 1) -> Tensor:
    """Return [lead..., units and positions in any order] as [lead..., units, positions], to be summed."""
    x = x.to(_at_least_single(x.dtype)).movedim(unit_dim, lead)
    return x.flatten(lead + 1) if x.dim() > lead + 1 else x.unsqueeze(-1)


def _at_least_single(dtype: torch.dtype) -> torch.dtype:
    return torch.promote_types(dtype, torch.float32)
