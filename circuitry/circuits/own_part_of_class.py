"""A class's own part: units whose loss takes the class from the model, and leaves it the other classes.

A circuit that is enough for a class holds the units that every class of its style needs, too. The class's own units are
found by contrast, and tested by lesion (`lesion`). With the log-odds of a class among the candidates,
log p - log(1 - p), which do not level off where the model is sure,

    cost_u   = mean over images of the class of d log-odds of the class / d gate_u,
    damage_u = mean over images of other classes of |d log-odds of the model's own answer / d gate_u|:

the first-order costs of ablating unit u. Taking the class at the least damage is a knapsack, so units come in the order
of cost_u / (damage_u + `PRICE` * mean damage). Units that replace each other hide each other. So cost is measured
again after each cut, and its mean over the cuts counts, as integrated gradients take the mean along a path. That is
cheap, since only images of the class are run.
"""

import logging
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from circuitry.circuits.asked_alike import asked_of, check_asked_alike, named_sites
from circuitry.circuits.budgets import GLOBAL
from circuitry.circuits.circuit_settings import (
    MOST,
    AttributionSettings,
    OwnShare,
)
from circuitry.circuits.found_on import pixels_of
from circuitry.circuits.graph import Circuit
from circuitry.circuits.methods import CONTRAST, method_code
from circuitry.circuits.narrowed_tasks import without_image
from circuitry.circuits.nodes import NodeEffects
from circuitry.circuits.scored_units import scores_of
from circuitry.encoder.metrics import NO_ANSWER, answer_metric, given_classes
from circuitry.encoder.roles import counted_sites
from circuitry.encoder.task import Task, at_model_scale
from circuitry.encoder.tensor_batches import Images
from circuitry.gates.images_under_gates import UnitsUnderGates
from circuitry.runs.arguments import checked
from circuitry.runs.errors import InputError
from circuitry.runs.identity import Identity

log = logging.getLogger(__name__)

PRICE = 0.3
"""Price of a unit beside its damage, as a share of the mean damage: a smaller price spares other classes, and takes
more units."""
FIRST = 0.001
"""Share of the units that the first cut takes."""
GROWTH = 1.3
"""Growth of that share from cut to cut."""


@checked
def own_part(task: Task | Sequence[Task], *, share: OwnShare | None = None) -> Circuit:
    """Find the units whose loss takes a class from the model, and spares all other classes.

    Args:
        task: Images of the class in one style, with images of other classes of the style, of whatever labels; or one
            such task for each of several styles. Its sites (default: those that compute, `counted_sites`) have units.
        share: Share of the units, in (0, 0.2] (default: the smallest that puts the mean probability of the class on
            these images at chance, or the largest where none does, and ``made_with`` has a note).

    Returns:
        The part as a `Circuit`, which `lesion` tests on other images. Scores of its source are costs (log-odds),
        importance the order of the units; ``made_with["tried"]`` has share and mean probability after each cut.

    Raises:
        InputError: for a metric without candidate classes, no images of other classes, a class that the model
            recognises on none of the images, other classes, encoders, candidates, scales or kinds of baselines in one
            call, and a share out of range.

    Example:
        >>> part = circuitry.own_part(task)
        >>> table = circuitry.lesion({("clock", "real"): task}, {("clock", "real"): part})
    """
    given = [task] if isinstance(task, Task) else task
    tasks = list(map(_prepared, given))
    check_alike(tasks)
    # Tasks that are alike have one encoder, so the first's modes are those of all.
    with tasks[0].running(gradients=True):
        images = list(map(ImagesOfClass, tasks))
        order = contrast(images, share)
    if min(of_style.runs.n_own for of_style in images) == 1:
        log.warning(
            "An own part is found on one image of the class, so it may be the image's rather than the class's: give "
            "two or more."
        )
    n_recognised = sum(len(of_style.own) for of_style in images)
    costs = _by_unit(images[0], order.costs)
    ranks = _by_unit(images[0], order.ranks)
    made = {
        "method": CONTRAST,
        "method_code": method_code(CONTRAST),
        "price": PRICE,
        "scale": images[0].metric.scale,
        **_identity_of_all(tasks),
    }
    looked_at = list[Images | None]()
    for of_style in tasks:
        looked_at += [of_style.images, of_style.others]
    scores = scores_of(tasks[0], NodeEffects(costs, {}, n_recognised, ranks), made)
    # The pixels of all styles: `scores_of` knows those of the first task alone.
    scores = replace(scores, provenance=pixels_of(*looked_at))
    share_cut, p = order.tried[-1]
    size = share_cut if share is None else share
    part = scores.strongest(size, budget=GLOBAL)  # rounded up, as everywhere
    made_with: dict[str, Any] = {"method": CONTRAST, "tried": order.tried}
    chance = 1 / len(images[0].metric.weights)
    if share is None and p > chance:
        made_with["note"] = (
            f"Without {share_cut:.0%} of the units the class still has a mean probability of {p:.2f} on the images "
            f"that the part was found on, where chance is {chance:.2f}."
        )
    return replace(part, made_with=part.made_with | made_with)


