"""Masks on edges: gradients of the gates, planted edges, a network without interactions, and edges across sites."""

from functools import partial
from itertools import pairwise

import numpy as np
import pytest
import torch
from circuitry.interventions.edge_runs import EDGES
from circuitry.interventions.edge_sets import EdgeSet, count_edges
from scipy import stats
from sklearn.metrics import roc_auc_score
from timm.models.vision_transformer import ResPostBlock
from torch import Tensor, nn

from circuitry.circuits import attribute, left_rule, score_edges, stream_graph
from circuitry.interventions import EdgeRuns, MaskSettings, cut_effects, cut_embeddings, edges_among, learn_edges
from circuitry.models import Encoder, ResidualStream, Stage, in_components
from circuitry.runs import InputError
from circuitry.study import PlantedCircuit, planted_attention, planted_convolution
from tests.support.towers import make_tower, timm_vit
from tests.support.work import QUIET


def metric(embedding: Tensor) -> Tensor:
    return embedding[:, 0] * embedding[:, 1] + embedding[:, 2]


def edges_of(kind: str) -> tuple[Encoder, Tensor, EdgeSet]:
    """An encoder, images, and the edges between some units: of a chain, of neurons, of MLPs, of ports."""
    torch.manual_seed(1)
    if kind == "chain":
        encoder = Encoder.from_tower(make_tower("resnet").double())
        images = torch.randn(2, 3, *encoder.image_size).double()
        sites = ["layer3.0", "layer4.0", "attnpool"]
        graph = attribute(encoder, images, metric, 0.1, left_rule(1), sites=sites, progress=False)
        return encoder, images, edges_among(graph)
    if kind == "norms behind":
        encoder = in_components(Encoder.from_tower(timm_vit(block_fn=ResPostBlock).double()))
        images = torch.randn(2, 3, *encoder.image_size).double()
        return encoder, images, edges_among(attribute(encoder, images, metric, 0.1, left_rule(1), progress=False))
    encoder = Encoder.from_tower(make_tower("vit").double())
    images = torch.randn(2, 3, *encoder.image_size).double()
    stream = ResidualStream.of(encoder)
    if kind == "neurons":
        graph = attribute(stream.components, images, metric, 0.05, left_rule(1), progress=False)
    else:
        graph = stream_graph(score_edges(stream, images, metric), ports=kind == "ports")
    return stream.components, images, edges_among(graph)


