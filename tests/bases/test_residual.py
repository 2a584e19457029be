"""The residual stream as a graph: everything kept is the tower, and single edges are cut as by hand."""

from typing import Any

import pytest
import torch
from torch import Tensor

from circuitry.bases import Component, ResidualStream
from circuitry.encoder import mean_baseline
from circuitry.runs import InputError
from tests.support.stream_scores import opened, run_stream


@pytest.mark.parametrize(
    "name", ["vit", "timm-vit", "vit-average-pooling", "query-key-norm"]
)
def test_with_all_edges_the_run_is_the_towers_whatever_the_baseline(name: str) -> None:
    stream, images = opened(name)
    with torch.no_grad():
        expected = stream.encoder(images)
        for baseline in (
            "zero",
            mean_baseline(stream.components, images),
            torch.rand_like(images),
        ):
            found = run_stream(stream, images, stream.edges, baseline)
            torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-10)


def test_without_edges_every_reader_reads_the_baseline() -> None:
    stream, images = opened()
    other = torch.rand_like(images)
    none = torch.zeros_like(stream.edges)
    with torch.no_grad():
        torch.testing.assert_close(
            run_stream(stream, images, none, other), stream.encoder(other)
        )


def test_writers_add_up_to_the_stream() -> None:
    stream, images = opened("vit")
    with torch.no_grad():
        _, cache = stream.components.run_with_cache(images)
        written = stream.written(cache)
        biases = sum(sum(stream.biases(i)) for i in range(len(stream.blocks)))
    assert len(written) == len(stream.writers) == 1 + 2 * 3
    torch.testing.assert_close(
        written.sum(0) + biases, cache["blocks.1.hook_resid_post"]
    )


def test_readers_come_after_writers() -> None:
    stream, _ = opened()
    order = [
        "embed",
        "blocks.0.attn",
        "blocks.0.mlp",
        "blocks.1.attn",
        "blocks.1.mlp",
        "embedding",
    ]
    assert [str(one) for one in stream.writers[:4]] == [
        "embed",
        "blocks.0.attn.0",
        "blocks.0.attn.1",
        "blocks.0.mlp",
    ]
    assert (str(stream.readers[0]), str(stream.readers[-1])) == (
        "blocks.0.attn.0.q",
        "embedding",
    )
    for reader, row in zip(stream.readers, stream.edges, strict=True):
        for writer, there in zip(stream.writers, row, strict=True):
            assert bool(there) == (
                order.index(writer.layer) < order.index(reader.layer)
            ), (str(reader), str(writer))


def test_cutting_an_edge_into_an_mlp_equals_hooks_on_the_towers_own_modules() -> None:
    stream, images = opened()
    tower: Any = stream.encoder.tower
    writer, reader = Component("blocks.0.attn", 1), Component("blocks.1.mlp")
    keep = stream.edges.clone()
    keep[stream.readers.index(reader), stream.writers.index(writer)] = False
    other = torch.rand_like(images)
    projection = tower.trunk.blocks[0].attn.proj

    def written(of: Tensor) -> Tensor:
        seen: list[Tensor] = []
        with projection.register_forward_hook(
            lambda _, inputs, __: seen.append(inputs[0])
        ):
            tower(of)
        wrote: Tensor = seen[0][..., 8:] @ projection.weight[:, 8:].T
        return wrote

    with torch.no_grad():
        change = written(other) - written(images)
        with tower.trunk.blocks[1].norm2.register_forward_pre_hook(
            lambda _, inputs: (inputs[0] + change,)
        ):
            expected = tower(images)
        torch.testing.assert_close(run_stream(stream, images, keep, other), expected)
        assert not torch.allclose(expected, tower(images), atol=1e-6)


@pytest.mark.parametrize("port", ["q", "k", "v"])
def test_cutting_an_edge_into_a_port_of_a_head_equals_a_hook_on_its_rows(
    port: Any,
) -> None:
    stream, images = opened()
    tower: Any = stream.encoder.tower
    block = tower.trunk.blocks[1]
    head = 1
    keep = stream.edges.clone()
    keep[
        stream.readers.index(Component("blocks.1.attn", head, port)),
        stream.writers.index(Component("embed")),
    ] = False
    with torch.no_grad():
        embed = stream.encoder(images, stop="trunk.norm_pre")
        stream_in = stream.encoder(images, stop="trunk.blocks.0")
        without = block.attn.qkv(block.norm1(stream_in - embed))  # baseline zero
        first = "qkv".index(port) * 16 + head * 8

        def rows(_: object, __: object, out: Tensor) -> Tensor:
            out = out.clone()
            out[..., first : first + 8] = without[..., first : first + 8]
            return out

        with block.attn.qkv.register_forward_hook(rows):
            expected = tower(images)
        torch.testing.assert_close(run_stream(stream, images, keep), expected)


@pytest.mark.parametrize("closed", ["everything", "readers", "neuron"])
def test_gradients_of_closed_edges_are_finite_differences(closed: str) -> None:
    """Gates of 0 and 1, where readers that read nothing, and neurons that none reads, could be left out of a run."""
    stream, images = opened()
    stream = ResidualStream.of(stream.encoder, {stream.sites[2]: [3, 5]})
    keep = stream.edges.double()
    neuron = list(map(str, stream.writers)).index("blocks.0.mlp.3")
    places: dict[str, Any] = {
        "everything": ...,
        "readers": stream.layers[3].readers,
        "neuron": (slice(None), neuron),
    }
    keep[places[closed]] = 0

    def value(gates: Tensor) -> Tensor:
        embeddings = run_stream(stream, images, gates)
        return (embeddings[:, 0] * embeddings[:, 1] + embeddings[:, 2]).sum()

    gates = keep.clone().requires_grad_()
    (gradient,) = torch.autograd.grad(value(gates), [gates])
    with torch.no_grad():
        torch.testing.assert_close(value(gates), value(keep))
        closed_edges = (stream.edges & (keep == 0)).nonzero().tolist()
        for place in map(tuple, closed_edges[:: 1 + len(closed_edges) // 12]):
            step = torch.zeros_like(keep)
            step[place] = 1e-6
            expected = float(value(keep + step) - value(keep - step)) / 2e-6
            assert float(gradient[place]) == pytest.approx(expected, rel=1e-4, abs=1e-5)


def test_towers_with_norms_between_are_refused() -> None:
    with pytest.raises(
        InputError,
        match=r"no heads and neurons that add .* one by one, as where a norm lies",
    ):
        opened("norms")
