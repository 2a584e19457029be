"""Is a class's own part what it claims to be? Planted networks, rivals for the same work, and steering.

1. planted: networks in which the own units of each class are known, also with a copy of each: recall and precision of
   the part, beside those of the strongest units by other methods;
2. rivals: on real images, parts of equal size by other ways to rank units: the plain effect, how much more a unit moves
   all answers on images of the class than on others, class selectivity, a linear probe of every site, and gates learned
   for the dissociation itself;
3. steering: activations of the part of a class, from its images, in runs on images of other classes.

The claim would be refuted by a rival that takes the class and spares the others at a smaller size.

    python -m experiments.own_parts --results experiments/results/own_parts/rivals
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
import torch.nn.functional as F
from sklearn.linear_model import LogisticRegression
from torch import Tensor, nn

from circuitry.circuits import register_method
from circuitry.circuits.unit_scores import own_images
from circuitry.comparison import lesion_summary, write_named_table
from circuitry.data import DomainFolder
from circuitry.encoder import Counterfactual, Encoder, Stage, Task, class_logit
from circuitry.encoder.tensor_batches import one_tensor
from circuitry.interventions import (
    Gated,
    OwnParts,
    OwnPartSettings,
    find_circuit,
    kept_embeddings,
    own_part,
)
from circuitry.interventions.answers import default_answers, set_importance

CLASSES, OWN_UNITS, COMMON, LOUD = 6, 3, 4, 20
"""Of planted networks: classes, own units of each, units that every class needs, and loud units that lead nowhere."""


@dataclass(frozen=True, eq=False)
class PlantedClasses:
    """A network in which the own units of every class are known, at its site ``units``."""

    encoder: Encoder
    weights: Tensor
    own: Mapping[int, tuple[int, ...]]

    @staticmethod
    def images(label: int, n: int, seed: int) -> Tensor:
        """Return images [n, 3, 8, 8] of a class: its sixth of the numbers is brighter."""
        noise = torch.rand(n, CLASSES, 32, generator=torch.Generator().manual_seed(97 * seed + label))
        noise[:, label] += 1.5
        return noise.reshape(n, 3, 8, 8)

    def task(self, label: int, n: int = 6, seed: int = 0) -> Task:
        """Return the task of a class, with as many images of each other class."""
        others = torch.cat([self.images(other, n, seed) for other in range(CLASSES) if other != label])
        metric = class_logit(self.weights, label, 20.0)
        return Task(
            self.encoder, self.images(label, n, seed), metric, baseline="mean-position", others=others, sites=["units"]
        )


def planted_classes(copies: int = 1) -> PlantedClasses:
    """Build a network: a class is read by its own units, times what every class needs, plus units of two classes each.

    Args:
        copies: Of each own unit; the largest of them counts, so that one stands in for the other.
    """
    generator = torch.Generator().manual_seed(0)
    loud = torch.randn(LOUD, 3 * 64, generator=generator)
    gains = torch.linspace(0.8, 1.2, OWN_UNITS)
    n_own = CLASSES * OWN_UNITS * copies

    def units(x: Tensor) -> Tensor:
        blocks = x.flatten(1).unflatten(1, (CLASSES, 32)).mean(-1)
        own = (blocks[:, :, None, None] * gains[:, None] - 0.6).relu().expand(-1, -1, -1, copies).flatten(1)
        own = own * torch.linspace(1, 0.9, copies).repeat(CLASSES * OWN_UNITS)
        common = x.flatten(1).mean(1, keepdim=True) * torch.linspace(0.5, 1, COMMON)
        pairs = (blocks + blocks.roll(-1, 1)).relu()
        return torch.cat([own, common, pairs, (x.flatten(1) @ loud.T).relu()], 1)

    def code(u: Tensor) -> Tensor:
        own = u[:, :n_own].unflatten(1, (CLASSES, OWN_UNITS, copies)).amax(-1).sum(-1)
        common, pairs = u[:, n_own : n_own + COMMON].sum(1, keepdim=True), u[:, n_own + COMMON :][:, :CLASSES]
        return own * common + 0.2 * (pairs + pairs.roll(1, 1))

    own = {c: tuple(range(c * OWN_UNITS * copies, (c + 1) * OWN_UNITS * copies)) for c in range(CLASSES)}
    encoder = Encoder(nn.Linear(1, 1), (Stage("units", units, 1), Stage("code", code, 1)), (8, 8))
    return PlantedClasses(encoder, torch.eye(CLASSES), own)