@pytest.mark.parametrize("kind", ["chain", "norms behind", "neurons", "MLPs", "ports"])
def test_gates_are_cuts_and_their_gradients_finite_differences(kind: str) -> None:
    encoder, images, edges = edges_of(kind)
    with encoder.frozen():
        runs = EdgeRuns(encoder, images, edges, images.flip(0))
        n = runs.n_units[EDGES]
        kept = np.random.default_rng(0).random(n) < 0.7
        found = runs.run({EDGES: torch.from_numpy(kept).double()})
        cut = cut_embeddings(encoder, images, [runs.by_pair(kept)], baseline=images.flip(0), work=QUIET)[0]
        torch.testing.assert_close(found, cut)
        torch.testing.assert_close(runs.run({EDGES: torch.ones(n).double()}, torch.tensor([1])).shape, found[1:].shape)
        assert np.array_equal(runs.flat(runs.by_pair(kept)), kept)
        weights = torch.randn_like(found)
        soft = (0.3 + 0.6 * torch.rand(n)).double()
        soft[: n // 2] = 0.5  # rows of equal gates have gradients of their own
        check_gradient(runs, soft, weights, torch.randperm(n)[:6])
        hard = torch.from_numpy(kept).double()
        hard[: n // 2] = 0  # and so have those that are closed
        check_gradient(runs, hard, weights, torch.randperm(n // 2)[:6])


def check_gradient(runs: EdgeRuns, at: Tensor, weights: Tensor, places: Tensor) -> None:
    """Compare gradients of the embeddings times weights at some gates with finite differences."""

    def value(gates: Tensor) -> Tensor:
        return (runs.run({EDGES: gates}) * weights).sum()

    gates = at.clone().requires_grad_()
    (gradient,) = torch.autograd.grad(value(gates), [gates])
    step = 1e-5
    for i in places.tolist():
        moved = partial(torch.index_add, at, 0, torch.tensor([i]))
        up, down = (value(moved(torch.tensor([sign * step]).double())) for sign in (1.0, -1.0))
        assert float(gradient[i]) == pytest.approx(float(up - down) / (2 * step), rel=1e-4, abs=1e-6)


@pytest.mark.parametrize("planted", [planted_convolution(), planted_attention()], ids=["convolution", "attention"])
def test_masks_find_the_planted_edges_those_into_attention_too(planted: PlantedCircuit) -> None:
    images = planted.images(16, 1)
    sizes = {site: 4 if site == "head" else 8 for site in planted.nodes}
    edges = {(up, down): np.ones((sizes[down], sizes[up]), dtype=bool) for up, down in pairwise(sizes)}
    settings = MaskSettings(steps=150 if planted.name == "attention" else 75, batch_size=16)
    found = learn_edges(planted.encoder, images, planted.metric, edges, [0.1], settings, work=QUIET)
    for pair, places in planted.edges.items():
        truth = np.zeros(edges[pair].shape, dtype=bool)
        truth[tuple(np.transpose(places))] = True
        assert roc_auc_score(truth.ravel(), found.scores[pair].ravel()) > 0.95


def test_without_interactions_masks_rank_edges_as_cutting_each_does() -> None:
    """Every edge adds its own share to the metric, whatever the others do."""
    weights = torch.from_numpy(np.random.default_rng(0).permutation(np.geomspace(0.02, 4, 24)).reshape(4, 6)).float()
    stages = (
        Stage("first", lambda x: x.flatten(1)[:, :6], 1),
        Stage("second", lambda u: u @ weights.T, 1),
        Stage("embedding", lambda v: v.sum(1, keepdim=True), 1),
    )
    encoder = Encoder(nn.Linear(1, 1), stages, (2, 1))
    images = 1 + 0.2 * torch.rand(16, 3, 2, 1, generator=torch.Generator().manual_seed(0))
    units = {"first": [*range(6)], "second": [*range(4)]}
    exact = cut_effects(encoder, images, lambda e: e[:, 0], units, work=QUIET)["first", "second"]
    edges = {("first", "second"): np.ones((4, 6), dtype=bool)}
    settings = MaskSettings(steps=200, batch_size=16)
    found = learn_edges(encoder, images, lambda e: e[:, 0], edges, [0.5, 0.25], settings, work=QUIET)
    for kept, n in zip(found.sets, (12, 6), strict=True):
        strongest = exact >= np.sort(exact.ravel())[-n]
        assert (kept["first", "second"] & strongest).sum() >= n - 1
    assert stats.spearmanr(found.scores["first", "second"].ravel(), exact.ravel()).statistic > 0.8


def test_masks_on_edges_across_sites_lose_less_than_random_ones() -> None:
    encoder, images, edges = edges_of("MLPs")
    others = torch.randn_like(images)
    some = {pair: mask & (pair[0] != "blocks.0.mlp") for pair, mask in edges.items()}
    sizes = [0.2, 0.5]
    settings = MaskSettings(steps=40, batch_size=4)
    found = learn_edges(encoder, images, metric, some, sizes, settings, others=others, work=QUIET)
    assert [count_edges(kept) for kept in found.sets] == [round(size * count_edges(some)) for size in sizes]
    assert not any(found.sets[1]["blocks.0.mlp", down].any() for up, down in edges if up == "blocks.0.mlp")
    for pair, mask in found.sets[0].items():
        assert np.array_equal(found.scores[pair] >= 0, mask)
        assert np.array_equal(np.isnan(found.scores[pair]), ~some[pair])
    everything = torch.cat([images, others])
    with encoder.frozen():
        runs = EdgeRuns(encoder, everything, some)
        target = metric(runs.embeddings)

        def lost(kept: np.ndarray) -> float:
            with torch.no_grad():
                values = metric(runs.run({EDGES: torch.from_numpy(kept).double()}))
            return float((values - target).square().mean() / target.var(unbiased=False))

        kept, rng = runs.flat(found.sets[0]), np.random.default_rng(0)
        assert found.lost == pytest.approx(lost(kept), rel=1e-4)
        assert found.lost < np.mean([lost(rng.permutation(kept)) for _ in range(20)])
    with pytest.raises(InputError, match="Gated runs need at least one image"):
        EdgeRuns(encoder, images[:0], edges)
    none = {pair: np.zeros_like(mask) for pair, mask in edges.items()}
    with pytest.raises(
        InputError, match="Masks choose from at least one edge, but none was given: take those of edges_"
    ):
        learn_edges(encoder, images, metric, none, sizes, work=QUIET)
