"""Edge scores of chains: how far each kept unit moves when kept units of the sites before go to their baseline.

`reader_edges` lets each kept unit go on along its direct paths and weighs how far later units move with the metric's
gradient by them. `chain_edges` is the study's, between neighbouring sites. The metric of an edge there is the mean
squared distance of a downstream unit d from its clean activation,

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

import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from itertools import pairwise
from typing import Any, NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel

from circuitry.bases.gated_reading import joined_sites, read_paths
from circuitry.circuits.nodes import clean_run, per_unit
from circuitry.circuits.quadrature import QuadratureRule
from circuitry.encoder.encoder import Encoder
from circuitry.encoder.narrowing import narrowest
from circuitry.encoder.sites import INPUT
from circuitry.encoder.stages import NarrowStage
from circuitry.encoder.task import Task
from circuitry.encoder.tensor_batches import count_batches, rows_that_fit
from circuitry.gates.edges import Pair
from circuitry.runs.errors import InputError
from circuitry.runs.progress import Bar

CACHED_BYTES = 2**27
"""Most bytes of one chunk of products on a CPU: larger ones fall out of its caches (on RN50 1.6 times slower)."""


def chain_edges(
    task: Task, kept_units: Mapping[str, Int[np.ndarray, " kept"]], rule: QuadratureRule
) -> dict[Pair, np.ndarray]:
    """Return the scores [kept downstream, kept upstream] of all edges between consecutive sites.

    The task's gradients run, and its metric plays no part; see `CACHED_BYTES` on its memory.
    """
    inner = [site for site in task.sites if site != INPUT]
    memory = int(task.work.memory_gib * 2**30)
    budget = min(memory, CACHED_BYTES) if task.encoder.device.type == "cpu" else memory
    apart = set(pairwise(task.encoder.sites)) - set(
        joined_sites(task.encoder, task.encoder.sites)
    )
    joined = [pair for pair in pairwise(inner) if pair not in apart]
    sums = {
        (up, down): np.zeros((len(kept_units[down]), len(kept_units[up])))
        for up, down in joined
    }
    pairs = [
        pair for pair, scores in sums.items() if scores.size
    ]  # a site may keep no unit, as by a global budget
    joints, n_values = dict[Pair, _Joint](), dict.fromkeys(sums, 1)
    total = (
        count_batches(task.images, rows_that_fit(task.encoder, task.work.memory_gib))
        or 0
    ) * len(pairs) or None
    with Bar(
        total=total,
        desc="edges",
        unit="pair",
        disable=not task.work.progress,
        leave=False,
    ) as bar:
        for batch in task.batches():
            clean = batch.clean(inner)
            ends = batch.ends({up: clean[up] for up, _ in pairs})
            joints = joints or {
                pair: _Joint.of(task.encoder, pair, kept_units, clean) for pair in pairs
            }
            for (up, down), joint in joints.items():
                sums[up, down] += (
                    joint.scores(clean[up], ends[up], clean[down], rule, budget)
                    .cpu()
                    .double()
                    .numpy()
                )
                positions = clean[down][0].numel() // clean[down].shape[joint.down_dim]
                n_values[up, down] = (batch.start + len(batch.images)) * positions
                _check_scores((up, down), sums[up, down])
                bar.update()
    return {pair: 2 * found / n_values[pair] for pair, found in sums.items()}


def reader_edges(
    task: Task, kept_units: Mapping[str, Int[np.ndarray, " kept"]], rule: QuadratureRule
) -> dict[Pair, np.ndarray]:
    """Return the scores [kept downstream, kept upstream] of the edges at all pairs of sites (`joined_sites`).

    With the metric's gradient g at the images by a unit d, and u alone at its baseline on its direct path to d,

        score[d, u] = mean over images of  sum over positions of  g_d (d - d without u)

    One partial run for each kept unit scores its edges to all later sites. The arguments are those of `chain_edges`;
    the rule plays no part.
    """
    encoder, pairs = task.encoder, joined_sites(task.encoder, list(kept_units))
    sums = {
        (up, down): np.zeros((len(kept_units[down]), len(kept_units[up])))
        for up, down in pairs
    }
    fit, ups, n_images = rows_that_fit(encoder, task.work.memory_gib), dict(pairs), 0
    total = (count_batches(task.images, fit) or 0) * sum(
        len(kept_units[up]) for up in ups
    ) or None
    with Bar(
        total=total,
        desc="edges",
        unit="unit",
        disable=not task.work.progress,
        leave=False,
    ) as bar:
        for batch in task.batches():
            clean, gradients, _ = clean_run(
                task, batch.images, encoder.sites[1:], with_gradient=True
            )
            ends, n_images, at_once = (
                batch.ends(clean),
                n_images + len(batch.images),
                max(1, fit // len(batch.images)),
            )
            units, slopes = (
                {s: encoder.units_of(s, a) for s, a in of.items()}
                for of in (clean, gradients)
            )
            sizes = {
                site: units[site].shape[encoder.unit_dim(site)] for site in kept_units
            }
            for site, kept in kept_units.items():
                _check_units(site, kept, sizes[site])
            chosen = {
                site: torch.tensor(kept, device=encoder.device)
                for site, kept in kept_units.items()
            }
            columns: dict[Pair, list[Tensor]] = {pair: [] for pair in sums}
            for up, i in [
                (site, i)
                for site in ups
                for i in range(0, len(kept_units[site]), at_once)
            ]:
                some = chosen[up][i : i + at_once]
                gates = {up: F.one_hot(some, sizes[up]) == 0}
                for down, read in read_paths(encoder, clean, ends, gates):
                    if (up, down) in sums:
                        effects = per_unit(
                            ((units[down] - read) * slopes[down]).sum(1),
                            encoder.unit_dim(down),
                        )
                        columns[up, down].append(effects[:, chosen[down]].T)
                    if down == ups[up]:  # no site behind reads it
                        break
                bar.update(len(some))
            for pair, scores in sums.items():
                if columns[pair]:
                    scores += torch.cat(columns[pair], 1).cpu().double().numpy()
                _check_scores(pair, scores)
    return {pair: found / n_images for pair, found in sums.items()}


def _check_units(site: str, units: Int[np.ndarray, " kept"], n: int) -> None:
    if len(units) and not 0 <= min(units) <= max(units) < n:
        raise InputError(
            f"Units at site {site!r} are numbers from 0 to {n - 1}, but edges of unit "
            f"{min(units) if min(units) < 0 else max(units)} were asked for: give units of this encoder."
        )


def _check_scores(pair: Pair, scores: Float[np.ndarray, "down up"]) -> None:
    if not np.isfinite(scores).all():
        raise InputError(
            f"Scores of edges from {pair[0]!r} to {pair[1]!r} are NaN or infinite, although both activations are "
            "finite: give an encoder of higher precision, or look at the stage between them."
        )


class _Joint(NamedTuple):
    """Two sites with the units between which edges are scored."""

    stage: NarrowStage
    up: Tensor
    """Units upstream."""
    down: Tensor
    up_dim: int
    """The axis of the units."""
    down_dim: int

    @classmethod
    def of(
        cls,
        encoder: Encoder,
        pair: Pair,
        kept_units: Mapping[str, np.ndarray],
        clean: Mapping[str, Tensor],
    ) -> "_Joint":
        for site in pair:
            _check_units(
                site, kept_units[site], clean[site].shape[encoder.unit_dim(site)]
            )
        up, down = (
            torch.tensor(kept_units[site], device=encoder.device) for site in pair
        )
        first, last = map(encoder.position, pair)
        up_dim, down_dim = map(encoder.unit_dim, pair)
        return cls(
            narrowest(encoder.stages[first:last], up, down, up_dim),
            up,
            down,
            up_dim,
            down_dim,
        )

    def scores(
        self, a: Tensor, end: Tensor, after: Tensor, rule: QuadratureRule, budget: int
    ) -> Tensor:
        """Return sum_k w_k * sum over images and positions of step_u * d/dx_u |stage(x)_d - target_d|^2 / 2 at t_k."""
        dims = self.up_dim % a.dim(), self.down_dim % after.dim()
        at_once = max(
            1, budget // (4 * a.element_size() * max(a.numel(), after.numel()))
        )
        step, target = end - a, after.index_select(dims[1], self.down)
        kept_step = step.index_select(dims[0], self.up)
        route = (
            _jacobian_times_steps
            if len(self.up) < len(self.down)
            else _residuals_times_jacobian
        )
        found = a.new_zeros(
            len(self.down),
            len(self.up),
            dtype=torch.promote_types(a.dtype, torch.float32),
        )
        for t, w in zip(rule.points, rule.weights, strict=True):
            if t != 0.0:
                found += w * route(
                    partial(self.stage, a + t * step), kept_step, target, dims, at_once
                )
        return found


def _residuals_times_jacobian(
    stage: Callable[[Tensor], Tensor],
    step: Tensor,
    target: Tensor,
    unit_dims: tuple[int, int],
    units_at_once: int,
) -> Float[Tensor, "down up"]:
    """Return residual_d . J step_u by one vector-Jacobian product per downstream unit."""
    up_dim, down_dim = unit_dims
    delta = torch.zeros_like(step, requires_grad=True)
    with torch.enable_grad(), _batchable():
        y = stage(delta)

    def product(cotangent: Tensor) -> Tensor:
        return torch.autograd.grad(y, delta, cotangent, retain_graph=True)[0]

    residual, weight, rows = (
        y.detach() - target,
        _units_first(step, up_dim),
        list[Tensor](),
    )
    for chunk in torch.split(
        torch.arange(target.shape[down_dim], device=target.device), units_at_once
    ):
        found = torch.func.vmap(product)(_one_unit_each(residual, down_dim, chunk))
        rows.append(
            torch.einsum(
                "nbup,bup->nu", _units_first(found, up_dim + 1, lead=2), weight
            )
        )
    return torch.cat(rows)


def _jacobian_times_steps(
    stage: Callable[[Tensor], Tensor],
    step: Tensor,
    target: Tensor,
    unit_dims: tuple[int, int],
    units_at_once: int,
) -> Float[Tensor, "down up"]:
    """Return the same as `_residuals_times_jacobian` by one Jacobian-vector product per upstream unit."""
    up_dim, down_dim = unit_dims
    start, columns = torch.zeros_like(step), list[Tensor]()

    def moved(tangent: Tensor) -> Any:
        return torch.func.jvp(stage, (start,), (tangent,))

    with _batchable():
        for chunk in torch.split(
            torch.arange(step.shape[up_dim], device=step.device), units_at_once
        ):
            tangents = _one_unit_each(step, up_dim, chunk)
            y, movement = torch.func.vmap(moved, out_dims=(None, 0))(tangents)  # type: ignore[arg-type]
            residual = _units_first(y - target, down_dim)
            columns.append(
                torch.einsum(
                    "nbdp,bdp->dn",
                    _units_first(movement, down_dim + 1, lead=2),
                    residual,
                )
            )
    return torch.cat(columns, 1)


_KERNELS = threading.RLock()
"""PyTorch's choice of kernels and its levels of forward differentiation belong to the process, not to a thread."""


@contextmanager
def _batchable() -> Iterator[None]:
    """Within the block attention takes the kernels that vmap and forward differentiation know."""
    with _KERNELS:
        fast = torch.backends.mha.get_fastpath_enabled()
        torch.backends.mha.set_fastpath_enabled(False)
        try:
            with sdpa_kernel(SDPBackend.MATH):
                yield
        finally:
            torch.backends.mha.set_fastpath_enabled(fast)


def _one_unit_each(
    x: Tensor, unit_dim: int, units: Tensor
) -> Float[Tensor, "units ..."]:
    """Return copies of ``x``, each zero except at one of the units."""
    out = torch.zeros(len(units), *x.shape, dtype=x.dtype, device=x.device)
    out.movedim(unit_dim + 1, 1)[torch.arange(len(units), device=x.device), units] = (
        x.movedim(unit_dim, 0)[units]
    )
    return out


def _units_first(x: Tensor, unit_dim: int, lead: int = 1) -> Tensor:
    """Return [lead..., units and positions in any order] as [lead..., units, positions], to be summed."""
    x = x.to(torch.promote_types(x.dtype, torch.float32)).movedim(unit_dim, lead)
    return x.flatten(lead + 1) if x.dim() > lead + 1 else x.unsqueeze(-1)
