"""AtP* and RelP on edges and components, on paper, against exact cuts, and against hooks on the tower's own modules."""

from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
import pytest
import torch
from timm.models.vitamin import GeGluMlp
from torch import Tensor, nn

from circuitry.bases import ResidualStream
from circuitry.bases.attention_kinds import mix_by_pattern
from circuitry.bases.blocks import Block
from circuitry.circuits import midpoint_rule
from circuitry.encoder import Encoder
from tests.circuits.test_edge_oracles import ON_PAPER
from tests.support.metrics import product
from tests.support.micro_transformer import IMAGE, blank_tower, metric, micro_tower
from tests.support.stream_scores import (
    edge_scores,
    linear_transformer,
    of_edges,
    run_stream,
)
from tests.support.towers import make_tower


def linear(embedding: Tensor) -> Tensor:
    return embedding[:, 0] - 2 * embedding[:, 1]


def opened(tower: Any = None) -> tuple[Any, ResidualStream, Tensor]:
    tower = make_tower("timm-vit").double() if tower is None else tower
    torch.manual_seed(1)
    return (
        tower,
        ResidualStream.of(Encoder.from_tower(tower)),
        torch.randn(3, 3, 32, 32, dtype=torch.float64),
    )


def exact(
    stream: ResidualStream, images: Tensor, rows: Any, columns: Any, other: Tensor
) -> float:
    keep = stream.edges.clone()
    keep[rows, columns] = False
    with torch.no_grad():
        return float(
            (
                linear(stream.encoder(images))
                - linear(run_stream(stream, images, keep, other))
            ).mean()
        )


def test_on_paper_edges_into_queries_and_keys_are_exact_and_the_others_as_they_were() -> (
    None
):
    stream = ResidualStream.of(Encoder.from_tower(micro_tower()))
    found = of_edges(edge_scores(stream, IMAGE, metric, method="exact-softmax"))
    plain = {edge: score for edge, (score, _) in ON_PAPER.items()}
    into_patterns = {
        edge: cut
        for edge, (_, cut) in ON_PAPER.items()
        if edge[1].endswith((".q", ".k"))
    }
    assert into_patterns["embed", "blocks.0.attn.1.q"] == 6
    assert found == pytest.approx(plain | into_patterns, abs=1e-12)


def test_where_attention_is_saturated_the_exact_softmax_is_right_and_the_gradient_is_not() -> (
    None
):
    """All that follows the patterns of the last block is linear, so their change is all there is to know."""
    tower: Any = make_tower("timm-vit").double()
    last = tower.trunk.blocks[1]
    last.norm2, last.mlp.act, tower.trunk.norm = (
        nn.Identity(),
        nn.Identity(),
        nn.Identity(),
    )
    last.attn.qkv.weight[:32] *= 60
    tower, stream, images = opened(tower)
    other = images.flip(0) + 0.5
    plain, found = (
        edge_scores(stream, images, linear, baseline=other, method=c)
        for c in ("gradient", "exact-softmax")
    )
    first = stream.layers[3].readers.start
    rows, columns = (
        range(first, first + 4),
        range(4),
    )  # queries and keys of two heads; embed, two heads, the MLP
    cuts = np.array(
        [
            [exact(stream, images, row, column, other) for column in columns]
            for row in rows
        ]
    )
    np.testing.assert_allclose(found.scores[rows, :4], cuts, rtol=1e-8, atol=1e-12)
    wrong = np.sign(plain.scores[rows, :4]) != np.sign(cuts)
    assert wrong.any()
    assert np.abs(plain.scores[rows, :4] - cuts).max() > np.abs(cuts).max() / 2
    whole = [exact(stream, images, row, slice(None), other) for row in rows]
    np.testing.assert_allclose(found.into[rows], whole, rtol=1e-8)
    others = [
        row for row, name in enumerate(found.readers) if not name.endswith((".q", ".k"))
    ]
    np.testing.assert_allclose(found.scores[others], plain.scores[others], rtol=1e-9)


def test_on_paper_edges_are_exact_where_all_that_follows_the_reader_is_linear() -> None:
    stream = ResidualStream.of(Encoder.from_tower(micro_tower()))
    found = of_edges(edge_scores(stream, IMAGE, metric, method="exact-readers"))
    expected = {
        edge: score if edge[1].endswith(".v") else cut
        for edge, (score, cut) in ON_PAPER.items()
    }
    assert expected["blocks.0.attn.1", "blocks.0.mlp"] == -11
    assert found == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize("correction", ["exact-softmax", "exact-readers"])
def test_what_leaves_a_writer_is_the_sum_of_its_corrected_edges(
    correction: str,
) -> None:
    _, stream, images = opened()
    found, plain = (
        edge_scores(stream, images, linear, method=one)
        for one in (correction, "gradient")
    )
    np.testing.assert_allclose(found.out_of, np.nansum(found.scores, 0))
    assert not np.allclose(found.out_of, plain.out_of, rtol=1e-3)


