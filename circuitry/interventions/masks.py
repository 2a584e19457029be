"""Learned masks: the set of units that together keep the model's answers while everything else is ablated.

A ranking of units one by one does not find such a set; this searches for it as a whole.

1. Every unit has a score. Its gate is a sigmoid of how far the score lies above the middle between the k-th and the
   next largest of all sites together, and the images run with all sites gated at once (`gates`). The mask is the k
   units with the largest scores.
2. The loss is how much of the whole model's answers is lost: the squared distance between the answers of the gated and
   the whole model on images of the class and of other classes, over the variance of the latter (distillation of logits,
   Ba & Caruana 2014, arXiv 1312.6184). The label plays no part.
3. Scores start from how much the answers depend on each gate (`importance`). Where all start alike, the first units to
   go are those whose loss happens to raise the answers on these few images, which does not hold for unseen ones.
4. k falls from all units to the wanted share, by the same factor at every step, and then stays. A mask that is small
   from the first step collapses: no gradient passes a site that is closed. Of several shares each is a stage of its
   own, which begins with the scores of the one before.
5. Logistic noise on the scores drives gates apart, and lets closed units come back; it fades with the shrinking.

Gates are soft because hard ones with the gradient of a sigmoid (Bengio et al. 2013, arXiv 1308.3432) lose what works
only together: a query, a key and a value of which one is closed pass no gradient to the others. Masks are checked with
gates of 0 and 1.
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, NamedTuple

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor
from tqdm import tqdm

from circuitry.interventions.answers import Answers
from circuitry.interventions.descent import NormedDescent
from circuitry.interventions.gates import Gated
from circuitry.interventions.importance import answer_changes, normal_ranks
from circuitry.runs.errors import InputError


@dataclass(frozen=True)
class MaskSettings:
    """How masks are learned."""

    steps: int = 300
    """Steps of gradient descent for all sizes together."""
    shrinking: float = 0.7
    """Share of a size's steps over which the size falls."""
    batch_size: int = 24
    """Images per step: half of them of the class, where there are others; then at least 2."""
    learning_rate: float = 0.3
    """Of the scores, whose unit is that of the logistic noise."""
    noise: float = 1.0
    """Scale of the logistic noise on the scores at the first step; it falls to 0 with the shrinking."""
    start_weight: float = 3.0
    """Spread of the scores that training starts from: normal quantiles of the ranks of importance among all units, or
    of a given ranking within each site, times this."""
    patience: int = 60
    """Steps after the shrinking without a better loss before a size is done."""
    restarts: int = 1
    """Trainings from different seeds; the one that loses least is returned."""
    seed: int = 0
    """Seed of noise and minibatches."""
    autocast: str | None = None
    """Lower precision of the runs while learning: ``bfloat16`` or ``float16``; masks are checked without it."""

    def __post_init__(self) -> None:
        if min(self.steps, self.batch_size, self.restarts, self.patience) < 1 or not 0 < self.shrinking <= 1:
            raise InputError(
                "Masks need at least one step, image per step, restart and step of patience, and shrink over a share "
                f"of the steps in (0, 1], but {self} was given."
            )
        if self.autocast not in (None, "bfloat16", "float16"):
            raise InputError(f"Autocast is to bfloat16 or float16, but {self.autocast!r} was given.")
        if self.learning_rate <= 0 or self.noise < 0 or self.start_weight < 0:
            raise InputError(
                f"The learning rate of masks is positive, noise and start_weight are 0 or more, but {self} was given."
            )


class LearnedMask(NamedTuple):
    """A mask and how it came about."""

    scores: dict[str, Float[np.ndarray, " units"]]
    """By site, how far above the least kept unit of the smallest mask a unit's score ends; its units have 0 or more."""
    path: tuple[dict[str, Bool[np.ndarray, " units"]], ...]
    """The mask of each size, the largest first."""
    lost: float
    """Share of the variance of the model's answers that the smallest mask loses, on all images that it was learned
    on."""
    steps: int
    """Steps that were taken."""
    seed: int


