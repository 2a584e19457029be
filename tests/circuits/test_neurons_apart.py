"""Some neurons of an MLP apart, and the others as one component: nothing is left out, and cuts are as by hand."""

from typing import Any

import numpy as np
import pytest
import torch
from timm.models.vitamin import GeGluMlp
from torch import Tensor, nn

from circuitry.bases import ResidualStream, in_components
from circuitry.circuits import attribute, midpoint_rule
from circuitry.encoder import Encoder
from circuitry.runs import InputError
from tests.support.assert_same import assert_same
from tests.support.metrics import product as metric
from tests.support.stream_scores import edge_scores, run_stream
from tests.support.towers import make_tower

APART = {"trunk.blocks.0.mlp": [5, 2], "trunk.blocks.1.mlp": [0]}
EVERYWHERE = {"trunk.norm_pre": [3, 0], **APART, "head": [1]}
"""Dimensions of the stream before the blocks and units of the embedding, too."""


def opened(gated: bool = False, units: Any = APART) -> tuple[Any, ResidualStream, Tensor]:
    tower: Any = make_tower("timm-vit").double()
    for block in tower.trunk.blocks if gated else ():
        block.mlp = GeGluMlp(16, 8).double().requires_grad_(False)
    images = torch.randn(3, 3, 32, 32, dtype=torch.float64)
    return tower, ResidualStream.of(Encoder.from_tower(tower), units), images


def test_neurons_are_named_and_what_all_write_adds_up_to_the_stream() -> None:
    tower, stream, images = opened()
    names = [str(one) for one in stream.writers]
    assert names[3:6] == ["blocks.0.mlp.5", "blocks.0.mlp.2", "blocks.0.mlp"]
    assert [str(one) for one in stream.readers][6:9] == names[3:6]
    row, _ = stream.edge("blocks.0.mlp.2", "blocks.1.mlp.0")
    assert not stream.edges[row, names.index("blocks.1.mlp")]
    with torch.no_grad():
        _, seen = stream.components.run_with_cache(images)
        biases = sum(sum(stream.biases(i)) for i in range(2))
        torch.testing.assert_close(stream.written(seen).sum(0) + biases, seen["blocks.1.hook_resid_post"])
        torch.testing.assert_close(run_stream(stream, images, stream.edges, images.flip(0)), tower(images))


@pytest.mark.parametrize("gated", [False, True])
@pytest.mark.parametrize("units", [APART, EVERYWHERE], ids=["neurons", "everywhere"])
def test_scores_are_derivatives_of_exact_cuts_and_add_up_to_those_of_whole_components(gated: bool, units: Any) -> None:
    tower, stream, images = opened(gated, units)
    keep = stream.edges.double().requires_grad_()
    (slope,) = torch.autograd.grad(metric(run_stream(stream, images, keep, images.flip(0))).mean(), keep)
    found = edge_scores(stream, images, metric, baseline=images.flip(0))
    expected = torch.where(stream.edges, slope, torch.nan)
    assert_same(found.scores, expected, at_least=1e-2, rtol=1e-7)
    whole = edge_scores(ResidualStream.of(Encoder.from_tower(tower)), images, metric, baseline=images.flip(0))
    into = [whole.readers.index(together(name)) for name in found.readers]
    out_of = [whole.writers.index(together(name)) for name in found.writers]
    total = np.zeros_like(whole.scores)
    np.add.at(total, np.ix_(into, out_of), np.nan_to_num(found.scores))
    assert_same(total, np.nan_to_num(whole.scores), at_least=1e-2, rtol=1e-8)


def together(name: str) -> str:
    """The whole component that one of its units belongs to."""
    first, *rest = name.split(".")
    return name if first == "blocks" and ".mlp." not in name else ".".join([first, *rest[:2]] if rest[1:] else [first])


def test_cutting_an_edge_into_a_neuron_equals_a_hook_on_that_neuron() -> None:
    tower, stream, images = opened()
    keep, neuron = stream.edges.clone(), 5
    keep[stream.edge("embed", f"blocks.0.mlp.{neuron}")] = False
    mlp, norm = tower.trunk.blocks[0].mlp, tower.trunk.blocks[0].norm2
    read: list[Tensor] = []
    embed = stream.encoder(images, stop="trunk.norm_pre")

    def without(_: object, __: object, pre: Tensor) -> Tensor:
        alone = mlp.fc1.weight[neuron] @ norm.forward(read[0] - embed)[..., None] + mlp.fc1.bias[neuron]
        return torch.where(torch.arange(64) == neuron, alone, pre)

    handles = [norm.register_forward_pre_hook(lambda _, inputs: read.append(inputs[0]))]
    handles.append(mlp.fc1.register_forward_hook(without))
    with torch.no_grad():
        expected = tower(images)
        for handle in handles:
            handle.remove()
        torch.testing.assert_close(run_stream(stream, images, keep), expected)
        assert not torch.allclose(expected, tower(images), atol=1e-6)


def test_exact_readers_know_neurons_apart() -> None:
    tower, _, images = opened()
    tower.trunk.norm = nn.Identity()
    stream = ResidualStream.of(Encoder.from_tower(tower), EVERYWHERE)
    found = edge_scores(stream, images, lambda e: e[:, 0] - e[:, 1], method="exact-readers")
    with torch.no_grad():
        edges = [("blocks.0.mlp.2", r) for r in ("blocks.1.mlp.0", "blocks.1.mlp", "embedding.1", "embedding")]
        for writer, reader in [*edges, ("embed.3", "embedding.1"), ("embed", "blocks.1.mlp")]:
            row, column = stream.edge(writer, reader)
            keep = stream.edges.clone()
            keep[row, column] = False
            change = (tower(images) - run_stream(stream, images, keep)).mean(0)
            assert found.scores[row, column] == pytest.approx(float(change[0] - change[1]), rel=1e-8)


def test_neurons_of_a_graph_are_apart_and_bad_ones_are_told() -> None:
    tower, _, images = opened()
    encoder = Encoder.from_tower(tower)
    graph = attribute(in_components(encoder), images, metric, 0.05, midpoint_rule(1), progress=False)
    stream = ResidualStream.of(encoder, graph.kept_units)
    assert [len(stream.apart[f"trunk.blocks.{i}.mlp"]) for i in range(2)] == [4, 4]
    assert stream.apart["trunk.blocks.0.mlp"] == tuple(graph.kept_units["trunk.blocks.0.mlp"])
    for wrong in ([64], [-1], [3, 3]):
        with pytest.raises(InputError, match=r"trunk.blocks.1.mlp.* 0 to 63"):
            ResidualStream.of(encoder, {"trunk.blocks.1.mlp": wrong})
