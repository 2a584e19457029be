"""Learned masks: the set of units that together keep the model's answers while all other units are ablated.

A ranking that scores each unit alone does not find such a set. So all units of the mask are searched for together.

1. Every unit has a score. A threshold lies midway between the k-th and the (k+1)-th largest score, over all sites. The
   gate of a unit is the sigmoid of its score minus the threshold. The images are run with all sites gated at once
   (`UnitsUnderGates`). The mask consists of the k units with the largest scores. A mask on edges works in the same way,
   with a gate on each edge.
2. The loss is the share of the variance of the model's answers that is lost: the squared distance between the answers
   of the gated model and the answers of the whole model, on images of the class and of other classes, divided by the
   variance of the whole model's answers (distillation of logits, Ba & Caruana 2014, arXiv 1312.6184). Labels of images
   are not used.
3. The initial scores say how much the answers depend on each gate (`fisher`). If all scores started equal, the first
   units to be removed would be those whose removal happens to raise the answers on these few images. On unseen images
   this does not hold.
4. k falls from all units to the wanted share, by the same factor at every step, and then stays constant. A mask that is
   small from the first step collapses, because no gradient passes a site whose gates are closed. If several shares are
   wanted, they are learned one after the other, and each mask starts with the scores of the mask before.
5. Logistic noise on the scores drives gates towards 0 or 1, and lets closed units open again. The noise fades while k
   falls.
6. A step is measured in units of the root mean square of the gradients of all scores together. Adam would divide each
   gradient by the root mean square of the gradients of the same score. Then a unit without an effect would move as fast
   as a unit that carries the answers.

The gates are soft. Hard gates with the gradient of a sigmoid (Bengio et al. 2013, arXiv 1308.3432) lose units that only
work together: if one of the query, key and value of a head is closed, the other two get no gradient. Masks are tested
with gates of 0 and 1.
"""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import pairwise
from typing import Annotated, Any, NamedTuple

import numpy as np
import pandas as pd
import torch
from scipy.special import expit
from torch import Tensor

from circuitry.circuits.circuit_settings import MaskSettings
from circuitry.circuits.conductance import conductance_forwards, path_effects
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
from circuitry.runs.plan import Forwards
from circuitry.runs.progress import Bar

SHRINKING = 0.7
"""Share of the steps of a size during which the mask shrinks to this size."""
LEARNING_RATE = 0.3
"""Learning rate of the scores. Scores are on the scale of the logistic noise."""
NOISE = 1.0
"""Scale of the logistic noise on the scores at the first step; it falls to 0 while the mask shrinks."""
START_WEIGHT = 3.0
"""Factor of the initial scores: units are ranked by importance, and the normal quantiles of the ranks are multiplied by
this number."""
PATIENCE = 60
"""Number of steps without a smaller loss, after the mask has shrunk, that ends the learning of a size."""
MOMENTUM = 0.9
"""Weight of the earlier steps in the running mean of the gradient."""
FORGETTING = 0.98
"""Weight of the earlier steps in the running mean of the squared gradient."""
IMPORTANCE_IMAGES = 24
"""Largest number of images of the class on which importance is measured, and likewise of images of other classes."""


class LearnedMasks(NamedTuple):
    """Masks on units or on edges, one for each size.

    Example:
        >>> few_steps = circuitry.circuits.MaskSettings(steps=2)
        >>> circuits, scores = circuitry.circuits.learn_masks(task, [0.1], few_steps)
        >>> list(scores) == [site for site in task.sites if site != "input"]
        True
    """

    circuits: list[Circuit]
    """The circuit of each mask, in the order of the given sizes. Its ``made_with`` has the entries ``size``, ``lost``,
    ``steps`` and ``seed``. ``lost`` is the share of the variance of the model's answers that the smallest mask loses on
    all images, and ``steps`` the number of steps for all sizes."""
    scores: Any
    """Final scores. For units: arrays [units] by site, with NaN for error units. For edges: an `Edges`. The scores are
    shifted so that the smallest score in the smallest mask is 0."""

    def to_pandas(self) -> pd.DataFrame:
        """Return the units of all circuits as one table: columns size (of the mask), site, unit, score."""
        tables = {one.made_with["size"]: one.to_pandas() for one in self.circuits}
        table: pd.DataFrame = pd.concat(tables, names=["size"])
        return table.reset_index("size").reset_index(drop=True)


