"""A class's own part: units whose loss takes the class from the model, and leaves it the other classes.

A circuit that is enough for a class holds what every class of its style needs, too. What is the class's own is found by
contrast, and tested by lesion (`lesion`). With the log-odds of a class among the candidates, log p - log(1 - p), which
do not level off where the model is sure,

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

from circuitry.circuits.budgets import GLOBAL
from circuitry.circuits.circuit_settings import AttributionSettings
from circuitry.circuits.found_on import pixels_of
from circuitry.circuits.graph import Circuit
from circuitry.circuits.made_with import asked_of, check_asked_alike, named_sites
from circuitry.circuits.methods import CONTRAST, method_code
from circuitry.circuits.nodes import NodeEffects
from circuitry.circuits.unit_scores import graph_of, without_image
from circuitry.encoder.metrics import NO_ANSWER, answer_metric, given_classes
from circuitry.encoder.roles import counted_sites
from circuitry.encoder.task import Task, at_model_scale
from circuitry.interventions.gated import Gated
from circuitry.interventions.intervention_settings import MOST, OwnShare
from circuitry.runs.errors import InputError
from circuitry.runs.given import checked
from circuitry.runs.identity import Identity

log = logging.getLogger(__name__)

PRICE = 0.3
"""What each unit costs beside its damage, as a share of the mean damage: a smaller price spares others, and takes more
units."""
FIRST, GROWTH = 0.001, 1.3
"""Share of the units after the first cut, and its growth from cut to cut."""


@checked
def own_part(task: Task | Sequence[Task], *, share: OwnShare | None = None) -> Circuit:
    """Find the units whose loss takes a class, and spares the others.

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
        >>> part = own_part(Task(encoder, cats, class_logit(weights, 3), baseline="mean-position", others=not_cats))
        >>> lesion({("cat", "photo"): unseen}, {("cat", "photo"): part})
    """
    tasks = [_prepared(one) for one in ([task] if isinstance(task, Task) else task)]
    check_alike(tasks)
    with tasks[0].running(gradients=True):
        images = [ImagesOfClass(one) for one in tasks]
        found = contrast(images, share)
    if any(one.runs.n_own == 1 for one in images):
        log.warning(
            "An own part is found on one image of the class, so it may be the image's rather than the class's: give "
            "two or more."
        )
    runs, n_own = images[0].runs, sum(len(one.own) for one in images)
    costs, ranks = (
        {
            site: np.nan_to_num(values)
            for site, values in runs.scored(of_gates.cpu().double().numpy()).items()
        }
        for of_gates in (found.costs, found.ranks)
    )
    made = {
        "method": CONTRAST,
        "method_code": method_code(CONTRAST),
        "price": PRICE,
        "scale": images[0].metric.scale,
    } | _identity_of_all(tasks)
    looked_at = pixels_of(*(some for one in tasks for some in (one.images, one.others)))
    graph = replace(
        graph_of(tasks[0], NodeEffects(costs, {}, n_own, ranks), made),
        provenance=looked_at,
    )
    share_cut, p = found.tried[-1]
    part = graph.strongest(
        share_cut if share is None else share, budget=GLOBAL
    )  # rounded up, as everywhere
    made_with: dict[str, Any] = {"method": CONTRAST, "tried": found.tried}
    if share is None and p > (chance := 1 / len(images[0].metric.weights)):
        made_with["note"] = (
            f"Without {share_cut:.0%} of the units the class still has a mean probability of {p:.2f} on the images "
            f"that the part was found on, where chance is {chance:.2f}."
        )
    return replace(
        part,
        source=replace(graph, kept_units=dict(part.units)),
        made_with=part.made_with | made_with,
    )


def check_alike(tasks: Sequence[Task]) -> None:
    """Refuse tasks of other classes, encoders or sites: a part of several styles is of one class in one model."""
    kinds = {
        (
            id(one.encoder),
            answer_metric(one.metric, "An own part is found by").label,
            one.sites,
        )
        for one in tasks
    }
    if len(kinds) != 1:
        raise InputError(
            f"An own part of several styles is of one class in one encoder at the same sites, but {len(kinds)} kinds "
            f"of tasks were given: find a part for each kind."
        )
    asked = {
        f"task {number}": asked_of(one, "An own part is found by")
        for number, one in enumerate(tasks, start=1)
    }
    check_asked_alike(
        asked,
        "The styles of one own part",
        "give all the same, or find a part for each",
    )


def _identity_of_all(tasks: Sequence[Task]) -> Identity:
    """Return what shaped a part: of tasks that are asked alike the first's identity, with the baselines of all."""
    digests = list(dict.fromkeys(one.baseline.digest for one in tasks))
    return (
        tasks[0].identity
        if len(digests) == 1
        else tasks[0].identity | {"baseline_digest": digests}
    )


