"""Scores of edges as a matrix of readers and writers, which oracles are compared with."""

from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from circuitry.bases import ResidualStream
from circuitry.bases.gated_reading import lifted
from circuitry.bases.gated_stream import run_gated
from circuitry.circuits import EDGE_METHODS
from circuitry.circuits.component_graphs import component_scorer
from circuitry.circuits.quadrature import QuadratureRule
from circuitry.circuits.stream_edges import PLAIN
from circuitry.encoder import AnyBaseline, Encoder, Metric, Task, as_baseline
from circuitry.encoder.site_activations import clean_activations
from circuitry.runs import Work
from experiments.edge_corrections import CORRECTIONS
from tests.support.towers import make_tower
from tests.support.work import QUIET


def opened(name: str = "timm-vit") -> tuple[ResidualStream, Tensor]:
    """Return the stream of a tower in double precision, and three images."""
    encoder = Encoder.from_tower(make_tower(name).double())
    torch.manual_seed(1)
    return ResidualStream.of(encoder), torch.randn(
        3, 3, *encoder.image_size, dtype=torch.float64
    )


class Scores(NamedTuple):
    """What `StreamScores` has, with readers and writers by name."""

    readers: tuple[str, ...]
    writers: tuple[str, ...]
    scores: np.ndarray
    into: np.ndarray
    out_of: np.ndarray
    n_images: int


def edge_scores(
    stream: ResidualStream,
    images: Any,
    metric: Metric,
    method: str = "gradient",
    *,
    baseline: AnyBaseline = "zero",
    rule: QuadratureRule = PLAIN,
    work: Work = QUIET,
) -> Scores:
    """Return the scores of `circuitry.circuits.attribute_components`, of a stream whose neurons may be apart."""
    task = Task(stream.components, images, metric, baseline=baseline, work=work)
    with task.running(gradients=True):
        of_edges = CORRECTIONS.get(method) or EDGE_METHODS[method]
        found = component_scorer(of_edges)(stream, task, rule)
    return Scores(
        tuple(map(str, found.readers)), tuple(map(str, found.writers)), *found[2:]
    )


def of_edges(found: Scores) -> dict[tuple[str, str], float]:
    """Return the scores by writer and reader."""
    rows, columns = np.nonzero(~np.isnan(found.scores))
    return {
        (found.writers[w], found.readers[r]): float(found.scores[r, w])
        for r, w in zip(rows, columns, strict=True)
    }


def linear_transformer() -> Any:
    """Return a small ViT without norms and nonlinearity whose patterns are uniform: scores of its edges are exact."""
    tower: Any = make_tower("timm-vit").double()
    for block in tower.trunk.blocks:
        block.norm1 = nn.Identity()
        block.norm2 = nn.Identity()
        block.mlp.act = nn.Identity()
        block.attn.qkv.weight[:32] = 0
        block.attn.qkv.bias[:32] = 0
    tower.trunk.norm = nn.Identity()
    return tower


def place_of(stream: ResidualStream, writer: str, reader: str) -> tuple[int, int]:
    """Return the row and column of an edge in `ResidualStream.edges`, by the names of its ends."""
    readers, writers = (
        [str(one) for one in some] for some in (stream.readers, stream.writers)
    )
    return readers.index(reader), writers.index(writer)


def run_stream(
    stream: ResidualStream, images: Tensor, keep: Tensor, baseline: AnyBaseline = "zero"
) -> Tensor:
    """Return the embeddings with some edges [readers, writers] kept, or gated by real numbers, and the others cut."""
    with torch.no_grad():
        images = images.to(stream.encoder.device, stream.encoder.dtype)
        clean = clean_activations(stream.components, images, stream.sites)
        ends = as_baseline(baseline).activations(stream.components, clean)
    return run_gated(
        stream, clean[stream.sites[0]], ends, gates_of(stream, lifted(keep)), at_once=1
    )


def gates_of(stream: ResidualStream, keep: Tensor) -> dict[tuple[str, str], Tensor]:
    """Return a mask of edges [readers, writers] by pair of layers, unit by unit where some are apart."""
    found = dict[tuple[str, str], Tensor]()
    for place, up in enumerate(stream.layers[:-1]):
        for down in stream.layers[place + 1 :]:
            gate = keep[down.readers, up.writers]
            if up.apart and not up.of_heads:
                gate = gate[:, up.groups(stream.n_units(up)).int().argmax(0)]
            if down.apart and not down.of_heads:
                gate = gate[down.groups(stream.n_units(down)).int().argmax(0)]
            names = [f"{down.name}.{port}".removesuffix(".") for port in down.ports]
            found |= {
                (up.name, name): of_port
                for name, of_port in zip(names, gate.chunk(len(names)), strict=True)
            }
    return found
