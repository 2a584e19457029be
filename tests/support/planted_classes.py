"""A network in which the own units of every class are known, with as many copies of each as are asked for."""

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from circuitry.encoder import Encoder, Stage, Task, class_logit

CLASSES = 6
"""Classes of planted networks."""
OWN_UNITS = 3
"""Own units of each class."""
COMMON = 4
"""Units that every class needs."""
LOUD = 20
"""Loud units, which no later unit reads."""


@dataclass(frozen=True, eq=False)
class PlantedClasses:
    """A network in which the own units of every class are known, at its site ``units``."""

    encoder: Encoder
    """The network."""
    weights: Tensor
    """Weights of the classes [classes, width]."""
    own: Mapping[int, tuple[int, ...]]
    """Indices of the own units by label."""

    @staticmethod
    def images(label: int, n: int, seed: int) -> Tensor:
        """Return images [n, 3, 8, 8] of a class: of six blocks of numbers, the block of the class is brighter."""
        noise = torch.rand(
            n, CLASSES, 32, generator=torch.Generator().manual_seed(97 * seed + label)
        )
        noise[:, label] += 1.5
        return noise.reshape(n, 3, 8, 8)

    def task(self, label: int, n: int = 6, seed: int = 0) -> Task:
        """Return the task of a class, with ``n`` images of it and as many of each other class."""
        others = torch.cat(
            [self.images(other, n, seed) for other in range(CLASSES) if other != label]
        )
        metric = class_logit(self.weights, label, 20.0)
        return Task(
            self.encoder,
            self.images(label, n, seed),
            metric,
            baseline="mean-position",
            others=others,
            sites=["units"],
        )


def planted_classes(copies: int = 1) -> PlantedClasses:
    """Build a network in which the answer for a class is the sum of its own units times the units that all need.

    Units of pairs of neighbouring classes are added with a small weight. Loud units have no effect.

    Args:
        copies: Number of copies of each own unit. The largest copy counts, so that one replaces another that is cut.
    """
    generator = torch.Generator().manual_seed(0)
    loud = torch.randn(LOUD, 3 * 64, generator=generator)
    gains = torch.linspace(0.8, 1.2, OWN_UNITS)
    n_own = CLASSES * OWN_UNITS * copies

    def units(x: Tensor) -> Tensor:
        """Return the units [images, units]: own, common, of pairs, loud."""
        blocks = x.flatten(1).reshape(len(x), CLASSES, 32).mean(-1)
        # [images, classes, own units, copies]: a unit answers where its class's block is bright.
        bright = (blocks[:, :, None, None] * gains[:, None] - 0.6).relu()
        own = bright.expand(-1, -1, -1, copies).flatten(1)
        # The first copy is a little larger, so it is the one that counts until it is cut.
        own = own * torch.linspace(1, 0.9, copies).repeat(CLASSES * OWN_UNITS)
        common = x.flatten(1).mean(1, keepdim=True) * torch.linspace(0.5, 1, COMMON)
        pairs = (blocks + blocks.roll(-1, 1)).relu()
        return torch.cat([own, common, pairs, (x.flatten(1) @ loud.T).relu()], 1)

    def code(u: Tensor) -> Tensor:
        """Return the answers [images, classes] from the units."""
        copied = u[:, :n_own].reshape(len(u), CLASSES, OWN_UNITS, copies)
        own: Tensor = copied.amax(-1).sum(-1)
        common = u[:, n_own : n_own + COMMON].sum(1, keepdim=True)
        pairs = u[:, n_own + COMMON :][:, :CLASSES]
        return own * common + 0.2 * (pairs + pairs.roll(1, 1))

    own = {}
    for label in range(CLASSES):
        first = label * OWN_UNITS * copies
        own[label] = tuple(range(first, first + OWN_UNITS * copies))
    stages = (Stage("units", units, 1), Stage("code", code, 1))
    # The linear layer is unused: an encoder needs a module.
    encoder = Encoder(nn.Linear(1, 1), stages, (8, 8))
    return PlantedClasses(encoder, torch.eye(CLASSES), own)
