"""Edges of heads, neurons and whole MLPs as causes: against a tower written out by hand, and whatever takes them."""

from dataclasses import replace
from functools import cache
from itertools import combinations
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from circuitry import AttributionGraph, Encoder, Task, Work, attribute, left_rule
from circuitry.bases import ResidualStream, joined_sites
from circuitry.circuits import (
    Circuit,
    MaskSettings,
    attribute_components,
    cut_effects,
    learn_masks,
)
from circuitry.gates import Edges
from circuitry.gates.edge_gates import gated_chain
from circuitry.interventions import (
    AblationSettings,
    find_circuit,
    judge_circuit,
    judgement,
    kept_embeddings,
    measure_circuits,
)
from tests.support.assert_same import assert_same
from tests.support.circuits import circuit_by
from tests.support.metrics import product as metric
from tests.support.stream_scores import place_of, run_stream
from tests.support.towers import make_tower
from tests.support.work import QUIET

Masks = dict[tuple[str, str], np.ndarray]


@cache
def opened(name: str = "timm-vit") -> tuple[ResidualStream, Tensor]:
    encoder = Encoder.from_tower(make_tower(name).double())
    generator = torch.Generator().manual_seed(1)
    return ResidualStream.of(encoder), torch.randn(
        4, 3, *encoder.image_size, generator=generator
    ).double()


@cache
def graphs() -> dict[str, AttributionGraph]:
    stream, images = opened()
    task = Task(stream.components, images[:2], metric)
    fine = attribute(
        stream.components, images[:2], metric, 0.2, left_rule(1), progress=False
    )
    return {
        "neurons": fine,
        "MLPs": attribute_components(task),
        "ports": attribute_components(task, ports=True),
    }


def task_of(images: Tensor, **given: Any) -> Task:
    return Task(opened()[0].components, images, metric, **({"work": QUIET} | given))


def random_masks(pairs: Any) -> Masks:
    """Return masks of which two of five edges are true, between heads, neurons and dimensions."""
    stream, rng = opened()[0], np.random.default_rng(0)
    sizes = dict(zip((*stream.sites, "head"), (16, 2, 64, 2, 64, 16), strict=True))
    return {
        (up, down): rng.random((sizes[down], sizes[up])) < 0.4
        for up, down in pairs(sizes)
    }


def by_hand(tower: Any, images: Tensor, other: Tensor, edges: Masks) -> Tensor:
    """A timm ViT of two blocks of heads of 8, unit by unit, with plain loops over all earlier units.

    The values of units are [image, position, ...]; a unit reads the baseline's stream and what its kept edges change.
    """
    trunk, start = tower.trunk, "trunk.norm_pre"
    clean, base = (trunk._pos_embed(trunk.patch_embed(x)) for x in (images, other))

    def write(site: str, unit: int, value: Tensor) -> Tensor:
        if site == start:
            alone = torch.zeros_like(clean)
            alone[..., unit] = value
            return alone
        block = trunk.blocks[int(site.split(".")[2])]
        if site.endswith("attn"):
            out: Tensor = value @ block.attn.proj.weight[:, 8 * unit : 8 * unit + 8].T
        else:
            out = value[..., None] * block.mlp.fc2.weight[:, unit]
        return out

    values = {start: [clean[..., u] for u in range(16)]}
    ends = {start: [base[..., u] for u in range(16)]}
    below = base

    def stream(site: str, unit: int) -> Tensor:
        x: Tensor = below
        for up, units in values.items():
            for u, value in enumerate(units):
                if (up, site) not in edges or edges[up, site][unit, u]:
                    x = x + write(up, u, value - ends[up][u])
        return x

    for i, block in enumerate(trunk.blocks):
        site = f"trunk.blocks.{i}.attn"

        def heads(read: Any, block: Any = block) -> list[Tensor]:
            found = []
            for h in range(2):
                q, k, v = (
                    block.attn.qkv(block.norm1(read(h)))[..., 16 * p + 8 * h :][..., :8]
                    for p in range(3)
                )
                found.append(torch.softmax(q @ k.transpose(1, 2) * 8**-0.5, -1) @ v)
            return found

        z, z_base = heads(lambda h, s=site: stream(s, h)), heads(lambda h, x=below: x)
        below = below + block.attn.proj(torch.cat(z_base, -1))
        values[site], ends[site] = z, z_base
        site = f"trunk.blocks.{i}.mlp"
        post = [
            block.mlp.act(block.mlp.fc1(block.norm2(stream(site, n)))[..., n])
            for n in range(64)
        ]
        post_base = block.mlp.act(block.mlp.fc1(block.norm2(below)))
        below = below + block.mlp.fc2(post_base)
        values[site], ends[site] = post, list(post_base.unbind(-1))
    return torch.stack(
        [tower.head(trunk.norm(stream("head", d))[:, 0])[:, d] for d in range(16)], -1
    )


def test_cut_edges_of_neurons_are_a_tower_written_out_by_hand() -> None:
    stream, images = opened()
    other = images.flip(0)
    masks = random_masks(lambda sites: combinations(sites, 2))
    del masks[
        "trunk.norm_pre", "trunk.blocks.1.mlp"
    ]  # of a pair that is not there all are kept
    with torch.no_grad():
        expected = by_hand(stream.encoder.tower, images[:2], other[:2], masks)
    assert_same(
        kept_embeddings(task_of(images[:2], baseline=other[:2]), [circuit_by(masks)])[
            0
        ],
        expected,
        0.1,
    )
    small = task_of(images, baseline=other, work=Work(progress=False, memory_gib=1e-9))
    assert_same(kept_embeddings(small, [circuit_by(masks)])[0, :2], expected, 0.1)


