"""Cut edges against brute force by hand-written hooks on a tower, a network worked out on paper, and planted edges."""

from functools import partial
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
import torch
from sklearn.metrics import roc_auc_score
from timm.models.vision_transformer import ResPostBlock
from torch import Tensor, nn

from circuitry import AttributionGraph, Encoder, InputError, attribute, class_logit, left_rule, mean_baseline
from circuitry.interventions import AblationSettings, cut_each, cut_effects, cut_embeddings, measure_edges, take_edges
from circuitry.interventions.edge_sets import EdgeSet, no_edges
from circuitry.models import Stage, in_components
from circuitry.study import planted_attention, planted_convolution
from tests.support.towers import timm_vit
from tests.support.work import QUIET


def hand_worked() -> Encoder:
    """Input [B,3,1,1] -> first: (x0, x1, x2) -> second: (u0 u1, u1 + u2) -> embedding: (v0 + v1, v1)."""
    stages = (
        Stage("first", lambda x: x.flatten(1), 1),
        Stage("second", lambda u: torch.stack([u[:, 0] * u[:, 1], u[:, 1] + u[:, 2]], 1), 1),
        Stage("embedding", lambda v: torch.stack([v.sum(1), v[:, 1]], 1), 1),
    )
    return Encoder(nn.Linear(1, 1), stages, (1, 1))


IMAGE = torch.tensor([[2.0, 3, 5]])[:, :, None, None]  # u = 2, 3, 5; v = 6, 8; embedding 14, 8


def first(e: Tensor) -> Tensor:
    return e[:, 0]


def test_one_edge_is_cut_for_one_downstream_unit_alone() -> None:
    every = {"first": [0, 1, 2], "second": [0, 1], "embedding": [0, 1]}
    effects = cut_effects(hand_worked(), IMAGE, first, every, work=QUIET)
    # u1 -> v0 takes 6 away, u1 -> v1 takes 3 away: cutting one leaves the other.
    assert effects["first", "second"].tolist() == [[6, 6, 0], [0, 3, 5]]
    assert effects["second", "embedding"].tolist() == [[6, 8], [0, 0]]
    some = cut_effects(hand_worked(), IMAGE, first, {"first": [2, 1], "second": [True, False]}, work=QUIET)
    assert some["first", "second"].tolist() == [[0, 6]]
    with pytest.raises(InputError, match=r"Edges run between sites that follow each other, but units of first, emb"):
        cut_effects(hand_worked(), IMAGE, first, {"first": [0], "embedding": [0]}, work=QUIET)


@pytest.mark.parametrize(("down", "up"), [([0, 1], []), ([], [0, 1, 2]), ([], [])])
def test_between_no_units_there_are_no_effects(down: list[int], up: list[int]) -> None:
    none = cut_effects(hand_worked(), IMAGE, first, {"first": up, "second": down, "embedding": [0]}, work=QUIET)
    assert {pair: effects.shape for pair, effects in none.items()} == {
        ("first", "second"): (len(down), len(up)),
        ("second", "embedding"): (1, len(down)),
    }


def test_a_set_of_edges_is_cut_stage_by_stage() -> None:
    graph = AttributionGraph(
        ("first", "second", "embedding"),
        {"first": np.ones(3), "second": np.ones(2), "embedding": np.ones(2)},
        {},
        {},
        {},
        1,
    )

    def kept(*edges: tuple[str, str, int, int]) -> list[float]:
        chosen = no_edges(graph)
        for up, down, u, d in edges:
            chosen[up, down][d, u] = True
        embedding: list[float] = cut_embeddings(hand_worked(), IMAGE, [chosen], work=QUIET)[0, 0].tolist()
        return embedding

    assert kept() == [0, 0]
    assert kept(("first", "second", 1, 1), ("second", "embedding", 1, 0)) == [3, 0]
    # v0 lacks u0, and v1 reaches only the second unit of the embedding.
    assert kept(("first", "second", 1, 0), ("first", "second", 2, 1), ("second", "embedding", 1, 1)) == [0, 5]
    whole = {pair: np.ones_like(mask) for pair, mask in no_edges(graph).items()}
    assert cut_embeddings(hand_worked(), IMAGE, [whole], work=QUIET)[0, 0].tolist() == [14, 8]
    with pytest.raises(InputError, match=r"but that of first->second is \[2, 2\] and 'first' has 3 units"):
        cut_embeddings(hand_worked(), IMAGE, [{("first", "second"): np.zeros((2, 2), dtype=bool)}], work=QUIET)
    with pytest.raises(
        InputError, match=r"one mask .* for every pair of consecutive sites .* but first->embedding was"
    ):
        cut_embeddings(hand_worked(), IMAGE, [{("first", "embedding"): np.zeros((2, 3), dtype=bool)}], work=QUIET)


