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

CACHED_BYTES = 2**27
"""Most bytes of one chunk of products on a CPU: larger ones fall out of its caches (on RN50 1.6 times slower)."""


def chain_edges(
    task: Task, kept_units: Mapping[str, Int[np.ndarray, " kept"]], rule: QuadratureRule
) -> dict[Pair, np.ndarray]:
    """Return the scores [kept downstream, kept upstream] of all edges between consecutive sites.

    The task's gradients run, and its metric plays no part; see `CACHED_BYTES` on its memory.
    """
    encoder = task.encoder
    inner = [site for site in task.sites if site != INPUT]
    memory = int(task.work.memory_gib * 2**30)
    budget = min(memory, CACHED_BYTES) if encoder.device.type == "cpu" else memory
    # Neighbours of the encoder that no edge joins have no scores. Neighbours among the task's sites alone do: all
    # stages between them are run as one.
    apart = set(pairwise(encoder.sites)) - set(joined_sites(encoder, encoder.sites))
    sums = dict[Pair, np.ndarray]()
    for up, down in pairwise(inner):
        if (up, down) not in apart:
            sums[up, down] = np.zeros((len(kept_units[down]), len(kept_units[up])))
    # A site may keep no unit, as by a global budget: such a pair takes no run.
    pairs = [pair for pair, scores in sums.items() if scores.size]
    joints = dict[Pair, _Joint]()
    n_values = dict.fromkeys(sums, 1)
    rows = rows_that_fit(encoder, task.work.memory_gib)
    n_batches = count_batches(task.images, rows) or 0
    with task.bar("edges", "pair", n_batches * len(pairs)) as bar:
        for batch in task.batches():
            clean = batch.clean(inner)
            ends = batch.ends({up: clean[up] for up, _ in pairs})
            for up, down in pairs:
                # Narrowed to the kept units once, with the first batch, which shows the sizes of the sites.
                if (up, down) not in joints:
                    joints[up, down] = _Joint.of(encoder, (up, down), kept_units, clean)
                joint = joints[up, down]
                scores = joint.scores(clean[up], ends[up], clean[down], rule, budget)
                sums[up, down] += scores.cpu().double().numpy()
                positions = clean[down][0].numel() // clean[down].shape[joint.down_dim]
                n_values[up, down] = (batch.start + len(batch.images)) * positions
                _check_scores((up, down), sums[up, down])
                bar.update()
    # Twice, since the derivative of a square is.
    return {pair: 2 * scores / n_values[pair] for pair, scores in sums.items()}


