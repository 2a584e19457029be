"""Some neurons of an MLP apart, and the others as one component: nothing is left out, and cuts are as by hand."""

from typing import Any

import numpy as np
import pytest
import torch
from timm.models.vitamin import GeGluMlp
from torch import Tensor, nn

from circuitry.circuits import attribute, midpoint_rule, score_edges, stream_graph
from circuitry.models import Encoder, ResidualStream, in_components
from circuitry.runs import InputError
from tests.circuits.test_residual_edges import metric
from tests.support.towers import make_tower

APART = {"trunk.blocks.0.mlp": [5, 2], "trunk.blocks.1.mlp": [0]}


def opened(gated: bool = False) -> tuple[Any, ResidualStream, Tensor]:
    tower: Any = make_tower("timm-vit").double()
    for block in tower.trunk.blocks if gated else ():
        block.mlp = GeGluMlp(16, 8).double().requires_grad_(False)
    images = torch.randn(3, 3, 32, 32, dtype=torch.float64)
    return tower, ResidualStream.of(Encoder.from_tower(tower), APART), images


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
        torch.testing.assert_close(stream.run(images, stream.edges, images.flip(0)), tower(images))


@pytest.mark.parametrize("gated", [False, True])
def test_scores_are_derivatives_of_exact_cuts_and_add_up_to_those_of_whole_mlps(gated: bool) -> None:
    tower, stream, images = opened(gated)
    keep = stream.edges.double().requires_grad_()
    (slope,) = torch.autograd.grad(metric(stream.run(images, keep, images.flip(0))).mean(), keep)
    found = score_edges(stream, images, metric, baseline=images.flip(0))
    expected = torch.where(stream.edges, slope, torch.nan)
    np.testing.assert_allclose(found.scores, expected.numpy(), rtol=1e-7, atol=1e-10)
    whole = score_edges(ResidualStream.of(Encoder.from_tower(tower)), images, metric, baseline=images.flip(0))
    into = [whole.readers.index(".".join(name.split(".")[:3]) if ".mlp." in name else name) for name in found.readers]
    out_of = [whole.writers.index(".".join(name.split(".")[:3]) if ".mlp." in name else name) for name in found.writers]
    total = np.zeros_like(whole.scores)
    np.add.at(total, np.ix_(into, out_of), np.nan_to_num(found.scores))
    np.testing.assert_allclose(total, np.nan_to_num(whole.scores), rtol=1e-8, atol=1e-12)


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
        torch.testing.assert_close(stream.run(images, keep), expected)
        assert not torch.allclose(expected, tower(images), atol=1e-6)


def test_exact_readers_know_neurons_apart() -> None:
    tower, _, images = opened()
    tower.trunk.norm = nn.Identity()
    stream = ResidualStream.of(Encoder.from_tower(tower), APART)
    found = score_edges(stream, images, lambda e: e[:, 0], correction="exact-readers")
    with torch.no_grad():
        for reader in ("blocks.1.mlp.0", "blocks.1.mlp"):
            row, column = stream.edge("blocks.0.mlp.2", reader)
            keep = stream.edges.clone()
            keep[row, column] = False
            cut = (tower(images) - stream.run(images, keep))[:, 0].mean()
            assert found.scores[row, column] == pytest.approx(float(cut), rel=1e-8)


def test_neurons_of_a_graph_are_apart_and_bad_ones_are_told() -> None:
    tower, _, images = opened()
    encoder = Encoder.from_tower(tower)
    graph = attribute(in_components(encoder), images, metric, 0.05, midpoint_rule(1), progress=False)
    stream = ResidualStream.of(encoder, graph.kept_units)
    assert [len(of_block) for of_block in stream.neurons] == [4, 4]
    assert stream.neurons[0] == tuple(graph.kept_units["trunk.blocks.0.mlp"])
    with pytest.raises(InputError, match=r"some neurons are apart, such as blocks.0.mlp."):
        stream_graph(score_edges(stream, images, metric))
    for wrong in ([64], [-1], [3, 3]):
        with pytest.raises(InputError, match=r"at site 'trunk.blocks.1.mlp' are numbers from 0 to 63, each once, but"):
            ResidualStream.of(encoder, {"trunk.blocks.1.mlp": wrong})
