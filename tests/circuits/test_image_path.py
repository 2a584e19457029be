"""Scores along a path of the image, against full runs by hand and integrated gradients."""

import pytest
import torch
from torch import nn

from circuitry import Encoder, Task, attribute, class_logit, left_rule
from circuitry.circuits import image_path_effects, midpoint_rule
from tests.support.assert_same import assert_same
from tests.support.work import QUIET


def test_scores_along_the_image_are_those_of_full_runs_by_hand(resnet: nn.Module) -> None:
    encoder, images = Encoder.from_tower(resnet.double()), torch.randn(2, 3, 64, 64).double()
    metric = class_logit(nn.functional.normalize(torch.randn(4, 16), dim=-1).double(), 1)
    site, rule = "layer2.0", midpoint_rule(2)
    task = Task(encoder, [images[:1], images[1:]], metric, sites=("input", site), work=QUIET)
    with task.running(gradients=True):
        found = image_path_effects(task, rule)
        fine = image_path_effects(task, midpoint_rule(200))
        one = image_path_effects(task, left_rule(1))
    total = torch.zeros(())
    with encoder.running(gradients=True):
        clean = encoder(images, stop=site)
        for t, w in zip(rule.points, rule.weights, strict=True):
            x = encoder((1 - t) * images, stop=site).requires_grad_()
            total = total + w * torch.autograd.grad(metric(encoder(x, start=site)).sum(), x)[0]
    assert_same(found.scores[site], (clean * total).sum((2, 3)).mean(0), 1e-7, rtol=1e-9)
    largest = abs(found.completeness["input"].metric_difference)
    assert fine.completeness["input"].gap == pytest.approx(0, abs=0.02 * largest + 1e-3)
    graph = attribute(encoder, images, metric, rule=left_rule(1), sites=["input", site], progress=False)
    assert_same(one.scores[site], graph.node_scores[site], 1e-7, rtol=1e-9)
