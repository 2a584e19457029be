"""Learned masks on units and edges: sizes, seeds, the loss, importance of gates, and planted circuits."""

from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from scipy import stats
from sklearn.metrics import roc_auc_score
from timm.models.vision_transformer import ResPostBlock
from torch import Tensor, nn

from circuitry import (
    Encoder,
    InputError,
    Task,
    attribute,
    class_logit,
    class_margin,
    in_feature_basis,
    left_rule,
)
from circuitry.bases import ResidualStream, in_components
from circuitry.circuits import (
    Circuit,
    LearnedMasks,
    MaskSettings,
    attribute_components,
    cut_effects,
    learn_masks,
    masks,
    score_units,
)
from circuitry.encoder import Stage
from circuitry.gates import Edges, EdgesUnderGates, Gated, UnitsUnderGates
from circuitry.gates.fisher import (
    default_answers,
    gate_importance,
    iterative_ranks,
    normal_ranks,
    set_importance,
)
from circuitry.interventions import circuit_of, kept_embeddings
from experiments.judging.planted import (
    PlantedCircuit,
    planted_attention,
    planted_convolution,
)
from tests.interventions.test_gated_units import check_gradient
from tests.support.assert_same import assert_same
from tests.support.circuits import circuit_with
from tests.support.feature_bases import make_sae
from tests.support.metrics import product as metric
from tests.support.towers import make_tower, timm_vit
from tests.support.work import AS_STUDIED, QUIET

PLANTED = planted_convolution()


def task_of(planted: PlantedCircuit = PLANTED, seed: int = 0, n_own: int = 8) -> Task:
    """Half of 16 images are of the class."""
    images, sites = planted.images(16, seed), tuple(planted.nodes)
    others = images[n_own:] if n_own < 16 else None
    return Task(
        planted.encoder,
        images[:n_own],
        planted.metric,
        others=others,
        sites=sites,
        work=QUIET,
    )


def learn(sizes: list[float], **settings: Any) -> LearnedMasks:
    return learn_masks(task_of(), sizes, MaskSettings(**settings))


@pytest.mark.parametrize(
    "planted",
    [planted_convolution(), planted_attention()],
    ids=["convolution", "attention"],
)
@pytest.mark.parametrize("seed", [0, 1, 2])
def test_masks_find_what_was_planted(planted: PlantedCircuit, seed: int) -> None:
    found = learn_masks(
        task_of(planted, seed), [0.2], MaskSettings(batch_size=16, seed=seed)
    )
    for site, units in planted.nodes.items():
        assert (
            roc_auc_score(
                np.isin(np.arange(len(found.scores[site])), units), found.scores[site]
            )
            > 0.95
        )


def test_sizes_are_exact_and_come_as_they_were_given() -> None:
    several = learn([0.1, 0.8, 0.5], steps=9)
    assert [one.count for one in several.circuits] == [2, 16, 10]
    assert several.circuits[0].made_with["steps"] == 9
    assert all(
        (several.scores[site][kept] >= 0).all()
        for site, kept in several.circuits[0].units.items()
    )
    one, same, other = (learn([0.4], steps=30, seed=seed) for seed in (0, 0, 1))
    assert all(
        np.array_equal(one.scores[site], same.scores[site]) for site in one.scores
    )
    assert any(
        not np.array_equal(one.scores[site], other.scores[site]) for site in one.scores
    )


def test_a_mask_ranks_by_its_gates_and_has_the_effects_of_the_class() -> None:
    found, task = learn([0.4], steps=9), task_of()
    own = Task(task.encoder, task.images, task.metric, sites=task.sites, work=QUIET)
    source = found.circuits[0].source
    assert source.importance is not None
    for site, effects in score_units(own, "conductance").items():
        assert np.array_equal(source.node_scores[site], effects)
        assert source.importance[site] == pytest.approx(
            1 / (1 + np.exp(-found.scores[site].astype(float)))
        )


