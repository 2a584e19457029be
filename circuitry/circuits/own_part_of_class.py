"""A class's own part: the units that the model needs to recognise the class, and does not need for other classes.

A circuit that is enough to recognise a class also contains the units that every class of the same style needs. The
class's own units are found by contrast with other classes. They are tested by a lesion: these units are ablated in the
whole model, and the answers before and after the ablation are compared (`lesion`).

The method uses the log-odds of a class among the candidates, log p - log(1 - p). They do not level off where the model
is sure of its answer. The first-order costs of ablating unit u are

    cost_u   = mean over images of the class of d log-odds of the class / d gate_u,
    damage_u = mean over images of other classes of |d log-odds of the model's own answer / d gate_u|.

To remove the class at the least damage is a knapsack problem. So the units are ordered by
cost_u / (damage_u + `PRICE` * mean damage), the largest ratio first, and are cut in this order.

Units that replace each other hide each other's cost. Therefore the cost is measured again after each cut, and the mean
of the costs over the cuts ranks the units, just as integrated gradients take a mean along a path. This is cheap,
because only images of the class are run after a cut.
"""

import logging
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from circuitry.circuits.asked_alike import (
    asked_of,
    check_asked_alike,
    check_made_with,
    named_sites,
)
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
from circuitry.encoder.metrics import (
    NO_ANSWER,
    answer_metric,
    given_classes,
    log_odds,
)
from circuitry.encoder.roles import counted_sites
from circuitry.encoder.task import Task, at_model_scale
from circuitry.encoder.tensor_batches import Images
from circuitry.gates.images_under_gates import UnitsUnderGates
from circuitry.gates.patches import mark_kept
from circuitry.runs.arguments import checked
from circuitry.runs.errors import InputError
from circuitry.runs.identity import OF_TOWER, Identity
from circuitry.runs.plan import Forwards

log = logging.getLogger(__name__)

PRICE = 0.3
"""Price of cutting any unit, as a multiple of the mean damage. It is added to the damage of the unit. With a smaller
price other classes are damaged less, but more units must be cut."""
_WHO = "An own part is found by"
FIRST = 0.001
"""Share of the units that the first cut removes."""
GROWTH = 1.3
"""Factor by which the share of removed units grows from one cut to the next."""


