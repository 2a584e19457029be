"""Ways to make a model forget a class that ablate no units: edits of the head, of embeddings, of weights, of channels.

They are what a test of own parts is read against, since some of them take all answers of a class and no information.

- `LoweredLogit`: the bias of the class is lowered.
- `without_direction`: the class's row of the head is projected out of the embeddings.
- `fit_leace`: everything that is linear about the class is erased from the embeddings (LEACE, Belrose et al. 2023).
- `dampened`: weights are multiplied by less than 1 where the class's loss depends on them (selective synaptic
  dampening, Foster et al. 2024).
- `attenuated_embeddings`: the channels that are most responsible for the class are multiplied by a factor, and the head
  stays, in the manner of Contrastive Subnet Erasure (2026). Which channels these are is given.
"""

from collections.abc import Callable, Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass, field, replace

from circuitry.encoder import Task
from circuitry.encoder.baselines import ZERO
from circuitry.encoder.doubles import in_double
from circuitry.encoder.metrics import ClassLogit
from circuitry.gates import UnitsUnderGates

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, normalize

Embeddings = Float[Tensor, "images d"]
ALPHA = 10.0
"""How many times as large the importance for the class must be for a weight to be dampened: the paper's for ResNets."""
STRENGTH = 1.0
"""The paper's lambda: a dampened weight is multiplied by this over the ratio of importances, at most by 1."""


@dataclass(frozen=True, eq=False)
class LoweredLogit(ClassLogit):
    """The logit of a class in a model whose bias of one class, perhaps another one, is lower than it was."""

    lowered: int = field(kw_only=True)
    """Row of the class whose bias is lowered."""
    by: float = field(kw_only=True)
    """How much is taken from the logit of this class."""

    def log_answers(self, embedding: Tensor) -> Tensor:
        """Return the log-probability of each class after the bias is lowered."""
        answers = super().log_answers(embedding)
        taken = torch.zeros(answers.shape[-1]).to(answers)
        taken[self.lowered] = self.by
        shifted: Tensor = (answers - taken).log_softmax(-1)
        return shifted


def lowered_bias(metric: ClassLogit, embeddings: Embeddings) -> LoweredLogit:
    """Lower the bias of the metric's class by twice what takes the answers of all of some images.

    Other images of the class then lose their answers, too, and no other image loses anything.

    Args:
        metric: The metric of the class.
        embeddings: Embeddings of images of the class.
    """
    answers = metric.log_answers(embeddings)
    of_class = answers[:, metric.label].clone()
    answers[:, metric.label] = -torch.inf
    by = 2 * float((of_class - answers.amax(1)).max())
    return LoweredLogit(**vars(metric), lowered=metric.label, by=by)


def without_direction(embeddings: Embeddings, direction: Float[Tensor, " d"]) -> Tensor:
    """Project a direction out of embeddings."""
    unit = normalize(direction, dim=0).to(embeddings)
    return embeddings - (embeddings @ unit)[:, None] * unit


def fit_leace(
    embeddings: Embeddings, is_own: Bool[np.ndarray, " images"]
) -> Callable[[Tensor], Tensor]:
    """Return the least change of embeddings after which no linear head tells the class on these images.

    For one class LEACE has the closed form r(x) = x - c (v' (x - mean)) / (v' c), where c is the covariance of the
    embedding with the class, and v is c times the (pseudo-)inverse of the covariance of the embedding.

    Args:
        embeddings: Embeddings of images of the class and of others.
        is_own: Mask of the images of the class.
    """
    x = in_double(embeddings)
    mean = x.mean(0)
    of_class = in_double(torch.from_numpy(is_own))
    centred = x - mean
    with_class = centred.T @ (of_class - of_class.mean()) / len(x)
    covariance = centred.T @ centred / len(x)
    whitened = torch.linalg.pinv(covariance, hermitian=True) @ with_class
    scale = whitened @ with_class

    def erase(given: Tensor) -> Tensor:
        moved = (in_double(given) - mean) @ whitened / scale
        erased: Tensor = in_double(given) - moved[:, None] * with_class
        return erased.to(given)

    return erase


class Answering(nn.Module):
    """A tower with the rows of its classes, so that all weights that make an answer are parameters of one module."""

    def __init__(self, tower: nn.Module, metric: ClassLogit) -> None:
        super().__init__()
        self.tower = tower
        self.rows = nn.Parameter(metric.weights.clone())
        self.scale = float(metric.scale or 1.0)

    def forward(self, images: Tensor) -> Tensor:
        """Return the logits of all classes."""
        directions = normalize(self.tower(images), dim=-1)
        logits: Tensor = self.scale * directions @ self.rows.T
        return logits


def importances(
    model: nn.Module, images: Tensor, labels: Int[Tensor, " images"]
) -> list[Tensor]:
    """Return the mean over images of the squared derivative of the loss by each weight, for all parameters."""
    parameters = list(model.parameters())
    sums = [torch.zeros_like(parameter) for parameter in parameters]
    for image, label in zip(images, labels, strict=True):
        loss = cross_entropy(model(image[None]), label[None])
        slopes = torch.autograd.grad(loss, parameters, materialize_grads=True)
        for total, slope in zip(sums, slopes, strict=True):
            total += slope.square()
    return [total / len(images) for total in sums]


def dampened(
    model: Answering,
    of_class: Sequence[Tensor],
    of_all: Sequence[Tensor],
    alpha: float = ALPHA,
    strength: float = STRENGTH,
) -> Answering:
    """Return a copy of a model whose weights are dampened where they matter for the class.

    A weight with the importances c for the class and a for all images is multiplied by min(1, strength a / c) if
    c > alpha a.

    Args:
        model: The model.
        of_class, of_all: `importances` on images of the class, and on images of all classes.
        alpha, strength: The paper's alpha and lambda.
    """
    copied = deepcopy(model)
    for weight, c, a in zip(copied.parameters(), of_class, of_all, strict=True):
        factors = (strength * a / c.clamp(min=torch.finfo(c.dtype).tiny)).clamp(max=1)
        weight.data = torch.where(c > alpha * a, weight * factors, weight).detach()
    return copied


@torch.no_grad()
def attenuated_embeddings(
    task: Task, units: Mapping[str, np.ndarray], factor: float
) -> Tensor:
    """Return the embeddings of a task's images with some units multiplied by a factor.

    Args:
        task: Images, and the sites that have these units.
        units: Indices of the units by site.
        factor: The factor; 0 sets the units to zero.
    """
    at_zero = replace(task, others=None, baseline=ZERO)
    with at_zero.running(gradients=True):
        runs = UnitsUnderGates(at_zero, keep_error=True)
        gates = runs.scored(np.ones(runs.n_gates))
        for site, of_site in units.items():
            gates[site][of_site] = factor
        embeddings = list[Tensor]()
        for some in torch.split(torch.arange(len(runs)), runs.rows):
            embeddings.append(runs.run(runs.flat(gates).float(), some))
    return torch.cat(embeddings)
