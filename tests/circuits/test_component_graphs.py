"""Graphs of heads and whole MLPs, made of the edges of a residual stream."""

import math
from pathlib import Path

import numpy as np
import pytest
import torch

from circuitry import AttributionGraph
from circuitry.bases import Component, ResidualStream, in_components
from circuitry.circuits import (
    EDGE_METHODS,
    attribute,
    attribute_components,
    depth_bias,
    edge_jaccard,
    left_rule,
)
from circuitry.circuits.component_graphs import COMPONENT_SCORERS, as_graph
from circuitry.circuits.edge_methods import EDGE_SCORERS
from circuitry.circuits.stream_edges import StreamScores
from circuitry.encoder import Encoder, Task
from tests.support.assert_same import assert_same
from tests.support.metrics import product as metric
from tests.support.stream_scores import edge_scores
from tests.support.towers import make_tower
from tests.support.work import QUIET

NONE = np.nan
HEAD = Component("blocks.0.attn", 0)
SMALL = StreamScores(
    (
        *(HEAD._replace(port=port) for port in "qkv"),
        Component("blocks.0.mlp"),
        Component("embedding"),
    ),
    (Component("embed"), HEAD, Component("blocks.0.mlp")),
    np.array(
        [
            [1, NONE, NONE],
            [-2, NONE, NONE],
            [4, NONE, NONE],
            [-8, 16, NONE],
            [32, -64, 128],
        ]
    ),
    np.array([1.0, -2, 4, 8, 96]),
    np.array([27.0, -48, 128]),
    3,
)


def test_a_small_graph_on_paper() -> None:
    graph = as_graph(SMALL, {})
    assert graph.sites == ("embed", "blocks.0.attn", "blocks.0.mlp", "embedding")
    nodes = {site: scores.tolist() for site, scores in graph.node_scores.items()}
    assert nodes == {
        "embed": [27],
        "blocks.0.attn": [-48],
        "blocks.0.mlp": [128],
        "embedding": [96],
    }
    assert {pair: scores.item() for pair, scores in graph.edge_scores.items()} == {
        ("embed", "blocks.0.attn"): 3,
        ("embed", "blocks.0.mlp"): -8,
        ("blocks.0.attn", "blocks.0.mlp"): 16,
        ("embed", "embedding"): 32,
        ("blocks.0.attn", "embedding"): -64,
        ("blocks.0.mlp", "embedding"): 128,
    }


def test_ports_apart_read_in_the_place_of_their_head() -> None:
    graph = as_graph(SMALL, {}, ports=True)
    assert graph.sites[1:5] == (
        "blocks.0.attn.q",
        "blocks.0.attn.k",
        "blocks.0.attn.v",
        "blocks.0.attn",
    )
    assert graph.node_scores["blocks.0.attn.v"].tolist() == [4]
    assert graph.edge_scores["embed", "blocks.0.attn.k"].item() == -2
    assert ("embed", "blocks.0.attn") not in graph.edge_scores
    assert set(graph.circuit(2).graph.successors("embed/0")) >= {
        "blocks.0.attn.q/0",
        "blocks.0.attn.v/0",
    }


def test_a_plain_encoder_and_one_in_components_have_the_same_edges_by_every_method() -> (
    None
):
    encoder = Encoder.from_tower(make_tower("timm-vit").double())
    images = torch.randn(2, 3, *encoder.image_size, dtype=torch.float64)
    assert set(EDGE_SCORERS) == set(EDGE_METHODS)
    for method in COMPONENT_SCORERS:
        plain, fine = (
            attribute_components(
                Task(one, images, metric, baseline=images.flip(0), work=QUIET),
                method=method,
            )
            for one in (encoder, in_components(encoder))
        )
        assert plain.settings["edge_method"] == method
        for pair, scores in plain.edge_scores.items():
            assert np.array_equal(scores, fine.edge_scores[pair])
        matrix = edge_scores(
            ResidualStream.of(encoder), images, metric, method, baseline=images.flip(0)
        )
        last = np.concatenate(
            [plain.edge_scores[up, "embedding"][0] for up in plain.sites[:-1]]
        )
        assert_same(np.sort(last), np.sort(matrix.scores[-1]), at_least=1e-3)


@pytest.mark.parametrize("ports", [False, True])
def test_heads_have_the_effects_of_nodes_and_graphs_are_stored_and_compared(
    ports: bool, tmp_path: Path
) -> None:
    encoder = Encoder.from_tower(make_tower("vit").double())
    torch.manual_seed(1)
    images = torch.randn(4, 3, *encoder.image_size, dtype=torch.float64)
    graph = attribute_components(Task(encoder, images[:2], metric), ports=ports)
    nodes = attribute(
        in_components(encoder), images[:2], metric, rule=left_rule(1), progress=False
    ).node_scores
    for i in range(2):
        path = f"transformer.resblocks.{i}"
        np.testing.assert_allclose(
            graph.node_scores[f"blocks.{i}.attn"], nodes[f"{path}.attn"], rtol=1e-8
        )
        np.testing.assert_allclose(
            graph.node_scores[f"blocks.{i}.mlp"],
            [nodes[f"{path}.mlp"].sum()],
            rtol=1e-8,
        )
    graph.save(tmp_path / "graph")
    again = AttributionGraph.load(tmp_path / "graph")
    other = attribute_components(
        Task(in_components(encoder), images[2:], metric), ports=ports
    )
    assert edge_jaccard(again.circuit(2), graph.circuit(2)) == 1
    assert 0 < edge_jaccard(again.circuit(2), other.circuit(2)) < 1


def test_depth_is_that_of_layers() -> None:
    assert depth_bias(as_graph(SMALL, {})) == pytest.approx(
        math.log((128 + 96) / (27 + 48))
    )
