"""Edits that make a model forget a class, on cases with known answers."""

import numpy as np
import pytest
import torch
from torch import nn

from circuitry import Task
from circuitry.encoder import Encoder, Stage, class_logit
from experiments.edits_that_forget import (
    Answering,
    attenuated_embeddings,
    dampened,
    fit_leace,
    importances,
    lowered_bias,
    without_direction,
)
from tests.support.work import QUIET

EYE = torch.eye(3)
METRIC = class_logit(EYE, 1, 10.0)


def test_a_lowered_bias_takes_all_answers_of_some_images_and_no_order() -> None:
    own = torch.tensor([[0.0, 1.0, 0.0], [0.6, 0.8, 0.0]]).double()
    lowered = lowered_bias(METRIC, own)
    assert lowered.by == pytest.approx(2 * 10)  # the first image has the largest lead
    assert lowered.is_given(lowered.log_answers(own)).tolist() == [False, False]
    logits = 10 * own - torch.tensor([0.0, lowered.by, 0.0], dtype=own.dtype)
    expected = logits.log_softmax(-1)
    torch.testing.assert_close(lowered.log_answers(own), expected)


def test_a_projection_leaves_nothing_along_the_direction_and_all_across_it() -> None:
    embeddings = torch.tensor([[1.0, 2.0, 3.0]])
    direction = torch.tensor([0.0, 5.0, 0.0])
    assert without_direction(embeddings, direction).tolist() == [[1, 0, 3]]


def leace_world() -> tuple[torch.Tensor, np.ndarray]:
    generator = torch.Generator().manual_seed(0)
    mixed = torch.randn(60, 4, generator=generator) @ torch.randn(
        4, 4, generator=generator
    )
    is_own = mixed[:, 0].numpy() > 0
    return mixed.double(), is_own


def test_leace_leaves_no_covariance_with_the_class_at_the_least_change() -> None:
    x, is_own = leace_world()
    erased = fit_leace(x, is_own)(x)
    z = torch.from_numpy(is_own).double()
    centred = z - z.mean()
    torch.testing.assert_close(
        erased.T @ centred, torch.zeros(4).double(), atol=1e-10, rtol=0
    )
    # By brute force: no linear map without that covariance changes the embeddings less. Such a map is I - N with
    # N c = c, where c is the covariance with the class: N = c w' + R with w' c = 1 and R c = 0.
    mean = x.mean(0)
    c = (x - mean).T @ centred / len(x)
    change = (erased - x).square().sum(1).mean()
    generator = torch.Generator().manual_seed(1)
    for number in range(200):
        w, *rows = torch.randn(5, 4, generator=generator).double()
        of_c = torch.outer(c, w) / (w @ c)
        rest = torch.stack(rows) @ (torch.eye(4) - torch.outer(c, c) / (c @ c))
        other = of_c + (number % 2) * rest
        assert change <= ((x - mean) @ other.T).square().sum(1).mean() + 1e-12


def test_leace_needs_no_more_images_than_dimensions() -> None:
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(8, 30, generator=generator).double()
    is_own = np.arange(8) < 3
    erased = fit_leace(x, is_own)(x)
    means = erased[:3].mean(0), erased[3:].mean(0)
    torch.testing.assert_close(*means, atol=1e-9, rtol=0)


def linear_model() -> Answering:
    tower = nn.Linear(2, 2, bias=False)
    tower.weight.data = torch.tensor([[1.0, 0.5], [0.3, 1.0]])
    return Answering(tower, class_logit(torch.eye(2), 0, 3.0))


def tower_weight(model: Answering) -> torch.Tensor:
    (weight,) = model.tower.parameters()
    return weight.data


def test_importances_are_mean_squared_slopes_image_by_image() -> None:
    model = linear_model()
    images = torch.tensor([[1.0, 0.0], [0.5, 2.0]])
    labels = torch.tensor([0, 1])
    measured = importances(model, images, labels)
    step = 1e-3
    squares = 0.0
    for image, label in zip(images, labels, strict=True):
        losses = []
        for sign in (1, -1):
            moved = linear_model()
            tower_weight(moved)[0, 1] += sign * step
            losses.append(
                nn.functional.cross_entropy(moved(image[None]), label[None]).item()
            )
        squares += ((losses[0] - losses[1]) / (2 * step)) ** 2 / 2
    names = [name for name, _ in model.named_parameters()]
    of_tower = measured[names.index("tower.weight")]
    assert float(of_tower[0, 1]) == pytest.approx(squares, rel=1e-2)


def test_weights_are_dampened_where_the_class_needs_them_more() -> None:
    model = linear_model()
    shapes = [torch.ones_like(parameter) for parameter in model.parameters()]
    of_class = [shape.clone() for shape in shapes]
    names = [name for name, _ in model.named_parameters()]
    tower = names.index("tower.weight")
    of_class[tower][0, 0] = 20  # above 10 times that of all: a twentieth is left
    of_class[tower][1, 1] = 9  # below
    copied = dampened(model, of_class, shapes)
    expected = torch.tensor([[1 / 20, 0.5], [0.3, 1.0]])
    torch.testing.assert_close(tower_weight(copied), expected)
    torch.testing.assert_close(copied.rows, model.rows)
    stronger = dampened(model, of_class, shapes, alpha=5, strength=3)
    assert float(tower_weight(stronger)[1, 1]) == pytest.approx(3 / 9)
    assert float(tower_weight(model)[0, 0]) == 1


def test_attenuated_units_are_multiplied() -> None:
    stages = (
        Stage("units", lambda x: x.mean((2, 3)), 1),
        Stage("twice", lambda units: 2 * units, 1),
    )
    encoder = Encoder(nn.Linear(1, 1), stages, (2, 2))
    images = torch.rand(3, 3, 2, 2)
    task = Task(encoder, images, METRIC, sites=["units"], work=QUIET)
    found = attenuated_embeddings(task, {"units": np.array([2])}, 0.25)
    expected = 2 * images.mean((2, 3)) * torch.tensor([1, 1, 0.25])
    torch.testing.assert_close(found, expected)
