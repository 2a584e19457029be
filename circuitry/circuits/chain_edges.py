"""Edge scores of chains: how far a kept unit moves when a kept unit of an earlier site goes to its baseline.

There are two methods. `reader_edges` puts one unit to its baseline on the direct paths to later units. It multiplies
the change of each later unit by the gradient of the metric with respect to this later unit.

`chain_edges` is the study's method, for edges between neighbouring sites (the study, section 5). Let x be the
activation of the upstream site, and stage(x) the activation of the downstream site that follows from it. The method
takes the mean squared distance of a downstream unit d from its clean activation,

    gap_d(x) = mean over images and positions of (stage(x)_d - a_down_d)^2.

The score of an edge from unit u to unit d is the integrated gradient of gap_d with respect to unit u. Only the stages
between the two sites are run:

1. One clean run per batch gives the activations at all sites. Let a be the clean activation of the upstream site, and b
   its baseline.
2. For each point t of the rule, the stage is run from a + t (b - a). It is narrowed to the kept units (see
   `narrowing`). The residual of a downstream unit is its activation in this run minus its clean activation.
3. Let J be the Jacobian of the stage at this point. The term of an edge is residual_d . J (b - a)_u, summed over images
   and positions. The terms are computed with vector-Jacobian products, one for each downstream unit, or with
   Jacobian-vector products, one for each upstream unit. The side with fewer units is chosen. The products are
   vectorised in chunks that fit into the memory.
4. The score is twice the weighted sum of these terms over the points of the rule, divided by the number of images and
   positions.

At t = 0 the residual is zero, and so is the gradient, so this point is never computed. The scores do not depend on how
the images are cut into batches. The study's scores are these scores, divided by the number of images.
"""

import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from itertools import pairwise
from typing import Any, NamedTuple

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel

from circuitry.bases.gated_reading import DirectPaths, joined_sites
from circuitry.circuits.nodes import clean_run, per_unit
from circuitry.circuits.quadrature import QuadratureRule
from circuitry.encoder.encoder import Encoder
from circuitry.encoder.narrowing import narrowest
from circuitry.encoder.sites import INPUT
from circuitry.encoder.stages import NarrowStage
from circuitry.encoder.task import Task
from circuitry.encoder.tensor_batches import count_batches, memory_bytes, rows_that_fit
from circuitry.gates.edges import Pair
from circuitry.runs.errors import InputError

CACHED_BYTES = 2**27
"""Largest number of bytes of a chunk of products on a CPU. Larger chunks do not fit into its caches (on RN50 they were
1.6 times slower)."""


def chain_edges(
    task: Task, kept_units: Mapping[str, Int[np.ndarray, " kept"]], rule: QuadratureRule
) -> dict[Pair, np.ndarray]:
    """Return the scores [kept downstream, kept upstream] of all edges, by pair of consecutive sites.

    Call it within ``task.running(gradients=True)``.

    Args:
        task: Encoder, images, baseline, sites and memory. The metric is ignored. On a CPU a chunk of products takes at
            most `CACHED_BYTES`.
        kept_units: Indices of the kept units by site.
        rule: Quadrature rule of the path from the clean activation to the baseline.
    """
    encoder = task.encoder
    inner = [site for site in task.sites if site != INPUT]
    memory = memory_bytes(encoder.device, task.work.memory_gib)
    budget = min(memory, CACHED_BYTES) if encoder.device.type == "cpu" else memory
    # Two consecutive sites of the encoder that no edge joins get no scores. Two sites that are consecutive only among
    # the task's sites do get scores: all stages between them are run as one.
    apart = set(pairwise(encoder.sites)) - set(joined_sites(encoder, encoder.sites))
    sums = dict[Pair, np.ndarray]()
    for up, down in pairwise(inner):
        if (up, down) not in apart:
            sums[up, down] = np.zeros((len(kept_units[down]), len(kept_units[up])))
    # A site may keep no unit, for example with a global budget. Its pairs need no run.
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
                # The stage is narrowed to the kept units once, in the first batch, which shows the sizes of the sites.
                if (up, down) not in joints:
                    joints[up, down] = _Joint.of(encoder, (up, down), kept_units, clean)
                joint = joints[up, down]
                scores = joint.scores(clean[up], ends[up], clean[down], rule, budget)
                sums[up, down] += scores.cpu().double().numpy()
                positions = clean[down][0].numel() // clean[down].shape[joint.down_dim]
                n_values[up, down] = (batch.start + len(batch.images)) * positions
                _check_scores((up, down), sums[up, down])
                bar.update()
    # The factor 2 comes from the derivative of the square.
    return {pair: 2 * scores / n_values[pair] for pair, scores in sums.items()}