@checked
def own_part(
    find: Task | Sequence[Task],
    *,
    spare: Sequence[Task] = (),
    share: OwnShare | None = None,
    without: Sequence[Circuit] = (),
) -> Circuit:
    """Find the units that the model needs to recognise a class, and that it does not need for other classes.

    Args:
        find: The task of what is looked for: images of the class in one style, and as ``others`` images of other
            classes in the same style; these may have any labels. Give a list of such tasks, one for each style, to find
            one part for several styles. Units are chosen at the sites of the task; if the task has all sites of its
            encoder, at its `counted_sites`.
        spare: Tasks whose answers are to be spared, in place of the answers to ``others``. Their candidates may be of
            another kind. For the part of a style, a background or a watermark, ``find`` has images of it and its
            texts among others, or a direction between two groups of images (`style_means`), and ``spare`` has tasks of
            the classes that are to stay. Each task has the same weight. The ``others`` of all tasks are ignored.
        share: Share of the units to remove, in (0, 0.2]. Default: the smallest tried share that brings the mean
            probability of the class on these images down to chance level. If no tried share does, the largest one is
            used, and ``made_with`` contains a note.
        without: Circuits whose units may not be cut, so the part has none of them. Give the earlier own parts of the
            class to find a disjoint one, a copy; see `find_copies`.

    Returns:
        The own part as a `Circuit`. Test it on other images with `lesion`. ``source.node_scores`` holds the cost of
        each unit in log-odds, and ``source.importance`` the rank of each unit in the order of removal: 1 for the first
        unit, and less for later units. ``made_with["tried"]`` lists, for each cut, the share of the units that was
        removed and the mean probability of the class after it. ``made_with["n_spared"]`` is the number of units that
        ``without`` kept from being cut.

    Raises:
        InputError: if the metric has no candidate classes, if there is nothing to spare, if the model
            recognises the class on none of the images, if the tasks of one call differ in class, encoder, sites,
            candidates, scale or kind of baseline, if the share is out of range, or if the circuits of ``without`` are
            of another encoder or leave too few units.

    Example:
        >>> part = circuitry.own_part(task)
        >>> table = circuitry.lesion({("clock", "real"): task}, {("clock", "real"): part})
        >>> copy = circuitry.own_part(task, share=0.02, without=[part])
        >>> np.intersect1d(part.units["layer4.0"], copy.units["layer4.0"]).size
        0
        >>> cars = circuitry.class_logit(weights, label=2)
        >>> of_cars = circuitry.Task(encoder, others, cars, baseline=task.baseline)
        >>> apart = circuitry.own_part(task, spare=[of_cars], share=0.02)
    """
    tasks = prepared(find)
    check_alike(
        tasks,
        "The styles of one own part",
        "give all the same, or find a part for each",
    )
    spared_tasks = prepared(spare)
    _check_spared(tasks[0], spared_tasks)
    of_encoder = (*OF_TOWER, "stages", "basis")
    check_made_with(tasks[0], [part.source for part in without], of_encoder)
    # All tasks have the same encoder, so the run of the first task serves all of them.
    with tasks[0].running(gradients=True):
        images = [ImagesOfClass(each, contrasted=not spare) for each in tasks]
        of_spared = [ImagesOfClass(each, contrasted=False) for each in spared_tasks]
        kept = gates_on(images[0].runs, without)
        order = contrast(images, share, kept, of_spared)
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
    if spare:
        made["spared"] = [asked_of(each, _WHO) for each in spared_tasks]
    looked_at = list[Images | None]()
    for each in tasks:
        looked_at += [each.images, None if spare else each.others]
    looked_at += [each.images for each in spared_tasks]
    scores = scores_of(tasks[0], NodeEffects(costs, {}, n_recognised, ranks), made)
    # `scores_of` stores the pixels of the first task only, so the pixels of all styles replace them.
    scores = replace(scores, provenance=pixels_of(*looked_at))
    share_cut, p = order.tried[-1]
    size = share_cut if share is None else share
    part = scores.strongest(size, budget=GLOBAL)  # rounded up, as everywhere
    made_with: dict[str, Any] = {"method": CONTRAST, "tried": order.tried}
    if without:
        made_with["n_spared"] = int(kept.sum())
    chance = 1 / len(images[0].metric.weights)
    if share is None and p > chance:
        made_with["note"] = (
            f"Without {share_cut:.0%} of the units the class still has a mean probability of {p:.2f} on the images "
            f"that the part was found on, where chance is {chance:.2f}."
        )
    return replace(part, made_with=part.made_with | made_with)


def _by_unit(images: "ImagesOfClass", of_gates: Tensor) -> dict[str, np.ndarray]:
    """Return the values of the gates as arrays [units] by site; error units have no gate and get 0."""
    by_site = images.runs.scored(of_gates.cpu().double().numpy())
    return {site: np.nan_to_num(values) for site, values in by_site.items()}


def gates_on(
    runs: UnitsUnderGates, circuits: Sequence[Circuit]
) -> Bool[Tensor, " gates"]:
    """Return which gates are on units of the circuits. Units at sites without gates are ignored."""
    marks = runs.scored(np.zeros(runs.n_gates))
    for circuit in circuits:
        for site, units in circuit.units.items():
            if site in marks:
                marks[site][mark_kept(units, len(marks[site]), site)] = 1
    return runs.flat(marks) == 1


def check_alike(tasks: Sequence[Task], what: str, instead: str) -> None:
    """Raise `InputError` if tasks differ in class, encoder, sites or in what they ask (`asked_of`).

    An own part belongs to one class in one model.

    Args:
        tasks: The tasks.
        what: A name for all tasks together, as the beginning of the message.
        instead: Advice, as the end of the message.
    """
    method = _WHO
    kinds = set[tuple[int, int, tuple[str, ...]]]()
    asked = dict[str, Any]()
    for number, task in enumerate(tasks, start=1):
        label = answer_metric(task.metric, method).label
        kinds.add((id(task.encoder), label, task.sites))
        asked[f"task {number}"] = asked_of(task, method)
    if len(kinds) != 1:
        raise InputError(
            f"{what} are of one class in one encoder at the same sites, but {len(kinds)} kinds of tasks were given: "
            f"{instead}."
        )
    check_asked_alike(asked, what, instead)


