"""Edges between attention heads and MLPs, by attribution patching (Syed et al. 2023, arXiv 2310.10348).

The effect of an edge is how the metric changes when one reader gets one writer's baseline in its place, to first order:

    score[reader, writer] = mean over images of  sum over positions of  (b - a)_writer . sum_k w_k * G_reader at t_k

with a and b what the writer adds to the residual stream, clean and at the baseline, and G the gradient of the metric by
the reader's own copy of the stream. The points t_k of the rule lie on the straight line of what stands before the first
block, from clean to baseline (Hanna et al. 2024, arXiv 2403.17806); t = 0 alone is plain attribution patching.

1. one clean run gives z of all heads and the neurons; the baseline gives b;
2. per point, one run and its backward pass give the gradients by q, k, v, by the neurons' pre-activations and by the
   last stream; through the readers' weights and norms these become G, for all readers of a block at once;
3. block by block, what was written is formed, and contracted with the G of all later readers: it is never held for more
   than one block, and images go through as memory allows.

A writer never has an edge to an earlier reader.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar

import numpy as np
import pandas as pd
import torch
from einops import rearrange
from jaxtyping import Float
from torch import Tensor
from tqdm import tqdm

from circuitry.circuits.quadrature import QuadratureRule, left_rule
from circuitry.circuits.stream_gradients import Tap, images_at_once, passed_back, read_by_ports, tapped_run
from circuitry.models.baselines import AnyBaseline, Baseline, Counterfactual, as_baseline, check_count
from circuitry.models.batches import ImageBatches, Images
from circuitry.models.encoder import clean_activations
from circuitry.models.metrics import Metric, metric_name
from circuitry.models.residual import ResidualStream
from circuitry.runs.errors import InputError
from circuitry.runs.workers import Work

PLAIN = left_rule(1)
"""Attribution patching: one gradient, at the clean activation."""
Read = TypeVar("Read")


@dataclass(frozen=True, eq=False)
class EdgeScores:
    """Scores of all edges between the components of a transformer."""

    readers: tuple[str, ...]
    writers: tuple[str, ...]
    scores: Float[np.ndarray, "readers writers"]
    """Signed effect; negative means that cutting the edge lowers the metric; NaN where there is no edge."""
    n_images: int
    settings: dict[str, Any] = field(default_factory=dict)
    """What was computed: rule, baseline, metric, model."""

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
    work: Work = Work(),
) -> EdgeScores:
    """Return the effect of every edge between heads, MLPs and the embedding.

    Args:
        stream: The tower; see `ResidualStream.of`.
        images: Tensor [B, 3, H, W] or an iterable of such batches.
        metric: Embeddings [B, D] -> one number per image.
        baseline: What a writer writes where its edge is cut, for the sites of ``stream.components``.
        rule: Points of the path; `PLAIN` is attribution patching.
        work: Memory and progress.

    Raises:
        InputError: for no images, a metric of the wrong shape, a gradient that is not finite, or a baseline that does
            not fit.

    Example:
        >>> found = score_edges(ResidualStream.of(clip.encoder), photos, class_logit(weights, 3), baseline=drawings)
        >>> found.to_pandas().head()
    """
    ends = as_baseline(baseline)
    total = torch.zeros(stream.edges.shape, dtype=torch.float64)
    done = 0
    for clean, other, gradients in passes(stream, images, metric, ends, rule, work, _reader_gradients):
        for columns, rows, change in _changes(stream, clean, other):
            total[rows, columns] += (gradients[rows].flatten(1) @ change.flatten(1).T).double().cpu()
        if not bool(total.isfinite().all()):
            raise InputError(
                "Scores of edges are NaN or infinite, although the metric is finite: look at its derivative on the "
                "path to the baseline, or give an encoder of higher precision."
            )
        done += gradients.shape[1]
    scores = torch.where(stream.edges, total / done, torch.nan).numpy()
    settings = {
        "edge_rule": rule.name,
        "baseline": ends.name,
        "baseline_digest": ends.digest,
        "metric": metric_name(metric),
        "model_digest": stream.encoder.digest,
    }
    return EdgeScores(tuple(map(str, stream.readers)), tuple(map(str, stream.writers)), scores, done, settings)


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
    places = [stream.edge(writer, reader) for writer, reader in edges]
    found = []
    for clean, other, gradients in passes(stream, images, metric, as_baseline(baseline), rule, work, _reader_gradients):
        change = stream.written({site: other[site] - clean[site] for site in stream.sites})
        parts = [(gradients[row] * change[column]).sum(-1) for row, column in places]
        found.append(torch.stack(parts, 1).cpu().numpy())
    return np.concatenate(found)


def passes(
    stream: ResidualStream,
    images: Images,
    metric: Metric,
    baseline: Baseline | Counterfactual,
    rule: QuadratureRule,
    work: Work,
    read: Callable[[ResidualStream, Metric, Tensor, Tensor, QuadratureRule], Read],
) -> Iterator[tuple[dict[str, Tensor], dict[str, Tensor], Read]]:
    """Yield the clean activations, those at the baseline, and what is read on the way, as many images as fit.

    Args:
        read: Of the stream before the first block, clean and at the baseline, what is wanted of the path between them,
            such as the gradients of all readers.
    """
    components, first, done = stream.components, stream.sites[0], 0
    with (
        components.frozen(),
        components.differentiable(),
        tqdm(desc="edges", unit="image", disable=not work.progress) as bar,
    ):
        for batch in ImageBatches(images, components, images_at_once(stream, len(stream.readers), work.memory_gib)):
            with torch.no_grad():
                clean = clean_activations(components, batch, stream.sites)
                other = baseline.activations(components, clean, done)
            yield clean, other, read(stream, metric, clean[first], other[first], rule)
            done += len(batch)
            bar.update(len(batch))
    if not done:
        raise InputError("Attribution needs at least one image, but there were none.")
    check_count(baseline, done)


def _reader_gradients(
    stream: ResidualStream, metric: Metric, a: Tensor, b: Tensor, rule: QuadratureRule
) -> Float[Tensor, "readers batch position d_model"]:
    """Return the weighted mean over the path of the gradient by each reader's own copy of the stream."""
    total = a.new_zeros(len(stream.readers), *a.shape)
    for t, weight in zip(rule.points, rule.weights, strict=True):
        taps = tapped_run(stream, metric, a + t * (b - a))
        for index in range(len(stream.blocks)):
            total[stream.reader_slice(index)].add_(_block_gradients(stream, index, taps), alpha=weight)
        total[-1].add_(taps[f"blocks.{len(stream.blocks) - 1}.hook_resid_post"].gradient, alpha=weight)
    return total


