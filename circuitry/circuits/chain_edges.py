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

import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from itertools import pairwise
from typing import Any, NamedTuple

import numpy as np
import torch
from jaxtyping import Int
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel

from circuitry.circuits.edges import Pair
from circuitry.circuits.nodes import members_of
from circuitry.circuits.quadrature import QuadratureRule
from circuitry.encoder.encoder import Encoder
from circuitry.encoder.narrowing import narrowest
from circuitry.encoder.sites import INPUT
from circuitry.encoder.stages import NarrowStage
from circuitry.encoder.task import Task
from circuitry.encoder.tensor_batches import count_batches, rows_that_fit
from circuitry.runs.errors import InputError
from circuitry.runs.progress import Bar

CACHED_BYTES = 2**27
"""Most bytes of one chunk of products on a CPU: larger ones fall out of its caches (on RN50 1.6 times slower)."""


_Kept = Mapping[str, Int[np.ndarray, " kept"]]


def edge_effects(task: Task, kept_units: _Kept, rule: QuadratureRule) -> dict[Pair, np.ndarray]:
    """Return the scores [kept downstream, kept upstream] of all edges between consecutive sites.

    Args:
        task: With gradients running; its metric plays no part. Products with the Jacobian take less than its memory on
            a CPU, see `CACHED_BYTES`.
        kept_units: Units of the circuit by site.
        rule: Points and weights of the path integral.

    Raises:
        InputError: for activations or scores that are not finite, or a baseline that does not fit.
    """
    return part_edge_effects(task, {0: kept_units}, rule)[0]


def part_edge_effects(
    task: Task, kept_units: Mapping[int, _Kept], rule: QuadratureRule, parts: Int[np.ndarray, " images"] | None = None
) -> dict[int, dict[Pair, np.ndarray]]:
    """Return `edge_effects` of each part of the images, between its own units, from one pass over all of them.

    Args:
        task, rule: As of `edge_effects`.
        kept_units: Units by site, of each part.
        parts: The part of each image (default: all are in part 0).

    Raises:
        InputError: as `edge_effects`.
    """
    encoder = task.encoder
    inner = [site for site in task.sites if site != INPUT]
    memory = int(task.work.memory_gib * 2**30)
    budget = min(memory, CACHED_BYTES) if encoder.device.type == "cpu" else memory
    joints = {pair: one for pair in pairwise(inner) if (one := _joint(encoder, pair, kept_units)) is not None}
    sums = {
        part: {(up, down): np.zeros((len(units[down]), len(units[up]))) for up, down in pairwise(inner)}
        for part, units in kept_units.items()
    }
    positions = dict.fromkeys(pairwise(inner), 1)
    counts = dict.fromkeys(kept_units, 0)
    total = (count_batches(task.images, rows_that_fit(encoder, task.work.memory_gib)) or 0) * len(joints) or None
    with Bar(total=total, desc="edges", unit="pair", disable=not task.work.progress, leave=False) as bar:
        for batch in task.batches():
            clean, members = batch.clean(inner), members_of(parts, batch)
            ends = batch.ends({up: clean[up] for up, _ in joints})
            for (up, down), joint in joints.items():
                positions[up, down] = clean[down][0].numel() // clean[down].shape[joint.dims[1]]
                for part, scores in joint.scores(clean[up], ends[up], clean[down], rule, members, budget).items():
                    sums[part][up, down] += scores.cpu().double().numpy()
                    if not np.isfinite(sums[part][up, down]).all():
                        raise InputError(
                            f"Scores of edges from {up!r} to {down!r} are NaN or infinite, although both activations "
                            "are finite: give an encoder of higher precision, or look at the stage between them."
                        )
                bar.update()
            for part, images in members.items():
                counts[part] += len(batch.images[images])
    return {
        part: {pair: 2 * total / (counts[part] * positions[pair]) for pair, total in of_part.items()}
        for part, of_part in sums.items()
    }


