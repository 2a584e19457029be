"""Published ways to find the units that a class needs, registered as methods beside `contrast` (`register_rivals`).

Each rival ranks units by numbers that are measured on the same images: those of the class, and those of other classes.

| name | a unit ranks by | published by |
|---|---|---|
| ``dampening-ratio`` | squared slope of the loss on the class over that on all images | Foster et al. 2024, SSD |
| ``pruning-abs`` | mean absolute activation on the class over that on others | Pochinkov and Schoots 2024 |
| ``pruning-rms`` | the same with root mean squares | Pochinkov and Schoots 2024 |
| ``tf-idf`` | share of the class's activation in a site, times the rarity among classes | Wang et al. 2022 |
| ``class-selectivity`` | difference of mean activations over their sum | Morcos et al. 2018 |
| ``probe-weights`` | weight in a ridge probe of the class that reads the site | |
| ``fisher-difference`` | squared slopes of all answers on the class, less those on others | |
| ``contrast-once`` | the ratio of `contrast`, measured on the whole model alone | |
| ``dissociation`` | a gate that is learned so that the class is lost and other answers stay | |

Attribution patching is the package's ``gradient``. SSD and pruning are defined on weights or neurons of other networks;
here their ratios rank units, so that all rivals ablate equally many units. SSD in its own form is in
`edits_that_forget`.
"""

from collections import defaultdict
from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial
from typing import Any, NamedTuple

from circuitry.circuits import Method, register_method
from circuitry.circuits.own_part_of_class import PRICE, ImagesOfClass
from circuitry.encoder import Task
from circuitry.encoder.baselines import ZERO
from circuitry.encoder.task import with_others
from circuitry.encoder.tensor_batches import one_tensor
from circuitry.gates import UnitsUnderGates
from circuitry.gates.fisher import default_answers, set_importance
from circuitry.models.ridge import ridge_probe

import numpy as np
import torch
from torch import Tensor

UnitScores = dict[str, np.ndarray]
"""A number for each unit, by site."""
TINY = 1e-9
"""Added to a denominator, so that a unit that is silent on all images gets 0, and not 0 / 0."""
STEPS = 10
"""Steps in which the gates of `dissociation_gates` are learned."""
SPARSE = 3.0
"""Weight of the share of units that the gates close."""


class Measured(NamedTuple):
    """What rivals are computed from: numbers of each unit on each image, by site."""

    label: int
    """Label of the class."""
    answers: np.ndarray
    """For each image, the label of the class that the model gives it. Images of the class have ``label``."""
    probabilities: np.ndarray
    """For each image, the probability of this answer."""
    slopes: UnitScores
    """Derivatives of the log-odds of this answer with respect to the gates of units [images, units]."""
    means: UnitScores
    """Mean activations over positions [images, units]."""
    sizes: UnitScores
    """Mean absolute activations over positions [images, units]."""
    squares: UnitScores
    """Mean squared activations over positions [images, units]."""

    @property
    def is_own(self) -> np.ndarray:
        """Mask of the images of the class."""
        is_own: np.ndarray = self.answers == self.label
        return is_own


def measure(task: Task) -> Measured:
    """Measure all units of a task without error units.

    Images of the class that the model gives another class are left out, and so are images of other classes that it
    gives this class, as in `own_part`.
    """
    with task.running(gradients=True):
        images = ImagesOfClass(task)
        counted = torch.cat([images.own, images.others])
        answers = images.answers[counted].numpy()
        opened = torch.ones(images.runs.n_gates)
        slopes = list[Tensor]()
        probabilities = list[Tensor]()
        for some_slopes, some_p in images.slopes(counted, opened):
            slopes.append(some_slopes)
            probabilities.append(some_p)
        n_units = task.encoder.count_units(task.sites)
        ends = np.cumsum(list(n_units.values()))[:-1]
        of_sites = np.split(torch.cat(slopes).double().numpy(), ends, axis=1)
        everything, _ = with_others(task)
        chosen = one_tensor(everything.images)[counted]
        means, sizes, squares = _activations(task, chosen)
    return Measured(
        images.metric.label,
        answers,
        torch.cat(probabilities).double().numpy(),
        dict(zip(n_units, of_sites, strict=True)),
        means,
        sizes,
        squares,
    )