@checked
def learn_masks(
    task: Task,
    sizes: Annotated[Sequence[Share], SOME],
    settings: MaskSettings = MaskSettings(),
    *,
    among: Circuit | None = None,
) -> LearnedMasks:
    """Learn masks: which units, or which edges of a circuit, keep the model's answers.

    Args:
        task: Images, metric, baseline and sites; the units at these sites have gates. If the task has images of other
            classes, the answers on these images are kept, too. The answers are the values of the metric. For a
            `class_logit` they also contain the logits of all classes.
        sizes: Shares of the units or edges to keep. The masks are learned one after the other, the largest first.
        settings: Number of steps, batch size, seed and precision.
        among: A circuit of edges. If given, the mask chooses among its edges instead of units, and all other edges
            between the same sites are cut. In a chain every downstream unit needs a run of its own, so give edges
            between few units.

    Raises:
        InputError: if a size is outside (0, 1], there are no edges to choose from, the answers of all images are equal,
            or ``settings.batch_size`` is 1 although there are images of other classes.

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
    # A mask says which units work together, but not what each unit contributes. So effects on the metric are computed
    # separately.
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


def mask_forwards(
    n_own: int, n_others: int, settings: MaskSettings = MaskSettings()
) -> Forwards:
    """Return what `learn_masks` runs at most: learning ends earlier if the loss no longer falls.

    Args:
        n_own: Number of images of the class.
        n_others: Number of images of other classes.
        settings: Number of steps, and images of a step.
    """
    n_images = n_own + n_others
    start = min(n_own, IMPORTANCE_IMAGES) + min(n_others, IMPORTANCE_IMAGES)
    steps = settings.steps * min(settings.batch_size, n_images)
    # The images are run once without gates, and once with the mask. Effects on the metric are measured apart.
    learning = Forwards(alone=2 * n_images, back=start + steps)
    return learning + conductance_forwards(n_own)


def _gated(task: Task, among: Circuit | None) -> Gated[Any]:
    """Return the images of the task, ready to be run with gates on all units or on the edges of a circuit."""
    if among is None:
        return UnitsUnderGates(task)
    if not among.its_edges.count:
        raise InputError(
            "Masks choose from at least one edge, but none was given: see Edges.between."
        )
    return EdgesUnderGates(task, among.its_edges)


def gates_of(scores: UnitValues) -> UnitValues:
    """Return the final gates [units] by site from the final scores; error units have no gate and get 0."""
    gates = UnitValues()
    for site, of_site in scores.items():
        gates[site] = np.nan_to_num(expit(of_site.astype(float)))
    return gates


class _Learning:
    """The images, the answers to keep, and the initial scores; `learn` learns masks from them."""

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
        # Ranks instead of the importance itself, whose few large values would leave all other gates nearly equal.
        importance = gate_importance(runs, answers, IMPORTANCE_IMAGES)
        self.first = START_WEIGHT * normal_ranks(importance)

    def learn(
        self, sizes: Sequence[float], bar: Bar
    ) -> tuple[list[Any], Any, float, int]:
        """Learn a mask for each size.

        Returns:
            The units or edges of each mask in the order of ``sizes``, the final scores, the share of the answers'
            variance that the smallest mask loses, and the number of steps.
        """
        generator = torch.Generator().manual_seed(self.settings.seed)
        scores = self.first.clone().requires_grad_()
        descent = _Descent()
        falling = sorted(sizes, reverse=True)
        masks = list[Tensor]()
        # The steps are shared equally by the sizes; a mask of all units (size 1) needs no steps.
        steps = self.settings.steps // max(1, sum(size < 1 for size in sizes)) or 1
        for larger, size in pairwise([1.0, *falling]):
            if size < 1:
                self._shrink(scores, (larger, size), descent, generator, bar, steps)
            masks.append(_largest(scores.detach(), self._count(size)))
        smallest = masks[-1]
        # Only differences of scores matter, because the threshold moves with the scores. So they are shifted such that
        # the smallest score in the smallest mask is 0.
        above = scores.detach() - scores.detach()[smallest].min()
        ends = above.cpu().numpy()
        # Masks were learned by falling size. `places` holds the place of each given size in this order.
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
        """Train the scores in place while the size falls from ``sizes[0]`` to ``sizes[1]`` and then stays constant.

        Args:
            scores: The scores; they are changed in place.
            sizes: The size of the mask at the start and at the end.
            descent: The optimiser.
            generator: Random numbers for noise and images.
            bar: Progress bar; it counts every step.
            steps: Largest number of steps. The training ends earlier if the loss no longer falls.
        """
        best = float("inf")
        steps_since_best = 0
        smoothed: float | None = None
        for share, left in _schedule(*sizes, steps):
            # Logistic noise is the logit of a uniform random number. It would be infinite at 0 and 1.
            noise = torch.rand(len(scores), generator=generator)
            noise = noise.clamp(1e-6, 1 - 1e-6).logit().to(self.device)
            noisy = scores + NOISE * left * noise
            k = self._count(share)
            # The threshold lies midway between the k-th and the next largest score, so k gates are above one half. If
            # there is no next score, the threshold is the k-th.
            largest = noisy.detach().topk(min(k + 1, len(noisy))).values
            gates = torch.sigmoid(noisy - largest[k - 1 :].mean())
            chosen = self._draw(generator)
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
            # The loss is measured on a few drawn images. It is smoothed, because otherwise a lucky draw would end the
            # learning.
            smoothed = now if smoothed is None else 0.9 * smoothed + 0.1 * now
            steps_since_best += 1
            if smoothed < best:
                best = smoothed
                steps_since_best = 0
            if steps_since_best >= PATIENCE:
                break

    def _count(self, share: float) -> int:
        return max(1, round(share * len(self.first)))

    def _measure(self, gates: Tensor) -> float:
        """Return the share of the answers' variance that is lost with the given gates, on all images."""
        lost = 0.0
        with torch.no_grad():
            for some in torch.split(torch.arange(len(self.runs)), self.runs.rows):
                lost += float(self._lost(self.runs.run(gates, some), some)) * len(some)
        return lost / len(self.runs)

    def _draw(self, generator: torch.Generator) -> Tensor:
        """Return the indices of images for a step: half from the class and half from other classes.

        If there are too few images of one of the two kinds, images of the other kind fill the batch.
        """
        # The smaller set comes first, so that the larger set fills the places that are left.
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
    """Gradient descent with momentum: Adam (Kingma & Ba 2015, arXiv 1412.6980) with one mean square for all scores.

    Adam would divide each gradient by a mean square of its own. Then a unit without an effect would move as fast as a
    unit that carries the answers.
    """

    def __init__(self) -> None:
        self.steps = 0
        self.mean: Tensor | float = 0.0
        self.square = 0.0

    def step(self, scores: Tensor, gradient: Tensor) -> None:
        """Take one step: move the scores, in place, against the running mean of the gradient."""
        self.steps += 1
        self.mean = MOMENTUM * self.mean + (1 - MOMENTUM) * gradient
        self.square = FORGETTING * self.square + (1 - FORGETTING) * float(
            gradient.square().mean()
        )
        # Both running means start at 0. The divisions correct for this bias, as in Adam.
        size = (self.square / (1 - FORGETTING**self.steps)) ** 0.5
        rate = LEARNING_RATE / (1 - MOMENTUM**self.steps) / max(size, 1e-30)
        with torch.no_grad():
            scores -= rate * self.mean


def _schedule(larger: float, size: float, steps: int) -> Iterator[tuple[float, float]]:
    """Yield, for each step, the size of the mask as a share of the units, and the scale of the noise.

    The size falls from ``larger`` to ``size``, and then stays constant. The scale of the noise falls from 1 to 0 at the
    same time. If there is only a single step, its size is ``larger``.
    """
    falling = max(1, min(round(SHRINKING * steps), steps - 1))
    for step in range(steps):
        done = min(1.0, step / falling)
        yield larger * (size / larger) ** done, 1 - done


def _largest(scores: Tensor, k: int) -> Tensor:
    """Return a mask of the k largest scores; of equal scores the first ones are chosen."""
    # topk is not used, because it does not define the order of equal values.
    mask = torch.zeros(len(scores), dtype=torch.bool, device=scores.device)
    mask[torch.argsort(-scores, stable=True)[:k]] = True
    return mask
