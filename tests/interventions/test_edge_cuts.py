"""Cut edges against brute force by hand-written hooks on a tower, a network worked out on paper, and planted edges."""

from itertools import pairwise

import numpy as np
import pytest
import torch
from sklearn.metrics import roc_auc_score
from torch import Tensor, nn

from circuitry import AttributionGraph, Encoder, InputError, attribute, class_logit, mean_baseline
from circuitry.interventions.edge_cuts import cut_each, cut_effects, measure_edges
from circuitry.interventions.edge_runs import cut_embeddings
from circuitry.interventions.edge_sets import no_edges, take_edges
from circuitry.interventions.faithfulness import AblationSettings
from circuitry.interventions.planted import planted_attention, planted_convolution
from circuitry.models.stages import Stage
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
    assert effects["first", "second"].tolist() == [[-6, -6, 0], [0, -3, -5]]
    assert effects["second", "embedding"].tolist() == [[-6, -8], [0, 0]]
    some = cut_effects(hand_worked(), IMAGE, first, {"first": [2, 1], "second": [True, False]}, work=QUIET)
    assert some["first", "second"].tolist() == [[0, -6]]
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