def _check_spared(task: Task, spared: Sequence[Task]) -> None:
    """Raise `InputError` if a task of ``spare`` has another encoder, other sites or another kind of baseline."""
    for number, each in enumerate(spared, start=1):
        if each.encoder is not task.encoder or each.sites != task.sites:
            raise InputError(
                f"A part is found at the sites of one encoder, but task {number} of spare= has another encoder or "
                "other sites: make it with the encoder and the sites of the first task."
            )
        if each.baseline.name != task.baseline.name:
            raise InputError(
                f"A part is found with one kind of baseline, but task {number} of spare= has {each.baseline.name!r}, "
                f"and the first task {task.baseline.name!r}: give the same."
            )


def _identity_of_all(tasks: Sequence[Task]) -> Identity:
    """Return the identity of a part that was found from several tasks.

    The tasks may differ only in their baselines. If they do, the entries ``baseline_digest`` and ``baseline_pixels``
    list the digests of all baselines.
    """
    identities = [task.identity for task in tasks]
    of_all = identities[0]
    for name in ("baseline_digest", "baseline_pixels"):
        digests = list(dict.fromkeys(each.get(name) for each in identities))
        if len(digests) > 1:
            of_all |= {name: digests}
    return of_all


def ranks_by_contrast(
    task: Task, settings: AttributionSettings
) -> Mapping[str, np.ndarray]:
    """Score each unit by its place in the order in which `own_part` removes units.

    The first unit gets 1, and each later unit gets less. Return arrays [units] by site.
    """
    with task.running(gradients=True):
        images = ImagesOfClass(task)
        return _by_unit(images, contrast([images], MOST).ranks)


def prepared(task: Task | Sequence[Task]) -> list[Task]:
    """Return a task, or several tasks, as `own_part` uses them; see `_prepared`."""
    given = [task] if isinstance(task, Task) else task
    return list(map(_prepared, given))


def _prepared(task: Task) -> Task:
    """Return the task with the model's scale in its metric, and without the site of the image.

    If the task has all sites of its encoder, only the sites that count in the size of a circuit are kept
    (`counted_sites`). If the sites of the task are a selection, all of them are kept.
    """
    scaled = at_model_scale(task)
    if named_sites(scaled) is not None:
        return without_image(scaled)
    # Sites that only read out would be cut first, because everything that a class needs passes through them.
    sites = counted_sites(scaled.encoder, progress=scaled.work.progress)
    return replace(scaled, sites=sites)