def _by_unit(images: "ImagesOfClass", of_gates: Tensor) -> dict[str, np.ndarray]:
    """Return values of gates by site [units], 0 for error units, which have none."""
    by_site = images.runs.scored(of_gates.cpu().double().numpy())
    return {site: np.nan_to_num(values) for site, values in by_site.items()}


def check_alike(tasks: Sequence[Task]) -> None:
    """Refuse tasks of other classes, encoders or sites: a part of several styles is of one class in one model."""
    method = "An own part is found by"
    kinds = set[tuple[int, int, tuple[str, ...]]]()
    asked = dict[str, Any]()
    for number, task in enumerate(tasks, start=1):
        label = answer_metric(task.metric, method).label
        kinds.add((id(task.encoder), label, task.sites))
        asked[f"task {number}"] = asked_of(task, method)
    if len(kinds) != 1:
        raise InputError(
            f"An own part of several styles is of one class in one encoder at the same sites, but {len(kinds)} kinds "
            f"of tasks were given: find a part for each kind."
        )
    check_asked_alike(
        asked,
        "The styles of one own part",
        "give all the same, or find a part for each",
    )


def _identity_of_all(tasks: Sequence[Task]) -> Identity:
    """Return the identity of a part of several tasks, which differ in their baselines alone."""
    identity = tasks[0].identity
    digests = list(dict.fromkeys(task.baseline.digest for task in tasks))
    if len(digests) == 1:
        return identity
    return identity | {"baseline_digest": digests}


def ranks_by_contrast(
    task: Task, settings: AttributionSettings
) -> Mapping[str, np.ndarray]:
    """Score each unit by its place in the order of contrast, 1 for the first; see `own_part`."""
    with task.running(gradients=True):
        images = ImagesOfClass(task)
        return _by_unit(images, contrast([images], MOST).ranks)


def _prepared(task: Task) -> Task:
    """Return a task at the sites that it names, or at those that compute, whose metric has the model's scale."""
    scaled = at_model_scale(task)
    if named_sites(scaled) is not None:
        return without_image(scaled)
    # Sites that only read out would be cut first: all that a class needs passes them.
    sites = counted_sites(scaled.encoder, progress=scaled.work.progress)
    return replace(scaled, sites=sites)


class ImagesOfClass:
    """Images of a class and of other classes under gates, and the slopes of the log-odds of their answers."""

    def __init__(self, task: Task) -> None:
        self.metric = answer_metric(
            at_model_scale(task).metric, "An own part is found by"
        )
        # Error units are no part's: a lesion leaves them, and so does the contrast.
        self.runs = UnitsUnderGates(task, keep_error=True)
        label = self.metric.label
        n = self.runs.n_own
        self.answers = given_classes(self.metric.log_answers(self.runs.embeddings))
        # Left out are images of the class that the model takes for another class, and images of other classes that it
        # takes for this one: they have no answer that a lesion should take or spare.
        of_another = (self.answers != label) & (self.answers != NO_ANSWER)
        self.own = (self.answers[:n] == label).nonzero()[:, 0].tolist()
        self.others = (n + of_another[n:].nonzero()[:, 0]).tolist()
        if not self.own:
            raise InputError(
                f"The model gives none of the {n} images the class, so there is nothing that a lesion could take: "
                "give images that it recognises, or leave the class out in this style."
            )
        if not self.others:
            raise InputError(
                "A class's own part is found by contrast with other classes, but there are no images of any that the "
                "model tells from the class: give the task others= that it does not take for the class."
            )
        if len(set(self.answers[self.others].tolist())) == 1:
            log.warning(
                "All images of other classes get one answer: the part is contrasted with that alone. Give more classes."
            )

    def slopes(
        self, places: Sequence[int], opened: Float[Tensor, " gates"]
    ) -> Iterator[tuple[Float[Tensor, "some gates"], Float[Tensor, " some"]]]:
        """Yield the slopes d log-odds / d gates of the answers of some images, and the answers' probabilities."""
        for i in range(0, len(places), self.runs.rows):
            some = torch.tensor(
                places[i : i + self.runs.rows], device=self.answers.device
            )
            # Gates of its own give each image a gradient of its own, from one backward pass.
            gates = opened.expand(len(some), -1).detach().clone().requires_grad_()
            answers = self.metric.log_answers(self.runs.run(gates, some))
            # [images, classes]: true at the answer that the whole model gives.
            given = torch.zeros_like(answers, dtype=torch.bool).scatter(
                1, self.answers[some][:, None], True
            )
            own = answers[given]
            # log p - log(1 - p): as a sum of the other answers it is exact where p is nearly 1.
            odds = own - answers.masked_fill(given, -torch.inf).logsumexp(-1)
            yield torch.autograd.grad(odds.sum(), gates)[0], own.detach().exp()


