"""Edges between heads and MLPs against derivatives of exact cuts and hooks."""

import weakref
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from circuitry.bases import Component, ResidualStream
from circuitry.circuits import (
    gauss_legendre_rule,
    left_rule,
    midpoint_rule,
)
from circuitry.circuits.stream_edges import attributed
from circuitry.circuits.stream_gradients import StreamGradients, reader_gradients
from circuitry.encoder import AnyBaseline, Encoder, Task, mean_baseline
from circuitry.runs import Work
from tests.support.metrics import product as metric
from tests.support.stream_scores import (
    edge_scores,
    linear_transformer,
    opened,
    place_of,
    run_stream,
)
from tests.support.towers import make_tower

HEAD = Component("blocks.0.attn", 1)


@pytest.mark.parametrize("name", ["vit", "timm-vit", "vit-average-pooling"])
@pytest.mark.parametrize("kind", ["zero", "mean", "counterfactual"])
def test_one_gradient_gives_the_derivative_of_cutting_every_edge(
    name: str, kind: str
) -> None:
    stream, images = opened(name)
    baselines: dict[str, AnyBaseline] = {
        "zero": "zero",
        "counterfactual": images.flip(0),
    }
    baseline = (
        mean_baseline(stream.components, images[:2])
        if kind == "mean"
        else baselines[kind]
    )
    keep = stream.edges.double().requires_grad_()
    (slope,) = torch.autograd.grad(
        metric(run_stream(stream, images, keep, baseline)).mean(), keep
    )
    found = edge_scores(stream, images, metric, baseline=baseline)
    expected = torch.where(stream.edges, slope, torch.nan)
    np.testing.assert_allclose(found.scores, expected.numpy(), rtol=1e-7, atol=1e-10)


def test_a_path_integrates_the_gradient_from_clean_to_baseline_before_the_blocks() -> (
    None
):
    stream, images = opened()
    other = torch.rand_like(images)
    rule = midpoint_rule(3)
    found = edge_scores(stream, images, metric, baseline=other, rule=rule)
    first = stream.sites[0]
    with torch.no_grad():
        a, b = (stream.encoder(one, stop=first) for one in (images, other))
        moved = stream.written(_activations(stream, images)) - stream.written(
            _activations(stream, other)
        )
    last = Encoder.from_tower(stream.encoder.tower)
    total: Any = 0.0
    for t in rule.points:
        x = a + t * (b - a)
        stream_end = (
            last(x, start=first, stop="trunk.blocks.1").detach().requires_grad_()
        )
        (slope,) = torch.autograd.grad(
            metric(last(stream_end, start="trunk.blocks.1")).sum(), stream_end
        )
        total = total + torch.einsum("wbpm,bpm->w", moved, slope) / 3 / len(images)
    np.testing.assert_allclose(
        found.scores[-1], total.numpy(), rtol=1e-7
    )  # the edges into the embedding


@pytest.mark.parametrize("name", ["vit", "timm-vit"])
def test_along_what_a_stage_reads_its_edges_add_up_to_the_exact_cut_of_them_all(
    name: str,
) -> None:
    """The path integral of a stage is complete, whatever lies behind it; plain scores are not."""
    stream, images = opened(name)
    other = images.flip(0) + 0.5
    found = edge_scores(
        stream,
        images,
        metric,
        baseline=other,
        rule=gauss_legendre_rule(12),
        method="path-by-layer",
    )
    plain = edge_scores(stream, images, metric, baseline=other)
    gaps = []
    for layer in stream.layers[1:]:
        rows, keep = layer.readers, stream.edges.clone()
        keep[rows] = False
        with torch.no_grad():
            cut = float(
                (
                    metric(stream.encoder(images))
                    - metric(run_stream(stream, images, keep, other))
                ).mean()
            )
        assert found.into[rows].sum() == pytest.approx(cut, rel=1e-4)
        gaps.append(abs(plain.into[rows].sum() / cut - 1))
    assert max(gaps) > 0.1


