"""Learned masks: the set of units that together keep the model's answers while everything else is ablated.

A ranking of units one by one does not find such a set; this searches for it as a whole.

1. Every unit has a score. Its gate is a sigmoid of how far the score lies above the middle between the k-th and the
   next largest of all sites together, and the images run with all sites gated at once (`UnitsUnderGates`). The mask is
   the k units with the largest scores. A mask on edges is the same with a gate on each edge.
2. The loss is how much of the whole model's answers is lost: the squared distance between the answers of the gated and
   the whole model on images of the class and of other classes, over the variance of the latter (distillation of logits,
   Ba & Caruana 2014, arXiv 1312.6184). The label plays no part.
3. Scores start from how much the answers depend on each gate (`fisher`). Where all start alike, the first units to
   go are those whose loss happens to raise the answers on these few images, which does not hold for unseen ones.
4. k falls from all units to the wanted share, by the same factor at every step, and then stays. A mask that is small
   from the first step collapses: no gradient passes a site that is closed. Each of several shares is a stage of its
   own, which begins with the scores of the one before.
5. Logistic noise on the scores drives gates apart, and lets closed units come back; it fades with the shrinking.
6. Steps are in units of the root mean square of the gradients of all scores together. Adam takes that mean score by
   score, and so moves a unit without effect as fast as one that carries the answers.

Gates are soft because hard ones with the gradient of a sigmoid (Bengio et al. 2013, arXiv 1308.3432) lose what works
only together: where one of query, key and value is closed, the others get no gradient. Masks are checked with
gates of 0 and 1.
"""

from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from itertools import pairwise
from typing import Annotated, Any, NamedTuple

import numpy as np
import torch
from scipy.special import expit
from torch import Tensor

from circuitry.circuits.circuit_settings import MaskSettings
from circuitry.circuits.conductance import path_effects
from circuitry.circuits.graph import Circuit
from circuitry.circuits.methods import LEARNED, method_code
from circuitry.circuits.scored_units import scores_of
from circuitry.encoder.task import Task
from circuitry.gates.fisher import (
    Answers,
    default_answers,
    gate_importance,
    normal_ranks,
    variance_of,
)
from circuitry.gates.images_under_gates import (
    EdgesUnderGates,
    Gated,
    UnitsUnderGates,
    UnitValues,
)
from circuitry.runs.arguments import SOME, Share, checked
from circuitry.runs.errors import InputError
from circuitry.runs.progress import Bar

SHRINKING = 0.7
"""Share of a size's steps over which the size falls."""
LEARNING_RATE = 0.3
"""Learning rate of the scores, which are in the unit of the logistic noise."""
NOISE = 1.0
"""Scale of the logistic noise on the scores at the first step; it falls to 0 with the shrinking."""
START_WEIGHT = 3.0
"""Spread of the scores at the start: normal quantiles of the ranks of importance among all units, times this."""
PATIENCE = 60
"""Steps after the shrinking without a smaller loss before a size is done."""
MOMENTUM = 0.9
"""Weight of the earlier steps in the mean gradient."""
FORGETTING = 0.98
"""Weight of the earlier steps in the mean square of the gradient."""
IMPORTANCE_IMAGES = 24
"""Images of the class, and others, that importance is measured on at most."""


class LearnedMasks(NamedTuple):
    """Masks on units or on edges, one for each size.

    Example:
        >>> few_steps = circuitry.circuits.MaskSettings(steps=2)
        >>> circuits, scores = circuitry.circuits.learn_masks(task, [0.1], few_steps)
        >>> list(scores) == [site for site in task.sites if site != "input"]
        True
    """

    circuits: list[Circuit]
    """The circuit of each mask, in the order of the given sizes; each is ``made_with`` the share of the variance of the
    model's answers that the smallest loses, on all images, and the steps that were taken."""
    scores: Any
    """Final scores: of units by site [units], NaN for error units; of edges an `Edges` with them. They are less the
    smallest score in the smallest circuit, whose units or edges so have 0 or more."""


