"""Edges between attention heads and MLPs, by attribution patching (Syed et al. 2023, arXiv 2310.10348).

The effect of an edge is how much the metric falls when one reader gets one writer's baseline in its place, to first
order:

    score[reader, writer] = mean over images of  sum over positions of  (a - b)_writer . sum_k w_k * G_reader at t_k

with a and b what the writer adds to the residual stream, clean and at the baseline, and G the gradient of the metric by
the reader's own copy of the stream. The points t_k of the rule lie on a straight line from clean to baseline: of what
stands before the first block (Hanna et al. 2024, arXiv 2403.17806), or of what the reader's stage alone reads. t = 0
alone is plain attribution patching.

1. one clean run gives z of all heads and the neurons; the baseline gives b;
2. per point, one run and its backward pass give the gradients by q, k, v, by the neurons' pre-activations and by the
   last stream; through the readers' weights and norms these become G, for all readers of a block at once;
3. block by block, what was written is formed, and contracted with the G of all later readers: it is never held for more
   than one block, and images go through as memory allows.

A writer never has an edge to an earlier reader. Where a gradient is a poor guide to what a cut does, there are
corrections by name: see `corrections`.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import accumulate, combinations
from typing import Any, ClassVar, NamedTuple

import numpy as np
import pandas as pd
import torch
from jaxtyping import Float, Int
from torch import Tensor
from tqdm import tqdm

from circuitry.circuits.corrections import CORRECTIONS, backward_passes, checked_correction, over_passes
from circuitry.circuits.exact_readers import POINTS, put_exact_effects
from circuitry.circuits.quadrature import QuadratureRule, left_rule
from circuitry.circuits.stream_gradients import images_at_once, reader_gradients, stage_gradients
from circuitry.models.baselines import AnyBaseline
from circuitry.models.metrics import Metric, checked_metric
from circuitry.models.residual import ResidualStream
from circuitry.models.sites import INPUT
from circuitry.models.stream_parts import PORTS, Component
from circuitry.models.stream_run import run_gated
from circuitry.models.task import Task
from circuitry.models.tensor_batches import Images
from circuitry.runs.errors import InputError
from circuitry.runs.given import check_kinds
from circuitry.runs.workers import Work

PLAIN = left_rule(1)
"""Attribution patching: one gradient, at the clean activation."""
CUTS = "cuts"
"""The method that cuts every edge."""
METHODS = {"gradient": "none", **{name: name for name in CORRECTIONS[1:]}, CUTS: "none"}
"""Methods that score edges through the stream, and the correction of each."""
PATHS = ("inputs", "activations")
"""What goes from clean to baseline where there is more than one point."""


class _Method(NamedTuple):
    rule: QuadratureRule
    path: str
    correction: str


@dataclass(frozen=True, eq=False)
class EdgeScores:
    """Scores of all edges between the components of a transformer."""

    HOW_TO_GET: ClassVar = "make them with score_edges(ResidualStream.of(clip.encoder), ...)"

    readers: tuple[str, ...]
    writers: tuple[str, ...]
    scores: Float[np.ndarray, "readers writers"]
    """Effect; positive means that the edge helps: cutting it lowers the metric; NaN where there is no edge."""
    into: Float[np.ndarray, " readers"]
    """Effect of cutting all edges into a reader at once: to first order the sum of theirs."""
    out_of: Float[np.ndarray, " writers"]
    """Effect of cutting all edges out of a writer at once: the sum of theirs, which is so to first order."""
    n_images: int
    settings: dict[str, Any] = field(default_factory=dict)
    """What was computed: rule, path, correction, baseline, metric, model."""

    def to_pandas(self) -> pd.DataFrame:
        """Return the edges as a table, the strongest first: writer, reader, score."""
        rows, columns = np.nonzero(~np.isnan(self.scores))
        table = pd.DataFrame(
            {
                "writer": [self.writers[w] for w in columns],
                "reader": [self.readers[r] for r in rows],
                "score": self.scores[rows, columns],
            }
        )
        return table.sort_values("score", key=np.abs, ascending=False, kind="stable", ignore_index=True)


def score_edges(
    stream: ResidualStream,
    images: Images,
    metric: Metric,
    *,
    baseline: AnyBaseline = "zero",
    rule: QuadratureRule = PLAIN,
    path: str = "inputs",
    correction: str = "none",
    work: Work = Work(),
) -> EdgeScores:
    """Return the effect of every edge between heads, MLPs and the embedding.

    Args:
        stream: The tower; see `ResidualStream.of`.
        images: Tensor [B, 3, H, W] or an iterable of such batches.
        metric: Embeddings [B, D] -> one number per image.
        baseline: What a writer writes where its edge is cut, for the sites of ``stream.components``.
        rule: Points of the path; `PLAIN` is attribution patching.
        path: ``inputs``, the line of what stands before the first block, or ``activations``: for each stage (the heads
            of a block, its MLP, the embedding) the line of what it alone reads: a run for every stage and point, and no
            correction.
        correction: A name of `corrections`. With ``exact-softmax`` patterns change from those of the clean run; with
            ``gradient-dropping`` there is a backward pass for every block.
        work: Memory and progress.

    Raises:
        InputError: for no images, a metric of the wrong shape, a gradient that is not finite, a baseline that does not
            fit, or a path or correction that there is not.

    Example:
        >>> found = score_edges(ResidualStream.of(clip.encoder), photos, class_logit(weights, 3), baseline=drawings)
        >>> found.to_pandas().head()
    """
    check_kinds(stream=(stream, ResidualStream), rule=(rule, QuadratureRule))
    checked_correction(correction)
    if path not in PATHS or (path == "activations" and correction != "none"):
        raise InputError(
            f"A path is one of {', '.join(PATHS)}, the latter without a correction, but {path!r} with the correction "
            f"{correction!r} was given."
        )
    task = Task(stream.components, images, metric, baseline=baseline, work=work)
    with task.running(gradients=True):
        edges, out_of, n_images = _mean_effects(stream, task, _Method(rule, path, correction))
    return EdgeScores(
        tuple(map(str, stream.readers)),
        tuple(map(str, stream.writers)),
        torch.where(stream.edges, edges[:, :-1], torch.nan).numpy(),
        edges[:, -1].numpy(),
        out_of.numpy(),
        n_images,
        task.made_with | {"edge_rule": rule.name, "path": path, "correction": correction},
    )


def unit_edges(
    task: Task, kept_units: Mapping[str, Int[np.ndarray, " kept"]], method: str, rule: QuadratureRule
) -> dict[tuple[str, str], np.ndarray]:
    """Return the scores [kept downstream, kept upstream] of the edges between every two sites, the earlier one first.

    Writers are heads, neurons and dimensions of the stream before the blocks; readers are heads (query, key and value
    together), neurons before their nonlinearity, and units of the embedding.

    Args:
        task: With gradients running, of an encoder in heads and neurons.
        kept_units: Units of the circuit by site.
        method: One of `METHODS`.
        rule: Points of the path; ``cuts`` takes none.

    Raises:
        InputError: as `score_edges`.
    """
    kept = {site: kept_units[site].tolist() for site in task.sites if site != INPUT}
    stream = ResidualStream.of(task.encoder, kept)
    rows, columns = _rows(stream, kept), _columns(stream, kept)
    pairs = list(combinations(kept, 2))
    if method == CUTS:
        found = _cut_effects(stream, task, [(rows[down], columns[up]) for up, down in pairs])
        return dict(zip(pairs, found, strict=True))
    edges = _mean_effects(stream, task, _Method(rule, "inputs", METHODS[method]))[0].numpy()
    return {(up, down): edges[rows[down]].sum(1)[:, columns[up]] for up, down in pairs}


def _rows(stream: ResidualStream, kept: Mapping[str, Sequence[int]]) -> dict[str, Int[np.ndarray, "kept parts"]]:
    """Return the readers of each unit by site: three of a head, one of others."""
    places, last = {one: i for i, one in enumerate(stream.readers)}, stream.components.sites[-1]
    found = {last: [[places[Component("embedding", head=unit)]] for unit in kept.get(last, ())]}
    for i, (attn, mlp) in enumerate(zip(stream.sites[1::2], stream.sites[2::2], strict=True)):
        found[attn] = [[places[Component(port, i, head)] for port in PORTS] for head in kept.get(attn, ())]
        found[mlp] = [[places[Component("neuron", i, neuron)]] for neuron in kept.get(mlp, ())]
    return {site: np.array(of_site, dtype=int).reshape(len(of_site), -1) for site, of_site in found.items() if of_site}


def _columns(stream: ResidualStream, kept: Mapping[str, Sequence[int]]) -> dict[str, list[int]]:
    """Return the writer of each unit by site."""
    places = {one: i for i, one in enumerate(stream.writers)}
    found = {stream.sites[0]: [places[Component("embed", head=unit)] for unit in kept.get(stream.sites[0], ())]}
    for i, (attn, mlp) in enumerate(zip(stream.sites[1::2], stream.sites[2::2], strict=True)):
        found[attn] = [places[Component("head", i, head)] for head in kept.get(attn, ())]
        found[mlp] = [places[Component("neuron", i, neuron)] for neuron in kept.get(mlp, ())]
    return found


def _cut_effects(
    stream: ResidualStream, task: Task, blocks: Sequence[tuple[np.ndarray, list[int]]]
) -> list[np.ndarray]:
    """Return how much the metric falls in the mean when an edge is cut, for blocks of [readers, parts] and writers."""
    sums, count = [np.zeros((len(readers), len(writers))) for readers, writers in blocks], 0
    for clean, other in clean_and_baseline(stream, task):
        count += len(clean[stream.sites[0]])

        def measure(keep: Tensor, clean: Mapping[str, Tensor] = clean, other: Mapping[str, Tensor] = other) -> float:
            with torch.no_grad():
                embedding = run_gated(stream, clean[stream.sites[0]], other, stream.gates_of(keep), at_once=1)
                return float(checked_metric(task.metric, embedding).double().sum())

        whole = measure(stream.edges)
        for total, (readers, writers) in zip(sums, blocks, strict=True):
            for row, column in np.ndindex(total.shape):
                keep = stream.edges.clone()
                keep[readers[row], writers[column]] = False
                total[row, column] += whole - measure(keep)
    return [total / count for total in sums]


def _mean_effects(
    stream: ResidualStream, task: Task, method: _Method
) -> tuple[Float[Tensor, "readers writers_and_all"], Float[Tensor, " writers"], int]:
    """Return the mean effects over images, as `_effects`, and the number of images."""
    edges, out_of = torch.zeros(len(stream.readers), len(stream.writers) + 1), torch.zeros(len(stream.writers))
    n_patterns = (len(backward_passes(stream, method.correction)) + 3) * sum(one.n_heads for one in stream.blocks)
    done = 0
    for clean, other in clean_and_baseline(stream, task, n_patterns * (method.correction in POINTS)):
        found = _effects(stream, task.metric, clean, other, method)
        edges, out_of = edges + found[0], out_of + found[1]
        if not bool(edges.isfinite().all()):
            raise InputError(
                "Scores of edges are NaN or infinite, although the metric is finite: look at its derivative on the "
                "path to the baseline, or give an encoder of higher precision."
            )
        done += len(clean[stream.sites[0]])
    return edges / done, out_of / done, done


def edges_by_position(
    stream: ResidualStream,
    images: Images,
    metric: Metric,
    edges: Sequence[tuple[str, str]],
    *,
    baseline: AnyBaseline = "zero",
    rule: QuadratureRule = PLAIN,
    work: Work = Work(),
) -> Float[np.ndarray, "images edges positions"]:
    """Return the effects of some edges image by image, at each position; positions sum to an edge's effect.

    An edge through the stream stays at its position; heads alone move between positions, see `moves_between_positions`.

    Args:
        edges: Names of (writer, reader), such as rows of `EdgeScores.to_pandas`; the other arguments and errors are
            those of `score_edges`.

    Raises:
        InputError: for an edge that there is not.

    Example:
        >>> found = edges_by_position(stream, photos, metric, [("blocks.2.attn.1", "blocks.3.mlp")])
        >>> by_patch = token_grid(stream.encoder.tower).patches(found)
        >>> position_heatmap(by_patch[0, 0], pixels, title="...", measure="effect on the logit")
    """
    check_kinds(stream=(stream, ResidualStream), rule=(rule, QuadratureRule))
    places = [stream.edge(writer, reader) for writer, reader in edges]
    found, first = [], stream.sites[0]
    task = Task(stream.components, images, metric, baseline=baseline, work=work)
    with task.running(gradients=True):
        for clean, other in clean_and_baseline(stream, task):
            gradients = reader_gradients(stream, metric, clean[first], other[first], rule).readers
            change = stream.written({site: clean[site] - other[site] for site in stream.sites})
            parts = [(gradients[row] * change[column]).sum(-1) for row, column in places]
            found.append(torch.stack(parts, 1).cpu().double().numpy())
    return np.concatenate(found)


def _effects(
    stream: ResidualStream,
    metric: Metric,
    clean: Mapping[str, Tensor],
    other: Mapping[str, Tensor],
    method: _Method,
) -> tuple[Float[Tensor, "readers writers_and_all"], Float[Tensor, " writers"]]:
    """Return, summed over images, the effects of edges, with all into a reader in the last column, and of all edges out
    of a writer."""
    rule, points, first = method.rule, POINTS.get(method.correction, ()), stream.sites[0]
    passes = backward_passes(stream, method.correction)
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
    with tqdm(desc="edges", unit="image", disable=not task.work.progress, leave=False) as bar:
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