def test_along_what_an_mlp_reads_gradients_are_those_of_hooks_on_its_norm() -> None:
    stream, images = opened()
    other, rule = images.flip(0), midpoint_rule(3)
    found = edge_scores(
        stream, images, metric, baseline=other, rule=rule, method="path-by-layer"
    )
    tower: Any = stream.encoder.tower
    ends = [stream.written(_activations(stream, x)) for x in (images, other)]
    changes = ends[1] - ends[0]
    move = changes[: len(stream.writers) - 1].sum(0)  # all but the last MLP itself
    slopes = []
    for t in rule.points:
        moved = (t * move).requires_grad_()
        with tower.trunk.blocks[1].norm2.register_forward_pre_hook(
            lambda _, x, m=moved: (x[0] + m,)
        ):
            slopes.append(
                torch.autograd.grad(metric(tower(images)).sum(), moved)[0] / 3
            )
    expected = -torch.einsum(
        "wbpm,bpm->w", changes[:-1], sum(slopes, torch.zeros(()))
    ) / len(images)
    row = found.scores[found.readers.index("blocks.1.mlp"), :-1]
    np.testing.assert_allclose(row, expected.detach().numpy(), rtol=1e-8)


def _activations(stream: ResidualStream, images: Tensor) -> dict[str, Tensor]:
    _, cache = stream.components.run_with_cache(images)
    return dict(cache)


def test_images_in_any_number_of_batches_give_the_same_scores() -> None:
    stream, images = opened()
    whole = edge_scores(stream, images, metric, baseline=images.flip(0))
    parts = edge_scores(
        stream,
        [images[:1], images[1:]],
        metric,
        baseline=images.flip(0),
        work=Work(memory_gib=1e-9),
    )
    np.testing.assert_allclose(parts.scores, whole.scores, rtol=1e-10, atol=1e-14)
    assert parts.n_images == 3


def test_gradients_of_some_images_are_gone_when_the_next_come() -> None:
    """They are most of the memory that `Work.memory_gib` bounds."""
    stream, images = opened()
    held = list[weakref.ref[Tensor]]()

    def gradients(*given: Any) -> StreamGradients:
        assert not any(one() is not None for one in held)
        found = reader_gradients(*given)
        held.append(weakref.ref(found.readers))
        return found

    task = Task(
        stream.components,
        [images[:1], images[1:]],
        metric,
        work=Work(memory_gib=1e-9, progress=False),
    )
    with task.running(gradients=True):
        attributed(stream, task, left_rule(1), gradients=gradients)
    assert len(held) == 3


def test_cutting_an_edge_into_a_neuron_equals_a_hook_on_that_neuron() -> None:
    tower: Any = make_tower("timm-vit").double()
    stream = ResidualStream.of(Encoder.from_tower(tower), {"trunk.blocks.0.mlp": [5]})
    images = torch.randn(3, 3, 32, 32, dtype=torch.float64)
    keep, neuron = stream.edges.clone(), 5
    keep[place_of(stream, "embed", f"blocks.0.mlp.{neuron}")] = False
    mlp, norm = tower.trunk.blocks[0].mlp, tower.trunk.blocks[0].norm2
    read: list[Tensor] = []
    embed = stream.encoder(images, stop="trunk.norm_pre")

    def without(_: object, __: object, pre: Tensor) -> Tensor:
        alone = (
            mlp.fc1.weight[neuron] @ norm.forward(read[0] - embed)[..., None]
            + mlp.fc1.bias[neuron]
        )
        return torch.where(torch.arange(64) == neuron, alone, pre)

    handles = [norm.register_forward_pre_hook(lambda _, inputs: read.append(inputs[0]))]
    handles.append(mlp.fc1.register_forward_hook(without))
    with torch.no_grad():
        expected = tower(images)
        for handle in handles:
            handle.remove()
        torch.testing.assert_close(run_stream(stream, images, keep), expected)
        assert not torch.allclose(expected, tower(images), atol=1e-6)


def test_in_a_linear_network_scores_are_exact_cuts() -> None:
    """Without norms, with uniform patterns and no nonlinearity, an edge's effect is its derivative."""
    tower = linear_transformer()
    stream = ResidualStream.of(Encoder.from_tower(tower))
    torch.manual_seed(1)
    images = torch.randn(2, 3, *stream.encoder.image_size, dtype=torch.float64)
    other = images.flip(0) + 1
    found = edge_scores(stream, images, lambda e: e[:, 0] - 2 * e[:, 1], baseline=other)
    with torch.no_grad():
        for row, column in stream.edges.nonzero().tolist():
            keep = stream.edges.clone()
            keep[row, column] = False
            moved = stream.encoder(images) - run_stream(stream, images, keep, other)
            exact = float((moved[:, 0] - 2 * moved[:, 1]).mean())
            assert found.scores[row, column] == pytest.approx(
                exact, rel=1e-7, abs=1e-11
            )
    assert np.nanmax(np.abs(found.scores)) > 1e-3