@checked
def learn_masks(
    task: Task,
    sizes: Annotated[Sequence[Share], SOME],
    settings: MaskSettings = MaskSettings(),
    *,
    among: Circuit | None = None,
) -> LearnedMasks:
    """Learn which units, or edges, keep the model's answers.

    Args:
        task: Images, metric and baseline, and images of other classes, on which the answers are kept, too; units at its
            sites have gates. Answers are the metric, for a `class_logit` with the logits of all classes.
        sizes: Shares of the units, or edges, to keep; masks are learned one after the other by falling size.
        among: A circuit whose edges are chosen from, in place of units; all other edges between the same sites are cut.
            In a chain every downstream unit has a run of its own: give edges between few units.

    Raises:
        InputError: for a size outside (0, 1], no edges to choose from, answers that do not differ, or steps of a single
            image where there are others.

    Example:
        >>> few_steps = circuitry.circuits.MaskSettings(steps=4)
        >>> learned = circuitry.circuits.learn_masks(task, [0.3, 0.1], few_steps)
        >>> [round(circuit.size, 1) for circuit in learned.circuits]
        [0.3, 0.1]
    """
    with (
        task.running(gradients=True),
        task.bar("masks", "step", settings.steps) as bar,
    ):
        runs = _gated(task, among)
        learning = _Learning(runs, default_answers(task.metric), settings)
        chosen, scores, lost, steps = learning.learn(sizes, bar)
    by_learning = {"lost": lost, "steps": steps, "seed": settings.seed}
    made = [{"size": size} | by_learning for size in sizes]
    circuits = list[Circuit]()
    if among is not None:
        for edges, made_with in zip(chosen, made, strict=True):
            circuits.append(replace(among, edges=edges, made_with=made_with))
        return LearnedMasks(circuits, scores)
    # A mask says which units work together, and nothing of what each adds: effects on the metric are measured apart.
    effects = replace(path_effects(task)[0], importance=gates_of(scores))
    by_mask = {
        "method": LEARNED,
        "method_code": method_code(LEARNED),
        "budget": LEARNED,
    }
    source = scores_of(task, effects, by_mask | task.identity)
    for units, made_with in zip(chosen, made, strict=True):
        strongest_first = dict[str, np.ndarray]()
        for site, of_site in units.items():
            order = np.argsort(-source.ranked_by[site][of_site])
            strongest_first[site] = of_site[order]
        circuits.append(Circuit(source, strongest_first, made_with=made_with))
    return LearnedMasks(circuits, scores)


def _gated(task: Task, among: Circuit | None) -> Gated[Any]:
    """Return the images with gates on all units, or on the edges of a circuit."""
    if among is None:
        return UnitsUnderGates(task)
    if not among.its_edges.count:
        raise InputError(
            "Masks choose from at least one edge, but none was given: see Edges.between."
        )
    return EdgesUnderGates(task, among.its_edges)


def gates_of(scores: UnitValues) -> UnitValues:
    """Return the gates that training ended with by site, 0 for error units, which have none."""
    gates = UnitValues()
    for site, of_site in scores.items():
        gates[site] = np.nan_to_num(expit(of_site.astype(float)))
    return gates


