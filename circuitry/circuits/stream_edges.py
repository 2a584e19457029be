"""Edges between attention heads and MLPs, by attribution patching (Syed et al. 2023, arXiv 2310.10348).

The effect of an edge is how much the metric falls when one reader gets one writer's baseline in its place, to first
order:

    score[reader, writer] = mean over images of  sum over positions of  (a - b)_writer . sum_k w_k * G_reader at t_k

with a and b what the writer adds to the residual stream, clean and at the baseline, and G the gradient of the metric by
the reader's own copy of the stream. The points t_k of the rule lie on a straight line from clean to baseline: of the
stream before the first block (Hanna et al. 2024, arXiv 2403.17806), or of what the reader's stage alone reads. t = 0
alone is plain attribution patching.

1. one clean run gives z of all heads and the neurons; the baseline gives b;
2. per point, one run and its backward pass give the gradients by q, k, v, by the neurons' pre-activations and by the
   last stream; through the readers' weights and norms these become G, for all readers of a block at once;
3. block by block, the writers' additions are computed and contracted with the G of all later readers. Only one block's
   are in memory at a time, and images go through as memory allows.

A writer has no edge to an earlier reader. Other methods correct the gradient, see `corrections`; ``cuts`` cuts every
edge in a run of its own.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import Any, NamedTuple

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from circuitry.bases.residual import ResidualStream
from circuitry.bases.stream_run import run_gated
from circuitry.circuits.circuit_settings import EDGE_METHODS, SQUARED
from circuitry.circuits.corrections import backward_passes, over_passes
from circuitry.circuits.exact_readers import EXACT_POINTS, put_exact_effects
from circuitry.circuits.quadrature import QuadratureRule, left_rule
from circuitry.circuits.stream_gradients import images_at_once, reader_gradients, stage_gradients
from circuitry.encoder.doubles import in_double
from circuitry.encoder.metrics import Metric, checked_metric
from circuitry.encoder.task import Task
from circuitry.encoder.tensor_batches import count_batches
from circuitry.runs.errors import InputError
from circuitry.runs.progress import Bar

PLAIN = left_rule(1)
"""Attribution patching: one gradient, at the clean activation."""
GRADIENT, CUTS = "gradient", "cuts"
"""The method without a correction, and the one that cuts every edge."""
STREAM_METHODS = tuple(name for name in EDGE_METHODS if name != SQUARED)
"""Methods that score edges through the stream."""
PATHS = ("inputs", "activations")
"""What moves from clean to baseline when a rule has several points."""


class StreamMethod(NamedTuple):
    """How edges are scored."""

    name: str = GRADIENT
    """One of `STREAM_METHODS`."""
    rule: QuadratureRule = PLAIN
    path: str = "inputs"
    """One of `PATHS`."""

    def check(self) -> None:
        """Raise `InputError` for an unknown method or path, or a path that the method does not take."""
        if self.name not in STREAM_METHODS:
            raise InputError(
                f"Edges of a residual stream are scored by {', '.join(STREAM_METHODS)}, but {self.name!r} was given."
            )
        if self.path not in PATHS or (self.path == "activations" and self.name != GRADIENT):
            raise InputError(
                f"A path is one of {', '.join(PATHS)}, the latter with {GRADIENT!r} alone, but {self.path!r} with "
                f"{self.name!r} was given."
            )


@dataclass(frozen=True, eq=False)
class EdgeMatrix:
    """Scores of all edges between the components of a transformer."""

    readers: tuple[str, ...]
    writers: tuple[str, ...]
    scores: Float[np.ndarray, "readers writers"]
    """Effect; positive means that the edge helps: cutting it lowers the metric; NaN where there is no edge."""
    into: Float[np.ndarray, " readers"]
    """Effect of cutting all edges into a reader at once: to first order the sum of theirs."""
    out_of: Float[np.ndarray, " writers"]
    """Effect of cutting all edges out of a writer at once: to first order the sum of theirs."""
    n_images: int


def stream_of(task: Task) -> tuple[ResidualStream, Task]:
    """Return the residual stream of a task's encoder, and the task for the encoder in heads and neurons.

    Raises:
        InputError: for another thing than a task, hooks on an encoder that is not in heads and neurons, whose runs
            these are not, and as `ResidualStream.of`.
    """
    stream = ResidualStream.of(task.encoder)
    if task.encoder is stream.components:
        return stream, task
    task.encoder.check_unhooked(
        "edges are scored in heads and neurons, and this encoder is not in them: give a task of in_components(encoder) "
        "with the hooks there"
    )
    return stream, Task(stream.components, task.images, task.metric, baseline=task.baseline, work=task.work)


def edge_matrix(stream: ResidualStream, task: Task, method: StreamMethod) -> EdgeMatrix:
    """Return the effect of every edge between heads, MLPs and the embedding, with the ports of heads apart.

    Args:
        stream: Some of its neurons may be components of their own.
        task: A task of ``stream.components``.
        method: How edges are scored.

    Raises:
        InputError: as `score_edges`.
    """
    method.check()
    with task.running(gradients=True):
        if method.name == CUTS:
            edges, into, out_of, n_images = _all_cuts(stream, task)
        else:
            found, out, n_images = mean_effects(stream, task, method)
            edges, into, out_of = found[:, :-1].numpy(), found[:, -1].numpy(), out.numpy()
    scores = np.where(stream.edges.numpy(), edges, np.nan)
    return EdgeMatrix(tuple(map(str, stream.readers)), tuple(map(str, stream.writers)), scores, into, out_of, n_images)


def _all_cuts(stream: ResidualStream, task: Task) -> tuple[np.ndarray, np.ndarray, np.ndarray, int]:
    """Return the effects of cutting each edge, all edges into each reader, and all out of each writer."""
    n_readers, n_writers = stream.edges.shape
    places, everything = [(row, column) for row, column in stream.edges.nonzero().tolist()], slice(None)
    into = [(row, everything) for row in range(n_readers)]
    out_of = [(everything, column) for column in range(n_writers)]
    found, n_images = cut_effects_in_stream(stream, task, [*places, *into, *out_of])
    single, rows, columns = np.split(found, [len(places), len(places) + n_readers])
    scores = np.zeros((n_readers, n_writers))
    scores[tuple(np.transpose(places))] = single
    return scores, rows, columns, n_images


def cut_effects_in_stream(
    stream: ResidualStream, task: Task, places: Sequence[tuple[Any, Any]]
) -> tuple[Float[np.ndarray, " places"], int]:
    """Return how much the metric falls in the mean when edges are cut, and the number of images.

    Args:
        places: Rows and columns in `ResidualStream.edges` of the edges to cut together.
    """
    total, count = np.zeros(len(places)), 0
    for clean, other in clean_and_baseline(stream, task):
        count += len(clean[stream.sites[0]])

        def measure(keep: Tensor, clean: Mapping[str, Tensor] = clean, other: Mapping[str, Tensor] = other) -> float:
            with torch.no_grad():
                embedding = run_gated(stream, clean[stream.sites[0]], other, stream.gates_of(keep), at_once=1)
                return float(in_double(checked_metric(task.metric, embedding)).sum())

        whole = measure(stream.edges)
        for i, (rows, columns) in enumerate(places):
            keep = stream.edges.clone()
            keep[rows, columns] = False
            total[i] += whole - measure(keep)
    return total / count, count


def mean_effects(
    stream: ResidualStream, task: Task, method: StreamMethod
) -> tuple[Float[Tensor, "readers writers_and_all"], Float[Tensor, " writers"], int]:
    """Return the mean effects over images, as `_effects`, and the number of images."""
    edges, out_of = torch.zeros(len(stream.readers), len(stream.writers) + 1), torch.zeros(len(stream.writers))
    n_patterns = (len(backward_passes(stream, method.name)) + 3) * sum(one.n_heads for one in stream.blocks)
    done = 0
    for clean, other in clean_and_baseline(stream, task, n_patterns * (method.name in EXACT_POINTS)):
        found = _effects(stream, task.metric, clean, other, method)
        edges, out_of = edges + found[0], out_of + found[1]
        if not bool(edges.isfinite().all()):
            raise InputError(
                "Scores of edges are NaN or infinite, although the metric is finite: look at its derivative on the "
                "path to the baseline, or give an encoder of higher precision."
            )
        done += len(clean[stream.sites[0]])
    return edges / done, out_of / done, done


def _effects(
    stream: ResidualStream,
    metric: Metric,
    clean: Mapping[str, Tensor],
    other: Mapping[str, Tensor],
    method: StreamMethod,
) -> tuple[Float[Tensor, "readers writers_and_all"], Float[Tensor, " writers"]]:
    """Return, summed over images, the effects of edges, with all into a reader in the last column, and of all edges out
    of a writer."""
    rule, points, first = method.rule, EXACT_POINTS.get(method.name, ()), stream.sites[0]
    passes = backward_passes(stream, method.name)
    apart = bool(points) or len(passes) > 1  # else all is linear, and images are summed in one matrix product
    effects, at_points = [], []
    for context in passes:
        with context:
            if method.path == "inputs":
                found = reader_gradients(stream, metric, clean[first], other[first], rule, points)
            else:
                found = stage_gradients(stream, metric, clean, _moves(stream, clean, other), rule)
        effects.append(_linear_effects(stream, clean, other, found.readers, apart))
        at_points.append(found.points)
    of_edges = torch.stack(effects)
    of_edges = torch.cat([of_edges, of_edges.sum(3, keepdim=True)], 3)
    if points:
        put_exact_effects(stream, metric, clean, _changes(stream, clean, other), at_points, of_edges)
    scores, out_of = over_passes(of_edges, stream.readers), over_passes(of_edges[..., :-1].sum(2), stream.writers)
    return -scores.cpu().double().sum(0), -out_of.cpu().double().sum(0)  # changes lead to the baseline


def _linear_effects(
    stream: ResidualStream, clean: Mapping[str, Tensor], other: Mapping[str, Tensor], gradients: Tensor, apart: bool
) -> Float[Tensor, "images readers writers"]:
    """Return the effects of edges to first order: on each image, or, not apart, on all together as on one."""
    found = gradients.new_zeros(gradients.shape[1] if apart else 1, len(stream.readers), len(stream.writers))
    equation = "rbx,wbx->brw" if apart else "rbx,wbx->rw"  # positions and d_model as one, else both are copied
    for stage, columns, change in _changes(stream, clean, other):
        later = slice(stream.readers_of(stage).start, None)
        found[:, later, columns] = torch.einsum(equation, gradients[later].flatten(2), change.flatten(2))
    return found * stream.edges.to(found)


def clean_and_baseline(
    stream: ResidualStream, task: Task, n_patterns: int = 0
) -> Iterator[tuple[dict[str, Tensor], dict[str, Tensor]]]:
    """Yield the clean activations and those at the baseline, of as many images as fit; the task's gradients run."""
    at_once = images_at_once(stream, len(stream.readers), task.work.memory_gib, n_patterns)
    total = count_batches(task.images, rows=1)
    with Bar(total=total, desc="edges", unit="image", disable=not task.work.progress, leave=False) as bar:
        for batch in task.batches(at_once):
            with torch.no_grad():
                clean = batch.clean(stream.sites)
                other = batch.ends(clean)
            yield clean, other
            bar.update(len(batch.images))


def _moves(stream: ResidualStream, clean: Mapping[str, Tensor], other: Mapping[str, Tensor]) -> list[Tensor]:
    """Return how far the baseline lies from what each stage reads: there is one more group of writers before each."""
    return list(accumulate(change.sum(0) for _, _, change in _changes(stream, clean, other)))


def _changes(
    stream: ResidualStream, clean: Mapping[str, Tensor], other: Mapping[str, Tensor]
) -> Iterator[tuple[int, slice, Float[Tensor, "writers batch position d_model"]]]:
    """Yield, for what stands before the blocks, then the heads and the MLP of each, the first stage that reads it, its
    columns, and what each writer adds at the baseline beyond what it adds clean."""
    step = {site: other[site] - clean[site] for site in stream.sites}
    yield 0, stream.writers_of(0), stream.entered(step)
    for index, block in enumerate(stream.blocks):
        change = stream.added(index, step)
        for stage, some in ((2 * index + 1, change[: block.n_heads]), (2 * index + 2, change[block.n_heads :])):
            yield stage, stream.writers_of(stage), some
