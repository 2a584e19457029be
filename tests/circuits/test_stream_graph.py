"""Edge scores of a residual stream as graphs, worked on paper and against nodes scored for themselves."""

import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from scipy import stats

from circuitry.bases import Component, ResidualStream, in_components
from circuitry.bases.residual import PORTS
from circuitry.circuits import (
    EDGE_METHODS,
    AttributionGraph,
    attribute,
    attribute_components,
    depth_bias,
    edge_jaccard,
    edge_names,
    left_rule,
    node_overlap,
    similarity,
    wl_kernel,
)
from circuitry.circuits.edge_methods import SCORERS, as_graph
from circuitry.circuits.graph import IN_STREAM
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
    (*(HEAD._replace(port=port) for port in "qkv"), Component("blocks.0.mlp"), Component("embedding")),
    (Component("embed"), HEAD, Component("blocks.0.mlp")),
    np.array([[1, NONE, NONE], [-2, NONE, NONE], [4, NONE, NONE], [-8, 16, NONE], [32, -64, 128]]),
    np.array([1.0, -2, 4, 8, 96]),
    np.array([27.0, -48, 128]),
    3,
)


def test_a_small_graph_on_paper() -> None:
    graph = as_graph(SMALL, {})
    assert graph.sites == ("embed", "blocks.0.attn", "blocks.0.mlp", "embedding")
    assert {site: scores.tolist() for site, scores in graph.node_scores.items()} == {
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
    assert graph.sites[1:5] == ("blocks.0.attn.q", "blocks.0.attn.k", "blocks.0.attn.v", "blocks.0.attn")
    assert graph.node_scores["blocks.0.attn.v"].tolist() == [4]
    assert graph.edge_scores["embed", "blocks.0.attn.k"].item() == -2
    assert ("embed", "blocks.0.attn") not in graph.edge_scores
    assert set(graph.circuit(2).graph.successors("embed/0")) >= {"blocks.0.attn.q/0", "blocks.0.attn.v/0"}


def test_edges_have_the_names_of_writers_and_readers() -> None:
    edges = as_graph(SMALL, {"edges": IN_STREAM}, ports=True).edges
    found = dict(zip(edge_names(edges), edges.to_pandas()["score"], strict=True))
    there = np.argwhere(~np.isnan(SMALL.scores)).tolist()
    assert {edge: score for edge, score in found.items() if score} == {
        (str(SMALL.writers[w]), str(SMALL.readers[r])): SMALL.scores[r, w] for r, w in there
    }


def test_a_plain_encoder_and_one_in_components_have_the_same_edges_by_every_method() -> None:
    encoder = Encoder.from_tower(make_tower("timm-vit").double())
    images = torch.randn(2, 3, *encoder.image_size, dtype=torch.float64)
    assert tuple(SCORERS) == EDGE_METHODS
    for method in EDGE_METHODS[1:]:
        plain, fine = (
            attribute_components(Task(one, images, metric, baseline=images.flip(0), work=QUIET), method=method)
            for one in (encoder, in_components(encoder))
        )
        assert plain.settings["edge_method"] == method
        for pair, scores in plain.edge_scores.items():
            assert np.array_equal(scores, fine.edge_scores[pair])
        matrix = edge_scores(ResidualStream.of(encoder), images, metric, method, baseline=images.flip(0))
        last = np.concatenate([plain.edge_scores[up, "embedding"][0] for up in plain.sites[:-1]])
        assert_same(np.sort(last), np.sort(matrix.scores[-1]), at_least=1e-3)


@pytest.mark.parametrize("ports", [False, True])
def test_heads_have_the_effects_of_nodes_and_graphs_are_stored_and_compared(ports: bool, tmp_path: Path) -> None:
    encoder = Encoder.from_tower(make_tower("vit").double())
    torch.manual_seed(1)
    images = torch.randn(4, 3, *encoder.image_size, dtype=torch.float64)
    graph = attribute_components(Task(encoder, images[:2], metric), ports=ports)
    assert graph.settings["edges"] == IN_STREAM
    nodes = attribute(in_components(encoder), images[:2], metric, rule=left_rule(1), progress=False).node_scores
    for i in range(2):
        path = f"transformer.resblocks.{i}"
        np.testing.assert_allclose(graph.node_scores[f"blocks.{i}.attn"], nodes[f"{path}.attn"], rtol=1e-8)
        np.testing.assert_allclose(graph.node_scores[f"blocks.{i}.mlp"], [nodes[f"{path}.mlp"].sum()], rtol=1e-8)
    graph.save(tmp_path / "graph")
    again = AttributionGraph.load(tmp_path / "graph")
    other = attribute_components(Task(in_components(encoder), images[2:], metric), ports=ports)
    assert edge_jaccard(again.circuit(2), graph.circuit(2)) == 1
    assert 0 < edge_jaccard(again.circuit(2), other.circuit(2)) < 1


BLOCKS, HEADS = 2, 2
STREAM: dict[str, Any] = {"edges": IN_STREAM}
ORDER = ["embed", *(f"blocks.{i}.{kind}" for i in range(BLOCKS) for kind in ("attn", "mlp")), "embedding"]


def components(layer: str, ports: tuple[str, ...]) -> list[Component]:
    heads = [Component(layer, head, port) for port in ports for head in range(HEADS)]
    return heads if layer.endswith("attn") else [Component(layer)]


WRITERS = tuple(one for layer in ORDER[:-1] for one in components(layer, ("",)))
READERS = tuple(one for layer in ORDER[1:] for one in components(layer, PORTS))


def scores(seed: int) -> StreamScores:
    found = np.random.default_rng(seed).normal(size=(len(READERS), len(WRITERS)))
    for row, reader in enumerate(READERS):
        for column, writer in enumerate(WRITERS):
            if ORDER.index(writer.layer) >= ORDER.index(reader.layer):
                found[row, column] = np.nan
    return StreamScores(READERS, WRITERS, found, np.nansum(found, 1), np.nansum(found, 0), 3)


def in_other_order(graph: AttributionGraph) -> AttributionGraph:
    return replace(
        graph,
        kept_units={site: units[::-1] for site, units in graph.kept_units.items()},
        edge_scores={pair: found[::-1, ::-1] for pair, found in graph.edge_scores.items()},
    )


@pytest.mark.parametrize("ports", [False, True])
def test_units_and_edges_are_matched_by_name(ports: bool) -> None:
    a, b = (as_graph(scores(seed), STREAM, ports=ports) for seed in (0, 1))
    again = in_other_order(a)
    assert similarity(a, again, "edge_spearman")[None] == pytest.approx(1)
    assert edge_jaccard(a.circuit(2), again.circuit(2)) == wl_kernel(a.circuit(2), again.circuit(2)) == 1
    assert set(node_overlap(a, again).values()) == {1}
    edges = [
        {(f"{r.upstream_site}/{r.upstream_unit}", f"{r.downstream_site}/{r.downstream_unit}"): r.score for r in rows}
        for rows in (list(graph.to_pandas("edges").itertuples()) for graph in (a, b))
    ]
    names = sorted(edges[0])
    assert sorted(edges[1]) == names
    expected = stats.spearmanr(*([found[name] for name in names] for found in edges)).statistic
    assert similarity(a, in_other_order(b), "edge_spearman")[None] == pytest.approx(expected)
    kept = [set(graph.circuit(2).graph.edges) for graph in (a, b)]
    assert edge_jaccard(a.circuit(2), b.circuit(2)) == len(kept[0] & kept[1]) / len(kept[0] | kept[1])


def test_depth_is_that_of_layers() -> None:
    found = scores(0)
    graph = as_graph(found, STREAM)
    mass = {site: np.abs(values).sum() for site, values in graph.node_scores.items()}
    assert list(mass) == ["embed", "blocks.0.attn", "blocks.0.mlp", "blocks.1.attn", "blocks.1.mlp", "embedding"]
    shallow, deep = (sum(list(mass.values())[part]) for part in (slice(3), slice(3, None)))
    assert depth_bias(graph) == pytest.approx(math.log(deep / shallow))
    later = (
        np.where([[writer.layer.startswith("blocks.1") for writer in WRITERS]] * len(READERS), 100, 1) * found.scores
    )
    deeper = found._replace(scores=later, out_of=np.nansum(later, 0), into=np.nansum(later, 1))
    for ports in (False, True):
        biases = [depth_bias(as_graph(one, STREAM, ports=ports)) for one in (found, deeper)]
        assert biases[1] > biases[0] + 1