def test_a_size_is_done_when_the_loss_no_longer_falls(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for name, value in {"PATIENCE": 5, "SHRINKING": 0.1}.items():
        monkeypatch.setattr(masks, name, value)
    assert learn([0.4], steps=100).circuits[0].made_with["steps"] < 100


@pytest.mark.parametrize(
    ("shrinking", "kept"),
    [(1.0, [19, 15, 12, 9, 7, 6, 4, 3, 3, 2]), (0.1, [19, *[2] * 9])],
)
def test_the_last_step_has_the_wanted_size(
    shrinking: float, kept: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    """20 units fall to 2 over 9 steps, by 10 ** (-1 / 9) each, or over one; of all units the last is half open."""
    sizes, run = list[int](), UnitsUnderGates.run

    def noting(
        self: UnitsUnderGates, gates: Tensor, chosen: Tensor | None = None
    ) -> Tensor:
        if chosen is not None and len(chosen) == 6:  # a step of training
            sizes.append(int((gates > 0.5).sum()))
        return run(self, gates, chosen)

    for name, value in {"SHRINKING": shrinking, "NOISE": 0.0}.items():
        monkeypatch.setattr(masks, name, value)
    monkeypatch.setattr(UnitsUnderGates, "run", noting)
    learn([0.1], steps=10, batch_size=6)
    assert sizes == kept


def test_a_step_has_images_of_both_sides() -> None:
    with pytest.raises(InputError, match=r"batch_size=1 .*at least 2"):
        learn([0.4], steps=2, batch_size=1)
    assert learn([0.4], steps=2, batch_size=2).circuits[0].count == 8
    alone = learn_masks(task_of(n_own=16), [0.4], MaskSettings(steps=2, batch_size=1))
    assert alone.circuits[0].count == 8


def test_the_loss_is_the_variance_of_the_answers_that_is_lost() -> None:
    found, task = learn([0.4], steps=10), task_of(n_own=16)
    gated, whole = kept_embeddings(task, [found.circuits[0], circuit_of(task, {})])[
        :, :, 0
    ]
    loses = found.circuits[0].made_with["lost"]
    assert_same(
        loses,
        (gated - whole).square().mean() / whole.var(unbiased=False),
        1e-3,
        rtol=1e-4,
    )


@pytest.mark.parametrize("keep_error", [False, True])
def test_error_units_have_no_gate(resnet: nn.Module, keep_error: bool) -> None:
    plain, images = (
        Encoder.from_tower(resnet.double()),
        torch.randn(3, 3, 64, 64).double(),
    )
    width = plain(images[:1], stop="layer3.0").shape[1]
    encoder = in_feature_basis(plain, {"layer3.0": make_sae(width)})
    errors = encoder.error_units["layer3.0"]
    task = Task(encoder, images, lambda e: e[:, 0], sites=["layer3.0"], work=QUIET)
    found = learn_masks(task, [0.5], MaskSettings(steps=2))
    assert np.isnan(found.scores["layer3.0"][errors.start :]).all()
    assert not np.isnan(found.scores["layer3.0"][: errors.start]).any()
    kept = np.isin(np.arange(errors.start), found.circuits[0].units["layer3.0"])
    assert kept.sum() == errors.start // 2
    with task.running(gradients=True), torch.no_grad():
        runs = UnitsUnderGates(task, keep_error=keep_error)
        gated = runs.run(torch.from_numpy(kept).double())
    assert_same(
        gated,
        kept_embeddings(task, [replace(found.circuits[0], keep_error=keep_error)])[0],
        0.1,
    )


def test_answers_of_a_class_are_its_lead_and_all_centred_logits() -> None:
    weights, embeddings = (
        nn.functional.normalize(torch.randn(5, 8), dim=-1),
        torch.randn(6, 8),
    )
    logits = nn.functional.normalize(embeddings, dim=-1) @ weights.T
    centred = logits - logits.mean(1, keepdim=True)
    logit, margin = (
        default_answers(make(weights, 2))(embeddings)
        for make in (class_logit, class_margin)
    )
    assert_same(logit, torch.cat([centred[:, 2:3], centred / 5**0.5], 1), 0.1)
    assert_same(
        margin, logit * 5 / 4, 0.1
    )  # so that the share of the variance that is lost is the same
    assert_same(default_answers(lambda e: e[:, 1])(embeddings), embeddings[:, 1:2], 0.1)


@Gated.register
class OnPaper(SimpleNamespace):
    """Runs whose embeddings are written down."""


def test_changes_are_the_mean_squares_of_the_derivatives() -> None:
    generator = torch.Generator().manual_seed(0)
    weights, images = (
        torch.randn(3, 4, generator=generator),
        torch.randn(2, 4, generator=generator),
    )
    derivatives = weights[None] * images[:, None]  # of image i: answers by gates
    expected = derivatives.square().sum(1).mean(0)
    runs: Any = OnPaper(
        n_gates=4,
        rows=1500,
        embeddings=images,
        run=lambda g, p: (g * images[p]) @ weights.T,
    )
    found = set_importance(runs, lambda x: x, [([0, 1] * 2000, [])])[0]
    assert found.numpy() == pytest.approx(expected.numpy(), rel=0.1)
    (one,) = set_importance(
        runs, lambda x: x[:, :1], [([1], [])], torch.full((1, 4), 0.3)
    )
    assert (
        one / derivatives[1, 0].square()
    ).std() < 1e-4  # of a single answer the direction is a factor
    (both,) = set_importance(
        runs, lambda x: x, [([0] * 2000, [1] * 400)]
    )  # the class and others count alike
    assert both.numpy() == pytest.approx(expected.numpy(), rel=0.1)


def test_ranks_become_normal_quantiles() -> None:
    values = torch.tensor([3.0, -1.0, 8.0, 3.0])
    expected = stats.norm.ppf((np.array([1, 0, 3, 2]) + 0.5) / 4)
    assert normal_ranks(values).numpy() == pytest.approx(expected, rel=1e-5)


def edges_of(kind: str) -> tuple[Encoder, Tensor, Edges]:
    torch.manual_seed(1)
    if kind == "chain":
        encoder = Encoder.from_tower(make_tower("resnet").double())
        images = torch.randn(2, 3, *encoder.image_size).double()
        sites = ["layer3.0", "layer4.0", "attnpool"]
        graph = attribute(
            encoder, images, metric, 0.1, left_rule(1), sites=sites, progress=False
        )
        return encoder, images, graph.edges
    if kind == "norms behind":
        encoder = in_components(
            Encoder.from_tower(timm_vit(block_fn=ResPostBlock).double())
        )
        images = torch.randn(2, 3, *encoder.image_size).double()
        graph = attribute(
            encoder, images, metric, 0.1, left_rule(1), progress=False, **AS_STUDIED
        )
        return encoder, images, graph.edges
    encoder = Encoder.from_tower(make_tower("vit").double())
    images = torch.randn(2, 3, *encoder.image_size).double()
    stream = ResidualStream.of(encoder)
    if kind == "neurons":
        graph = attribute(
            stream.components, images, metric, 0.05, left_rule(1), progress=False
        )
    else:
        graph = attribute_components(Task(encoder, images, metric))
    return stream.components, images, graph.edges


@pytest.mark.parametrize("kind", ["chain", "norms behind", "neurons", "MLPs"])
def test_gates_are_cuts_and_their_gradients_finite_differences(kind: str) -> None:
    encoder, images, edges = edges_of(kind)
    task = Task(encoder, images, metric, baseline=images.flip(0), work=QUIET)
    with task.running(gradients=True):
        runs = EdgesUnderGates(task, edges)
        n = runs.n_gates
        assert n == edges.count
        kept = np.random.default_rng(0).random(n) < 0.7
        found = runs.run(torch.from_numpy(kept).double())
        assert_same(
            found,
            kept_embeddings(task, [circuit_with(runs.chosen(kept, np.ones(n)))])[0],
            0.01,
        )
        assert (
            runs.run(torch.ones(n).double(), torch.tensor([1])).shape == found[1:].shape
        )
        soft = (0.3 + 0.6 * torch.rand(n)).double()
        soft[: n // 2] = 0.5  # rows of equal gates have gradients of their own
        check_gradient(runs, soft, torch.arange(n))
        hard = torch.from_numpy(kept).double()
        hard[: n // 2] = 0  # and so have those that are closed
        check_gradient(runs, hard, torch.arange(n // 2))


def test_without_interactions_masks_rank_edges_as_cutting_each_does() -> None:
    weights = torch.from_numpy(
        np.random.default_rng(0).permutation(np.geomspace(0.02, 4, 24)).reshape(4, 6)
    ).float()
    stages = (
        Stage("first", lambda x: x.flatten(1)[:, :6], 1),
        Stage("second", lambda u: u @ weights.T, 1),
        Stage("embedding", lambda v: v.sum(1, keepdim=True), 1),
    )
    images = 1 + 0.2 * torch.rand(
        16, 3, 2, 1, generator=torch.Generator().manual_seed(0)
    )
    task = Task(
        Encoder(nn.Linear(1, 1), stages, (2, 1)), images, lambda e: e[:, 0], work=QUIET
    )
    edges = Edges.between(
        {"first": np.arange(6), "second": np.arange(4)}, [("first", "second")]
    )
    exact = cut_effects(task, edges)
    found = learn_masks(
        task,
        [0.5, 0.25],
        MaskSettings(steps=200, batch_size=16),
        among=circuit_with(edges),
    )
    for kept, share in zip(
        (one.its_edges for one in found.circuits), (0.5, 0.25), strict=True
    ):
        strongest = exact.top(share).masks({"first": 6, "second": 4})["first", "second"]
        assert (
            kept.masks({"first": 6, "second": 4})["first", "second"] & strongest
        ).sum() >= 24 * share - 1
    scores = [one.scores["first", "second"].ravel() for one in (found.scores, exact)]
    assert stats.spearmanr(*scores).statistic > 0.8


def test_masks_on_edges_across_sites_lose_less_than_random_ones() -> None:
    encoder, images, edges = edges_of("MLPs")
    others, pairs = torch.randn_like(images), edges.scores.items()
    some = replace(
        edges,
        scores={
            pair: np.where(pair[0] == "blocks.0.mlp", np.nan, block)
            for pair, block in pairs
        },
    )
    task, sizes = Task(encoder, images, metric, others=others, work=QUIET), [0.2, 0.5]
    found = learn_masks(
        task, sizes, MaskSettings(steps=40, batch_size=4), among=circuit_with(some)
    )
    assert [one.count for one in found.circuits] == [
        round(size * some.count) for size in sizes
    ]
    for pair, scores in found.scores.scores.items():
        assert np.array_equal(np.isnan(scores), np.isnan(some.scores[pair]))
        assert np.array_equal(
            scores >= 0, ~np.isnan(found.circuits[0].its_edges.scores[pair])
        )
    everything = torch.cat([images, others])
    rng, task = np.random.default_rng(0), Task(encoder, everything, metric, work=QUIET)
    target = metric(kept_embeddings(task, [circuit_of(task, {})])[0])

    def lost(kept: Circuit) -> float:
        values = metric(kept_embeddings(task, [kept])[0])
        return float((values - target).square().mean() / target.var(unbiased=False))

    loses = found.circuits[0].made_with["lost"]
    assert loses == pytest.approx(lost(found.circuits[0]), rel=1e-4)
    assert loses < np.mean([lost(found.circuits[0].random(rng)) for _ in range(20)])


@Gated.register
class TwoForOne:
    """Runs in which each of the first two gates does the work of both; the others do a half and a tenth of it."""

    n_gates, n_own, rows, embeddings = 4, 1, 1, torch.zeros(1, 1)

    def __len__(self) -> int:
        return 1

    def run(self, gates: Tensor, places: Tensor) -> Tensor:
        return (
            (gates[:, 0] + gates[:, 1]).clamp(max=1.5)
            + gates[:, 2] / 2
            + gates[:, 3] / 10
        )[:, None]


def test_units_that_stand_in_for_each_other_are_found_when_one_of_them_is_closed() -> (
    None
):
    runs: Any = TwoForOne()
    assert gate_importance(runs, lambda x: x).tolist()[:2] == [0, 0]
    assert iterative_ranks(runs, lambda x: x, [([0], [])])[0].tolist() == [
        0.25,
        1.0,
        0.75,
        0.5,
    ]
