"""Importance of gates: a linear network by hand, and ranks."""

import numpy as np
import pytest
import torch
from scipy import stats
from torch import Tensor

from circuitry.interventions.answers import answer_changes, normal_ranks


def test_changes_are_the_mean_squares_of_the_derivatives() -> None:
    generator = torch.Generator().manual_seed(0)
    weights, images = torch.randn(3, 4, generator=generator), torch.randn(2, 4, generator=generator)

    def answers_under(gates: Tensor, places: Tensor) -> Tensor:
        return (gates * images[places]) @ weights.T

    derivatives = weights[None] * images[:, None]  # of image i: answers by gates
    expected = derivatives.square().sum(1).mean(0)
    draws = [0, 1] * 2000
    found = answer_changes(answers_under, torch.ones(4), draws, generator)
    assert found.numpy() == pytest.approx(expected.numpy(), rel=0.1)
    one = answer_changes(lambda g, p: answers_under(g, p)[:, :1], torch.full((4,), 0.3), [1], generator)
    assert (one / derivatives[1, 0].square()).std() < 1e-4  # of a single answer the direction is a factor


def test_ranks_become_normal_quantiles() -> None:
    values = torch.tensor([3.0, -1.0, 8.0, 3.0])
    expected = stats.norm.ppf((np.array([1, 0, 3, 2]) + 0.5) / 4)
    assert normal_ranks(values).numpy() == pytest.approx(expected, rel=1e-5)
