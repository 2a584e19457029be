"""Masks on edges: gradients of the gates, planted edges, a network without interactions, and edges across sites."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy import stats
from sklearn.metrics import roc_auc_score
from timm.models.vision_transformer import ResPostBlock
from torch import Tensor, nn

from circuitry import Encoder, Task, attribute, left_rule
from circuitry.bases import ResidualStream, in_components
from circuitry.circuits import Circuit, Edges, attribute_components, cut_effects
from circuitry.encoder import Stage
from circuitry.interventions import Gated, MaskSettings, circuit_of, kept_embeddings, learn_masks
from circuitry.judging import PlantedCircuit, planted_attention, planted_convolution
from tests.interventions.test_gated_units import check_gradient
from tests.support.assert_same import assert_same
from tests.support.circuits import circuit_with
from tests.support.metrics import product as metric
from tests.support.towers import make_tower, timm_vit
from tests.support.work import QUIET


def edges_of(kind: str) -> tuple[Encoder, Tensor, Edges]:
    """An encoder, images, and the edges between some units: of a chain, of neurons, of MLPs."""
    torch.manual_seed(1)
    if kind == "chain":
        encoder = Encoder.from_tower(make_tower("resnet").double())
        images = torch.randn(2, 3, *encoder.image_size).double()
        sites = ["layer3.0", "layer4.0", "attnpool"]
        graph = attribute(encoder, images, metric, 0.1, left_rule(1), sites=sites, progress=False)
        return encoder, images, graph.edges
    if kind == "norms behind":
        encoder = in_components(Encoder.from_tower(timm_vit(block_fn=ResPostBlock).double()))
        images = torch.randn(2, 3, *encoder.image_size).double()
        return encoder, images, attribute(encoder, images, metric, 0.1, left_rule(1), progress=False).edges
    encoder = Encoder.from_tower(make_tower("vit").double())
    images = torch.randn(2, 3, *encoder.image_size).double()
    stream = ResidualStream.of(encoder)
    if kind == "neurons":
        graph = attribute(stream.components, images, metric, 0.05, left_rule(1), progress=False)
    else:
        graph = attribute_components(Task(encoder, images, metric))
    return stream.components, images, graph.edges


@pytest.mark.parametrize("kind", ["chain", "norms behind", "neurons", "MLPs"])
def test_gates_are_cuts_and_their_gradients_finite_differences(kind: str) -> None:
    encoder, images, edges = edges_of(kind)
    task = Task(encoder, images, metric, baseline=images.flip(0), work=QUIET)
    with task.running(gradients=True):
        runs = Gated(task, edges)
        n = runs.n_gates
        assert n == edges.count
        kept = np.random.default_rng(0).random(n) < 0.7
        found = runs.run(torch.from_numpy(kept).double())
        assert_same(found, kept_embeddings(task, [circuit_with(runs.chosen(kept, np.ones(n)))])[0], 0.01)
        assert runs.run(torch.ones(n).double(), torch.tensor([1])).shape == found[1:].shape
        soft = (0.3 + 0.6 * torch.rand(n)).double()
        soft[: n // 2] = 0.5  # rows of equal gates have gradients of their own
        check_gradient(runs, soft, torch.arange(n))
        hard = torch.from_numpy(kept).double()
        hard[: n // 2] = 0  # and so have those that are closed
        check_gradient(runs, hard, torch.arange(n // 2))


@pytest.mark.parametrize("planted", [planted_convolution(), planted_attention()], ids=["convolution", "attention"])
def test_masks_find_the_planted_edges_those_into_attention_too(planted: PlantedCircuit) -> None:
    units = {site: np.arange(4 if site == "head" else 8) for site in planted.nodes}
    settings = MaskSettings(steps=150 if planted.name == "attention" else 75, batch_size=16)
    task = Task(planted.encoder, planted.images(16, 1), planted.metric, work=QUIET)
    found = learn_masks(task, [0.1], settings, among=circuit_with(Edges.between(units, "chain"))).scores.scores
    for pair, places in planted.edges.items():
        truth = np.zeros(found[pair].shape, dtype=bool)
        truth[tuple(np.transpose(places))] = True
        assert roc_auc_score(truth.ravel(), found[pair].ravel()) > 0.95


def test_without_interactions_masks_rank_edges_as_cutting_each_does() -> None:
    """Every edge adds its own share to the metric, whatever the others do."""
    weights = torch.from_numpy(np.random.default_rng(0).permutation(np.geomspace(0.02, 4, 24)).reshape(4, 6)).float()
    stages = (
        Stage("first", lambda x: x.flatten(1)[:, :6], 1),
        Stage("second", lambda u: u @ weights.T, 1),
        Stage("embedding", lambda v: v.sum(1, keepdim=True), 1),
    )
    images = 1 + 0.2 * torch.rand(16, 3, 2, 1, generator=torch.Generator().manual_seed(0))
    task = Task(Encoder(nn.Linear(1, 1), stages, (2, 1)), images, lambda e: e[:, 0], work=QUIET)
    edges = Edges.between({"first": np.arange(6), "second": np.arange(4)}, "chain")
    exact = cut_effects(task, edges)
    found = learn_masks(task, [0.5, 0.25], MaskSettings(steps=200, batch_size=16), among=circuit_with(edges))
    for kept, share in zip((one.its_edges for one in found.circuits), (0.5, 0.25), strict=True):
        strongest = exact.top(share).masks({"first": 6, "second": 4})["first", "second"]
        assert (kept.masks({"first": 6, "second": 4})["first", "second"] & strongest).sum() >= 24 * share - 1
    scores = [one.scores["first", "second"].ravel() for one in (found.scores, exact)]
    assert stats.spearmanr(*scores).statistic > 0.8


def test_masks_on_edges_across_sites_lose_less_than_random_ones() -> None:
    encoder, images, edges = edges_of("MLPs")
    others, pairs = torch.randn_like(images), edges.scores.items()
    some = replace(edges, scores={pair: np.where(pair[0] == "blocks.0.mlp", np.nan, block) for pair, block in pairs})
    task, sizes = Task(encoder, images, metric, others=others, work=QUIET), [0.2, 0.5]
    found = learn_masks(task, sizes, MaskSettings(steps=40, batch_size=4), among=circuit_with(some))
    assert [one.count for one in found.circuits] == [round(size * some.count) for size in sizes]
    for pair, scores in found.scores.scores.items():
        assert np.array_equal(np.isnan(scores), np.isnan(some.scores[pair]))
        assert np.array_equal(scores >= 0, ~np.isnan(found.circuits[0].its_edges.scores[pair]))
    everything = torch.cat([images, others])
    rng, task = np.random.default_rng(0), Task(encoder, everything, metric, work=QUIET)
    target = metric(kept_embeddings(task, [circuit_of(task, {})])[0])

    def lost(kept: Circuit) -> float:
        values = metric(kept_embeddings(task, [kept])[0])
        return float((values - target).square().mean() / target.var(unbiased=False))

    assert found.lost == pytest.approx(lost(found.circuits[0]), rel=1e-4)
    assert found.lost < np.mean([lost(found.circuits[0].random(rng)) for _ in range(20)])