def _block_gradients(
    stream: ResidualStream, index: int, taps: Mapping[str, Tap]
) -> Float[Tensor, "readers batch position d_model"]:
    """Return the gradient of the metric by the stream of each port of a block's heads, and of its MLP."""
    block, path = stream.blocks[index], f"blocks.{index}"
    before = taps[f"{path}.hook_resid_pre"].value
    read = rearrange(read_by_ports(stream, index, taps), "port head b p m -> (port head) b p m")
    into_heads = passed_back(block.norm_attention, before, read)
    pre = taps[f"{path}.mlp.hook_pre"]
    middle = taps[f"{path}.hook_resid_mid"].value
    normed = block.norm_mlp(middle)
    into_mlp = passed_back(block.mlp_in, normed, pre.gradient[None])
    return torch.cat([into_heads, passed_back(block.norm_mlp, middle, into_mlp)])


def _changes(
    stream: ResidualStream, clean: Mapping[str, Tensor], other: Mapping[str, Tensor]
) -> Iterator[tuple[slice, slice, Float[Tensor, "writers batch position d_model"]]]:
    """Yield, block by block, its writers, the readers from its MLP on, and what each writer adds at the baseline
    beyond what it adds clean."""
    step = {site: other[site] - clean[site] for site in stream.sites}
    yield slice(0, 1), slice(0, None), step[stream.sites[0]][None]
    for index in range(len(stream.blocks)):
        mlp = stream.reader_slice(index).stop - 1
        yield stream.writer_slice(index), slice(mlp, None), stream.added(index, step)