class _Learning:
    """The images, the answers to keep, and the scores that training starts from."""

    def __init__(
        self, runs: Gated[Any], answers: Answers, settings: MaskSettings
    ) -> None:
        self.runs = runs
        self.answers = answers
        self.settings = settings
        self.device = runs.embeddings.device
        self.target = answers(runs.embeddings).detach()
        self.variance = float(variance_of(self.target))
        images = torch.arange(len(runs))
        sides = (images[: runs.n_own], images[runs.n_own :])
        self.sides = [side for side in sides if len(side)]
        if settings.batch_size < len(self.sides):
            raise InputError(
                f"A step draws images of the class and of others, but batch_size={settings.batch_size} leaves none for "
                f"one of them: take at least {len(self.sides)}."
            )
        # Ranks, not importance: its few large values would leave all other gates alike.
        importance = gate_importance(runs, answers, IMPORTANCE_IMAGES)
        self.first = START_WEIGHT * normal_ranks(importance)

    def learn(
        self, sizes: Sequence[float], bar: Bar
    ) -> tuple[list[Any], Any, float, int]:
        """Return the units or edges of the mask of each size, the scores, the loss at the end, and the steps taken."""
        generator = torch.Generator().manual_seed(self.settings.seed)
        scores = self.first.clone().requires_grad_()
        descent = _Descent()
        falling = sorted(sizes, reverse=True)
        masks = list[Tensor]()
        # Sizes share out the steps; a mask of all units takes none.
        steps = self.settings.steps // max(1, sum(size < 1 for size in sizes)) or 1
        for larger, size in pairwise([1.0, *falling]):
            if size < 1:
                self._shrink(scores, (larger, size), descent, generator, bar, steps)
            masks.append(_largest(scores.detach(), self._count(size)))
        smallest = masks[-1]
        # Only differences of scores matter, since the middle moves with them: 0 is put where the smallest mask ends.
        above = scores.detach() - scores.detach()[smallest].min()
        ends = above.cpu().numpy()
        # Sizes fall while masks are learned; the place of each given size in that order.
        places = np.argsort(np.argsort(-np.asarray(sizes), kind="stable"))
        chosen = [
            self.runs.chosen(masks[place].cpu().numpy(), ends)
            for place in places.tolist()
        ]
        lost = self._measure(smallest.float())
        return chosen, self.runs.scored(ends), lost, descent.steps

    def _shrink(
        self,
        scores: Tensor,
        sizes: tuple[float, float],
        descent: "_Descent",
        generator: torch.Generator,
        bar: Bar,
        steps: int,
    ) -> None:
        """Train the scores while the size falls from the first to the second, and then stays."""
        best = float("inf")
        steps_since_best = 0
        smoothed: float | None = None
        for share, left in _schedule(*sizes, steps):
            # Logistic noise is the logit of a uniform number; at 0 and 1 it is infinite.
            noise = torch.rand(len(scores), generator=generator)
            noise = noise.clamp(1e-6, 1 - 1e-6).logit().to(self.device)
            noisy = scores + NOISE * left * noise
            k = self._count(share)
            # The middle between the k-th and the next largest, if there is one: k gates are above one half.
            largest = noisy.detach().topk(min(k + 1, len(noisy))).values
            gates = torch.sigmoid(noisy - largest[k - 1 :].mean())
            chosen = self._draw(generator)
            with self._precision():
                embeddings = self.runs.run(gates, chosen)
            loss = self._lost(embeddings.to(self.target.dtype), chosen)
            descent.step(scores, torch.autograd.grad(loss, [scores])[0])
            bar.update()
            now = float(loss.detach())
            bar.set_postfix_str(
                f"{share:.0%} of the units, loses {now:.2f}", refresh=False
            )
            if left > 0:
                continue
            # The loss is that of a few drawn images: smoothed, else a lucky draw ends the search.
            smoothed = now if smoothed is None else 0.9 * smoothed + 0.1 * now
            steps_since_best += 1
            if smoothed < best:
                best = smoothed
                steps_since_best = 0
            if steps_since_best >= PATIENCE:
                break

    def _precision(self) -> AbstractContextManager[Any]:
        """Return the context of a run: of lower precision where the settings ask for it."""
        name = self.settings.autocast
        if name is None:
            return nullcontext()
        return torch.autocast(self.device.type, dtype=getattr(torch, name))

    def _count(self, share: float) -> int:
        return max(1, round(share * len(self.first)))

    def _measure(self, gates: Tensor) -> float:
        """Return the share of the answers' variance that is lost, over all images."""
        lost = 0.0
        with torch.no_grad():
            for some in torch.split(torch.arange(len(self.runs)), self.runs.rows):
                lost += float(self._lost(self.runs.run(gates, some), some)) * len(some)
        return lost / len(self.runs)

    def _draw(self, generator: torch.Generator) -> Tensor:
        """Return the images of a step: as many of the class as of other classes, as far as there are."""
        # The smaller side comes first, so that the larger one fills the places that it leaves.
        left = min(self.settings.batch_size, len(self.runs))
        drawn = list[Tensor]()
        for i, side in enumerate(sorted(self.sides, key=len)):
            n = min(len(side), left // (len(self.sides) - i))
            drawn.append(side[torch.randperm(len(side), generator=generator)[:n]])
            left -= n
        return torch.cat(drawn).to(self.device)

    def _lost(self, embeddings: Tensor, chosen: Tensor) -> Tensor:
        distance = (self.answers(embeddings) - self.target[chosen]).square().sum(1)
        return distance.mean() / self.variance


class _Descent:
    """Gradient descent with momentum; see the module.

    Adam (Kingma & Ba 2015, arXiv 1412.6980) with one mean square for all scores.
    """

    def __init__(self) -> None:
        self.steps = 0
        self.mean: Tensor | float = 0.0
        self.square = 0.0

    def step(self, scores: Tensor, gradient: Tensor) -> None:
        """Move the scores down the mean gradient."""
        self.steps += 1
        self.mean = MOMENTUM * self.mean + (1 - MOMENTUM) * gradient
        self.square = FORGETTING * self.square + (1 - FORGETTING) * float(
            gradient.square().mean()
        )
        # Both means start at 0; the divisions correct for that, as in Adam.
        size = (self.square / (1 - FORGETTING**self.steps)) ** 0.5
        rate = LEARNING_RATE / (1 - MOMENTUM**self.steps) / max(size, 1e-30)
        with torch.no_grad():
            scores -= rate * self.mean


def _schedule(larger: float, size: float, steps: int) -> Iterator[tuple[float, float]]:
    """Yield the share of the units that is kept at each step, and how much of the shrinking is left.

    The last step has the smaller size; a single one has the larger.
    """
    falling = max(1, min(round(SHRINKING * steps), steps - 1))
    for step in range(steps):
        done = min(1.0, step / falling)
        yield larger * (size / larger) ** done, 1 - done


def _largest(scores: Tensor, k: int) -> Tensor:
    """Return a mask of the k largest scores, the first among equals."""
    # topk would do, but says nothing about the order of equals.
    mask = torch.zeros(len(scores), dtype=torch.bool, device=scores.device)
    mask[torch.argsort(-scores, stable=True)[:k]] = True
    return mask
