"""What a head moves from where to where: sums to what it reads, and to derivatives of hooks on single pairs."""

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from circuitry.bases import ResidualStream
from circuitry.circuits import edges_by_position, moves_between_positions
from circuitry.encoder import Encoder, Task
from tests.bases.test_components import FURTHER
from tests.support.metrics import product as metric
from tests.support.towers import make_tower

WRITER, HEAD = "blocks.0.attn.1", "blocks.1.attn.0"


def opened(name: str) -> tuple[ResidualStream, Tensor]:
    tower = FURTHER[name]() if name in FURTHER else make_tower(name)
    encoder = Encoder.from_tower(tower.double())
    torch.manual_seed(1)
    return ResidualStream.of(encoder), torch.randn(2, 3, *encoder.image_size, dtype=torch.float64)


@pytest.mark.parametrize("name", ["vit", "average-and-query-key-norm", "perception-encoder"])
def test_moves_sum_to_what_an_edge_carries_at_each_position(name: str) -> None:
    stream, images = opened(name)
    edges = [(WRITER, f"{HEAD}.{port}") for port in "qkv"]
    task = Task(stream.components, images, metric, baseline=images.flip(0))
    moves = moves_between_positions(task, edges)
    at = edges_by_position(task, edges)
    assert (np.abs(at).max((0, 2)) > 1e-6).all()
    for place, axis in ((0, 2), (1, 1), (2, 1)):  # where the query stands; where keys and values do
        np.testing.assert_allclose(moves[:, place].sum(axis), at[:, place], rtol=1e-6, atol=1e-12)


@pytest.mark.parametrize("port", ["q", "k", "v"])
def test_a_move_is_the_derivative_of_a_hook_on_one_pair_of_positions(port: str) -> None:
    stream, images = opened("average-and-query-key-norm")
    moves = moves_between_positions(Task(stream.encoder, images, metric), [(WRITER, f"{HEAD}.{port}")])[:, 0]
    _, cache = stream.components.run_with_cache(images)
    change = change_without_the_writer(stream, cache, port)
    amount = torch.zeros((), dtype=torch.float64, requires_grad=True)
    to, source = 2, 3

    def write(x: Tensor, hook: object) -> Tensor:
        added = torch.zeros_like(x)
        if port == "v":
            seen = cache["blocks.1.attn.hook_pattern"][:, 0, to, source, None]
            added[:, to, 0] = seen * change[:, source, 0]
        else:
            added[:, 0, to, source] = change[:, 0, to, source]
        return x + amount * added

    point = f"blocks.1.attn.hook_{'z' if port == 'v' else 'attn_scores'}"
    for image in range(len(images)):
        value = metric(stream.components.run_with_hooks(images, fwd_hooks=[(point, write)]))[image]
        (slope,) = torch.autograd.grad(value, amount)
        assert moves[image, to, source] == pytest.approx(-float(slope), rel=1e-5)


def change_without_the_writer(stream: ResidualStream, cache: Any, port: str) -> Tensor:
    """How values change, or scores by their query or key, to first order without what the writer wrote."""
    block, before, step = stream.blocks[1], cache["blocks.1.hook_resid_pre"], 1e-5
    wrote = stream.written(cache)[[str(one) for one in stream.writers].index(WRITER)]
    after, earlier = (block.project(block.norm_attention(before + sign * step * wrote)) for sign in (-1, 1))
    if port == "v":
        return (after[2] - earlier[2]) / (2 * step)
    q, k = (cache[f"blocks.1.attn.hook_{one}"] for one in "qk")
    first, second = (block.scores(one[0], k) if port == "q" else block.scores(q, one[1]) for one in (after, earlier))
    return (first - second) / (2 * step)