class Contrast(NamedTuple):
    """The order of units by contrast."""

    costs: Float[Tensor, " gates"]
    """Cost of each unit to the class, while nothing is cut."""
    ranks: Float[Tensor, " gates"]
    """1 for the first unit, falling by one over the number of units."""
    tried: list[list[float]]
    """For each cut the share of the units without which the model ran, and the mean probability of the class then."""


def contrast(images: Sequence[ImagesOfClass], share: float | None = None) -> Contrast:
    """Cut units in the order of contrast, up to a share, or until the probability of the class is at chance."""
    most = MOST if share is None else share
    chance = 1 / len(images[0].metric.weights)
    n = images[0].runs.n_gates
    opened = torch.ones(n, device=images[0].runs.embeddings.device)
    # Damage is measured once, on the whole model: so each cut runs images of the class alone.
    damage = torch.stack([_damage(of_style, opened) for of_style in images]).mean(0)
    price = damage + PRICE * damage.mean()
    slopes, _ = mean_slopes(images, opened)
    costs = [slopes]
    order = opened.new_zeros(0, dtype=torch.long)
    tried = list[list[float]]()
    size = min(FIRST, most)
    while True:
        # The mean cost over the cuts so far ranks the units that are still open.
        ratio = torch.stack(costs).mean(0) / price
        n_cut = max(1, round(size * n)) - len(order)
        order = torch.cat([order, _falling(ratio, opened)[:n_cut]])
        opened[order] = 0
        slopes, p = mean_slopes(images, opened)
        costs.append(slopes)
        tried.append([len(order) / n, p])
        if size >= most or (share is None and p <= chance):
            break
        size = min(size * GROWTH, most)
    # Units that were never cut follow in the order of the last ratio.
    rest = _falling(ratio, opened)[: n - len(order)]
    ranks = torch.empty_like(opened)
    ranks[torch.cat([order, rest])] = torch.arange(n, 0, -1).to(ranks) / n
    return Contrast(costs[0], ranks, tried)


def _falling(ratio: Tensor, opened: Tensor) -> Tensor:
    """Return the numbers of all units by falling ratio, open units first."""
    still_open = ratio.masked_fill(opened == 0, -torch.inf)
    return still_open.argsort(descending=True, stable=True)


def _damage(images: ImagesOfClass, opened: Tensor) -> Tensor:
    """Return the mean size of the slopes of all answers of images of other classes."""
    sums = [slopes.abs().sum(0) for slopes, _ in images.slopes(images.others, opened)]
    return torch.stack(sums).sum(0) / len(images.others)


def mean_slopes(
    images: Sequence[ImagesOfClass], opened: Float[Tensor, " gates"]
) -> tuple[Float[Tensor, " gates"], float]:
    """Return the mean slope of the class's log-odds over its images, and its mean probability; styles count alike."""
    slopes_of_styles = list[Tensor]()
    p_of_styles = list[Tensor]()
    for of_style in images:
        slopes = list[Tensor]()
        p = list[Tensor]()
        for some_slopes, some_p in of_style.slopes(of_style.own, opened):
            slopes.append(some_slopes)
            p.append(some_p)
        slopes_of_styles.append(torch.cat(slopes).mean(0))
        p_of_styles.append(torch.cat(p).mean(0))
    mean = torch.stack(slopes_of_styles).mean(0)
    return mean, float(torch.stack(p_of_styles).mean(0))
