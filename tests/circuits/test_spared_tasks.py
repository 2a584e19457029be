"""The part of a style: what the model needs to name the style, and not to name the classes."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from circuitry import InputError, Task, class_logit, own_part
from circuitry.encoder import Encoder, Stage
from tests.support.work import QUIET

STYLE, SHARED, CLASS, REST = 0, 1, 2, range(3, 10)
"""Units: of the style alone, of style and class, of the class alone, and units without effect."""


def code(units: Tensor) -> Tensor:
    """Return an embedding: drawing, photograph, dog, cat, and a constant that keeps its length about the same."""
    style = units[:, STYLE] + 2 * units[:, SHARED]
    of_class = 2 * units[:, SHARED] + units[:, CLASS]
    one = torch.ones_like(style)
    return torch.stack([style, one, of_class, one, 50 * one], dim=1)


def encoder() -> Encoder:
    stages = (
        Stage("units", lambda x: x.flatten(1)[:, :10], 1),
        Stage("code", code, 1),
    )
    # The linear layer is unused: an encoder needs a module.
    return Encoder(nn.Linear(1, 1), stages, (4, 4))


ENCODER = encoder()
STYLES, CLASSES = torch.eye(5)[:2], torch.eye(5)[2:4]


def drawings_of_dogs(n: int = 3) -> Tensor:
    return torch.rand(n, 3, 4, 4, generator=torch.Generator().manual_seed(0)) + 1


def task(weights: Tensor, **given: object) -> Task:
    """Return the task of naming drawings, or of naming dogs."""
    metric = class_logit(weights, 0, 5.0)
    made = Task(ENCODER, drawings_of_dogs(), metric, sites=["units"], work=QUIET)
    return replace(made, **given)  # type: ignore[arg-type]


def test_units_that_classes_need_are_spared() -> None:
    part = own_part(task(STYLES), spare=[task(CLASSES)], share=0.1)
    # The class needs the unit with the largest effect on the style, too.
    assert part.source.node_scores["units"].argmax() == SHARED
    assert part.units["units"].tolist() == [STYLE]
    ranks = part.source.ranked_by["units"]
    assert ranks.argsort()[::-1][:2].tolist() == [STYLE, SHARED]


def test_the_damage_is_the_mean_of_the_tasks_by_plain_gradients() -> None:
    spared = [task(CLASSES), task(CLASSES, images=2 * drawings_of_dogs(5))]
    costs, damages = slopes(STYLES, drawings_of_dogs()).mean(0), list[Tensor]()
    for each in spared:
        assert isinstance(each.images, Tensor)
        damages.append(slopes(CLASSES, each.images).abs().mean(0))
    damage = torch.stack(damages).mean(0)
    ratio = costs / (damage + 0.3 * damage.mean())
    part = own_part(task(STYLES), spare=spared, share=0.1)
    np.testing.assert_allclose(
        part.source.node_scores["units"], costs.numpy(), rtol=1e-5, atol=1e-7
    )
    assert part.units["units"].tolist() == [int(ratio.argmax())]


def slopes(weights: Tensor, images: Tensor) -> Tensor:
    """Return d log-odds / d gate for each image and unit, ablated to zero."""
    units = images.flatten(1)[:, :10]
    gates = torch.ones_like(units, requires_grad=True)
    embedding = nn.functional.normalize(code(gates * units), dim=-1)
    first, second = (5 * embedding @ weights.T).unbind(1)
    (found,) = torch.autograd.grad((first - second).sum(), gates)
    return found


def test_others_are_not_needed_and_change_nothing_beside_spared_tasks() -> None:
    alone = own_part(task(STYLES), spare=[task(CLASSES)], share=0.2)
    beside = own_part(
        task(STYLES, others=torch.zeros(2, 3, 4, 4)), spare=[task(CLASSES)], share=0.2
    )
    assert alone.units["units"].tolist() == beside.units["units"].tolist()
    np.testing.assert_array_equal(
        alone.source.ranked_by["units"], beside.source.ranked_by["units"]
    )


@pytest.mark.parametrize(
    ("spared", "words"),
    [
        (task(CLASSES, encoder=encoder()), "another encoder"),
        (task(CLASSES, baseline=torch.rand(1, 3, 4, 4)), "one kind of baseline"),
        (task(CLASSES, images=torch.zeros(2, 3, 4, 4)), "none of the 2 images"),
    ],
)
def test_what_cannot_be_spared_is_refused(spared: Task, words: str) -> None:
    with pytest.raises(InputError, match=words):
        own_part(task(STYLES), spare=[spared], share=0.1)