def _activations(
    task: Task, images: Tensor
) -> tuple[UnitScores, UnitScores, UnitScores]:
    """Return, by site, means over positions [images, units]: of activations, of their sizes, and of their squares."""
    reductions: tuple[Callable[[Tensor], Tensor], ...] = (
        lambda positions: positions,
        torch.abs,
        torch.square,
    )
    reduced = [defaultdict[str, list[Tensor]](list) for _ in reductions]
    # Only activations are read, so no baseline is needed.
    of_images = replace(task, images=images, others=None, baseline=ZERO)
    for batch in of_images.batches():
        for site, activation in batch.clean(task.sites).items():
            units = task.encoder.units_of(site, activation)
            units = units.movedim(task.encoder.unit_dim(site), 1)
            positions = units.reshape(*units.shape[:2], -1).double()
            for by_site, reduction in zip(reduced, reductions, strict=True):
                by_site[site].append(reduction(positions).mean(2))
    means, sizes, squares = (
        {site: torch.cat(of_batches).numpy() for site, of_batches in by_site.items()}
        for by_site in reduced
    )
    return means, sizes, squares


def dampening_ratio(measured: Measured) -> UnitScores:
    """Score units by the squared slope of the loss on images of the class, over that on all images."""
    # d log p = (1 - p) d log-odds, and the loss is -log p.
    of_loss = (1 - measured.probabilities)[:, None]
    scores = UnitScores()
    for site, slopes in measured.slopes.items():
        importance = np.square(of_loss * slopes)
        of_all = importance.mean(0)
        of_class = importance[measured.is_own].mean(0)
        scores[site] = of_class / np.where(of_all > 0, of_all, np.inf)
    return scores


def pruning_abs(measured: Measured) -> UnitScores:
    """Score units by the mean absolute activation on images of the class, over that on images of other classes."""
    return _ratios(measured, measured.sizes, lambda means: means)


def pruning_rms(measured: Measured) -> UnitScores:
    """Score units by the root mean square of activations on images of the class, over that on other images."""
    return _ratios(measured, measured.squares, np.sqrt)


def _ratios(
    measured: Measured,
    activity: UnitScores,
    finish: Callable[[np.ndarray], np.ndarray],
) -> UnitScores:
    scores = UnitScores()
    for site, of_images in activity.items():
        of_class = finish(of_images[measured.is_own].mean(0))
        of_others = finish(of_images[~measured.is_own].mean(0))
        scores[site] = of_class / (of_others + TINY)
    return scores


def tf_idf(measured: Measured) -> UnitScores:
    """Score units by the share that they have in the class's activation of their site, times their rarity.

    Rarity is log(n / (1 + m)), where m of n classes activate the unit at least as much as classes do on average.
    """
    labels = np.unique(measured.answers)
    scores = UnitScores()
    for site, means in measured.means.items():
        positive = np.maximum(means, 0)
        of_classes = np.stack(
            [positive[measured.answers == label].mean(0) for label in labels]
        )
        of_class = of_classes[labels == measured.label][0]
        n_active = (of_classes >= of_classes.mean(0)).sum(0)
        rarity = np.log(len(labels) / (1 + n_active))
        scores[site] = of_class / (of_class.sum() + TINY) * rarity
    return scores


def class_selectivity(measured: Measured) -> UnitScores:
    """Score units by the class selectivity index.

    The index is the mean activation on images of the class less the mean on images of other classes, divided by the sum
    of their sizes.
    """
    scores = UnitScores()
    for site, means in measured.means.items():
        a = means[measured.is_own].mean(0)
        b = means[~measured.is_own].mean(0)
        scores[site] = (a - b) / (np.abs(a) + np.abs(b) + TINY)
    return scores


def probe_weights(measured: Measured) -> UnitScores:
    """Score units by the weights of a ridge probe of the class at each site, which reads standardised activations."""
    scores = UnitScores()
    for site, means in measured.means.items():
        _, ridge = ridge_probe().fit(means, measured.is_own)
        scores[site] = ridge.coef_.ravel()
    return scores


def contrast_once(measured: Measured) -> UnitScores:
    """Score units by the ratio that `contrast` orders them by, measured on the whole model alone."""
    costs = UnitScores()
    damages = UnitScores()
    for site, slopes in measured.slopes.items():
        costs[site] = slopes[measured.is_own].mean(0)
        damages[site] = np.abs(slopes[~measured.is_own]).mean(axis=0)
    price = PRICE * float(np.concatenate(list(damages.values())).mean())
    return {site: costs[site] / (damages[site] + price) for site in costs}