def brute_force(
    tower: nn.Module, images: Tensor, edges: dict[tuple[str, str], np.ndarray], ends: dict[str, Tensor]
) -> Tensor:
    """Whole runs of the tower with hooks on its modules, one downstream unit at a time, deepest pair last."""
    sites = [next(iter(edges))[0], *(down for _, down in edges)]
    values: dict[str, Tensor] = {}

    def run(writes: dict[str, Tensor], read: str | None) -> Tensor:
        handles, found = [], {}
        for site in {*writes, *([read] if read else [])}:

            def hook(module: nn.Module, inputs: object, output: Tensor, site: str = site) -> Tensor:
                found[site] = output
                return writes.get(site, output)

            handles.append(tower.get_submodule(site).register_forward_hook(hook))
        with torch.no_grad():
            out: Tensor = tower(images)
        for handle in handles:
            handle.remove()
        return found[read] if read else out

    values[sites[0]] = run({}, sites[0])
    for up, down in pairwise(sites):
        units = []
        for d, row in enumerate(edges[up, down]):
            x = ends[up].expand_as(values[up]).clone()
            x[:, row] = values[up][:, row]
            units.append(run({up: x}, down)[:, d])
        values[down] = torch.stack(units, 1)
    return run({sites[-1]: values[sites[-1]]}, None)


@pytest.mark.parametrize("mean", [False, True])
def test_cut_sets_are_brute_force_by_hooks(resnet: nn.Module, mean: bool) -> None:
    tower = resnet.double()
    encoder, images = Encoder.from_tower(tower), torch.randn(2, 3, 64, 64).double()
    sites = ["layer2.0", "layer2.1", "layer3.0"]
    reference = torch.randn(3, 3, 64, 64).double()
    baseline = mean_baseline(encoder, reference) if mean else "zero"
    none = torch.zeros(1, 1, 1, 1).double()
    ends = {site: none if isinstance(baseline, str) else baseline.values[site] for site in sites}
    rng, (_, cache) = np.random.default_rng(0), encoder.run_with_cache(images)
    edges = {(up, down): rng.random((cache[down].shape[1], cache[up].shape[1])) < 0.3 for up, down in pairwise(sites)}
    expected = brute_force(tower, images, edges, ends)
    found = cut_embeddings(encoder, images, [edges, edges], baseline=baseline, work=QUIET)
    assert torch.allclose(found[0], expected, atol=1e-10)
    assert torch.equal(found[0], found[1])


def post_norm_by_hand(tower: Any, images: Tensor, other: Tensor, edges: EdgeSet) -> Tensor:
    """A timm ViT of two blocks of two heads of 8 with a norm behind attention and MLP, unit by unit.

    A unit reads its own mixture of the units of the site before it, and all of the stream that goes past these.
    """
    trunk = tower.trunk

    def heads(block: Any, x: Tensor) -> Any:
        q, k, v = block.attn.qkv(x).unflatten(-1, (3, 2, 8)).permute(2, 0, 3, 1, 4)
        return (torch.softmax(q @ k.transpose(2, 3) * 8**-0.5, -1) @ v).transpose(1, 2).flatten(2)

    def neurons(block: Any, x: Tensor) -> Any:
        return block.mlp.act(block.mlp.fc1(x))

    def attended(block: Any, z: Tensor) -> Any:
        return block.norm1(block.attn.proj(z))

    def made(block: Any, post: Tensor) -> Any:
        return block.norm2(block.mlp.fc2(post))

    one, two = trunk.blocks
    steps: list[Any] = [  # what writes the units before, what reads them, and the width of a unit
        (lambda units: units, partial(heads, one), 8),
        (partial(attended, one), partial(neurons, one), 1),
        (partial(made, one), partial(heads, two), 8),
        (partial(attended, two), partial(neurons, two), 1),
        (partial(made, two), lambda x: tower.head(trunk.norm(x)[:, 0]), 1),
    ]
    units, ends = (trunk._pos_embed(trunk.patch_embed(x)) for x in (images, other))
    past, past_of_end, width_up = torch.zeros_like(units), torch.zeros_like(ends), 1
    for (write, read, width), mask in zip(steps, edges.values(), strict=True):
        parts = []
        for d, row in enumerate(mask):
            open_ = torch.from_numpy(row).repeat_interleave(width_up)
            parts.append(read(past + write(torch.where(open_, units, ends)))[..., d * width : (d + 1) * width])
        past, past_of_end = past + write(units), past_of_end + write(ends)
        units, ends, width_up = torch.cat(parts, -1), read(past_of_end), width
    found: Tensor = units
    return found