def reader_edges(
    task: Task, kept_units: Mapping[str, Int[np.ndarray, " kept"]], rule: QuadratureRule
) -> dict[Pair, np.ndarray]:
    """Return the scores [kept downstream, kept upstream] of the edges, by pair of sites (all pairs of `joined_sites`).

    The score of the edge from unit u to unit d is

        score[d, u] = mean over images of  sum over positions of  g[d] * (a[d] - a_u[d]).

    Here a[d] is the clean activation of unit d. a_u[d] is its activation if u is replaced by its baseline on the direct
    path from u to d, and nowhere else. g[d] is the gradient of the metric with respect to unit d on the clean images.
    One partial run for each kept unit scores all edges from this unit.

    Call it within ``task.running(gradients=True)``.

    Args:
        task: Encoder, images, metric, baseline and memory.
        kept_units: Indices of the kept units by site.
        rule: Ignored.
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
            sizes = dict[str, int]()
            chosen = dict[str, Tensor]()
            units = dict[str, Tensor]()
            slopes = dict[str, Tensor]()
            for site in encoder.sites[1:]:
                kept = kept_units.get(site, np.zeros(0, np.int64))
                sizes[site] = encoder.n_units(site, clean[site])
                _check_units(site, kept, sizes[site])
                chosen[site] = torch.tensor(kept, device=encoder.device)
                dim = encoder.unit_dim(site)
                units[site] = clean[site].index_select(dim, chosen[site])
                slopes[site] = gradients[site].index_select(dim, chosen[site])
            paths = DirectPaths(encoder, clean, ends, chosen)
            columns: dict[Pair, list[Tensor]] = {pair: [] for pair in sums}
            for up, last_reader in last_readers.items():
                # torch.split would make an empty chunk if there are no units.
                chunks = torch.split(chosen[up], at_once) if len(chosen[up]) else ()
                for chunk in chunks:
                    for down, read in closed_one_by_one(
                        paths, up, chunk, sizes[up], last_reader
                    ):
                        if (up, down) in sums:
                            losses = (units[down] - read) * slopes[down]
                            effects = per_unit(losses.sum(1), encoder.unit_dim(down))
                            columns[up, down].append(effects.T)
                    bar.update(len(chunk))
            for pair, scores in sums.items():
                if columns[pair]:
                    scores += torch.cat(columns[pair], 1).cpu().double().numpy()
                _check_scores(pair, scores)
    return {pair: scores / n_images for pair, scores in sums.items()}


def closed_one_by_one(
    paths: DirectPaths, site: str, units: Tensor, n_units: int, last_reader: str
) -> Iterator[tuple[str, Float[Tensor, "units image ..."]]]:
    """Yield the sites that read some units of a site, up to the last one; each with its units if one unit is closed.

    Args:
        paths: The runs.
        site: The site.
        units: Indices of the units. Each is closed in a row of its own.
        n_units: Number of all units of the site.
        last_reader: The last site that reads the site.
    """
    gates = units[:, None] != torch.arange(n_units, device=units.device)
    for down, read in paths.read({site: gates}, {site: units}):
        yield down, read
        # No later site reads this one, so runs of later sites are not needed.
        if down == last_reader:
            return


def _check_units(site: str, units: Int[np.ndarray, " kept"], n: int) -> None:
    if not len(units):
        return
    # Negative indices would count from the end, and so score another unit.
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
    """A pair of sites, the stages between the two sites, and the units whose edges are scored."""

    stage: NarrowStage
    """The stages between the sites, narrowed to these units."""
    up: Tensor
    """Indices of the upstream units."""
    down: Tensor
    """Indices of the downstream units."""
    up_dim: int
    """Axis of the units in an upstream activation."""
    down_dim: int
    """Axis of the units in a downstream activation."""

    @classmethod
    def of(
        cls,
        encoder: Encoder,
        pair: Pair,
        kept_units: Mapping[str, np.ndarray],
        clean: Mapping[str, Tensor],
    ) -> "_Joint":
        """Return the `_Joint` of a pair of sites; raise `InputError` if a kept unit is not a unit of its site.

        Args:
            encoder: The encoder.
            pair: The upstream and the downstream site.
            kept_units: Indices of the kept units by site.
            clean: Clean activations by site.
        """
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
        """Return the scores [kept downstream, kept upstream] of a batch, before they are averaged.

        The score of an edge from unit u to unit d is the weighted sum, over the points t of the rule, of the products
        that `_residuals_times_jacobian` returns at the activation a + t (end - a). The factor 2 of the derivative of a
        square is left out.

        Args:
            a: Clean activation of the upstream site.
            end: Activation of the upstream site at the baseline.
            after: Clean activation of the downstream site.
            rule: Points and weights.
            budget: Memory of a chunk of products, in bytes.
        """
        dims = (self.up_dim % a.dim(), self.down_dim % after.dim())
        # For each unit of a chunk, about four copies of the larger activation are in memory at a time.
        bytes_of_unit = 4 * a.element_size() * max(a.numel(), after.numel())
        at_once = max(1, budget // bytes_of_unit)
        step = end - a
        target = after.index_select(dims[1], self.down)
        kept_step = step.index_select(dims[0], self.up)
        # Both routes give the same numbers. The first costs a product for each downstream unit, the second a product
        # for each upstream unit.
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
    """Return the product residual_d . J step_u for each kept downstream unit d and each kept upstream unit u.

    J is the Jacobian of ``stage`` where the change is 0. The residual is the output of ``stage`` for the change 0,
    minus ``target``; residual_d is its part at unit d. step_u is the part of ``step`` at unit u. The product is summed
    over images and positions. One vector-Jacobian product is computed for each downstream unit.

    Args:
        stage: Takes a change of the kept upstream units, which is added to their activation at a point of the path.
            Returns the activation of the kept downstream units.
        step: Baseline minus clean activation of the kept upstream units.
        target: Clean activation of the kept downstream units.
        unit_dims: Axes of the units upstream and downstream.
        units_at_once: Number of units in a chunk.
    """
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
        # Products [chunk, batch, up, positions] times the steps, summed over images and positions.
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
    """Return the product residual_d . J step_u for each kept downstream unit d and each kept upstream unit u.

    The arguments and the result [down, up] are the same as in `_residuals_times_jacobian`. But one Jacobian-vector
    product is computed for each upstream unit, and not one vector-Jacobian product for each downstream unit.
    """
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
"""Lock of `_batchable`: PyTorch's choice of kernels and its levels of forward differentiation belong to the process,
not to a thread."""


@contextmanager
def _batchable() -> Iterator[None]:
    """Within the block, let attention use kernels that support vmap and forward differentiation."""
    # The lock is held for the whole block, because another thread that restores its choice would undo this one.
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
    """Return one copy of ``x`` for each of the units; each copy is zero except at its unit."""
    out = torch.zeros(len(units), *x.shape, dtype=x.dtype, device=x.device)
    copies = torch.arange(len(units), device=x.device)
    # movedim is a view, so this writes into the copies.
    out.movedim(unit_dim + 1, 1)[copies, units] = x.movedim(unit_dim, 0)[units]
    return out


def _units_first(x: Tensor, unit_dim: int, lead: int = 1) -> Tensor:
    """Return ``x`` with the axes [lead..., units, positions], at least in single precision.

    Args:
        x: Values with ``lead`` leading axes, followed by the axis of units and any number of axes of positions.
        unit_dim: Axis of the units in ``x``.
        lead: Number of leading axes.
    """
    # The values are summed next, and sums in half precision would overflow.
    x = x.to(torch.promote_types(x.dtype, torch.float32)).movedim(unit_dim, lead)
    return x.flatten(lead + 1) if x.dim() > lead + 1 else x.unsqueeze(-1)