def random_of_top_decile(measured: Measured, seed: int = 0) -> UnitScores:
    """Score the tenth of the units with the largest effects on the class's log-odds at random, all others by 0."""
    effects = {
        site: slopes[measured.is_own].mean(0)
        for site, slopes in measured.slopes.items()
    }
    least = np.quantile(np.concatenate(list(effects.values())), 0.9)
    drawn = random_units(measured, seed)
    return {site: drawn[site] * (effects[site] >= least) for site in effects}


def random_units(measured: Measured, seed: int = 0) -> UnitScores:
    """Score all units at random."""
    rng = np.random.default_rng(seed)
    scores = UnitScores()
    for site, slopes in measured.slopes.items():
        scores[site] = 0.1 + rng.random(slopes.shape[1:])
    return scores


def fisher_difference(task: Task, settings: Any = None) -> UnitScores:
    """Score units by how much more their gates change all answers on images of the class than on others."""
    with task.running(gradients=True):
        runs = UnitsUnderGates(task)
        answers = default_answers(task.metric)
        # Runs are of images of the class first, then of other classes; no unit is cut beforehand.
        of_own = (range(runs.n_own), ())
        of_others = (range(runs.n_own, len(runs)), ())
        own, others = set_importance(runs, answers, [of_own, of_others])
        scores: UnitScores = runs.scored((own - others).double().numpy())
        return scores


def dissociation_gates(
    task: Task, settings: Any = None, sparse: float = SPARSE
) -> UnitScores:
    """Score units by how far their gates close.

    Gates are learned so that the class is lost, and the answers on images of other classes stay.

    Args:
        task: Images of the class and of other classes.
        settings: Ignored.
        sparse: Weight of the share of units that the gates close.
    """
    with task.running(gradients=True):
        runs = UnitsUnderGates(task)
        metric: Any = task.metric
        n_own = runs.n_own
        n_others = len(runs) - runs.n_own
        whole = metric.log_answers(runs.embeddings).detach()
        # Gates are open at first: the sigmoid of -3 is 0.05.
        closed = torch.full((runs.n_gates,), -3.0, requires_grad=True)
        optimizer = torch.optim.Adam([closed], 0.25)
        generator = torch.Generator().manual_seed(0)
        for _ in range(STEPS):
            # All images of the class in each step, and eight others, which are many.
            drawn = n_own + torch.randperm(n_others, generator=generator)[:8]
            places = torch.cat([torch.arange(n_own), drawn])
            gates = (1 - closed.sigmoid()).expand(len(places), -1)
            answers = metric.log_answers(runs.run(gates, places))
            lost = answers[:n_own, metric.label].exp().mean()
            # Kullback-Leibler divergence from the answers of the whole model, on the other images.
            changed = whole[places].exp() * (whole[places] - answers)
            kept = changed.sum(-1)[n_own:].mean()
            loss = lost + kept + sparse * closed.sigmoid().mean()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        scores: UnitScores = runs.scored(closed.detach().double().numpy())
        return scores


RATIOS: Mapping[str, Callable[[Measured], UnitScores]] = {
    "dampening-ratio": dampening_ratio,
    "pruning-abs": pruning_abs,
    "pruning-rms": pruning_rms,
    "tf-idf": tf_idf,
    "class-selectivity": class_selectivity,
    "probe-weights": probe_weights,
    "contrast-once": contrast_once,
    "random-of-top-decile": random_of_top_decile,
    "random": random_units,
}
"""Rivals that need nothing but one measurement of all units, by name."""
SEARCHES: Mapping[str, Callable[..., UnitScores]] = {
    "fisher-difference": fisher_difference,
    "dissociation": dissociation_gates,
}
"""Rivals that run the model in a way of their own, by name. They take a task and settings."""


def _measured_scores(
    ratio: Callable[[Measured], UnitScores], task: Task, settings: Any
) -> UnitScores:
    return ratio(measure(task))


def register_rivals() -> list[str]:
    """Register all rivals as methods of units, and return their names.

    The units with the largest scores are the part, so the scores count as effects, whose sign matters.
    """
    scorers: dict[str, Callable[..., UnitScores]] = dict(SEARCHES)
    for name, ratio in RATIOS.items():
        scorers[name] = partial(_measured_scores, ratio)
    for name, scorer in scorers.items():
        register_method(Method(name, function=scorer, takes_others=True))
    return [*RATIOS, *SEARCHES]