@pytest.mark.parametrize("is_linear", [False, True], ids=["neurons", "no neurons"])
def test_what_the_last_block_and_the_embedding_read_is_exact(is_linear: bool) -> None:
    """Through norms, softmax and neurons; ports where no neurons follow them."""
    tower: Any = make_tower("timm-vit").double()
    tower.trunk.norm = nn.Identity()
    if is_linear:
        tower.trunk.blocks[1].norm2, tower.trunk.blocks[1].mlp.act = (
            nn.Identity(),
            nn.Identity(),
        )
    _, stream, images = opened(tower)
    other = images.flip(0) + 0.5
    found = edge_scores(stream, images, linear, baseline=other, method="exact-readers")
    last = slice(stream.layers[3].readers.start, stream.layers[4].readers.stop)
    for row in range(last.start if is_linear else last.stop - 1, len(stream.readers)):
        columns = stream.edges[row].nonzero()[:, 0].tolist()
        cuts = [exact(stream, images, row, column, other) for column in columns]
        np.testing.assert_allclose(
            found.scores[row, columns], cuts, rtol=1e-8, atol=1e-12
        )
        assert found.into[row] == pytest.approx(
            exact(stream, images, row, slice(None), other)
        )


def test_a_cut_into_the_embedding_is_exact_through_its_norm_and_any_metric() -> None:
    _, stream, images = opened()
    found = edge_scores(stream, images, product, method="exact-readers")
    with torch.no_grad():
        for column in range(len(stream.writers)):
            keep = stream.edges.clone()
            keep[-1, column] = False
            moved = product(stream.encoder(images)) - product(
                run_stream(stream, images, keep)
            )
            assert found.scores[-1, column] == pytest.approx(float(moved.mean()))


def test_on_paper_a_direct_effect_that_a_later_block_cancels_is_seen() -> None:
    """Head 0 of block 0 writes v = 2a + 4b to b, of which block 1 takes away what it finds there.

    The metric changes by 2 - 2 = 0 with b, so plain scores are 0. Without block 1 it changes by 2, with a value by 2
    (1/2 for each of two tokens), with what the value reads by (4, 8): 4 + 12 for the tokens (1, 0) and (1, 1).
    """
    tower = blank_tower(2)
    first, second = tower.trunk.blocks
    first.attn.qkv.weight[4] += torch.tensor([2, 4])  # v of head 0
    first.attn.proj.weight[1, 0] = 1
    second.mlp.fc1.weight[0, 1] = 1
    second.mlp.fc2.weight[1, 0] = -1
    stream = ResidualStream.of(Encoder.from_tower(tower))
    edge = ("embed", "blocks.0.attn.0.v")
    found = {
        name: edge_scores(stream, IMAGE, metric, method=name)
        for name in ("gradient", "gradient-dropping")
    }
    assert of_edges(found["gradient"])[edge] == pytest.approx(0, abs=1e-12)
    assert of_edges(found["gradient-dropping"])[edge] == pytest.approx(16)
    into = dict(
        zip(found["gradient"].readers, found["gradient-dropping"].into, strict=True)
    )
    assert into["blocks.0.attn.0.v"] == pytest.approx(16)


def test_dropped_gradients_equal_those_of_modules_whose_output_is_detached() -> None:
    tower, stream, images = opened()
    found = edge_scores(stream, images, product, method="gradient-dropping")
    first, second = tower.trunk.blocks
    values: list[Tensor] = []
    moves = [
        torch.zeros(3, 17, 16, dtype=torch.float64, requires_grad=True)
        for _ in range(2)
    ]

    def moved(_: object, inputs: tuple[Tensor], by: Tensor) -> tuple[Tensor]:
        values.append(inputs[0])
        return (inputs[0] + by,)

    handles = [
        one.register_forward_hook(lambda _, __, out: out.detach())
        for one in (second.attn.proj, second.mlp.fc2)
    ]
    for module, by in zip((first.attn.proj, first.norm2), moves, strict=True):
        handles.append(module.register_forward_pre_hook(partial(moved, by=by)))
    z, read = torch.autograd.grad(product(tower(images)).sum(), moves)
    for handle in handles:
        handle.remove()
    heads = (values[0] * z).reshape(3, 17, 2, 8).sum((1, 3)).mean(0).detach().numpy()
    np.testing.assert_allclose(found.out_of[1:3], heads, rtol=1e-8)
    with torch.no_grad():
        embed = stream.encoder(images, stop="trunk.norm_pre")
    score = found.scores[found.readers.index("blocks.0.mlp"), 0]
    assert score == pytest.approx((embed * read).sum((1, 2)).mean().item())
    assert found.scores[-1, 0] == pytest.approx(
        edge_scores(stream, images, product).scores[-1, 0]
    )  # never left out


