"""Fisher scores of gates: how much the answers of the model depend on each gate.

Answers are numbers that are computed from an embedding, such as logits. Fisher scores can rank units. They are also the
start of a learned mask, whose training preserves the answers.

Let J_i be the derivative of the answers of image i with respect to a gate. If the gate is closed by a small amount, the
squared distance by which the answers move is proportional to |J_i|^2. The Fisher score is the mean of |J_i|^2 over
images, the diagonal of the Fisher information, as in pruning (Theis et al. 2018, arXiv 1801.05787). The score is large
for a unit that raises the answers of one image and lowers the answers of another image. For such a unit, the mean
effect over images may be 0.
"""

import math
from collections.abc import Callable, Sequence
from itertools import chain
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from circuitry.encoder.doubles import in_double
from circuitry.encoder.metrics import ClassLogit, Metric, check_width
from circuitry.gates.images_under_gates import Gated
from circuitry.runs.errors import InputError
from circuitry.runs.plan import Forwards
from circuitry.runs.progress import Bar

Answers = Callable[[Tensor], Tensor]
"""Function that takes embeddings [B, D] and returns answers [B, answers], such as the logits of all classes."""
ImageSets = Sequence[tuple[Sequence[int], Sequence[int]]]
"""For each set of images, the indices of its images of the class, and the indices of its images of other classes."""
ROUNDS = 8
"""Number of rounds of `iterative_ranks`. In each round the open gates are scored again."""
SMALLEST = 0.1
"""Share of the gates that are open after the last round of `iterative_ranks`."""


def default_answers(metric: Metric) -> Answers:
    """Return a function from embeddings to answers, the numbers that a learned mask should preserve.

    If the metric is a `class_logit` with several classes, the answers are centred logits: the cosine logit of a class
    minus the mean of the logits of all classes. The first answer is the centred logit of the metric's class. Then
    follow the centred logits of all classes, divided by the square root of their number. So together they count about
    as much as the first answer. For any other metric, the only answer is the metric.
    """
    if not isinstance(metric, ClassLogit) or len(metric.weights) < 2:
        return lambda embedding: metric(embedding)[:, None]
    weights, label = metric.weights, metric.label
    # The mean is subtracted, because a change that all classes share must not move the answers.
    centred = weights - weights.mean(0)

    def answers(embedding: Tensor) -> Tensor:
        check_width(weights, embedding)
        logits = F.normalize(embedding, dim=-1) @ centred.to(embedding).T
        lead = logits[:, label : label + 1]
        # With this divisor, the squares of all logits together weigh as much as the square of the lead.
        return torch.cat([lead, logits / len(weights) ** 0.5], 1)

    return answers


def variance_of(answers: Float[Tensor, "images answers"]) -> Tensor:
    """Return the variance of the answers over images, summed over the answers.

    Raises:
        InputError: if all images have the same answers.
    """
    variance = (answers - answers.mean(0)).square().sum(1).mean()
    # Written in this way, the condition also refuses NaN.
    if not variance > 0:
        raise InputError(
            "What keeps the answers in which images differ needs some, but the model's are the same for all of these: "
            "give images of other classes, or more of this one."
        )
    return variance


