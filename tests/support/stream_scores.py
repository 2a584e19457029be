"""Scores of edges as a matrix of readers and writers, which oracles are compared with."""

from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from circuitry.bases import ResidualStream
from circuitry.bases.gated_reading import lifted
from circuitry.bases.stream_run import run_gated
from circuitry.circuits.stream_edges import EdgeMatrix, StreamMethod, edge_matrix
from circuitry.encoder import AnyBaseline, Metric, Task, as_baseline
from circuitry.encoder.site_activations import clean_activations
from tests.support.towers import make_tower
from tests.support.work import QUIET


def edge_scores(
    stream: ResidualStream,
    images: Any,
    metric: Metric,
    method: str = "gradient",
    *,
    baseline: AnyBaseline = "zero",
    **how: Any,
) -> EdgeMatrix:
    """Return the matrix of `circuitry.circuits.score_edges`, of a stream some of whose neurons may be apart."""
    work = how.pop("work", QUIET)
    task = Task(stream.components, images, metric, baseline=baseline, work=work)
    return edge_matrix(stream, task, StreamMethod(method, **how))


def of_edges(found: EdgeMatrix) -> dict[tuple[str, str], float]:
    """Return the scores by writer and reader."""
    rows, columns = np.nonzero(~np.isnan(found.scores))
    return {(found.writers[w], found.readers[r]): float(found.scores[r, w]) for r, w in zip(rows, columns, strict=True)}


def linear_transformer() -> Any:
    """Return a small ViT without norms and nonlinearity whose patterns are uniform: scores of its edges are exact."""
    tower: Any = make_tower("timm-vit").double()
    for block in tower.trunk.blocks:
        block.norm1, block.norm2, block.mlp.act = nn.Identity(), nn.Identity(), nn.Identity()
        block.attn.qkv.weight[:32] = 0
        block.attn.qkv.bias[:32] = 0
    tower.trunk.norm = nn.Identity()
    return tower


def run_stream(stream: ResidualStream, images: Tensor, keep: Tensor, baseline: AnyBaseline = "zero") -> Tensor:
    """Return the embeddings with some edges [readers, writers] kept, or gated by real numbers, and the others cut."""
    with torch.no_grad():
        images = images.to(stream.encoder.device, stream.encoder.dtype)
        clean = clean_activations(stream.components, images, stream.sites)
        ends = as_baseline(baseline).activations(stream.components, clean)
    return run_gated(stream, clean[stream.sites[0]], ends, stream.gates_of(lifted(keep)), at_once=1)