class _Share(NamedTuple):
    """What is scored in the images of one part; one product with the Jacobian serves a unit of each part."""

    images: Any
    """Their places in the batch."""
    up: Tensor
    """Places of the part's units among those of all parts."""
    down: Tensor
    alone: bool
    """Whether there is no other part, so that its units are all, in their order."""

    def of(self, x: Tensor, lead: int, places: Tensor) -> Tensor:
        """Return [lead..., images, units, ...] for these images and some units."""
        x = x[(slice(None),) * lead + (self.images,)]
        return x if self.alone else x.index_select(lead + 1, places)


@dataclass(frozen=True, eq=False)
class _Joint:
    """Two sites, with the units of all parts between which edges are scored."""

    stage: NarrowStage
    units: tuple[Tensor, Tensor]
    """Upstream and downstream."""
    dims: tuple[int, int]
    """Axes of the units."""
    places: Mapping[int, tuple[Tensor, Tensor]]
    """Places of each part's units among them."""

    def scores(
        self, a: Tensor, end: Tensor, after: Tensor, rule: QuadratureRule, members: Mapping[int, Any], budget: int
    ) -> dict[int, Tensor]:
        """Return sum_k w_k * sum over images and positions of step_u * d/dx_u |stage(x)_d - target_d|^2 / 2 at t_k.

        A part without units at one of the sites has no edge, so no score.

        Args:
            a, end, after: Activations upstream and their ends, and the activations downstream.
            rule: Points and weights.
            members: Places of each part's images.
            budget: Bytes of a chunk of products.
        """
        members = {part: images for part, images in members.items() if all(map(len, self.places[part]))}
        if not members:
            return {}
        up_dim, down_dim = self.dims[0] % a.dim(), self.dims[1] % after.dim()
        at_once = max(1, budget // (4 * a.element_size() * max(a.numel(), after.numel())))
        step, target = end - a, after.index_select(down_dim, self.units[1])
        kept_step = step.index_select(up_dim, self.units[0])
        shares = [_Share(images, *self.places[part], len(self.places) == 1) for part, images in members.items()]
        by_inputs = max(len(one.up) for one in shares) < max(len(one.down) for one in shares)
        route = _jacobian_times_steps if by_inputs else _residuals_times_jacobian
        sums = [a.new_zeros(len(one.down), len(one.up), dtype=_at_least_single(a.dtype)) for one in shares]
        for t, w in zip(rule.points, rule.weights, strict=True):
            if t != 0.0:
                moved = partial(self.stage, a + t * step)
                for total, scores in zip(
                    sums, route(moved, kept_step, target, (up_dim, down_dim), shares, at_once), strict=True
                ):
                    total += w * scores
        return dict(zip(members, sums, strict=True))


def _joint(encoder: Encoder, pair: Pair, kept_units: Mapping[int, _Kept]) -> _Joint | None:
    """Join two sites; None where no part keeps a unit of one of them, as a global budget may."""
    units, places = [], []
    for site in pair:
        union = list(dict.fromkeys(unit for of_part in kept_units.values() for unit in of_part[site].tolist()))
        if not union:
            return None
        order = {unit: place for place, unit in enumerate(union)}
        units.append(torch.tensor(union, device=encoder.device))
        places.append(
            [
                torch.tensor([order[unit] for unit in of_part[site].tolist()], dtype=torch.long, device=encoder.device)
                for of_part in kept_units.values()
            ]
        )
    first, last = map(encoder.position, pair)
    dims = encoder.unit_dim(pair[0]), encoder.unit_dim(pair[1])
    stage = narrowest(encoder.stages[first:last], units[0], units[1], dims[0])
    return _Joint(stage, (units[0], units[1]), dims, dict(zip(kept_units, zip(*places, strict=True), strict=True)))


def _residuals_times_jacobian(
    stage: Callable[[Tensor], Tensor],
    step: Tensor,
    target: Tensor,
    unit_dims: tuple[int, int],
    shares: Sequence[_Share],
    units_at_once: int,
) -> list[Tensor]:
    """Return residual_d . J step_u [down, up] of each share by one vector-Jacobian product per downstream unit."""
    up_dim, down_dim = unit_dims
    delta = torch.zeros_like(step, requires_grad=True)
    with torch.enable_grad(), _batchable():
        y = stage(delta)

    def product(cotangent: Tensor) -> Tensor:
        return torch.autograd.grad(y, delta, cotangent, retain_graph=True)[0]

    residuals = _one_unit_each(y.detach() - target, down_dim, [(one.images, one.down) for one in shares])
    weight = _units_first(step, up_dim)
    rows = [[weight.new_zeros(0, len(one.up))] for one in shares]
    for chunk in torch.split(torch.arange(max(len(one.down) for one in shares)), units_at_once):
        flat = _units_first(torch.func.vmap(product)(residuals(chunk)), up_dim + 1, lead=2)
        for found, one in zip(rows, shares, strict=True):
            own = flat[: max(0, len(one.down) - int(chunk[0]))]
            found.append(torch.einsum("nbup,bup->nu", one.of(own, 1, one.up), one.of(weight, 0, one.up)))
    return [torch.cat(found) for found in rows]


def _jacobian_times_steps(
    stage: Callable[[Tensor], Tensor],
    step: Tensor,
    target: Tensor,
    unit_dims: tuple[int, int],
    shares: Sequence[_Share],
    units_at_once: int,
) -> list[Tensor]:
    """Return the same as `_residuals_times_jacobian` by one Jacobian-vector product per upstream unit."""
    up_dim, down_dim = unit_dims
    start = torch.zeros_like(step)
    steps = _one_unit_each(step, up_dim, [(one.images, one.up) for one in shares])

    def moved(tangent: Tensor) -> Any:
        return torch.func.jvp(stage, (start,), (tangent,))

    columns = [[_units_first(target, down_dim).new_zeros(len(one.down), 0)] for one in shares]
    with _batchable():
        for chunk in torch.split(torch.arange(max(len(one.up) for one in shares)), units_at_once):
            y, movement = torch.func.vmap(moved, out_dims=(None, 0))(steps(chunk))  # type: ignore[arg-type]
            flat, residual = _units_first(movement, down_dim + 1, lead=2), _units_first(y - target, down_dim)
            for found, one in zip(columns, shares, strict=True):
                own = flat[: max(0, len(one.up) - int(chunk[0]))]
                found.append(torch.einsum("nbdp,bdp->dn", one.of(own, 1, one.down), one.of(residual, 0, one.down)))
    return [torch.cat(found, 1) for found in columns]


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


def _one_unit_each(x: Tensor, unit_dim: int, owned: Sequence[tuple[Any, Tensor]]) -> Callable[[Tensor], Tensor]:
    """Return the function from a chunk of numbers to copies of ``x``, each zero except at one unit of every image.

    ``owned`` has the images and the units of each part: copy k has the part's unit k in them.
    """
    rows = torch.arange(len(x), device=x.device)

    def copies(chunk: Tensor) -> Tensor:
        out = torch.zeros(len(chunk), *x.shape, dtype=x.dtype, device=x.device)
        by_unit, source = out.movedim(unit_dim + 1, 1), x.movedim(unit_dim, 0)
        for images, units in owned:
            own = units[int(chunk[0]) : int(chunk[-1]) + 1, None]
            place = torch.arange(len(own), device=x.device)[:, None]
            by_unit[place, own, rows[images]] = source[own, rows[images]]
        return out

    return copies


def _units_first(x: Tensor, unit_dim: int, lead: int = 1) -> Tensor:
    """Return [lead..., units and positions in any order] as [lead..., units, positions], to be summed."""
    x = x.to(_at_least_single(x.dtype)).movedim(unit_dim, lead)
    return x.flatten(lead + 1) if x.dim() > lead + 1 else x.unsqueeze(-1)


def _at_least_single(dtype: torch.dtype) -> torch.dtype:
    return torch.promote_types(dtype, torch.float32)
