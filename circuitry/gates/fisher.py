"""Fisher scores of gates: how much the model's answers depend on each.

Answers are numbers made of embeddings. Learned masks keep them and start from this dependence; units are ranked by it.
With J_i = d answers of image i / d gate, closing a gate a little costs |J_i|^2 of squared distance. Its mean over
images is the diagonal of the Fisher information, as in pruning (Theis et al. 2018, arXiv 1801.05787): unlike the mean
effect, it spares a unit that raises the answers of one image and lowers the answers of another.
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
from circuitry.runs.progress import Bar

Answers = Callable[[Tensor], Tensor]
"""Embeddings [B, D] -> the numbers [B, answers] that a mask preserves, such as the logits of all classes."""
ImageSets = Sequence[tuple[Sequence[int], Sequence[int]]]
"""Places of images of the class, and of other classes, of each set."""
ROUNDS = 8
"""Rounds in which units are scored again."""
SMALLEST = 0.1
"""Share of the units that the last round leaves open."""


def default_answers(metric: Metric) -> Answers:
    """Return the answers that a mask preserves for a metric: the metric, or all logits for a `class_logit`.

    Answers of a class are its lead over the mean of all classes, and all cosine logits less their mean; the lead counts
    as much as all logits together.
    """
    if not isinstance(metric, ClassLogit) or len(metric.weights) < 2:
        return lambda embedding: metric(embedding)[:, None]
    weights, label = metric.weights, metric.label
    # Less their mean, since what all classes share moves no answer.
    centred = weights - weights.mean(0)

    def answers(embedding: Tensor) -> Tensor:
        check_width(weights, embedding)
        logits = F.normalize(embedding, dim=-1) @ centred.to(embedding).T
        lead = logits[:, label : label + 1]
        # Divided so, the squares of all logits together weigh as much as that of the lead.
        return torch.cat([lead, logits / len(weights) ** 0.5], 1)

    return answers


def variance_of(answers: Float[Tensor, "images answers"]) -> Tensor:
    """Return the variance of answers over images; raise `InputError` where all images have the same."""
    variance = (answers - answers.mean(0)).square().sum(1).mean()
    # Put so, NaN is refused, too.
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
        # Each image has a copy of its set's gates, and so a gradient of its own.
        at = gates[numbers].detach().requires_grad_()
        given = answers(runs.run(at, torch.tensor(places[some])))
        # Each set draws from its own generator: its scores are the same whichever sets run beside it.
        directions = torch.stack(
            [torch.randn(given.shape[1], generator=generators[n]) for n in numbers]
        )
        slopes = torch.autograd.grad(given, [at], [directions.to(given)])[0]
        # [images, sets]: how much an image counts in its set, 0 in all others.
        of_sets = F.one_hot(torch.tensor(numbers), len(sets))
        weights = of_sets * torch.tensor(shares[some])[:, None]
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
        n_images = sum(map(len, chain.from_iterable(sets)))
        bar.reset(total=ROUNDS * n_images)
    n = runs.n_gates
    generators = [torch.Generator().manual_seed(0) for _ in sets]
    opened = torch.ones(len(sets), n, device=runs.embeddings.device)
    ranks = torch.ones_like(opened)
    for number in range(1, ROUNDS + 1):
        # By the same factor in every round, down to `SMALLEST`.
        n_left = math.ceil(n * SMALLEST ** (number / ROUNDS))
        importance = set_importance(runs, answers, sets, opened, generators, bar)
        # A loop over the sets: each closes its own gates.
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
    # Sorting the order of the values gives the rank of each.
    ranks = in_double(torch.argsort(torch.argsort(values, stable=True)))
    quantiles: Tensor = torch.special.ndtri((ranks + 0.5) / len(values))
    return quantiles.float().to(values.device)