def test_atp_star_is_both() -> None:
    _, stream, images = opened()
    names = ("atp-star", "exact-softmax", "gradient-dropping")
    both, softmax, dropping = (
        edge_scores(stream, images, product, method=name) for name in names
    )
    patterns = np.array([name.endswith((".q", ".k")) for name in both.readers])
    np.testing.assert_allclose(
        both.scores[~patterns], dropping.scores[~patterns], rtol=1e-9
    )
    last = patterns & np.char.startswith(
        np.array(both.readers), "blocks.1"
    )  # no later block to leave out
    np.testing.assert_allclose(both.scores[last], softmax.scores[last], rtol=1e-9)
    early = patterns & ~last
    assert not np.allclose(both.scores[early, 0], softmax.scores[early, 0])
    assert not np.allclose(both.scores[early, 0], dropping.scores[early, 0])


def frozen(stream: ResidualStream, images: Tensor) -> ResidualStream:
    """The network with scales of norms, patterns and factors of activations as they are in the clean run."""
    with torch.no_grad():
        _, seen = stream.components.run_with_cache(images)

    def norm(of: Any, x: Tensor) -> Any:
        scale = (x.var(-1, correction=0, keepdim=True) + of.eps).rsqrt()
        return lambda y: (y - y.mean(-1, keepdim=True)) * scale * of.weight + of.bias

    def still(i: int, block: Block) -> Block:
        pattern = seen[f"blocks.{i}.attn.hook_pattern"]
        module: Any = stream.encoder.tower
        norms = module.trunk.blocks[i].norm1, module.trunk.blocks[i].norm2
        post, pre = (seen[f"blocks.{i}.mlp.hook_{name}"] for name in ("post", "pre"))
        n = pre.shape[-1] // post.shape[-1]  # two of a gated neuron
        factor = post.repeat(1, 1, n) / pre / n
        return replace(
            block,
            norm_attention=norm(norms[0], seen[f"blocks.{i}.hook_resid_pre"]),
            mix=lambda q, k, v: mix_by_pattern(pattern, v),
            norm_mlp=norm(norms[1], seen[f"blocks.{i}.hook_resid_mid"]),
            activation=lambda pre: torch.stack((factor * pre).chunk(n, -1)).sum(0),
        )

    return replace(
        stream, blocks=tuple(still(i, block) for i, block in enumerate(stream.blocks))
    )


@pytest.mark.parametrize("gated", [False, True])
def test_relevance_is_the_exact_cut_of_every_edge_in_the_network_frozen_at_the_clean_run(
    gated: bool,
) -> None:
    tower: Any = make_tower("timm-vit").double()
    tower.trunk.norm = nn.Identity()
    if gated:
        for block in tower.trunk.blocks:
            block.mlp = GeGluMlp(16, 8).double().requires_grad_(False)
            block.mlp.norm = nn.Identity()
    _, stream, images = opened(tower)
    other = images.flip(0) + 0.5
    found = edge_scores(stream, images, linear, baseline=other, method="relp")
    still = frozen(stream, images)
    cuts = [
        exact(still, images, row, column, other)
        for row, column in stream.edges.nonzero().tolist()
    ]
    np.testing.assert_allclose(
        found.scores[stream.edges.numpy()], cuts, rtol=1e-7, atol=1e-12
    )
    patterns = [
        i for i, name in enumerate(found.readers) if name.endswith((".q", ".k"))
    ]
    assert not found.into[patterns].any()


def test_relevance_is_conserved_where_there_are_no_biases() -> None:
    tower: Any = make_tower("vit").double()
    for name, parameter in tower.named_parameters():
        if name.endswith("bias"):
            parameter.zero_()
    stream, images = (
        ResidualStream.of(Encoder.from_tower(tower)),
        torch.randn(2, 3, 32, 32, dtype=torch.float64),
    )
    value = linear(tower(images)).mean().item()
    found = edge_scores(stream, images, linear, method="relp")
    assert found.out_of[0] == pytest.approx(value, rel=1e-9)
    assert np.nansum(
        found.scores[stream.layers[3].readers.start :, :4]
    ) == pytest.approx(value, rel=1e-9)
    assert found.into[-1] == pytest.approx(value, rel=1e-9)
    assert edge_scores(stream, images, linear).out_of[0] != pytest.approx(
        value, rel=0.1
    )


@pytest.mark.parametrize("correction", ["relp", "relp-with-patterns"])
def test_in_a_linear_network_relevance_is_attribution(correction: str) -> None:
    tower = linear_transformer()
    _, stream, images = opened(tower)
    rule = midpoint_rule(2)
    found, plain = (
        edge_scores(stream, images, product, rule=rule, method=c)
        for c in (correction, "gradient")
    )
    np.testing.assert_allclose(found.scores, plain.scores, rtol=1e-9, atol=1e-14)


def test_patterns_keep_their_gradient_if_asked() -> None:
    _, stream, images = opened()
    found = edge_scores(stream, images, product, method="relp-with-patterns")
    assert found.into[[name.endswith((".q", ".k")) for name in found.readers]].all()