def learn_masks(
    runs: Gated,
    answers: Answers,
    own: Bool[np.ndarray, " images"],
    sizes: Sequence[float],
    settings: MaskSettings = MaskSettings(),
    *,
    fixed: Mapping[str, Bool[np.ndarray, " units"]] | None = None,
    start: Mapping[str, np.ndarray] | None = None,
    progress: bool = False,
) -> list[LearnedMask]:
    """Learn one mask per restart, best first.

    Args:
        runs: The images, with what is gated: units (`GatedRuns`), edges, or whatever else runs under gates.
        answers: What of the embeddings is to be kept.
        own: Which images are of the class.
        sizes: Shares of the gated units to keep; of several, the masks are learned one after the other by falling size.
        settings: Steps, noise, restarts.
        fixed: By site, units whose gate is not learned, with the gate that they have: error units of a feature basis.
        start: By site, scores of a ranking to start from; the larger in absolute value, the rather kept.
        progress: Show a bar with the time left.

    Raises:
        InputError: for a size outside (0, 1], answers that are not [images, answers], or that do not differ, and steps
            of a single image where there are others.
    """
    if not sizes or not all(0 < size <= 1 for size in sizes):
        raise InputError(f"The size of a mask is a share of the units in (0, 1], but {list(sizes)} was given.")
    learning = _Learning(runs, answers, own, settings, fixed or {}, start)
    total = settings.restarts * settings.steps
    with tqdm(total=total, desc="masks", unit="step", disable=not progress, leave=False) as bar:
        found = [learning.train(sorted(sizes, reverse=True), settings.seed + i, bar) for i in range(settings.restarts)]
    return sorted(found, key=lambda mask: mask.lost)


IMPORTANCE_IMAGES = 24
"""Images of the class, and others, that importance is measured on at most."""