def ranks_by_contrast(
    task: Task, settings: AttributionSettings
) -> Mapping[str, np.ndarray]:
    """Score each unit by its place in the order of contrast, 1 for the first; see `own_part`."""
    with task.running(gradients=True):
        images = ImagesOfClass(task)
        ranks = contrast([images], MOST).ranks.cpu().double().numpy()
    return {
        site: np.nan_to_num(of_site)
        for site, of_site in images.runs.scored(ranks).items()
    }


def _prepared(task: Task) -> Task:
    """Return a task at the sites that it names, or at those that compute, whose metric has the model's scale."""
    told = at_model_scale(task)
    if named_sites(told) is not None:
        return without_image(told)
    return replace(told, sites=counted_sites(told.encoder, progress=told.work.progress))


class ImagesOfClass:
    """Images of a class and of others under gates, and the slopes of the log-odds of their answers."""

    def __init__(self, task: Task) -> None:
        self.metric = answer_metric(
            at_model_scale(task).metric, "An own part is found by"
        )
        self.runs = Gated(task, keep_error=True)
        label, n = self.metric.label, self.runs.n_own
        self.answers = given_classes(self.metric.log_answers(self.runs.embeddings))
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
        """Yield d log-odds of the answers / d gates, and the probability of the answers, of some images at a time."""
        for i in range(0, len(places), self.runs.rows):
            some = torch.tensor(
                places[i : i + self.runs.rows], device=self.answers.device
            )
            gates = opened.expand(len(some), -1).detach().clone().requires_grad_()
            answers = self.metric.log_answers(self.runs.run(gates, some))
            given = torch.zeros_like(answers, dtype=torch.bool).scatter(
                1, self.answers[some][:, None], True
            )
            own = answers[given]
            odds = own - answers.masked_fill(given, -torch.inf).logsumexp(-1)
            yield torch.autograd.grad(odds.sum(), gates)[0], own.detach().exp()


class Contrast(NamedTuple):
    """How units are ordered by contrast."""

    costs: Float[Tensor, " gates"]
    """To the class, while nothing is cut."""
    ranks: Float[Tensor, " gates"]
    """1 for the first unit, falling by one over the number of units."""
    tried: list[list[float]]
    """Share of the units that is cut, and the mean probability of the class without them."""


def contrast(images: Sequence[ImagesOfClass], share: float | None = None) -> Contrast:
    """Cut units in the order of contrast, up to a share, or until the probability of the class is at chance."""
    opened = torch.ones(images[0].runs.n_gates, device=images[0].runs.embeddings.device)
    n, chance, most = (
        len(opened),
        1 / len(images[0].metric.weights),
        MOST if share is None else share,
    )
    damages = [
        torch.stack(
            [slopes.abs().sum(0) for slopes, _ in one.slopes(one.others, opened)]
        ).sum(0)
        / len(one.others)
        for one in images
    ]
    damage = torch.stack(damages).mean(0)
    order, tried, size = (
        opened.new_zeros(0, dtype=torch.long),
        list[list[float]](),
        min(FIRST, most),
    )
    costs = [mean_slopes(images, opened)[0]]
    while True:
        cost = torch.stack(costs).mean(0)
        ratio = (cost / (damage + PRICE * damage.mean())).masked_fill(
            opened == 0, -torch.inf
        )
        ranked = ratio.argsort(descending=True, stable=True)
        order = torch.cat([order, ranked[: max(1, round(size * n)) - len(order)]])
        opened[order] = 0
        slopes, p = mean_slopes(images, opened)
        costs.append(slopes)
        tried.append([len(order) / n, p])
        if size >= most or (share is None and p <= chance):
            break
        size = min(size * GROWTH, most)
    rest = ratio.masked_fill(opened == 0, -torch.inf).argsort(
        descending=True, stable=True
    )[: n - len(order)]
    ranks = torch.empty_like(opened)
    ranks[torch.cat([order, rest])] = torch.arange(n, 0, -1).to(ranks) / n
    return Contrast(costs[0], ranks, tried)


def mean_slopes(
    images: Sequence[ImagesOfClass], opened: Float[Tensor, " gates"]
) -> tuple[Float[Tensor, " gates"], float]:
    """Return the mean slope of the class's log-odds over its images, and its mean probability; styles count alike."""
    found = [
        tuple(map(torch.cat, zip(*one.slopes(one.own, opened), strict=True)))
        for one in images
    ]
    slopes, p = (
        torch.stack([values.mean(0) for values in of]).mean(0)
        for of in zip(*found, strict=True)
    )
    return slopes, float(p)
