"""Gradient descent on scores of which some have hardly any effect."""

import torch
from torch import Tensor

MOMENTUM, FORGETTING = 0.9, 0.98
"""What a step keeps of the mean gradient and of its mean square."""


class NormedDescent:
    """Gradient descent with momentum, in units of the root mean square of the gradients of all scores together.

    Adam takes that mean score by score, and so moves a unit of hardly any effect as fast as one that carries the
    answers.
    """

    def __init__(self, rate: float) -> None:
        self.rate, self.steps = rate, 0
        self.mean: Tensor | float = 0.0
        self.square = 0.0

    def step(self, scores: Tensor, gradient: Tensor) -> None:
        """Move the scores down the mean gradient."""
        self.steps += 1
        self.mean = MOMENTUM * self.mean + (1 - MOMENTUM) * gradient
        self.square = FORGETTING * self.square + (1 - FORGETTING) * float(gradient.square().mean())
        size = (self.square / (1 - FORGETTING**self.steps)) ** 0.5
        with torch.no_grad():
            scores -= self.rate / (1 - MOMENTUM**self.steps) / max(size, 1e-30) * self.mean
