"""Kept and gated edges of a chain, against a network on paper, hooks on a tower, and a tower written out by hand."""

from functools import partial
from itertools import combinations, pairwise
from typing import Any

import numpy as np
import pytest
import torch
from timm.models.vision_transformer import ResPostBlock
from torch import Tensor, nn

from circuitry import (
    AttributionGraph,
    Encoder,
    Task,
    attribute,
    left_rule,
    mean_baseline,
)
from circuitry.bases import in_components
from circuitry.circuits import cut_effects
from circuitry.encoder import Stage
from circuitry.gates import Edges
from circuitry.interventions import AblationSettings, kept_embeddings, measure_circuits
from tests.support.assert_same import assert_same
from tests.support.circuits import circuit_by, circuit_with
from tests.support.towers import timm_vit
from tests.support.work import QUIET


def hand_worked() -> Encoder:
    """Input [B,3,1,1] -> first: (x0, x1, x2) -> second: (u0 u1, u1 + u2) -> embedding: (v0 + v1, v1)."""
    stages = (
        Stage("first", lambda x: x.flatten(1), 1),
        Stage(
            "second",
            lambda u: torch.stack([u[:, 0] * u[:, 1], u[:, 1] + u[:, 2]], 1),
            1,
        ),
        Stage("embedding", lambda v: torch.stack([v.sum(1), v[:, 1]], 1), 1),
    )
    return Encoder(nn.Linear(1, 1), stages, (1, 1))


IMAGE = torch.tensor([[2.0, 3, 5]])[
    :, :, None, None
]  # u = 2, 3, 5; v = 6, 8; embedding 14, 8
PAIRS = [("first", "second"), ("second", "embedding")]
EVERY = Edges.between(
    {"first": np.arange(3), "second": np.arange(2), "embedding": np.arange(2)}, PAIRS
)


def first(e: Tensor) -> Tensor:
    return e[:, 0]


def by_hand() -> Task:
    return Task(hand_worked(), IMAGE, first, work=QUIET)


def test_one_edge_is_cut_for_one_downstream_unit_alone() -> None:
    effects = cut_effects(by_hand(), EVERY).scores
    # u1 -> v0 takes 6 away, u1 -> v1 takes 3 away: cutting one leaves the other.
    assert effects["first", "second"].tolist() == [[6, 6, 0], [0, 3, 5]]
    assert effects["second", "embedding"].tolist() == [[6, 8], [0, 0]]
    some = Edges.between(
        {"first": np.array([2, 1]), "second": np.array([0])}, PAIRS[:1]
    )
    assert cut_effects(by_hand(), some).scores["first", "second"].tolist() == [[0, 6]]
    one = cut_effects(by_hand(), EVERY.strongest(1, any_sign=True))
    assert np.isnan(one.scores["first", "second"]).sum() == 4


@pytest.mark.parametrize(
    ("kept", "expected"),
    [
        ([], [0, 0]),
        ([("first", "second", 1, 1), ("second", "embedding", 1, 0)], [3, 0]),
        # v0 lacks u0, and v1 reaches only the second unit of the embedding.
        (
            [
                ("first", "second", 1, 0),
                ("first", "second", 2, 1),
                ("second", "embedding", 1, 1),
            ],
            [0, 5],
        ),
    ],
)
def test_edges_are_cut_stage_by_stage(
    kept: list[tuple[str, str, int, int]], expected: list[float]
) -> None:
    masks = {
        pair: np.zeros(scores.shape, dtype=bool)
        for pair, scores in EVERY.scores.items()
    }
    for up, down, u, d in kept:
        masks[up, down][d, u] = True
    assert kept_embeddings(by_hand(), [circuit_by(masks), circuit_with(EVERY)])[
        :, 0
    ].tolist() == [expected, [14, 8]]


def brute_force(
    tower: nn.Module,
    images: Tensor,
    edges: dict[tuple[str, str], np.ndarray],
    ends: dict[str, Tensor],
) -> Tensor:
    """Whole runs of the tower with hooks on its modules, one downstream unit at a time, deepest pair last."""
    sites = [next(iter(edges))[0], *(down for _, down in edges)]
    values: dict[str, Tensor] = {}

    def run(writes: dict[str, Tensor], read: str | None) -> Tensor:
        handles, found = [], {}
        for site in {*writes, *([read] if read else [])}:

            def hook(
                module: nn.Module, inputs: object, output: Tensor, site: str = site
            ) -> Tensor:
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
def test_kept_edges_are_brute_force_by_hooks(resnet: nn.Module, mean: bool) -> None:
    tower = resnet.double()
    encoder, images = Encoder.from_tower(tower), torch.randn(2, 3, 64, 64).double()
    sites = ["layer2.0", "layer2.1", "layer3.0"]
    baseline = (
        mean_baseline(encoder, torch.randn(3, 3, 64, 64).double()) if mean else "zero"
    )
    none = torch.zeros(1, 1, 1, 1).double()
    ends = {
        site: none if isinstance(baseline, str) else baseline.values[site]
        for site in sites
    }
    rng, (_, cache) = np.random.default_rng(0), encoder.run_with_cache(images)
    masks = {
        (up, down): rng.random((cache[down].shape[1], cache[up].shape[1])) < 0.3
        for up, down in pairwise(sites)
    }
    task = Task(encoder, images, first, baseline=baseline, work=QUIET)
    found = kept_embeddings(task, [circuit_by(masks)])
    assert_same(found[0], brute_force(tower, images, masks, ends), 0.01, rtol=1e-9)