class _Learning:
    """What all restarts share."""

    def __init__(
        self,
        runs: Gated,
        answers: Answers,
        own: np.ndarray,
        settings: MaskSettings,
        fixed: Mapping[str, np.ndarray],
        start: Mapping[str, np.ndarray] | None,
    ) -> None:
        self.runs, self.answers, self.settings = runs, answers, settings
        self.device = runs.embeddings.device
        self.fixed = {site: fixed.get(site, np.zeros(0, dtype=bool)) for site in runs.sites}
        self.sizes = [n - len(self.fixed[site]) for site, n in runs.n_units.items()]
        self.target = answers(runs.embeddings).detach()
        if self.target.dim() != 2 or len(self.target) != len(runs):
            raise InputError(
                f"Answers map embeddings [images, d] to [images, answers], but {list(self.target.shape)} came for "
                f"{len(runs)} images."
            )
        self.variance = float((self.target - self.target.mean(0)).square().sum(1).mean())
        if not self.variance > 0:
            raise InputError(
                "A mask keeps what tells images apart, but the model's answers are the same for all of these: give "
                "images of other classes, or more of this one."
            )
        sides = [np.flatnonzero(own), np.flatnonzero(~own)]
        self.sides = [torch.from_numpy(side) for side in sides if len(side)]
        if settings.batch_size < len(self.sides):
            raise InputError(
                f"A step draws images of the class and of others, but batch_size={settings.batch_size} leaves none for "
                f"one of them: take at least {len(self.sides)}."
            )
        self.first = self._first(start)

    def _first(self, start: Mapping[str, np.ndarray] | None) -> Tensor:
        """Return the scores that training begins with: normal quantiles of the ranks of importance, or of a ranking."""
        if start is None:
            return self.settings.start_weight * normal_ranks(self._importance())
        parts = []
        for site, n in zip(self.runs.sites, self.sizes, strict=True):
            if site not in start or len(start[site]) != n:
                given = len(start[site]) if site in start else 0
                raise InputError(
                    f"A ranking to start from has a score for each of the {n} units of site {site!r}, but {given} "
                    "were given: start from scores of this encoder at the same sites."
                )
            parts.append(normal_ranks(torch.from_numpy(np.abs(start[site]))))
        return (self.settings.start_weight * torch.cat(parts)).to(self.device)

    def _importance(self) -> Tensor:
        """Return the squared change of the answers by each gate, images of the class and others alike in weight."""
        generator = torch.Generator().manual_seed(0)  # restarts begin alike

        def answers_under(gates: Tensor, places: Tensor) -> Tensor:
            return self.answers(self.runs.run(self._by_site(gates), places))

        whole = torch.ones(sum(self.sizes), device=self.device)
        sides = [side[:IMPORTANCE_IMAGES].tolist() for side in self.sides]
        found = [answer_changes(answers_under, whole, side, generator) for side in sides]
        return torch.stack(found).mean(0)

    def train(self, sizes: Sequence[float], seed: int, bar: tqdm) -> LearnedMask:  # type: ignore[type-arg]
        generator = torch.Generator().manual_seed(seed)
        scores = self.first.clone().requires_grad_()
        descent, path = NormedDescent(self.settings.learning_rate), list[Tensor]()
        steps = self.settings.steps // max(1, sum(size < 1 for size in sizes)) or 1
        for larger, size in pairwise([1.0, *sizes]):
            if size < 1:
                self._shrink(scores, (larger, size), descent, generator, bar, steps)
            path.append(_largest(scores.detach(), self._count(size)))
        return LearnedMask(
            self._arrays(scores.detach() - scores.detach()[path[-1]].min()),
            tuple(self._arrays(mask) for mask in path),
            self.measure(path[-1].float()),
            descent.steps,
            seed,
        )

    def _shrink(
        self,
        scores: Tensor,
        sizes: tuple[float, float],
        descent: NormedDescent,
        generator: torch.Generator,
        bar: tqdm,  # type: ignore[type-arg]
        steps: int,
    ) -> None:
        """Train the scores while the size falls from the first to the second, and then stays."""
        settings, best, since = self.settings, float("inf"), 0
        smoothed: float | None = None
        for share, left in _schedule(*sizes, steps, settings.shrinking):
            noise = torch.rand(len(scores), generator=generator).clamp(1e-6, 1 - 1e-6).logit().to(self.device)
            noisy = scores + settings.noise * left * noise
            gates = torch.sigmoid(noisy - _threshold(noisy.detach(), self._count(share)))
            chosen = self._draw(generator)
            with self._precision():
                embeddings = self.runs.run(self._by_site(gates), chosen)
            loss = self._lost(embeddings.to(self.target.dtype), chosen)
            descent.step(scores, torch.autograd.grad(loss, [scores])[0])
            bar.update()
            now = float(loss.detach())
            bar.set_postfix_str(f"{share:.0%} of the units, loses {now:.2f}", refresh=False)
            if left > 0:
                continue
            smoothed = now if smoothed is None else 0.9 * smoothed + 0.1 * now
            best, since = (smoothed, 0) if smoothed < best else (best, since + 1)
            if since >= settings.patience:
                break

    def _count(self, share: float) -> int:
        return max(1, round(share * len(self.first)))

    def measure(self, gates: Tensor) -> float:
        """Return the share of the answers' variance that is lost, over all images."""
        with torch.no_grad():
            parts = torch.split(torch.arange(len(self.runs)), self.runs.rows)
            sums = [float(self._lost(self.runs.run(self._by_site(gates), some), some)) * len(some) for some in parts]
        return sum(sums) / len(self.runs)

    def _precision(self) -> AbstractContextManager[Any]:
        name = self.settings.autocast
        return nullcontext() if name is None else torch.autocast(self.device.type, dtype=getattr(torch, name))

    def _draw(self, generator: torch.Generator) -> Tensor:
        """Return the images of a step: as many of the class as of others, as far as there are."""
        left, parts = min(self.settings.batch_size, len(self.runs)), list[Tensor]()
        for i, side in enumerate(sorted(self.sides, key=len)):
            n = min(len(side), left // (len(self.sides) - i))
            parts.append(side[torch.randperm(len(side), generator=generator)[:n]])
            left -= n
        return torch.cat(parts)

    def _lost(self, embeddings: Tensor, chosen: Tensor) -> Tensor:
        return (self.answers(embeddings) - self.target[chosen]).square().sum(1).mean() / self.variance

    def _by_site(self, gates: Tensor) -> dict[str, Tensor]:
        parts = dict(zip(self.runs.sites, torch.split(gates, self.sizes), strict=True))
        return {site: torch.cat([part, torch.from_numpy(self.fixed[site]).to(part)]) for site, part in parts.items()}

    def _arrays(self, values: Tensor) -> dict[str, np.ndarray]:
        parts = torch.split(values.cpu(), self.sizes)
        return {site: part.numpy().copy() for site, part in zip(self.runs.sites, parts, strict=True)}


def _schedule(larger: float, size: float, steps: int, shrinking: float) -> Iterator[tuple[float, float]]:
    """Yield the share of the units that is kept at each step, and how much of the shrinking is left.

    The last step has the smaller size; a single one has the larger.
    """
    falling = max(1, min(round(shrinking * steps), steps - 1))
    for step in range(steps):
        done = min(1.0, step / falling)
        yield larger * (size / larger) ** done, 1 - done


def _threshold(scores: Tensor, k: int) -> Tensor:
    """Return the middle between the k-th largest score and the next; the least, where all are kept."""
    return scores.topk(min(k + 1, len(scores))).values[k - 1 :].mean()


def _largest(scores: Tensor, k: int) -> Tensor:
    """Return a mask of the k largest scores, the first among equals."""
    kept = torch.zeros(len(scores), dtype=torch.bool, device=scores.device)
    kept[torch.argsort(-scores, stable=True)[:k]] = True
    return kept
