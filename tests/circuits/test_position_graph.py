"""Positions apart: over positions nodes and edges sum to the graph of components, and edges say from where to where."""

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from circuitry.circuits import (
    AttributionGraph,
    edge_jaccard,
    moves_between_positions,
    position_graph,
    score_edges,
)
from circuitry.circuits.graph import BETWEEN_POSITIONS
from circuitry.models import Encoder, ResidualStream, Task
from circuitry.runs import InputError
from tests.models.test_components import FURTHER
from tests.support.stream_scores import edge_scores, of_edges


def metric(embedding: Tensor) -> Tensor:
    return embedding[:, 0] * embedding[:, 1] + embedding[:, 2]


@pytest.fixture(scope="module")
def opened() -> tuple[ResidualStream, Tensor]:
    encoder = Encoder.from_tower(FURTHER["average-and-query-key-norm"]().double())
    return ResidualStream.of(encoder), torch.randn(2, 3, *encoder.image_size, dtype=torch.float64)


def by_position(graph: AttributionGraph, up: str, down: str) -> np.ndarray:
    """The edges of all units [head, position, head, position] of four patches."""
    whole = np.zeros((len(graph.node_scores[down]), len(graph.node_scores[up])))
    whole[np.ix_(graph.kept_units[down], graph.kept_units[up])] = graph.edge_scores[up, down]
    return whole.reshape(-1, 4, len(graph.node_scores[up]) // 4, 4)


def test_over_positions_all_edges_sum_to_the_graph_of_components(opened: tuple[ResidualStream, Tensor]) -> None:
    stream, images = opened
    task = Task(stream.components, images, metric)
    graph = position_graph(task, list(of_edges(edge_scores(stream, images, metric))))
    whole = score_edges(task, ports=True)
    assert graph.sites == whole.sites
    assert set(graph.edge_scores) == set(whole.edge_scores)
    for up, down in whole.edge_scores:
        expected = np.zeros((len(whole.node_scores[down]), len(whole.node_scores[up])))
        expected[np.ix_(whole.kept_units[down], whole.kept_units[up])] = whole.edge_scores[up, down]
        found = by_position(graph, up, down)
        np.testing.assert_allclose(found.sum((1, 3)), expected, rtol=1e-7, atol=1e-13)
        if not up.startswith(down):  # the stream stays where it is; keys and values alone move
            assert not found[:, ~np.eye(4, dtype=bool)[:, None, :].repeat(found.shape[2], 1)].any()
    for site in whole.sites:
        found = graph.node_scores[site].reshape(-1, 4).sum(1)
        np.testing.assert_allclose(found, whole.node_scores[site], rtol=1e-7, atol=1e-13)


def test_within_a_head_an_edge_goes_from_where_it_reads_to_where_it_writes(
    opened: tuple[ResidualStream, Tensor], tmp_path: Path
) -> None:
    stream, images = opened
    edges = [("blocks.0.mlp", "blocks.1.attn.1.v"), ("embed", "blocks.1.attn.1.k"), ("blocks.1.attn.1", "embedding")]
    task = Task(stream.encoder, images, metric)
    graph = position_graph(task, edges)
    moves = moves_between_positions(task, edges[:2]).mean(0)
    for move, port in zip(moves, "vk", strict=True):
        found = by_position(graph, f"blocks.1.attn.{port}", "blocks.1.attn")
        np.testing.assert_allclose(found[1, :, 1, :], move)
        assert not found[0].any()
    assert graph.settings["edges"] == BETWEEN_POSITIONS
    in_batches = Task(stream.encoder, (images[i : i + 1] for i in range(2)), metric)
    batches = position_graph(in_batches, edges[2:])  # none into a head
    np.testing.assert_allclose(batches.node_scores["embedding"], graph.node_scores["embedding"])
    graph.save(tmp_path / "graph.safetensors")
    again = AttributionGraph.load(tmp_path / "graph.safetensors").circuit(2)
    assert edge_jaccard(again, graph.circuit(2)) == 1
    with pytest.raises(InputError, match="embed has 4 units in"):
        edge_jaccard(again, score_edges(task, ports=True).circuit(2))