class ImagesOfClass:
    """Images of a class and of other classes, run with gates on the units; `slopes` differentiates their log-odds.

    The images of the task are indexed together: images of the class come first, then images of other classes. The
    attribute ``own`` holds the indices of the images of the class that the model recognises. ``others`` holds the
    indices of the images of other classes that the model classifies as a class other than this one. ``answers`` holds,
    for each image, the class as which the whole model classifies it.
    """

    def __init__(self, task: Task, *, contrasted: bool = True) -> None:
        """Run the images.

        Args:
            contrasted: Whether the answers to images of other classes are to be spared, so that some are needed.
        """
        if not contrasted:
            task = replace(task, others=None)
        metric = answer_metric(at_model_scale(task).metric, _WHO)
        # Error units belong to no part: a lesion does not ablate them, so the contrast keeps them, too.
        self.runs = UnitsUnderGates(task, keep_error=True)
        # Texts and indices of images are moved once, because Python waits for the GPU at each copy.
        device = self.runs.embeddings.device
        self.metric = replace(metric, weights=metric.weights.to(device))
        label = self.metric.label
        n = self.runs.n_own
        self.answers = given_classes(self.metric.log_answers(self.runs.embeddings))
        # Images of the class that the model classifies as another class are left out, and so are images of other
        # classes that it classifies as this class: a lesion can neither take nor spare a right answer on them.
        answers = self.answers.cpu()
        of_another = (answers != label) & (answers != NO_ANSWER)
        own = (answers[:n] == label).nonzero()[:, 0]
        others = n + of_another[n:].nonzero()[:, 0]
        self.own = own.to(device)
        self.others = others.to(device)
        if not len(own):
            raise InputError(
                f"The model gives none of the {n} images the class, so there is nothing that a lesion could take: "
                "give images that it recognises, or leave the class out in this style."
            )
        if not contrasted:
            return
        if not len(others):
            raise InputError(
                "A class's own part is found by contrast with other classes, but there are no images of any that the "
                "model tells from the class: give the task others= that it does not take for the class."
            )
        if len(set(answers[others].tolist())) == 1:
            log.warning(
                "All images of other classes get one answer: the part is contrasted with that alone. Give more classes."
            )

    def slopes(
        self, places: Int[Tensor, " _"], opened: Float[Tensor, " gates"]
    ) -> Iterator[tuple[Float[Tensor, "some gates"], Float[Tensor, " some"]]]:
        """Yield, for each chunk of images, the slopes d log-odds / d gates [images, gates], and probabilities [images].

        The log-odds and the probability of an image are those of the class as which the whole model classifies the
        image.

        Args:
            places: Indices of the images among all images of the task.
            opened: Value of each gate: 1 is open, 0 is cut.
        """
        for some in torch.split(places, self.runs.rows):
            # Each image has its own copy of the gates, so one backward pass gives a gradient for each image.
            gates = opened.expand(len(some), -1).detach().clone().requires_grad_()
            answers = self.metric.log_answers(self.runs.run(gates, some))
            odds = log_odds(answers, self.answers[some])
            slopes = torch.autograd.grad(odds.sum(), gates)[0]
            yield slopes, odds.detach().sigmoid()

    @torch.no_grad()
    def log_odds(
        self, places: Int[Tensor, " images"], opened: Float[Tensor, " gates"]
    ) -> Float[Tensor, " images"]:
        """Return the log-odds that `slopes` differentiates. It takes half of the operations.

        Args:
            places, opened: As for `slopes`.
        """
        odds = list[Tensor]()
        for some in torch.split(places, self.runs.rows):
            answers = self.metric.log_answers(self.runs.run(opened, some))
            odds.append(log_odds(answers, self.answers[some]))
        return torch.cat(odds)


class Contrast(NamedTuple):
    """The order in which units are cut, and what each cut did."""

    costs: Float[Tensor, " gates"]
    """Cost of each unit to the class before the first cut."""
    ranks: Float[Tensor, " gates"]
    """Rank of each unit: 1 for the first unit that is cut; each later unit has 1 / (number of units) less."""
    tried: list[list[float]]
    """One entry for each cut: the share of the units that was cut so far, and the mean probability of the class without
    these units."""