def gate_importance(
    runs: Gated[Any], answers: Answers, n_images: int | None = None
) -> Float[Tensor, " gates"]:
    """Return the mean over images of the squared derivative of the answers with respect to each gate.

    All gates are open. See `set_importance`.

    Args:
        runs: The images of a task, held in memory and ready to be run with gates.
        answers: Function that computes the answers.
        n_images: Largest number of images of the class, and also of images of other classes (default: all images).
    """
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
    """Return an estimate of the squared derivative of the answers with respect to each gate, for each set of images.

    The squared derivative is summed over the answers, and averaged over the images of a set. This average is weighted:
    the images of the class together have the same weight as all images of other classes, however many images there are
    of each. To save time, only one gradient is computed for each image: the gradient of the inner product of its
    answers and a random vector from the normal distribution. The expected square of this gradient is the sum of the
    squared derivatives of all answers. All sets are run together.

    Args:
        runs: The images of a task, held in memory and ready to be run with gates.
        answers: Function that computes the answers.
        sets: Indices of the images of each set.
        gates: Gates of each set at which the derivative is taken (default: all gates are open).
        generators: Generator of the random vectors of each set (default: new generators with the same seed).
        bar: Progress bar that advances by one for each image. If it has no total, its total is set.

    Returns:
        Estimates [sets, gates].
    """
    generators = generators or [torch.Generator().manual_seed(0) for _ in sets]
    if gates is None:
        gates = torch.ones(len(sets), runs.n_gates, device=runs.embeddings.device)
    # For each image of each set: the index of the set, the index of the image, and the weight of the image.
    set_numbers = list[int]()
    places = list[int]()
    shares = list[float]()
    for number, of_set in enumerate(sets):
        sides = [side for side in of_set if side]
        for side in sides:
            set_numbers += [number] * len(side)
            places += side
            shares += [1 / (len(sides) * len(side))] * len(side)
    importance = torch.zeros_like(gates)
    if bar is not None and bar.total is None:
        bar.reset(total=len(places))
    for i in range(0, len(places), runs.rows):
        some = slice(i, i + runs.rows)
        numbers = set_numbers[some]
        # Each image gets its own copy of the gates of its set, and so it gets its own gradient.
        at = gates[numbers].detach().requires_grad_()
        given = answers(runs.run(at, torch.tensor(places[some])))
        # Each set has its own generator. So its scores do not depend on which other sets run at the same time.
        directions = torch.stack(
            [torch.randn(given.shape[1], generator=generators[n]) for n in numbers]
        )
        slopes = torch.autograd.grad(given, [at], [directions.to(given)])[0]
        # [images, sets]: the weight of an image in its set, and 0 in all other sets.
        of_sets = F.one_hot(torch.tensor(numbers), len(sets))
        weights = of_sets * torch.tensor(shares[some])[:, None]
        importance += weights.T.to(slopes) @ slopes.square()
        if bar is not None:
            bar.update(len(numbers))
    return importance


def iterative_ranks(
    runs: Gated[Any], answers: Answers, sets: ImageSets, bar: Bar | None = None
) -> Float[Tensor, "sets gates"]:
    """Rank the gates by importance in several rounds: close the least important gates, and score all other gates again.

    While all units are open, two units that can replace each other both seem unimportant. So the importance of the open
    gates is measured in `ROUNDS` rounds. In each round the number of open gates falls by the same factor, until the
    share `SMALLEST` is left after the last round. FORCE (de Jorge et al. 2021, arXiv 2006.09081) prunes weights in the
    same way.

    Args:
        runs: The images of a task, held in memory and ready to be run with gates.
        answers: Function that computes the answers.
        sets: Indices of the images of each set. Each set has its own gates, which close in its own order.
        bar: Progress bar.

    Returns:
        Ranks in (0, 1] for each set and gate [sets, gates]. The most important gate has rank 1, and gates that closed
        earlier have lower ranks.
    """
    if bar is not None:
        n_images = sum(map(len, chain.from_iterable(sets)))
        bar.reset(total=ROUNDS * n_images)
    n = runs.n_gates
    generators = [torch.Generator().manual_seed(0) for _ in sets]
    opened = torch.ones(len(sets), n, device=runs.embeddings.device)
    ranks = torch.ones_like(opened)
    for number in range(1, ROUNDS + 1):
        # The number falls by the same factor in every round, and ends at the share `SMALLEST`.
        n_left = math.ceil(n * SMALLEST ** (number / ROUNDS))
        importance = set_importance(runs, answers, sets, opened, generators, bar)
        # Each set closes its own gates.
        for row in range(len(sets)):
            still_open = opened[row].nonzero()[:, 0]
            rising = still_open[importance[row, still_open].argsort(stable=True)]
            # Gates that stay open are ranked again in the next round.
            last_ranks = torch.arange(n - len(rising) + 1, n + 1)
            ranks[row, rising] = last_ranks.to(ranks) / n
            opened[row, rising[: len(rising) - n_left]] = 0
    return ranks


def fisher_forwards(n_images: int, rounds: int = ROUNDS) -> Forwards:
    """Return what a ranking runs: `iterative_ranks`, or `set_importance` with one round.

    Args:
        n_images: The images of all sets; an image of several sets counts several times.
        rounds: Number of rounds.
    """
    return Forwards(back=rounds * n_images)


def normal_ranks(values: Float[Tensor, " units"]) -> Float[Tensor, " units"]:
    """Replace each value by a quantile of the standard normal distribution, in the order of the values.

    The value with rank r (from 0) of n values gets the quantile at (r + 0.5) / n. Of equal values, the first one gets
    the lower rank.
    """
    # Sorting the order of the values gives the rank of each.
    ranks = in_double(torch.argsort(torch.argsort(values, stable=True)))
    quantiles: Tensor = torch.special.ndtri((ranks + 0.5) / len(values))
    return quantiles.float().to(values.device)