def reader_edges(
    task: Task, kept_units: Mapping[str, Int[np.ndarray, " kept"]], rule: QuadratureRule
) -> dict[Pair, np.ndarray]:
    """Return the scores [kept downstream, kept upstream] of the edges at all pairs of sites (`joined_sites`).

    With the metric's gradient g at the images by a unit d, and u alone at its baseline on its direct path to d,

        score[d, u] = mean over images of  sum over positions of  g_d (d - d without u)

    One partial run for each kept unit scores its edges to all later sites. The arguments are those of `chain_edges`;
    the rule plays no part.
    """
    encoder = task.encoder
    pairs = joined_sites(encoder, list(kept_units))
    sums = dict[Pair, np.ndarray]()
    for up, down in pairs:
        sums[up, down] = np.zeros((len(kept_units[down]), len(kept_units[up])))
    # The last site that reads each upstream site.
    last_readers = dict(pairs)
    n_runs = sum(len(kept_units[up]) for up in last_readers)
    fit = rows_that_fit(encoder, task.work.memory_gib)
    n_images = 0
    n_batches = count_batches(task.images, fit) or 0
    with task.bar("edges", "unit", n_batches * n_runs) as bar:
        for batch in task.batches():
            clean, gradients, _ = clean_run(
                task, batch.images, encoder.sites[1:], with_gradient=True
            )
            ends = batch.ends(clean)
            n_images += len(batch.images)
            at_once = max(1, fit // len(batch.images))
            units = {site: encoder.units_of(site, a) for site, a in clean.items()}
            slopes = {site: encoder.units_of(site, g) for site, g in gradients.items()}
            sizes = dict[str, int]()
            chosen = dict[str, Tensor]()
            for site, kept in kept_units.items():
                sizes[site] = encoder.n_units(site, clean[site])
                _check_units(site, kept, sizes[site])
                chosen[site] = torch.tensor(kept, device=encoder.device)
            columns: dict[Pair, list[Tensor]] = {pair: [] for pair in sums}
            for up, last_reader in last_readers.items():
                # torch.split makes one empty chunk of no units, which would run on nothing.
                chunks = torch.split(chosen[up], at_once) if len(chosen[up]) else ()
                for some in chunks:
                    # [units, all units]: each row closes one unit.
                    gates = {up: F.one_hot(some, sizes[up]) == 0}
                    for down, read in read_paths(encoder, clean, ends, gates):
                        if (up, down) in sums:
                            losses = (units[down] - read) * slopes[down]
                            effects = per_unit(losses.sum(1), encoder.unit_dim(down))
                            columns[up, down].append(effects[:, chosen[down]].T)
                        # Each site behind would be a run for nothing.
                        if down == last_reader:
                            break
                    bar.update(len(some))
            for pair, scores in sums.items():
                if columns[pair]:
                    scores += torch.cat(columns[pair], 1).cpu().double().numpy()
                _check_scores(pair, scores)
    return {pair: scores / n_images for pair, scores in sums.items()}


def _check_units(site: str, units: Int[np.ndarray, " kept"], n: int) -> None:
    if not len(units):
        return
    # Negative numbers would count from the end, and so score another unit.
    wrong = min(units) if min(units) < 0 else max(units)
    if not 0 <= wrong < n:
        raise InputError(
            f"Units at site {site!r} are numbers from 0 to {n - 1}, but edges of unit "
            f"{wrong} were asked for: give units of this encoder."
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
    """The stages between the sites, for these units alone."""
    up: Tensor
    """Numbers of the units upstream."""
    down: Tensor
    """Numbers of the units downstream."""
    up_dim: int
    """Axis of the units upstream."""
    down_dim: int
    """Axis of the units downstream."""

    @classmethod
    def of(
        cls,
        encoder: Encoder,
        pair: Pair,
        kept_units: Mapping[str, np.ndarray],
        clean: Mapping[str, Tensor],
    ) -> "_Joint":
        """Return two sites joined by a narrowed stage; refuse units that they do not have."""
        for site in pair:
            n_units = clean[site].shape[encoder.unit_dim(site)]
            _check_units(site, kept_units[site], n_units)
        first, last = pair
        up = torch.tensor(kept_units[first], device=encoder.device)
        down = torch.tensor(kept_units[last], device=encoder.device)
        between = encoder.stages[encoder.position(first) : encoder.position(last)]
        up_dim = encoder.unit_dim(first)
        stage = narrowest(between, up, down, up_dim)
        return cls(stage, up, down, up_dim, encoder.unit_dim(last))

    def scores(
        self, a: Tensor, end: Tensor, after: Tensor, rule: QuadratureRule, budget: int
    ) -> Tensor:
        """Return sum_k w_k * sum over images and positions of step_u * d/dx_u |stage(x)_d - target_d|^2 / 2 at t_k."""
        dims = (self.up_dim % a.dim(), self.down_dim % after.dim())
        # About four copies of the larger activation are alive at a time for each unit of a chunk.
        bytes_of_unit = 4 * a.element_size() * max(a.numel(), after.numel())
        at_once = max(1, budget // bytes_of_unit)
        step = end - a
        target = after.index_select(dims[1], self.down)
        kept_step = step.index_select(dims[0], self.up)
        # Both give the same numbers; the cost is one product for each unit of the side that is stepped through.
        route = _residuals_times_jacobian
        if len(self.up) < len(self.down):
            route = _jacobian_times_steps
        total = a.new_zeros(
            len(self.down),
            len(self.up),
            dtype=torch.promote_types(a.dtype, torch.float32),
        )
        for t, w in zip(rule.points, rule.weights, strict=True):
            if t != 0.0:
                stage = partial(self.stage, a + t * step)
                total += w * route(stage, kept_step, target, dims, at_once)
        return total


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

    residual = y.detach() - target
    weight = _units_first(step, up_dim)
    numbers = torch.arange(target.shape[down_dim], device=target.device)
    rows = list[Tensor]()
    for chunk in torch.split(numbers, units_at_once):
        cotangents = _one_unit_each(residual, down_dim, chunk)
        products = torch.func.vmap(product)(cotangents)
        # [chunk, batch, up, positions] with the steps: summed over images and positions.
        by_unit = _units_first(products, up_dim + 1, lead=2)
        rows.append(torch.einsum("nbup,bup->nu", by_unit, weight))
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
    start = torch.zeros_like(step)

    def moved(tangent: Tensor) -> Any:
        return torch.func.jvp(stage, (start,), (tangent,))

    numbers = torch.arange(step.shape[up_dim], device=step.device)
    columns = list[Tensor]()
    with _batchable():
        for chunk in torch.split(numbers, units_at_once):
            tangents = _one_unit_each(step, up_dim, chunk)
            # The output y is the same for all tangents, so it is not batched.
            y, movement = torch.func.vmap(moved, out_dims=(None, 0))(tangents)  # type: ignore[arg-type]
            residual = _units_first(y - target, down_dim)
            by_unit = _units_first(movement, down_dim + 1, lead=2)
            columns.append(torch.einsum("nbdp,bdp->dn", by_unit, residual))
    return torch.cat(columns, 1)


_KERNELS = threading.RLock()
"""PyTorch's choice of kernels and its levels of forward differentiation belong to the process, not to a thread."""


@contextmanager
def _batchable() -> Iterator[None]:
    """Within the block attention takes the kernels that vmap and forward differentiation know."""
    # Held for the whole block: another thread that restores the choice would undo ours.
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
    copies = torch.arange(len(units), device=x.device)
    # movedim is a view, so this writes into the copies.
    out.movedim(unit_dim + 1, 1)[copies, units] = x.movedim(unit_dim, 0)[units]
    return out


def _units_first(x: Tensor, unit_dim: int, lead: int = 1) -> Tensor:
    """Return [lead..., units and positions in any order] as [lead..., units, positions], to be summed."""
    # Sums of half precision would overflow.
    x = x.to(torch.promote_types(x.dtype, torch.float32)).movedim(unit_dim, lead)
    return x.flatten(lead + 1) if x.dim() > lead + 1 else x.unsqueeze(-1)