def contrast(
    images: Sequence[ImagesOfClass],
    share: float | None = None,
    spared: Bool[Tensor, " gates"] | None = None,
    spared_answers: Sequence[ImagesOfClass] = (),
) -> Contrast:
    """Cut units in the order that `own_part` describes, a growing number at a time, and record the effect of each cut.

    Args:
        images: Images of the class and of other classes, in each style.
        share: The share of cut units at which the cutting ends. If it is None, the cutting ends when the mean
            probability of the class is at chance level, or when the share reaches `MOST`.
        spared: Which units may not be cut (default: none). They come last in the order.
        spared_answers: Images whose answers are to be spared (default: the images of other classes of ``images``).
    """
    most = MOST if share is None else share
    chance = 1 / len(images[0].metric.weights)
    n = images[0].runs.n_gates
    opened = torch.ones(n, device=images[0].runs.embeddings.device)
    if spared is None:
        spared = torch.zeros(n, dtype=torch.bool)
    n_free = n - int(spared.sum())
    # Rounded, because 0.07 * 100 is 7.000000000000001 in floating point.
    if n_free < round(most * n, 9):
        raise InputError(
            f"An own part has {most:g} of the {n} units, but without the units of the given circuits {n_free} are "
            "left: give a smaller share, or fewer circuits."
        )
    spared = spared.to(opened.device)
    # The damage is measured once, on the whole model, so only images of the class are run after each cut.
    damages = [_damage(each, each.own, opened) for each in spared_answers]
    if not damages:
        damages = [_damage(of_style, of_style.others, opened) for of_style in images]
    damage = torch.stack(damages).mean(0)
    price = damage + PRICE * damage.mean()
    slopes, _ = mean_slopes(images, opened)
    costs = [slopes]
    order = opened.new_zeros(0, dtype=torch.long)
    shares = list[float]()
    probabilities = list[Tensor]()
    size = min(FIRST, most)
    while True:
        # The mean cost over the cuts so far ranks the units that are still open.
        ratio = torch.stack(costs).mean(0) / price
        # The least finite number: spared units follow all others that are open, and precede those that are cut.
        ratio.masked_fill_(spared, torch.finfo(ratio.dtype).min)
        n_cut = max(1, round(size * n)) - len(order)
        order = torch.cat([order, _falling(ratio, opened)[:n_cut]])
        opened[order] = 0
        shares.append(len(order) / n)
        if size >= most:
            # No unit is cut after this, so no slopes are needed.
            p = list[Tensor]()
            for of_style in images:
                odds = of_style.log_odds(of_style.own, opened)
                p.append(odds.sigmoid().mean())
            probabilities.append(torch.stack(p).mean(0))
            break
        slopes, mean_p = mean_slopes(images, opened)
        costs.append(slopes)
        probabilities.append(mean_p)
        if share is None and float(mean_p) <= chance:
            break
        size = min(size * GROWTH, most)
    # Units that were never cut follow in the order of the last ratio.
    rest = _falling(ratio, opened)[: n - len(order)]
    ranks = torch.empty_like(opened)
    ranks[torch.cat([order, rest])] = torch.arange(n, 0, -1).to(ranks) / n
    # Probabilities are read together, because Python waits for the GPU at each read.
    read = torch.stack(probabilities).tolist()
    tried = [list(pair) for pair in zip(shares, read, strict=True)]
    return Contrast(costs[0], ranks, tried)


def own_part_forwards(n_own: int, n_others: int, share: float = MOST) -> Forwards:
    """Return what `own_part` runs at most, on images that the model all recognises.

    Args:
        n_own: Number of images of the class.
        n_others: Number of images of other classes.
        share: Share of the units to remove.
    """
    n_cuts = 1
    size = min(FIRST, share)
    while size < share:
        size *= GROWTH
        n_cuts += 1
    # The images of the class are run before the first cut and after each; nothing is cut after the last.
    gradients = n_own * n_cuts + n_others
    return Forwards(alone=2 * n_own + n_others, back=gradients)


def _falling(ratio: Tensor, opened: Tensor) -> Tensor:
    """Return the indices of all gates: first the open gates by falling ratio, then the gates that are already cut.

    Args:
        ratio: For each gate, the cost of cutting its unit, divided by the damage to other classes plus a price.
        opened: Value of each gate: 1 is open, 0 is cut.
    """
    still_open = ratio.masked_fill(opened == 0, -torch.inf)
    return still_open.argsort(descending=True, stable=True)


def _damage(images: ImagesOfClass, places: Tensor, opened: Tensor) -> Tensor:
    """Return the damage to the answers to some images by cutting each unit [gates].

    It is the mean, over the images at ``places``, of the absolute slope of the log-odds of the model's answer.
    """
    sums = [slopes.abs().sum(0) for slopes, _ in images.slopes(places, opened)]
    return torch.stack(sums).sum(0) / len(places)


def mean_slopes(
    images: Sequence[ImagesOfClass], opened: Float[Tensor, " gates"]
) -> tuple[Float[Tensor, " gates"], Float[Tensor, ""]]:
    """Return the mean slope of the class's log-odds over images of the class, and the mean probability of the class.

    Means are taken within each style first, so all styles have the same weight.
    """
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
    return torch.stack(slopes_of_styles).mean(0), torch.stack(p_of_styles).mean(0)
