"""Fisher scores of gates: how much the model's answers depend on each.

Answers are numbers made of embeddings. Learned masks keep them and start from this dependence; units are ranked by it.
With J_i = d answers of image i / d gate, closing a gate a little costs |J_i|^2 of squared distance. Its mean over
images is the diagonal of the Fisher information, as in pruning (Theis et al. 2018, arXiv 1801.05787): unlike the mean
effect, it spares a unit that raises the answers of one image and lowers the answers of another.
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
from circuitry.gates.images_under_gates import Gated
from circuitry.runs.errors import InputError
from circuitry.runs.progress import Bar

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
        return torch.cat(
            [logits[:, label : label + 1], logits / len(weights) ** 0.5], 1
        )

    return answers


def variance_of(answers: Float[Tensor, "images answers"]) -> Tensor:
    """Return the variance of answers over images; raise `InputError` where all images have the same."""
    variance = (answers - answers.mean(0)).square().sum(1).mean()
    if not variance > 0:
        raise InputError(
            "What keeps the answers in which images differ needs some, but the model's are the same for all of these: "
            "give images of other classes, or more of this one."
        )
    return variance


def gate_importance(
    runs: Gated[Any], answers: Answers, n_images: int | None = None
) -> Float[Tensor, " gates"]:
    """Return the squared change of the answers by each open gate, on all images or so many of each side."""
    own = range(runs.n_own)[:n_images]
    others = range(runs.n_own, len(runs))[:n_images]
    return set_importance(runs, answers, [(own, others)])[0]


def set_importance(
    runs: Gated[Any],
    answers: Answers,
    sets: ImageSets,
    gates: Float[Tensor, "sets gates"] | None = None,
    generators: Sequence[torch.Generator] | None = None,
    bar: Bar | None = None,
) -> Float[Tensor, "sets gates"]:
    """Return an estimate of the mean over images of the squared change of the answers by each gate, of each set.

    Images of the class and of other classes count alike, however many there are of each. All sets are run together.
    Each image has one gradient: of its answers times a normal random vector, whose mean square is that of all answers.

    Args:
        runs, answers, sets: Images under gates, as `Gated` holds them, what they are asked, and which are a set.
        gates, generators: Where the change is taken (default: while all are open), and what draws the random vectors
            (default: generators that begin alike in every call).
        bar: Goes on by the images, of a total that is set here where there is none.
    """
    generators = generators or [torch.Generator().manual_seed(0) for _ in sets]
    if gates is None:
        gates = torch.ones(len(sets), runs.n_gates, device=runs.embeddings.device)
    # One row for each image of each set: the set, the image's place, and how much the image counts.
    rows = list[tuple[int, int, float]]()
    for number, of_set in enumerate(sets):
        sides = [side for side in of_set if side]
        for side in sides:
            share = 1 / (len(sides) * len(side))
            rows += [(number, place, share) for place in side]
    importance = torch.zeros_like(gates)
    if bar is not None and bar.total is None:
        bar.reset(total=len(rows))
    for i in range(0, len(rows), runs.rows):
        numbers, places, shares = zip(*rows[i : i + runs.rows], strict=True)
        at = gates[list(numbers)].detach().requires_grad_()
        given = answers(runs.run(at, torch.tensor(places)))
        directions = torch.stack(
            [torch.randn(given.shape[1], generator=generators[n]) for n in numbers]
        )
        (slopes,) = torch.autograd.grad(given, [at], [directions.to(given)])
        of_sets = F.one_hot(torch.tensor(numbers), len(sets))
        weights = of_sets * torch.tensor(shares)[:, None]
        importance += weights.T.to(slopes) @ slopes.square()
        if bar is not None:
            bar.update(len(numbers))
    return importance


def iterative_ranks(
    runs: Gated[Any], answers: Answers, sets: ImageSets, bar: Bar | None = None
) -> Float[Tensor, "sets gates"]:
    """Return the rank in (0, 1] of each gate, where the least important close first and the others are scored again.

    Units that replace each other hide each other while all are open. So the importance of the open gates is
    measured in `ROUNDS` rounds, between which their number falls to `SMALLEST` by the same factor. After FORCE (de
    Jorge et al. 2021, arXiv 2006.09081), which prunes weights so. Each set of images has gates of its own.
    """
    if bar is not None:
        bar.reset(total=ROUNDS * sum(len(side) for of_set in sets for side in of_set))
    n = runs.n_gates
    generators = [torch.Generator().manual_seed(0) for _ in sets]
    opened = torch.ones(len(sets), n, device=runs.embeddings.device)
    ranks = torch.ones_like(opened)
    for number in range(1, ROUNDS + 1):
        n_left = math.ceil(n * SMALLEST ** (number / ROUNDS))
        importance = set_importance(runs, answers, sets, opened, generators, bar)
        for row in range(len(sets)):
            still_open = opened[row].nonzero()[:, 0]
            rising = still_open[importance[row, still_open].argsort(stable=True)]
            # Gates that stay open are ranked again in the next round.
            last_ranks = torch.arange(n - len(rising) + 1, n + 1)
            ranks[row, rising] = last_ranks.to(ranks) / n
            opened[row, rising[: len(rising) - n_left]] = 0
    return ranks


def normal_ranks(values: Float[Tensor, " units"]) -> Float[Tensor, " units"]:
    """Return the normal quantiles of the ranks of values, the first the lower among equals."""
    ranks = in_double(torch.argsort(torch.argsort(values, stable=True)))
    quantiles: Tensor = torch.special.ndtri((ranks + 0.5) / len(values))
    return quantiles.float().to(values.device)
