"""Answers: numbers made of embeddings, which a learned mask preserves; and how much they depend on each gate.

Masks start from this dependence, and units are ranked by it. With J_i = d answers of image i / d gate, closing a gate a
little costs |J_i|^2 of squared distance. Its mean over images is the diagonal of the Fisher information, as in pruning
(Theis et al. 2018, arXiv 1801.05787): unlike the mean effect, it spares a unit that raises the answers of one image and
lowers the answers of another.
"""

import math
from collections.abc import Callable, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from circuitry.encoder.doubles import in_double
from circuitry.encoder.metrics import ClassLogit, Metric, check_width

Answers = Callable[[Tensor], Tensor]
"""Embeddings [B, D] -> the numbers [B, answers] that a mask preserves, such as the logits of all classes."""


ROUNDS, SMALLEST = 8, 0.1
"""Rounds in which units are scored again, and the share of the units that the last round leaves."""


def default_answers(metric: Metric) -> Answers:
    """Return the answers that a mask preserves for a metric: the metric, or all logits for a `class_logit`.

    Answers of a class are its lead over the mean of all classes, and all cosine logits less their mean; the lead counts
    as much as all logits together.
    """
    if not isinstance(metric, ClassLogit) or len(metric.weights) < 2:
        return lambda embedding: metric(embedding)[:, None]
    weights, label = metric.weights, metric.label
    centred = weights - weights.mean(0)

    def answers(embedding: Tensor) -> Tensor:
        check_width(weights, embedding)
        logits = F.normalize(embedding, dim=-1) @ centred.to(embedding).T
        return torch.cat([logits[:, label : label + 1], logits / len(weights) ** 0.5], 1)

    return answers


def answer_changes(
    answers_under: Callable[[Tensor, Tensor], Tensor],
    gates: Float[Tensor, " gates"],
    images: Sequence[int],
    generator: torch.Generator,
) -> Float[Tensor, " gates"]:
    """Return an estimate of the mean over images of the squared change of the answers by each gate.

    Args:
        answers_under: From gates of each image [images, gates] and places of images to answers [images, answers], those
            of an image by its own gates alone.
        gates: Where the change is taken.
        images: Places of images, one gradient each: of the answers times a normal random vector, whose mean square is
            that of all answers.
        generator: It draws the random vectors.
    """
    at = gates.detach().expand(len(images), -1).clone().requires_grad_()
    found = answers_under(at, torch.tensor(images))
    directions = torch.stack([torch.randn(found.shape[1], generator=generator) for _ in images]).to(found)
    return torch.autograd.grad(found, [at], [directions])[0].square().mean(0)


def gate_importance(
    runs: Any,
    answers: Answers,
    n_images: int | None = None,
    gates: Float[Tensor, " gates"] | None = None,
    generator: torch.Generator | None = None,
) -> Float[Tensor, " gates"]:
    """Return the squared change of the answers by each gate.

    Images of the class and of other classes count alike, however many there are of each.

    Args:
        runs: Images under gates, as `Gated` holds them.
        answers: Function from embeddings to answers.
        n_images: Images of the class, and of others, at most (default: all).
        gates: Where the change is taken (default: while all are open).
        generator: It draws directions of answers (default: one that begins alike in every call).
    """
    generator = generator or torch.Generator().manual_seed(0)
    whole = torch.ones(runs.n_gates, device=runs.embeddings.device) if gates is None else gates
    sides = [range(runs.n_own)[:n_images], range(runs.n_own, len(runs))[:n_images]]

    def answers_under(gates: Tensor, places: Tensor) -> Tensor:
        return answers(runs.run(gates, places))

    found = []
    for side in filter(None, sides):
        some = [side[i : i + runs.rows] for i in range(0, len(side), runs.rows)]
        parts = [len(part) * answer_changes(answers_under, whole, part, generator) for part in some]
        found.append(torch.stack(parts).sum(0) / len(side))
    return torch.stack(found).mean(0)


def iterative_ranks(runs: Any, answers: Answers) -> Float[Tensor, " gates"]:
    """Return the rank in (0, 1] of each gate, where the least important close first and the others are scored again.

    Units that replace each other hide each other while all are open. So the importance of the open gates is
    measured in `ROUNDS` rounds, between which their number falls to `SMALLEST` by the same factor. After FORCE (de
    Jorge et al. 2021, arXiv 2006.09081), which prunes weights so.

    Args:
        runs, answers: See `gate_importance`.
    """
    n, generator = runs.n_gates, torch.Generator().manual_seed(0)
    opened, ranks = (torch.ones(n, device=runs.embeddings.device) for _ in "12")
    for number in range(1, ROUNDS + 1):
        importance = gate_importance(runs, answers, None, opened, generator)
        left = opened.nonzero()[:, 0]
        rising = left[importance[left].argsort(stable=True)]
        ranks[rising] = torch.arange(n - len(rising) + 1, n + 1).to(ranks) / n
        opened[rising[: len(rising) - math.ceil(n * SMALLEST ** (number / ROUNDS))]] = 0
    return ranks


def normal_ranks(values: Float[Tensor, " units"]) -> Float[Tensor, " units"]:
    """Return the normal quantiles of the ranks of values, the first the lower among equals."""
    ranks = in_double(torch.argsort(torch.argsort(values, stable=True)))
    quantiles: Tensor = torch.special.ndtri((ranks + 0.5) / len(values))
    return quantiles.float().to(values.device)
