"""Conductance against paper and the metric's change, at every site, and in any cut of the images."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from circuitry import Encoder, Task, attribute, class_logit, in_components
from circuitry.circuits.conductance import conductance_effects
from circuitry.circuits.nodes import NodeEffects
from circuitry.encoder import Baseline, Stage
from tests.circuits.test_rules import cubing, image, total
from tests.support.assert_same import assert_same
from tests.support.oracles import setting
from tests.support.towers import make_tower
from tests.support.work import QUIET


def conductance(task: Task, intervals: int = 5) -> NodeEffects:
    with task.running(gradients=True):
        return conductance_effects(task, intervals=intervals)[0]


@pytest.mark.parametrize(("intervals", "share"), [(1, 3 / 2), (2, 9 / 8)])
def test_units_by_hand(intervals: int, share: float) -> None:
    # The slope of x^3 on the path is 3 (1 - t)^2 x^2: trapezoids over 1 and 2 intervals give 3/2 and 9/8 for 1.
    found = conductance(Task(cubing(), image(), total, work=QUIET), intervals)
    cubes = np.array([1.0, 8.0, 27.0])
    assert found.scores["cube"] == pytest.approx(cubes)
    assert found.scores["hidden"] == pytest.approx(share * cubes)
    assert found.scores["input"] == pytest.approx(share * cubes)
    assert found.completeness["cube"].metric_difference == pytest.approx(36)
    assert found.completeness["hidden"].gap == pytest.approx((share - 1) * 36)


def test_two_units_share_their_product_by_hand() -> None:
    mixed = torch.tensor([[1.0, 1.0, 0.0], [0.0, 0.0, 2.0], [0.0, 1.0, 0.0]])
    encoder = cubing()
    stages = (encoder.stages[0], Stage("sums", lambda x: x @ mixed.T, 1))
    task = Task(
        Encoder(nn.Linear(1, 1), stages, (1, 1)),
        image(),
        lambda e: e[:, 0] * e[:, 1],
        work=QUIET,
    )
    found = conductance(task, 1)
    # (x + y) * 2 z is 18: half by each sum, the third idle; of the first sum's 9 by x : y = 1 : 2.
    assert found.scores["sums"] == pytest.approx([9, 9, 0])
    assert found.scores["hidden"] == pytest.approx([3, 6, 9])


@pytest.mark.parametrize("kind", ["resnet", "vit"])
def test_every_site_adds_up_to_the_change_of_the_metric(kind: str) -> None:
    encoder, images, weights = setting(make_tower(kind).double())
    images, metric, others = (
        images.double(),
        class_logit(weights.double(), 1),
        torch.randn_like(images).double(),
    )
    task = Task(encoder, images, metric, baseline=others, work=QUIET)
    found, fine = conductance(task), conductance(task, 60)
    change = float((metric(encoder(images)) - metric(encoder(others))).mean())
    for site in encoder.sites[1:]:
        assert found.completeness[site].metric_difference == pytest.approx(
            change, abs=1e-9
        )
        assert found.completeness[site].effect_sum == pytest.approx(
            found.scores[site].sum(), abs=1e-12
        )
        assert abs(fine.completeness[site].gap) < min(
            2e-3, abs(found.completeness[site].gap) + 1e-6
        )


def test_any_cut_and_any_folds_give_the_same(resnet: nn.Module) -> None:
    encoder, images, weights = setting(resnet.double(), n=5)
    images, metric = images.double(), class_logit(weights.double(), 1)
    ends = Baseline("other", {"input": torch.randn_like(images)})
    cut = [images[:1], images[1:3], images[3:]]
    whole, in_batches = (
        conductance(Task(encoder, x, metric, baseline=ends, work=QUIET))
        for x in (images, cut)
    )
    numbers = np.array([2, 0, 2, 0, 0])
    task = Task(encoder, cut, metric, baseline=ends, work=QUIET)
    with task.running(gradients=True):
        merged, folds = conductance_effects(task, numbers)
    alone = conductance(
        Task(encoder, images, metric, baseline=ends, work=QUIET).of_some(
            images, torch.tensor([0, 2])
        )
    )
    for site in encoder.sites:
        for one in (in_batches, merged):
            assert_same(one.scores[site], whole.scores[site], 1e-12, rtol=1e-9)
            assert one.completeness[site] == pytest.approx(
                whole.completeness[site], abs=1e-9
            )
        assert_same(folds[2].scores[site], alone.scores[site], 1e-12, rtol=1e-9)


def test_what_is_carried_past_units_has_no_completeness() -> None:
    encoder = in_components(Encoder.from_tower(make_tower("vit")))
    images, metric = (
        torch.randn(2, 3, 32, 32),
        class_logit(F.normalize(torch.randn(4, 16), dim=-1), 1),
    )
    graph = attribute(
        encoder,
        images,
        metric,
        method="conductance",
        baseline=torch.randn(1, 3, 32, 32),
        progress=False,
    )
    assert set(graph.node_scores) == set(encoder.sites[1:])
    assert (
        set(graph.completeness)
        == set(encoder.sites[1:]) - set(encoder.carried)
        != set(encoder.sites[1:])
    )
