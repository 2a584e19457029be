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
ImageSets = Sequence[tuple[Sequence[int], Sequence[int]]]
"""Places of images of the class, and of other classes, of each set."""


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
    gates: Float[Tensor, "images gates"],
    images: Sequence[int],
    generators: Sequence[torch.Generator],
) -> Float[Tensor, "images gates"]:
    """Return an estimate of the squared change of each image's answers by each gate.

    Args:
        answers_under: From gates of each image [images, gates] and places of images to answers [images, answers], those
            of an image by its own gates alone.
        gates: Where the change is taken.
        images: Places of images, one gradient each: of the answers times a normal random vector, whose mean square is
            that of all answers.
        generators: They draw the random vectors, image by image.
    """
    at = gates.detach().clone().requires_grad_()
    found = answers_under(at, torch.tensor(images))
    directions = torch.stack([torch.randn(found.shape[1], generator=one) for one in generators]).to(found)
    return torch.autograd.grad(found, [at], [directions])[0].square()


def gate_importance(runs: Any, answers: Answers, n_images: int | None = None) -> Float[Tensor, " gates"]:
    """Return the squared change of the answers by each open gate, on ``n_images`` of the class and of others (all)."""
    own, others = range(runs.n_own), range(runs.n_own, len(runs))
    return set_importance(runs, answers, [(own[:n_images], others[:n_images])])[0]


def set_importance(
    runs: Any,
    answers: Answers,
    sets: ImageSets,
    gates: Float[Tensor, "sets gates"] | None = None,
    generators: Sequence[torch.Generator] | None = None,
) -> Float[Tensor, "sets gates"]:
    """Return the squared change of the answers by each gate on each set of images; all sets are run together.

    Images of the class and of other classes count alike, however many there are of each.

    Args:
        runs: Images under gates, as `Gated` holds them.
        answers: Function from embeddings to answers.
        sets: Images.
        gates: Where the change is taken (default: while all are open).
        generators: They draw directions of answers for each set (default: such as begin alike in every call).
    """
    generators = generators or [torch.Generator().manual_seed(0) for _ in sets]
    at = torch.ones(len(sets), runs.n_gates, device=runs.embeddings.device) if gates is None else gates
    sides = [(number, side, sum(map(bool, of_set))) for number, of_set in enumerate(sets) for side in of_set]
    rows = [(number, place, 1 / (n * len(side))) for number, side, n in sides for place in side]
    found = torch.zeros_like(at)
    for i in range(0, len(rows), runs.rows):
        numbers, places, shares = zip(*rows[i : i + runs.rows], strict=True)
        drawn_by = [generators[number] for number in numbers]
        changes = answer_changes(lambda g, p: answers(runs.run(g, p)), at[list(numbers)], places, drawn_by)
        weights = torch.zeros(len(sets), len(numbers))
        weights[list(numbers), range(len(numbers))] = torch.tensor(shares)
        found += weights.to(changes) @ changes
    return found


def iterative_ranks(runs: Any, answers: Answers, sets: ImageSets) -> Float[Tensor, "sets gates"]:
    """Return the rank in (0, 1] of each gate, where the least important close first and the others are scored again.

    Units that replace each other hide each other while all are open. So the importance of the open gates is
    measured in `ROUNDS` rounds, between which their number falls to `SMALLEST` by the same factor. After FORCE (de
    Jorge et al. 2021, arXiv 2006.09081), which prunes weights so.

    Args:
        runs, answers, sets: See `set_importance`; each set has gates of its own.
    """
    n, generators = runs.n_gates, [torch.Generator().manual_seed(0) for _ in sets]
    opened, ranks = (torch.ones(len(sets), n, device=runs.embeddings.device) for _ in "12")
    for number in range(1, ROUNDS + 1):
        importance = set_importance(runs, answers, sets, opened, generators)
        for of_set, still_open, found in zip(importance, opened, ranks, strict=True):
            left = still_open.nonzero()[:, 0]
            rising = left[of_set[left].argsort(stable=True)]
            found[rising] = torch.arange(n - len(rising) + 1, n + 1).to(found) / n
            still_open[rising[: len(rising) - math.ceil(n * SMALLEST ** (number / ROUNDS))]] = 0
    return ranks


def normal_ranks(values: Float[Tensor, " units"]) -> Float[Tensor, " units"]:
    """Return the normal quantiles of the ranks of values, the first the lower among equals."""
    ranks = in_double(torch.argsort(torch.argsort(values, stable=True)))
    quantiles: Tensor = torch.special.ndtri((ranks + 0.5) / len(values))
    return quantiles.float().to(values.device)