def test_edges_of_heads_and_neurons_behind_which_a_norm_lies_are_a_tower_written_out_by_hand() -> None:
    torch.manual_seed(0)
    tower = timm_vit(block_fn=ResPostBlock).double()
    encoder = in_components(Encoder.from_tower(tower))
    images, rng = torch.randn(4, 3, *encoder.image_size).double(), np.random.default_rng(0)
    graph = attribute(encoder, images, first, 0.2, left_rule(1), progress=False)
    edges = {pair: rng.random(mask.shape) < 0.5 for pair, mask in no_edges(graph).items()}
    with torch.no_grad():
        expected = post_norm_by_hand(tower, images[:2], images[2:], edges)
        clean = encoder(images[:2])
    whole = {pair: np.ones_like(mask) for pair, mask in edges.items()}
    sets = [edges, whole, take_edges(graph.circuit(3))]
    found = cut_embeddings(encoder, images[:2], sets, baseline=images[2:], work=QUIET)
    torch.testing.assert_close(found[0], expected)
    torch.testing.assert_close(found[1], clean)
    assert not torch.allclose(found[2], clean)
    sites = (graph.inner_sites[1], graph.inner_sites[2])
    units = {sites[0]: [0, 1], sites[1]: [5, 9]}
    some = {pair: np.zeros_like(mask) for pair, mask in edges.items()}
    some[sites][[5, 9]] = True
    exact = cut_each(encoder, images[:2], first, some, baseline=images[2:], work=QUIET)[sites][[5, 9]]
    by_unit = cut_effects(encoder, images[:2], first, units, baseline=images[2:], work=QUIET)[sites]
    np.testing.assert_allclose(exact, by_unit, atol=1e-12)


@pytest.mark.parametrize("build", [planted_convolution, planted_attention])
def test_cutting_finds_the_planted_edges_those_into_attention_too(build: object) -> None:
    planted = build()  # type: ignore[operator]
    every = {site: np.arange(4 if site == "head" else 8) for site in planted.nodes}
    effects = cut_effects(planted.encoder, planted.images(16, 0), planted.metric, every, work=QUIET)
    for pair, edges in planted.edges.items():
        truth = np.zeros(effects[pair].shape, dtype=bool)
        truth[tuple(np.transpose(edges))] = True
        assert roc_auc_score(truth.ravel(), np.abs(effects[pair]).ravel()) > 0.95
    some = {pair: np.arange(effect.size).reshape(effect.shape) % 7 == 0 for pair, effect in effects.items()}
    by_force = cut_each(planted.encoder, planted.images(16, 0), planted.metric, some, work=QUIET)
    for pair, mask in some.items():
        np.testing.assert_allclose(by_force[pair][mask], effects[pair][mask], atol=1e-6)
        assert np.isnan(by_force[pair][~mask]).all()


def test_a_graph_is_measured_by_its_edges(resnet: nn.Module) -> None:
    encoder, images, others = Encoder.from_tower(resnet), torch.randn(2, 3, 64, 64), torch.randn(2, 3, 64, 64)
    metric = class_logit(nn.functional.normalize(torch.randn(4, 16), dim=-1), 1)
    graph = attribute(encoder, images, metric, 0.3, sites=["layer3.0", "layer4.0", "attnpool"], progress=False)
    circuits = [graph.circuit(1), graph.circuit(3)]
    sets, settings = [take_edges(circuit) for circuit in circuits], AblationSettings(random_draws=2)
    curve = measure_edges(encoder, images, metric, graph, sets, settings, others=others, work=QUIET)
    assert curve.n_units == tuple(circuit.graph.number_of_edges() for circuit in circuits)
    assert curve.kept.shape == (2, 4)
    assert np.isfinite(curve.random).all()
    np.testing.assert_allclose(curve.full, metric(encoder(torch.cat([images, others]))).numpy(), rtol=1e-5)
    alone = cut_embeddings(encoder, images, sets[1:], work=QUIET)[0]
    np.testing.assert_allclose(curve.kept[1, :2], metric(alone).numpy(), rtol=1e-5)
    with pytest.raises(InputError, match=r"of at least one set, but none was given"):
        measure_edges(encoder, images, metric, graph, [], work=QUIET)