def test_runs_of_a_chain_of_heads_and_neurons_are_those_of_their_sums() -> None:
    stream, images = opened()
    task, masks = (
        task_of(images, baseline=images.flip(0)),
        random_masks(lambda sites: combinations(sites, 2)),
    )
    sites = (*stream.sites, "head")
    with task.running():
        (batch,) = task.batches()
        clean = batch.clean(sites)
        gates = {pair: torch.from_numpy(mask) for pair, mask in masks.items()}
        found = gated_chain(stream.components, sites, 100).run(
            clean[sites[0]], batch.ends(clean), gates
        )
    assert_same(found, kept_embeddings(task, [circuit_by(masks)]), 0.1)


@pytest.mark.parametrize("kind", ["neurons", "MLPs"])
def test_all_edges_are_the_model_and_none_the_baseline(kind: str) -> None:
    stream, images = opened()
    graph, other = graphs()[kind], images.flip(0)
    circuits = [
        Circuit(graph, graph.edges.units, edges)
        for edges in (graph.edges.top(0.1), graph.edges)
    ]
    task = task_of(images[:2], baseline=other, others=images[2:])
    curve = measure_circuits(task, circuits, AblationSettings(random_draws=1))
    with torch.no_grad():
        assert_same(curve.full[0], metric(stream.encoder(images)), 0.1)
        assert_same(curve.empty[0], metric(stream.encoder(other)), 0.1)
    assert curve.n_units == tuple(circuit.count for circuit in circuits)
    if kind == "MLPs":  # all units are in the graph
        assert curve.faithfulness[-1] == pytest.approx(1)
        assert curve.completeness[-1] == pytest.approx(0)


def test_edges_of_a_stream_graph_are_those_of_its_readers_and_writers() -> None:
    stream, images = opened()
    circuit = graphs()["MLPs"].circuit(2)
    keep = torch.zeros_like(stream.edges)
    for tail, node in circuit.graph.edges:
        (up, u), (down, d) = (name.split("/") for name in (tail, node))
        readers = (
            [f"{down}.{d}.{port}" for port in "qkv"]
            if down.endswith("attn")
            else [down]
        )
        for reader in readers:
            keep[
                place_of(stream, f"{up}.{u}" if up.endswith("attn") else up, reader)
            ] = True
    with torch.no_grad():
        expected = run_stream(stream, images, keep)
    assert_same(kept_embeddings(task_of(images), [circuit])[0], expected, 0.1)
    assert 0 < keep.sum() < stream.edges.sum()


def test_the_edges_of_a_circuit_that_was_searched_run_between_any_two_of_its_sites() -> (
    None
):
    _, images = opened()
    found = find_circuit(task_of(images), method="gradient", size=0.1)
    edges = Edges.between(
        found.units, joined_sites(opened()[0].components, list(found.units))
    )
    assert set(edges.scores) == set(combinations(found.units, 2))
    learned = learn_masks(
        task_of(images), [0.5], MaskSettings(steps=2), among=replace(found, edges=edges)
    )
    assert learned.circuits[0].count == round(0.5 * edges.count)


def test_circuits_across_sites_are_judged_by_units_and_by_edges(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    stream, images = opened()
    graph = attribute(
        stream.components,
        images[:2],
        metric,
        0.05,
        left_rule(1),
        images[2:],
        progress=False,
    )
    monkeypatch.setattr(judgement, "DRAWS", 5)
    task, circuit = task_of(images[:2], baseline=images[2:]), graph.circuit(1)
    table = judge_circuit(task, circuit).set_index("test")
    assert list(table.index) == [
        *("circuit", "complement", "sufficiency", "necessity", "minimality (units)"),
        *(
            "circuit (edges)",
            "complement (edges)",
            "sufficiency (edges)",
            "necessity (edges)",
            "minimality (edges)",
        ),
    ]
    assert table.loc["minimality (edges)", "n"] == circuit.count
    kept, empty = (
        float(metric(e).mean())
        for e in kept_embeddings(task, [circuit, circuit.nothing()])
    )
    with torch.no_grad():
        full = float(metric(stream.encoder(images[:2])).mean())
    assert table.loc["circuit (edges)", "value"] == pytest.approx(
        (kept - empty) / (full - empty)
    )


def test_cutting_each_edge_is_a_run_without_it() -> None:
    stream, images = opened()
    _, heads, mlp, *_ = stream.sites
    sizes = {
        site: 16 if site == stream.sites[0] else 2 if site.endswith("attn") else 64
        for site in stream.sites
    }
    units = {site: np.arange(size) for site, size in (sizes | {"head": 16}).items()}
    scores = {
        pair: np.full((len(units[pair[1]]), len(units[pair[0]])), np.nan)
        for pair in combinations(units, 2)
    }
    scores[heads, mlp][[5, 9]] = 0
    task = task_of(images, baseline=images.flip(0))
    exact = cut_effects(task, Edges(units, scores)).scores
    expected, clean = np.full((64, 2), np.nan), metric(stream.encoder(images)).mean()
    for row, head in ((5, 0), (5, 1), (9, 0), (9, 1)):
        masks = {
            pair: np.ones(block.shape, dtype=bool) for pair, block in scores.items()
        }
        masks[heads, mlp][row, head] = False
        with torch.no_grad():
            expected[row, head] = (
                clean
                - metric(
                    by_hand(stream.encoder.tower, images, images.flip(0), masks)
                ).mean()
            )
    assert_same(exact[heads, mlp], expected, 1e-5)
    assert sum(int((~np.isnan(block)).sum()) for block in exact.values()) == 4
