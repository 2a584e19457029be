"""What compares and draws circuits, on graphs of heads and MLPs whose edges run between any two sites."""

import math
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from scipy import stats

from circuitry.bases import Component
from circuitry.bases.residual import PORTS
from circuitry.circuits import AttributionGraph, depth_bias, edge_jaccard, node_overlap, similarity, wl_kernel
from circuitry.circuits.edge_methods import as_graph
from circuitry.circuits.graph import IN_STREAM
from circuitry.circuits.stream_edges import StreamScores

BLOCKS, HEADS = 2, 2
STREAM: dict[str, Any] = {"edges": IN_STREAM}
ORDER = ["embed", *(f"blocks.{i}.{kind}" for i in range(BLOCKS) for kind in ("attn", "mlp")), "embedding"]


def components(layer: str, ports: tuple[str, ...]) -> list[Component]:
    """The heads of a layer, for each port, or its MLP."""
    heads = [Component(layer, head, port) for port in ports for head in range(HEADS)]
    return heads if layer.endswith("attn") else [Component(layer)]


WRITERS = tuple(one for layer in ORDER[:-1] for one in components(layer, ("",)))
READERS = tuple(one for layer in ORDER[1:] for one in components(layer, PORTS))


def scores(seed: int) -> StreamScores:
    """Random scores of the edges of two blocks of two heads, from a writer to later readers."""
    found = np.random.default_rng(seed).normal(size=(len(READERS), len(WRITERS)))
    for row, reader in enumerate(READERS):
        for column, writer in enumerate(WRITERS):
            if ORDER.index(writer.layer) >= ORDER.index(reader.layer):
                found[row, column] = np.nan
    return StreamScores(READERS, WRITERS, found, np.nansum(found, 1), np.nansum(found, 0), 3)


def in_other_order(graph: AttributionGraph) -> AttributionGraph:
    """Return the same graph with its kept units, and the scores of their edges, in the reverse order."""
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
    """Half of the mass of a graph of two blocks lies up to the first MLP."""
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