def post_norm_by_hand(
    tower: Any, images: Tensor, other: Tensor, edges: dict[tuple[str, str], np.ndarray]
) -> Tensor:
    """A timm ViT of two blocks of two heads of 8 with a norm behind attention and MLP, unit by unit.

    A unit reads what its own mixture of the units of every earlier site writes.
    """
    trunk = tower.trunk

    def heads(block: Any, x: Tensor) -> Any:
        q, k, v = block.attn.qkv(x).unflatten(-1, (3, 2, 8)).permute(2, 0, 3, 1, 4)
        return (
            (torch.softmax(q @ k.transpose(2, 3) * 8**-0.5, -1) @ v)
            .transpose(1, 2)
            .flatten(2)
        )

    def neurons(block: Any, x: Tensor) -> Any:
        return block.mlp.act(block.mlp.fc1(x))

    def attended(block: Any, z: Tensor) -> Any:
        return block.norm1(block.attn.proj(z))

    def made(block: Any, post: Tensor) -> Any:
        return block.norm2(block.mlp.fc2(post))

    one, two = trunk.blocks
    steps: list[
        Any
    ] = [  # what reads the stream at a site, what its units write, and the width of a unit
        (lambda x: x, lambda units: units, 1),
        (partial(heads, one), partial(attended, one), 8),
        (partial(neurons, one), partial(made, one), 1),
        (partial(heads, two), partial(attended, two), 8),
        (partial(neurons, two), partial(made, two), 1),
        (lambda x: tower.head(trunk.norm(x)[:, 0]), None, 1),
    ]
    units, ends = ([trunk._pos_embed(trunk.patch_embed(x))] for x in (images, other))
    sites = list(dict.fromkeys(site for pair in edges for site in pair))
    for down, (read, _, width) in list(zip(sites, steps, strict=True))[1:]:
        parts, before = [], list(zip(sites, steps, units, ends, strict=False))
        for d in range(len(edges[sites[0], down])):
            rows = {up: torch.from_numpy(edges[up, down][d]) for up, *_ in before}
            mixtures = [
                torch.where(rows[up].repeat_interleave(w), x, end)
                for up, (*_, w), x, end in before
            ]
            stream: Any = sum(
                step[1](x) for step, x in zip(steps, mixtures, strict=False)
            )
            parts.append(read(stream)[..., d * width : (d + 1) * width])
        of_end: Any = sum(step[1](end) for step, end in zip(steps, ends, strict=False))
        units, ends = [*units, torch.cat(parts, -1)], [*ends, read(of_end)]
    found: Tensor = units[-1]
    return found


def test_edges_of_heads_and_neurons_behind_which_a_norm_lies_are_a_tower_written_out_by_hand() -> (
    None
):
    torch.manual_seed(0)
    tower = timm_vit(block_fn=ResPostBlock).double()
    encoder = in_components(Encoder.from_tower(tower))
    images, rng = (
        torch.randn(4, 3, *encoder.image_size).double(),
        np.random.default_rng(0),
    )
    graph = attribute(encoder, images, first, 0.2, left_rule(1), progress=False)
    sizes = {site: graph.n_units(site) for site in graph.inner_sites}
    masks = {
        (up, down): rng.random((sizes[down], sizes[up])) < 0.5
        for up, down in combinations(sizes, 2)
    }
    whole = Edges.between(
        {site: np.arange(n) for site, n in sizes.items()}, combinations(sizes, 2)
    )
    task = Task(encoder, images[:2], first, baseline=images[2:], work=QUIET)
    found = kept_embeddings(
        task, [circuit_by(masks), circuit_with(whole), graph.circuit(3)]
    )
    with torch.no_grad():
        clean = encoder(images[:2])
        assert_same(
            found[0], post_norm_by_hand(tower, images[:2], images[2:], masks), 0.1
        )
    assert_same(found[1], clean, 0.1)
    assert not torch.allclose(found[2], clean)


def test_no_edges_leave_the_baseline_and_all_edges_the_model() -> None:
    sizes = {"first": 3, "second": 2, "embedding": 2}
    scores = {site: np.ones(n) for site, n in sizes.items()}
    kept = {site: np.arange(n) for site, n in sizes.items()}
    graph = AttributionGraph(
        tuple(sizes), scores, {}, 1, kept_units=kept, edge_scores=dict(EVERY.scores)
    )
    curve = measure_circuits(
        by_hand(), [graph.circuit(9, any_sign=True)], AblationSettings(random_draws=1)
    )
    assert (curve.full.tolist(), curve.empty.tolist(), curve.kept.tolist()) == (
        [[14]],
        [[0]],
        [[[14]]],
    )
    assert (curve.sizes, curve.complement.tolist(), curve.random.tolist()) == (
        (1.0,),
        [[[0]]],
        [[[[14]]]],
    )
